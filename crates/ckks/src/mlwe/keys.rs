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
    ring_switch: RingSwitchKey,
    repack: RepackKey,
}

impl MlweKeys {
    /// Makes both keys, from `secret` to a fresh small secret and from there to `target`, which is the ephemeral sparse secret
    /// when a refresh follows.
    ///
    /// # Errors
    /// [`CkksError::AboveCeiling`] for a key below 128 bits unless the parameters are marked insecure; [`CkksError::ForeignKey`] if
    /// `target` does not carry the name of `secret`; [`super::MlweError`] for secrets of other parameters.
    pub fn generate(
        context: &MlweContext,
        secret: &SecretKey,
        target: &SecretKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, CkksError> {
        let small = SmallSecret::generate(context.shape(), rng);
        let ring_switch =
            RingSwitchKey::generate(context, secret.coefficients(), secret.id(), &small, rng)?;
        let keys = Self::new(
            ring_switch,
            RepackKey::generate(context, &small, target, rng)?,
        )?;
        if !context.params().is_insecure() {
            keys.descriptions().iter().try_for_each(check_128)?;
        }
        Ok(keys)
    }

    /// From the two keys, as read from bytes.
    ///
    /// # Errors
    /// [`CkksError::ForeignKey`] if they belong to different secret keys.
    pub fn new(ring_switch: RingSwitchKey, repack: RepackKey) -> Result<Self, CkksError> {
        if ring_switch.id != repack.id {
            return Err(CkksError::ForeignKey {
                what: "repack key",
                found: repack.id.to_string(),
                expected: ring_switch.id.to_string(),
            });
        }
        Ok(Self {
            ring_switch,
            repack,
        })
    }

    /// From the main secret to the small ring.
    pub fn ring_switch(&self) -> &RingSwitchKey {
        &self.ring_switch
    }

    /// From the small ring's components to the target secret.
    pub fn repack(&self) -> &RepackKey {
        &self.repack
    }

    /// Name of the secret key they belong to.
    pub fn id(&self) -> KeyId {
        self.ring_switch.id
    }

    /// Bytes of residues held in memory.
    pub fn bytes(&self) -> usize {
        let polys = self
            .ring_switch
            .digits
            .iter()
            .chain(&self.repack.keys)
            .flatten();
        polys.map(|poly| 8 * poly.n() * poly.limbs()).sum()
    }

    /// What the security of each key depends on, see [`Self::descriptions_of`]; here with the secret that the repack key was really
    /// made for.
    pub fn descriptions(&self) -> Vec<KeyDescription> {
        let mut all = Self::descriptions_of(&self.repack.params);
        all[1].secret = self.repack.target;
        all
    }

    /// What the security of the keys of these parameters depends on, with the ephemeral secret as target: the ring-switch key
    /// lives in the small ring under the dense ternary small secret, modulo `q0` alone; the repack key in the large ring under
    /// the target, modulo `q0 P'`.
    pub fn descriptions_of(params: &Parameters) -> Vec<KeyDescription> {
        let literal = params.literal();
        let (log_q0, log_p) = (params.log_q_at(0), params.log_p_of(1));
        vec![
            KeyDescription {
                name: "ring-switch key".into(),
                ring_dimension: 1 << literal.small_log_n,
                log2_modulus: log_q0,
                secret: SecretDistribution::DenseTernary,
            },
            KeyDescription {
                name: "repack key".into(),
                ring_dimension: params.n(),
                log2_modulus: log_q0 + log_p,
                secret: match literal.ephemeral_weight {
                    0 => SecretDistribution::DenseTernary,
                    weight => SecretDistribution::FixedWeight(weight),
                },
            },
        ]
    }
}
