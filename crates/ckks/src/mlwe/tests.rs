//! The chain against the plain integer product, and its error against the formulas.

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::RngCore;
use tacit_ring::{ops, sampling};

use super::{ring_switch::SmallSecret, *};
use crate::{
    CkksError, Context, Encoder, Evaluator, InsecureParameters, KeyGenerator, OpCounts, Parameters,
    ParametersLiteral, SecretKey, encrypt,
    security::{KeyDescription, SecretDistribution, check_128},
};

const WEIGHT: usize = 32;

struct Setting {
    context: MlweContext,
    secret: SecretKey,
    target: SecretKey,
    small: SmallSecret,
    switch: RingSwitchKey,
    repack: RepackKey,
    rng: ChaCha20Rng,
}

impl Setting {
    fn new(degree: usize, small_degree: usize, tokens: usize, digit_bits: u32, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let literal = ParametersLiteral {
            small_log_n: small_degree.ilog2(),
            ring_switch_digit_bits: digit_bits,
            ephemeral_weight: WEIGHT,
            ..ParametersLiteral::levelled(degree.ilog2(), 1, 1)
        };
        let ctx = Context::new(InsecureParameters::new(literal).unwrap()).unwrap();
        let context = MlweContext::new(&ctx, tokens).unwrap();
        let mut generator = KeyGenerator::with_rng(ctx, rng.clone());
        let secret = generator.secret();
        let target = generator.ephemeral_secret(&secret).unwrap();
        rng.set_stream(1);
        let small = SmallSecret::generate(context.shape(), &mut rng);
        let switch = RingSwitchKey::generate(
            &context,
            secret.coefficients(),
            secret.id(),
            &small,
            &mut rng,
        )
        .unwrap();
        let repack = RepackKey::generate(&context, &small, &target, &mut rng).unwrap();
        Self {
            context,
            secret,
            target,
            small,
            switch,
            repack,
            rng,
        }
    }

    fn shape(&self) -> MlweShape {
        self.context.shape
    }

    fn times_secret(&self, a: &[u64], secret: &[i8]) -> Vec<u64> {
        let (q, n) = (self.context.q0(), a.len());
        let mut s = vec![0; n];
        sampling::signed_to_residues_i8(q, secret, &mut s);
        self.context.q().forward(&mut s);
        let mut a = a.to_vec();
        self.context.q().forward(&mut a);
        ops::mul_assign(q, &mut a, &s);
        self.context.q().inverse(&mut a);
        a
    }

    /// Fresh encryption of coefficients: error of variance sigma^2.
    fn encrypt(&mut self, message: &[i64]) -> RlweCoeff {
        let (q, n) = (*self.context.q0(), message.len());
        let mut a = vec![0; n];
        sampling::uniform(&q, &mut self.rng, &mut a);
        let mut b = vec![0; n];
        let error = sampling::gaussian(&mut self.rng, n);
        for (b, (&m, &e)) in b.iter_mut().zip(message.iter().zip(error.iter())) {
            *b = q.from_i64(m + i64::from(e));
        }
        ops::sub_assign(
            &q,
            &mut b,
            &self.times_secret(&a, self.secret.coefficients()),
        );
        RlweCoeff { b, a }
    }

    fn decrypt(&self, x: &RlweCoeff, secret: &[i8]) -> Vec<i64> {
        let q = self.context.q0();
        let mut m = self.times_secret(&x.a, secret);
        ops::add_assign(q, &mut m, &x.b);
        m.iter().map(|&m| q.centre(m)).collect()
    }

    /// Random feature rows `x[F][t]`, `|x| <= bound`, and their encryption in plain order.
    fn features(&mut self, count: usize, bound: i64) -> (Vec<Vec<i64>>, Vec<RlweCoeff>) {
        let (k, n) = (self.shape().features(), self.shape().tokens());
        let x: Vec<Vec<i64>> = (0..count)
            .map(|_| (0..n).map(|_| small(&mut self.rng, bound)).collect())
            .collect();
        let inputs = x
            .chunks(k)
            .map(|rows| {
                let mut m = vec![0; k * n];
                for (f, row) in rows.iter().enumerate() {
                    for (t, &v) in row.iter().enumerate() {
                        m[self.shape().coefficient(f, t)] = v;
                    }
                }
                self.encrypt(&m)
            })
            .collect();
        (x, inputs)
    }

    fn log_q0(&self) -> f64 {
        (self.context.q0().value() as f64).log2()
    }

    fn predicted(&self, word_bits: u32, nonzeros: f64, used_features: usize) -> f64 {
        noise::LayerNoise {
            shape: self.shape(),
            log_q0: self.log_q0(),
            log_special: (self.context.special().value() as f64).log2(),
            digit_bits: self.context.digit_bits(),
            word_bits,
            target_weight: WEIGHT as f64,
        }
        .variance(nonzeros, noise::SIGMA.powi(2), used_features)
    }
}

fn small(rng: &mut impl RngCore, bound: i64) -> i64 {
    (rng.next_u64() >> 1) as i64 % (2 * bound + 1) - bound
}

fn random_weights(rng: &mut impl RngCore, rows: usize, cols: usize) -> Vec<i8> {
    (0..rows * cols)
        .map(|_| (rng.next_u32() % 3) as i8 - 1)
        .collect()
}

fn plain_product(w: &[i8], x: &[Vec<i64>]) -> Vec<Vec<i64>> {
    w.chunks_exact(x.len())
        .map(|w| {
            (0..x[0].len())
                .map(|t| w.iter().zip(x).map(|(&w, x)| i64::from(w) * x[t]).sum())
                .collect()
        })
        .collect()
}

fn shifted(row: &[i64], shift: usize) -> Vec<i64> {
    let mut row = row.to_vec();
    for _ in 0..shift {
        row.rotate_right(1);
        row[0] = -row[0];
    }
    row
}

/// log2 of the root mean square.
fn log_std(errors: &[i64]) -> f64 {
    let sum: f64 = errors.iter().map(|&e| (e as f64).powi(2)).sum();
    (sum / errors.len() as f64).sqrt().log2()
}

#[track_caller]
fn assert_within(what: &str, measured: f64, variance: f64, bits: f64) {
    let predicted = variance.sqrt().log2();
    assert!(
        (measured - predicted).abs() <= bits,
        "{what}: measured {measured:.2}, predicted {predicted:.2} (log2)"
    );
}

fn run<T: MixWord>(
    s: &Setting,
    mix: &TernaryMix,
    inputs: &[RlweCoeff],
) -> (Vec<Vec<i64>>, LayerReport) {
    let pieces = s.context.switch_to_pieces::<T>(&s.switch, inputs).unwrap();
    let (out, report) = s.context.mix_and_repack(&s.repack, mix, &pieces).unwrap();
    (
        out.iter()
            .map(|x| s.decrypt(x, s.target.coefficients()))
            .collect(),
        report,
    )
}

/// The whole chain in plain order: values, error of used and of unused outputs, counters.
fn layer<T: MixWord>(degrees: (usize, usize, usize), d_in: usize, d_out: usize, digit_bits: u32) {
    let (degree, small_degree, tokens) = degrees;
    let mut s = Setting::new(
        degree,
        small_degree,
        tokens,
        digit_bits,
        (d_in * 31 + d_out) as u64,
    );
    let shape = s.shape();
    let (x, inputs) = s.features(d_in, 1 << 36);
    let w = random_weights(&mut s.rng, d_out, d_in);
    let mix = TernaryMix::dense(shape, d_out, d_in, |o, i| w[o * d_in + i]).unwrap();
    let (out, report) = run::<T>(&s, &mix, &inputs);
    let expected = plain_product(&w, &x);
    assert_eq!(out.len(), d_out.div_ceil(shape.features()));

    let (mut used, mut unused) = (Vec::new(), Vec::new());
    for position in 0..out.len() * shape.features() {
        for t in 0..tokens {
            let got =
                out[position / shape.features()][shape.coefficient(position % shape.features(), t)];
            match expected.get(position) {
                Some(row) => used.push(got - row[t]),
                None => unused.push(got),
            }
        }
    }
    let nonzeros = mix.codes().nonzeros() as f64 / d_out as f64;
    let name = format!("{degrees:?} {d_in} -> {d_out}, {} bits", T::BITS);
    println!(
        "{name}: measured {:.2}, predicted {:.2}",
        log_std(&used),
        s.predicted(T::BITS, nonzeros, shape.features())
            .sqrt()
            .log2()
    );
    assert_within(
        &name,
        log_std(&used),
        s.predicted(T::BITS, nonzeros, shape.features()),
        0.5,
    );
    if unused.len() >= 64 {
        // The last ciphertext; its other features are in use.
        let variance = s.predicted(64, 0.0, d_out % shape.features());
        assert_within(
            &format!("unused of {name}"),
            log_std(&unused),
            variance,
            0.5,
        );
    }
    // The layer adds and switches keys; it has no other operation to count.
    let groups = d_in.div_ceil(24) * 8;
    let additions = shape.components() * (groups * (d_out + 25) + d_out);
    assert_eq!(
        (report.additions, report.key_switches),
        (additions as u64, out.len() as u64)
    );
}

#[test]
fn layers_of_many_shapes() {
    layer::<u64>((1024, 256, 16), 150, 100, 7);
    layer::<u32>((1024, 256, 16), 150, 100, 7);
    layer::<u64>((4096, 1024, 32), 200, 300, 7);
    layer::<u32>((4096, 1024, 32), 200, 300, 6);
    layer::<u64>((2048, 512, 64), 70, 33, 10);
    layer::<u32>((2048, 2048, 128), 40, 20, 7);
    layer::<u64>((1024, 256, 256), 5, 7, 7);
    layer::<u32>((1024, 256, 8), 300, 64, 7);
}

#[test]
fn single_tokens_are_lwe_ciphertexts() {
    layer::<u32>((1024, 64, 1), 1200, 700, 7);
    layer::<u64>((1024, 64, 2), 600, 300, 7);
}

/// The real size of a 0.7 B model's projection, 128 tokens.
#[test]
fn real_size() {
    layer::<u32>((1 << 16, 1 << 11, 128), 1536, 700, 7);
    layer::<u64>((1 << 16, 1 << 11, 128), 1536, 700, 7);
}

#[test]
fn ring_switch_and_pieces_keep_the_message() {
    let mut s = Setting::new(2048, 512, 16, 7, 3);
    let (shape, q) = (s.shape(), *s.context.q0());
    let (x, inputs) = s.features(shape.features(), 1 << 40);
    let switched = s.context.ring_switch(&s.switch, &inputs[0]).unwrap();
    let plain = s.decrypt(&switched, &s.small.embedded(&shape));
    let mut errors = Vec::new();
    for (f, row) in x.iter().enumerate() {
        errors.extend(
            row.iter()
                .enumerate()
                .map(|(t, v)| plain[shape.coefficient(f, t)] - v),
        );
    }
    let variance = noise::ring_switch(&shape, s.log_q0(), 7) + noise::SIGMA.powi(2);
    assert_within("ring switch", log_std(&errors), variance, 0.2);

    // b_f + sum_j A_{f,j} s'_j = m_f modulo Y^n + 1, with schoolbook products.
    let pieces = Pieces::<u64>::new(&s.context, &switched).unwrap();
    let n = shape.tokens();
    for f in [0, 1, 5, 31, shape.features() - 1] {
        let mut m: Vec<i128> = pieces
            .row(0, f)
            .iter()
            .map(|&b| i128::from(b as i64))
            .collect();
        for j in 0..shape.rank() {
            for (t, &a) in pieces.row(1 + j, f).iter().enumerate() {
                for u in 0..n {
                    let product = i128::from(a as i64)
                        * i128::from(s.small.coefficients[j + shape.rank() * u]);
                    let sign = if t + u < n { 1 } else { -1 };
                    m[(t + u) % n] += sign * product;
                }
            }
        }
        for (t, &m) in m.iter().enumerate() {
            assert_eq!(
                q.centre(q.from_i128(m)),
                plain[shape.coefficient(f, t)],
                "feature {f} token {t}"
            );
        }
    }
}

#[test]
fn outputs_are_replicated_permuted_shifted_and_packed() {
    let mut s = Setting::new(1024, 256, 16, 7, 11);
    let (shape, n) = (s.shape(), 16);
    let (d_in, d_out) = (80, 50);
    let (mut x, _) = s.features(d_in, 1 << 36);
    for row in &mut x {
        row[n / 2..].fill(0);
    }
    // Inputs in two ciphertexts, permuted; the tokens use the first half only.
    let inputs: Vec<InputPlacement> = (0..d_in)
        .map(|i| InputPlacement {
            ciphertext: i % 2,
            feature: (i / 2 * 37) % 64,
            shift: 0,
        })
        .collect();
    let mut messages = vec![vec![0; 1024]; 2];
    for (row, place) in x.iter().zip(&inputs) {
        for (t, &v) in row.iter().enumerate() {
            messages[place.ciphertext][shape.coefficient(place.feature, t)] = v;
        }
    }
    let inputs_encrypted: Vec<_> = messages.iter().map(|m| s.encrypt(m)).collect();
    let w = random_weights(&mut s.rng, d_out, d_in);
    // Row o and row o + 25 share a feature as halves; row 3 is also replicated, negated, times Y^5, in another ciphertext; row 7 is
    // dropped; ciphertext 1 stays empty.
    let at = |ciphertext, feature, shift| OutputPlacement {
        ciphertext,
        feature,
        shift,
    };
    let mut outputs: Vec<Vec<OutputPlacement>> = (0..d_out)
        .map(|o| vec![at(0, 63 - o % 25, if o < 25 { 0 } else { n / 2 })])
        .collect();
    outputs[3].extend([at(2, 10, n + 5), at(2, 11, 0), at(2, 12, 2 * n - 1)]);
    outputs[7].clear();
    let mix = TernaryMix::new(shape, |o, i| w[o * d_in + i], inputs, &outputs).unwrap();
    assert_eq!(mix.output_ciphertexts(), 3);
    let product = plain_product(&w, &x);
    let mut expected = vec![vec![0i64; 1024]; 3];
    for (row, places) in product.iter().zip(&outputs) {
        for place in places {
            for (t, v) in shifted(row, place.shift).into_iter().enumerate() {
                expected[place.ciphertext][shape.coefficient(place.feature, t)] += v;
            }
        }
    }
    let nonzeros = mix.codes().nonzeros() as f64 / d_out as f64;
    let check = |bits, out: Vec<Vec<i64>>| {
        let errors = |c: usize, features: std::ops::Range<usize>| -> Vec<i64> {
            features
                .flat_map(|f| (0..n).map(move |t| shape.coefficient(f, t)))
                .map(|i| out[c][i] - expected[c][i])
                .collect()
        };
        assert_within(
            "packed rows",
            log_std(&errors(0, 39..56)),
            s.predicted(bits, 2.0 * nonzeros, 25),
            0.5,
        );
        assert_within(
            "copies",
            log_std(&errors(2, 10..13)),
            s.predicted(bits, nonzeros, 3),
            0.8,
        );
        assert_within(
            "empty features",
            log_std(&errors(0, 0..39)),
            s.predicted(64, 0.0, 25),
            0.5,
        );
        assert!(
            out[1].iter().all(|&x| x == 0),
            "an output ciphertext without rows is exactly zero"
        );
    };
    check(64, run::<u64>(&s, &mix, &inputs_encrypted).0);
    check(32, run::<u32>(&s, &mix, &inputs_encrypted).0);
}

#[test]
fn packed_inputs_are_read_apart() {
    // Feature f holds x_f + Y^{n/2} x_{f+40}: the columns f + 40 read it times Y^{-n/2}; the first half of the tokens is right.
    let mut s = Setting::new(1024, 256, 32, 7, 13);
    let (shape, n, half) = (s.shape(), 32, 16);
    let (packed, inputs) = s.features(32, 1 << 36);
    let x: Vec<Vec<i64>> = (0..64)
        .map(|i| {
            if i < 32 {
                packed[i][..half].to_vec()
            } else {
                packed[i - 32][half..].to_vec()
            }
        })
        .collect();
    let places: Vec<_> = (0..64)
        .map(|i| InputPlacement {
            ciphertext: 0,
            feature: i % 32,
            shift: if i < 32 { 0 } else { 2 * n - half },
        })
        .collect();
    let w = random_weights(&mut s.rng, 20, 64);
    let outputs: Vec<_> = (0..20)
        .map(|o| {
            vec![OutputPlacement {
                ciphertext: 0,
                feature: o,
                shift: 0,
            }]
        })
        .collect();
    let mix = TernaryMix::new(shape, |o, i| w[o * 64 + i], places, &outputs).unwrap();
    let (out, _) = run::<u64>(&s, &mix, &inputs);
    let mut errors = Vec::new();
    for (o, row) in plain_product(&w, &x).iter().enumerate() {
        errors.extend(
            row.iter()
                .enumerate()
                .map(|(t, v)| out[0][shape.coefficient(o, t)] - v),
        );
    }
    assert_within(
        "packed inputs",
        log_std(&errors),
        s.predicted(64, mix.codes().nonzeros() as f64 / 20.0, 20),
        0.5,
    );
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let mut s = Setting::new(1024, 256, 16, 7, 17);
    let (_, inputs) = s.features(100, 1 << 36);
    let w = random_weights(&mut s.rng, 90, 100);
    let mix = TernaryMix::dense(s.shape(), 90, 100, |o, i| w[o * 100 + i]).unwrap();
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let pieces = s
                .context
                .switch_to_pieces::<u32>(&s.switch, &inputs)
                .unwrap();
            s.context
                .mix_and_repack(&s.repack, &mix, &pieces)
                .unwrap()
                .0
        })
    };
    assert_eq!(with_threads(1), with_threads(4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Any matrix with any placement is the plain product, to within ten standard deviations.
    #[test]
    fn equals_the_plain_product(
        (log_tokens, d_in, d_out, words, seed) in (0u32..=5, 1usize..40, 1usize..40, any::<bool>(), any::<u64>()),
    ) {
        let mut s = Setting::new(512, 128, 1 << log_tokens, 7, seed);
        let (shape, n) = (s.shape(), 1usize << log_tokens);
        let k = shape.features();
        let (x, inputs) = s.features(d_in, 1 << 38);
        let density = s.rng.next_u32() % 4;
        let w: Vec<i8> = random_weights(&mut s.rng, d_out, d_in)
            .into_iter()
            .map(|w| if s.rng.next_u32() % 4 < density { 0 } else { w })
            .collect();
        let reads = (0..d_in).map(|i| InputPlacement { ciphertext: i / k, feature: i % k, shift: 0 }).collect();
        let places: Vec<Vec<OutputPlacement>> = (0..d_out)
            .map(|_| (0..s.rng.next_u32() % 3).map(|_| OutputPlacement {
                ciphertext: (s.rng.next_u32() % 2) as usize,
                feature: s.rng.next_u32() as usize % k,
                shift: s.rng.next_u32() as usize % (2 * n),
            }).collect())
            .collect();
        let mix = TernaryMix::new(shape, |o, i| w[o * d_in + i], reads, &places).unwrap();
        let mut expected = vec![vec![0i64; 512]; mix.output_ciphertexts()];
        let mut meeting = vec![0usize; 2 * k];
        for (row, places) in plain_product(&w, &x).iter().zip(&places) {
            for p in places {
                meeting[p.ciphertext * k + p.feature] += 1;
                for (t, v) in shifted(row, p.shift).into_iter().enumerate() {
                    expected[p.ciphertext][shape.coefficient(p.feature, t)] += v;
                }
            }
        }
        let most = meeting.into_iter().max().unwrap_or(0);
        let bits = if words { 32 } else { 64 };
        let out = if words { run::<u32>(&s, &mix, &inputs).0 } else { run::<u64>(&s, &mix, &inputs).0 };
        // Copies of one row that meet add up in amplitude, hence the square.
        let bound = 10.0 * s.predicted(bits, (most * most * d_in) as f64, k).sqrt();
        for (out, expected) in out.iter().zip(&expected) {
            for (got, want) in out.iter().zip(expected) {
                prop_assert!(((got - want).abs() as f64) < bound, "got {}, want {}", got, want);
            }
        }
    }
}

/// Sums of residues close to 64 bits: rows that meet are reduced before they are added, denser rows are refused.
#[test]
fn sums_do_not_wrap() {
    let mut s = Setting::new(512, 128, 16, 7, 23);
    let shape = s.shape();
    let (x, inputs) = s.features(1, 1 << 30);
    let all_of_one_feature = |columns: usize| {
        let inputs = vec![
            InputPlacement {
                ciphertext: 0,
                feature: 0,
                shift: 0
            };
            columns
        ];
        let outputs = vec![
            vec![OutputPlacement {
                ciphertext: 0,
                feature: 5,
                shift: 0
            }];
            2
        ];
        TernaryMix::new(shape, |_, _| 1, inputs, &outputs).unwrap()
    };
    let columns = 16_000;
    let (out, _) = run::<u64>(&s, &all_of_one_feature(columns), &inputs);
    for (t, &v) in x[0].iter().enumerate() {
        let got = out[0][shape.coefficient(5, t)];
        let want = 2 * columns as i64 * v;
        assert!(
            (got - want).abs() < 1 << 33,
            "token {t}: got {got}, want {want}"
        );
    }
    let pieces = s
        .context
        .switch_to_pieces::<u64>(&s.switch, &inputs)
        .unwrap();
    let error = s
        .context
        .mix_and_repack(&s.repack, &all_of_one_feature(16_500), &pieces)
        .err();
    assert!(
        matches!(
            error,
            Some(MlweError::RowTooDense {
                found: 16_500,
                limit: 16_384
            })
        ),
        "{error:?}"
    );
}

#[test]
fn ciphertexts_go_in_and_come_out() {
    let literal = ParametersLiteral::default_chain(10);
    let ctx = Context::new(InsecureParameters::new(literal).unwrap()).unwrap();
    let (encoder, evaluator) = (Encoder::new(ctx.clone()), Evaluator::new(ctx.clone()));
    let mut generator = KeyGenerator::new(ctx.clone());
    let secret = generator.secret();
    let ephemeral = generator.ephemeral_secret(&secret).unwrap();
    let mut rng = sampling::secure_rng();
    let context = MlweContext::new(&ctx, 16).unwrap();
    let shape = *context.shape();
    let keys = MlweKeys::generate(&context, &secret, &ephemeral, &mut rng).unwrap();
    assert_eq!(keys.id(), secret.id());
    assert_eq!(keys.bytes(), 8 * 1024 * (2 * 8 + 4 * shape.rank()));

    let (d_in, d_out) = (100, 70);
    let scale = 2f64.powi(40);
    let x: Vec<Vec<f64>> = (0..d_in)
        .map(|f| {
            (0..16)
                .map(|t| ((f * 16 + t) as f64).sin() / 16.0)
                .collect()
        })
        .collect();
    let inputs: Vec<_> = x
        .chunks(shape.features())
        .map(|rows| {
            let mut m = vec![0.0; 1024];
            for (f, row) in rows.iter().enumerate() {
                row.iter()
                    .enumerate()
                    .for_each(|(t, &v)| m[shape.coefficient(f, t)] = v);
            }
            let plain = encoder.encode_coeffs(&m, scale, 0).unwrap();
            encrypt::encrypt_symmetric(&plain, &secret, &mut rng).unwrap()
        })
        .collect();
    let w = random_weights(&mut rng, d_out, d_in);
    let mix = TernaryMix::dense(shape, d_out, d_in, |o, i| w[o * d_in + i]).unwrap();
    let (out, report) = context
        .apply::<u64>(&evaluator, &keys, &mix, &inputs)
        .unwrap();
    let plain: Vec<Vec<f64>> = out
        .iter()
        .map(|ct| {
            encoder
                .decode_coeffs(&encrypt::decrypt(ct, &ephemeral).unwrap())
                .unwrap()
        })
        .collect();
    for o in 0..d_out {
        for t in 0..16 {
            let want: f64 = (0..d_in)
                .map(|i| f64::from(w[o * d_in + i]) * x[i][t])
                .sum();
            let got = plain[o / shape.features()][shape.coefficient(o % shape.features(), t)];
            assert!(
                (got - want).abs() < 2f64.powi(-18),
                "output {o} token {t}: {got} instead of {want}"
            );
        }
    }
    // Additions and key switches are all that happened: no product of ciphertexts, plaintexts or constants, no rotation.
    let expected = OpCounts {
        additions: mix.additions(),
        key_switches: 2 + 2,
        ..OpCounts::default()
    };
    assert_eq!(evaluator.counts(), expected);
    assert_eq!(
        (report.additions, report.key_switches),
        (mix.additions(), 4)
    );

    let mut high = inputs.clone();
    high[1].scale *= 1.1;
    let error = context
        .apply::<u64>(&evaluator, &keys, &mix, &high)
        .err()
        .unwrap();
    assert!(matches!(error, CkksError::ScaleMismatch { .. }));
    high[1].level = 1;
    high[1].scale = scale;
    let error = context
        .apply::<u64>(&evaluator, &keys, &mix, &high)
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("level of an input of a ternary layer: found 1, expected 0")
    );
}

#[test]
fn every_key_of_the_default_preset_is_below_its_ceiling() {
    let params = Parameters::default_128();
    let keys = MlweKeys::descriptions_of(&params);
    let found: Vec<_> = keys
        .iter()
        .map(|k| (k.ring_dimension, k.log2_modulus.round() as u32, k.secret))
        .collect();
    assert_eq!(
        found,
        [
            (1 << 11, 50, SecretDistribution::DenseTernary),
            (1 << 16, 100, SecretDistribution::FixedWeight(32))
        ]
    );
    keys.iter().for_each(|key| check_128(key).unwrap());
    // They are tight enough to mean something: the same keys in half the ring are refused.
    for key in keys {
        let half = KeyDescription {
            ring_dimension: key.ring_dimension / 2,
            ..key
        };
        assert!(check_128(&half).is_err(), "{half}");
    }
}

#[test]
fn wrong_inputs_are_named() {
    let mut s = Setting::new(512, 128, 16, 7, 19);
    let (_, inputs) = s.features(10, 1 << 30);
    let mix = TernaryMix::dense(s.shape(), 4, 10, |_, _| 1).unwrap();
    let pieces = s
        .context
        .switch_to_pieces::<u64>(&s.switch, &inputs)
        .unwrap();

    let message = |e: MlweError| e.to_string();
    let none: [Pieces<u64>; 0] = [];
    let error = s
        .context
        .mix_and_repack(&s.repack, &mix, &none)
        .unwrap_err();
    assert_eq!(
        message(error),
        "the product reads 1 input ciphertexts, 0 were given"
    );
    let other = MlweContext::new(s.context.context(), 32).unwrap();
    let error = other.mix_and_repack(&s.repack, &mix, &pieces).unwrap_err();
    assert!(message(error).contains("repack key was made with parameters"));
    let mut bad = inputs[0].clone();
    bad.a[5] = s.context.q0().value();
    assert!(
        message(s.context.ring_switch(&s.switch, &bad).unwrap_err())
            .contains("not below the modulus")
    );
    bad.a.pop();
    assert!(
        message(s.context.ring_switch(&s.switch, &bad).unwrap_err())
            .contains("511 entries, expected 512")
    );
    let place = vec![vec![OutputPlacement {
        ciphertext: 0,
        feature: 32,
        shift: 0,
    }]];
    let error = TernaryMix::new(s.shape(), |_, _| 0, vec![], &place)
        .err()
        .unwrap();
    assert!(message(error).contains("output 0 is placed at feature 32"));
    assert!(
        message(TernaryMix::dense(s.shape(), 1, 1, |_, _| 3).err().unwrap())
            .contains("expected -1, 0 or 1")
    );
    assert!(message(MlweShape::new(512, 100, 4).unwrap_err()).contains("powers of two"));
}
