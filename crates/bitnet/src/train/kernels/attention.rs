//! Rotary embedding and causal attention, sigmoid or softmax.

use super::vector::{dot, exp, kernel, mat_mul, outside, sigmoid, simd, transpose};
use crate::train::AttentionKind;
use rayon::prelude::*;

/// Cosine and sine of the rotary embedding, `[context, head/2]` each.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// Angles `position * theta^(-2 j / head)`.
    pub fn new(context: usize, head: usize, theta: f64) -> Self {
        let angles = (0..context).flat_map(|p| {
            (0..head / 2).map(move |j| p as f64 * theta.powf(-2.0 * j as f64 / head as f64))
        });
        let (cos, sin) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        Self { cos, sin }
    }

    /// Rotates the pairs `(j, j + head/2)` of each row; `sign = -1` undoes it.
    #[inline(always)]
    fn rotate(&self, rows: &mut [f32], head: usize, sign: f32) {
        let half = head / 2;
        for (p, row) in rows.chunks_exact_mut(head).enumerate() {
            let (a, b) = row.split_at_mut(half);
            let (cos, sin) = (
                &self.cos[p * half..(p + 1) * half],
                &self.sin[p * half..(p + 1) * half],
            );
            for j in 0..half {
                let (x, y, s) = (a[j], b[j], sign * sin[j]);
                a[j] = x * cos[j] - y * s;
                b[j] = y * cos[j] + x * s;
            }
        }
    }
}

/// The attention of one layer: shapes, kind, and the penalty on its logits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub kind: AttentionKind,
    /// Tokens in each sequence.
    pub tokens: usize,
    pub heads: usize,
    pub head: usize,
    /// Range of `z + bias` that costs nothing (sigmoid only), over causal and masked entries.
    pub logit_range: (f32, f32),
    /// Weight of the mean squared excess.
    pub logit_weight: f32,
}

/// Arguments of the backward pass of one sequence.
type SequenceBackward<'a> = (
    &'a AttentionShape,
    &'a Rope,
    &'a [f32],
    &'a [f32],
    &'a [f32],
    f32,
    &'a mut [f32],
);

kernel!(BackwardSequence = AttentionShape::backward_sequence: SequenceBackward<'_> => (Vec<f32>, f64));
kernel!(ForwardSequence = AttentionShape::forward_sequence: (&AttentionShape, &Rope, &[f32], &[f32], &mut [f32]) => ());

/// Work space for one head of one sequence.
struct Head {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    kt: Vec<f32>,
    logits: Vec<f32>,
    weights: Vec<f32>,
}

impl AttentionShape {
    #[inline(always)]
    fn head_buffers(&self) -> Head {
        let (t, d) = (self.tokens, self.head);
        let b = |n| vec![0f32; n];
        Head {
            q: b(t * d),
            k: b(t * d),
            v: b(t * d),
            kt: b(t * d),
            logits: b(t * t),
            weights: b(t * t),
        }
    }

    /// Gathers and rotates q, k, v of head `h`, computes `z + bias` and the attention weights.
    #[inline(always)]
    fn weights(&self, rope: &Rope, qkv: &[f32], h: usize, bias: f32, s: &mut Head) {
        let (t, d, hidden) = (self.tokens, self.head, self.heads * self.head);
        for i in 0..t {
            let row = &qkv[i * 3 * hidden + h * d..];
            s.q[i * d..(i + 1) * d].copy_from_slice(&row[..d]);
            s.k[i * d..(i + 1) * d].copy_from_slice(&row[hidden..hidden + d]);
            s.v[i * d..(i + 1) * d].copy_from_slice(&row[2 * hidden..2 * hidden + d]);
        }
        rope.rotate(&mut s.q, d, 1.0);
        rope.rotate(&mut s.k, d, 1.0);
        transpose(t, d, &s.k, &mut s.kt);
        mat_mul(t, t, d, &s.q, &s.kt, &mut s.logits);
        let scale = 1.0 / (d as f32).sqrt();
        for i in 0..t {
            let z = &mut s.logits[i * t..(i + 1) * t];
            let a = &mut s.weights[i * t..(i + 1) * t];
            match self.kind {
                AttentionKind::Sigmoid => {
                    let b = bias - ((i + 1) as f32).ln();
                    for j in 0..t {
                        z[j] = z[j].mul_add(scale, b);
                        a[j] = sigmoid(z[j]);
                    }
                }
                AttentionKind::Softmax => {
                    let mut max = f32::NEG_INFINITY;
                    for x in &mut z[..=i] {
                        *x *= scale;
                        max = max.max(*x);
                    }
                    for j in 0..=i {
                        a[j] = exp(z[j] - max);
                    }
                    let r = 1.0 / a[..=i].iter().sum::<f32>();
                    for x in &mut a[..=i] {
                        *x *= r;
                    }
                }
            }
            a[i + 1..].fill(0.0);
        }
    }

    /// Attention over `qkv: [sequences * tokens, 3 * hidden]` with one bias per head. Returns `[sequences * tokens, hidden]`.
    pub fn forward(&self, rope: &Rope, qkv: &[f32], bias: &[f32]) -> Vec<f32> {
        let (t, hidden) = (self.tokens, self.heads * self.head);
        let mut out = vec![0f32; qkv.len() / 3];
        (
            out.par_chunks_mut(t * hidden),
            qkv.par_chunks(t * 3 * hidden),
        )
            .into_par_iter()
            .for_each(|(out, qkv)| simd(ForwardSequence, (self, rope, qkv, bias, out)));
        out
    }

    #[inline(always)]
    fn forward_sequence((shape, rope, qkv, bias, out): (&Self, &Rope, &[f32], &[f32], &mut [f32])) {
        let (t, d, hidden) = (shape.tokens, shape.head, shape.heads * shape.head);
        let mut s = shape.head_buffers();
        let mut o = vec![0f32; t * d];
        for (h, &b) in bias.iter().enumerate() {
            shape.weights(rope, qkv, h, b, &mut s);
            mat_mul(t, d, t, &s.weights, &s.v, &mut o);
            for i in 0..t {
                out[i * hidden + h * d..i * hidden + (h + 1) * d]
                    .copy_from_slice(&o[i * d..(i + 1) * d]);
            }
        }
    }

    /// Backward of [`forward`](Self::forward): `(gradient of qkv, gradient of the biases, penalty)`.
    pub fn backward(
        &self,
        rope: &Rope,
        qkv: &[f32],
        bias: &[f32],
        grad: &[f32],
    ) -> (Vec<f32>, Vec<f32>, f64) {
        let (t, hidden) = (self.tokens, self.heads * self.head);
        let mut out = vec![0f32; qkv.len()];
        let sequences = qkv.len() / (3 * hidden * t);
        let entries = (sequences * self.heads * t * t) as f32;
        let parts: Vec<(Vec<f32>, f64)> = (
            out.par_chunks_mut(t * 3 * hidden),
            qkv.par_chunks(t * 3 * hidden),
            grad.par_chunks(t * hidden),
        )
            .into_par_iter()
            .map(|(out, qkv, grad)| {
                simd(
                    BackwardSequence,
                    (self, rope, qkv, bias, grad, entries, out),
                )
            })
            .collect();
        let mut d_bias = vec![0f32; self.heads];
        let mut cost = 0.0;
        for (b, c) in &parts {
            cost += c;
            for (sum, x) in d_bias.iter_mut().zip(b) {
                *sum += x;
            }
        }
        (out, d_bias, cost)
    }

    #[inline(always)]
    fn backward_sequence(
        (this, rope, qkv, bias, grad, entries, out): SequenceBackward<'_>,
    ) -> (Vec<f32>, f64) {
        let (t, d, hidden) = (this.tokens, this.head, this.heads * this.head);
        let scale = 1.0 / (d as f32).sqrt();
        let penalty = 2.0 * this.logit_weight / entries;
        let (lo, hi) = this.logit_range;
        let mut s = this.head_buffers();
        let b = |n| vec![0f32; n];
        let (mut go, mut vt, mut dz, mut square, mut dq, mut dk, mut dv) = (
            b(t * d),
            b(t * d),
            b(t * t),
            b(t * t),
            b(t * d),
            b(t * d),
            b(t * d),
        );
        let mut d_bias = vec![0f32; this.heads];
        let mut cost = 0f64;
        for h in 0..this.heads {
            this.weights(rope, qkv, h, bias[h], &mut s);
            for i in 0..t {
                go[i * d..(i + 1) * d]
                    .copy_from_slice(&grad[i * hidden + h * d..i * hidden + (h + 1) * d]);
            }
            transpose(t, d, &s.v, &mut vt);
            mat_mul(t, t, d, &go, &vt, &mut dz);
            transpose(t, t, &s.weights, &mut square);
            mat_mul(t, d, t, &square, &go, &mut dv);
            for i in 0..t {
                let (dz, a, z) = (
                    &mut dz[i * t..(i + 1) * t],
                    &s.weights[i * t..(i + 1) * t],
                    &s.logits[i * t..(i + 1) * t],
                );
                match this.kind {
                    AttentionKind::Sigmoid => {
                        let (mut excess, mut sum) = ([0f32; 16], [0f32; 16]);
                        for ((dz, a), z) in dz.chunks_mut(16).zip(a.chunks(16)).zip(z.chunks(16)) {
                            for ((((x, s), dz), &a), &z) in
                                excess.iter_mut().zip(&mut sum).zip(dz).zip(a).zip(z)
                            {
                                let e = outside(z, lo, hi);
                                *x = e.mul_add(e, *x);
                                // a is 0 where masked, so only the penalty reaches masked entries.
                                let g = (*dz * a).mul_add(1.0 - a, e * penalty);
                                *s += g;
                                *dz = g * scale;
                            }
                        }
                        d_bias[h] += sum.iter().sum::<f32>();
                        cost += f64::from(excess.iter().sum::<f32>() * penalty * 0.5);
                    }
                    AttentionKind::Softmax => {
                        let mean = dot(dz, a);
                        for j in 0..t {
                            dz[j] = a[j] * (dz[j] - mean) * scale;
                        }
                    }
                }
            }
            mat_mul(t, d, t, &dz, &s.k, &mut dq);
            transpose(t, t, &dz, &mut square);
            mat_mul(t, d, t, &square, &s.q, &mut dk);
            rope.rotate(&mut dq, d, -1.0);
            rope.rotate(&mut dk, d, -1.0);
            for i in 0..t {
                let row = &mut out[i * 3 * hidden + h * d..];
                row[..d].copy_from_slice(&dq[i * d..(i + 1) * d]);
                row[hidden..hidden + d].copy_from_slice(&dk[i * d..(i + 1) * d]);
                row[2 * hidden..2 * hidden + d].copy_from_slice(&dv[i * d..(i + 1) * d]);
            }
        }
        (d_bias, cost)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{check, noise, weighted};
    use super::*;

    #[test]
    fn attention_gradients_with_penalty() {
        for kind in [AttentionKind::Sigmoid, AttentionKind::Softmax] {
            let shape = AttentionShape {
                kind,
                tokens: 7,
                heads: 2,
                head: 8,
                logit_range: (-1.5, 0.2),
                logit_weight: 20.0,
            };
            let rope = Rope::new(7, 8, 100.0);
            let x: Vec<f32> = noise(2 * 7 * 48, 7).iter().map(|v| v * 1.5).collect();
            let bias = [0.3, -0.2];
            let w = noise(2 * 7 * 16, 8);
            let f = |x: &[f32], b: &[f32]| {
                weighted(&shape.forward(&rope, x, b), &w) + shape.backward(&rope, x, b, &w).2
            };
            let (dx, db, cost) = shape.backward(&rope, &x, &bias, &w);
            assert!((cost > 0.1) == (kind == AttentionKind::Sigmoid));
            check(|x| f(x, &bias), &x, &dx, (0..x.len()).step_by(5));
            check(|b| f(&x, b), &bias, &db, 0..2);
        }
    }

    #[test]
    fn the_future_does_not_matter() {
        let shape = AttentionShape {
            kind: AttentionKind::Sigmoid,
            tokens: 6,
            heads: 1,
            head: 4,
            logit_range: (-9.0, 9.0),
            logit_weight: 0.0,
        };
        let rope = Rope::new(6, 4, 100.0);
        let mut x = noise(6 * 12, 9);
        let before = shape.forward(&rope, &x, &[0.0]);
        x[4 * 12..].iter_mut().for_each(|v| *v += 1.0);
        let after = shape.forward(&rope, &x, &[0.0]);
        assert_eq!(before[..16], after[..16]);
        assert_ne!(before[16..], after[16..]);
    }
}
