//! The coordinator of one round, as a state machine over messages.

use super::STAGE;
use super::client::point;
use super::config::{Roster, RoundConfig};
use super::fixed_point::mask;
use super::keys::{MASK, pair_key, seed_commitment, share_commitment};
use super::mask::{Mask, apply, unpack_bits};
use super::message::{
    Blob, ClientBody, Header, KeyEntry, Opened, ServerBody, SignatureBytes, read_client,
    survivors_bytes, write_server,
};
use super::shamir::{Share, recover};
use crate::protection::{ClientId, ProtectionError};
use std::collections::BTreeMap;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// What the coordinator waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPhase {
    /// Step 1: key entries.
    Keys,
    /// Step 2: shares.
    Shares,
    /// Step 3: masked updates.
    Masked,
    /// Step 4: signatures of the survivors.
    Signatures,
    /// Step 5: opened shares.
    Opening,
}

impl ServerPhase {
    fn due(self) -> &'static str {
        match self {
            Self::Keys => "a key entry",
            Self::Shares => "shares",
            Self::Masked => "a masked update",
            Self::Signatures => "a signature of the survivors",
            Self::Opening => "opened shares",
        }
    }
}

/// The sum of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecureSum {
    /// `Σ x_u mod 2^bits` over the survivors.
    pub values: Vec<u32>,
    /// Whose updates are in the sum, ascending.
    pub survivors: Vec<ClientId>,
    /// Members that dealt shares but sent no update.
    pub dropped: Vec<ClientId>,
    /// `(holder, owner)` of opened shares that did not match what the owner had committed to: one of the two lied. They were not used.
    pub wrong_shares: Vec<(ClientId, ClientId)>,
}

struct Dealer {
    seed_commitment: [u8; 32],
    /// By holder: commitments to the shares of mask key and seed, and the sealed shares.
    shares: BTreeMap<ClientId, ([u8; 32], [u8; 32], Blob)>,
}

/// The coordinator of one round. [`Self::receive`] takes messages in any order of arrival; [`Self::advance`] closes a step with those that came;
/// after step 5, [`Self::finish`] gives the sum. Masked updates are added as they arrive: memory is one vector.
pub struct Server {
    config: RoundConfig,
    roster: Roster,
    digest: [u8; 32],
    phase: ServerPhase,
    keys: BTreeMap<ClientId, KeyEntry>,
    dealers: BTreeMap<ClientId, Dealer>,
    sum: Vec<u32>,
    survivors: Vec<ClientId>,
    signatures: BTreeMap<ClientId, SignatureBytes>,
    opened: BTreeMap<ClientId, (Vec<Opened>, Vec<Opened>)>,
}

impl Server {
    /// A coordinator of this round.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] for a configuration whose promises cannot hold.
    pub fn new(config: RoundConfig, roster: Roster) -> Result<Self, ProtectionError> {
        config.validate(&roster)?;
        Ok(Self {
            digest: config.digest(&roster),
            sum: vec![0; config.dimension],
            config,
            roster,
            phase: ServerPhase::Keys,
            keys: BTreeMap::new(),
            dealers: BTreeMap::new(),
            survivors: Vec::new(),
            signatures: BTreeMap::new(),
            opened: BTreeMap::new(),
        })
    }

    /// What is waited for.
    pub fn phase(&self) -> ServerPhase {
        self.phase
    }

    /// Clients whose message of this step has not come: a deadline may pass without them.
    pub fn missing(&self) -> Vec<ClientId> {
        match self.phase {
            ServerPhase::Keys => self
                .roster
                .ids()
                .filter(|v| !self.keys.contains_key(v))
                .collect(),
            ServerPhase::Shares => absent(self.keys.keys(), |v| self.dealers.contains_key(v)),
            ServerPhase::Masked => absent(self.dealers.keys(), |v| self.survivors.contains(v)),
            ServerPhase::Signatures => {
                absent(self.survivors.iter(), |v| self.signatures.contains_key(v))
            }
            ServerPhase::Opening => absent(self.signatures.keys(), |v| self.opened.contains_key(v)),
        }
    }

    fn header(&self, client: ClientId) -> Header {
        Header::new(self.config.session, self.config.round, self.digest, client)
    }

    /// Takes a client's message and says whose it was. A refused message changes nothing.
    ///
    /// # Errors
    /// [`ProtectionError::Malformed`], [`ProtectionError::WrongRound`], [`ProtectionError::OutOfOrder`] (also for a second message of a step),
    /// [`ProtectionError::UnknownClient`], [`ProtectionError::NotAuthentic`], [`ProtectionError::Cheating`].
    pub fn receive(&mut self, message: &[u8]) -> Result<ClientId, ProtectionError> {
        let (client, body) = read_client(message, &self.header(0), |v| self.roster.get(v))?;
        let name = body.name();
        let twice = ProtectionError::OutOfOrder {
            stage: STAGE,
            found: name,
            expected: self.phase.due(),
        };
        let unknown = |list| ProtectionError::UnknownClient {
            stage: STAGE,
            client,
            list,
        };
        match (self.phase, body) {
            (ServerPhase::Keys, ClientBody::Keys(entry)) => {
                if self.keys.contains_key(&client) {
                    return Err(twice);
                }
                let authentic = entry.client == client
                    && self
                        .roster
                        .get(client)
                        .is_some_and(|key| entry.verify(&self.digest, key));
                if !authentic {
                    return Err(ProtectionError::NotAuthentic {
                        stage: STAGE,
                        client,
                        what: "the key entry",
                        consequence: "the message is ignored",
                    });
                }
                // A key of another client would make every honest client stop.
                if self.keys.values().any(|other| {
                    [other.mask_key, other.channel_key]
                        .iter()
                        .any(|k| *k == entry.mask_key || *k == entry.channel_key)
                }) || entry.mask_key == entry.channel_key
                {
                    return Err(ProtectionError::Cheating {
                        stage: STAGE,
                        problem: format!("client {client} repeats a key"),
                    });
                }
                self.keys.insert(client, entry);
            }
            (
                ServerPhase::Shares,
                ClientBody::Shares {
                    seed_commitment,
                    dealt,
                },
            ) => {
                if self.dealers.contains_key(&client) {
                    return Err(twice);
                }
                if !self.keys.contains_key(&client) {
                    return Err(unknown("in this round's key list"));
                }
                let members: Vec<ClientId> = self.keys.keys().copied().collect();
                let mut holders = self.config.graph.neighbours(client, &members);
                holders.push(client);
                holders.sort_unstable();
                let shares: BTreeMap<_, _> = dealt
                    .into_iter()
                    .map(|d| (d.to, (d.mask_key_commitment, d.seed_commitment, d.sealed)))
                    .collect();
                if !shares.keys().eq(&holders) {
                    return Err(ProtectionError::Cheating {
                        stage: STAGE,
                        problem: format!(
                            "client {client} dealt shares to others than its neighbours"
                        ),
                    });
                }
                self.dealers.insert(
                    client,
                    Dealer {
                        seed_commitment,
                        shares,
                    },
                );
            }
            (ServerPhase::Masked, ClientBody::Masked(blob)) => {
                if self.survivors.contains(&client) {
                    return Err(twice);
                }
                if !self.dealers.contains_key(&client) {
                    return Err(unknown("on the list of dealers"));
                }
                let bits = self.config.bits;
                let values =
                    unpack_bits(&blob.0, self.config.dimension, bits).ok_or_else(|| {
                        ProtectionError::Malformed {
                            stage: STAGE,
                            bytes: blob.0.len(),
                            problem: format!(
                                "client {client} does not send {} values of {bits} bits",
                                self.config.dimension
                            ),
                        }
                    })?;
                for (s, v) in self.sum.iter_mut().zip(values) {
                    *s = s.wrapping_add(v) & mask(bits);
                }
                self.survivors.push(client);
            }
            (ServerPhase::Signatures, ClientBody::Survivors(signature)) => {
                if self.signatures.contains_key(&client) {
                    return Err(twice);
                }
                if self.survivors.binary_search(&client).is_err() {
                    return Err(unknown("on the list of survivors"));
                }
                let bytes = survivors_bytes(&self.digest, &self.survivors);
                let authentic = self
                    .roster
                    .get(client)
                    .is_some_and(|key| key.verify_strict(&bytes, &signature.into()).is_ok());
                if !authentic {
                    return Err(ProtectionError::NotAuthentic {
                        stage: STAGE,
                        client,
                        what: "the signature of the list of survivors",
                        consequence: "the message is ignored",
                    });
                }
                self.signatures.insert(client, signature);
            }
            (ServerPhase::Opening, ClientBody::Opened { seeds, mask_keys }) => {
                if self.opened.contains_key(&client) {
                    return Err(twice);
                }
                if !self.signatures.contains_key(&client) {
                    return Err(unknown("among those who signed"));
                }
                self.opened.insert(client, (seeds, mask_keys));
            }
            _ => return Err(twice),
        }
        Ok(client)
    }

    fn enough(&self, found: usize, doing: &'static str) -> Result<(), ProtectionError> {
        if found < self.config.min_survivors {
            return Err(ProtectionError::TooFew {
                stage: STAGE,
                doing,
                found,
                needed: self.config.min_survivors,
            });
        }
        Ok(())
    }

    /// Closes a step with the messages that came, and gives the next messages, one for each client still in the round.
    ///
    /// # Errors
    /// [`ProtectionError::TooFew`] if the round cannot go on (more messages may still be received), [`ProtectionError::OutOfOrder`] after step 5,
    /// where [`Self::finish`] is due.
    pub fn advance(&mut self) -> Result<Vec<(ClientId, Vec<u8>)>, ProtectionError> {
        match self.phase {
            ServerPhase::Keys => {
                self.enough(self.keys.len(), "advertised keys")?;
                self.phase = ServerPhase::Shares;
                let body = ServerBody::Keys(self.keys.values().cloned().collect());
                Ok(self.broadcast(self.keys.keys(), &body))
            }
            ServerPhase::Shares => {
                self.enough(self.dealers.len(), "dealt shares")?;
                self.phase = ServerPhase::Masked;
                let members: Vec<ClientId> = self.dealers.keys().copied().collect();
                Ok(members
                    .iter()
                    .map(|&to| {
                        let sealed = members
                            .iter()
                            .filter(|&&from| from != to)
                            .filter_map(|&from| {
                                let (_, _, blob) = self.dealers[&from].shares.get(&to)?;
                                Some((from, blob.clone()))
                            })
                            .collect();
                        let body = ServerBody::Shares {
                            members: members.clone(),
                            sealed,
                        };
                        (to, write_server(&self.header(to), &body))
                    })
                    .collect())
            }
            ServerPhase::Masked => {
                self.enough(self.survivors.len(), "sent a masked update")?;
                self.survivors.sort_unstable();
                self.phase = ServerPhase::Signatures;
                let body = ServerBody::Survivors(self.survivors.clone());
                Ok(self.broadcast(self.survivors.iter(), &body))
            }
            ServerPhase::Signatures => {
                self.enough(self.signatures.len(), "signed the list of survivors")?;
                self.phase = ServerPhase::Opening;
                let list = self.signatures.iter().map(|(&v, &s)| (v, s)).collect();
                Ok(self.broadcast(self.signatures.keys(), &ServerBody::Signatures(list)))
            }
            ServerPhase::Opening => Err(ProtectionError::OutOfOrder {
                stage: STAGE,
                found: "a further step",
                expected: self.phase.due(),
            }),
        }
    }

    fn broadcast<'a>(
        &self,
        to: impl Iterator<Item = &'a ClientId>,
        body: &ServerBody,
    ) -> Vec<(ClientId, Vec<u8>)> {
        to.map(|&v| (v, write_server(&self.header(v), body)))
            .collect()
    }

    /// Removes the masks: recovers the seeds of survivors and the mask keys of those who dropped out after dealing, each checked against
    /// what its owner published.
    ///
    /// # Errors
    /// [`ProtectionError::OutOfOrder`] before step 5, [`ProtectionError::TooFew`] if too few right shares of a secret came (more may still be
    /// received), [`ProtectionError::Cheating`] naming the client that dealt shares of another secret than it had committed to.
    pub fn finish(&self) -> Result<SecureSum, ProtectionError> {
        if self.phase != ServerPhase::Opening {
            return Err(ProtectionError::OutOfOrder {
                stage: STAGE,
                found: "the end",
                expected: self.phase.due(),
            });
        }
        let mut wrong_shares = Vec::new();
        let mut masks = Vec::new();
        for &owner in &self.survivors {
            let seed = self.recover(owner, 1, &mut wrong_shares)?;
            if seed_commitment(owner, &seed) != self.dealers[&owner].seed_commitment {
                return Err(other_secret(owner));
            }
            masks.push(Mask {
                seed,
                negative: true,
            });
        }
        let dropped: Vec<ClientId> = absent(self.dealers.keys(), |v| {
            self.survivors.binary_search(v).is_ok()
        });
        for &owner in &dropped {
            let partners: Vec<ClientId> = self.dealers[&owner]
                .shares
                .keys()
                .copied()
                .filter(|v| self.survivors.binary_search(v).is_ok())
                .collect();
            if partners.is_empty() {
                continue;
            }
            let secret = StaticSecret::from(*self.recover(owner, 0, &mut wrong_shares)?);
            if PublicKey::from(&secret).to_bytes() != self.keys[&owner].mask_key {
                return Err(other_secret(owner));
            }
            for v in partners {
                // The survivor v added this mask with `+` when owner > v.
                masks.push(Mask {
                    seed: pair_key(
                        &secret,
                        owner,
                        &self.keys[&v].mask_key,
                        v,
                        &self.config,
                        MASK,
                    )?,
                    negative: owner > v,
                });
            }
        }
        let mut values = self.sum.clone();
        apply(&mut values, self.config.bits, &masks);
        Ok(SecureSum {
            values,
            survivors: self.survivors.clone(),
            dropped,
            wrong_shares,
        })
    }

    /// Recovers a secret of `owner` (kind 0: mask key, 1: seed) from those opened shares that match their commitments.
    fn recover(
        &self,
        owner: ClientId,
        kind: u8,
        wrong: &mut Vec<(ClientId, ClientId)>,
    ) -> Result<Zeroizing<[u8; 32]>, ProtectionError> {
        let dealer = &self.dealers[&owner];
        let mut shares = Vec::new();
        for (&holder, (seeds, mask_keys)) in &self.opened {
            let list = if kind == 0 { mask_keys } else { seeds };
            let Some(opened) = list.iter().find(|o| o.owner == owner) else {
                continue;
            };
            let Some((mask_key, seed, _)) = dealer.shares.get(&holder) else {
                continue;
            };
            let committed = if kind == 0 { mask_key } else { seed };
            match Share::from_bytes(&opened.share.0) {
                Some(share) if share_commitment(kind, owner, holder, &share) == *committed => {
                    shares.push((point(holder), share));
                }
                _ => wrong.push((holder, owner)),
            }
        }
        let t = self.config.share_threshold;
        if shares.len() < t {
            return Err(ProtectionError::TooFew {
                stage: STAGE,
                doing: "opened a right share of one client's secret",
                found: shares.len(),
                needed: t,
            });
        }
        shares.truncate(t);
        recover(&shares)?
            .map(Zeroizing::new)
            .ok_or_else(|| other_secret(owner))
    }
}

fn other_secret(owner: ClientId) -> ProtectionError {
    ProtectionError::Cheating {
        stage: STAGE,
        problem: format!(
            "client {owner} dealt shares of another secret than it committed to; run the round again without it"
        ),
    }
}

fn absent<'a>(
    all: impl Iterator<Item = &'a ClientId>,
    present: impl Fn(&ClientId) -> bool,
) -> Vec<ClientId> {
    all.filter(|v| !present(v)).copied().collect()
}
