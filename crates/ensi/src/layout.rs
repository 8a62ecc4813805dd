//! Where a (feature, token) value lives: the one place that knows.
//!
//! A ciphertext of ring dimension `N` has `N/2` complex slots. A *block* is a run of `T` slots, one for each token of the
//! window, so there are `K = N/(2T)` blocks and value (block `F`, token `t`) sits in slot
//!
//! ```text
//!     slot(F, t) = F*T + t,        0 <= F < K, 0 <= t < T
//! ```
//!
//! The ternary products work on coefficients. CoeffsToSlots without a bit-reversal step puts coefficients
//! `br(j)` and `br(j) + N/2` into the real and the imaginary part of slot `j` (`br` reverses `log2(N/2)` bits), hence block `F`
//! is the feature position `f = br_K(F)` of the module-LWE form over `Z[Y]/(Y^2T + 1)`, `Y = X^K`; the powers `Y^0..Y^(T-1)`
//! become real parts and `Y^T..Y^(2T-1)` imaginary parts. The tokens come out bit-reversed inside a block; no linear layer
//! moves tokens, so this is a label only.

use crate::EnsiError;

/// The half of the complex slots a real feature is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// The real parts.
    Re,
    /// The imaginary parts.
    Im,
}

/// Ring dimension and token window; see the module page for the slot formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    n: usize,
    tokens: usize,
}

impl Layout {
    /// A layout for ring dimension `n` and a window of `tokens` tokens.
    ///
    /// # Errors
    /// Both must be powers of two and `n/2 >= tokens^2`, so that one ciphertext holds all score diagonals of a head.
    pub fn new(n: usize, tokens: usize) -> Result<Self, EnsiError> {
        if !n.is_power_of_two() || !tokens.is_power_of_two() || n / 2 < tokens * tokens {
            return Err(EnsiError::Shape(format!(
                "a window of {tokens} tokens does not fit ring dimension {n}: both must be powers of two with tokens^2 <= n/2"
            )));
        }
        Ok(Self { n, tokens })
    }

    /// Ring dimension `N`.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Tokens of the window, `T`.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Complex slots, `N/2`.
    pub fn slots(&self) -> usize {
        self.n / 2
    }

    /// Feature blocks of a ciphertext, `K = N/(2T)`.
    pub fn blocks(&self) -> usize {
        self.n / (2 * self.tokens)
    }

    /// Heads that share one ciphertext in attention: `K/T`.
    pub fn heads_per_group(&self) -> usize {
        self.blocks() / self.tokens
    }

    /// Slot of (block, token).
    pub fn slot(&self, block: usize, token: usize) -> usize {
        debug_assert!(block < self.blocks() && token < self.tokens);
        block * self.tokens + token
    }

    /// Position of a block's feature in the module-LWE form: `br_K(block)`.
    pub fn feature(&self, block: usize) -> usize {
        let bits = self.blocks().trailing_zeros();
        if bits == 0 {
            return block;
        }
        block.reverse_bits() >> (usize::BITS - bits)
    }

    /// Rotation (in slots, to the left) that brings block `F + by` to block `F`.
    pub fn block_rotation(&self, by: i64) -> i64 {
        by * self.tokens as i64
    }

    /// Number of ciphertexts that hold `features` features, one block each.
    pub fn ciphertexts(&self, features: usize) -> usize {
        features.div_ceil(self.blocks())
    }

    /// With fewer features than blocks a vector is repeated with this period (a power of two), so that cyclic sums over the
    /// period leave the total in every block.
    pub fn period(&self, features: usize) -> usize {
        features.next_power_of_two().min(self.blocks())
    }

    /// Where a second vector of as many features has room beside one, in real parts of the same ciphertext: the block at which it begins, half of
    /// all. Both are repeated with their period.
    pub fn beside(&self, features: usize) -> Option<usize> {
        let half = self.blocks() / 2;
        (self.ciphertexts(features) == 1 && self.period(features) <= half).then_some(half)
    }

    /// Slots of a vector's ciphertexts: row `t` of `rows` at token `t`, the rows over again where there are fewer than tokens.
    ///
    /// # Panics
    /// Without rows, or with rows of different lengths.
    pub fn slots_of<R: AsRef<[f32]>>(&self, rows: &[R]) -> Vec<Vec<f64>> {
        let features = rows[0].as_ref().len();
        let mut slots = vec![vec![0.0; self.slots()]; self.ciphertexts(features)];
        for t in 0..self.tokens() {
            let row = rows[t % rows.len()].as_ref();
            assert_eq!(row.len(), features, "rows of different lengths");
            for (feature, value) in row.iter().enumerate() {
                for (ciphertext, block) in self.positions(feature, features) {
                    slots[ciphertext][self.slot(block, t)] = f64::from(*value);
                }
            }
        }
        slots
    }

    /// All (ciphertext, block) positions of feature `feature` of a vector of `features` features, repetitions included.
    pub fn positions(&self, feature: usize, features: usize) -> Vec<(usize, usize)> {
        let blocks = self.blocks();
        let period = self.period(features);
        let ciphertext = feature / blocks;
        (feature % blocks..blocks)
            .step_by(period)
            .map(|block| (ciphertext, block))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_of_the_shipped_model() {
        let layout = Layout::new(1 << 16, 64).unwrap();
        assert_eq!(
            (layout.blocks(), layout.heads_per_group(), layout.slots()),
            (512, 8, 32768)
        );
        assert_eq!(layout.slot(3, 5), 197);
        assert_eq!(
            (layout.feature(0), layout.feature(1), layout.feature(511)),
            (0, 256, 511)
        );
        assert_eq!(layout.positions(7, 256), vec![(0, 7), (0, 263)]);
        assert_eq!(layout.positions(513, 700), vec![(1, 1)]);
    }

    #[test]
    fn two_vectors_stand_side_by_side_where_half_the_blocks_are_enough() {
        let layout = Layout::new(1 << 16, 64).unwrap();
        assert_eq!(layout.beside(256), Some(256));
        assert_eq!(layout.beside(257), None);
        assert_eq!(Layout::new(1 << 16, 8).unwrap().beside(1024), Some(2048));
        assert_eq!(Layout::new(1 << 16, 8).unwrap().beside(4096), None);
        assert_eq!(Layout::new(1 << 16, 4).unwrap().beside(4096), Some(4096));
    }

    #[test]
    fn refuses_windows_that_do_not_fit() {
        assert!(Layout::new(1 << 16, 512).is_err());
        assert!(Layout::new(1 << 16, 48).is_err());
    }
}
