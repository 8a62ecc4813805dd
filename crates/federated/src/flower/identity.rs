//! A node's key and the headers that prove it: ECDSA on P-384 with SHA-256 over the time, as Flower's Fleet service wants them.
//!
//! The signature covers neither path nor content: whoever records a request can send others in the node's name for five minutes. Against that TLS helps
//! on the way, and end-to-end signatures ([`crate::protection::signing`]) behind it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p384::ecdsa::signature::hazmat::PrehashSigner;
use p384::ecdsa::{DerSignature, Signature, SigningKey};
use p384::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::FederatedError;
use crate::tensors::write_atomically;

/// A node's key pair.
pub struct NodeKey {
    secret: SigningKey,
    public_pem: String,
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeKey").finish_non_exhaustive()
    }
}

fn bad(what: impl ToString, remedy: &str) -> FederatedError {
    FederatedError::format("node key", what.to_string(), remedy)
}

impl NodeKey {
    fn of(secret: SigningKey) -> Result<Self, FederatedError> {
        let public_pem = secret
            .verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .map_err(|e| bad(e, "report this"))?;
        Ok(Self { secret, public_pem })
    }

    /// A fresh key from the operating system's randomness.
    ///
    /// # Errors
    /// [`FederatedError::Format`] when there is none.
    pub fn generate() -> Result<Self, FederatedError> {
        // A random string of the field's size is a key, but for a chance of one in 2^190.
        let mut bytes = Zeroizing::new([0u8; 48]);
        for _ in 0..4 {
            getrandom::fill(bytes.as_mut_slice())
                .map_err(|e| bad(e, "the operating system must give randomness"))?;
            if let Ok(secret) = SigningKey::from_slice(bytes.as_slice()) {
                return Self::of(secret);
            }
        }
        Err(bad("no key could be drawn", "try again"))
    }

    /// The key in a PEM file (PKCS#8, or SEC 1 as OpenSSL writes it), made and written if there is none. The file is readable by its owner only.
    ///
    /// # Errors
    /// [`FederatedError::Io`], and [`FederatedError::Format`] for a file that is no P-384 key.
    pub fn from_file(path: &Path) -> Result<Self, FederatedError> {
        if !path.exists() {
            let key = Self::generate()?;
            let pem = key
                .secret
                .to_pkcs8_pem(LineEnding::LF)
                .map_err(|e| bad(e, "report this"))?;
            write_atomically(path, pem.as_bytes())?;
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let only_owner = std::fs::Permissions::from_mode(0o600);
                std::fs::set_permissions(path, only_owner)
                    .map_err(|e| FederatedError::io(path, e))?;
            }
            return Ok(key);
        }
        let text =
            Zeroizing::new(std::fs::read_to_string(path).map_err(|e| FederatedError::io(path, e))?);
        let secret = SigningKey::from_pkcs8_pem(&text).map_err(|e| {
            FederatedError::format(
                path.display().to_string(),
                format!("it is no P-384 key in PEM form ({e})"),
                "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`, or name a file that is not there",
            )
        })?;
        Self::of(secret)
    }

    /// The public half, as PEM.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// The public half in OpenSSH's form, which `flwr supernode register` reads.
    pub fn public_openssh(&self) -> String {
        let point = self.secret.verifying_key().to_sec1_point(false);
        let mut blob = Vec::new();
        for part in [
            b"ecdsa-sha2-nistp384".as_slice(),
            b"nistp384",
            point.as_bytes(),
        ] {
            blob.extend((part.len() as u32).to_be_bytes());
            blob.extend(part);
        }
        format!("ecdsa-sha2-nistp384 {}", STANDARD.encode(blob))
    }

    /// The three headers of a request sent now.
    ///
    /// # Errors
    /// [`FederatedError::Format`] when signing fails.
    pub fn headers(&self) -> Result<[(&'static str, String); 3], FederatedError> {
        let time = timestamp(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_micros(),
        );
        let hash = Sha256::digest(time.as_bytes());
        let signature: Signature = self
            .secret
            .sign_prehash(&hash)
            .map_err(|e| bad(e, "report this"))?;
        let der: DerSignature = signature.to_der();
        Ok([
            ("flwr-public-key", STANDARD.encode(&self.public_pem)),
            ("flwr-timestamp", time),
            ("flwr-signature", STANDARD.encode(der.as_bytes())),
        ])
    }
}

/// Microseconds since 1970 as ISO 8601 in UTC (days to dates by Hinnant's algorithm).
fn timestamp(micros: u128) -> String {
    let seconds = (micros / 1_000_000) as i64;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}+00:00",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        micros % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use p384::ecdsa::signature::hazmat::PrehashVerifier;

    #[test]
    fn times_are_dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(
            timestamp(1_709_210_096_000_007),
            "2024-02-29T12:34:56.000007+00:00"
        );
        assert_eq!(
            timestamp(4_102_444_799_999_999),
            "2099-12-31T23:59:59.999999+00:00"
        );
    }

    #[test]
    fn keys_are_kept_and_their_headers_verify() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.pem");
        let key = NodeKey::from_file(&path).unwrap();
        let again = NodeKey::from_file(&path).unwrap();
        assert_eq!(key.public_pem(), again.public_pem());
        assert!(key.public_pem().starts_with("-----BEGIN PUBLIC KEY-----"));
        assert!(key.public_openssh().starts_with("ecdsa-sha2-nistp384 AAAA"));
        let [public, time, signature] = again.headers().unwrap();
        assert_eq!(
            STANDARD.decode(public.1).unwrap(),
            key.public_pem().as_bytes()
        );
        let signature = Signature::from_der(&STANDARD.decode(signature.1).unwrap()).unwrap();
        let hash = Sha256::digest(time.1.as_bytes());
        assert!(
            key.secret
                .verifying_key()
                .verify_prehash(&hash, &signature)
                .is_ok()
        );
        std::fs::write(&path, "nonsense").unwrap();
        assert!(NodeKey::from_file(&path).is_err());
    }
}
