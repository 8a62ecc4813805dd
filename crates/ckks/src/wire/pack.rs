//! Residues at the bit width of their modulus: 50 of 64 bits for a 50-bit prime, least significant bit first.

use tacit_ring::{Modulus, PackedLimb, packed};

/// Bytes that `count` residues of `bits` bits take.
pub fn packed_len(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Appends residues, each `bits` wide (at most [`packed::MAX_BITS`]).
pub fn pack(out: &mut Vec<u8>, residues: &[u64], bits: u32) {
    let mut words = vec![0; packed::packed_words(residues.len(), bits)];
    packed::pack(residues, bits, &mut words);
    push_words(out, &words, packed_len(residues.len(), bits));
}

/// Appends the first `len` bytes of packed residues.
pub fn push_words(out: &mut Vec<u8>, words: &[u64], len: usize) {
    let end = out.len() + len;
    out.reserve(len + 8);
    for word in &words[..len.div_ceil(8)] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(end);
}

/// Reads residues modulo `m`; `bytes` must have [`packed_len`] bytes. `false` if a residue is not below the modulus or spare bits are set.
pub fn unpack(bytes: &[u8], m: &Modulus, out: &mut [u64]) -> bool {
    let (bits, used) = (m.bits(), out.len() * m.bits() as usize);
    if bytes.len() != packed_len(out.len(), bits) {
        return false;
    }
    let mut words: Vec<u64> = Vec::with_capacity(bytes.len() / 8 + 1 + packed::SPARE_WORDS);
    let (whole, rest) = bytes.as_chunks::<8>();
    words.extend(whole.iter().map(|&word| u64::from_le_bytes(word)));
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        words.push(u64::from_le_bytes(word));
    }
    words.resize(words.len() + packed::SPARE_WORDS, 0);
    PackedLimb::new(&words, out.len(), bits).unpack(0, out);
    let spare = used % 8 != 0 && bytes.last().is_some_and(|last| last >> (used % 8) != 0);
    !spare && out.iter().all(|&x| x < m.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_at_every_width() {
        for (bits, prime) in [
            (50, (1u64 << 50) - 27),
            (45, 35_184_372_088_777),
            (20, 1_048_573),
            (30, 1_073_741_789),
        ] {
            let m = Modulus::new(prime).unwrap();
            assert_eq!(m.bits(), bits);
            for len in [1usize, 2, 7, 8, 16, 63, 64, 1000] {
                let x: Vec<u64> = (0..len as u64)
                    .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % prime)
                    .collect();
                let mut bytes = Vec::new();
                pack(&mut bytes, &x, bits);
                assert_eq!(bytes.len(), packed_len(len, bits));
                let mut back = vec![0; len];
                assert!(unpack(&bytes, &m, &mut back));
                assert_eq!(back, x);
            }
        }
    }

    #[test]
    fn residues_out_of_range_and_spare_bits_are_refused() {
        let m = Modulus::new(1_048_573).unwrap();
        let mut bytes = Vec::new();
        pack(&mut bytes, &[1_048_573], 20);
        assert!(!unpack(&bytes, &m, &mut [0]));
        bytes.clear();
        pack(&mut bytes, &[5], 20);
        assert!(unpack(&bytes, &m, &mut [0]));
        bytes[2] |= 0x80;
        assert!(!unpack(&bytes, &m, &mut [0]));
        assert!(!unpack(&bytes[..1], &m, &mut [0]));
    }
}
