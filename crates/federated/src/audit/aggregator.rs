//! A coordinator that cheats in a round of secure aggregation.
//!
//! A lost client's mask key is opened, a surviving one's mask seed; whoever gets both unmasks that client's update. The cheat: tell one half of the
//! clients that the victim was lost, the other half that it survived, and collect both kinds of shares. Clients answer with shares only after they
//! have seen enough signatures of one and the same list; counted is how many answer.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use serde::Serialize;

use crate::FederatedError;
use crate::protection::ClientId;
use crate::protection::secure_aggregation::{
    Client, Roster, RoundConfig, Server, identity, two_lists,
};

/// What the cheat got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cheat {
    /// Clients of the round.
    pub clients: usize,
    /// Clients that handed out shares when told two lists of survivors.
    pub shares_when_told_two_lists: usize,
    /// Clients that handed out shares when told one list (an honest round).
    pub shares_when_told_one_list: usize,
    /// Shares that unmask a client.
    pub needed: usize,
    /// Clients that accepted a mask key of the coordinator's own in place of the victim's.
    pub accepted_forged_key: usize,
}

struct Round {
    clients: Vec<Client>,
    server: Server,
    keys: BTreeMap<ClientId, SigningKey>,
    config: RoundConfig,
    roster: Roster,
}

fn round(n: usize, number: u64) -> Result<Round, FederatedError> {
    let keys: BTreeMap<ClientId, SigningKey> = (0..n as ClientId)
        .map(|i| Ok((i, identity()?)))
        .collect::<Result<_, FederatedError>>()?;
    let roster = Roster::new(keys.iter().map(|(&i, k)| (i, k.verifying_key())));
    let config = RoundConfig::complete([9; 16], number, 16, 16, &roster);
    let clients = keys
        .iter()
        .map(|(&i, key)| {
            Ok(Client::new(
                config.clone(),
                roster.clone(),
                i,
                key.clone(),
                vec![1; 16],
            )?)
        })
        .collect::<Result<Vec<_>, FederatedError>>()?;
    let server = Server::new(config.clone(), roster.clone())?;
    Ok(Round {
        clients,
        server,
        keys,
        config,
        roster,
    })
}

impl Round {
    /// Key exchange and masked inputs, honestly.
    fn begin(&mut self) -> Result<(), FederatedError> {
        for c in &mut self.clients {
            let message = c.advertise()?;
            self.server.receive(&message)?;
        }
        for _ in 0..2 {
            for (to, message) in self.server.advance()? {
                if let Some(c) = self.clients.iter_mut().find(|c| c.id() == to) {
                    self.server.receive(&c.receive(&message)?)?;
                }
            }
        }
        Ok(())
    }
}

/// Plays the cheat against a round of `n` clients.
///
/// # Errors
/// [`FederatedError::Protection`] for fewer than three clients.
pub fn cheat(n: usize) -> Result<Cheat, FederatedError> {
    // Honest: the lists agree, all hand out shares.
    let mut honest = round(n, 1)?;
    honest.begin()?;
    let mut shares = 0;
    for step in 0..2 {
        for (to, message) in honest.server.advance()? {
            if let Some(c) = honest.clients.iter_mut().find(|c| c.id() == to) {
                let answer = c.receive(&message)?;
                shares += step;
                honest.server.receive(&answer)?;
            }
        }
    }
    // Two lists: each client is shown every signature that the coordinator got, of both lists.
    let mut cheated = round(n, 2)?;
    cheated.begin()?;
    let two = two_lists::answers(
        &mut cheated.clients,
        &cheated.config,
        &cheated.roster,
        &cheated.keys,
    )?;
    // A key of its own in place of the victim's, unsigned by the victim.
    let mut forged = round(n, 3)?;
    let accepted = two_lists::forged_keys(
        &mut forged.clients,
        &mut forged.server,
        &forged.config,
        &forged.roster,
    )?;
    Ok(Cheat {
        clients: n,
        shares_when_told_two_lists: two,
        shares_when_told_one_list: shares,
        needed: cheated.config.share_threshold,
        accepted_forged_key: accepted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_hands_out_shares_for_two_lists() {
        let c = cheat(6).unwrap();
        assert_eq!(c.shares_when_told_one_list, 6, "{c:?}");
        assert_eq!(c.shares_when_told_two_lists, 0, "{c:?}");
        assert_eq!(c.accepted_forged_key, 0, "{c:?}");
        assert!(cheat(2).is_err());
    }
}
