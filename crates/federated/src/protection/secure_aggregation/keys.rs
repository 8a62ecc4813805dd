//! Keys of a round and what is derived from them.

use super::STAGE;
use super::config::RoundConfig;
use super::shamir::{SHARE_BYTES, Share};
use crate::protection::{ClientId, ProtectionError};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A fresh signature key from the operating system's generator: a client's identity in the [`super::Roster`].
///
/// # Errors
/// [`ProtectionError::Input`] if the operating system has no randomness to give.
pub fn identity() -> Result<SigningKey, ProtectionError> {
    Ok(SigningKey::from_bytes(&*entropy()?))
}

/// The signature key of a secret that was kept.
pub fn signing_key(secret: [u8; 32]) -> SigningKey {
    SigningKey::from_bytes(&secret)
}

/// 32 bytes from the operating system.
pub(crate) fn entropy() -> Result<Zeroizing<[u8; 32]>, ProtectionError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|e| {
        ProtectionError::input(
            STAGE,
            format!("the operating system gives no randomness: {e}"),
            "see its log",
        )
    })?;
    Ok(seed)
}

/// `HKDF-SHA256(X25519(own, other))` with the round as salt and `purpose` and the pair as info.
pub(crate) fn pair_key(
    own: &StaticSecret,
    own_id: ClientId,
    other: &[u8; 32],
    other_id: ClientId,
    config: &RoundConfig,
    purpose: &[u8],
) -> Result<Zeroizing<[u8; 32]>, ProtectionError> {
    let shared = own.diffie_hellman(&PublicKey::from(*other));
    if !shared.was_contributory() {
        return Err(ProtectionError::Cheating {
            stage: STAGE,
            problem: format!(
                "the public key of client {other_id} is a point of small order, which would make the mask known"
            ),
        });
    }
    let mut salt = [0; 24];
    salt[..16].copy_from_slice(&config.session);
    salt[16..].copy_from_slice(&config.round.to_le_bytes());
    let mut info = purpose.to_vec();
    info.extend(own_id.min(other_id).to_le_bytes());
    info.extend(own_id.max(other_id).to_le_bytes());
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(&salt), shared.as_bytes())
        .expand(&info, key.as_mut_slice())
        .expect("32 bytes are below HKDF's limit of 255 blocks");
    Ok(key)
}

/// Info string of pairwise masks.
pub(crate) const MASK: &[u8] = b"tacit secure aggregation pairwise mask 1";
/// Info string of the channel that carries shares.
pub(crate) const CHANNEL: &[u8] = b"tacit secure aggregation share channel 1";

/// What a dealer gives one member: a share of its mask key and one of its self-mask seed.
pub(crate) struct SharePair {
    pub mask_key: Share,
    pub seed: Share,
}

/// The commitment `SHA-256(kind ‖ owner ‖ holder ‖ share)`; a share has 305 bits of entropy, so that it hides.
pub(crate) fn share_commitment(
    kind: u8,
    owner: ClientId,
    holder: ClientId,
    share: &Share,
) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"tacit secure aggregation share 1");
    hash.update([kind]);
    hash.update(owner.to_le_bytes());
    hash.update(holder.to_le_bytes());
    hash.update(share.to_bytes());
    hash.finalize().into()
}

/// The commitment to a self-mask seed.
pub(crate) fn seed_commitment(owner: ClientId, seed: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"tacit secure aggregation seed 1");
    hash.update(owner.to_le_bytes());
    hash.update(seed);
    hash.finalize().into()
}

/// The associated data of a share on its way.
fn associated(digest: &[u8; 32], from: ClientId, to: ClientId) -> Vec<u8> {
    let mut out = digest.to_vec();
    out.extend(from.to_le_bytes());
    out.extend(to.to_le_bytes());
    out
}

/// A nonce for the direction: one key serves a pair for one round, with one message each way.
fn nonce(from: ClientId, to: ClientId) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&from.to_le_bytes());
    nonce[4..8].copy_from_slice(&to.to_le_bytes());
    nonce.into()
}

/// Encrypts a pair of shares (ChaCha20-Poly1305).
pub(crate) fn seal(
    key: &[u8; 32],
    digest: &[u8; 32],
    from: ClientId,
    to: ClientId,
    shares: &SharePair,
) -> Vec<u8> {
    let mut plain = Zeroizing::new(shares.mask_key.to_bytes().to_vec());
    plain.extend(shares.seed.to_bytes());
    ChaCha20Poly1305::new(&Key::from(*key))
        .encrypt(
            &nonce(from, to),
            Payload {
                msg: &plain,
                aad: &associated(digest, from, to),
            },
        )
        .expect("a short message in memory")
}

/// Decrypts a pair of shares; `None` if the tag or the form is wrong.
pub(crate) fn open(
    key: &[u8; 32],
    digest: &[u8; 32],
    from: ClientId,
    to: ClientId,
    sealed: &[u8],
) -> Option<SharePair> {
    let plain = Zeroizing::new(
        ChaCha20Poly1305::new(&Key::from(*key))
            .decrypt(
                &nonce(from, to),
                Payload {
                    msg: sealed,
                    aad: &associated(digest, from, to),
                },
            )
            .ok()?,
    );
    if plain.len() != 2 * SHARE_BYTES {
        return None;
    }
    Some(SharePair {
        mask_key: Share::from_bytes(&plain[..SHARE_BYTES])?,
        seed: Share::from_bytes(&plain[SHARE_BYTES..])?,
    })
}
