//! A small parameter set with keys, and measures of error.
#![allow(dead_code)]

use num_complex::Complex64;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::sync::Arc;
use tacit_ckks::{
    Ciphertext, Context, Encoder, EvaluationKeys, Evaluator, InsecureParameters, KeyGenerator,
    KeyShape, ParametersLiteral, Plaintext, SecretKey, encrypt,
};

/// Context, keys and helpers.
pub struct Fixture {
    pub ctx: Arc<Context>,
    pub encoder: Encoder,
    pub evaluator: Evaluator,
    pub generator: KeyGenerator,
    pub secret: SecretKey,
    pub rng: ChaCha20Rng,
}

impl Fixture {
    pub fn new(literal: ParametersLiteral) -> Self {
        let ctx = Context::new(InsecureParameters::new(literal).unwrap()).unwrap();
        let mut generator = KeyGenerator::with_rng(ctx.clone(), ChaCha20Rng::from_seed([1; 32]));
        Self {
            encoder: Encoder::new(ctx.clone()),
            evaluator: Evaluator::new(ctx.clone()),
            secret: generator.secret(),
            generator,
            rng: ChaCha20Rng::from_seed([2; 32]),
            ctx,
        }
    }

    /// N = 2^11, seven limbs in digits of two.
    pub fn small() -> Self {
        Self::new(ParametersLiteral::levelled(11, 6, 2))
    }

    pub fn keys(&mut self, steps: &[i64]) -> EvaluationKeys {
        let full = KeyShape::full(self.ctx.params());
        let mut elements: Vec<_> = steps
            .iter()
            .map(|&s| (self.generator.rotation_element(s), full))
            .collect();
        elements.push((self.generator.conjugation_element(), full));
        self.generator
            .evaluation_keys(&self.secret, full, &elements)
            .unwrap()
    }

    pub fn scale(&self) -> f64 {
        self.ctx.params().user_scale()
    }

    /// Slots uniform in the square of side 2 around 0.
    pub fn random_slots(&mut self) -> Vec<Complex64> {
        let mut uniform = || self.rng.next_u64() as f64 / u64::MAX as f64 * 2.0 - 1.0;
        (0..self.ctx.params().slots())
            .map(|_| Complex64::new(uniform(), uniform()))
            .collect()
    }

    pub fn encode(&self, slots: &[Complex64], level: usize) -> Plaintext {
        self.encoder.encode(slots, self.scale(), level).unwrap()
    }

    pub fn encrypt(&mut self, slots: &[Complex64], level: usize) -> Ciphertext {
        let pt = self.encode(slots, level);
        encrypt::encrypt_symmetric(&pt, &self.secret, &mut self.rng).unwrap()
    }

    pub fn decrypt(&self, ct: &Ciphertext) -> Vec<Complex64> {
        self.encoder
            .decode(&encrypt::decrypt(ct, &self.secret).unwrap())
            .unwrap()
    }

    /// Bits of the largest error over all slots.
    pub fn bits(&self, ct: &Ciphertext, expected: &[Complex64]) -> f64 {
        let found = self.decrypt(ct);
        assert_eq!(found.len(), expected.len());
        -found
            .iter()
            .zip(expected)
            .map(|(a, b)| (a - b).norm())
            .fold(0.0, f64::max)
            .log2()
    }

    /// Standard deviation of the coefficients of `decrypt(ct) - expected`, in units of the integer polynomial (not divided by the scale).
    pub fn noise(&self, ct: &Ciphertext, expected: &Plaintext) -> f64 {
        let mut difference = encrypt::decrypt(ct, &self.secret).unwrap();
        assert_eq!(difference.level, expected.level);
        for i in 0..=ct.level {
            tacit_ring::ops::sub_assign(
                &self.ctx.params().q(i),
                difference.poly.limb_mut(i),
                expected.poly.limb(i),
            );
        }
        difference.scale = 1.0;
        rms(&self.encoder.decode_coeffs(&difference).unwrap())
    }
}

pub fn rms(x: &[f64]) -> f64 {
    (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt()
}
