//! Makes keys, and refuses those above the 128-bit ceiling unless the parameters are marked insecure.

use crate::context::{Context, limbs_mut};
use crate::error::CkksError;
use crate::keys::{EvaluationKeys, KeyId, KeyRole, KeyShape, PublicKey, SecretKey, SwitchingKey};
use crate::security::{KeyDescription, SecretDistribution, check_128};
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;
use rayon::prelude::*;
use std::sync::Arc;
use tacit_ring::sampling::{
    fixed_weight, gaussian, secure_rng, signed_to_residues_i8, signed_to_residues_i32, ternary,
};
use tacit_ring::{RnsPoly, galois_conjugation, galois_of_rotation, ops};
use zeroize::{Zeroize, Zeroizing};

/// Generates keys for one context. Noise: discrete Gaussian of standard deviation 3.2.
///
/// ```
/// use tacit_ckks::{context::Context, key_generator::KeyGenerator, keys::KeyShape, parameters::{InsecureParameters, ParametersLiteral}};
/// let ctx = Context::new(InsecureParameters::new(ParametersLiteral::levelled(10, 2, 2))?)?;
/// let mut generator = KeyGenerator::new(ctx.clone());
/// assert!(generator.is_insecure());
/// let secret = generator.secret();
/// let keys = generator.evaluation_keys(&secret, KeyShape::full(ctx.params()), &[(generator.rotation_element(1), KeyShape::full(ctx.params()))])?;
/// assert_eq!(keys.descriptions(ctx.params()).len(), 2);
/// # Ok::<(), tacit_ckks::CkksError>(())
/// ```
pub struct KeyGenerator {
    ctx: Arc<Context>,
    rng: ChaCha20Rng,
}

impl KeyGenerator {
    /// A generator seeded by the operating system.
    pub fn new(ctx: Arc<Context>) -> Self {
        Self {
            ctx,
            rng: secure_rng(),
        }
    }

    /// A generator with a given stream of randomness, for reproducible tests: the keys are as secret as the stream.
    pub fn with_rng(ctx: Arc<Context>, rng: ChaCha20Rng) -> Self {
        Self { ctx, rng }
    }

    /// Whether the parameters came through [`crate::parameters::InsecureParameters`]: the keys are then for tests only.
    pub fn is_insecure(&self) -> bool {
        self.ctx.params().is_insecure()
    }

    /// Galois element of a rotation of the slots by `steps` (to the left for positive steps).
    pub fn rotation_element(&self, steps: i64) -> u64 {
        galois_of_rotation(self.ctx.n(), steps)
    }

    /// Galois element of complex conjugation.
    pub fn conjugation_element(&self) -> u64 {
        galois_conjugation(self.ctx.n())
    }

    /// A long-term secret: dense ternary.
    pub fn secret(&mut self) -> SecretKey {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        let coefficients = ternary(&mut self.rng, self.ctx.n());
        secret_from(
            &self.ctx,
            coefficients,
            SecretDistribution::DenseTernary,
            KeyId(id),
        )
    }

    /// The sparse ephemeral secret of bootstrapping, of the weight in the parameters; it carries the name of the main secret.
    ///
    /// # Errors
    /// [`CkksError::InvalidParameters`] if the parameters have no ephemeral weight.
    pub fn ephemeral_secret(&mut self, main: &SecretKey) -> Result<SecretKey, CkksError> {
        let weight = self.ctx.params().literal().ephemeral_weight;
        if weight == 0 {
            return Err(CkksError::InvalidParameters {
                field: "ephemeral_weight",
                found: "0".into(),
                expected: "a weight of at least 32 for parameters that bootstrap".into(),
            });
        }
        let coefficients = fixed_weight(&mut self.rng, self.ctx.n(), weight);
        Ok(secret_from(
            &self.ctx,
            coefficients,
            SecretDistribution::FixedWeight(weight),
            main.id,
        ))
    }

    /// The public encryption key of a secret.
    ///
    /// # Errors
    /// [`CkksError::AboveCeiling`] for a secret too sparse for the whole chain.
    pub fn public(&mut self, sk: &SecretKey) -> Result<PublicKey, CkksError> {
        self.check_context(sk)?;
        let ctx = &self.ctx;
        let level = ctx.params().max_level();
        let description = KeyDescription {
            name: "public encryption key".into(),
            ring_dimension: ctx.n(),
            log2_modulus: ctx.params().log_q_at(level),
            secret: sk.distribution,
        };
        self.check_ceiling(&description)?;
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let ctx = &self.ctx;
        let a = ctx.uniform(&seed, 0, level, 0);
        let noise = gaussian(&mut self.rng, ctx.n());
        let mut b = RnsPoly::unspecified(ctx.n(), level + 1);
        limbs_mut(&mut b)
            .into_par_iter()
            .enumerate()
            .for_each(|(i, b)| {
                let table = ctx.table(level, i);
                signed_to_residues_i32(table.modulus(), &noise, b);
                table.forward(b);
                sub_product(table.modulus(), b, a.limb(i), sk.q_residues(i));
            });
        Ok(PublicKey {
            ctx: ctx.clone(),
            b,
            a,
            seed,
            target: sk.distribution,
            id: sk.id,
        })
    }

    /// The relinearisation key: from `s^2` to `s`.
    ///
    /// # Errors
    /// [`CkksError::KeyShape`] or [`CkksError::AboveCeiling`].
    pub fn relinearisation(
        &mut self,
        sk: &SecretKey,
        shape: KeyShape,
    ) -> Result<SwitchingKey, CkksError> {
        self.check_context(sk)?;
        shape.check(self.ctx.params())?;
        let ctx = &self.ctx;
        let mut square = RnsPoly::unspecified(ctx.n(), shape.level + 1);
        limbs_mut(&mut square)
            .into_par_iter()
            .enumerate()
            .for_each(|(i, out)| {
                ops::mul(
                    ctx.modulus(shape.level, i),
                    out,
                    sk.q_residues(i),
                    sk.q_residues(i),
                )
            });
        let key = self.generate(&square, &sk.residues, shape, KeyRole::Relinearisation, sk);
        square.as_mut_slice().zeroize();
        key
    }

    /// The Galois key of an element (odd, below `2N`).
    ///
    /// # Errors
    /// [`CkksError::KeyShape`], [`CkksError::AboveCeiling`], or [`CkksError::Shape`] for an element that is not one.
    pub fn galois(
        &mut self,
        sk: &SecretKey,
        element: u64,
        shape: KeyShape,
    ) -> Result<SwitchingKey, CkksError> {
        self.check_context(sk)?;
        self.ctx.permutation(element)?;
        let inverse = inverse_element(element, 2 * self.ctx.n() as u64);
        let permutation = self.ctx.permutation(inverse)?;
        let mut to = RnsPoly::unspecified(self.ctx.n(), sk.residues.limbs());
        limbs_mut(&mut to)
            .into_par_iter()
            .enumerate()
            .for_each(|(i, out)| permutation.apply(out, sk.residues.limb(i)));
        let key = self.generate(&sk.residues, &to, shape, KeyRole::Galois(element), sk);
        to.as_mut_slice().zeroize();
        key
    }

    /// The Galois key of a rotation by `steps`. See [`Self::galois`].
    ///
    /// # Errors
    /// As [`Self::galois`].
    pub fn rotation(
        &mut self,
        sk: &SecretKey,
        steps: i64,
        shape: KeyShape,
    ) -> Result<SwitchingKey, CkksError> {
        self.galois(sk, self.rotation_element(steps), shape)
    }

    /// The Galois key of complex conjugation. See [`Self::galois`].
    ///
    /// # Errors
    /// As [`Self::galois`].
    pub fn conjugation(
        &mut self,
        sk: &SecretKey,
        shape: KeyShape,
    ) -> Result<SwitchingKey, CkksError> {
        self.galois(sk, self.conjugation_element(), shape)
    }

    /// A key from any polynomial `from` (NTT residues modulo at least `q_0..=q_level`, e.g. [`SecretKey::residues`]) to a secret; `number` is the
    /// caller's name for it.
    ///
    /// # Errors
    /// [`CkksError::KeyShape`], [`CkksError::AboveCeiling`], or [`CkksError::Shape`] if `from` has too few limbs.
    pub fn switching(
        &mut self,
        from: &RnsPoly,
        to: &SecretKey,
        shape: KeyShape,
        number: u32,
    ) -> Result<SwitchingKey, CkksError> {
        self.check_context(to)?;
        if from.n() != self.ctx.n() || from.limbs() <= shape.level {
            return Err(CkksError::Shape {
                what: "limbs of the secret to switch from",
                found: from.limbs(),
                expected: format!("at least {} of dimension {}", shape.level + 1, self.ctx.n()),
            });
        }
        self.generate(from, &to.residues, shape, KeyRole::Switch(number), to)
    }

    /// A relinearisation key and Galois keys for a list of elements with shapes.
    ///
    /// # Errors
    /// The first error of any of them.
    pub fn evaluation_keys(
        &mut self,
        sk: &SecretKey,
        relinearisation: KeyShape,
        galois: &[(u64, KeyShape)],
    ) -> Result<EvaluationKeys, CkksError> {
        let mut keys = EvaluationKeys::new(self.relinearisation(sk, relinearisation)?);
        for &(element, shape) in galois {
            keys.insert(self.galois(sk, element, shape)?);
        }
        Ok(keys)
    }

    /// `from` needs limbs `q_0..=q_level`; `to` all chain and special primes. `owner` gives name and distribution.
    fn generate(
        &mut self,
        from: &RnsPoly,
        to: &RnsPoly,
        shape: KeyShape,
        role: KeyRole,
        owner: &SecretKey,
    ) -> Result<SwitchingKey, CkksError> {
        let params = self.ctx.params();
        shape.check(params)?;
        let KeyShape { level, special } = shape;
        let mut key = SwitchingKey {
            level,
            special,
            role,
            digits: Vec::new(),
            seed: [0; 32],
            target: owner.distribution,
            id: owner.id,
        };
        self.check_ceiling(&key.description(params))?;
        self.rng.fill_bytes(&mut key.seed);
        for digit in 0..params.digits_at(level) {
            let noise = gaussian(&mut self.rng, self.ctx.n());
            let ctx = &self.ctx;
            let own = ctx.digit_limbs(digit, level);
            let a = ctx.uniform(&key.seed, digit, level, special);
            let mut b = RnsPoly::unspecified(ctx.n(), level + 1 + special);
            limbs_mut(&mut b)
                .into_par_iter()
                .enumerate()
                .for_each(|(j, b)| {
                    let table = ctx.table(level, j);
                    let m = table.modulus();
                    let to_limb = if j <= level {
                        j
                    } else {
                        ctx.params().q_len() + j - level - 1
                    };
                    signed_to_residues_i32(m, &noise, b);
                    table.forward(b);
                    sub_product(m, b, a.limb(j), to.limb(to_limb));
                    if own.contains(&j) {
                        ops::mul_scalar_add_assign(m, b, from.limb(j), ctx.p_product(special, j));
                    }
                });
            key.digits
                .push((ctx.packed(&b, level), ctx.packed(&a, level)));
        }
        Ok(key)
    }

    fn check_ceiling(&self, description: &KeyDescription) -> Result<(), CkksError> {
        if self.is_insecure() {
            Ok(())
        } else {
            check_128(description)
        }
    }

    fn check_context(&self, sk: &SecretKey) -> Result<(), CkksError> {
        check_same_parameters("secret key", &sk.ctx, &self.ctx)
    }
}

/// Errors unless both contexts have the same parameters.
pub(crate) fn check_same_parameters(
    what: &'static str,
    found: &Context,
    expected: &Context,
) -> Result<(), CkksError> {
    if found.params() == expected.params() {
        return Ok(());
    }
    Err(CkksError::ForeignParameters {
        what,
        found: short_hex(&found.params().fingerprint()),
        expected: short_hex(&expected.params().fingerprint()),
    })
}

/// The first eight bytes in hexadecimal.
pub(crate) fn short_hex(bytes: &[u8]) -> String {
    bytes.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// NTT residues of a secret over all primes.
pub(crate) fn secret_from(
    ctx: &Arc<Context>,
    coefficients: Zeroizing<Vec<i8>>,
    distribution: SecretDistribution,
    id: KeyId,
) -> SecretKey {
    let level = ctx.params().max_level();
    let mut residues = RnsPoly::unspecified(ctx.n(), level + 1 + ctx.params().p_len());
    limbs_mut(&mut residues)
        .into_par_iter()
        .enumerate()
        .for_each(|(j, limb)| {
            let table = ctx.table(level, j);
            signed_to_residues_i8(table.modulus(), &coefficients, limb);
            table.forward(limb);
        });
    SecretKey {
        ctx: ctx.clone(),
        coefficients,
        residues,
        distribution,
        id,
    }
}

/// `b -= a s` without an intermediate that would hold the product.
pub(crate) fn sub_product(m: &tacit_ring::Modulus, b: &mut [u64], a: &[u64], s: &[u64]) {
    ops::neg_assign(m, b);
    ops::mul_add_assign(m, b, a, s);
    ops::neg_assign(m, b);
}

/// `element^-1 mod 2N` for odd elements: `x^(N/2 - 1)`, as the group has exponent `N/2`.
fn inverse_element(element: u64, two_n: u64) -> u64 {
    let (mut result, mut base, mut exponent) = (1u64, element % two_n, two_n / 4 - 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % two_n;
        }
        base = base * base % two_n;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_elements() {
        for two_n in [32u64, 2048, 1 << 17] {
            for g in [1, 3, 5, 25, two_n - 1, two_n / 2 + 1] {
                assert_eq!(g * inverse_element(g, two_n) % two_n, 1, "{g} mod {two_n}");
            }
        }
    }
}
