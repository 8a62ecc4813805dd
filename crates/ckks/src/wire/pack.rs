//! Residues at the bit width of their modulus: 50 of 64 bits for a 50-bit prime, least significant bit first.

use tacit_ring::Modulus;

/// Bytes that `count` residues of `bits` bits take.
pub fn packed_len(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Appends residues, each `bits` (at most 56) wide.
pub fn pack(out: &mut Vec<u8>, residues: &[u64], bits: u32) {
    let (mut acc, mut filled) = (0u128, 0u32);
    for &x in residues {
        acc |= (x as u128) << filled;
        filled += bits;
        if filled >= 64 {
            out.extend_from_slice(&(acc as u64).to_le_bytes());
            acc >>= 64;
            filled -= 64;
        }
    }
    out.extend_from_slice(&acc.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// Reads residues modulo `m`; `bytes` must have [`packed_len`] bytes. `false` if a residue is not below the modulus or spare bits are set.
pub fn unpack(bytes: &[u8], m: &Modulus, out: &mut [u64]) -> bool {
    let bits = m.bits();
    let mask = (1u64 << bits) - 1;
    let (mut acc, mut filled) = (0u128, 0u32);
    let mut words = bytes.chunks(8);
    let mut valid = true;
    for x in out {
        if filled < bits {
            let Some(chunk) = words.next() else {
                return false;
            };
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            acc |= (u64::from_le_bytes(word) as u128) << filled;
            filled += 8 * chunk.len() as u32;
            if filled < bits {
                return false;
            }
        }
        *x = acc as u64 & mask;
        acc >>= bits;
        filled -= bits;
        valid &= *x < m.value();
    }
    valid && acc == 0 && words.next().is_none()
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
