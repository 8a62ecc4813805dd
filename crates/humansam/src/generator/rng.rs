//! Random draws by name: what is drawn for one purpose does not move what is drawn for another.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream called `name` of a seed.
    pub fn named(seed: u64, name: &str) -> Self {
        // FNV-1a of the name, so that streams differ in all 256 bits of the key.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for b in name.bytes() {
            hash = (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&hash.to_le_bytes());
        key[16..24].copy_from_slice(b"tacitgen");
        Rng(ChaCha8Rng::from_seed(key))
    }

    /// The `index`-th stream beside this one.
    pub fn fork(mut self, index: u64) -> Self {
        self.0.set_stream(index + 1);
        self
    }

    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }
    /// Uniform in `[a, b)`.
    pub fn range(&mut self, a: f32, b: f32) -> f32 {
        a + (b - a) * self.unit()
    }
    /// Uniform in `0..n`; 0 for `n = 0`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f32) as usize).min(n.saturating_sub(1))
    }
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
    /// `-1` or `1`.
    pub fn sign(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }
    /// Normal with mean 0 and deviation 1, as a sum of uniforms (12 − 6, cut off at 6).
    pub fn normal(&mut self) -> f32 {
        (0..6)
            .map(|_| {
                let bits = self.0.next_u32();
                (bits & 0xffff) as f32 + (bits >> 16) as f32
            })
            .sum::<f32>()
            / 65_536.0
            - 6.0
    }
}

/// An integer hash (Murmur3's finaliser), for noise on a lattice.
#[inline]
pub(crate) fn hash(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[inline]
fn lattice(x: i32, y: i32, seed: u32) -> f32 {
    let h =
        hash((x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77) ^ seed);
    (h >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Value noise on a square lattice of spacing 1, in `[0, 1]`.
#[inline]
pub(crate) fn noise2(x: f32, y: f32, seed: u32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let (ix, iy) = (fx as i32, fy as i32);
    let (tx, ty) = (x - fx, y - fy);
    let (tx, ty) = (tx * tx * (3.0 - 2.0 * tx), ty * ty * (3.0 - 2.0 * ty));
    let a = lattice(ix, iy, seed);
    let b = lattice(ix.wrapping_add(1), iy, seed);
    let c = lattice(ix, iy.wrapping_add(1), seed);
    let d = lattice(ix.wrapping_add(1), iy.wrapping_add(1), seed);
    let top = a + (b - a) * tx;
    let bottom = c + (d - c) * tx;
    top + (bottom - top) * ty
}

/// `octaves` of [`noise2`], each of half the size and half the height of the one before, in `[0, 1]`.
#[inline]
pub(crate) fn fractal2(x: f32, y: f32, octaves: u32, seed: u32) -> f32 {
    let (mut sum, mut weight, mut total, mut f) = (0.0, 0.5, 0.0, 1.0);
    for o in 0..octaves {
        sum += weight * noise2(x * f, y * f, seed ^ (o * 0x9e37));
        total += weight;
        weight *= 0.5;
        f *= 2.03;
    }
    sum / total
}

/// Smooth noise over time with values in about `[-1, 1]` and changes about `rate` times a second.
pub(crate) fn drift(t: f32, rate: f32, seed: u32) -> f32 {
    2.0 * fractal2(t * rate + 17.3, 0.5, 2, seed) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_seed_and_name_only() {
        let draw = |seed, name| Rng::named(seed, name).u64();
        assert_eq!(draw(1, "body"), draw(1, "body"));
        assert_ne!(draw(1, "body"), draw(2, "body"));
        assert_ne!(draw(1, "body"), draw(1, "scene"));
    }

    #[test]
    fn draws_have_the_moments_they_should() {
        let mut rng = Rng::named(3, "moments");
        let n = 20_000;
        let normals: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
        let mean = normals.iter().sum::<f32>() / n as f32;
        let var = normals.iter().map(|x| x * x).sum::<f32>() / n as f32;
        assert!(
            mean.abs() < 0.03 && (var - 1.0).abs() < 0.05,
            "{mean} {var}"
        );
        let mut seen = [0; 5];
        for _ in 0..5000 {
            seen[rng.below(5)] += 1;
        }
        assert!(seen.iter().all(|&s| s > 850));
        assert!((0..1000).all(|i| (0.0..=1.0).contains(&fractal2(i as f32 * 0.37, 2.2, 4, 9))));
    }
}
