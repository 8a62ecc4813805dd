//! Ternary block formats: TQ1_0 and TQ2_0 of llama.cpp, I2_S of bitnet.cpp. All give one code in {-1, 0, 1} per weight.

use half::f16;

/// Weights in a TQ1_0 or TQ2_0 block.
pub(super) const BLOCK: usize = 256;
/// Bytes of a TQ1_0 block: 48 bytes of five base-3 digits, 4 bytes of four, an f16 scale.
pub(super) const TQ1_0_BYTES: usize = 54;
/// Bytes of a TQ2_0 block: 64 bytes of four two-bit codes, an f16 scale.
pub(super) const TQ2_0_BYTES: usize = 66;

/// Order of the weights in an I2_S byte stream; the file does not say which one it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum I2sLayout {
    /// Blocks of 128 weights in 32 bytes, as bitnet.cpp writes on x86: weight p at bits 6-7 of byte p, p+32 at 4-5, ...
    #[default]
    Blocks128,
    /// Blocks of 64 weights in 16 bytes, as bitnet.cpp writes on ARM: weight p at bits 6-7 of byte p, p+16 at 4-5, ...
    Blocks64,
}

/// Digit `n` (most significant first) of a byte that holds a base-3 fraction: `floor(3 * frac(byte * 3^n / 256))`.
fn trit(byte: u8, n: u32) -> i8 {
    let shifted = byte.wrapping_mul(3u8.pow(n));
    ((u16::from(shifted) * 3) >> 8) as i8 - 1
}

/// Codes and scale of a TQ1_0 block.
pub(super) fn tq1_0(block: &[u8], codes: &mut Vec<i8>) -> f32 {
    for (run, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        for n in 0..digits {
            codes.extend(run.iter().map(|byte| trit(*byte, n)));
        }
    }
    f16::from_le_bytes([block[52], block[53]]).to_f32()
}

/// Codes (2 for the invalid field 3) and scale of a TQ2_0 block.
pub(super) fn tq2_0(block: &[u8], codes: &mut Vec<i8>) -> f32 {
    for run in block[..64].chunks_exact(32) {
        for shift in [0, 2, 4, 6] {
            codes.extend(run.iter().map(|byte| ((byte >> shift) & 3) as i8 - 1));
        }
    }
    f16::from_le_bytes([block[64], block[65]]).to_f32()
}

/// Codes (2 for the invalid field 3) of `bytes.len() * 4` weights in I2_S.
pub(super) fn i2_s(bytes: &[u8], layout: I2sLayout) -> Vec<i8> {
    let run = match layout {
        I2sLayout::Blocks128 => 32,
        I2sLayout::Blocks64 => 16,
    };
    let mut codes = Vec::with_capacity(bytes.len() * 4);
    for block in bytes.chunks(run) {
        for shift in [6, 4, 2, 0] {
            codes.extend(block.iter().map(|byte| ((byte >> shift) & 3) as i8 - 1));
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// llama.cpp's quantisation of five trits: `ceil(q * 256 / 243)`, q in base 3, most significant first.
    fn base3(trits: &[i8]) -> u8 {
        let q = trits.iter().fold(0u16, |q, t| 3 * q + (t + 1) as u16);
        let q = q * 3u16.pow(5 - trits.len() as u32);
        (q * 256).div_ceil(243) as u8
    }

    #[test]
    fn all_combinations_of_five_trits() {
        for q in 0..243u16 {
            let trits: Vec<i8> = (0..5)
                .rev()
                .map(|n| ((q / 3u16.pow(n)) % 3) as i8 - 1)
                .collect();
            let byte = base3(&trits);
            let back: Vec<i8> = (0..5).map(|n| trit(byte, n)).collect();
            assert_eq!(back, trits);
        }
    }

    #[test]
    fn orders_of_the_weights() {
        let codes: Vec<i8> = (0..256).map(|i| ((i * i + i / 7) % 3) as i8 - 1).collect();
        let mut block = Vec::new();
        for m in 0..32 {
            block.push(base3(
                &(0..5).map(|n| codes[32 * n + m]).collect::<Vec<_>>(),
            ));
        }
        for m in 0..16 {
            block.push(base3(
                &(0..5).map(|n| codes[160 + 16 * n + m]).collect::<Vec<_>>(),
            ));
        }
        for m in 0..4 {
            block.push(base3(
                &(0..4).map(|n| codes[240 + 4 * n + m]).collect::<Vec<_>>(),
            ));
        }
        block.extend(f16::from_f32(0.5).to_le_bytes());
        let mut out = Vec::new();
        assert_eq!((block.len(), tq1_0(&block, &mut out)), (TQ1_0_BYTES, 0.5));
        assert_eq!(out, codes);

        let field = |i: usize| (codes[i] + 1) as u8;
        let mut block = Vec::new();
        for j in [0, 128] {
            for m in 0..32 {
                block.push((0..4).map(|l| field(j + 32 * l + m) << (2 * l)).sum());
            }
        }
        block.extend(f16::from_f32(0.25).to_le_bytes());
        let mut out = Vec::new();
        assert_eq!((block.len(), tq2_0(&block, &mut out)), (TQ2_0_BYTES, 0.25));
        assert_eq!(out, codes);

        for (layout, run) in [(I2sLayout::Blocks128, 32), (I2sLayout::Blocks64, 16)] {
            let mut bytes = Vec::new();
            for block in (0..256).step_by(4 * run) {
                for p in 0..run {
                    bytes.push(
                        (0..4)
                            .map(|l| field(block + run * l + p) << (6 - 2 * l))
                            .sum(),
                    );
                }
            }
            assert_eq!(i2_s(&bytes, layout), codes);
        }
    }
}
