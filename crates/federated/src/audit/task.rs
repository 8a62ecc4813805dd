//! A small real learning task: softmax regression on a generated mixture, so that an attack's effect is measured, not assumed.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// Labelled vectors, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// `len × features`.
    pub inputs: Vec<f32>,
    /// A class each.
    pub labels: Vec<usize>,
}

impl Data {
    /// Examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Softmax regression: `classes × features` weights and `classes` biases in one flat vector, classes drawn about random centres.
#[derive(Clone, Debug)]
pub struct SoftmaxTask {
    features: usize,
    classes: usize,
    centres: Vec<f32>,
    spread: f32,
}

/// A source of normal and uniform numbers.
pub(crate) struct Random(ChaCha20Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    pub fn normal(&mut self) -> f64 {
        let r = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        r * (std::f64::consts::TAU * self.unit()).cos()
    }
}

impl SoftmaxTask {
    /// `classes` Gaussian clouds of deviation `spread` about centres of unit deviation, in `features` dimensions.
    pub fn new(features: usize, classes: usize, spread: f32, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            features,
            classes,
            centres: (0..classes * features)
                .map(|_| random.normal() as f32)
                .collect(),
            spread,
        }
    }

    /// Features of an input.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Length of the flat parameter vector.
    pub fn parameters(&self) -> usize {
        self.classes * (self.features + 1)
    }

    /// `len` examples; with `favourites`, half of them come from these classes (clients that differ).
    pub fn sample(&self, len: usize, favourites: &[usize], seed: u64) -> Data {
        let mut random = Random::new(seed);
        let mut data = Data::default();
        for _ in 0..len {
            let class = if !favourites.is_empty() && random.unit() < 0.5 {
                favourites[random.below(favourites.len())]
            } else {
                random.below(self.classes)
            };
            let centre = &self.centres[class * self.features..(class + 1) * self.features];
            data.inputs.extend(
                centre
                    .iter()
                    .map(|c| c + self.spread * random.normal() as f32),
            );
            data.labels.push(class);
        }
        data
    }

    fn probabilities(&self, model: &[f32], input: &[f32]) -> Vec<f64> {
        let bias = &model[self.classes * self.features..];
        let logits: Vec<f64> = model[..self.classes * self.features]
            .chunks_exact(self.features)
            .zip(bias)
            .map(|(w, &b)| {
                f64::from(b)
                    + w.iter()
                        .zip(input)
                        .map(|(a, x)| f64::from(a * x))
                        .sum::<f64>()
            })
            .collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|l| (l - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|w| w / total).collect()
    }

    /// The class that a model gives each input.
    pub fn predict(&self, model: &[f32], data: &Data) -> Vec<usize> {
        data.inputs
            .chunks_exact(self.features)
            .map(|x| {
                let p = self.probabilities(model, x);
                (0..self.classes)
                    .max_by(|&a, &b| p[a].total_cmp(&p[b]))
                    .unwrap_or(0)
            })
            .collect()
    }

    /// Share of right answers.
    pub fn accuracy(&self, model: &[f32], data: &Data) -> f64 {
        let right = self
            .predict(model, data)
            .iter()
            .zip(&data.labels)
            .filter(|(a, b)| a == b)
            .count();
        right as f64 / data.len().max(1) as f64
    }

    /// `−ln p(label)` of each example.
    pub fn losses(&self, model: &[f32], data: &Data) -> Vec<f64> {
        data.inputs
            .chunks_exact(self.features)
            .zip(&data.labels)
            .map(|(x, &y)| -self.probabilities(model, x)[y].max(1e-300).ln())
            .collect()
    }

    /// The gradient of one example's loss.
    pub fn gradient(&self, model: &[f32], input: &[f32], label: usize) -> Vec<f32> {
        let p = self.probabilities(model, input);
        let mut out = Vec::with_capacity(self.parameters());
        let delta: Vec<f32> = p
            .iter()
            .enumerate()
            .map(|(c, p)| (p - f64::from(u8::from(c == label))) as f32)
            .collect();
        for d in &delta {
            out.extend(input.iter().map(|x| d * x));
        }
        out.extend(&delta);
        out
    }

    /// Full-batch gradient descent; gives the update (new minus old).
    pub fn train(&self, model: &[f32], data: &Data, steps: usize, rate: f32) -> Vec<f32> {
        let mut now = model.to_vec();
        for _ in 0..steps {
            let mut sum = vec![0.0f32; now.len()];
            for (x, &y) in data.inputs.chunks_exact(self.features).zip(&data.labels) {
                for (s, g) in sum.iter_mut().zip(self.gradient(&now, x, y)) {
                    *s += g;
                }
            }
            let factor = rate / data.len().max(1) as f32;
            for (w, s) in now.iter_mut().zip(&sum) {
                *w -= factor * s;
            }
        }
        now.iter().zip(model).map(|(a, b)| a - b).collect()
    }
}
