//! A small random model and a transformer written directly from the formulas.
#![allow(dead_code)]

use rand_chacha::{ChaCha20Rng, rand_core::RngCore};
use tacit_bitnet::{
    Activation, Attention, Calibration, ChebyshevSeries, Config, DenseMatrix, LayerCalibration,
    LayerWeights, MaxAbs, MeanSquares, Model, TernaryMatrix,
};

pub fn uniform(rng: &mut ChaCha20Rng) -> f64 {
    rng.next_u32() as f64 / 2f64.powi(31) - 1.0
}

fn ternary(rng: &mut ChaCha20Rng, rows: usize, cols: usize) -> TernaryMatrix {
    let codes: Vec<i8> = (0..rows * cols)
        .map(|_| (rng.next_u32() % 3) as i8 - 1)
        .collect();
    TernaryMatrix::from_codes(rows, cols, &codes, 1.2 / (cols as f32).sqrt()).unwrap()
}

fn gains(rng: &mut ChaCha20Rng, n: usize, on: bool) -> Vec<f32> {
    (0..n)
        .map(|_| {
            if on {
                1.0 + 0.3 * uniform(rng) as f32
            } else {
                1.0
            }
        })
        .collect()
}

/// Epsilon of the rows' sums.
const ROW_EPSILON: f64 = 0.2;

pub struct Case {
    pub hidden: usize,
    pub ffn: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub layers: usize,
    pub gains: bool,
    pub sub_norms: bool,
    /// Rows of attention divided by their sums.
    pub normalised: bool,
}

impl Case {
    /// 32 features in four heads, without gains.
    pub fn small(layers: usize) -> Self {
        Self {
            hidden: 32,
            ffn: 48,
            heads: 4,
            kv_heads: 4,
            layers,
            gains: false,
            sub_norms: true,
            normalised: false,
        }
    }
}

fn series(lo: f64, hi: f64, degree: usize, f: impl Fn(f64) -> f64) -> ChebyshevSeries {
    ChebyshevSeries::fit(lo, hi, degree, f).unwrap()
}

pub fn model(case: &Case, rng: &mut ChaCha20Rng) -> (Model, Calibration) {
    let head_dim = case.hidden / case.heads;
    let kv = case.kv_heads * head_dim;
    let text = format!(
        r#"{{"architectures":["BitNetForCausalLM"],"model_type":"bitnet","vocab_size":16,"hidden_size":{},"intermediate_size":{},
        "num_hidden_layers":{},"num_attention_heads":{},"num_key_value_heads":{},"hidden_act":"relu2","max_position_embeddings":8,
        "rms_norm_eps":1e-5,"rope_theta":10000.0,"tie_word_embeddings":true,
        "quantization_config":{{"quant_method":"bitnet","linear_class":"autobitlinear","quantization_mode":"offline"}},
        "tacit":{{"attention":"{}","row_sum_eps":[{}],"context":8}}}}"#,
        case.hidden,
        case.ffn,
        case.layers,
        case.heads,
        case.kv_heads,
        if case.normalised {
            Attention::NormalisedSigmoid.name()
        } else {
            Attention::Sigmoid.name()
        },
        vec![ROW_EPSILON.to_string(); case.layers].join(",")
    );
    let config = Config::from_json(&text, "config.json").unwrap();
    assert_eq!(
        (config.attention.is_sigmoid(), config.activation),
        (true, Activation::SquaredRelu)
    );
    let layers = (0..case.layers)
        .map(|_| LayerWeights {
            input_norm: gains(rng, case.hidden, case.gains),
            q: ternary(rng, case.hidden, case.hidden),
            k: ternary(rng, kv, case.hidden),
            v: ternary(rng, kv, case.hidden),
            o: ternary(rng, case.hidden, case.hidden),
            attn_sub_norm: case.sub_norms.then(|| gains(rng, case.hidden, case.gains)),
            head_bias: (0..case.heads).map(|_| uniform(rng) as f32).collect(),
            post_attention_norm: gains(rng, case.hidden, case.gains),
            gate: ternary(rng, case.ffn, case.hidden),
            up: ternary(rng, case.ffn, case.hidden),
            down: ternary(rng, case.hidden, case.ffn),
            ffn_sub_norm: case.sub_norms.then(|| gains(rng, case.ffn, case.gains)),
        })
        .collect();
    let root = |eps: f64| move |ms: f64| 1.0 / (ms + eps).sqrt();
    let squarings = usize::from(case.normalised);
    let power = 0.5f64.powi(squarings as i32);
    let compression = series(-0.05, 8.0, 7, |sum| (sum.max(0.0) + 0.2).ln());
    // the inverse as a function of c: S from c by bisection
    let inverse = {
        let (first, last) = (compression.eval(-0.05), compression.eval(8.0));
        let compression = compression.clone();
        series(first - 0.01, last + 0.01, 15, move |c| {
            let (mut lo, mut hi) = (-0.1, 8.2);
            for _ in 0..60 {
                let middle = 0.5 * (lo + hi);
                if compression.eval(middle) < c {
                    lo = middle;
                } else {
                    hi = middle;
                }
            }
            1.0 / lo.hypot(ROW_EPSILON)
        })
    };
    let calibration = Calibration {
        format: Calibration::FORMAT,
        context: 8,
        tokens: 0,
        layers: (0..case.layers)
            .map(|_| LayerCalibration {
                input_norm: series(0.05, 8.0, 7, root(0.01)),
                sigmoid: series(-9.0, 6.0, 15, |z| (1.0 / (1.0 + (-z).exp())).powf(power)),
                sigmoid_squarings: squarings,
                row_compression: case.normalised.then(|| compression.clone()),
                row_inverse: case.normalised.then(|| inverse.clone()),
                attn_sub_norm: case.sub_norms.then(|| series(0.0, 4.0, 15, root(0.1))),
                post_attention_norm: series(0.05, 8.0, 1, root(0.01)),
                activation: series(-6.0, 6.0, 15, |x| x.max(0.0).powi(2)),
                ffn_sub_norm: case.sub_norms.then(|| series(0.0, 60.0, 15, root(1.0))),
                max_abs: MaxAbs {
                    input: 4.0,
                    normed_input: 4.0,
                    q: 4.0,
                    k: 4.0,
                    v: 4.0,
                    attn: 4.0,
                    attn_normed: 4.0,
                    o: 4.0,
                    residual: 4.0,
                    normed_post: 4.0,
                    gate: 6.0,
                    up: 6.0,
                    activation: 36.0,
                    gated: 100.0,
                    gated_normed: 8.0,
                    down: 4.0,
                },
                ms: MeanSquares {
                    input: [0.05, 8.0],
                    attn: [0.0, 4.0],
                    post: [0.05, 8.0],
                    gated: [0.0, 60.0],
                },
            })
            .collect(),
        max_abs_final: 8.0,
    };
    let embeddings = DenseMatrix::new(
        16,
        case.hidden,
        tacit_bitnet::ternary::DenseValues::F32(vec![0.0; 16 * case.hidden]),
    )
    .unwrap();
    (
        Model {
            config,
            embeddings,
            head: None,
            layers,
            final_norm: vec![1.0; case.hidden],
        },
        calibration,
    )
}

fn product(w: &TernaryMatrix, x: &[f64]) -> Vec<f64> {
    (0..w.rows())
        .map(|r| {
            w.row_codes(r)
                .iter()
                .zip(x)
                .map(|(w, x)| f64::from(*w) * x)
                .sum::<f64>()
                * f64::from(w.scale())
        })
        .collect()
}

fn mean_square(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64
}

fn normalise(x: &[f64], s: &ChebyshevSeries, gain: &[f32]) -> Vec<f64> {
    let r = s.eval(mean_square(x));
    x.iter()
        .zip(gain)
        .map(|(v, g)| v * r * f64::from(*g))
        .collect()
}

/// One layer from the formulas, token by token.
pub fn layer(config: &Config, w: &LayerWeights, c: &LayerCalibration, x: &mut [Vec<f64>]) {
    let d = config.head_dim;
    let normed: Vec<Vec<f64>> = x
        .iter()
        .map(|x| normalise(x, &c.input_norm, &w.input_norm))
        .collect();
    let rope = |v: &mut [f64], t: usize| {
        for head in v.chunks_mut(d) {
            for j in 0..d / 2 {
                let angle = t as f64 * config.rope_theta.powf(-(j as f64) / (d as f64 / 2.0));
                let (a, b) = (head[j], head[j + d / 2]);
                head[j] = a * angle.cos() - b * angle.sin();
                head[j + d / 2] = b * angle.cos() + a * angle.sin();
            }
        }
    };
    let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
    for (t, x) in normed.iter().enumerate() {
        let (mut qt, mut kt) = (product(&w.q, x), product(&w.k, x));
        rope(&mut qt, t);
        rope(&mut kt, t);
        q.push(qt);
        k.push(kt);
        v.push(product(&w.v, x));
    }
    for t in 0..x.len() {
        let mut a = vec![0.0; config.hidden_size];
        for h in 0..config.heads {
            let g = h / config.queries_per_kv();
            let mut sum = 0.0;
            for j in 0..=t {
                let z: f64 = (0..d)
                    .map(|i| q[t][h * d + i] * k[j][g * d + i])
                    .sum::<f64>()
                    / (d as f64).sqrt();
                let p = c
                    .sigmoid
                    .eval(z - ((t + 1) as f64).ln() + f64::from(w.head_bias[h]))
                    .powi(1 << c.sigmoid_squarings);
                sum += p;
                for i in 0..d {
                    a[h * d + i] += p * v[j][g * d + i];
                }
            }
            if let (Some(compression), Some(inverse)) = (&c.row_compression, &c.row_inverse) {
                let factor = inverse.eval(compression.eval(sum));
                a[h * d..(h + 1) * d].iter_mut().for_each(|a| *a *= factor);
            }
        }
        let a = match (&c.attn_sub_norm, &w.attn_sub_norm) {
            (Some(s), Some(gain)) => normalise(&a, s, gain),
            _ => a,
        };
        let o = product(&w.o, &a);
        for (x, o) in x[t].iter_mut().zip(o) {
            *x += o;
        }
        let normed = normalise(&x[t], &c.post_attention_norm, &w.post_attention_norm);
        let (g, u) = (product(&w.gate, &normed), product(&w.up, &normed));
        let h: Vec<f64> = g
            .iter()
            .zip(&u)
            .map(|(g, u)| c.activation.eval(*g) * u)
            .collect();
        let h = match (&c.ffn_sub_norm, &w.ffn_sub_norm) {
            (Some(s), Some(gain)) => normalise(&h, s, gain),
            _ => h,
        };
        for (x, y) in x[t].iter_mut().zip(product(&w.down, &h)) {
            *x += y;
        }
    }
}
