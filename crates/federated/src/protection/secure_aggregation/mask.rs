//! Masks: ChaCha20 key streams added to vectors modulo `2^k`, and vectors as packed bits.

use super::fixed_point::mask;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Coordinates that one task masks at a time: fits the second-level cache.
const BLOCK: usize = 1 << 15;

/// A mask to add (`+`) or to take away (`−`).
pub(crate) struct Mask {
    pub seed: Zeroizing<[u8; 32]>,
    pub negative: bool,
}

/// `values += Σ ± PRG(seed)` modulo `2^bits`. Word `i` of a key stream belongs to coordinate `i`, so that the result does not depend on
/// how the work is split over threads; the low `bits` bits of a uniform word are uniform.
pub(crate) fn apply(values: &mut [u32], bits: u32, masks: &[Mask]) {
    let modulus = mask(bits);
    values
        .par_chunks_mut(BLOCK)
        .enumerate()
        .for_each(|(block, values)| {
            let mut stream = Zeroizing::new(vec![0u8; 4 * values.len()]);
            for mask in masks {
                let mut rng = ChaCha20Rng::from_seed(*mask.seed);
                rng.set_word_pos((block * BLOCK) as u128);
                rng.fill_bytes(&mut stream);
                let words = stream
                    .chunks_exact(4)
                    .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
                if mask.negative {
                    for (v, w) in values.iter_mut().zip(words) {
                        *v = v.wrapping_sub(w);
                    }
                } else {
                    for (v, w) in values.iter_mut().zip(words) {
                        *v = v.wrapping_add(w);
                    }
                }
            }
            for v in values {
                *v &= modulus;
            }
        });
}

/// Bytes of `count` values of `bits` bits.
pub(crate) fn packed_len(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Packs the low `bits` (at most 32) bits of each value, least significant first; the last byte is filled with zeros.
pub fn pack_bits(values: &[u32], bits: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(packed_len(values.len(), bits));
    let (mut held, mut filled) = (0u64, 0);
    for &v in values {
        held |= u64::from(v & mask(bits)) << filled;
        filled += bits;
        while filled >= 8 {
            out.push(held as u8);
            held >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(held as u8);
    }
    out
}

/// The inverse of [`pack_bits`]; `None` for a wrong length or bits after the last value.
pub fn unpack_bits(bytes: &[u8], count: usize, bits: u32) -> Option<Vec<u32>> {
    if bytes.len() != packed_len(count, bits) {
        return None;
    }
    let mut out = Vec::with_capacity(count);
    let (mut held, mut filled) = (0u64, 0);
    for &byte in bytes {
        held |= u64::from(byte) << filled;
        filled += 8;
        while filled >= bits && out.len() < count {
            out.push(held as u32 & mask(bits));
            held >>= bits;
            filled -= bits;
        }
    }
    (held == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::{
        BLOCK, ChaCha20Rng, Mask, SeedableRng, Zeroizing, apply, mask, pack_bits, unpack_bits,
    };
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};
    use rand_core::RngCore as _;

    proptest! {
        #[test]
        fn packing_round_trips(bits in 8u32..=32, values in prop::collection::vec(any::<u32>(), 0..99)) {
            let values: Vec<u32> = values.into_iter().map(|v| v & mask(bits)).collect();
            let bytes = pack_bits(&values, bits);
            prop_assert_eq!(unpack_bits(&bytes, values.len(), bits), Some(values));
        }
    }

    #[test]
    fn masks_cancel_and_do_not_depend_on_the_split() {
        let seed = |negative| Mask {
            seed: Zeroizing::new([3; 32]),
            negative,
        };
        let plain: Vec<u32> = (0..3 * BLOCK as u32 + 17).map(|i| i & 0xff_ffff).collect();
        let mut values = plain.clone();
        apply(&mut values, 24, &[seed(false)]);
        assert_ne!(values, plain);
        let one_stream: Vec<u32> = {
            let mut rng = ChaCha20Rng::from_seed([3; 32]);
            plain
                .iter()
                .map(|&v| v.wrapping_add(rng.next_u32()) & 0xff_ffff)
                .collect()
        };
        assert_eq!(values, one_stream);
        apply(&mut values, 24, &[seed(true)]);
        assert_eq!(values, plain);
    }
}
