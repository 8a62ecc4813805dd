//! Everything that follows from the parameters and is shared by all objects: transform tables, constants, base converters, permutations.

use crate::ciphertext::{Ciphertext, LazyCiphertext, Plaintext, SeededCiphertext};
use crate::error::CkksError;
use crate::fft::SpecialFft;
use crate::parameters::Parameters;
use rayon::prelude::*;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, RwLock};
use tacit_ring::sampling::uniform_from_seed;
use tacit_ring::{BaseConverter, Modulus, NttPermutation, NttTable, PackedPoly, RnsPoly};

/// Which base conversion of a key switch ("mod-up", "mod-down"): the key of the converter cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Conversion {
    /// Limbs of a digit to all other limbs of `q_0..=q_level, p_0..p_{special-1}`.
    Up {
        digit: usize,
        level: usize,
        special: usize,
    },
    /// `p_0..p_{special-1}` to `q_0..=q_level`.
    Down { level: usize, special: usize },
    /// `p_0..p_{special-1}, q_level` to `q_0..q_level` (exclusive): division by `P` and rescaling in one.
    DownRescale { level: usize, special: usize },
}

/// Tables and constants of one parameter set. Made once, shared by reference count.
pub struct Context {
    params: Parameters,
    q_tables: Vec<Arc<NttTable>>,
    p_tables: Vec<Arc<NttTable>>,
    fft: SpecialFft,
    /// `q_inverse[l][i] = q_l^-1 mod q_i` for `i < l`.
    q_inverse: Vec<Vec<u64>>,
    /// `p_product[s][i] = p_0 … p_{s-1} mod q_i`.
    p_product: Vec<Vec<u64>>,
    /// Inverses of `p_product`.
    p_product_inverse: Vec<Vec<u64>>,
    /// The value of `X^{N/2}` in the first half of the NTT order, modulo `q_i` and then `p_i`; its negative in the second half.
    imaginary_unit: Vec<u64>,
    converters: RwLock<HashMap<Conversion, Arc<BaseConverter>>>,
    permutations: RwLock<HashMap<u64, Arc<NttPermutation>>>,
}

impl Context {
    /// Builds tables and constants. At `N = 2^16` with 36 primes: some 100 MB and well under a second.
    ///
    /// # Errors
    /// [`CkksError::Ring`] if a prime has no transform of this size (cannot happen for checked parameters).
    pub fn new(params: Parameters) -> Result<Arc<Self>, CkksError> {
        let n = params.n();
        let tables = |moduli: &[Modulus]| -> Result<Vec<Arc<NttTable>>, CkksError> {
            moduli
                .par_iter()
                .map(|m| Ok(Arc::new(NttTable::new(n, *m)?)))
                .collect()
        };
        let q_tables = tables(params.q_moduli())?;
        let p_tables = tables(params.p_moduli())?;
        let q = params.q_moduli();
        let q_inverse = (0..q.len())
            .map(|l| {
                (0..l)
                    .map(|i| q[i].inv(q[i].reduce(q[l].value())))
                    .collect()
            })
            .collect();
        let mut p_product = vec![vec![1u64; q.len()]];
        for p in params.p_moduli() {
            let last = &p_product[p_product.len() - 1];
            let next = q
                .iter()
                .zip(last)
                .map(|(m, &x)| m.mul(x, m.reduce(p.value())))
                .collect();
            p_product.push(next);
        }
        let p_product_inverse = p_product
            .iter()
            .map(|row| row.iter().zip(q).map(|(&x, m)| m.inv(x)).collect())
            .collect();
        // X^{N/2} has two values in NTT order: out[j] = psi^{(2 br(j) + 1) N/2}, and br(j) is odd exactly in the second half.
        let imaginary_unit = q_tables
            .par_iter()
            .chain(&p_tables)
            .map(|table| {
                let mut monomial = RnsPoly::zero(n, 1);
                monomial.limb_mut(0)[n / 2] = 1;
                table.forward(monomial.limb_mut(0));
                monomial.limb(0)[0]
            })
            .collect();
        Ok(Arc::new(Self {
            fft: SpecialFft::new(n),
            params,
            q_tables,
            p_tables,
            q_inverse,
            p_product,
            p_product_inverse,
            imaginary_unit,
            converters: RwLock::default(),
            permutations: RwLock::default(),
        }))
    }

    /// The parameters.
    pub fn params(&self) -> &Parameters {
        &self.params
    }

    /// Ring dimension `N`.
    pub fn n(&self) -> usize {
        self.params.n()
    }

    /// The transform between coefficients and slots.
    pub fn fft(&self) -> &SpecialFft {
        &self.fft
    }

    /// Transform table of `q_i`. Panics if `i` is not below `q_len`.
    pub fn q_table(&self, i: usize) -> &Arc<NttTable> {
        &self.q_tables[i]
    }

    /// Transform table of `p_i`. Panics if `i` is not below `p_len`.
    pub fn p_table(&self, i: usize) -> &Arc<NttTable> {
        &self.p_tables[i]
    }

    /// Transform table of limb `j` of a polynomial over `q_0..=q_level, p_0…`.
    pub fn table(&self, level: usize, j: usize) -> &NttTable {
        if j <= level {
            &self.q_tables[j]
        } else {
            &self.p_tables[j - level - 1]
        }
    }

    /// Modulus of limb `j` of a polynomial over `q_0..=q_level, p_0…`.
    pub fn modulus(&self, level: usize, j: usize) -> &Modulus {
        self.table(level, j).modulus()
    }

    /// `q_l^-1 mod q_i`, `i < l`.
    pub(crate) fn q_inverse(&self, l: usize, i: usize) -> u64 {
        self.q_inverse[l][i]
    }

    /// `p_0 … p_{special-1} mod q_i`.
    pub fn p_product(&self, special: usize, i: usize) -> u64 {
        self.p_product[special][i]
    }

    /// `(p_0 … p_{special-1})^-1 mod q_i`.
    pub fn p_product_inverse(&self, special: usize, i: usize) -> u64 {
        self.p_product_inverse[special][i]
    }

    /// The residue that stands for the imaginary unit in the first half of the NTT order of limb `j` over `q_0..=q_level, p_0…`: the value of
    /// `X^{N/2}`, which is `i` in every slot. The second half has its negative.
    pub fn imaginary_unit(&self, level: usize, j: usize) -> u64 {
        if j <= level {
            self.imaginary_unit[j]
        } else {
            self.imaginary_unit[self.params.q_len() + j - level - 1]
        }
    }

    /// The limbs of digit `digit` at a level: `digit * alpha .. min((digit + 1) * alpha, level + 1)`.
    pub fn digit_limbs(&self, digit: usize, level: usize) -> std::ops::Range<usize> {
        let alpha = self.params.alpha();
        digit * alpha..((digit + 1) * alpha).min(level + 1)
    }

    /// The permutation of NTT values that is `X -> X^element`; made once per element.
    ///
    /// # Errors
    /// [`CkksError::Shape`] if the element is even or not below `2N`.
    pub fn permutation(&self, element: u64) -> Result<Arc<NttPermutation>, CkksError> {
        let n = self.n();
        if element.is_multiple_of(2) || element >= 2 * n as u64 {
            return Err(CkksError::Shape {
                what: "Galois element",
                found: element as usize,
                expected: format!("an odd number below {}", 2 * n),
            });
        }
        cached(&self.permutations, element, || {
            Ok(NttPermutation::new(n, element))
        })
    }

    pub(crate) fn converter(
        &self,
        conversion: Conversion,
    ) -> Result<Arc<BaseConverter>, CkksError> {
        cached(&self.converters, conversion, || {
            let (q, p) = (self.params.q_moduli(), self.params.p_moduli());
            let (from, to): (Vec<Modulus>, Vec<Modulus>) = match conversion {
                Conversion::Up {
                    digit,
                    level,
                    special,
                } => {
                    let own = self.digit_limbs(digit, level);
                    let others = q[..own.start]
                        .iter()
                        .chain(&q[own.end..=level])
                        .chain(&p[..special]);
                    (q[own.clone()].to_vec(), others.copied().collect())
                }
                Conversion::Down { level, special } => {
                    (p[..special].to_vec(), q[..=level].to_vec())
                }
                Conversion::DownRescale { level, special } => (
                    p[..special]
                        .iter()
                        .chain(&q[level..=level])
                        .copied()
                        .collect(),
                    q[..level].to_vec(),
                ),
            };
            Ok(BaseConverter::new(&from, &to)?)
        })
    }

    /// Forward transform of every limb of a polynomial over `q_0..=q_level, p_0…`.
    pub fn forward(&self, poly: &mut RnsPoly, level: usize) {
        limbs_mut(poly)
            .into_par_iter()
            .enumerate()
            .for_each(|(j, limb)| self.table(level, j).forward(limb));
    }

    /// The coefficients of a polynomial over `q_0..=q_level, p_0…` in NTT form.
    pub(crate) fn coefficients(&self, poly: &RnsPoly, level: usize) -> RnsPoly {
        let mut out = RnsPoly::unspecified(self.n(), poly.limbs());
        limbs_mut(&mut out)
            .into_par_iter()
            .enumerate()
            .for_each(|(j, limb)| {
                limb.copy_from_slice(poly.limb(j));
                self.table(level, j).inverse(limb);
            });
        out
    }

    /// The uniform polynomial that a seed stands for, over `q_0..=q_level` and the first `special` special primes. Limb `q_i` of digit `d` is
    /// stream `2^16 d + i` of the seed, limb `p_i` stream `2^16 d + 2^15 + i`: so a limb does not depend on the level it is used at.
    pub(crate) fn uniform(
        &self,
        seed: &[u8; 32],
        digit: usize,
        level: usize,
        special: usize,
    ) -> RnsPoly {
        let mut a = RnsPoly::unspecified(self.n(), level + 1 + special);
        limbs_mut(&mut a)
            .into_par_iter()
            .enumerate()
            .for_each(|(j, limb)| {
                let within = if j <= level {
                    j
                } else {
                    (1 << 15) + j - level - 1
                };
                uniform_from_seed(
                    self.modulus(level, j),
                    seed,
                    ((digit as u64) << 16) + within as u64,
                    limb,
                );
            });
        a
    }

    /// Expands the seed of a fresh symmetric encryption.
    ///
    /// # Errors
    /// [`CkksError::Shape`] if it does not fit this context.
    pub fn expand(&self, seeded: &SeededCiphertext) -> Result<Ciphertext, CkksError> {
        self.check_poly("seeded ciphertext", &seeded.b, seeded.level, 0)?;
        let a = self.uniform(&seeded.seed, 0, seeded.level, 0);
        Ok(Ciphertext {
            parts: vec![seeded.b.clone(), a],
            level: seeded.level,
            scale: seeded.scale,
        })
    }

    /// A polynomial over `q_0..=q_level` and some special primes without gaps.
    pub(crate) fn packed(&self, poly: &RnsPoly, level: usize) -> PackedPoly {
        PackedPoly::new(poly, |j| self.modulus(level, j).bits())
    }

    /// Checks ring dimension, level and limb count of a polynomial over `q_0..=q_level` and `special` special primes.
    pub(crate) fn check_poly(
        &self,
        what: &'static str,
        poly: &RnsPoly,
        level: usize,
        special: usize,
    ) -> Result<(), CkksError> {
        self.check_shape(what, [poly.n(), poly.limbs()], level, special)
    }

    /// The same of a ring dimension and a number of limbs.
    pub(crate) fn check_shape(
        &self,
        what: &'static str,
        [n, limbs]: [usize; 2],
        level: usize,
        special: usize,
    ) -> Result<(), CkksError> {
        if n != self.n() {
            return Err(CkksError::Shape {
                what,
                found: n,
                expected: format!("ring dimension {}", self.n()),
            });
        }
        self.check_level(what, level)?;
        if special > self.params.p_len() {
            return Err(CkksError::Shape {
                what,
                found: special,
                expected: format!("at most {} special primes", self.params.p_len()),
            });
        }
        if limbs != level + 1 + special {
            return Err(CkksError::Shape {
                what,
                found: limbs,
                expected: format!("{} limbs at level {level}", level + 1 + special),
            });
        }
        Ok(())
    }

    pub(crate) fn check_level(&self, what: &'static str, level: usize) -> Result<(), CkksError> {
        if level > self.params.max_level() {
            return Err(CkksError::Shape {
                what,
                found: level,
                expected: format!("a level of at most {}", self.params.max_level()),
            });
        }
        Ok(())
    }

    pub(crate) fn check_plaintext(&self, pt: &Plaintext) -> Result<(), CkksError> {
        self.check_poly("plaintext", &pt.poly, pt.level, 0)
    }

    pub(crate) fn check_ciphertext(&self, ct: &Ciphertext) -> Result<(), CkksError> {
        if !(2..=3).contains(&ct.parts.len()) {
            return Err(CkksError::Shape {
                what: "ciphertext parts",
                found: ct.parts.len(),
                expected: "2 or 3".into(),
            });
        }
        ct.parts
            .iter()
            .try_for_each(|part| self.check_poly("ciphertext", part, ct.level, 0))
    }

    /// Like [`Self::check_ciphertext`], and exactly two parts.
    pub(crate) fn check_linear(&self, ct: &Ciphertext) -> Result<(), CkksError> {
        self.check_ciphertext(ct)?;
        if ct.parts.len() != 2 {
            return Err(CkksError::Shape {
                what: "ciphertext parts",
                found: ct.parts.len(),
                expected: "2 (relinearise the product first)".into(),
            });
        }
        Ok(())
    }

    pub(crate) fn check_lazy(&self, ct: &LazyCiphertext) -> Result<(), CkksError> {
        self.check_poly("lazy ciphertext", &ct.b, ct.level, ct.special)?;
        self.check_poly("lazy ciphertext", &ct.a, ct.level, ct.special)
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

/// Looks up or makes the entry of a cache. Two threads may both make it; the first one stays.
fn cached<K: Copy + Eq + Hash, V>(
    cache: &RwLock<HashMap<K, Arc<V>>>,
    key: K,
    make: impl FnOnce() -> Result<V, CkksError>,
) -> Result<Arc<V>, CkksError> {
    // A poisoned lock still holds a valid map: entries are inserted whole.
    if let Some(found) = cache.read().unwrap_or_else(|e| e.into_inner()).get(&key) {
        return Ok(found.clone());
    }
    let made = Arc::new(make()?);
    Ok(cache
        .write()
        .unwrap_or_else(|e| e.into_inner())
        .entry(key)
        .or_insert(made)
        .clone())
}

/// The limbs of a polynomial as separate slices, for loops that are parallel over limbs.
pub(crate) fn limbs_mut(poly: &mut RnsPoly) -> Vec<&mut [u64]> {
    poly.limbs_iter_mut().collect()
}
