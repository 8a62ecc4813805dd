//! From MLWE components back to RLWE, under the sparse secret that ModRaise wants.

use std::sync::Mutex;

use rand_core::CryptoRng;
use tacit_ring::{Modulus, RnsPoly, ops, sampling};
use zeroize::Zeroizing;

use super::{
    MlweContext, MlweError, MlweShape, RlweCoeff,
    ring_switch::{SmallSecret, describe},
};
use crate::{KeyId, Parameters, SecretKey, security::SecretDistribution};

/// `k'` keys with one digit each, modulo `q0 P'`: `b_i + a_i * target = e_i + P' * s'_i(X^k)`.
///
/// With the sparse ephemeral secret as target the switch of secret encapsulation costs nothing: what comes out is what
/// ModRaise wants. Dimension `N`, weight 32, 100 bits at `N = 2^16` (ceiling 245).
#[derive(Clone)]
pub struct RepackKey {
    pub(super) params: Parameters,
    pub(super) shape: MlweShape,
    pub(super) id: KeyId,
    pub(super) target: SecretDistribution,
    pub(super) seed: [u8; 32],
    /// `(b_i, a_i)` modulo `q0` and `P'`, transformed; `a_i` is digit `i` of the seed's stream.
    pub(super) keys: Vec<[RnsPoly; 2]>,
}

impl RepackKey {
    /// Makes the keys from the small secret to `target` (the ephemeral secret).
    ///
    /// # Errors
    /// [`MlweError::Length`] if `target` does not have `N` entries.
    pub(super) fn generate(
        context: &MlweContext,
        small: &SmallSecret,
        target: &SecretKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, MlweError> {
        let shape = context.shape;
        let n = shape.degree();
        let found = target.coefficients().len();
        if found != n {
            return Err(MlweError::Length {
                what: "ephemeral secret",
                expected: n,
                found,
            });
        }
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let targets = [target.q_residues(0), target.p_residues(0)];
        let keys = (0..shape.rank())
            .map(|i| {
                let error = sampling::gaussian(rng, n);
                let a = context.context().uniform(&seed, i, 0, 1);
                let mut b = RnsPoly::zero(n, 2);
                for (limb, table) in [context.q(), context.p()].into_iter().enumerate() {
                    let (m, b) = (table.modulus(), b.limb_mut(limb));
                    sampling::signed_to_residues_i32(m, &error, b);
                    table.forward(b);
                    let mut product = Zeroizing::new(vec![0; n]);
                    ops::mul(m, &mut product, a.limb(limb), targets[limb]);
                    ops::sub_assign(m, b, &product);
                }
                let q = context.q0();
                let mut from = Zeroizing::new(vec![0; n]);
                sampling::signed_to_residues_i8(q, &small.component(&shape, i), &mut from);
                context.q().forward(&mut from);
                let special = q.reduce(context.special().value());
                ops::mul_scalar_add_assign(q, b.limb_mut(0), &from, special);
                [b, a]
            })
            .collect();
        let (params, id) = (context.params().clone(), target.id());
        Ok(Self {
            params,
            shape,
            id,
            target: target.distribution(),
            seed,
            keys,
        })
    }

    /// The degrees it was made for.
    pub fn shape(&self) -> &MlweShape {
        &self.shape
    }

    pub(super) fn check(&self, context: &MlweContext) -> Result<(), MlweError> {
        if self.params != *context.params() || self.shape != context.shape {
            let say = |params, shape: &MlweShape| {
                format!("{} for {} tokens", describe(params), shape.tokens())
            };
            return Err(MlweError::KeyMismatch {
                what: "repack key",
                expected: say(context.params(), &context.shape),
                found: say(&self.params, &self.shape),
            });
        }
        Ok(())
    }
}

/// One output ciphertext on the way: `sum_i A_i(X) * key_i` modulo `q0 P'`, transformed, and the b part.
pub(super) struct Accumulator {
    limbs: [Mutex<[Vec<u64>; 2]>; 2],
    b: Mutex<Vec<u64>>,
}

impl Accumulator {
    pub(super) fn new(degree: usize) -> Self {
        Self {
            limbs: std::array::from_fn(|_| Mutex::new(std::array::from_fn(|_| vec![0; degree]))),
            b: Mutex::new(Vec::new()),
        }
    }

    /// Takes the b part.
    pub(super) fn set_b(&self, b: Vec<u64>) {
        *lock(&self.b) = b;
    }

    /// Adds `A_i(X) * key_i`. Sums of residues: the order of the components does not matter.
    pub(super) fn absorb(
        &self,
        context: &MlweContext,
        key: &RepackKey,
        i: usize,
        mut poly: Vec<u64>,
    ) {
        let mut lifted = lift(context.q0(), context.special(), &poly);
        for (limb, (table, poly)) in [(context.q(), &mut poly), (context.p(), &mut lifted)]
            .into_iter()
            .enumerate()
        {
            table.forward(poly);
            let mut sums = lock(&self.limbs[limb]);
            for (sum, key) in sums.iter_mut().zip(&key.keys[i]) {
                ops::mul_add_assign(table.modulus(), sum, poly, key.limb(limb));
            }
        }
    }

    /// Mod-down by `P'` and the b part added: the ciphertext under the target secret.
    pub(super) fn finish(self, context: &MlweContext) -> RlweCoeff {
        let [over_q, over_p] = self.limbs.map(unlock);
        let [(mut b, bp), (mut a, ap)] = {
            let [bq, aq] = over_q;
            let [bp, ap] = over_p;
            [(bq, bp), (aq, ap)]
        };
        let (q, p) = (context.q0(), context.special());
        let inverse = q.inv(q.reduce(p.value()));
        for (x, mut xp) in [(&mut b, bp), (&mut a, ap)] {
            context.q().inverse(x);
            context.p().inverse(&mut xp);
            // Rounds to nearest: the residue modulo P' is centred before it is taken away.
            let xp = lift(p, q, &xp);
            ops::sub_assign(q, x, &xp);
            ops::mul_scalar_assign(q, x, inverse);
        }
        ops::add_assign(q, &mut b, &unlock(self.b));
        RlweCoeff { b, a }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn unlock<T>(mutex: Mutex<T>) -> T {
    mutex
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The centred residues modulo `from` as residues modulo `to`.
fn lift(from: &Modulus, to: &Modulus, x: &[u64]) -> Vec<u64> {
    if from.value() / 2 < to.value() {
        let to = to.value() as i64;
        x.iter()
            .map(|&x| from.centre(x))
            .map(|x| (x + ((x >> 63) & to)) as u64)
            .collect()
    } else {
        x.iter().map(|&x| to.from_i64(from.centre(x))).collect()
    }
}
