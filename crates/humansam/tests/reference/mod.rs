//! The mathematics of the backbones, written once in plain loops over 64-bit floats, straight from the papers: slow, and
//! sharing no code with the crate.

use std::collections::HashMap;

use candle_core::DType;
use tacit_humansam::model::weights::Weights;

/// Tensors by name, values only.
pub struct Params(HashMap<String, Vec<f64>>);

/// Rows of equal length.
pub type Rows = Vec<Vec<f64>>;

impl Params {
    pub fn new(w: &Weights) -> Self {
        Params(
            w.tensors()
                .iter()
                .map(|(n, t)| {
                    (
                        n.clone(),
                        t.to_dtype(DType::F64)
                            .unwrap()
                            .flatten_all()
                            .unwrap()
                            .to_vec1()
                            .unwrap(),
                    )
                })
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> &[f64] {
        self.0.get(name).unwrap_or_else(|| panic!("{name}"))
    }

    fn maybe(&self, name: &str) -> Option<&Vec<f64>> {
        self.0.get(name)
    }
}

/// `W x + b` for each row; `W` is `out × in`.
pub fn linear(x: &Rows, weight: &[f64], bias: Option<&[f64]>) -> Rows {
    x.iter()
        .map(|r| {
            weight
                .chunks(r.len())
                .enumerate()
                .map(|(o, w)| {
                    w.iter().zip(r).map(|(a, b)| a * b).sum::<f64>() + bias.map_or(0.0, |b| b[o])
                })
                .collect()
        })
        .collect()
}

pub fn layer_norm(x: &Rows, weight: &[f64], bias: &[f64], eps: f64) -> Rows {
    x.iter()
        .map(|r| {
            let n = r.len() as f64;
            let mean = r.iter().sum::<f64>() / n;
            let var = r.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            (0..r.len())
                .map(|i| (r[i] - mean) / (var + eps).sqrt() * weight[i] + bias[i])
                .collect()
        })
        .collect()
}

pub fn rms_norm(x: &Rows, weight: &[f64], eps: f64) -> Rows {
    x.iter()
        .map(|r| {
            let ms = r.iter().map(|v| v * v).sum::<f64>() / r.len() as f64;
            r.iter()
                .zip(weight)
                .map(|(v, w)| v / (ms + eps).sqrt() * w)
                .collect()
        })
        .collect()
}

/// `softmax(q kᵀ / sqrt(head)) v`, heads side by side.
pub fn attention(q: &Rows, k: &Rows, v: &Rows, heads: usize) -> Rows {
    let width = q[0].len();
    let head = width / heads;
    q.iter()
        .map(|q| {
            let mut out = vec![0.0; width];
            for h in 0..heads {
                let range = h * head..(h + 1) * head;
                let scores: Vec<f64> = k
                    .iter()
                    .map(|k| range.clone().map(|i| q[i] * k[i]).sum::<f64>() / (head as f64).sqrt())
                    .collect();
                let top = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                for (s, v) in scores.iter().zip(v) {
                    for i in range.clone() {
                        out[i] += (s - top).exp() / total * v[i];
                    }
                }
            }
            out
        })
        .collect()
}

/// The error function by its Taylor series (|x| < 4 here) .
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}

pub fn gelu(x: f64) -> f64 {
    assert!(x.abs() < 5.0);
    0.5 * x * (1.0 + erf(x / 2f64.sqrt()))
}

/// A block: `x += γ₁ attn(norm₁ x)`, `x += γ₂ mlp(norm₂ x)`. RMS norms and norms of q, k when the parameters have no bias.
pub fn block(p: &Params, prefix: &str, x: &Rows, heads: usize) -> Rows {
    let get = |n: &str| p.get(&format!("{prefix}{n}"));
    let maybe = |n: &str| p.maybe(&format!("{prefix}{n}")).map(Vec::as_slice);
    let norm = |x: &Rows, n: &str| match maybe(&format!("{n}.bias")) {
        Some(b) => layer_norm(x, get(&format!("{n}.weight")), b, 1e-6),
        None => rms_norm(x, get(&format!("{n}.weight")), 1e-6),
    };
    let d = x[0].len();
    let qkv = linear(
        &norm(x, "norm1"),
        get("attn.qkv.weight"),
        maybe("attn.qkv.bias"),
    );
    let part = |i: usize| -> Rows { qkv.iter().map(|r| r[i * d..(i + 1) * d].to_vec()).collect() };
    let (mut q, mut k) = (part(0), part(1));
    if let Some(w) = maybe("attn.q_norm.weight") {
        q = rms_norm(&q, w, 1e-6);
        k = rms_norm(&k, get("attn.k_norm.weight"), 1e-6);
    }
    let a = linear(
        &attention(&q, &k, &part(2), heads),
        get("attn.proj.weight"),
        Some(get("attn.proj.bias")),
    );
    let add = |x: &Rows, y: &Rows, gamma: &[f64]| -> Rows {
        x.iter()
            .zip(y)
            .map(|(x, y)| (0..d).map(|i| x[i] + gamma[i] * y[i]).collect())
            .collect()
    };
    let x = add(x, &a, get("ls1.gamma"));
    let mut h = linear(
        &norm(&x, "norm2"),
        get("mlp.fc1.weight"),
        Some(get("mlp.fc1.bias")),
    );
    for v in h.iter_mut().flatten() {
        *v = gelu(*v);
    }
    let m = linear(&h, get("mlp.fc2.weight"), Some(get("mlp.fc2.bias")));
    add(&x, &m, get("ls2.gamma"))
}

/// Patch embedding of one image `[3][side][side]`, a convolution with stride `patch`.
pub fn patches(image: &[f64], side: usize, patch: usize, weight: &[f64], bias: &[f64]) -> Rows {
    let n = side / patch;
    let mut rows = Vec::new();
    for py in 0..n {
        for px in 0..n {
            rows.push(
                bias.iter()
                    .enumerate()
                    .map(|(o, b)| {
                        let mut sum = *b;
                        for c in 0..3 {
                            for y in 0..patch {
                                for x in 0..patch {
                                    sum += weight[((o * 3 + c) * patch + y) * patch + x]
                                        * image
                                            [(c * side + py * patch + y) * side + px * patch + x];
                                }
                            }
                        }
                        sum
                    })
                    .collect(),
            );
        }
    }
    rows
}

/// Column means.
pub fn mean(x: &[Vec<f64>]) -> Vec<f64> {
    (0..x[0].len())
        .map(|i| x.iter().map(|r| r[i]).sum::<f64>() / x.len() as f64)
        .collect()
}

/// The class token, patches of all images, positions added.
pub fn embed(p: &Params, prefix: &str, images: &[f64], side: usize, patch: usize) -> Rows {
    let get = |n: &str| p.get(&format!("{prefix}{n}"));
    let mut x = vec![get("cls_token").to_vec()];
    for image in images.chunks(3 * side * side) {
        x.extend(patches(
            image,
            side,
            patch,
            get("patch_embed.proj.weight"),
            get("patch_embed.proj.bias"),
        ));
    }
    let d = x[0].len();
    for (r, pos) in x.iter_mut().zip(get("pos_embed").chunks(d)) {
        for (a, b) in r.iter_mut().zip(pos) {
            *a += b;
        }
    }
    x
}

/// InternVideo2's HumanSAM feature of one clip.
pub fn internvideo2(
    p: &Params,
    clip: &[f64],
    side: usize,
    patch: usize,
    depth: usize,
    heads: usize,
    pool_heads: usize,
) -> Vec<f64> {
    let mut x = embed(p, "", clip, side, patch);
    for i in 0..depth {
        x = block(p, &format!("blocks.{i}."), &x, heads);
    }
    let down = |v: &[f64]| -> Vec<f64> {
        (0..v.len())
            .map(|i| {
                (v[i] - p.get("down_norm.running_mean")[i])
                    / (p.get("down_norm.running_var")[i] + 1e-6).sqrt()
            })
            .collect()
    };
    let (cls, avg) = (down(&x[0]), down(&mean(&x[1..])));
    let mut out: Vec<f64> = cls.iter().zip(&avg).flat_map(|(c, a)| [*c, *a]).collect();
    let norm = |x: &Rows, n: &str| {
        layer_norm(
            x,
            p.get(&format!("clip_projector.{n}.weight")),
            p.get(&format!("clip_projector.{n}.bias")),
            1e-5,
        )
    };
    let map = |x: &Rows, n: &str| {
        let at = format!("clip_projector.cross_attn.{n}");
        linear(
            x,
            p.get(&format!("{at}.weight")),
            Some(p.get(&format!("{at}_bias"))),
        )
    };
    let q = map(&norm(&vec![mean(&x)], "norm1_q"), "q");
    let (k, v) = (
        map(&norm(&x, "norm1_k"), "k"),
        map(&norm(&x, "norm1_v"), "v"),
    );
    let pooled = linear(
        &attention(&q, &k, &v, pool_heads),
        p.get("clip_projector.cross_attn.proj.weight"),
        Some(p.get("clip_projector.cross_attn.proj.bias")),
    );
    out.extend(
        &layer_norm(
            &pooled,
            p.get("fc_norm.weight"),
            p.get("fc_norm.bias"),
            1e-5,
        )[0],
    );
    out
}

/// Normalised patch tokens of a DINOv2 transformer.
pub fn dinov2(
    p: &Params,
    prefix: &str,
    image: &[f64],
    side: usize,
    patch: usize,
    depth: usize,
    heads: usize,
) -> Rows {
    let mut x = embed(p, prefix, image, side, patch);
    for i in 0..depth {
        x = block(p, &format!("{prefix}blocks.{i}."), &x, heads);
    }
    layer_norm(
        &x[1..].to_vec(),
        p.get(&format!("{prefix}norm.weight")),
        p.get(&format!("{prefix}norm.bias")),
        1e-6,
    )
}

/// A transposed convolution, kernel and stride 2, of a square map; `weight[in][out][2][2]`.
fn transposed(map: &Rows, side: usize, weight: &[f64], bias: Option<&[f64]>) -> Rows {
    let (d, w) = (map[0].len(), weight.len() / map[0].len() / 4);
    let mut out = vec![vec![0.0; w]; 4 * side * side];
    for y in 0..2 * side {
        for x in 0..2 * side {
            for o in 0..w {
                let mut sum = bias.map_or(0.0, |b| b[o]);
                for i in 0..d {
                    sum += map[(y / 2) * side + x / 2][i]
                        * weight[((i * w + o) * 2 + y % 2) * 2 + x % 2];
                }
                out[y * 2 * side + x][o] = sum;
            }
        }
    }
    out
}

/// Depth Pro's lowest-resolution map, averaged.
pub fn depth_pro(
    p: &Params,
    quarter: &[f64],
    side: usize,
    patch: usize,
    depth: usize,
    heads: usize,
) -> Vec<f64> {
    let grid = side / patch;
    let a = dinov2(p, "patch_encoder.", quarter, side, patch, depth, heads);
    let b = dinov2(p, "image_encoder.", quarter, side, patch, depth, heads);
    let a = transposed(
        &linear(&a, p.get("upsample2.0.weight"), None),
        grid,
        p.get("upsample2.1.weight"),
        None,
    );
    let b = transposed(
        &b,
        grid,
        p.get("upsample_lowres.weight"),
        Some(p.get("upsample_lowres.bias")),
    );
    let joined: Rows = a
        .iter()
        .zip(&b)
        .map(|(a, b)| a.iter().chain(b).copied().collect())
        .collect();
    mean(&linear(
        &joined,
        p.get("fuse_lowres.weight"),
        Some(p.get("fuse_lowres.bias")),
    ))
}
