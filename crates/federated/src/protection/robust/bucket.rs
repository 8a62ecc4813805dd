//! Robust rules over secure sums: random groups, one sum a group (as in the bucketing of Karimireddy et al., ICLR 2022, with the groups' means
//! computed under secure aggregation).

use super::{Aggregate, Rule, STAGE};
use crate::protection::{ClientId, ProtectionError};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// Clients of a round in random groups of nearly equal size.
///
/// The coordinator learns the sum of each group instead of one sum of all: a client hides among the others of its group only. Draw the seed
/// so that bad clients cannot choose their group, e.g. from a hash of all key entries of the round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets(Vec<Vec<ClientId>>);

impl Buckets {
    /// Deals `clients` into `buckets` groups in an order drawn from `seed`.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] if a group would have fewer than 3 clients, the least that a secure sum hides one in.
    pub fn new(
        clients: &[ClientId],
        buckets: usize,
        seed: [u8; 32],
    ) -> Result<Self, ProtectionError> {
        if buckets == 0 || clients.len() / buckets < 3 {
            return Err(ProtectionError::setting(
                STAGE,
                "buckets",
                buckets,
                format!("1 to {} for {} clients", clients.len() / 3, clients.len()),
                "a secure sum needs three clients",
            ));
        }
        let mut order = clients.to_vec();
        let mut rng = ChaCha20Rng::from_seed(seed);
        for i in (1..order.len()).rev() {
            order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
        }
        let mut groups = vec![Vec::new(); buckets];
        for (i, client) in order.into_iter().enumerate() {
            groups[i % buckets].push(client);
        }
        groups.iter_mut().for_each(|g| g.sort_unstable());
        Ok(Self(groups))
    }

    /// The groups, each ascending.
    pub fn groups(&self) -> &[Vec<ClientId>] {
        &self.0
    }

    /// The rule over the groups' means. `sums[g]` is the decoded sum of group `g` and the number of clients in it; groups whose secure sum
    /// failed are absent (`None`) and count as bad.
    ///
    /// # Errors
    /// As [`Rule::aggregate`] with groups in place of clients.
    pub fn aggregate(
        &self,
        rule: Rule,
        sums: &[Option<(Vec<f64>, usize)>],
        root: Option<&[f32]>,
    ) -> Result<Aggregate, ProtectionError> {
        if sums.len() != self.0.len() {
            return Err(ProtectionError::input(
                STAGE,
                format!("{} sums for {} groups", sums.len(), self.0.len()),
                "give one entry for each group",
            ));
        }
        let dimension = sums
            .iter()
            .flatten()
            .map(|(s, _)| s.len())
            .next()
            .ok_or_else(|| {
                ProtectionError::input(STAGE, "no group has a sum", "run the round again")
            })?;
        let means: Vec<Vec<f32>> = sums
            .iter()
            .map(|sum| match sum {
                Some((sum, clients)) => sum.iter().map(|&x| (x / *clients as f64) as f32).collect(),
                None => vec![f32::NAN; dimension],
            })
            .collect();
        rule.aggregate(&means, root)
    }
}
