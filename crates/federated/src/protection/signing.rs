//! Payloads signed end to end: what a client sent reaches the coordinator as it was, or not at all, whoever carries it.
//!
//! ```text
//! magic "TCTP" 1 ‖ session 16 ‖ round 8 ‖ client 4 ‖ purpose length 1 ‖ purpose ‖ BLAKE3 of the content 32 ‖ Ed25519 signature 64 ‖ content
//! ```
//!
//! The signature covers everything before it, and through the hash the content. A [`ReplayGuard`] accepts of each client and purpose only rounds
//! above the last accepted one. **Assumptions:** the receiver knows the sender's key from elsewhere than the carrier ([`Roster`]); Ed25519 and
//! BLAKE3 are secure. **Not promised:** secrecy (that is what the other stages are for), and delivery.
//!
//! ```
//! use tacit_federated::protection::secure_aggregation::{Roster, identity};
//! use tacit_federated::protection::signing::{Envelope, ReplayGuard, open, seal};
//! let key = identity().unwrap();
//! let roster = Roster::new([(3, key.verifying_key())]);
//! let envelope = Envelope { session: [1; 16], round: 5, client: 3, purpose: "update".into() };
//! let bytes = seal(&envelope, b"content", &key).unwrap();
//! let mut guard = ReplayGuard::new([1; 16]);
//! let (from, content) = open(&bytes, &roster).unwrap();
//! guard.admit(&from).unwrap();
//! assert_eq!(content, b"content");
//! assert!(guard.admit(&from).is_err(), "the second time it is a replay");
//! ```

use super::secure_aggregation::Roster;
use super::{ClientId, ProtectionError};
use ed25519_dalek::{Signature, Signer, SigningKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const STAGE: &str = "signed payloads";
const MAGIC: &[u8; 5] = b"TCTP\x01";
/// Longest purpose in bytes.
const MAX_PURPOSE: usize = 64;

/// Who sent something, when and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The federation.
    pub session: [u8; 16],
    /// The round.
    pub round: u64,
    /// The sender.
    pub client: ClientId,
    /// What it is, e.g. `update`: a payload of one purpose is not accepted for another. 1 to 64 bytes.
    pub purpose: String,
}

impl Envelope {
    fn signed_bytes(&self, hash: &[u8; 32]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.session);
        out.extend(self.round.to_le_bytes());
        out.extend(self.client.to_le_bytes());
        out.push(self.purpose.len() as u8);
        out.extend(self.purpose.as_bytes());
        out.extend(hash);
        out
    }
}

/// Signs a payload.
///
/// # Errors
/// [`ProtectionError::Input`] for a purpose that is empty or too long.
pub fn seal(
    envelope: &Envelope,
    content: &[u8],
    key: &SigningKey,
) -> Result<Vec<u8>, ProtectionError> {
    if !(1..=MAX_PURPOSE).contains(&envelope.purpose.len()) {
        return Err(ProtectionError::input(
            STAGE,
            format!("a purpose of {} bytes", envelope.purpose.len()),
            "use 1 to 64 bytes",
        ));
    }
    let mut out = envelope.signed_bytes(blake3::hash(content).as_bytes());
    let signature = key.sign(&out);
    out.extend(signature.to_bytes());
    out.extend(content);
    Ok(out)
}

/// Verifies a payload and gives its envelope and content. It may still be a replay: ask a [`ReplayGuard`].
///
/// # Errors
/// [`ProtectionError::Malformed`], [`ProtectionError::UnknownClient`], [`ProtectionError::NotAuthentic`].
pub fn open<'b>(bytes: &'b [u8], roster: &Roster) -> Result<(Envelope, &'b [u8]), ProtectionError> {
    let malformed = |problem: &str| ProtectionError::Malformed {
        stage: STAGE,
        bytes: bytes.len(),
        problem: problem.into(),
    };
    let mut rest = bytes;
    let mut take = |len: usize| -> Result<&'b [u8], ProtectionError> {
        let (part, after) = rest
            .split_at_checked(len)
            .ok_or_else(|| malformed("it ends early"))?;
        rest = after;
        Ok(part)
    };
    if take(5)? != MAGIC {
        return Err(malformed(
            "it does not begin as a signed payload of version 1",
        ));
    }
    let array = |part: &[u8]| -> [u8; 8] {
        let mut out = [0; 8];
        out[..part.len()].copy_from_slice(part);
        out
    };
    let mut session = [0; 16];
    session.copy_from_slice(take(16)?);
    let round = u64::from_le_bytes(array(take(8)?));
    let client = u64::from_le_bytes(array(take(4)?)) as ClientId;
    let len = take(1)?[0] as usize;
    if !(1..=MAX_PURPOSE).contains(&len) {
        return Err(malformed("its purpose is empty or too long"));
    }
    let purpose = std::str::from_utf8(take(len)?)
        .map_err(|_| malformed("its purpose is not text"))?
        .to_owned();
    let hash: [u8; 32] = take(32)?.try_into().expect("32 bytes were taken");
    let signature = Signature::from_slice(take(64)?).map_err(|_| malformed("no signature"))?;
    let envelope = Envelope {
        session,
        round,
        client,
        purpose,
    };
    let key = roster.get(client).ok_or(ProtectionError::UnknownClient {
        stage: STAGE,
        client,
        list: "on the roster",
    })?;
    let authentic = key
        .verify_strict(&envelope.signed_bytes(&hash), &signature)
        .is_ok()
        && blake3::hash(rest) == blake3::Hash::from_bytes(hash);
    if !authentic {
        return Err(ProtectionError::NotAuthentic {
            stage: STAGE,
            client,
            what: "the signature or the content",
            consequence: "the payload is ignored",
        });
    }
    Ok((envelope, rest))
}

/// Refuses what was accepted before. Save it with the run's state: one that starts empty after a restart accepts old rounds again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayGuard {
    session: [u8; 16],
    last: BTreeMap<String, BTreeMap<ClientId, u64>>,
}

impl ReplayGuard {
    /// A guard of one federation.
    pub fn new(session: [u8; 16]) -> Self {
        Self {
            session,
            last: BTreeMap::new(),
        }
    }

    /// Accepts a verified envelope once.
    ///
    /// # Errors
    /// [`ProtectionError::WrongRound`] for another federation, or a round not above the last one accepted from this client for this purpose.
    pub fn admit(&mut self, envelope: &Envelope) -> Result<(), ProtectionError> {
        let hex = |b: &[u8]| b.iter().map(|x| format!("{x:02x}")).collect::<String>();
        if envelope.session != self.session {
            return Err(ProtectionError::WrongRound {
                stage: STAGE,
                field: "session",
                found: hex(&envelope.session),
                expected: hex(&self.session),
            });
        }
        let last = self.last.entry(envelope.purpose.clone()).or_default();
        if let Some(&seen) = last
            .get(&envelope.client)
            .filter(|&&seen| envelope.round <= seen)
        {
            return Err(ProtectionError::WrongRound {
                stage: STAGE,
                field: "round",
                found: envelope.round.to_string(),
                expected: format!("above {seen}"),
            });
        }
        last.insert(envelope.client, envelope.round);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    fn key(client: u8) -> SigningKey {
        SigningKey::from_bytes(&[client; 32])
    }

    fn roster() -> Roster {
        Roster::new((1..4).map(|c| (c.into(), key(c).verifying_key())))
    }

    fn envelope(client: ClientId, round: u64, purpose: &str) -> Envelope {
        Envelope {
            session: [6; 16],
            round,
            client,
            purpose: purpose.into(),
        }
    }

    proptest! {
        #[test]
        fn any_change_is_found(content: Vec<u8>, round: u64, at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<bool>(), noise: Vec<u8>) {
            let e = envelope(2, round, "update");
            let mut bytes = seal(&e, &content, &key(2)).unwrap();
            let (back, inside) = open(&bytes, &roster()).unwrap();
            prop_assert_eq!((back, inside), (e, content.as_slice()));
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            prop_assert!(open(&bytes, &roster()).is_err());
            prop_assert!(open(&noise, &roster()).is_err());
        }
    }

    #[test]
    fn others_cannot_sign_for_a_client() {
        let forged = seal(&envelope(2, 1, "update"), b"x", &key(3)).unwrap();
        assert!(matches!(
            open(&forged, &roster()),
            Err(ProtectionError::NotAuthentic { client: 2, .. })
        ));
        let stranger = seal(&envelope(9, 1, "update"), b"x", &key(9)).unwrap();
        assert!(matches!(
            open(&stranger, &roster()),
            Err(ProtectionError::UnknownClient { client: 9, .. })
        ));
        assert!(seal(&envelope(2, 1, ""), b"x", &key(2)).is_err());
    }

    #[test]
    fn replays_are_refused_also_after_saving() {
        let mut guard = ReplayGuard::new([6; 16]);
        guard.admit(&envelope(1, 4, "update")).unwrap();
        guard.admit(&envelope(2, 4, "update")).unwrap();
        guard.admit(&envelope(1, 4, "metrics")).unwrap();
        guard.admit(&envelope(1, 5, "update")).unwrap();
        let mut guard: ReplayGuard =
            serde_json::from_str(&serde_json::to_string(&guard).unwrap()).unwrap();
        for old in [4, 5] {
            assert!(guard.admit(&envelope(1, old, "update")).is_err());
        }
        assert!(guard.admit(&envelope(1, 6, "update")).is_ok());
        let other = Envelope {
            session: [7; 16],
            ..envelope(1, 9, "update")
        };
        assert!(guard.admit(&other).is_err());
    }
}
