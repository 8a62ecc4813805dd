//! What is trained: adapters on a frozen base, and how the network's weights come from them.
//!
//! Of a parameter with base value `W0` (and merged residual `R` of earlier rounds) the forward pass uses
//!
//! ```text
//! W = (1 + g) * (W0 + R + D + s B A)      B [out, r], A [r, in], s = alpha / rank
//! ```
//!
//! with any of: `s B A` low rank (LoRA, arXiv 2106.09685; FFA-LoRA, 2403.12313, keeps `A` at its random start and sends only `B`), `D` a
//! full change, `g` one trained factor per ternary matrix. FedKSeed (2312.06353) trains one number a for each of `K` fixed directions instead,
//! `W = W0 + R + sum_j a_j z_j` (see [`crate::seeds`]); prompt tuning (2104.08691) trains vectors in front of every sequence's embeddings and nothing
//! else. A network that ternarises (see [`Forward`]) uses the ternary form of `W`, and gradients
//! pass straight through, so that what is trained is exactly what is served.
//!
//! Gradients: `dB = s dW Aᵀ`, `dA = s Bᵀ dW`, `dD = dW`, `dg = <dW, W / (1 + g)>`, `da_j = <dW, z_j>`.

mod method;
#[cfg(test)]
mod tests;

use tacit_bitnet::train::{Network, Penalties, Role};

use crate::linalg::{add_product, product_transposed, transposed_product};
use crate::random::{below, stream, unit};
use crate::seeds;
use crate::{FederatedError, NamedTensors};
pub use method::{Forward, Kind, Method};

/// What is trained of one parameter.
#[derive(Clone, Debug)]
struct Part {
    index: usize,
    name: String,
    rows: usize,
    cols: usize,
    /// Fixed `A` of FFA-LoRA, `[rank, cols]`.
    fixed_a: Option<Vec<f32>>,
    low_rank: bool,
    delta: bool,
    /// Whether FedKSeed moves it.
    seeded: bool,
    /// Number of ternary matrices with a factor each; 0 for none.
    scales: usize,
}

/// A base network and what is trained on it.
#[derive(Clone, Debug)]
pub struct Tuner {
    base: Network,
    parts: Vec<Part>,
    method: Method,
    seed: u64,
    wanted: Vec<bool>,
}

/// Name of FedKSeed's tensor: how far the network has moved along each direction.
pub(crate) const SEEDS: &str = "seeds";

/// Where a prompt begins: at the embeddings of tokens drawn by seed.
fn first_prompt(base: &Network, rows: usize, seed: u64) -> Vec<f32> {
    let mut rng = stream(seed, "first prompt", &[]);
    let table = base.parameters().find(|p| p.role == Role::Embedding);
    table.map_or_else(Vec::new, |t| {
        (0..rows)
            .flat_map(|_| {
                let at = below(&mut rng, t.rows) * t.cols;
                &t.values[at..at + t.cols]
            })
            .copied()
            .collect()
    })
}

/// Name of a low-rank factor.
pub(crate) fn factor(parameter: &str, which: char) -> String {
    format!("{parameter}.lora_{which}")
}

impl Tuner {
    /// Puts adapters on `base`, which is ternarised in the forward pass or not as `method` says.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] when the method does not fit the network.
    pub fn new(mut base: Network, method: &Method, seed: u64) -> Result<Self, FederatedError> {
        match (method.forward, base.is_quantised()) {
            // The weights stay as they are: nothing is gained by ternarising them again in every pass.
            (_, true) if method.kind == Kind::Prompt => base = base.as_exported(),
            (_, false) if method.kind == Kind::Prompt => {}
            (Forward::Ternary, false) => base.make_masters(seed)?,
            (Forward::Float, true) => base = base.as_exported(),
            _ => {}
        }
        if method.kind == Kind::Prompt {
            let rows = first_prompt(&base, method.prompt, seed);
            base.set_prompt(rows)?;
        }
        let mut parts = Vec::new();
        for (index, p) in base.parameters().enumerate() {
            let short = p.name.rsplit('.').next().unwrap_or(p.name);
            let prompt = method.kind == Kind::Prompt;
            let targeted = !prompt && method.targets.iter().any(|t| t == short);
            let vector = !prompt && method.vectors && p.role == Role::Vector;
            let seeded = method.kind == Kind::FedKSeed;
            let prompt = p.role == Role::Prompt;
            let scales = match p.role {
                Role::Linear { parts } if method.scales => parts,
                _ => 0,
            };
            if !(targeted || vector || prompt || scales > 0) {
                continue;
            }
            let low_rank = targeted && matches!(method.kind, Kind::Lora | Kind::FfaLora);
            parts.push(Part {
                index,
                name: p.name.to_owned(),
                rows: p.rows,
                cols: p.cols,
                fixed_a: (low_rank && method.kind == Kind::FfaLora)
                    .then(|| random_a(seed, p.name, 0, method.rank, p.cols)),
                low_rank,
                delta: prompt || !seeded && (vector || targeted && method.kind == Kind::Full),
                seeded,
                scales,
            });
        }
        let mut wanted = vec![false; base.parameters().len()];
        for p in &parts {
            wanted[p.index] = true;
        }
        Ok(Self {
            base,
            parts,
            method: method.clone(),
            seed,
            wanted,
        })
    }

    /// The base network.
    pub fn base(&self) -> &Network {
        &self.base
    }

    /// The frozen `A` of FFA-LoRA for a parameter, row-major, and its rank.
    pub fn fixed_a(&self, parameter: &str) -> Option<(&[f32], usize)> {
        let part = self.parts.iter().find(|p| p.name == parameter)?;
        let a = part.fixed_a.as_deref()?;
        Some((a, a.len() / part.cols.max(1)))
    }

    /// What is trained.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// `alpha / rank`.
    pub fn scale(&self) -> f32 {
        self.method.alpha / self.method.rank.max(1) as f32
    }

    /// The start of round `round` for an adapter of rank `rank`: `A` uniform in `±1 / sqrt(in)`, everything else 0. Deterministic by seed; only
    /// stacking (FLoRA) begins anew in every round.
    ///
    /// # Errors
    /// Never for the tuner's own layout.
    pub fn initial(&self, rank: usize, round: u64) -> Result<NamedTensors, FederatedError> {
        let mut t = NamedTensors::new();
        if self.method.kind == Kind::FedKSeed {
            t.insert(SEEDS, &[self.method.seeds], vec![0.0; self.method.seeds])?;
        }
        for p in &self.parts {
            if p.low_rank {
                if p.fixed_a.is_none() {
                    let a = random_a(self.seed, &p.name, round, rank, p.cols);
                    t.insert(factor(&p.name, 'a'), &[rank, p.cols], a)?;
                }
                t.insert(
                    factor(&p.name, 'b'),
                    &[p.rows, rank],
                    vec![0.0; p.rows * rank],
                )?;
            }
            if p.delta {
                t.insert(
                    format!("{}.delta", p.name),
                    &[p.rows, p.cols],
                    vec![0.0; p.rows * p.cols],
                )?;
            }
            if p.scales > 0 {
                t.insert(
                    format!("{}.scale", p.name),
                    &[p.scales],
                    vec![0.0; p.scales],
                )?;
            }
        }
        Ok(t)
    }

    /// Number of values of [`Tuner::initial`], without making them.
    pub fn count(&self, rank: usize) -> u64 {
        let seeds = match self.method.kind {
            Kind::FedKSeed => self.method.seeds as u64,
            _ => 0,
        };
        let of = |p: &Part| {
            let (rows, cols, rank) = (p.rows as u64, p.cols as u64, rank as u64);
            let a = if p.fixed_a.is_none() { rank * cols } else { 0 };
            let low = if p.low_rank { a + rows * rank } else { 0 };
            let delta = if p.delta { rows * cols } else { 0 };
            low + delta + p.scales as u64
        };
        seeds + self.parts.iter().map(of).sum::<u64>()
    }

    /// Names and sizes `(name, out, in)` of the parameters with trained low-rank factors `B` and `A`.
    pub fn low_rank(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.parts
            .iter()
            .filter(|p| p.low_rank && p.fixed_a.is_none())
            .map(|p| (p.name.as_str(), p.rows, p.cols))
    }

    /// Writes the weights of `state` on top of `residual` (dense changes by parameter name) into `network`, a clone of the base.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when a tensor is missing or has the wrong shape.
    pub fn write(
        &self,
        state: &NamedTensors,
        residual: &NamedTensors,
        network: &mut Network,
    ) -> Result<(), FederatedError> {
        let base: Vec<&[f32]> = self.base.parameters().map(|p| p.values).collect();
        for p in &self.parts {
            let w = network.values_mut(p.index);
            w.copy_from_slice(base[p.index]);
            if let Some(r) = residual.get(&p.name) {
                self.shape(p, &r.name, &r.shape, &[p.rows, p.cols])?;
                w.iter_mut().zip(&r.values).for_each(|(w, r)| *w += r);
            }
            if p.seeded {
                let a = self.tensor(p, state, SEEDS, &[self.method.seeds])?;
                for (j, &a) in a.iter().enumerate().filter(|(_, a)| **a != 0.0) {
                    seeds::add(w, a, self.seed, p.index, j);
                }
            }
            if p.low_rank {
                let (a, b, rank) = self.factors(p, state)?;
                add_product(w, self.scale(), b, a, (p.rows, rank, p.cols));
            }
            if p.delta {
                let d = self.tensor(p, state, &format!("{}.delta", p.name), &[p.rows, p.cols])?;
                w.iter_mut().zip(d).for_each(|(w, d)| *w += d);
            }
            if p.scales > 0 {
                let g = self.tensor(p, state, &format!("{}.scale", p.name), &[p.scales])?;
                let n = w.len() / p.scales;
                for (w, g) in w.chunks_mut(n).zip(g) {
                    w.iter_mut().for_each(|w| *w *= 1.0 + g);
                }
            }
        }
        Ok(())
    }

    /// Moves a network by `step` along direction number `direction` of FedKSeed.
    pub(crate) fn displace(&self, network: &mut Network, direction: usize, step: f32) {
        for p in self.parts.iter().filter(|p| p.seeded) {
            seeds::add(
                network.values_mut(p.index),
                step,
                self.seed,
                p.index,
                direction,
            );
        }
    }

    /// The network with the weights of `state` and `residual`.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn network(
        &self,
        state: &NamedTensors,
        residual: &NamedTensors,
    ) -> Result<Network, FederatedError> {
        let mut n = self.base.clone();
        self.write(state, residual, &mut n)?;
        Ok(n)
    }

    fn shape(
        &self,
        p: &Part,
        name: &str,
        found: &[usize],
        expected: &[usize],
    ) -> Result<(), FederatedError> {
        if found == expected {
            return Ok(());
        }
        Err(FederatedError::Layout {
            what: format!("adapter of {}", p.name),
            tensor: name.into(),
            expected: format!("{expected:?}"),
            found: format!("{found:?}"),
            remedy: "both ends must use the same model and adapter settings".into(),
        })
    }

    fn tensor<'a>(
        &self,
        p: &Part,
        state: &'a NamedTensors,
        name: &str,
        shape: &[usize],
    ) -> Result<&'a [f32], FederatedError> {
        let found = state.get(name).map_or(&[][..], |t| &t.shape);
        if found != shape || state.get(name).is_none() {
            self.shape(
                p,
                name,
                if state.get(name).is_some() {
                    found
                } else {
                    &[usize::MAX]
                },
                shape,
            )?;
        }
        Ok(state.get(name).map_or(&[][..], |t| &t.values))
    }

    /// `(A, B, rank)` of a low-rank part.
    fn factors<'a>(
        &'a self,
        p: &'a Part,
        state: &'a NamedTensors,
    ) -> Result<(&'a [f32], &'a [f32], usize), FederatedError> {
        let name = factor(&p.name, 'b');
        let rank = state
            .get(&name)
            .and_then(|t| t.shape.get(1).copied())
            .unwrap_or(self.method.rank);
        let b = self.tensor(p, state, &name, &[p.rows, rank])?;
        match &p.fixed_a {
            Some(a) if a.len() == rank * p.cols => Ok((a, b, rank)),
            Some(_) => {
                self.shape(p, &name, &[p.rows, rank], &[p.rows, self.method.rank])?;
                Ok((&[], b, rank))
            }
            None => Ok((
                self.tensor(p, state, &factor(&p.name, 'a'), &[rank, p.cols])?,
                b,
                rank,
            )),
        }
    }

    /// Loss per token and gradient (in the layout of `state`) of sequences of one length.
    ///
    /// # Errors
    /// [`FederatedError::Training`] when the network refuses the batch.
    pub fn gradient(
        &self,
        network: &Network,
        state: &NamedTensors,
        inputs: &[u32],
        targets: &[u32],
        tokens: usize,
        penalties: &Penalties,
    ) -> Result<(f64, NamedTensors), FederatedError> {
        let step =
            network.loss_and_gradients(inputs, targets, tokens, penalties, &|i| self.wanted[i])?;
        let mut g = state.zeros_like();
        let put = |g: &mut NamedTensors, name: &str, values: &[f32]| {
            if let Some(v) = g.values_mut(name) {
                v.copy_from_slice(values);
            }
        };
        let weights: Vec<&[f32]> = network.parameters().map(|p| p.values).collect();
        for p in &self.parts {
            let mut dw = step.gradients[p.index].clone();
            if p.seeded
                && let Some(g) = g.values_mut(SEEDS)
            {
                for (j, g) in g.iter_mut().enumerate() {
                    *g += seeds::dot(&dw, self.seed, p.index, j);
                }
            }
            if p.scales > 0 {
                let factors = self.tensor(p, state, &format!("{}.scale", p.name), &[p.scales])?;
                let n = dw.len() / p.scales;
                let mut dg = Vec::with_capacity(p.scales);
                for ((dw, w), f) in dw
                    .chunks_mut(n)
                    .zip(weights[p.index].chunks(n))
                    .zip(factors)
                {
                    let dot: f64 = dw
                        .iter()
                        .zip(w)
                        .map(|(a, b)| f64::from(*a) * f64::from(*b))
                        .sum();
                    dg.push((dot / f64::from(1.0 + f)) as f32);
                    dw.iter_mut().for_each(|x| *x *= 1.0 + f);
                }
                put(&mut g, &format!("{}.scale", p.name), &dg);
            }
            if p.low_rank {
                let (a, b, rank) = self.factors(p, state)?;
                let s = self.scale();
                let db = product_transposed(s, &dw, a, (p.rows, p.cols, rank));
                put(&mut g, &factor(&p.name, 'b'), &db);
                if p.fixed_a.is_none() {
                    let da = transposed_product(s, b, &dw, (p.rows, rank, p.cols));
                    put(&mut g, &factor(&p.name, 'a'), &da);
                }
            }
            if p.delta {
                put(&mut g, &format!("{}.delta", p.name), &dw);
            }
        }
        Ok((step.loss, g))
    }
}

fn random_a(seed: u64, name: &str, round: u64, rank: usize, cols: usize) -> Vec<f32> {
    let mut rng = stream(seed, &format!("adapter {name}"), &[round]);
    let bound = 1.0 / (cols as f64).sqrt();
    (0..rank * cols)
        .map(|_| ((2.0 * unit(&mut rng) - 1.0) * bound) as f32)
        .collect()
}
