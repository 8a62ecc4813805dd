//! Parameters as a person writes them.

use super::MAX_LIMBS;

/// What a person writes: sizes in bits, from which the primes follow.
///
/// Primes of 50 bits are taken downward from `2^50` in the order q0, EvalMod, CtS, special; primes of other sizes are those nearest to
/// the power of two, in the order StC, user, EvalMod, CtS, special. All are `1 mod 2N` and distinct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParametersLiteral {
    /// `log2` of the ring dimension `N`.
    pub log_n: u32,
    /// Bits of the bottom prime `q_0`.
    pub q0_bits: u32,
    /// Bits of the primes that SlotsToCoeffs consumes.
    pub stc_bits: Vec<u32>,
    /// Bits of the primes for user work.
    pub user_bits: Vec<u32>,
    /// Bits of the primes that EvalMod consumes.
    pub eval_mod_bits: Vec<u32>,
    /// Bits of the primes that CoeffsToSlots consumes.
    pub cts_bits: Vec<u32>,
    /// Bits of the special primes of hybrid key switching; their number is also the number of limbs in a digit.
    pub special_bits: Vec<u32>,
    /// `log2` of the scale of user data.
    pub log_user_scale: u32,
    /// Hamming weight of the ephemeral sparse secret of bootstrapping; 0 for none.
    pub ephemeral_weight: usize,
    /// `log2` of the ring dimension of the small ring of ternary products.
    pub small_log_n: u32,
    /// Bits of a digit of the ring-switch key.
    pub ring_switch_digit_bits: u32,
    /// `log2` of the ratio `q0 / Delta` in bootstrapping.
    pub log_message_ratio: u32,
}

impl ParametersLiteral {
    /// The default preset. `N = 2^16`, dense ternary secret, 128-bit security:
    ///
    /// | part | primes | bits |
    /// | --- | --- | --- |
    /// | q0 | 1 | 50 |
    /// | StC | 3 | 40 |
    /// | user | 13 | 45 (scale `2^45`) |
    /// | EvalMod | 7 | 50 |
    /// | CtS | 3 | 50 |
    /// | special | 9 | 50 |
    ///
    /// 27 limbs, three digits of 9 limbs, `log2 QP` = 1705 of at most 1747. Ephemeral secret of weight 32 at 100 of at most 245 bits; small
    /// ring of dimension 2048 at 50 of at most 53 bits.
    pub fn default_128() -> Self {
        Self {
            log_n: 16,
            q0_bits: 50,
            stc_bits: vec![40; 3],
            user_bits: vec![45; 13],
            eval_mod_bits: vec![50; 7],
            cts_bits: vec![50; 3],
            special_bits: vec![50; 9],
            log_user_scale: 45,
            ephemeral_weight: 32,
            small_log_n: 11,
            ring_switch_digit_bits: 7,
            log_message_ratio: 10,
        }
    }

    /// The chain of [`Self::default_128`] in a ring of dimension `2^log_n`: fast, and **insecure** below `2^16`; for tests through
    /// [`super::InsecureParameters`]. The small ring is at most half the ring.
    pub fn default_chain(log_n: u32) -> Self {
        let default = Self::default_128();
        Self {
            log_n,
            small_log_n: default.small_log_n.min(log_n.saturating_sub(1)),
            ..default
        }
    }

    /// A short chain for tests of plain arithmetic: `levels` user primes of 45 bits over a 50-bit `q_0`, and `special` special primes.
    pub fn levelled(log_n: u32, levels: usize, special: usize) -> Self {
        Self {
            stc_bits: vec![],
            user_bits: vec![45; levels],
            eval_mod_bits: vec![],
            cts_bits: vec![],
            special_bits: vec![50; special],
            ..Self::default_chain(log_n)
        }
    }

    /// Bits of the chain `q_0, q_1, …`, bottom to top.
    pub(super) fn chain_bits(&self) -> Vec<u32> {
        let mut bits = vec![self.q0_bits];
        for part in [
            &self.stc_bits,
            &self.user_bits,
            &self.eval_mod_bits,
            &self.cts_bits,
        ] {
            bits.extend(part);
        }
        bits
    }

    /// A canonical byte string: what the fingerprint hashes and the wire carries.
    pub(crate) fn to_canonical_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut word = |x: u32| out.extend_from_slice(&x.to_le_bytes());
        for x in [
            self.log_n,
            self.q0_bits,
            self.log_user_scale,
            u32::try_from(self.ephemeral_weight).unwrap_or(u32::MAX),
            self.small_log_n,
            self.ring_switch_digit_bits,
            self.log_message_ratio,
        ] {
            word(x);
        }
        for part in [
            &self.stc_bits,
            &self.user_bits,
            &self.eval_mod_bits,
            &self.cts_bits,
            &self.special_bits,
        ] {
            word(u32::try_from(part.len()).unwrap_or(u32::MAX));
            for &b in part {
                word(b);
            }
        }
        out
    }

    /// The inverse of [`Self::to_canonical_bytes`]; `None` for any other byte string.
    pub(crate) fn from_canonical_bytes(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes
            .chunks_exact(4)
            .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
        if !bytes.len().is_multiple_of(4) {
            return None;
        }
        let head: Vec<u32> = words.by_ref().take(7).collect();
        let &[
            log_n,
            q0_bits,
            log_user_scale,
            weight,
            small_log_n,
            ring_switch_digit_bits,
            log_message_ratio,
        ] = head.as_slice()
        else {
            return None;
        };
        let mut part = || -> Option<Vec<u32>> {
            let len = words.next()? as usize;
            if len > MAX_LIMBS {
                return None;
            }
            (0..len).map(|_| words.next()).collect()
        };
        let literal = Self {
            log_n,
            q0_bits,
            stc_bits: part()?,
            user_bits: part()?,
            eval_mod_bits: part()?,
            cts_bits: part()?,
            special_bits: part()?,
            log_user_scale,
            ephemeral_weight: weight as usize,
            small_log_n,
            ring_switch_digit_bits,
            log_message_ratio,
        };
        words.next().is_none().then_some(literal)
    }
}
