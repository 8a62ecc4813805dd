//! A client of one round, as a state machine over messages.

use super::STAGE;
use super::config::{Roster, RoundConfig};
use super::fixed_point::mask;
use super::keys::{
    CHANNEL, MASK, SharePair, entropy, open, pair_key, seal, seed_commitment, share_commitment,
};
use super::mask::{Mask, apply, pack_bits};
use super::message::{
    Blob, ClientBody, Dealt, Header, KeyEntry, Opened, ServerBody, read_server, survivors_bytes,
    write_client,
};
use super::shamir::{Share, split};
use crate::protection::{ClientId, ProtectionError};
use ed25519_dalek::{Signer, SigningKey};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Fresh,
    KeysSent,
    SharesSent,
    MaskedSent,
    SignatureSent,
    Done,
}

impl Phase {
    fn due(self) -> &'static str {
        match self {
            Self::Fresh => "the client's own key entry",
            Self::KeysSent => "the key list",
            Self::SharesSent => "shares",
            Self::MaskedSent => "the list of survivors",
            Self::SignatureSent => "the survivors' signatures",
            Self::Done => "nothing more",
        }
    }
}

/// A member of one round. It sends its masked update once, and opens at most one kind of share of any other member.
///
/// [`Self::advertise`] begins; [`Self::receive`] answers each message of the coordinator. A message that is refused leaves the state as it
/// was. Secrets are drawn anew for each client object and wiped when it is dropped.
pub struct Client {
    config: RoundConfig,
    roster: Roster,
    digest: [u8; 32],
    id: ClientId,
    signing: SigningKey,
    input: Zeroizing<Vec<u32>>,
    rng: ChaCha20Rng,
    mask_secret: StaticSecret,
    channel_secret: StaticSecret,
    seed: Zeroizing<[u8; 32]>,
    phase: Phase,
    members: BTreeMap<ClientId, KeyEntry>,
    neighbours: Vec<ClientId>,
    own_shares: Option<SharePair>,
    received: BTreeMap<ClientId, SharePair>,
    survivors: Vec<ClientId>,
}

impl Client {
    /// A member `id` with its identity key and its encoded update, with randomness from the operating system.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] for a configuration whose promises cannot hold, [`ProtectionError::UnknownClient`] or
    /// [`ProtectionError::NotAuthentic`] if the roster does not have this key under this id, [`ProtectionError::Input`] for an input of another length
    /// or with values of more than `bits` bits.
    pub fn new(
        config: RoundConfig,
        roster: Roster,
        id: ClientId,
        signing: SigningKey,
        input: Vec<u32>,
    ) -> Result<Self, ProtectionError> {
        config.validate(&roster)?;
        let key = roster.get(id).ok_or(ProtectionError::UnknownClient {
            stage: STAGE,
            client: id,
            list: "on the roster",
        })?;
        if *key != signing.verifying_key() {
            return Err(ProtectionError::NotAuthentic {
                stage: STAGE,
                client: id,
                what: "the roster's entry",
                consequence: "its key is not that of this client; correct the roster",
            });
        }
        if input.len() != config.dimension {
            return Err(ProtectionError::input(
                STAGE,
                format!(
                    "the update has {} coordinates, the round {}",
                    input.len(),
                    config.dimension
                ),
                "use the configuration of this round",
            ));
        }
        if let Some(i) = input.iter().position(|&v| v > mask(config.bits)) {
            return Err(ProtectionError::input(
                STAGE,
                format!("coordinate {i} has more than {} bits", config.bits),
                "encode with the same number of bits as the round",
            ));
        }
        let mut rng = ChaCha20Rng::from_seed(*entropy()?);
        let mut draw = || {
            let mut bytes = Zeroizing::new([0; 32]);
            rng.fill_bytes(bytes.as_mut_slice());
            bytes
        };
        let (mask_secret, channel_secret, seed) = (
            StaticSecret::from(*draw()),
            StaticSecret::from(*draw()),
            draw(),
        );
        Ok(Self {
            digest: config.digest(&roster),
            config,
            roster,
            id,
            signing,
            input: Zeroizing::new(input),
            rng,
            mask_secret,
            channel_secret,
            seed,
            phase: Phase::Fresh,
            members: BTreeMap::new(),
            neighbours: Vec::new(),
            own_shares: None,
            received: BTreeMap::new(),
            survivors: Vec::new(),
        })
    }

    /// This client's number.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Whether the round is over for this client.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    fn header(&self) -> Header {
        Header::new(self.config.session, self.config.round, self.digest, self.id)
    }

    fn message(&self, body: &ClientBody) -> Vec<u8> {
        write_client(&self.header(), body, &self.signing)
    }

    /// Step 1: the signed public keys.
    ///
    /// # Errors
    /// [`ProtectionError::OutOfOrder`] the second time.
    pub fn advertise(&mut self) -> Result<Vec<u8>, ProtectionError> {
        if self.phase != Phase::Fresh {
            return Err(ProtectionError::OutOfOrder {
                stage: STAGE,
                found: "a second beginning",
                expected: self.phase.due(),
            });
        }
        let entry = KeyEntry::sign(
            &self.digest,
            self.id,
            PublicKey::from(&self.mask_secret).to_bytes(),
            PublicKey::from(&self.channel_secret).to_bytes(),
            &self.signing,
        );
        self.phase = Phase::KeysSent;
        Ok(self.message(&ClientBody::Keys(entry)))
    }

    /// Answers a message of the coordinator.
    ///
    /// # Errors
    /// [`ProtectionError::Malformed`], [`ProtectionError::WrongRound`] and [`ProtectionError::OutOfOrder`] for what is not the message that is due;
    /// [`ProtectionError::TooFew`], [`ProtectionError::NotAuthentic`] and [`ProtectionError::Cheating`] when answering would cost privacy.
    pub fn receive(&mut self, message: &[u8]) -> Result<Vec<u8>, ProtectionError> {
        let body = read_server(message, &self.header())?;
        match (self.phase, body) {
            (Phase::KeysSent, ServerBody::Keys(entries)) => self.share(entries),
            (Phase::SharesSent, ServerBody::Shares { members, sealed }) => {
                self.mask(&members, sealed)
            }
            (Phase::MaskedSent, ServerBody::Survivors(survivors)) => self.sign(survivors),
            (Phase::SignatureSent, ServerBody::Signatures(signatures)) => {
                self.open_shares(&signatures)
            }
            (phase, body) => Err(ProtectionError::OutOfOrder {
                stage: STAGE,
                found: body.name(),
                expected: phase.due(),
            }),
        }
    }

    fn at_least(
        &self,
        found: usize,
        needed: usize,
        doing: &'static str,
    ) -> Result<(), ProtectionError> {
        if found < needed {
            return Err(ProtectionError::TooFew {
                stage: STAGE,
                doing,
                found,
                needed,
            });
        }
        Ok(())
    }

    fn cheating<T>(&self, problem: impl Into<String>) -> Result<T, ProtectionError> {
        Err(ProtectionError::Cheating {
            stage: STAGE,
            problem: problem.into(),
        })
    }

    /// Step 2: verify the key list, deal shares of both secrets to the neighbours.
    fn share(&mut self, entries: Vec<KeyEntry>) -> Result<Vec<u8>, ProtectionError> {
        self.at_least(entries.len(), self.config.min_survivors, "advertised keys")?;
        if !entries.is_sorted_by(|a, b| a.client < b.client) {
            return self.cheating("the key list is not in order or has a client twice");
        }
        let mut keys: Vec<[u8; 32]> = Vec::with_capacity(2 * entries.len());
        for entry in &entries {
            let key = self
                .roster
                .get(entry.client)
                .ok_or(ProtectionError::UnknownClient {
                    stage: STAGE,
                    client: entry.client,
                    list: "on the roster",
                })?;
            if !entry.verify(&self.digest, key) {
                return Err(ProtectionError::NotAuthentic {
                    stage: STAGE,
                    client: entry.client,
                    what: "the key entry",
                    consequence: "no shares are dealt",
                });
            }
            keys.extend([entry.mask_key, entry.channel_key]);
        }
        keys.sort_unstable();
        if keys.windows(2).any(|w| w[0] == w[1]) {
            return self.cheating("two keys in the list are equal");
        }
        let members: Vec<ClientId> = entries.iter().map(|e| e.client).collect();
        let own = entries.iter().find(|e| e.client == self.id);
        if own.map(|e| (e.mask_key, e.channel_key))
            != Some((
                PublicKey::from(&self.mask_secret).to_bytes(),
                PublicKey::from(&self.channel_secret).to_bytes(),
            ))
        {
            return self.cheating("the key list has other keys for this client, or none");
        }
        let neighbours = self.config.graph.neighbours(self.id, &members);
        let holders: Vec<ClientId> = std::iter::once(self.id)
            .chain(neighbours.iter().copied())
            .collect();
        self.at_least(
            holders.len(),
            self.config.share_threshold,
            "could hold shares",
        )?;
        let points: Vec<u64> = holders.iter().map(|&v| point(v)).collect();
        let t = self.config.share_threshold;
        let mut rng = self.rng.clone();
        let mask_key = Zeroizing::new(self.mask_secret.to_bytes());
        let mask_shares = split(&mask_key, t, &points, &mut rng)?;
        let seed_shares = split(&self.seed, t, &points, &mut rng)?;

        let members: BTreeMap<ClientId, KeyEntry> =
            entries.into_iter().map(|e| (e.client, e)).collect();
        let mut dealt = Vec::with_capacity(holders.len());
        let mut own_shares = None;
        for ((&to, mask_key), seed) in holders.iter().zip(mask_shares).zip(seed_shares) {
            let pair = SharePair { mask_key, seed };
            let mask_key_commitment = share_commitment(0, self.id, to, &pair.mask_key);
            let seed_commitment = share_commitment(1, self.id, to, &pair.seed);
            let sealed = if to == self.id {
                own_shares = Some(pair);
                Vec::new()
            } else {
                let key = pair_key(
                    &self.channel_secret,
                    self.id,
                    &members[&to].channel_key,
                    to,
                    &self.config,
                    CHANNEL,
                )?;
                seal(&key, &self.digest, self.id, to, &pair)
            };
            dealt.push(Dealt {
                to,
                mask_key_commitment,
                seed_commitment,
                sealed: Blob(sealed),
            });
        }
        self.rng = rng;
        self.members = members;
        self.neighbours = neighbours;
        self.own_shares = own_shares;
        self.phase = Phase::SharesSent;
        Ok(self.message(&ClientBody::Shares {
            seed_commitment: seed_commitment(self.id, &self.seed),
            dealt,
        }))
    }

    /// Step 3: open the shares, mask the update.
    fn mask(
        &mut self,
        members: &[ClientId],
        sealed: Vec<(ClientId, Blob)>,
    ) -> Result<Vec<u8>, ProtectionError> {
        self.at_least(members.len(), self.config.min_survivors, "dealt shares")?;
        if !members.is_sorted_by(|a, b| a < b) {
            return self.cheating("the list of dealers is not in order or has a client twice");
        }
        if let Some(&client) = members.iter().find(|v| !self.members.contains_key(v)) {
            return Err(ProtectionError::UnknownClient {
                stage: STAGE,
                client,
                list: "in this round's key list",
            });
        }
        if members.binary_search(&self.id).is_err() {
            return self.cheating("this client dealt shares but is not on the list of dealers");
        }
        let partners: Vec<ClientId> = self
            .neighbours
            .iter()
            .copied()
            .filter(|v| members.binary_search(v).is_ok())
            .collect();
        self.at_least(
            partners.len() + 1,
            self.config.share_threshold,
            "hold shares of this client",
        )?;
        if !sealed.iter().map(|(v, _)| v).eq(&partners) {
            return self
                .cheating("the shares are not those of the neighbours on the list of dealers");
        }
        let mut received = BTreeMap::new();
        for (from, blob) in &sealed {
            let key = pair_key(
                &self.channel_secret,
                self.id,
                &self.members[from].channel_key,
                *from,
                &self.config,
                CHANNEL,
            )?;
            let pair = open(&key, &self.digest, *from, self.id, &blob.0).ok_or(
                ProtectionError::NotAuthentic {
                    stage: STAGE,
                    client: *from,
                    what: "the encrypted share",
                    consequence: "no update is sent",
                },
            )?;
            received.insert(*from, pair);
        }
        let mut masks = vec![Mask {
            seed: self.seed.clone(),
            negative: false,
        }];
        for &v in &partners {
            masks.push(Mask {
                seed: pair_key(
                    &self.mask_secret,
                    self.id,
                    &self.members[&v].mask_key,
                    v,
                    &self.config,
                    MASK,
                )?,
                negative: v < self.id,
            });
        }
        let mut values = std::mem::take(&mut *self.input);
        apply(&mut values, self.config.bits, &masks);
        let packed = pack_bits(&values, self.config.bits);
        values.zeroize();
        self.received = received;
        self.neighbours = partners;
        self.phase = Phase::MaskedSent;
        Ok(self.message(&ClientBody::Masked(Blob(packed))))
    }

    /// Step 4: sign the set of survivors that this client was told.
    fn sign(&mut self, survivors: Vec<ClientId>) -> Result<Vec<u8>, ProtectionError> {
        self.at_least(
            survivors.len(),
            self.config.min_survivors,
            "sent a masked update",
        )?;
        if !survivors.is_sorted_by(|a, b| a < b) {
            return self.cheating("the list of survivors is not in order or has a client twice");
        }
        if let Some(&client) = survivors.iter().find(|v| !self.members.contains_key(v)) {
            return Err(ProtectionError::UnknownClient {
                stage: STAGE,
                client,
                list: "in this round's key list",
            });
        }
        if survivors.binary_search(&self.id).is_err() {
            return self
                .cheating("this client sent its update but is not on the list of survivors");
        }
        let signature = self
            .signing
            .sign(&survivors_bytes(&self.digest, &survivors));
        self.survivors = survivors;
        self.phase = Phase::SignatureSent;
        Ok(self.message(&ClientBody::Survivors(signature.into())))
    }

    /// Step 5: when enough others signed the same set, open one share of each neighbour.
    fn open_shares(
        &mut self,
        signatures: &[(ClientId, super::message::SignatureBytes)],
    ) -> Result<Vec<u8>, ProtectionError> {
        self.at_least(
            signatures.len(),
            self.config.min_survivors,
            "signed the list of survivors",
        )?;
        if !signatures.is_sorted_by(|a, b| a.0 < b.0) {
            return self.cheating("the signatures are not in order or one client signed twice");
        }
        let bytes = survivors_bytes(&self.digest, &self.survivors);
        for (client, signature) in signatures {
            let key = self
                .roster
                .get(*client)
                .filter(|_| self.survivors.binary_search(client).is_ok())
                .ok_or(ProtectionError::UnknownClient {
                    stage: STAGE,
                    client: *client,
                    list: "on the list of survivors",
                })?;
            if key.verify_strict(&bytes, &(*signature).into()).is_err() {
                return Err(ProtectionError::NotAuthentic {
                    stage: STAGE,
                    client: *client,
                    what: "the signature of the list of survivors",
                    consequence: "clients may have been told different lists, so no share is opened",
                });
            }
        }
        let opened = |owner: ClientId, share: &Share| Opened {
            owner,
            share: Blob(share.to_bytes().to_vec()),
        };
        let (mut seeds, mut mask_keys) = (Vec::new(), Vec::new());
        if let Some(own) = &self.own_shares {
            seeds.push(opened(self.id, &own.seed));
        }
        for (&owner, pair) in &self.received {
            if self.survivors.binary_search(&owner).is_ok() {
                seeds.push(opened(owner, &pair.seed));
            } else {
                mask_keys.push(opened(owner, &pair.mask_key));
            }
        }
        self.received.clear();
        self.own_shares = None;
        self.phase = Phase::Done;
        Ok(self.message(&ClientBody::Opened { seeds, mask_keys }))
    }
}

/// The point of a client's share: its number plus one, as zero is where the secret is.
pub(crate) fn point(client: ClientId) -> u64 {
    u64::from(client) + 1
}
