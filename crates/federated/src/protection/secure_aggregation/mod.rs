//! Secure aggregation with double masking: the coordinator learns a sum modulo `2^k`, and nothing of any one client.
//!
//! Protocol of Bonawitz et al., *Practical Secure Aggregation for Privacy-Preserving Machine Learning* (CCS 2017, figure 4, the variant
//! against a lying server), optionally on a sparse graph of neighbours (Bell et al., CCS 2020). With `s_uv` the X25519 secret of `u` and `v`,
//! `PRG` ChaCha20 and `b_u` a fresh seed, client `u` sends
//!
//! ```text
//! y_u = x_u + PRG(b_u) + Σ_{v > u} PRG(HKDF(s_uv)) − Σ_{v < u} PRG(HKDF(s_uv))      (mod 2^k)
//! ```
//!
//! | step | client sends | coordinator sends |
//! | --- | --- | --- |
//! | 1 | two public keys, signed | all key entries (set `U1`) |
//! | 2 | Shamir shares of its mask key and of `b_u`, encrypted to each neighbour; commitments | the shares for each client (`U2`) |
//! | 3 | `y_u` | who sent `y` (`U3`) |
//! | 4 | a signature of `U3` | all these signatures (`U4`) |
//! | 5 | for `v ∈ U3` its share of `b_v`, for `v ∈ U2∖U3` its share of `v`'s mask key | |
//!
//! A client opens one kind of share of any other client, never both, and does so only after `t` signatures show that everyone was told the
//! same `U3`. Shares are committed to by the dealer (SHA-256), so that a client that opens a wrong one is found and ignored, not believed.
//!
//! **Assumptions.** Every client knows the signature keys of all others from elsewhere than the coordinator ([`Roster`]); Diffie-Hellman on
//! Curve25519, HKDF-SHA256 as a random oracle, ChaCha20, ChaCha20-Poly1305 and Ed25519 are secure; coordinator and fewer than `2t − n`
//! clients together (n enrolled, t threshold) learn the sum of the honest survivors only. **Not promised:** that a client's input is sensible (any
//! vector modulo `2^k` can be sent; what comes out of range is refused, what is in range is not seen), that the round ends when the
//! coordinator or too many clients refuse, and privacy of the sum itself (add differential privacy for that).
//!
//! ```
//! use tacit_federated::protection::secure_aggregation::{Client, FixedPoint, RoundConfig, Roster, Server, identity};
//! let ids = [1, 2, 3, 4];
//! let keys: Vec<_> = ids.iter().map(|_| identity().unwrap()).collect();
//! let roster = Roster::new(ids.iter().zip(&keys).map(|(&id, k)| (id, k.verifying_key())));
//! let config = RoundConfig::complete([7; 16], 1, 3, 24, &roster);
//! let codec = FixedPoint::new(24, 1.0, ids.len()).unwrap();
//! let mut clients: Vec<Client> = ids.iter().zip(&keys).map(|(&id, key)| {
//!     let input = codec.encode(&[0.1 * id as f32, -0.25, 0.5]).unwrap();
//!     Client::new(config.clone(), roster.clone(), id, key.clone(), input).unwrap()
//! }).collect();
//! let mut server = Server::new(config, roster).unwrap();
//! for client in &mut clients { server.receive(&client.advertise().unwrap()).unwrap(); }
//! for _ in 0..4 {
//!     for (to, message) in server.advance().unwrap() {
//!         let client = clients.iter_mut().find(|c| c.id() == to).unwrap();
//!         server.receive(&client.receive(&message).unwrap()).unwrap();
//!     }
//! }
//! let sum = server.finish().unwrap();
//! let mean = codec.decode_sum(&sum.values, 4).unwrap();
//! assert!((mean[0] - 1.0).abs() < 1e-4 && (mean[1] + 1.0).abs() < 1e-4);
//! ```

mod client;
mod config;
mod fixed_point;
mod keys;
mod mask;
mod message;
mod server;
mod shamir;
#[cfg(test)]
mod tests;
pub(crate) mod two_lists;
mod uniformity;

pub use client::Client;
pub use config::{Graph, Roster, RoundConfig};
pub use ed25519_dalek::SigningKey;
pub use fixed_point::FixedPoint;
pub use keys::{identity, signing_key};
pub use mask::{pack_bits, unpack_bits};
pub use server::{SecureSum, Server, ServerPhase};
pub use shamir::{SECRET_BYTES, SHARE_BYTES, Share, recover, split};
pub use uniformity::{Uniformity, uniformity};

/// Name of the stage in errors.
pub(crate) const STAGE: &str = "secure aggregation";
