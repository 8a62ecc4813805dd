//! From MLWE components back to RLWE, under the sparse secret that ModRaise wants.

use std::sync::Mutex;

use rand_core::CryptoRng;
use tacit_ring::{Modulus, NttTable, ops, sampling};
use zeroize::Zeroizing;

use super::{MlweContext, MlweError, MlweShape, RlweCoeff, ring_switch::SmallSecret};

/// `k'` keys with one digit each, modulo `q0 P'`: `b_i + a_i * target = e_i + P' * s'_i(X^k)`.
///
/// With the sparse ephemeral secret as target the switch of secret encapsulation costs nothing: what comes out is what
/// ModRaise wants. Dimension `N`, weight 32, 100 bits at `N = 2^16` (ceiling 245).
#[derive(Clone, PartialEq, Eq)]
pub struct RepackKey {
    pub(super) shape: MlweShape,
    pub(super) moduli: [u64; 2],
    pub(super) seed: [u8; 32],
    /// For each component and modulus (`q0`, then `P'`) the pair `(b, a)` in the transformed domain.
    pub(super) keys: Vec<[[Vec<u64>; 2]; 2]>,
}

impl RepackKey {
    /// Makes the keys from the small secret to `target` (the `N` coefficients of the ephemeral secret).
    ///
    /// # Errors
    /// [`MlweError::Length`] if `target` does not have `N` entries.
    pub(super) fn generate(
        context: &MlweContext,
        small: &SmallSecret,
        target: &[i8],
        rng: &mut impl CryptoRng,
    ) -> Result<Self, MlweError> {
        let shape = context.shape;
        let n = shape.degree();
        if target.len() != n {
            return Err(MlweError::Length {
                what: "ephemeral secret",
                expected: n,
                found: target.len(),
            });
        }
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let tables = [&context.q, &context.p];
        let ntt_of = |table: &NttTable, s: &[i8]| {
            let mut out = Zeroizing::new(vec![0; n]);
            sampling::signed_to_residues_i8(table.modulus(), s, &mut out);
            table.forward(&mut out);
            out
        };
        let targets = tables.map(|table| ntt_of(table, target));
        let keys = (0..shape.rank())
            .map(|i| {
                let error = sampling::gaussian(rng, n);
                let from = small.component(&shape, i);
                std::array::from_fn(|limb| {
                    let (table, m) = (tables[limb], tables[limb].modulus());
                    let mut a = vec![0; n];
                    sampling::uniform_from_seed(m, &seed, (2 * i + limb) as u64, &mut a);
                    let mut b = vec![0; n];
                    sampling::signed_to_residues_i32(m, &error, &mut b);
                    table.forward(&mut b);
                    let mut product = Zeroizing::new(vec![0; n]);
                    ops::mul(m, &mut product, &a, &targets[limb]);
                    ops::sub_assign(m, &mut b, &product);
                    if limb == 0 {
                        let mut from = ntt_of(table, &from);
                        ops::mul_scalar_assign(m, &mut from, m.reduce(context.special().value()));
                        ops::add_assign(m, &mut b, &from);
                    }
                    [b, a]
                })
            })
            .collect();
        Ok(Self {
            shape,
            moduli: tables.map(|t| t.modulus().value()),
            seed,
            keys,
        })
    }

    /// The degrees it was made for.
    pub fn shape(&self) -> &MlweShape {
        &self.shape
    }

    pub(super) fn check(&self, context: &MlweContext) -> Result<(), MlweError> {
        let moduli = [context.q0().value(), context.special().value()];
        if self.shape != context.shape || self.moduli != moduli {
            let say = |shape: &MlweShape, moduli: [u64; 2]| {
                format!(
                    "(N, N', n) = {:?} modulo {} * {}",
                    shape.triple(),
                    moduli[0],
                    moduli[1]
                )
            };
            return Err(MlweError::KeyMismatch {
                what: "repack key",
                expected: say(&context.shape, moduli),
                found: say(&self.shape, self.moduli),
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
        for (limb, (table, poly)) in [(&context.q, &mut poly), (&context.p, &mut lifted)]
            .into_iter()
            .enumerate()
        {
            table.forward(poly);
            let mut sums = lock(&self.limbs[limb]);
            for (sum, key) in sums.iter_mut().zip(&key.keys[i][limb]) {
                ops::mul_add_assign(table.modulus(), sum, poly, key);
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
            context.q.inverse(x);
            context.p.inverse(&mut xp);
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
