//! Keys between the main secret and the sparse ephemeral secret of bootstrapping.
//!
//! ModRaise multiplies a ciphertext's message by nothing and adds a multiple of `q0` whose size grows with the weight of the secret. So the
//! ciphertext is switched to a secret of low weight just before, and back just after (Bossuat, Troncoso-Pastoriza and Hubaux, ACNS 2022):
//! the sparse secret protects ciphertexts modulo `q0` and one key modulo `q0` times one special prime, nothing larger.

use tacit_ring::{RnsPoly, ops};

use crate::context::Context;
use crate::error::CkksError;
use crate::key_generator::KeyGenerator;
use crate::keys::{KeyId, KeyShape, SecretKey, SwitchingKey};
use crate::parameters::Parameters;
use crate::security::{KeyDescription, SecretDistribution};

/// The keys between the main and the ephemeral secret.
#[derive(Clone)]
pub struct EncapsulationKeys {
    /// From the main secret to the ephemeral one, at level 0; `None` where a ternary layer's repacking takes its place.
    to_sparse: Option<SwitchingKey>,
    /// From the ephemeral secret to the main one: `(b, a)` over all limbs, one digit.
    raise: (RnsPoly, RnsPoly),
    id: KeyId,
}

impl EncapsulationKeys {
    /// Shape of the key from the main to the ephemeral secret: level 0, one special prime (100 bits by default, of at most 245).
    pub fn to_sparse_shape() -> KeyShape {
        KeyShape {
            level: 0,
            special: 1,
        }
    }

    /// What the security of the key from the main to the ephemeral secret depends on: it is a ciphertext under the ephemeral secret, modulo `q0` and
    /// one special prime.
    pub fn to_sparse_description(params: &Parameters) -> KeyDescription {
        let shape = Self::to_sparse_shape();
        KeyDescription {
            name: "switching key to the ephemeral secret".into(),
            ring_dimension: params.n(),
            log2_modulus: params.log_q_at(shape.level) + params.log_p_of(shape.special),
            secret: match params.literal().ephemeral_weight {
                0 => SecretDistribution::DenseTernary,
                weight => SecretDistribution::FixedWeight(weight),
            },
        }
    }

    /// From the two switching keys. `raise` switches from the ephemeral secret to the main one at the highest level, with all special primes.
    ///
    /// What ModRaise lifts is shorter than any digit, so that it equals each of its digits: the sum of the key's digits serves all of them at
    /// once, and only the sum is kept.
    ///
    /// # Errors
    /// [`CkksError::KeyShape`] for keys of other shapes; [`CkksError::ForeignKey`] if the two belong to different main secrets.
    pub fn new(
        ctx: &Context,
        raise: &SwitchingKey,
        to_sparse: Option<SwitchingKey>,
    ) -> Result<Self, CkksError> {
        let refuse = |key: &SwitchingKey, expected: KeyShape| {
            let reason = format!(
                "bootstrapping needs level {} with {} special primes",
                expected.level, expected.special
            );
            Err(CkksError::KeyShape {
                level: key.level,
                special: key.special,
                reason,
            })
        };
        let full = KeyShape::full(ctx.params());
        if raise.shape() != full {
            return refuse(raise, full);
        }
        if let Some(key) = to_sparse
            .as_ref()
            .filter(|key| key.shape() != Self::to_sparse_shape())
        {
            return refuse(key, Self::to_sparse_shape());
        }
        if let Some(key) = to_sparse.as_ref() {
            check_id(
                "switching key to the ephemeral secret",
                key.id(),
                raise.id(),
            )?;
        }
        let mut digits = raise.digits().iter();
        let Some((b, a)) = digits.next() else {
            return refuse(raise, full);
        };
        let mut sum = (b.unpack(), a.unpack());
        for (b, a) in digits {
            for (sum, digit) in [(&mut sum.0, b.unpack()), (&mut sum.1, a.unpack())] {
                for (j, limb) in sum.limbs_iter_mut().enumerate() {
                    ops::add_assign(ctx.modulus(full.level, j), limb, digit.limb(j));
                }
            }
        }
        Ok(Self {
            to_sparse,
            raise: sum,
            id: raise.id(),
        })
    }

    /// Generates both keys.
    ///
    /// # Errors
    /// Those of [`KeyGenerator::switching`].
    pub fn generate(
        generator: &mut KeyGenerator,
        main: &SecretKey,
        ephemeral: &SecretKey,
    ) -> Result<Self, CkksError> {
        let ctx = main.context();
        let to_sparse =
            generator.switching(main.residues(), ephemeral, Self::to_sparse_shape(), 1)?;
        let raise =
            generator.switching(ephemeral.residues(), main, KeyShape::full(ctx.params()), 2)?;
        Self::new(ctx, &raise, Some(to_sparse))
    }

    /// The key from the main to the ephemeral secret.
    pub(crate) fn to_sparse(&self) -> Option<&SwitchingKey> {
        self.to_sparse.as_ref()
    }

    /// The one-digit key from the ephemeral to the main secret.
    pub(crate) fn raise(&self) -> &(RnsPoly, RnsPoly) {
        &self.raise
    }

    /// Name of the main secret.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Bytes of residues held in memory.
    pub fn bytes(&self) -> usize {
        let poly = |p: &RnsPoly| 8 * p.n() * p.limbs();
        poly(&self.raise.0)
            + poly(&self.raise.1)
            + self.to_sparse.as_ref().map_or(0, SwitchingKey::bytes)
    }
}

/// Errors unless both objects belong to one main secret.
pub(crate) fn check_id(what: &'static str, found: KeyId, expected: KeyId) -> Result<(), CkksError> {
    if found == expected {
        return Ok(());
    }
    Err(CkksError::ForeignKey {
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}
