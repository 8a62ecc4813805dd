//! The measured noise of every operation is within one bit of the predicted formula.

mod common;

use common::{Fixture, rms};
use tacit_ckks::{ParametersLiteral, Plaintext, encrypt, noise};
use tacit_ring::ops;

fn assert_within_one_bit(what: &str, measured: f64, predicted: f64) {
    let bits = (measured / predicted).log2();
    assert!(
        bits.abs() < 1.0,
        "{what}: measured 2^{:.2}, predicted 2^{:.2}",
        measured.log2(),
        predicted.log2()
    );
}

/// `a b` as polynomials; the scale is the product.
fn product(f: &Fixture, a: &Plaintext, b: &Plaintext) -> Plaintext {
    let mut out = a.clone();
    for i in 0..=a.level {
        ops::mul_assign(&f.ctx.params().q(i), out.poly.limb_mut(i), b.poly.limb(i));
    }
    out.scale *= b.scale;
    out
}

/// Root mean square of the integer coefficients.
fn size(f: &Fixture, p: &Plaintext) -> f64 {
    rms(&f.encoder.decode_coeffs(p).unwrap()) * p.scale
}

fn log2_digits(f: &Fixture, level: usize) -> Vec<f64> {
    (0..f.ctx.params().digits_at(level))
        .map(|d| {
            f.ctx
                .digit_limbs(d, level)
                .map(|i| (f.ctx.params().q(i).value() as f64).log2())
                .sum()
        })
        .collect()
}

#[test]
fn encryption_and_sums() {
    let mut f = Fixture::small();
    let n = f.ctx.n();
    let x = f.random_slots();
    let p = f.encode(&x, 4);
    let a = encrypt::encrypt_symmetric(&p, &f.secret, &mut f.rng).unwrap();
    assert_within_one_bit("symmetric", f.noise(&a, &p), noise::fresh_symmetric());
    let public = f.generator.public(&f.secret).unwrap();
    let b = encrypt::encrypt_public(&p, &public, &mut f.rng).unwrap();
    assert_within_one_bit("public", f.noise(&b, &p), noise::fresh_public(n));
    let sum = f.evaluator.add(&a, &b).unwrap();
    let mut twice = p.clone();
    for i in 0..=4 {
        ops::add_assign(&f.ctx.params().q(i), twice.poly.limb_mut(i), p.poly.limb(i));
    }
    assert_within_one_bit(
        "sum",
        f.noise(&sum, &twice),
        noise::add(noise::fresh_symmetric(), noise::fresh_public(n)),
    );
}

#[test]
fn encoding() {
    let mut f = Fixture::small();
    let coeffs: Vec<f64> = f.random_slots().iter().flat_map(|z| [z.re, z.im]).collect();
    let scale = 2f64.powi(20);
    let decoded = f
        .encoder
        .decode_coeffs(&f.encoder.encode_coeffs(&coeffs, scale, 1).unwrap())
        .unwrap();
    let error: Vec<f64> = decoded
        .iter()
        .zip(&coeffs)
        .map(|(a, b)| (a - b) * scale)
        .collect();
    assert_within_one_bit("encoding", rms(&error), noise::encoding());
}

#[test]
fn products() {
    let mut f = Fixture::small();
    let n = f.ctx.n();
    let keys = f.keys(&[]);
    let (x, y) = (f.random_slots(), f.random_slots());
    let (px, py) = (f.encode(&x, 6), f.encode(&y, 6));
    let public = f.generator.public(&f.secret).unwrap();
    let a = encrypt::encrypt_public(&px, &public, &mut f.rng).unwrap();
    let b = encrypt::encrypt_symmetric(&py, &f.secret, &mut f.rng).unwrap();
    let (ea, eb) = (noise::fresh_public(n), noise::fresh_symmetric());
    let expected = product(&f, &px, &py);
    let e = f.evaluator.clone();

    let by_plain = e.mul_plain(&a, &py).unwrap();
    let plain_noise = noise::mul_plain(n, ea, size(&f, &py));
    assert_within_one_bit("ct x pt", f.noise(&by_plain, &expected), plain_noise);

    let tensor = e.mul_tensor(&a, &b).unwrap();
    let tensor_noise = noise::mul(n, (size(&f, &px), ea), (size(&f, &py), eb));
    assert_within_one_bit("ct x ct", f.noise(&tensor, &expected), tensor_noise);

    let relinearised = e.relinearise(&tensor, &keys).unwrap();
    let switch = noise::key_switch(n, &log2_digits(&f, 6), f.ctx.params().log_p_of(2));
    assert_within_one_bit(
        "relinearised",
        f.noise(&relinearised, &expected),
        noise::add(tensor_noise, switch),
    );
}

/// Rounding and key-switch noise shows where the operand has none: transparent encryptions (b = m, a = 0) or small a.
#[test]
fn relinearisation_rescaling_and_key_switches_alone() {
    let mut f = Fixture::new(ParametersLiteral::levelled(12, 6, 2));
    let n = f.ctx.n();
    let keys = f.keys(&[7]);
    let e = f.evaluator.clone();
    let x = f.random_slots();
    for level in [6, 3] {
        let p = f.encode(&x, level);
        let a = encrypt::encrypt_symmetric(&p, &f.secret, &mut f.rng).unwrap();
        let switch = noise::key_switch(n, &log2_digits(&f, level), f.ctx.params().log_p_of(2));

        // Rescaling a ciphertext times q_l, as the sum of its rounding and sigma.
        let q = f.ctx.params().q(level).value();
        let scaled = e.mul_integer(&a, q as i128).unwrap();
        let mut lower = p.clone();
        lower.poly.truncate(level);
        lower.level -= 1;
        assert_within_one_bit(
            "rescale of a multiple",
            f.noise(&e.rescale(&scaled).unwrap(), &lower),
            noise::fresh_symmetric(),
        );
        let third = e.mul_integer(&a, (q / 3) as i128).unwrap();
        let measured = f.noise(
            &e.mul_integer(&e.rescale(&third).unwrap(), 3).unwrap(),
            &lower,
        );
        // q/3 is not an integer: the message is off by less than one part in q.
        assert_within_one_bit(
            "rescale",
            measured,
            3.0 * noise::rescale(n, noise::SIGMA * q as f64 / 3.0, q as f64),
        );

        // A conjugation there and back has the noise of two key switches.
        let there_and_back = e
            .conjugate(&e.conjugate(&a, &keys).unwrap(), &keys)
            .unwrap();
        let expected = noise::add(noise::fresh_symmetric(), 2f64.sqrt() * switch);
        assert_within_one_bit("conjugation", f.noise(&there_and_back, &p), expected);

        // A rotation: compared with the rotated plaintext.
        let rotated: Vec<_> = (0..x.len()).map(|j| x[(j + 7) % x.len()]).collect();
        let pr = f.encode(&rotated, level);
        let rotation_noise = noise::add(
            noise::add(noise::fresh_symmetric(), switch),
            noise::encoding() * 2f64.sqrt(),
        );
        assert_within_one_bit(
            "rotation",
            f.noise(&e.rotate(&a, 7, &keys).unwrap(), &pr),
            rotation_noise,
        );
        let hoisted = e.hoist(&a, 2).unwrap();
        assert_within_one_bit(
            "hoisted",
            f.noise(&e.rotate_hoisted(&hoisted, &[7], &keys).unwrap()[0], &pr),
            rotation_noise,
        );

        // Relinearisation alone: (a, 0, 0) as a product whose d2 is uniform: d0 - d2 s^2 hides it.
        let pt_zero = f.encoder.encode_real(&[], 1.0, level).unwrap();
        let z = encrypt::encrypt_symmetric(&pt_zero, &f.secret, &mut f.rng).unwrap();
        let w = encrypt::encrypt_symmetric(&pt_zero, &f.secret, &mut f.rng).unwrap();
        let tensor = e.mul_tensor(&z, &w).unwrap();
        let fused = e.relinearise_rescale(&tensor, &keys).unwrap();
        let product_noise = noise::mul(n, (0.0, noise::SIGMA), (0.0, noise::SIGMA));
        let relinearised = e.relinearise(&tensor, &keys).unwrap();
        assert_within_one_bit(
            "relinearisation",
            f.noise(&relinearised, &pt_zero),
            noise::add(product_noise, switch),
        );
        let zero_lower = f.encoder.encode_real(&[], 1.0, level - 1).unwrap();
        assert_within_one_bit(
            "fused",
            f.noise(&fused, &zero_lower),
            noise::rescale(n, noise::add(product_noise, switch), q as f64),
        );
    }
}

/// With special primes smaller than the digits, the noise of the key itself dominates: the other term of the formula.
#[test]
fn key_noise_when_the_special_primes_are_small() {
    // Digits of 50 + 45 bits against 50 + 50 - 1: make P smaller by giving it the smallest size that is allowed.
    let literal = ParametersLiteral {
        special_bits: vec![48, 47],
        user_bits: vec![45; 5],
        ..ParametersLiteral::levelled(12, 5, 2)
    };
    let mut f = Fixture::new(literal);
    let n = f.ctx.n();
    let keys = f.keys(&[]);
    let x = f.random_slots();
    let p = f.encode(&x, 5);
    let a = encrypt::encrypt_symmetric(&p, &f.secret, &mut f.rng).unwrap();
    let log2_p = f.ctx.params().log_p_of(2);
    let switch = noise::key_switch(n, &log2_digits(&f, 5), log2_p);
    assert!(
        switch > 2.0 * noise::rounding(n),
        "the key's own noise dominates"
    );
    let there_and_back = f
        .evaluator
        .conjugate(&f.evaluator.conjugate(&a, &keys).unwrap(), &keys)
        .unwrap();
    assert_within_one_bit(
        "conjugation",
        f.noise(&there_and_back, &p),
        noise::add(noise::fresh_symmetric(), 2f64.sqrt() * switch),
    );
}
