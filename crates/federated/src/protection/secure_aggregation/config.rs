//! What a round is: its members, its thresholds, its graph.

use super::STAGE;
use crate::protection::{ClientId, ProtectionError};
use ed25519_dalek::VerifyingKey;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The signature keys of the clients that may take part: known to each client from elsewhere than the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster(BTreeMap<ClientId, VerifyingKey>);

impl Roster {
    /// A roster of these clients.
    pub fn new(clients: impl IntoIterator<Item = (ClientId, VerifyingKey)>) -> Self {
        Self(clients.into_iter().collect())
    }

    /// A client's key.
    pub fn get(&self, client: ClientId) -> Option<&VerifyingKey> {
        self.0.get(&client)
    }

    /// Number of clients.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is enrolled.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Numbers of the clients, ascending.
    pub fn ids(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.0.keys().copied()
    }
}

/// Who masks with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Graph {
    /// Everyone with everyone: `n − 1` masks a client.
    Complete,
    /// A Harary graph of even `degree` on the clients in an order drawn from `seed` (Bell et al. 2020, section 3): `degree` masks a client.
    /// The seed must not be chosen by the coordinator after it knows which clients it controls; derive it from the session that all agreed on.
    Harary {
        /// Neighbours of a client, even.
        degree: usize,
        /// Seed of the order.
        seed: [u8; 32],
    },
}

impl Graph {
    /// The neighbours of `client` among `members` (ascending), ascending, without itself. Empty if `client` is not a member.
    pub fn neighbours(&self, client: ClientId, members: &[ClientId]) -> Vec<ClientId> {
        match self {
            Self::Complete => {
                let mut all = members.to_vec();
                all.retain(|&v| v != client);
                if all.len() == members.len() {
                    Vec::new()
                } else {
                    all
                }
            }
            Self::Harary { degree, seed } => {
                let mut order = members.to_vec();
                let mut rng = ChaCha20Rng::from_seed(*seed);
                for i in (1..order.len()).rev() {
                    // 64 bits modulo at most 2^32: bias below 2^-32, of no consequence for the choice of neighbours.
                    order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
                }
                let Some(at) = order.iter().position(|&v| v == client) else {
                    return Vec::new();
                };
                let n = order.len();
                let mut near: Vec<ClientId> = (1..=degree / 2)
                    .flat_map(|d| [order[(at + d) % n], order[(at + n - d % n) % n]])
                    .filter(|&v| v != client)
                    .collect();
                near.sort_unstable();
                near.dedup();
                near
            }
        }
    }
}

/// A round of secure aggregation. All members must hold the same one; messages of any other are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundConfig {
    /// The federation.
    pub session: [u8; 16],
    /// The round; never used twice in a session.
    pub round: u64,
    /// Coordinates of an update.
    pub dimension: usize,
    /// `k`: sums are modulo `2^k`, 8 to 32.
    pub bits: u32,
    /// `t`: shares that recover a secret.
    pub share_threshold: usize,
    /// Fewest clients whose sum may be opened.
    pub min_survivors: usize,
    /// Who masks with whom.
    pub graph: Graph,
}

impl RoundConfig {
    /// Everyone masks with everyone and `t = ⌊2n/3⌋ + 1`: withstands a lying coordinator with a third of the clients (Bonawitz et al., section 6.2).
    pub fn complete(
        session: [u8; 16],
        round: u64,
        dimension: usize,
        bits: u32,
        roster: &Roster,
    ) -> Self {
        let n = roster.len();
        // Of three clients two suffice: at the full number nobody might drop out.
        let t = (2 * n / 3 + 1).min(n.saturating_sub(1)).max(1);
        Self {
            session,
            round,
            dimension,
            bits,
            share_threshold: t,
            min_survivors: t,
            graph: Graph::Complete,
        }
    }

    /// Everyone masks with `degree` others, `t = ⌊2(degree + 1)/3⌋ + 1` and two thirds of the clients must survive. The graph's order follows
    /// from the session and the round.
    pub fn sparse(
        session: [u8; 16],
        round: u64,
        dimension: usize,
        bits: u32,
        roster: &Roster,
        degree: usize,
    ) -> Self {
        let mut hash = Sha256::new_with_prefix(b"tacit secure aggregation graph 1");
        hash.update(session);
        hash.update(round.to_le_bytes());
        Self {
            session,
            round,
            dimension,
            bits,
            share_threshold: 2 * (degree + 1) / 3 + 1,
            min_survivors: 2 * roster.len() / 3 + 1,
            graph: Graph::Harary {
                degree,
                seed: hash.finalize().into(),
            },
        }
    }

    /// Members of one sharing: a client and its neighbours.
    fn group(&self, roster: &Roster) -> usize {
        match self.graph {
            Graph::Complete => roster.len(),
            Graph::Harary { degree, .. } => degree + 1,
        }
    }

    /// Checks that the promises can hold with these thresholds.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`].
    pub fn validate(&self, roster: &Roster) -> Result<(), ProtectionError> {
        let refuse = |setting, found: String, expected: String, remedy| {
            Err(ProtectionError::setting(
                STAGE, setting, found, expected, remedy,
            ))
        };
        let n = roster.len();
        if n < 3 {
            return refuse(
                "clients",
                n.to_string(),
                "at least 3".into(),
                "with two, the sum and one's own update give the other's",
            );
        }
        if self.dimension == 0 || self.dimension >= 1 << 32 {
            return refuse(
                "dimension",
                self.dimension.to_string(),
                "1 to 2^32 - 1".into(),
                "send the update in parts",
            );
        }
        if !(8..=32).contains(&self.bits) {
            return refuse(
                "bits",
                self.bits.to_string(),
                "8 to 32".into(),
                "24 suits most runs",
            );
        }
        if let Graph::Harary { degree, .. } = self.graph
            && (degree < 2 || degree % 2 == 1 || degree >= n)
        {
            return refuse(
                "degree",
                degree.to_string(),
                format!("an even number from 2 to {}", n - 1),
                "use the complete graph for few clients",
            );
        }
        let group = self.group(roster);
        let t = self.share_threshold;
        if 2 * t <= group || t >= group.max(2) {
            return refuse(
                "share_threshold",
                t.to_string(),
                format!("{} to {}", group / 2 + 1, group - 1),
                "at or below half, a lying coordinator can open both secrets of a client; at the full number, nobody may drop out",
            );
        }
        if 2 * self.min_survivors <= n || self.min_survivors > n {
            return refuse(
                "min_survivors",
                self.min_survivors.to_string(),
                format!("{} to {n}", n / 2 + 1),
                "a sum of a minority could be opened twice with different members",
            );
        }
        if self.graph == Graph::Complete && self.min_survivors < t {
            return refuse(
                "min_survivors",
                self.min_survivors.to_string(),
                format!("at least share_threshold = {t}"),
                "fewer clients cannot open the sum",
            );
        }
        Ok(())
    }

    /// SHA-256 of everything the members must agree on.
    pub(crate) fn digest(&self, roster: &Roster) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(b"tacit secure aggregation round 1");
        hash.update(self.session);
        for x in [
            self.round,
            self.dimension as u64,
            u64::from(self.bits),
            self.share_threshold as u64,
            self.min_survivors as u64,
        ] {
            hash.update(x.to_le_bytes());
        }
        match &self.graph {
            Graph::Complete => hash.update([0]),
            Graph::Harary { degree, seed } => {
                hash.update([1]);
                hash.update((*degree as u64).to_le_bytes());
                hash.update(seed);
            }
        }
        for (id, key) in &roster.0 {
            hash.update(id.to_le_bytes());
            hash.update(key.as_bytes());
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_mutual_and_as_many_as_the_degree() {
        let members: Vec<ClientId> = (0..41).map(|i| 3 * i + 1).collect();
        let graph = Graph::Harary {
            degree: 8,
            seed: [5; 32],
        };
        for &u in &members {
            let near = graph.neighbours(u, &members);
            assert_eq!(near.len(), 8);
            for v in near {
                assert!(graph.neighbours(v, &members).contains(&u));
            }
        }
        assert_eq!(Graph::Complete.neighbours(4, &members).len(), 40);
        assert!(
            Graph::Complete.neighbours(5, &members).is_empty(),
            "not a member"
        );
    }
}
