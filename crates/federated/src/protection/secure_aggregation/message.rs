//! Messages: a compact binary form (postcard), strictly parsed, and signed by clients.
//!
//! A client's message is `postcard(header, body) ‖ Ed25519 signature (64 bytes)`, a coordinator's is `postcard(header, body)`. A message is
//! accepted only if writing it again gives the same bytes.

use super::STAGE;
use crate::protection::{ClientId, ProtectionError};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Version of the form.
const VERSION: u8 = 1;
const SIGNATURE_BYTES: usize = 64;

/// Bytes that serialise as one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, v: &[u8]) -> Result<Blob, E> {
                Ok(Blob(v.to_vec()))
            }
            fn visit_byte_buf<E>(self, v: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(v))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignatureBytes([u8; 32], [u8; 32]);

impl From<Signature> for SignatureBytes {
    fn from(signature: Signature) -> Self {
        Self(*signature.r_bytes(), *signature.s_bytes())
    }
}

impl From<SignatureBytes> for Signature {
    fn from(bytes: SignatureBytes) -> Self {
        Signature::from_components(bytes.0, bytes.1)
    }
}

/// What every message says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub version: u8,
    pub session: [u8; 16],
    pub round: u64,
    /// Digest of configuration and roster.
    pub digest: [u8; 32],
    /// The client that sends or receives it.
    pub client: ClientId,
}

impl Header {
    pub fn new(session: [u8; 16], round: u64, digest: [u8; 32], client: ClientId) -> Self {
        Self {
            version: VERSION,
            session,
            round,
            digest,
            client,
        }
    }

    /// Refuses what belongs elsewhere. The client is checked by the caller.
    fn check(&self, expected: &Self) -> Result<(), ProtectionError> {
        let wrong = |field, found: String, expected: String| {
            Err(ProtectionError::WrongRound {
                stage: STAGE,
                field,
                found,
                expected,
            })
        };
        if self.version != expected.version {
            return wrong(
                "version",
                self.version.to_string(),
                expected.version.to_string(),
            );
        }
        if self.session != expected.session {
            return wrong("session", hex(&self.session), hex(&expected.session));
        }
        if self.round != expected.round {
            return wrong("round", self.round.to_string(), expected.round.to_string());
        }
        if self.digest != expected.digest {
            return wrong(
                "configuration",
                hex(&self.digest[..8]),
                hex(&expected.digest[..8]),
            );
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The public keys of a client for one round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyEntry {
    pub client: ClientId,
    pub mask_key: [u8; 32],
    pub channel_key: [u8; 32],
    pub signature: SignatureBytes,
}

impl KeyEntry {
    fn signed_bytes(
        digest: &[u8; 32],
        client: ClientId,
        mask: &[u8; 32],
        channel: &[u8; 32],
    ) -> Vec<u8> {
        let mut out = b"tacit secure aggregation keys 1".to_vec();
        out.extend(digest);
        out.extend(client.to_le_bytes());
        out.extend(mask);
        out.extend(channel);
        out
    }

    pub fn sign(
        digest: &[u8; 32],
        client: ClientId,
        mask_key: [u8; 32],
        channel_key: [u8; 32],
        key: &SigningKey,
    ) -> Self {
        let signature = key
            .sign(&Self::signed_bytes(digest, client, &mask_key, &channel_key))
            .into();
        Self {
            client,
            mask_key,
            channel_key,
            signature,
        }
    }

    pub fn verify(&self, digest: &[u8; 32], key: &VerifyingKey) -> bool {
        let bytes = Self::signed_bytes(digest, self.client, &self.mask_key, &self.channel_key);
        key.verify_strict(&bytes, &self.signature.into()).is_ok()
    }
}

/// What a client signs of the set of survivors.
pub(crate) fn survivors_bytes(digest: &[u8; 32], survivors: &[ClientId]) -> Vec<u8> {
    let mut out = b"tacit secure aggregation survivors 1".to_vec();
    out.extend(digest);
    for v in survivors {
        out.extend(v.to_le_bytes());
    }
    out
}

/// A dealer's shares for one member. Its own are not sent, only committed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dealt {
    pub to: ClientId,
    pub mask_key_commitment: [u8; 32],
    pub seed_commitment: [u8; 32],
    pub sealed: Blob,
}

/// An opened share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub owner: ClientId,
    pub share: Blob,
}

/// What clients send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ClientBody {
    Keys(KeyEntry),
    Shares {
        seed_commitment: [u8; 32],
        dealt: Vec<Dealt>,
    },
    Masked(Blob),
    Survivors(SignatureBytes),
    Opened {
        seeds: Vec<Opened>,
        mask_keys: Vec<Opened>,
    },
}

impl ClientBody {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Keys(_) => "a key entry",
            Self::Shares { .. } => "shares",
            Self::Masked(_) => "a masked update",
            Self::Survivors(_) => "a signature of the survivors",
            Self::Opened { .. } => "opened shares",
        }
    }
}

/// What the coordinator sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ServerBody {
    /// The entries of all members, ascending by client.
    Keys(Vec<KeyEntry>),
    /// Members that dealt shares, ascending, and those dealt to the receiver.
    Shares {
        members: Vec<ClientId>,
        sealed: Vec<(ClientId, Blob)>,
    },
    /// Members whose masked update arrived, ascending.
    Survivors(Vec<ClientId>),
    /// Signatures of the survivors.
    Signatures(Vec<(ClientId, SignatureBytes)>),
}

impl ServerBody {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Keys(_) => "the key list",
            Self::Shares { .. } => "shares",
            Self::Survivors(_) => "the list of survivors",
            Self::Signatures(_) => "the survivors' signatures",
        }
    }
}

fn malformed(bytes: &[u8], problem: impl Into<String>) -> ProtectionError {
    ProtectionError::Malformed {
        stage: STAGE,
        bytes: bytes.len(),
        problem: problem.into(),
    }
}

fn encode<T: Serialize>(header: &Header, body: &T) -> Vec<u8> {
    postcard::to_stdvec(&(header, body)).expect("plain data always serialises")
}

fn decode<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<(Header, T), ProtectionError> {
    let (message, rest): ((Header, T), _) =
        postcard::take_from_bytes(bytes).map_err(|e| malformed(bytes, e.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(
            bytes,
            format!("{} bytes follow its end", rest.len()),
        ));
    }
    if encode(&message.0, &message.1) != bytes {
        return Err(malformed(bytes, "it is not in canonical form"));
    }
    Ok(message)
}

fn signed_bytes(message: &[u8]) -> Vec<u8> {
    [b"tacit secure aggregation message 1", message].concat()
}

/// A client's message.
pub(crate) fn write_client(header: &Header, body: &ClientBody, key: &SigningKey) -> Vec<u8> {
    let mut out = encode(header, body);
    let signature = key.sign(&signed_bytes(&out));
    out.extend(signature.to_bytes());
    out
}

/// Reads a client's message; `key_of` gives the key of an enrolled client.
pub(crate) fn read_client<'k>(
    bytes: &[u8],
    expected: &Header,
    key_of: impl Fn(ClientId) -> Option<&'k VerifyingKey>,
) -> Result<(ClientId, ClientBody), ProtectionError> {
    let at = bytes
        .len()
        .checked_sub(SIGNATURE_BYTES)
        .ok_or_else(|| malformed(bytes, "shorter than a signature"))?;
    let (message, signature) = bytes.split_at(at);
    let (header, body): (Header, ClientBody) = decode(message)?;
    header.check(expected)?;
    let client = header.client;
    let key = key_of(client).ok_or(ProtectionError::UnknownClient {
        stage: STAGE,
        client,
        list: "on the roster",
    })?;
    let signature = Signature::from_slice(signature)
        .map_err(|_| malformed(bytes, "its signature has another length"))?;
    if key
        .verify_strict(&signed_bytes(message), &signature)
        .is_err()
    {
        return Err(ProtectionError::NotAuthentic {
            stage: STAGE,
            client,
            what: "the signature",
            consequence: "the message is ignored",
        });
    }
    Ok((client, body))
}

/// A coordinator's message.
pub(crate) fn write_server(header: &Header, body: &ServerBody) -> Vec<u8> {
    encode(header, body)
}

/// Reads a coordinator's message to the client of `expected`.
pub(crate) fn read_server(bytes: &[u8], expected: &Header) -> Result<ServerBody, ProtectionError> {
    let (header, body): (Header, ServerBody) = decode(bytes)?;
    header.check(expected)?;
    if header.client != expected.client {
        return Err(ProtectionError::WrongRound {
            stage: STAGE,
            field: "client",
            found: header.client.to_string(),
            expected: expected.client.to_string(),
        });
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header::new([1; 16], 3, [2; 32], 5)
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(bytes: Vec<u8>) {
            let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
            prop_assert!(read_client(&bytes, &header(), |_| Some(&key)).is_err());
            let _ = read_server(&bytes, &header());
        }

        #[test]
        fn a_changed_message_is_refused(at in 0usize..400, flip in 1u8..=255, values in prop::collection::vec(any::<u8>(), 1..200)) {
            let key = SigningKey::from_bytes(&[1; 32]);
            let public = key.verifying_key();
            let mut bytes = write_client(&header(), &ClientBody::Masked(Blob(values.clone())), &key);
            prop_assert_eq!(
                read_client(&bytes, &header(), |_| Some(&public)).unwrap(),
                (5, ClientBody::Masked(Blob(values)))
            );
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(read_client(&bytes, &header(), |_| Some(&public)).is_err());
        }

        #[test]
        fn coordinator_messages_are_canonical(members in prop::collection::vec(any::<u32>(), 0..20), cut in 1usize..10) {
            let bytes = write_server(&header(), &ServerBody::Survivors(members.clone()));
            prop_assert_eq!(read_server(&bytes, &header()).unwrap(), ServerBody::Survivors(members));
            let mut long = bytes.clone();
            long.push(0);
            prop_assert!(read_server(&long, &header()).is_err());
            prop_assert!(read_server(&bytes[..bytes.len() - cut.min(bytes.len())], &header()).is_err());
        }
    }

    #[test]
    fn messages_of_other_rounds_are_refused() {
        let bytes = write_server(&header(), &ServerBody::Survivors(vec![1]));
        let others = [
            Header {
                round: 4,
                ..header()
            },
            Header {
                session: [9; 16],
                ..header()
            },
            Header {
                digest: [9; 32],
                ..header()
            },
            Header {
                client: 6,
                ..header()
            },
        ];
        for other in others {
            assert!(matches!(
                read_server(&bytes, &other),
                Err(ProtectionError::WrongRound { .. })
            ));
        }
    }
}
