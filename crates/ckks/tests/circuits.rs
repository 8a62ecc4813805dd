//! Linear maps, polynomials and bootstrapping on ciphertexts, in small (insecure) rings with the default chain.

use std::collections::BTreeMap;
use std::sync::Arc;

use num_complex::Complex64;
use tacit_ckks::bootstrap::{BootstrapOptions, Bootstrapper, EncapsulationKeys};
use tacit_ckks::dft::{coefficient_of_slot, coeffs_to_slots_factors};
use tacit_ckks::encrypt::{decrypt, encrypt_symmetric};
use tacit_ckks::linear_map::{LinearMap, LinearMapOptions};
use tacit_ckks::polynomial::ChebyshevSeries;
use tacit_ckks::{
    Ciphertext, CkksError, Context, Encoder, EvaluationKeys, Evaluator, InsecureParameters,
    KeyGenerator, KeyShape, ParametersLiteral, SecretKey,
};

struct Fixture {
    ctx: Arc<Context>,
    encoder: Encoder,
    evaluator: Evaluator,
    generator: KeyGenerator,
    secret: SecretKey,
}

impl Fixture {
    fn new(literal: ParametersLiteral) -> Self {
        let ctx = Context::new(InsecureParameters::new(literal).unwrap()).unwrap();
        let mut generator = KeyGenerator::new(ctx.clone());
        let secret = generator.secret();
        Self {
            encoder: Encoder::new(ctx.clone()),
            evaluator: Evaluator::new(ctx.clone()),
            generator,
            secret,
            ctx,
        }
    }

    fn keys(&mut self, galois: &[(u64, KeyShape)]) -> EvaluationKeys {
        let full = KeyShape::full(self.ctx.params());
        self.generator
            .evaluation_keys(&self.secret, full, galois)
            .unwrap()
    }

    fn encrypt(&self, slots: &[Complex64], scale: f64, level: usize) -> Ciphertext {
        encrypt_symmetric(
            &self.encoder.encode(slots, scale, level).unwrap(),
            &self.secret,
            &mut tacit_ring::sampling::secure_rng(),
        )
        .unwrap()
    }

    fn decrypt(&self, ct: &Ciphertext) -> Vec<Complex64> {
        self.encoder
            .decode(&decrypt(ct, &self.secret).unwrap())
            .unwrap()
    }
}

/// Reproducible values in the square `|re|, |im| <= 1`.
fn values(count: usize, seed: u64) -> Vec<Complex64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| Complex64::new(next(), next())).collect()
}

/// Worst and root-mean-square error over real and imaginary parts, in bits.
fn bits(found: &[Complex64], expected: &[Complex64]) -> (f64, f64) {
    let errors: Vec<f64> = found
        .iter()
        .zip(expected)
        .flat_map(|(a, b)| [(a.re - b.re).abs(), (a.im - b.im).abs()])
        .collect();
    let worst = errors.iter().copied().fold(0.0, f64::max);
    let rms = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
    (-worst.log2(), -rms.log2())
}

#[test]
fn linear_maps_equal_their_matrices() {
    let mut f = Fixture::new(ParametersLiteral::levelled(10, 4, 2));
    let slots = f.ctx.n() / 2;
    let x = values(slots, 1);
    // (indices and periods of the diagonals, baby steps)
    type Case = (Vec<(i64, usize)>, Option<usize>);
    let cases: [Case; 6] = [
        (vec![(0, slots)], None),
        ((0..13).map(|i| (i, slots)).collect(), None),
        ((-5..6).map(|i| (4 * i, 64)).collect(), None),
        ((-7..9).map(|i| (i, 16)).collect(), Some(4)),
        (vec![(3, slots), (40, 1), (41, 32), (200, 8)], Some(16)),
        ((0..4).map(|i| (128 * i, slots)).collect(), Some(1)),
    ];
    for (shape, baby_steps) in cases {
        let diagonals: BTreeMap<i64, Vec<Complex64>> = shape
            .iter()
            .map(|&(i, period)| (i, values(period, (i + 1000) as u64)))
            .collect();
        let options = LinearMapOptions {
            baby_steps,
            ..LinearMapOptions::at_level(&f.ctx, 3)
        };
        let map = LinearMap::new(f.ctx.clone(), &diagonals, options).unwrap();
        let keys = f.keys(&map.required_keys());
        let y = map
            .apply(&f.evaluator, &f.encrypt(&x, 2f64.powi(45), 4), &keys)
            .unwrap();
        assert_eq!(
            (y.level, y.scale),
            (2, 2f64.powi(45)),
            "level and scale of {shape:?}"
        );
        let expected: Vec<Complex64> = (0..slots)
            .map(|k| {
                diagonals
                    .iter()
                    .map(|(&i, d)| {
                        d[k % d.len()] * x[(k as i64 + i).rem_euclid(slots as i64) as usize]
                    })
                    .sum()
            })
            .collect();
        let (worst, _) = bits(&f.decrypt(&y), &expected);
        println!(
            "{} diagonals: {worst:.1} bits, {} rotations",
            shape.len(),
            map.required_rotations().len()
        );
        assert!(worst > 26.0, "{shape:?}: {worst}");
    }
}

#[test]
fn noise_of_a_linear_map_is_the_predicted_one() {
    // A plaintext scale far above the prime that is dropped makes each term of the formula visible in turn.
    let mut f = Fixture::new(ParametersLiteral::levelled(12, 5, 2));
    let n = f.ctx.n();
    let scale = 2f64.powi(45);
    let x = values(n / 2, 21);
    let message = scale * (2.0 / 3.0 / n as f64).sqrt();
    for (period, log_plain_scale, message_scale) in [
        (n / 2, 62.0, 2f64.powi(20)),
        (16, 62.0, 2f64.powi(20)),
        (n / 2, 45.0, 2f64.powi(45)),
        (n / 2, 25.0, scale),
    ] {
        let message = message * message_scale / scale;
        let diagonals: BTreeMap<i64, Vec<Complex64>> =
            (0..9).map(|i| (i, values(period, 50 + i as u64))).collect();
        let plain_scale = f64::exp2(log_plain_scale - 3.0);
        let options = LinearMapOptions {
            scale: Some(plain_scale),
            baby_steps: Some(4),
            ..LinearMapOptions::at_level(&f.ctx, 5)
        };
        let map = LinearMap::new(f.ctx.clone(), &diagonals, options).unwrap();
        let keys = f.keys(&map.required_keys());
        let y = map
            .apply(&f.evaluator, &f.encrypt(&x, message_scale, 5), &keys)
            .unwrap();
        let expected: Vec<Complex64> = (0..n / 2)
            .map(|k| {
                diagonals
                    .iter()
                    .map(|(&i, d)| d[k % period] * x[(k + i as usize) % (n / 2)])
                    .sum()
            })
            .collect();
        let exact = f.encoder.encode(&expected, y.scale, y.level).unwrap();
        let found = f
            .encoder
            .decode_coeffs(&decrypt(&y, &f.secret).unwrap())
            .unwrap();
        let wanted = f.encoder.decode_coeffs(&exact).unwrap();
        let square: f64 = found
            .iter()
            .zip(&wanted)
            .map(|(a, b)| ((a - b) * y.scale).powi(2))
            .sum();
        let measured = (square / n as f64).sqrt().log2();
        let predicted = map
            .noise(
                tacit_ckks::noise::fresh_symmetric().hypot(tacit_ckks::noise::encoding()),
                message,
            )
            .log2();
        println!(
            "period {period}, plaintext scale 2^{log_plain_scale}: measured 2^{measured:.2}, predicted 2^{predicted:.2}"
        );
        assert!(
            (measured - predicted).abs() < 1.0,
            "measured 2^{measured:.2}, predicted 2^{predicted:.2}"
        );
    }
}

#[test]
fn circuits_do_not_depend_on_the_number_of_threads() {
    let Bootstrap {
        f,
        bootstrapper,
        keys,
        encapsulation,
    } = bootstrap_fixture(10);
    let ct = f.encrypt(&values(f.ctx.n() / 2, 4), f.ctx.params().user_scale(), 3);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            bootstrapper
                .bootstrap(&f.evaluator, &ct, &keys, &encapsulation)
                .unwrap()
        })
    };
    let one = run(1);
    for threads in [2, 5] {
        assert!(run(threads).parts == one.parts, "{threads} threads");
    }
}

#[test]
fn a_missing_key_or_level_of_a_linear_map_is_named() {
    let mut f = Fixture::new(ParametersLiteral::levelled(10, 3, 2));
    let keys = f.keys(&[]);
    let diagonals = (0..3).map(|i| (i, values(4, 7))).collect();
    let map = LinearMap::new(
        f.ctx.clone(),
        &diagonals,
        LinearMapOptions::at_level(&f.ctx, 2),
    )
    .unwrap();
    let x = values(8, 1);
    let error = map
        .apply(&f.evaluator, &f.encrypt(&x, 2f64.powi(45), 3), &keys)
        .err()
        .expect("an error");
    assert!(
        matches!(error, CkksError::MissingKey { .. })
            && error.to_string().contains("rotation by 1"),
        "{error}"
    );
    let error = map
        .apply(&f.evaluator, &f.encrypt(&x, 2f64.powi(45), 1), &keys)
        .err()
        .expect("an error");
    assert!(matches!(error, CkksError::LevelTooLow { .. }), "{error}");
    for bad in [
        BTreeMap::new(),
        BTreeMap::from([(0, values(3, 1))]),
        BTreeMap::from([(600, values(4, 1))]),
    ] {
        assert!(
            LinearMap::new(f.ctx.clone(), &bad, LinearMapOptions::at_level(&f.ctx, 2)).is_err()
        );
    }
}

#[test]
fn polynomials_reach_their_depth_scale_and_value() {
    let mut f = Fixture::new(ParametersLiteral::levelled(10, 8, 3));
    let keys = f.keys(&[]);
    let x: Vec<Complex64> = values(f.ctx.n() / 2, 5)
        .iter()
        .map(|z| Complex64::new(z.re, 0.0))
        .collect();
    let scale = 2f64.powi(45);
    let ct = f.encrypt(&x, scale, 8);
    for (degree, depth, parity) in [
        (1, 1, None),
        (2, 2, None),
        (3, 2, None),
        (5, 3, None),
        (7, 3, None),
        (15, 4, None),
        (31, 5, Some(1)),
        (31, 5, None),
        (62, 6, Some(0)),
        (63, 6, None),
    ] {
        let coeffs: Vec<f64> = (0..=degree)
            .map(|k| {
                if parity.is_none_or(|p| k % 2 == p) {
                    (3.0 * k as f64 + 1.0).cos() / (1.0 + k as f64).sqrt()
                } else {
                    0.0
                }
            })
            .collect();
        let target = 1.37 * scale;
        f.evaluator.reset_counts();
        let y = f
            .evaluator
            .evaluate_chebyshev(&ct, &coeffs, target, &keys)
            .unwrap();
        assert_eq!((y.level, y.scale), (8 - depth, target), "degree {degree}");
        let expected: Vec<Complex64> = x
            .iter()
            .map(|z| Complex64::new(tacit_ckks::polynomial::chebyshev_value(&coeffs, z.re), 0.0))
            .collect();
        let (worst, _) = bits(&f.decrypt(&y), &expected);
        let counts = f.evaluator.counts();
        println!(
            "degree {degree} {parity:?}: {worst:.1} bits, {} products, {} key switches",
            counts.ct_ct, counts.key_switches
        );
        assert!(worst > 24.0, "degree {degree}: {worst}");
        if degree == 63 {
            assert_eq!(counts.key_switches, 15);
        }
    }
}

#[test]
fn several_polynomials_share_a_basis_and_intervals_are_mapped() {
    let mut f = Fixture::new(ParametersLiteral::levelled(10, 6, 2));
    let keys = f.keys(&[]);
    let (lo, hi) = (-3.0, 9.0);
    let x: Vec<Complex64> = values(f.ctx.n() / 2, 9)
        .iter()
        .map(|z| Complex64::new(3.0 + 6.0 * z.re, 0.0))
        .collect();
    let scale = 2f64.powi(45);
    // Hold x so that its coefficients have the usual size.
    let ct = f.encrypt(&x, scale / 6.0, 6);
    let sigmoid = ChebyshevSeries::interpolate(|t| 1.0 / (1.0 + (-t).exp()), lo, hi, 15);
    let square = ChebyshevSeries::interpolate(|t| t * t / 81.0, lo, hi, 2);
    let u = f.evaluator.chebyshev_variable(&ct, lo, hi).unwrap();
    let both = f
        .evaluator
        .evaluate_chebyshev_many(
            &u,
            &[
                (&sigmoid.coeffs, scale),
                (&square.coeffs, scale),
                (&[0.25], scale),
            ],
            &keys,
        )
        .unwrap();
    assert_eq!(both.iter().map(|c| c.level).collect::<Vec<_>>(), [2, 4, 6]);
    let alone = f
        .evaluator
        .evaluate_series(&ct, &sigmoid, scale, &keys)
        .unwrap();
    for (ct, series) in [
        (&both[0], &sigmoid),
        (&both[1], &square),
        (&alone, &sigmoid),
    ] {
        let expected: Vec<Complex64> = x
            .iter()
            .map(|z| Complex64::new(series.eval(z.re), 0.0))
            .collect();
        assert!(bits(&f.decrypt(ct), &expected).0 > 24.0);
    }
    assert!(
        f.decrypt(&both[2])
            .iter()
            .all(|z| (z.re - 0.25).abs() < 1e-9)
    );
    // A wide variable at the usual scale would make the scales of its powers run away.
    let wide = f.encrypt(&x, scale, 6);
    let error = f
        .evaluator
        .evaluate_series(&wide, &sigmoid, scale, &keys)
        .err()
        .expect("an error");
    assert!(
        error.to_string().contains("scale of the variable"),
        "{error}"
    );
}

#[test]
fn coeffs_to_slots_on_ciphertexts() {
    let mut f = Fixture::new(ParametersLiteral {
        cts_bits: vec![50; 3],
        ..ParametersLiteral::levelled(10, 1, 3)
    });
    let top = f.ctx.params().max_level();
    let maps: Vec<LinearMap> = coeffs_to_slots_factors(f.ctx.fft(), &[3, 3, 3])
        .iter()
        .enumerate()
        .map(|(k, factor)| {
            LinearMap::from_matrix(
                f.ctx.clone(),
                factor,
                LinearMapOptions::at_level(&f.ctx, top - k),
            )
            .unwrap()
        })
        .collect();
    let keys = f.keys(
        &maps
            .iter()
            .flat_map(LinearMap::required_keys)
            .collect::<Vec<_>>(),
    );
    let coefficients: Vec<f64> = values(f.ctx.n(), 3).iter().map(|z| z.re).collect();
    let plain = f
        .encoder
        .encode_coeffs(&coefficients, 2f64.powi(45), top)
        .unwrap();
    let mut ct =
        encrypt_symmetric(&plain, &f.secret, &mut tacit_ring::sampling::secure_rng()).unwrap();
    for map in &maps {
        ct = map.apply(&f.evaluator, &ct, &keys).unwrap();
    }
    let n = f.ctx.n();
    let expected: Vec<Complex64> = (0..n / 2)
        .map(|j| {
            Complex64::new(
                coefficients[coefficient_of_slot(n, j, false)],
                coefficients[coefficient_of_slot(n, j, true)],
            )
        })
        .collect();
    let (worst, _) = bits(&f.decrypt(&ct), &expected);
    assert!(worst > 30.0, "{worst}");
}

struct Bootstrap {
    f: Fixture,
    bootstrapper: Bootstrapper,
    keys: EvaluationKeys,
    encapsulation: EncapsulationKeys,
}

fn bootstrap_fixture(log_n: u32) -> Bootstrap {
    sparse_fixture(log_n, log_n - 1)
}

fn sparse_fixture(log_n: u32, log_slots: u32) -> Bootstrap {
    let mut f = Fixture::new(ParametersLiteral::default_chain(log_n));
    let options = BootstrapOptions::sparse(f.ctx.params(), log_slots);
    let bootstrapper = Bootstrapper::new(f.ctx.clone(), options).unwrap();
    let relinearisation = f
        .generator
        .relinearisation(&f.secret, bootstrapper.relinearisation_shape())
        .unwrap();
    let mut keys = EvaluationKeys::new(relinearisation);
    for key in bootstrapper.galois_keys(&mut f.generator, &f.secret) {
        assert!(keys.insert(key.unwrap()).is_none());
    }
    let ephemeral = f.generator.ephemeral_secret(&f.secret).unwrap();
    let encapsulation =
        EncapsulationKeys::generate(&mut f.generator, &f.secret, &ephemeral).unwrap();
    Bootstrap {
        f,
        bootstrapper,
        keys,
        encapsulation,
    }
}

#[test]
fn bootstrapping_refreshes_complex_slots() {
    let Bootstrap {
        f,
        bootstrapper,
        keys,
        encapsulation,
    } = bootstrap_fixture(11);
    let x = values(f.ctx.n() / 2, 11);
    // A scale and a level that are not the nominal ones.
    let ct = f.encrypt(&x, 1.1 * f.ctx.params().user_scale(), 5);
    let y = bootstrapper
        .bootstrap(&f.evaluator, &ct, &keys, &encapsulation)
        .unwrap();
    assert_eq!(
        (y.level, y.scale),
        (f.ctx.params().top_user_level(), f.ctx.params().user_scale())
    );
    let (worst, rms) = bits(&f.decrypt(&y), &x);
    println!(
        "bootstrapping: worst {worst:.2} bits, rms {rms:.2} bits, {:?}",
        f.evaluator.counts()
    );
    // The sine alone: 17.1 bits worst. Against what EvalMod computes in the clear only noise remains, small at this ring dimension.
    assert!(worst > 15.5 && rms > 17.5, "worst {worst}, rms {rms}");
    let ratio = bootstrapper.eval_mod_polynomial().parameters().ratio();
    let clear = |m: f64| bootstrapper.eval_mod_polynomial().eval(m / ratio);
    let simulated: Vec<Complex64> = x
        .iter()
        .map(|z| Complex64::new(clear(z.re), clear(z.im)))
        .collect();
    let (noise_worst, noise_rms) = bits(&f.decrypt(&y), &simulated);
    println!("against EvalMod in the clear: worst {noise_worst:.2} bits, rms {noise_rms:.2} bits");
    assert!(
        noise_worst > 18.0 && noise_rms > 20.5,
        "worst {noise_worst}, rms {noise_rms}"
    );
    assert_eq!(f.evaluator.counts().bootstraps, 1);
}

#[test]
fn sparse_bootstrapping_takes_one_eval_mod_for_both_parts() {
    for log_slots in [4, 6, 9] {
        let Bootstrap {
            f,
            bootstrapper,
            keys,
            encapsulation,
        } = sparse_fixture(11, log_slots);
        let params = f.ctx.params();
        let period = values(1 << log_slots, 11);
        let x: Vec<Complex64> = period
            .iter()
            .copied()
            .cycle()
            .take(params.slots())
            .collect();
        let ct = f.encrypt(&x, params.user_scale(), params.bottom_user_level());
        let y = bootstrapper
            .bootstrap(&f.evaluator, &ct, &keys, &encapsulation)
            .unwrap();
        assert_eq!(
            (y.level, y.scale),
            (params.top_user_level() - 1, params.user_scale())
        );
        let packed = f.evaluator.counts();
        let (worst, rms) = bits(&f.decrypt(&y), &x);
        println!("2^{log_slots} slots: worst {worst:.2} bits, rms {rms:.2} bits, {packed:?}");
        assert!(worst > 15.5 && rms > 17.5, "worst {worst}, rms {rms}");

        let real: Vec<Complex64> = x.iter().map(|z| Complex64::new(z.re, 0.0)).collect();
        f.evaluator.reset_counts();
        let y = bootstrapper
            .bootstrap_real(&f.evaluator, &ct, &keys, &encapsulation)
            .unwrap();
        assert_eq!(y.level, params.top_user_level());
        let (worst, _) = bits(&f.decrypt(&y), &real);
        assert!(worst > 15.5, "{worst}");
        // Both parts cost the products of one.
        assert_eq!(f.evaluator.counts().ct_ct, packed.ct_ct);
    }
}

#[test]
fn halves_of_the_bootstrapping_follow_the_slot_order() {
    let Bootstrap {
        f,
        bootstrapper,
        keys,
        encapsulation,
    } = bootstrap_fixture(10);
    let n = f.ctx.n();
    let x: Vec<Complex64> = values(n / 2, 3);
    let factor = 0.125;
    let ct = f.encrypt(&x, f.ctx.params().user_scale(), 3);
    let coefficients = bootstrapper
        .slots_to_coeffs(&f.evaluator, &ct, factor, &keys)
        .unwrap();
    assert_eq!(
        (coefficients.level, coefficients.scale),
        (0, factor * bootstrapper.message_scale())
    );
    let found = f
        .encoder
        .decode_coeffs(&decrypt(&coefficients, &f.secret).unwrap())
        .unwrap();
    for j in 0..n / 2 {
        assert!((found[coefficient_of_slot(n, j, false)] - x[j].re).abs() < 2f64.powi(-20));
        assert!((found[coefficient_of_slot(n, j, true)] - x[j].im).abs() < 2f64.powi(-20));
    }
    let sparse = bootstrapper
        .encapsulate(&f.evaluator, &coefficients, &encapsulation)
        .unwrap();
    let (re, none) = bootstrapper
        .refresh(&f.evaluator, &sparse, false, &keys, &encapsulation)
        .unwrap();
    assert!(none.is_none());
    let expected: Vec<Complex64> = x.iter().map(|z| Complex64::new(z.re, 0.0)).collect();
    let (worst, _) = bits(&f.decrypt(&re), &expected);
    println!("factor {factor}: {worst:.2} bits");
    // An eighth of the message: three bits less, but the sine's cubic term is gone.
    assert!(worst > 15.0, "{worst}");
    assert!(
        bootstrapper
            .refresh(&f.evaluator, &ct, false, &keys, &encapsulation)
            .is_err()
    );
}

#[test]
fn options_that_do_not_fit_the_chain_are_refused() {
    let ctx = Context::new(InsecureParameters::new(ParametersLiteral::default_chain(10)).unwrap())
        .unwrap();
    let good = BootstrapOptions::for_parameters(ctx.params());
    for bad in [
        BootstrapOptions {
            cts_stages: vec![9],
            cts_baby_steps: vec![None],
            ..good.clone()
        },
        BootstrapOptions {
            stc_stages: vec![3, 3, 2],
            ..good.clone()
        },
        BootstrapOptions {
            log_slots: 8,
            ..good.clone()
        },
        BootstrapOptions {
            log_slots: 10,
            cts_stages: vec![4, 3, 3],
            stc_stages: vec![3, 3, 4],
            ..good.clone()
        },
        BootstrapOptions {
            cts_baby_steps: vec![],
            ..good.clone()
        },
        BootstrapOptions {
            eval_mod: tacit_ckks::eval_mod::EvalModParameters {
                double_angles: 2,
                ..good.eval_mod
            },
            ..good.clone()
        },
        BootstrapOptions {
            eval_mod: tacit_ckks::eval_mod::EvalModParameters {
                log_ratio: 8,
                ..good.eval_mod
            },
            ..good
        },
    ] {
        assert!(matches!(
            Bootstrapper::new(ctx.clone(), bad),
            Err(CkksError::InvalidParameters { .. })
        ));
    }
}
