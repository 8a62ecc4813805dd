//! Exposure of a canary (Carlini et al., *The Secret Sharer*, USENIX Security 2019): a random secret is put into the training data; afterwards the
//! model ranks it among candidates that were not.
//!
//! `exposure = log2(candidates) − log2(rank)`: 0 to 1 bit is chance, `log2(candidates)` means that the secret comes first.

/// A canary's standing.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Exposure {
    /// 1 for the lowest loss; ties count against the attacker by half.
    pub rank: f64,
    /// Candidates, the canary included.
    pub candidates: usize,
    /// Bits.
    pub bits: f64,
}

/// The exposure of a secret with loss `canary` among `others`, losses of secrets of the same form that were not trained on.
pub fn exposure(canary: f64, others: &[f64]) -> Exposure {
    let below = others.iter().filter(|&&l| l < canary).count() as f64;
    let equal = others.iter().filter(|&&l| l == canary).count() as f64;
    let rank = 1.0 + below + equal / 2.0;
    let candidates = others.len() + 1;
    Exposure {
        rank,
        candidates,
        bits: (candidates as f64).log2() - rank.log2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_hand() {
        let others: Vec<f64> = (1..=1023).map(f64::from).collect();
        assert_eq!(exposure(0.5, &others).bits, 10.0);
        assert_eq!(exposure(511.5, &others).bits, 1.0);
        assert_eq!(exposure(2000.0, &others).bits, 0.0);
        assert_eq!(exposure(1.0, &[1.0, 1.0]).rank, 2.0);
    }
}
