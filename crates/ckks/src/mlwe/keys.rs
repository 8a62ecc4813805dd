//! The two published keys of the MLWE side as one set, checked against the security ceilings.

use rand_core::CryptoRng;

use super::{MlweContext, RepackKey, RingSwitchKey, ring_switch::SmallSecret};
use crate::{
    CkksError, KeyId, Parameters, SecretKey,
    security::{KeyDescription, SecretDistribution, check_128},
};

/// Ring-switch key and repack key of one client for one number of tokens. The small secret between them is forgotten as soon as
/// they are made.
#[derive(Clone)]
pub struct MlweKeys {
    pub(super) ring_switch: RingSwitchKey,
    pub(super) repack: RepackKey,
    pub(super) target: SecretDistribution,
    pub(super) id: KeyId,
}

impl MlweKeys {
    /// Makes both keys, from `secret` to a fresh small secret and from there to `target`, which is the ephemeral sparse secret
    /// when a refresh follows.
    ///
    /// # Errors
    /// [`CkksError::AboveCeiling`] for a key below 128 bits unless the parameters are marked insecure; [`super::MlweError`] for secrets of
    /// other parameters.
    pub fn generate(
        context: &MlweContext,
        secret: &SecretKey,
        target: &SecretKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, CkksError> {
        let small = SmallSecret::generate(context.shape(), rng);
        let keys = Self {
            ring_switch: RingSwitchKey::generate(context, secret.coefficients(), &small, rng)?,
            repack: RepackKey::generate(context, &small, target.coefficients(), rng)?,
            target: target.distribution(),
            id: secret.id(),
        };
        if !context.params().is_insecure() {
            keys.descriptions().iter().try_for_each(check_128)?;
        }
        Ok(keys)
    }

    /// From `(b + a s)` to the small ring.
    pub fn ring_switch(&self) -> &RingSwitchKey {
        &self.ring_switch
    }

    /// From the small ring's components to the target secret.
    pub fn repack(&self) -> &RepackKey {
        &self.repack
    }

    /// Name of the secret key they belong to.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Bytes of residues held in memory.
    pub fn bytes(&self) -> usize {
        8 * self.ring_switch.shape.0
            * (2 * self.ring_switch.digits.len() + 4 * self.repack.keys.len())
    }

    /// What the security of each key depends on: see [`Self::descriptions_of`]; here with the moduli and the secret that the keys were
    /// really made with.
    pub fn descriptions(&self) -> Vec<KeyDescription> {
        let repack_degree = self.repack.shape.degree();
        descriptions(
            self.ring_switch.shape.1,
            self.ring_switch.modulus,
            repack_degree,
            self.repack.moduli,
            self.target,
        )
    }

    /// What the security of the keys of these parameters depends on, with the ephemeral secret as target: the ring-switch key
    /// lives in the small ring under the dense ternary small secret, modulo `q0` alone; the repack key in the large ring under
    /// the target, modulo `q0 P'`.
    pub fn descriptions_of(params: &Parameters) -> Vec<KeyDescription> {
        let literal = params.literal();
        let [q, p] = [params.q(0), params.p(0)].map(|m| m.value());
        let target = match literal.ephemeral_weight {
            0 => SecretDistribution::DenseTernary,
            weight => SecretDistribution::FixedWeight(weight),
        };
        descriptions(1 << literal.small_log_n, q, params.n(), [q, p], target)
    }
}

fn descriptions(
    small_degree: usize,
    q: u64,
    degree: usize,
    repack: [u64; 2],
    target: SecretDistribution,
) -> Vec<KeyDescription> {
    let log2 = |x: u64| (x as f64).log2();
    vec![
        KeyDescription {
            name: "ring-switch key".into(),
            ring_dimension: small_degree,
            log2_modulus: log2(q),
            secret: SecretDistribution::DenseTernary,
        },
        KeyDescription {
            name: "repack key".into(),
            ring_dimension: degree,
            log2_modulus: repack.iter().map(|&m| log2(m)).sum(),
            secret: target,
        },
    ]
}
