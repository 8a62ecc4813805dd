//! Signed payloads: what a client signs and what the coordinator accepts, and the keys of a run with all parties in this process.

use ed25519_dalek::SigningKey;

use crate::FederatedError;
use crate::protection::ClientId;
use crate::protection::secure_aggregation::{Roster, identity};
use crate::protection::signing::{Envelope, ReplayGuard, open, seal};

/// What a payload is.
const PURPOSE: &str = "update";

/// Every client's signature key, and the coordinator's list of their public halves.
#[derive(Debug)]
pub(super) struct Signer {
    keys: Vec<SigningKey>,
    roster: Roster,
    session: [u8; 16],
}

impl Signer {
    /// Fresh keys.
    pub fn new(clients: usize, session: [u8; 16]) -> Result<Self, FederatedError> {
        let keys = (0..clients)
            .map(|_| identity())
            .collect::<Result<Vec<_>, _>>()?;
        let roster = Roster::new(
            keys.iter()
                .enumerate()
                .map(|(i, k)| (i as ClientId, k.verifying_key())),
        );
        Ok(Self {
            keys,
            roster,
            session,
        })
    }

    /// A client's payload of a round (from 0), signed.
    pub fn seal(
        &self,
        client: usize,
        round: usize,
        payload: &[u8],
    ) -> Result<Vec<u8>, FederatedError> {
        seal_as(&self.keys[client], self.session, client, round, payload)
    }

    /// The payload, if this client signed it for this round.
    ///
    /// # Errors
    /// [`FederatedError::Protection`] for a forged, changed or replayed one.
    pub fn open<'b>(
        &self,
        sealed: &'b [u8],
        client: usize,
        round: usize,
    ) -> Result<&'b [u8], FederatedError> {
        open_from(&self.roster, self.session, sealed, client, round)
    }
}

/// A client's payload of a round (from 0), signed with its key.
pub(super) fn seal_as(
    key: &SigningKey,
    session: [u8; 16],
    client: usize,
    round: usize,
    payload: &[u8],
) -> Result<Vec<u8>, FederatedError> {
    let envelope = Envelope {
        session,
        round: round as u64 + 1,
        client: client as ClientId,
        purpose: PURPOSE.into(),
    };
    Ok(seal(&envelope, payload, key)?)
}

/// The payload, if this client signed it for this round of this run.
///
/// # Errors
/// [`FederatedError::Protection`] for a forged, changed or replayed one.
pub(super) fn open_from<'b>(
    roster: &Roster,
    session: [u8; 16],
    sealed: &'b [u8],
    client: usize,
    round: usize,
) -> Result<&'b [u8], FederatedError> {
    let (envelope, payload) = open(sealed, roster)?;
    // Rounds follow one another, so a guard that has seen the round before refuses all older ones.
    let mut guard = ReplayGuard::new(session);
    if round > 0 {
        guard.admit(&Envelope {
            round: round as u64,
            ..envelope.clone()
        })?;
    }
    guard.admit(&envelope)?;
    let right = (client as ClientId, round as u64 + 1, PURPOSE);
    if (envelope.client, envelope.round, envelope.purpose.as_str()) != right {
        return Err(FederatedError::format(
            format!("payload of client {client}"),
            format!(
                "it is signed by client {} for round {}",
                envelope.client, envelope.round
            ),
            "it is not accepted for another",
        ));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_payload_of_the_right_round_is_opened() {
        let s = Signer::new(3, [1; 16]).unwrap();
        let sealed = s.seal(1, 4, b"content").unwrap();
        assert_eq!(s.open(&sealed, 1, 4).unwrap(), b"content");
        assert!(s.open(&sealed, 1, 5).is_err(), "a replay");
        assert!(s.open(&sealed, 2, 4).is_err(), "another client's");
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(s.open(&changed, 1, 4).is_err());
        let other = Signer::new(3, [1; 16]).unwrap();
        assert!(other.open(&sealed, 1, 4).is_err(), "other keys");
    }
}
