//! How large messages may be, and what keeps a sender from making a receiver allocate more.
//!
//! Flower cuts arrays into chunks of 5 MiB, so that protobuf's limit of 2 GiB concerns single objects only and a message could be of any size. Here a
//! message has a largest size, [`MESSAGE`], whichever end reads or writes it, and a coordinator gives each answer only the room that its question
//! warrants. What a message says of itself is not believed: bytes are counted as they come, *before* they are kept, and what they unfold to (an array may
//! name one chunk a thousand times) before it is unfolded.
//!
//! | bound | where |
//! | --- | --- |
//! | an answer of the SuperLink: [`OBJECT`], less when less room is left | by its `content-length` before a byte is read, and while reading |
//! | a message: [`MESSAGE`] or what its question warrants | while its objects come, and again before they unfold: at most twice the bound at one time |
//! | messages that are sent: [`MESSAGE`] | before their objects are made |
//! | answers: one to each question | a second one is not fetched |

use crate::FederatedError;

/// Largest message in bytes: 2 GiB, above which protobuf and `flwr` themselves (gRPC) end.
pub const MESSAGE: u64 = 1 << 31;
/// Largest answer of a SuperLink that is read: an object of 5 MiB with its frame, or a long list of messages.
pub const OBJECT: u64 = 64 << 20;
/// What an entry of a list may take in memory for each of its bytes: the smallest has two and becomes a structure of less than 128.
pub const PER_BYTE: u64 = 64;

/// A [`FederatedError::TooLarge`].
pub(super) fn too_large(what: &str, bytes: u64, limit: u64, remedy: &str) -> FederatedError {
    FederatedError::TooLarge {
        what: what.to_owned(),
        bytes,
        limit,
        remedy: remedy.to_owned(),
    }
}

/// Refuses what is larger than `limit` bytes.
///
/// # Errors
/// [`FederatedError::TooLarge`].
pub fn check(what: &str, bytes: u64, limit: u64, remedy: &str) -> Result<(), FederatedError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(too_large(what, bytes, limit, remedy))
}

/// Room for a message that is read: what has been taken of it.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    limit: u64,
    taken: u64,
}

impl Room {
    /// Room for `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, taken: 0 }
    }

    /// Takes this many bytes, before they are allocated.
    ///
    /// # Errors
    /// [`FederatedError::TooLarge`] when there is not so much left.
    pub fn take(&mut self, bytes: u64) -> Result<(), FederatedError> {
        let taken = self.taken.saturating_add(bytes);
        check(
            "message from the other side",
            taken,
            self.limit,
            "it is not read any further and its sender is left out; settings that differ between the machines make messages of other sizes",
        )?;
        self.taken = taken;
        Ok(())
    }

    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.limit - self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ends_at_its_limit_and_sums_do_not_wrap() {
        let mut room = Room::new(100);
        room.take(60).unwrap();
        let e = room.take(41).unwrap_err().to_string();
        assert!(e.contains("101 bytes") && e.contains("at most 100"), "{e}");
        // What was refused has not been taken.
        assert_eq!(room.left(), 40);
        room.take(40).unwrap();
        assert!(room.take(u64::MAX).is_err());
        assert!(check("x", MESSAGE, MESSAGE, "").is_ok());
        let e = check("the model", 3 << 30, MESSAGE, "train less").unwrap_err();
        assert_eq!(
            e.to_string(),
            "the model: 3221225472 bytes (3.0 GiB) in one message, at most 2147483648 (2.0 GiB); train less"
        );
    }
}
