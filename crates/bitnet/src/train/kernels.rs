//! The element-wise pieces of the model, forward and backward, on plain slices.
//!
//! Everything here is row-major `f32`, parallel over rows or sequences with rayon, and compiled for the vector width of the
//! machine it runs on ([`pulp::Arch`] picks it at run time). The result does not depend on the number of threads: every sum is
//! taken per row or per sequence and then added up in order.
//!
//! The range penalties are part of the backward passes: a function `P` of an intermediate value adds `weight * dP/dvalue` to the
//! gradient that flows through it, which is what adding `weight * P` to the loss does, without a second pass over the data.

use super::AttentionKind;
use rayon::prelude::*;

/// Rows handled by one task.
const ROWS: usize = 64;

/// An `#[inline(always)]` function with a name that can be passed as a type.
///
/// Functions and closures themselves will not do: calling them through a generic parameter compiles them once, for the baseline
/// instructions, instead of into each caller.
pub(crate) trait Kernel<A> {
    type Output;
    fn run(arguments: A) -> Self::Output;
}

macro_rules! kernel {
    ($name:ident = $function:path: $arguments:ty => $output:ty) => {
        struct $name;
        impl $crate::train::kernels::Kernel<$arguments> for $name {
            type Output = $output;
            #[inline(always)]
            fn run(arguments: $arguments) -> $output {
                $function(arguments)
            }
        }
    };
}
pub(crate) use kernel;

/// A kernel with its arguments.
struct Call<K, A>(std::marker::PhantomData<K>, A);

impl<A, K: Kernel<A>> pulp::WithSimd for Call<K, A> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) -> K::Output {
        K::run(self.1)
    }
}

/// Runs a kernel compiled for the widest vector instructions of this machine.
#[inline(always)]
pub(crate) fn simd<A, K: Kernel<A>>(_kernel: K, arguments: A) -> K::Output {
    pulp::Arch::new().dispatch(Call(std::marker::PhantomData::<K>, arguments))
}

/// `x += y`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    kernel!(Add = kernel: (&mut [f32], &[f32]) => ());

    #[inline(always)]
    fn kernel((x, y): (&mut [f32], &[f32])) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
    x.par_chunks_mut(1 << 14)
        .zip(y.par_chunks(1 << 14))
        .for_each(|(x, y)| simd(Add, (x, y)));
}

/// Sum of squares, in chunks.
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    kernel!(Squares = kernel: &[f32] => f32);

    #[inline(always)]
    fn kernel(x: &[f32]) -> f32 {
        dot(x, x)
    }
    let parts: Vec<f64> = x
        .par_chunks(1 << 12)
        .map(|c| f64::from(simd(Squares, c)))
        .collect();
    parts.iter().sum()
}

/// `e^x` to about 2 units in the last place for |x| < 87, without branches, so that loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
    let x = x.clamp(-87.0, 88.0);
    let t = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = t - MAGIC;
    let f = n.mul_add(-0.693_359_4, x);
    let f = n.mul_add(2.121_944_4e-4, f);
    let p = f.mul_add(1.987_569_1e-4, 1.398_199_9e-3);
    let p = f.mul_add(p, 8.333_452e-3);
    let p = f.mul_add(p, 4.166_579_6e-2);
    let p = f.mul_add(p, 1.666_666_5e-1);
    let p = f.mul_add(p, 0.5);
    let p = (f * f).mul_add(p, f) + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(t.to_bits() << 23))
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Distance of `x` from `[lo, hi]`, signed.
#[inline(always)]
fn outside(x: f32, lo: f32, hi: f32) -> f32 {
    (x - hi).max(0.0) + (x - lo).min(0.0)
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (ca, cb) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = ca
        .remainder()
        .iter()
        .zip(cb.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in ca.zip(cb) {
        for j in 0..16 {
            lanes[j] = x[j].mul_add(y[j], lanes[j]);
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// `c = a b` with `a: m x k`, `b: k x n`.
#[inline(always)]
fn mat_mul(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    const W: usize = 32;
    let wide = n - n % W;
    for j0 in (0..wide).step_by(W) {
        let mut i = 0;
        while i < m {
            let rows = if i + 4 <= m { 4 } else { 1 };
            let mut acc = [[0f32; W]; 4];
            if rows == 4 {
                for l in 0..k {
                    let b: &[f32] = &b[l * n + j0..l * n + j0 + W];
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let x = a[(i + r) * k + l];
                        for j in 0..W {
                            acc[j] = x.mul_add(b[j], acc[j]);
                        }
                    }
                }
            } else {
                for l in 0..k {
                    let b = &b[l * n + j0..l * n + j0 + W];
                    let x = a[i * k + l];
                    for j in 0..W {
                        acc[0][j] = x.mul_add(b[j], acc[0][j]);
                    }
                }
            }
            for r in 0..rows {
                c[(i + r) * n + j0..(i + r) * n + j0 + W].copy_from_slice(&acc[r]);
            }
            i += rows;
        }
    }
    for i in 0..m {
        for j in wide..n {
            c[i * n + j] = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
        }
    }
}

#[inline(always)]
fn transpose(rows: usize, cols: usize, a: &[f32], out: &mut [f32]) {
    for i in 0..rows {
        for j in 0..cols {
            out[j * rows + i] = a[i * cols + j];
        }
    }
}

/// How a norm is kept within reach of a low-degree inverse square root.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NormPenalty {
    /// Centre of the wanted range of `ln(mean square + eps)`.
    pub centre: f32,
    /// Half width of the range that costs nothing.
    pub width: f32,
    /// Weight of the mean squared excess of `ln(mean square + eps)`; 0 switches it off.
    pub weight: f32,
    /// Largest magnitude of a normalised value that costs nothing.
    pub peak: f32,
    /// Weight of the mean squared excess over `peak`.
    pub peak_weight: f32,
}

/// RMSNorm with gain 1: `y = x / sqrt(mean(x^2) + eps)` for rows of `width`. Returns `(y, 1/sqrt(..) per row)`.
pub(crate) fn rms_norm(x: &[f32], width: usize, eps: f32) -> (Vec<f32>, Vec<f32>) {
    let mut y = vec![0f32; x.len()];
    let mut inverse = vec![0f32; x.len() / width];
    (
        y.par_chunks_mut(width * ROWS),
        x.par_chunks(width * ROWS),
        inverse.par_chunks_mut(ROWS),
    )
        .into_par_iter()
        .for_each(|(y, x, inverse)| simd(NormRows, (y, x, inverse, width, eps)));
    (y, inverse)
}

kernel!(NormRows = rms_norm_rows: (&mut [f32], &[f32], &mut [f32], usize, f32) => ());

#[inline(always)]
fn rms_norm_rows((y, x, inverse, width, eps): (&mut [f32], &[f32], &mut [f32], usize, f32)) {
    for ((y, x), inverse) in y
        .chunks_exact_mut(width)
        .zip(x.chunks_exact(width))
        .zip(inverse)
    {
        let r = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
        *inverse = r;
        for (y, x) in y.iter_mut().zip(x) {
            *y = x * r;
        }
    }
}

/// Backward of [`rms_norm`]: adds the gradient with respect to `x` to `dx` and returns the penalty (weights applied).
pub(crate) fn rms_norm_backward(
    y: &[f32],
    inverse: &[f32],
    dy: &[f32],
    width: usize,
    penalty: NormPenalty,
    dx: &mut [f32],
) -> f64 {
    let rows = inverse.len();
    let parts: Vec<f64> = (
        dx.par_chunks_mut(width * ROWS),
        y.par_chunks(width * ROWS),
        dy.par_chunks(width * ROWS),
        inverse.par_chunks(ROWS),
    )
        .into_par_iter()
        .map(|(dx, y, dy, inverse)| simd(NormBackward, (dx, y, dy, inverse, width, rows, penalty)))
        .collect();
    parts.iter().sum()
}

type NormBackwardArguments<'a> = (
    &'a mut [f32],
    &'a [f32],
    &'a [f32],
    &'a [f32],
    usize,
    usize,
    NormPenalty,
);

kernel!(NormBackward = rms_norm_backward_rows: NormBackwardArguments<'_> => f64);

#[inline(always)]
fn rms_norm_backward_rows(
    (dx, y, dy, inverse, width, rows, penalty): NormBackwardArguments<'_>,
) -> f64 {
    let NormPenalty {
        centre,
        width: free,
        weight,
        peak,
        peak_weight,
    } = penalty;
    let rows = rows as f32;
    let peak_scale = 2.0 * peak_weight / (rows * width as f32);
    let mut cost = 0f64;
    let mut g = vec![0f32; width];
    for (((dx, y), dy), &r) in dx
        .chunks_exact_mut(width)
        .zip(y.chunks_exact(width))
        .zip(dy.chunks_exact(width))
        .zip(inverse)
    {
        let mut dy = dy;
        if peak_weight > 0.0 {
            let mut lanes = [0f32; 16];
            for ((g, y), dy) in g.chunks_mut(16).zip(y.chunks(16)).zip(dy.chunks(16)) {
                for (((l, g), &y), &dy) in lanes.iter_mut().zip(g).zip(y).zip(dy) {
                    let e = outside(y, -peak, peak);
                    *l = e.mul_add(e, *l);
                    *g = e.mul_add(peak_scale, dy);
                }
            }
            cost += f64::from(lanes.iter().sum::<f32>() * peak_scale * 0.5);
            dy = &g;
        }
        let log_ms = -2.0 * r.ln();
        let e = outside(log_ms, centre - free, centre + free);
        cost += f64::from(weight * e * e / rows);
        let k = 4.0 * weight * e / (rows * width as f32) - dot(dy, y) / width as f32;
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx += r * y.mul_add(k, *dy);
        }
    }
    cost
}

/// `max(g, 0)^2 * u` for rows `[g | u]` of `2 * width`.
pub(crate) fn gated(gate_up: &[f32], width: usize) -> Vec<f32> {
    let mut out = vec![0f32; gate_up.len() / 2];
    (
        out.par_chunks_mut(width * ROWS),
        gate_up.par_chunks(2 * width * ROWS),
    )
        .into_par_iter()
        .for_each(|(out, gu)| simd(GatedRows, (out, gu, width)));
    out
}

kernel!(GatedRows = gated_rows: (&mut [f32], &[f32], usize) => ());

#[inline(always)]
fn gated_rows((out, gu, width): (&mut [f32], &[f32], usize)) {
    for (out, gu) in out.chunks_exact_mut(width).zip(gu.chunks_exact(2 * width)) {
        let (g, u) = gu.split_at(width);
        for ((out, g), u) in out.iter_mut().zip(g).zip(u) {
            let r = g.max(0.0);
            *out = r * r * u;
        }
    }
}

/// Backward of [`gated`], with a penalty `weight * mean(max(|g| - limit, 0)^2)`. Returns `(gradient of [g | u], penalty)`.
pub(crate) fn gated_backward(
    gate_up: &[f32],
    dh: &[f32],
    width: usize,
    limit: f32,
    weight: f32,
) -> (Vec<f32>, f64) {
    let mut out = vec![0f32; gate_up.len()];
    let scale = 2.0 * weight / dh.len() as f32;
    let parts: Vec<f64> = (
        out.par_chunks_mut(2 * width * ROWS),
        gate_up.par_chunks(2 * width * ROWS),
        dh.par_chunks(width * ROWS),
    )
        .into_par_iter()
        .map(|(out, gu, dh)| simd(GatedBackward, (out, gu, dh, width, limit, scale)))
        .collect();
    (out, parts.iter().sum())
}

kernel!(GatedBackward = gated_backward_rows: (&mut [f32], &[f32], &[f32], usize, f32, f32) => f64);

#[inline(always)]
fn gated_backward_rows(
    (out, gu, dh, width, limit, scale): (&mut [f32], &[f32], &[f32], usize, f32, f32),
) -> f64 {
    let mut cost = 0f64;
    for ((out, gu), dh) in out
        .chunks_exact_mut(2 * width)
        .zip(gu.chunks_exact(2 * width))
        .zip(dh.chunks_exact(width))
    {
        let (g, u) = gu.split_at(width);
        let (dg, du) = out.split_at_mut(width);
        let mut lanes = [0f32; 16];
        for ((((dg, du), g), u), dh) in dg
            .chunks_mut(16)
            .zip(du.chunks_mut(16))
            .zip(g.chunks(16))
            .zip(u.chunks(16))
            .zip(dh.chunks(16))
        {
            for (((((l, dg), du), &g), &u), &dh) in
                lanes.iter_mut().zip(dg).zip(du).zip(g).zip(u).zip(dh)
            {
                let r = g.max(0.0);
                let e = outside(g, -limit, limit);
                *l = e.mul_add(e, *l);
                *dg = (dh * 2.0 * r).mul_add(u, e * scale);
                *du = dh * r * r;
            }
        }
        cost += f64::from(lanes.iter().sum::<f32>() * scale * 0.5);
    }
    cost
}

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

/// Cross-entropy of rows of `vocabulary` logits: `(sum of -ln p(target), gradient of the mean)`; the gradient only if asked for.
pub(crate) fn cross_entropy(
    logits: &[f32],
    targets: &[u32],
    vocabulary: usize,
    with_gradient: bool,
) -> (f64, Vec<f32>) {
    let mut grad = vec![0f32; if with_gradient { logits.len() } else { 0 }];
    let n = 1.0 / targets.len() as f32;
    let losses: Vec<f64> = if with_gradient {
        (
            logits.par_chunks(vocabulary),
            targets.par_iter(),
            grad.par_chunks_mut(vocabulary),
        )
            .into_par_iter()
            .with_min_len(16)
            .map(|(z, &t, g)| simd(CrossEntropyRow, (z, t, g, n)))
            .collect()
    } else {
        (logits.par_chunks(vocabulary), targets.par_iter())
            .into_par_iter()
            .with_min_len(16)
            .map(|(z, &t)| simd(CrossEntropyRow, (z, t, &mut [][..], n)))
            .collect()
    };
    (losses.iter().sum(), grad)
}

kernel!(CrossEntropyRow = cross_entropy_row: (&[f32], u32, &mut [f32], f32) => f64);

#[inline(always)]
fn cross_entropy_row((z, target, g, n): (&[f32], u32, &mut [f32], f32)) -> f64 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for c in z.chunks(16) {
        for (l, &x) in lanes.iter_mut().zip(c) {
            *l = l.max(x);
        }
    }
    let max = lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0f32; 16];
    if g.is_empty() {
        for c in z.chunks(16) {
            for (s, &x) in sums.iter_mut().zip(c) {
                *s += exp(x - max);
            }
        }
    } else {
        for (c, g) in z.chunks(16).zip(g.chunks_mut(16)) {
            for ((s, &x), g) in sums.iter_mut().zip(c).zip(g) {
                *g = exp(x - max);
                *s += *g;
            }
        }
    }
    let sum: f32 = sums.iter().sum();
    let r = n / sum;
    for g in g.iter_mut() {
        *g *= r;
    }
    if !g.is_empty() {
        g[target as usize] -= n;
    }
    f64::from(max - z[target as usize]) + f64::from(sum).ln()
}

/// Absolute-mean ternary quantisation of one tensor: `(trits, mean |w|)`, trit = clamp(round(w / mean|w|), -1, 1), ties to 0.
pub(crate) fn ternary(w: &[f32]) -> (impl Iterator<Item = i8> + '_, f32) {
    kernel!(Magnitudes = sum_of_magnitudes: &[f32] => f32);

    #[inline(always)]
    fn sum_of_magnitudes(w: &[f32]) -> f32 {
        let mut lanes = [0f32; 16];
        for c in w.chunks(16) {
            lanes.iter_mut().zip(c).for_each(|(l, x)| *l += x.abs());
        }
        lanes.iter().sum()
    }
    let sum: f64 = w.chunks(4096).map(|c| f64::from(simd(Magnitudes, c))).sum();
    let scale = ((sum / w.len() as f64) as f32).max(1e-5);
    let half = 0.5 * scale;
    (
        w.iter()
            .map(move |&x| i8::from(x > half) - i8::from(x < -half)),
        scale,
    )
}

/// The values `trit * scale` of [`ternary`].
pub(crate) fn ternary_values(w: &[f32], out: &mut [f32]) {
    let (_, scale) = ternary(w);
    let half = 0.5 * scale;
    kernel!(Round = round: (&[f32], &mut [f32], f32, f32) => ());

    #[inline(always)]
    fn round((w, out, half, scale): (&[f32], &mut [f32], f32, f32)) {
        for (o, &x) in out.iter_mut().zip(w) {
            *o = if x.abs() > half {
                scale.copysign(x)
            } else {
                0.0
            };
        }
    }
    simd(Round, (w, out, half, scale));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (s >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    #[test]
    fn exp_is_accurate() {
        for i in -8600..8700 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) / want - 1.0).abs() < 4e-7,
                "exp({x}) = {} want {want}",
                exp(x)
            );
        }
    }

    #[test]
    fn products_of_all_shapes_agree_with_the_definition() {
        for (m, n, k) in [(1, 1, 1), (5, 33, 7), (8, 64, 32), (3, 31, 2), (6, 70, 9)] {
            let (a, b) = (noise(m * k, 1), noise(k * n, 2));
            let mut c = vec![f32::NAN; m * n];
            mat_mul(m, n, k, &a, &b, &mut c);
            for i in 0..m {
                for j in 0..n {
                    let want: f32 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                    assert!((c[i * n + j] - want).abs() < 1e-5);
                }
            }
        }
    }

    /// Central differences of `f` at `x` against `grad`, along every coordinate in `which`.
    fn check(
        f: impl Fn(&[f32]) -> f64,
        x: &[f32],
        grad: &[f32],
        which: impl Iterator<Item = usize>,
    ) {
        for i in which {
            let h = 1e-2;
            let mut y = x.to_vec();
            y[i] = x[i] + h;
            let up = f(&y);
            y[i] = x[i] - h;
            let slope = (up - f(&y)) / (2.0 * f64::from(h));
            let err = (slope - f64::from(grad[i])).abs();
            assert!(
                err < 3e-3 * (1.0 + slope.abs()),
                "coordinate {i}: difference quotient {slope}, gradient {}",
                grad[i]
            );
        }
    }

    fn weighted(y: &[f32], w: &[f32]) -> f64 {
        y.iter().zip(w).map(|(a, b)| f64::from(a * b)).sum()
    }

    #[test]
    fn norm_gradient_with_penalties() {
        let (rows, width) = (5, 48);
        let x: Vec<f32> = noise(rows * width, 3)
            .iter()
            .enumerate()
            .map(|(i, v)| v * (1 + i / width) as f32)
            .collect();
        let w = noise(rows * width, 4);
        let p = NormPenalty {
            centre: 0.3,
            width: 0.4,
            weight: 0.7,
            peak: 1.2,
            peak_weight: 3.0,
        };
        let f = |x: &[f32]| {
            let (y, r) = rms_norm(x, width, 0.05);
            let mut unused = vec![0.0; x.len()];
            weighted(&y, &w) + rms_norm_backward(&y, &r, &w, width, p, &mut unused)
        };
        let (y, r) = rms_norm(&x, width, 0.05);
        let mut dx = vec![0.0; x.len()];
        assert!(rms_norm_backward(&y, &r, &w, width, p, &mut dx) > 0.1);
        check(f, &x, &dx, (0..x.len()).step_by(7));
    }

    #[test]
    fn gate_gradient_with_penalty() {
        let x: Vec<f32> = noise(4 * 2 * 40, 5).iter().map(|v| v * 2.0).collect();
        let w = noise(4 * 40, 6);
        let f = |x: &[f32]| weighted(&gated(x, 40), &w) + gated_backward(x, &w, 40, 1.1, 30.0).1;
        let (dx, cost) = gated_backward(&x, &w, 40, 1.1, 30.0);
        assert!(cost > 0.1);
        check(f, &x, &dx, (0..x.len()).step_by(3));
    }

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

    #[test]
    fn cross_entropy_gradient() {
        let z: Vec<f32> = noise(3 * 50, 10).iter().map(|v| v * 4.0).collect();
        let targets = [3, 49, 0];
        let (loss, g) = cross_entropy(&z, &targets, 50, true);
        assert!((cross_entropy(&z, &targets, 50, false).0 - loss).abs() < 1e-9);
        check(
            |z| cross_entropy(z, &targets, 50, false).0 / 3.0,
            &z,
            &g,
            0..150,
        );
    }

    #[test]
    fn ternary_rounds_to_nearest_and_zero_tensors_are_safe() {
        let w = [0.6f32, -0.6, 0.2, -0.2, 2.0, -0.4];
        let (t, scale) = ternary(&w);
        assert_eq!(t.collect::<Vec<_>>(), [1, -1, 0, 0, 1, -1]);
        assert!((scale - 4.0 / 6.0).abs() < 1e-6);
        let mut v = [0f32; 6];
        ternary_values(&w, &mut v);
        assert_eq!(v, [scale, -scale, 0.0, 0.0, scale, -scale]);
        assert_eq!(ternary(&[0.0; 8]).0.collect::<Vec<_>>(), [0; 8]);
    }
}
