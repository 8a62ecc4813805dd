//! Where a (document, token, feature) value lives when many documents are computed at once.
//!
//! A ciphertext holds one feature of all tokens of all documents, in real parts; with fewer documents than that fills, the slots are cut into
//! *lanes*, each with a feature of its own:
//!
//! ```text
//!     slot(l, d, t) = (l*D + d)*T + t          lane l < H, document d < D, token t < T,  H*D*T = N/2
//!     feature F of a vector of d features:     ciphertext F mod (d/H), lane F / (d/H)
//! ```
//!
//! Lanes hold whole heads, so that attention does the same in all of them.

use crate::EnsiError;

/// Slots, window and lanes; see the module page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnLayout {
    slots: usize,
    tokens: usize,
    lanes: usize,
}

impl ColumnLayout {
    /// A layout for ring dimension `n`.
    ///
    /// # Errors
    /// All must be powers of two with `tokens * lanes <= n/2`.
    pub fn new(n: usize, tokens: usize, lanes: usize) -> Result<Self, EnsiError> {
        let powers = [n, tokens, lanes].iter().all(|x| x.is_power_of_two());
        if !powers || tokens * lanes > n / 2 {
            return Err(EnsiError::Shape(format!(
                "{lanes} lanes of documents of {tokens} tokens do not fit ring dimension {n}: all must be powers of two, with lanes * tokens <= n/2"
            )));
        }
        Ok(Self {
            slots: n / 2,
            tokens,
            lanes,
        })
    }

    /// The layout with the most lanes (at most `heads`, a power of two that divides it) that has room for `documents` at once; without lanes if
    /// there is none.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_documents(
        n: usize,
        tokens: usize,
        documents: usize,
        heads: usize,
    ) -> Result<Self, EnsiError> {
        let mut layout = Self::new(n, tokens, 1)?;
        while heads.is_multiple_of(2 * layout.lanes) && layout.documents() / 2 >= documents.max(1) {
            layout = Self::new(n, tokens, 2 * layout.lanes)?;
        }
        Ok(layout)
    }

    /// Complex slots, `N/2`.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Tokens of a document, `T`.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Lanes, `H`.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Documents at once, `D`.
    pub fn documents(&self) -> usize {
        self.slots / (self.tokens * self.lanes)
    }

    /// Slots of a lane: the rotation that brings lane `l + 1` to lane `l`.
    pub fn lane(&self) -> usize {
        self.slots / self.lanes
    }

    /// Ciphertexts of a vector of so many features.
    pub fn ciphertexts(&self, features: usize) -> usize {
        features.div_ceil(self.lanes)
    }

    /// Ciphertext and lane of a feature.
    pub fn place(&self, feature: usize, features: usize) -> (usize, usize) {
        let columns = self.ciphertexts(features);
        (feature % columns, feature / columns)
    }

    /// `value(lane, document, token)` in every slot.
    pub fn fill(&self, value: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
        (0..self.slots)
            .map(|slot| {
                let (row, token) = (slot / self.tokens, slot % self.tokens);
                let (lane, document) = (row / self.documents(), row % self.documents());
                value(lane, document, token)
            })
            .collect()
    }

    /// Slots of the ciphertexts that hold `documents`, a vector for each token of each; the documents over again where there are fewer than there
    /// is room for, and a document's tokens over again where it is shorter than the window.
    ///
    /// # Panics
    /// Without documents, for one without tokens, or for vectors of different lengths.
    pub fn slots_of<R: AsRef<[f32]>>(&self, documents: &[Vec<R>]) -> Vec<Vec<f64>> {
        let features = documents[0][0].as_ref().len();
        let columns = self.ciphertexts(features);
        (0..columns)
            .map(|column| {
                self.fill(|lane, d, t| {
                    let document = &documents[d % documents.len()];
                    let row = document[t % document.len()].as_ref();
                    assert_eq!(row.len(), features, "vectors of different lengths");
                    row.get(lane * columns + column)
                        .map_or(0.0, |x| f64::from(*x))
                })
            })
            .collect()
    }

    /// The vector of one token of a document from the real parts of a vector's ciphertexts.
    ///
    /// # Panics
    /// For a document or token outside of the layout.
    pub fn vector(
        &self,
        slots: &[Vec<f64>],
        features: usize,
        document: usize,
        token: usize,
    ) -> Vec<f64> {
        assert!(document < self.documents() && token < self.tokens);
        (0..features)
            .map(|feature| {
                let (ciphertext, lane) = self.place(feature, features);
                slots[ciphertext][(lane * self.documents() + document) * self.tokens + token]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_in_and_come_out() {
        let layout = ColumnLayout::new(1 << 8, 8, 2).unwrap();
        assert_eq!((layout.documents(), layout.lane()), (8, 64));
        let documents: Vec<Vec<Vec<f32>>> = (0..8)
            .map(|d| {
                (0..8)
                    .map(|t| (0..6).map(|f| (100 * d + 10 * t + f) as f32).collect())
                    .collect()
            })
            .collect();
        let slots = layout.slots_of(&documents);
        assert_eq!(slots.len(), 3);
        assert_eq!(
            layout.vector(&slots, 6, 5, 3),
            [530.0, 531.0, 532.0, 533.0, 534.0, 535.0]
        );
    }

    #[test]
    fn lanes_are_taken_for_few_documents() {
        let of = |documents, heads| {
            let layout = ColumnLayout::for_documents(1 << 16, 64, documents, heads).unwrap();
            (layout.lanes(), layout.documents())
        };
        assert_eq!(of(256, 8), (2, 256));
        assert_eq!(of(1000, 8), (1, 512));
        assert_eq!(of(1, 8), (8, 64));
        assert_eq!(of(200, 5), (1, 512));
        assert!(ColumnLayout::new(1 << 16, 48, 1).is_err());
        assert!(ColumnLayout::new(1 << 16, 64, 1024).is_err());
    }
}
