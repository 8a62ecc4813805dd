//! Every operation against the same arithmetic in `f64`.

mod common;

use common::Fixture;
use num_complex::Complex64;
use tacit_ckks::{Ciphertext, CkksError, KeyShape, ParametersLiteral, Quadratic, encrypt};

fn map2(
    a: &[Complex64],
    b: &[Complex64],
    f: impl Fn(Complex64, Complex64) -> Complex64,
) -> Vec<Complex64> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

fn map(a: &[Complex64], f: impl Fn(Complex64) -> Complex64) -> Vec<Complex64> {
    a.iter().map(|&a| f(a)).collect()
}

fn rotated(a: &[Complex64], steps: i64) -> Vec<Complex64> {
    let n = a.len() as i64;
    (0..n)
        .map(|j| a[(j + steps).rem_euclid(n) as usize])
        .collect()
}

#[test]
fn encoding_round_trips() {
    let mut f = Fixture::small();
    let x = f.random_slots();
    for level in [0, 1, 6] {
        let decoded = f.encoder.decode(&f.encode(&x, level)).unwrap();
        let error = decoded
            .iter()
            .zip(&x)
            .map(|(a, b)| (a - b).norm())
            .fold(0.0, f64::max);
        assert!(error < 2f64.powi(-36), "level {level}: {error:e}");
    }
    // A scale far above 64 bits takes the wide path; what remains is the rounding of f64.
    let wide = f.encoder.encode(&x, 2f64.powi(100), 6).unwrap();
    let error = f
        .encoder
        .decode(&wide)
        .unwrap()
        .iter()
        .zip(&x)
        .map(|(a, b)| (a - b).norm())
        .fold(0.0, f64::max);
    assert!(error < 1e-12, "{error:e}");
    let coeffs: Vec<f64> = (0..f.ctx.n()).map(|i| (i as f64 - 1000.0) * 0.25).collect();
    assert_eq!(
        f.encoder
            .decode_coeffs(&f.encoder.encode_coeffs(&coeffs, 1024.0, 3).unwrap())
            .unwrap(),
        coeffs
    );
}

#[test]
fn what_cannot_be_encoded_is_an_error() {
    let f = Fixture::small();
    let too_many = vec![Complex64::default(); f.ctx.params().slots() + 1];
    assert!(matches!(
        f.encoder.encode(&too_many, 1024.0, 1),
        Err(CkksError::Shape { .. })
    ));
    for (value, scale) in [
        (f64::NAN, 1.0),
        (f64::INFINITY, 1.0),
        (1.0, f64::NAN),
        (1.0, 0.0),
        (1.0, -1.0),
        (1.0, 2f64.powi(60)),
    ] {
        assert!(
            matches!(
                f.encoder.encode_real(&[value], scale, 0),
                Err(CkksError::Unencodable { .. })
            ),
            "{value} {scale}"
        );
    }
    assert!(matches!(
        f.encoder.encode_real(&[1.0], 1.0, 7),
        Err(CkksError::Shape { .. })
    ));
}

#[test]
fn sums() {
    let mut f = Fixture::small();
    let (x, y) = (f.random_slots(), f.random_slots());
    let (a, b) = (f.encrypt(&x, 6), f.encrypt(&y, 3));
    let e = f.evaluator.clone();
    let sum = e.add(&a, &b).unwrap();
    assert_eq!(sum.level, 3);
    assert!(f.bits(&sum, &map2(&x, &y, |x, y| x + y)) > 35.0);
    assert!(f.bits(&e.sub(&a, &b).unwrap(), &map2(&x, &y, |x, y| x - y)) > 35.0);
    assert!(f.bits(&e.sub(&b, &a).unwrap(), &map2(&x, &y, |x, y| y - x)) > 35.0);
    assert!(f.bits(&e.neg(&a).unwrap(), &map(&x, |x| -x)) > 35.0);
    let p = f.encode(&y, 4);
    assert!(f.bits(&e.add_plain(&a, &p).unwrap(), &map2(&x, &y, |x, y| x + y)) > 35.0);
    assert!(f.bits(&e.sub_plain(&a, &p).unwrap(), &map2(&x, &y, |x, y| x - y)) > 35.0);
    let c = Complex64::new(-1.25, 7.5);
    let mut shifted = a.clone();
    e.add_const(&mut shifted, c).unwrap();
    assert!(f.bits(&shifted, &map(&x, |x| x + c)) > 35.0);
    assert_eq!(e.counts().additions, 6);
}

#[test]
fn sums_of_different_scales_are_refused() {
    let mut f = Fixture::small();
    let x = f.random_slots();
    let a = f.encrypt(&x, 6);
    let mut b = a.clone();
    b.scale *= 1.0 + 2f64.powi(-19);
    assert!(matches!(
        f.evaluator.add(&a, &b),
        Err(CkksError::ScaleMismatch { .. })
    ));
    b.scale = a.scale * (1.0 + 2f64.powi(-21));
    assert!(f.evaluator.add(&a, &b).is_ok());
    b.scale = f64::NAN;
    assert!(matches!(
        f.evaluator.add(&a, &b),
        Err(CkksError::ScaleMismatch { .. })
    ));
}

#[test]
fn products_with_plaintexts_and_constants() {
    let mut f = Fixture::small();
    let (x, y) = (f.random_slots(), f.random_slots());
    let a = f.encrypt(&x, 6);
    let e = f.evaluator.clone();
    let product = e
        .rescale(&e.mul_plain(&a, &f.encode(&y, 6)).unwrap())
        .unwrap();
    let (y6, x6) = (f.encode(&y, 6), f.encode(&x, 6));
    let terms = [(&a, &y6), (&a, &x6)];
    let at_once = e.dot_plain_rescale(&terms).unwrap();
    let in_turn = e.rescale(&e.dot_plain(&terms).unwrap()).unwrap();
    assert!(at_once.parts == in_turn.parts, "the residues differ");
    assert_eq!(
        (at_once.level, at_once.scale),
        (in_turn.level, in_turn.scale)
    );
    assert_eq!(product.level, 5);
    let q6 = f.ctx.params().q(6).value() as f64;
    assert_eq!(product.scale, f.scale() * f.scale() / q6);
    assert!(f.bits(&product, &map2(&x, &y, |x, y| x * y)) > 33.0);
    let c = e
        .rescale(&e.mul_const(&a, -std::f64::consts::PI, q6).unwrap())
        .unwrap();
    assert_eq!(c.scale, f.scale());
    assert!(f.bits(&c, &map(&x, |x| x * -std::f64::consts::PI)) > 33.0);
    let z = Complex64::new(0.3, -1.7);
    let c = e.rescale(&e.mul_const_complex(&a, z, q6).unwrap()).unwrap();
    assert!(f.bits(&c, &map(&x, |x| x * z)) > 33.0);
    assert!(f.bits(&e.mul_i(&a).unwrap(), &map(&x, |x| x * Complex64::i())) > 35.0);
    assert!(f.bits(&e.mul_integer(&a, -3).unwrap(), &map(&x, |x| x * -3.0)) > 33.0);
    // A sum of constants times ciphertexts at a chosen scale.
    let mut acc = e.mul_const(&a, 0.5, q6).unwrap();
    let b = f.encrypt(&y, 6);
    e.mul_const_add_assign(&mut acc, &b, -2.0).unwrap();
    assert!(
        f.bits(
            &e.rescale(&acc).unwrap(),
            &map2(&x, &y, |x, y| x * 0.5 - y * 2.0)
        ) > 33.0
    );
}

#[test]
fn quadratics_are_the_three_parts_word_for_word() {
    let mut f = Fixture::small();
    let keys = f.keys(&[]);
    let (x, y) = (f.random_slots(), f.random_slots());
    let (a, b) = (f.encrypt(&x, 6), f.encrypt(&y, 5));
    let e = f.evaluator.clone();
    // 3 (x y + x^2) - y/2 + 0.25, then without what is optional.
    let products = [(&a, &b), (&a, &a)];
    let plain = Quadratic::sum(&products).unwrap();
    let q = Quadratic {
        factor: 3,
        linear: Some((&b, -0.5)),
        constant: 0.25,
        ..plain
    };
    e.reset_counts();
    let found = e.quadratic(&q, &keys).unwrap();
    let counts = e.counts();
    let mut parts = e.mul_integer(&e.dot_tensor(&products).unwrap(), 3).unwrap();
    e.mul_const_add_assign(&mut parts, &b, -0.5).unwrap();
    e.add_const(&mut parts, Complex64::new(0.25, 0.0)).unwrap();
    let expected = e.relinearise_rescale(&parts, &keys).unwrap();
    assert!(found.parts == expected.parts);
    assert_eq!((found.level, found.scale), (expected.level, expected.scale));
    assert_eq!(
        (counts.ct_ct, counts.key_switches, counts.rescales),
        (2, 1, 1)
    );
    let values = map2(&x, &y, |x, y| 3.0 * (x * y + x * x) - y * 0.5 + 0.25);
    assert!(f.bits(&found, &values) > 30.0);
    let dot = e.dot_tensor(&products).unwrap();
    let expected = e.relinearise_rescale(&dot, &keys).unwrap();
    assert!(e.quadratic(&plain, &keys).unwrap().parts == expected.parts);

    // Errors name what is wrong.
    let bottom = e.drop_to_level(&a, 0).unwrap();
    let refused = |products: &[(&Ciphertext, &Ciphertext)]| {
        let q = Quadratic::sum(products).unwrap();
        e.quadratic(&q, &keys).err().unwrap()
    };
    assert!(matches!(
        refused(&[(&bottom, &a)]),
        CkksError::LevelTooLow { .. }
    ));
    let mut other = a.clone();
    other.scale *= 2.0;
    assert!(matches!(
        refused(&[(&a, &b), (&a, &other)]),
        CkksError::ScaleMismatch { .. }
    ));
    assert!(matches!(refused(&[(&dot, &a)]), CkksError::Shape { .. }));
    let huge = Quadratic {
        constant: 1e40,
        ..plain
    };
    assert!(matches!(
        e.quadratic(&huge, &keys),
        Err(CkksError::Unencodable { .. })
    ));
}

#[test]
fn products_of_ciphertexts() {
    let mut f = Fixture::small();
    let keys = f.keys(&[]);
    let (x, y) = (f.random_slots(), f.random_slots());
    let (a, b) = (f.encrypt(&x, 6), f.encrypt(&y, 5));
    let e = f.evaluator.clone();
    let expected = map2(&x, &y, |x, y| x * y);
    let tensor = e.mul_tensor(&a, &b).unwrap();
    assert_eq!((tensor.parts.len(), tensor.level), (3, 5));
    assert!(f.bits(&tensor, &expected) > 33.0);
    let separate = e.rescale(&e.relinearise(&tensor, &keys).unwrap()).unwrap();
    assert!(f.bits(&separate, &expected) > 33.0);
    assert_eq!(separate.parts.len(), 2);
    e.reset_counts();
    let fused = e.mul(&a, &b, &keys).unwrap();
    assert!(f.bits(&fused, &expected) > 33.0);
    assert_eq!((fused.level, fused.scale), (separate.level, separate.scale));
    let counts = e.counts();
    assert_eq!(
        (
            counts.ct_ct,
            counts.key_switches,
            counts.rescales,
            counts.rotations
        ),
        (1, 1, 1, 0)
    );
    assert!(f.bits(&e.square(&a, &keys).unwrap(), &map(&x, |x| x * x)) > 33.0);
    // x y + x^2, relinearised once.
    let dot = e.dot_tensor(&[(&a, &b), (&a, &a)]).unwrap();
    assert!(
        f.bits(
            &e.relinearise_rescale(&dot, &keys).unwrap(),
            &map2(&x, &y, |x, y| x * y + x * x)
        ) > 32.0
    );
    // A term at a lower level brings all down.
    let lower = e.drop_to_level(&b, a.level - 2).unwrap();
    let dot = e.dot_tensor(&[(&a, &b), (&lower, &a)]).unwrap();
    assert_eq!(dot.level, a.level - 2);
    assert!(
        f.bits(
            &e.relinearise_rescale(&dot, &keys).unwrap(),
            &map2(&x, &y, |x, y| 2.0 * x * y)
        ) > 32.0
    );
    assert!(e.dot_tensor(&[]).is_err());
    assert!(Quadratic::sum(&[]).is_err());
    // Down the whole chain.
    let mut expected = map(&x, |x| x * 0.7);
    let mut ct = f.encrypt(&expected, 6);
    while ct.level > 0 {
        ct = e.square(&ct, &keys).unwrap();
        expected = map(&expected, |x| x * x);
        let level = ct.level;
        assert!(f.bits(&ct, &expected) > 28.0, "level {level}");
    }
    assert!(matches!(
        e.square(&ct, &keys),
        Err(CkksError::LevelTooLow { .. })
    ));
}

#[test]
fn rotations_and_conjugation() {
    let mut f = Fixture::small();
    let steps = [1, -1, 5, 512, 1000];
    let keys = f.keys(&steps);
    let x = f.random_slots();
    let e = f.evaluator.clone();
    for level in [6, 5, 2, 1, 0] {
        let a = f.encrypt(&x, level);
        let hoisted = e.hoist(&a, keys.relinearisation.special).unwrap();
        let all = e.rotate_hoisted(&hoisted, &steps, &keys).unwrap();
        for (ct, steps) in all.iter().zip(steps) {
            assert!(
                f.bits(ct, &rotated(&x, steps)) > 30.0,
                "hoisted {steps} at level {level}"
            );
            assert!(
                f.bits(&e.rotate(&a, steps, &keys).unwrap(), &rotated(&x, steps)) > 30.0,
                "{steps} at level {level}"
            );
        }
        assert!(f.bits(&e.conjugate(&a, &keys).unwrap(), &map(&x, |x| x.conj())) > 30.0);
    }
    let a = f.encrypt(&x, 6);
    assert!(f.bits(&e.rotate(&a, 0, &keys).unwrap(), &x) > 35.0);
    assert!(matches!(
        e.rotate(&a, 2, &keys),
        Err(CkksError::MissingKey { .. })
    ));
    let wrong_special = e.hoist(&a, 1).unwrap();
    assert!(matches!(
        e.rotate_hoisted(&wrong_special, &[1], &keys),
        Err(CkksError::MissingKey { .. })
    ));
}

#[test]
fn hoisted_rotation_is_the_plain_rotation() {
    let mut f = Fixture::small();
    let keys = f.keys(&[3]);
    let x = f.random_slots();
    let a = f.encrypt(&x, 4);
    let hoisted = f.evaluator.hoist(&a, keys.relinearisation.special).unwrap();
    let one = &f.evaluator.rotate_hoisted(&hoisted, &[3], &keys).unwrap()[0];
    let other = f.evaluator.rotate(&a, 3, &keys).unwrap();
    assert!(
        one.parts == other.parts,
        "the same operations in another order"
    );
}

#[test]
fn lazy_sums_over_qp() {
    let mut f = Fixture::small();
    let steps = [0, 1, 5];
    let keys = f.keys(&steps);
    let x = f.random_slots();
    let weights: Vec<_> = steps.iter().map(|_| f.random_slots()).collect();
    let a = f.encrypt(&x, 5);
    let e = f.evaluator.clone();
    let special = keys.relinearisation.special;
    let scale = f.ctx.params().q(5).value() as f64;
    let hoisted = e.hoist(&a, special).unwrap();
    let lazy = e.rotate_hoisted_lazy(&hoisted, &steps, &keys).unwrap();
    let plain: Vec<_> = weights
        .iter()
        .map(|w| f.encoder.encode_qp(w, scale, 5, special).unwrap())
        .collect();
    let mut sum = e
        .lazy_inner_product(
            &lazy.iter().collect::<Vec<_>>(),
            &plain.iter().collect::<Vec<_>>(),
            scale,
        )
        .unwrap();
    let mut expected = vec![Complex64::default(); x.len()];
    for (w, s) in weights.iter().zip(steps) {
        expected = map2(
            &expected,
            &map2(w, &rotated(&x, s), |w, x| w * x),
            |a, b| a + b,
        );
    }
    assert!(
        f.bits(
            &e.rescale(&e.mod_down(sum.clone()).unwrap()).unwrap(),
            &expected
        ) > 32.0
    );
    let fused = e.mod_down_rescale(sum.clone()).unwrap();
    assert_eq!((fused.level, fused.scale), (4, f.scale()));
    assert!(f.bits(&fused, &expected) > 32.0);
    // Adding an ordinary ciphertext, and the sum to itself.
    let plain_one = f
        .encoder
        .encode(&vec![Complex64::new(1.0, 0.0); x.len()], scale, 5)
        .unwrap();
    e.lazy_add_ciphertext_assign(&mut sum, &e.mul_plain(&a, &plain_one).unwrap())
        .unwrap();
    let copy = sum.clone();
    e.lazy_add_assign(&mut sum, &copy).unwrap();
    let expected = map2(&expected, &x, |a, b| (a + b) * 2.0);
    assert!(f.bits(&e.mod_down_rescale(sum).unwrap(), &expected) > 31.0);
}

#[test]
fn keys_of_small_shapes() {
    // Default chain: at level 3 the digit has 170 bits, so 4 of the 9 special primes do.
    let mut f = Fixture::new(ParametersLiteral::default_chain(11));
    let shape = KeyShape::minimal(f.ctx.params(), 3);
    assert_eq!(
        shape,
        KeyShape {
            level: 3,
            special: 4
        }
    );
    assert!(
        KeyShape {
            level: 3,
            special: 3
        }
        .check(f.ctx.params())
        .is_err()
    );
    let small = f.generator.rotation(&f.secret, 1, shape).unwrap();
    let full = f
        .generator
        .rotation(&f.secret, 1, KeyShape::full(f.ctx.params()))
        .unwrap();
    let relinearisation = f
        .generator
        .relinearisation(
            &f.secret,
            KeyShape {
                level: 16,
                special: 9,
            },
        )
        .unwrap();
    let mut keys = tacit_ckks::EvaluationKeys::new(relinearisation);
    assert!(keys.insert(full).is_none() && keys.insert(small).is_none());
    let element = f.generator.rotation_element(1);
    assert_eq!(keys.galois_key(element, 3, None).unwrap().shape(), shape);
    assert_eq!(keys.galois_key(element, 4, None).unwrap().level, 26);
    let x = f.random_slots();
    for level in [0, 2, 3, 4, 9, 17, 26] {
        let a = f.encrypt(&x, level);
        let rotated_ct = f.evaluator.rotate(&a, 1, &keys).unwrap();
        assert!(f.bits(&rotated_ct, &rotated(&x, 1)) > 30.0, "level {level}");
    }
    let high = f.encrypt(&x, 17);
    assert!(matches!(
        f.evaluator.square(&high, &keys),
        Err(CkksError::KeyShape { .. })
    ));
}

#[test]
fn switching_to_the_ephemeral_secret_and_back() {
    let mut f = Fixture::new(ParametersLiteral {
        ephemeral_weight: 32,
        ..ParametersLiteral::levelled(11, 3, 2)
    });
    let sparse = f.generator.ephemeral_secret(&f.secret).unwrap();
    assert_eq!(
        sparse.coefficients().iter().filter(|c| **c != 0).count(),
        32
    );
    let down = f
        .generator
        .switching(
            f.secret.residues(),
            &sparse,
            KeyShape {
                level: 1,
                special: 2,
            },
            1,
        )
        .unwrap();
    let up = f
        .generator
        .switching(
            sparse.residues(),
            &f.secret,
            KeyShape {
                level: 1,
                special: 2,
            },
            2,
        )
        .unwrap();
    let x = f.random_slots();
    let a = f.encrypt(&x, 1);
    let under_sparse = f.evaluator.key_switch(&a, &down).unwrap();
    let decoded = f
        .encoder
        .decode(&encrypt::decrypt(&under_sparse, &sparse).unwrap())
        .unwrap();
    assert!(decoded.iter().zip(&x).all(|(a, b)| (a - b).norm() < 1e-8));
    let decoded = f
        .encoder
        .decode(&encrypt::decrypt(&under_sparse, &f.secret).unwrap())
        .unwrap();
    assert!(
        decoded.iter().zip(&x).any(|(a, b)| (a - b).norm() > 1.0),
        "still under the first secret"
    );
    assert!(f.bits(&f.evaluator.key_switch(&under_sparse, &up).unwrap(), &x) > 30.0);
}

#[test]
fn public_key_encryption() {
    let mut f = Fixture::small();
    let public = f.generator.public(&f.secret).unwrap();
    let x = f.random_slots();
    for level in [0, 3, 6] {
        let pt = f.encode(&x, level);
        let ct = encrypt::encrypt_public(&pt, &public, &mut f.rng).unwrap();
        assert!(f.bits(&ct, &x) > 28.0, "level {level}");
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| {
                let mut f = Fixture::small();
                let keys = f.keys(&[1]);
                let x = f.random_slots();
                let a = f.encrypt(&x, 6);
                let b = f.evaluator.mul(&a, &a, &keys).unwrap();
                f.evaluator.rotate(&b, 1, &keys).unwrap().parts
            })
    };
    assert!(run(1) == run(3));
}

#[test]
fn operands_of_other_parameters_are_refused() {
    let mut f = Fixture::small();
    let mut other = Fixture::new(ParametersLiteral::levelled(10, 6, 2));
    let keys = f.keys(&[1]);
    let x = other.random_slots();
    let foreign = other.encrypt(&x, 6);
    let own = f.random_slots();
    let own = f.encrypt(&own, 6);
    let e = &f.evaluator;
    assert!(matches!(
        e.add(&own, &foreign),
        Err(CkksError::Shape { .. })
    ));
    assert!(matches!(
        e.mul(&foreign, &own, &keys),
        Err(CkksError::Shape { .. })
    ));
    assert!(matches!(
        e.rotate(&foreign, 1, &keys),
        Err(CkksError::Shape { .. })
    ));
    assert!(matches!(
        encrypt::decrypt(&foreign, &f.secret),
        Err(CkksError::Shape { .. })
    ));
    let mut broken = own.clone();
    broken.parts[1].truncate(3);
    assert!(matches!(e.rescale(&broken), Err(CkksError::Shape { .. })));
    broken.parts.truncate(1);
    assert!(matches!(e.rescale(&broken), Err(CkksError::Shape { .. })));
    let foreign_keys = other.keys(&[1]);
    assert!(matches!(
        e.rotate(&own, 513, &foreign_keys),
        Err(CkksError::MissingKey { .. } | CkksError::Shape { .. } | CkksError::KeyShape { .. })
    ));
}
