//! The bytes that client and server exchange: a short head and then wire frames of the engine.
//!
//! ```text
//! offset  bytes
//!      0      4  "TSES"
//!      4      1  version (1)
//!      5      1  type: 1 switching key, 2 keys of the ternary products, 3 prompt, 4 answer
//!      6      2  number of frames, little-endian
//!      8      …  frames (see tacit_ckks::wire): each with its own length, parameter fingerprint, key name and checksum
//! ```

use std::sync::Arc;

use tacit_ckks::{
    Ciphertext, Context, Evaluator, KeyId, SeededCiphertext, SwitchingKey,
    mlwe::{MlweKeys, RepackKey, RingSwitchKey},
    wire::{Reader, WireObject, Writer},
};

use crate::{EnsiError, model::ANSWER_LEVEL, plan::Plan};

/// Type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A switching key.
    SwitchingKey,
    /// Ring-switch and repack keys.
    MlweKeys,
    /// An encrypted prompt.
    Prompt,
    /// An encrypted answer.
    Answer,
}

impl Kind {
    const ALL: [Kind; 4] = [
        Kind::SwitchingKey,
        Kind::MlweKeys,
        Kind::Prompt,
        Kind::Answer,
    ];

    fn code(self) -> u8 {
        self as u8 + 1
    }

    fn name(self) -> &'static str {
        match self {
            Kind::SwitchingKey => "switching key",
            Kind::MlweKeys => "keys of the ternary products",
            Kind::Prompt => "prompt",
            Kind::Answer => "answer",
        }
    }
}

/// A key as the server takes it.
pub enum Key {
    /// Relinearisation, Galois or ModRaise.
    Switching(SwitchingKey),
    /// Ring switch and repack.
    Mlwe(MlweKeys),
}

const MAGIC: &[u8; 4] = b"TSES";
const VERSION: u8 = 1;
const HEAD: usize = 8;
/// More frames than any message has.
const MAX_FRAMES: usize = 4096;

fn start(kind: Kind, frames: usize) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[VERSION, kind.code()]);
    bytes.extend_from_slice(&(frames as u16).to_le_bytes());
    bytes
}

fn write<T: WireObject>(
    kind: Kind,
    objects: &[T],
    context: &Arc<Context>,
    id: KeyId,
) -> Result<Vec<u8>, EnsiError> {
    let mut bytes = start(kind, objects.len());
    let mut writer = Writer::new(context, id, &mut bytes);
    for object in objects {
        writer.write(object)?;
    }
    Ok(bytes)
}

/// Kind, number of frames, and the frames.
fn head(bytes: &[u8]) -> Result<(Kind, usize, &[u8]), EnsiError> {
    let refuse = |what: String| Err(EnsiError::Message(what));
    if bytes.len() < HEAD {
        return refuse(format!(
            "{} bytes are too few for a message; it was cut off",
            bytes.len()
        ));
    }
    let (head, frames) = bytes.split_at(HEAD);
    if &head[..4] != MAGIC {
        return refuse("it does not begin with TSES; this is no session message".into());
    }
    if head[4] != VERSION {
        return refuse(format!(
            "version {} of the session format, this program speaks {VERSION}; use the same release on both sides",
            head[4]
        ));
    }
    let Some(kind) = Kind::ALL.into_iter().find(|k| k.code() == head[5]) else {
        return refuse(format!("unknown type {}", head[5]));
    };
    let count = usize::from(u16::from_le_bytes([head[6], head[7]]));
    if count == 0 || count > MAX_FRAMES {
        return refuse(format!("{count} frames in a {}", kind.name()));
    }
    Ok((kind, count, frames))
}

fn read<T: WireObject>(
    mut frames: &[u8],
    count: usize,
    context: &Arc<Context>,
    id: Option<KeyId>,
) -> Result<(Vec<T>, Option<KeyId>), EnsiError> {
    let mut reader = Reader::new(context, id, &mut frames);
    let objects = (0..count)
        .map(|_| reader.read::<T>())
        .collect::<Result<Vec<_>, _>>()?;
    let id = reader.key_id();
    finished(frames)?;
    Ok((objects, id))
}

fn finished(rest: &[u8]) -> Result<(), EnsiError> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(EnsiError::Message(format!(
        "{} bytes follow the last frame",
        rest.len()
    )))
}

fn expect(found: Kind, expected: Kind) -> Result<(), EnsiError> {
    if found == expected {
        return Ok(());
    }
    Err(EnsiError::Message(format!(
        "a {} where a {} is expected",
        found.name(),
        expected.name()
    )))
}

/// A message with one switching key.
pub fn write_switching(key: &SwitchingKey, context: &Arc<Context>) -> Result<Vec<u8>, EnsiError> {
    write(
        Kind::SwitchingKey,
        std::slice::from_ref(key),
        context,
        key.id(),
    )
}

/// A message with the keys of the ternary products.
pub fn write_mlwe(keys: &MlweKeys, context: &Arc<Context>) -> Result<Vec<u8>, EnsiError> {
    let mut bytes = start(Kind::MlweKeys, 2);
    let mut writer = Writer::new(context, keys.id(), &mut bytes);
    writer.write(keys.ring_switch())?;
    writer.write(keys.repack())?;
    Ok(bytes)
}

/// A key message; `id` is the name of the client's key set once known.
///
/// # Errors
/// Anything that is not one key of this context and client.
pub fn read_key(
    bytes: &[u8],
    context: &Arc<Context>,
    id: Option<KeyId>,
) -> Result<(Key, Option<KeyId>), EnsiError> {
    let (kind, count, frames) = head(bytes)?;
    let mut rest = frames;
    let mut reader = Reader::new(context, id, &mut rest);
    let key = match (kind, count) {
        (Kind::SwitchingKey, 1) => Key::Switching(reader.read()?),
        (Kind::MlweKeys, 2) => {
            let (ring_switch, repack): (RingSwitchKey, RepackKey) =
                (reader.read()?, reader.read()?);
            Key::Mlwe(MlweKeys::new(ring_switch, repack)?)
        }
        (other, count) => {
            return Err(EnsiError::Message(format!(
                "a {} of {count} frames where a key is expected",
                other.name()
            )));
        }
    };
    let id = reader.key_id();
    finished(rest)?;
    Ok((key, id))
}

/// An encrypted prompt.
pub fn write_prompt(
    ciphertexts: &[SeededCiphertext],
    context: &Arc<Context>,
    id: KeyId,
) -> Result<Vec<u8>, EnsiError> {
    write(Kind::Prompt, ciphertexts, context, id)
}

/// Reads an encrypted prompt under the key set `id`.
///
/// # Errors
/// A message that is no prompt, of other parameters or of another client.
pub fn read_prompt(
    bytes: &[u8],
    context: &Arc<Context>,
    id: Option<KeyId>,
) -> Result<Vec<Ciphertext>, EnsiError> {
    let (kind, count, frames) = head(bytes)?;
    expect(kind, Kind::Prompt)?;
    let (seeded, _) = read::<SeededCiphertext>(frames, count, context, id)?;
    Ok(seeded
        .iter()
        .map(|ct| context.expand(ct))
        .collect::<Result<Vec<_>, _>>()?)
}

/// Checks that a prompt has the ciphertexts that a plan wants.
///
/// # Errors
/// Another number of ciphertexts, another level or scale.
pub fn check_prompt(x: &[Ciphertext], plan: &Plan, scale: f64) -> Result<(), EnsiError> {
    if x.len() != plan.input_ciphertexts {
        return Err(EnsiError::Message(format!(
            "the prompt has {} ciphertexts, expected {}",
            x.len(),
            plan.input_ciphertexts
        )));
    }
    for ct in x {
        if ct.level != plan.input_level
            || ct.parts.len() != 2
            || (ct.scale / scale - 1.0).abs() > 1e-9
        {
            return Err(EnsiError::Message(format!(
                "a prompt ciphertext at level {} with scale 2^{:.3}; expected level {} and scale 2^{:.3}: use the key plan of this model",
                ct.level,
                ct.scale.log2(),
                plan.input_level,
                scale.log2()
            )));
        }
    }
    Ok(())
}

/// An encrypted answer of ciphertexts at any level, brought to the level at which answers leave.
///
/// # Errors
/// A ciphertext below [`ANSWER_LEVEL`].
pub fn write_low_answer(
    ciphertexts: &[Ciphertext],
    context: &Arc<Context>,
    id: KeyId,
) -> Result<Vec<u8>, EnsiError> {
    let evaluator = Evaluator::new(context.clone());
    let low = ciphertexts
        .iter()
        .map(|ct| evaluator.drop_to_level(ct, ANSWER_LEVEL))
        .collect::<Result<Vec<_>, _>>()?;
    write_answer(&low, context, id)
}

/// An encrypted answer.
pub fn write_answer(
    ciphertexts: &[Ciphertext],
    context: &Arc<Context>,
    id: KeyId,
) -> Result<Vec<u8>, EnsiError> {
    write(Kind::Answer, ciphertexts, context, id)
}

/// Reads an encrypted answer to the key set `id`.
///
/// # Errors
/// A message that is no answer, of other parameters or to another client.
pub fn read_answer(
    bytes: &[u8],
    context: &Arc<Context>,
    id: KeyId,
) -> Result<Vec<Ciphertext>, EnsiError> {
    let (kind, count, frames) = head(bytes)?;
    expect(kind, Kind::Answer)?;
    Ok(read(frames, count, context, Some(id))?.0)
}
