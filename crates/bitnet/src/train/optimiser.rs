//! AdamW, gradient clipping and the learning-rate schedule.

use super::TrainError;
use super::kernels::{kernel, simd, sum_of_squares};
use super::model::{Kind, Network, with_data};
use candle_core::Tensor;
use rayon::prelude::*;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.95;
const EPSILON: f64 = 1e-8;
/// Values updated by one task.
const CHUNK: usize = 1 << 14;

/// Learning rate at `step` (from 0): linear warm-up to `peak`, then a cosine down to `floor * peak` at `steps`.
pub fn learning_rate(step: usize, steps: usize, warmup: usize, peak: f64, floor: f64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let x = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    peak * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * x.min(1.0)).cos()))
}

/// First and second moments of AdamW, one pair per parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdamW {
    pub m: Vec<Vec<f32>>,
    pub v: Vec<Vec<f32>>,
}

impl AdamW {
    pub fn new(network: &Network) -> Self {
        let zeros = || {
            network
                .parameters
                .iter()
                .map(|p| vec![0f32; p.data.len()])
                .collect()
        };
        Self {
            m: zeros(),
            v: zeros(),
        }
    }

    /// One update (`step` counts from 0): gradients are scaled down to norm `clip`, linear weights decay by `lr * decay`.
    /// Returns the norm before clipping.
    pub fn update(
        &mut self,
        network: &mut Network,
        gradients: &[Option<Tensor>],
        step: usize,
        lr: f64,
        decay: f64,
        clip: f64,
    ) -> Result<f64, TrainError> {
        let mut square = 0f64;
        for g in gradients.iter().flatten() {
            square += with_data(g, sum_of_squares)?;
        }
        let norm = square.sqrt();
        let scale = (clip / norm.max(1e-12)).min(1.0) as f32;
        let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let rate = (lr * (1.0 - BETA2.powi(t)).sqrt() / (1.0 - BETA1.powi(t))) as f32;
        let epsilon = (EPSILON * (1.0 - BETA2.powi(t)).sqrt()) as f32;
        for (((p, g), m), v) in network
            .parameters
            .iter_mut()
            .zip(gradients)
            .zip(&mut self.m)
            .zip(&mut self.v)
        {
            let Some(g) = g else { continue };
            let shrink = if matches!(p.kind, Kind::Linear(_)) {
                (1.0 - lr * decay) as f32
            } else {
                1.0
            };
            with_data(g, |g| {
                (
                    p.data.par_chunks_mut(CHUNK),
                    g.par_chunks(CHUNK),
                    m.par_chunks_mut(CHUNK),
                    v.par_chunks_mut(CHUNK),
                )
                    .into_par_iter()
                    .for_each(|(w, g, m, v)| {
                        simd(
                            UpdateChunk,
                            (
                                w,
                                g,
                                m,
                                v,
                                Factors {
                                    scale,
                                    shrink,
                                    rate,
                                    epsilon,
                                },
                            ),
                        )
                    });
            })?;
        }
        Ok(norm)
    }
}

/// Numbers common to all values of a parameter.
#[derive(Clone, Copy)]
struct Factors {
    scale: f32,
    shrink: f32,
    rate: f32,
    epsilon: f32,
}

kernel!(UpdateChunk = update_chunk: (&mut [f32], &[f32], &mut [f32], &mut [f32], Factors) => ());

#[inline(always)]
fn update_chunk((w, g, m, v, f): (&mut [f32], &[f32], &mut [f32], &mut [f32], Factors)) {
    const B1: f32 = BETA1 as f32;
    const B2: f32 = BETA2 as f32;
    for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
        let g = g * f.scale;
        *m = B1 * *m + (1.0 - B1) * g;
        *v = B2 * *v + (1.0 - B2) * g * g;
        *w = *w * f.shrink - f.rate * *m / (v.sqrt() + f.epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainConfig;
    use candle_core::Device;

    #[test]
    fn the_schedule_warms_up_and_ends_at_the_floor() {
        let lr = |s| learning_rate(s, 1000, 100, 2.0, 0.1);
        assert!(
            (lr(0) - 0.02).abs() < 1e-12
                && (lr(99) - 2.0).abs() < 1e-12
                && (lr(100) - 2.0).abs() < 1e-12
        );
        assert!((lr(550) - 1.1).abs() < 1e-12);
        assert!((lr(1000) - 0.2).abs() < 1e-12 && (lr(5000) - 0.2).abs() < 1e-12);
        assert!((100..1000).all(|s| lr(s + 1) < lr(s)));
        assert!(learning_rate(0, 1, 0, 1.0, 0.1).is_finite());
    }

    #[test]
    fn the_first_update_moves_by_the_rate_against_the_gradient_and_decays_only_linear_weights() {
        let c = TrainConfig {
            hidden: 8,
            layers: 1,
            heads: 2,
            ffn: 8,
            vocab: 300,
            context: 4,
            ..TrainConfig::default()
        };
        let mut net = Network::new(&c);
        let before = net.clone();
        let gradients: Vec<Option<Tensor>> = net
            .parameters
            .iter()
            .map(|p| Some(Tensor::full(-0.5f32, (p.rows, p.cols), &Device::Cpu).unwrap()))
            .collect();
        let mut adam = AdamW::new(&net);
        let norm = adam
            .update(&mut net, &gradients, 0, 0.01, 0.5, 1.0)
            .unwrap();
        assert!((norm - 0.5 * (net.size() as f64).sqrt()).abs() < 1e-3 * norm);
        for (a, b) in net.parameters.iter().zip(&before.parameters) {
            let shrink = if matches!(a.kind, Kind::Linear(_)) {
                0.995
            } else {
                1.0
            };
            assert!(
                a.data
                    .iter()
                    .zip(&b.data)
                    .all(|(x, y)| (x - (y * shrink + 0.01)).abs() < 1e-5),
                "{}",
                a.name
            );
        }
    }
}
