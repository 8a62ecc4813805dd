//! The wire format: how objects become bytes in files and messages.
//!
//! Every object is one *frame*:
//!
//! ```text
//! offset  bytes
//!      0      4  "TACT"
//!      4      2  format version (1), little-endian like all numbers
//!      6      1  kind of object
//!      7      1  0
//!      8     32  fingerprint of the parameters
//!     40     16  name of the secret key the object belongs to (zero if none)
//!     56      8  length of the content
//!     64      …  content
//!      …     32  BLAKE3 of all bytes before
//! ```
//!
//! Residues are packed at the bit width of their prime and checked to be below it; uniform halves are sent as their 32-byte seeds. A frame's
//! length is checked against the largest possible one of its kind before anything is allocated. The checksum finds accidents, not forgery.
//! A set of evaluation keys is a short frame with their number and then one frame per key, so that neither side needs more than one key in
//! a second form.

mod body;
mod objects;
mod pack;

pub use body::{BodyReader, BodyWriter, poly_len};

use crate::context::Context;
use crate::error::CkksError;
use crate::key_generator::short_hex;
use crate::keys::{EvaluationKeys, KeyId, SwitchingKey};
use crate::parameters::{InsecureParameters, Parameters, ParametersLiteral};
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use zeroize::Zeroize;

/// Version of the format written and read.
pub const VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"TACT";
const HEADER: usize = 64;
const NO_KEY: KeyId = KeyId([0; 16]);

/// A kind of object: the byte in the header and the name in messages. Codes from 64 up are free for other crates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The byte in the header.
    pub code: u8,
    /// The name in messages.
    pub name: &'static str,
}

impl Kind {
    /// A parameter set.
    pub const PARAMETERS: Self = Self {
        code: 1,
        name: "parameter file",
    };
    /// A [`crate::SecretKey`].
    pub const SECRET_KEY: Self = Self {
        code: 2,
        name: "secret key",
    };
    /// A [`crate::PublicKey`].
    pub const PUBLIC_KEY: Self = Self {
        code: 3,
        name: "public key",
    };
    /// A [`SwitchingKey`].
    pub const SWITCHING_KEY: Self = Self {
        code: 4,
        name: "switching key",
    };
    /// The head of a set of evaluation keys.
    pub const KEY_SET: Self = Self {
        code: 5,
        name: "evaluation key set",
    };
    /// A [`crate::Plaintext`].
    pub const PLAINTEXT: Self = Self {
        code: 6,
        name: "plaintext",
    };
    /// A [`crate::Ciphertext`].
    pub const CIPHERTEXT: Self = Self {
        code: 7,
        name: "ciphertext",
    };
    /// A [`crate::SeededCiphertext`].
    pub const SEEDED_CIPHERTEXT: Self = Self {
        code: 8,
        name: "seeded ciphertext",
    };
    /// A ring-switch key of the MLWE side.
    pub const RING_SWITCH_KEY: Self = Self {
        code: 9,
        name: "ring-switch key",
    };
    /// A repack key of the MLWE side.
    pub const REPACK_KEY: Self = Self {
        code: 10,
        name: "repack key",
    };

    fn name_of(code: u8) -> String {
        const ALL: [Kind; 10] = [
            Kind::PARAMETERS,
            Kind::SECRET_KEY,
            Kind::PUBLIC_KEY,
            Kind::SWITCHING_KEY,
            Kind::KEY_SET,
            Kind::PLAINTEXT,
            Kind::CIPHERTEXT,
            Kind::SEEDED_CIPHERTEXT,
            Kind::RING_SWITCH_KEY,
            Kind::REPACK_KEY,
        ];
        ALL.iter()
            .find(|k| k.code == code)
            .map_or_else(|| format!("object of kind {code}"), |k| k.name.into())
    }
}

/// An object with a wire form.
pub trait WireObject: Sized {
    /// Its kind.
    const KIND: Kind;

    /// Whether its bytes are secret: buffers are then wiped after use.
    const SECRET: bool = false;

    /// The largest possible content in bytes.
    fn max_len(ctx: &Context) -> u64;

    /// The key name inside the object, if it has one: writing it under another name is an error.
    fn key_id(&self) -> Option<KeyId> {
        None
    }

    /// Writes the content.
    ///
    /// # Errors
    /// [`CkksError::Shape`] if the object does not fit the writer's context.
    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError>;

    /// Reads the content. Must not panic, whatever the bytes.
    ///
    /// # Errors
    /// [`CkksError::Corrupt`].
    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError>;
}

/// Writes objects of one context and one secret key.
///
/// ```
/// use tacit_ckks::{Context, Encoder, InsecureParameters, KeyGenerator, ParametersLiteral, Plaintext, wire};
/// let ctx = Context::new(InsecureParameters::new(ParametersLiteral::levelled(10, 2, 1))?)?;
/// let secret = KeyGenerator::new(ctx.clone()).secret();
/// let mut bytes = Vec::new();
/// wire::Writer::new(&ctx, secret.id(), &mut bytes).write(&Encoder::new(ctx.clone()).encode_real(&[1.0], 1024.0, 1)?)?;
/// let back: Plaintext = wire::Reader::new(&ctx, Some(secret.id()), &bytes[..]).read()?;
/// assert_eq!(back.scale, 1024.0);
/// bytes.truncate(100);
/// assert!(wire::Reader::new(&ctx, None, &bytes[..]).read::<Plaintext>().is_err());
/// # Ok::<(), tacit_ckks::CkksError>(())
/// ```
pub struct Writer<'a, W> {
    ctx: &'a Arc<Context>,
    key: KeyId,
    sink: W,
}

impl<'a, W: Write> Writer<'a, W> {
    /// A writer of objects that belong to secret key `key`.
    pub fn new(ctx: &'a Arc<Context>, key: KeyId, sink: W) -> Self {
        Self { ctx, key, sink }
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// [`CkksError::ForeignKey`] for an object of another key, [`CkksError::Shape`] for one of another context, [`CkksError::Io`].
    pub fn write<T: WireObject>(&mut self, object: &T) -> Result<(), CkksError> {
        if let Some(id) = object.key_id().filter(|id| *id != self.key) {
            return Err(CkksError::ForeignKey {
                what: T::KIND.name,
                found: id.to_string(),
                expected: self.key.to_string(),
            });
        }
        let mut body = BodyWriter {
            ctx: self.ctx,
            bytes: Vec::new(),
        };
        object.encode(&mut body)?;
        let result = write_frame(
            &mut self.sink,
            T::KIND,
            &self.ctx.params().fingerprint(),
            self.key,
            &body.bytes,
        );
        if T::SECRET {
            body.bytes.zeroize();
        }
        result
    }

    /// Writes the head of a set of `count` keys; `count` calls of [`Self::write`] with the [`SwitchingKey`]s must follow, the relinearisation
    /// key first. So keys can be generated, written and dropped one by one.
    ///
    /// # Errors
    /// [`CkksError::Io`].
    pub fn key_set_head(&mut self, count: usize) -> Result<(), CkksError> {
        self.write(&KeySetHead(count))
    }

    /// Writes a whole set of evaluation keys.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn evaluation_keys(&mut self, keys: &EvaluationKeys) -> Result<(), CkksError> {
        self.key_set_head(1 + keys.galois.values().map(Vec::len).sum::<usize>())?;
        self.write(&keys.relinearisation)?;
        keys.galois
            .values()
            .flatten()
            .try_for_each(|key| self.write(key))
    }

    /// The sink.
    pub fn into_inner(self) -> W {
        self.sink
    }
}

/// Reads objects of one context and one secret key.
pub struct Reader<'a, R> {
    ctx: &'a Arc<Context>,
    key: Option<KeyId>,
    source: R,
}

impl<'a, R: Read> Reader<'a, R> {
    /// A reader. With a key name, objects of other keys are refused; without, the first frame sets the name for all that follow.
    pub fn new(ctx: &'a Arc<Context>, key: Option<KeyId>, source: R) -> Self {
        Self { ctx, key, source }
    }

    /// The key name expected, once known.
    pub fn key_id(&self) -> Option<KeyId> {
        self.key
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// [`CkksError::BadMagic`], [`CkksError::Version`], [`CkksError::WrongKind`], [`CkksError::ForeignParameters`], [`CkksError::ForeignKey`],
    /// [`CkksError::Truncated`], [`CkksError::Corrupt`] or [`CkksError::Io`]: never a panic.
    pub fn read<T: WireObject>(&mut self) -> Result<T, CkksError> {
        let what = T::KIND.name;
        let header = Header::read(&mut self.source, T::KIND)?;
        let fingerprint = self.ctx.params().fingerprint();
        if header.fingerprint != fingerprint {
            return Err(CkksError::ForeignParameters {
                what,
                found: short_hex(&header.fingerprint),
                expected: short_hex(&fingerprint),
            });
        }
        let expected = *self.key.get_or_insert(header.key);
        if header.key != expected {
            return Err(CkksError::ForeignKey {
                what,
                found: header.key.to_string(),
                expected: expected.to_string(),
            });
        }
        let mut bytes = header.content(&mut self.source, what, T::max_len(self.ctx), T::SECRET)?;
        let mut body = BodyReader {
            ctx: self.ctx,
            what,
            key: header.key,
            rest: &bytes,
        };
        let object = T::decode(&mut body);
        let left = body.rest.len();
        if T::SECRET {
            bytes.zeroize();
        }
        let object = object?;
        if left > 0 {
            return Err(CkksError::Corrupt {
                what,
                reason: format!("{left} bytes follow its content"),
            });
        }
        Ok(object)
    }

    /// Reads the head of a set of keys: how many [`SwitchingKey`] frames follow.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn key_set_head(&mut self) -> Result<usize, CkksError> {
        Ok(self.read::<KeySetHead>()?.0)
    }

    /// Reads a whole set of evaluation keys.
    ///
    /// # Errors
    /// As [`Self::read`]; [`CkksError::Corrupt`] if the keys are not one relinearisation key and Galois keys.
    pub fn evaluation_keys(&mut self) -> Result<EvaluationKeys, CkksError> {
        let corrupt = |reason: String| CkksError::Corrupt {
            what: Kind::KEY_SET.name,
            reason,
        };
        let count = self.key_set_head()?;
        let first: SwitchingKey = self.read()?;
        if first.role != crate::keys::KeyRole::Relinearisation {
            return Err(corrupt(format!(
                "its first key is a {}, not the relinearisation key",
                first.role
            )));
        }
        let mut keys = EvaluationKeys::new(first);
        for _ in 1..count {
            if let Some(other) = keys.insert(self.read()?) {
                return Err(corrupt(format!(
                    "it holds a {} among the Galois keys",
                    other.role
                )));
            }
        }
        Ok(keys)
    }
}

/// The number of keys in a set.
struct KeySetHead(usize);

impl WireObject for KeySetHead {
    const KIND: Kind = Kind::KEY_SET;

    fn max_len(_: &Context) -> u64 {
        4
    }

    fn encode(&self, body: &mut BodyWriter<'_>) -> Result<(), CkksError> {
        body.size(self.0);
        Ok(())
    }

    fn decode(body: &mut BodyReader<'_>) -> Result<Self, CkksError> {
        let count = body.size("number of keys", 1 << 20)?;
        if count == 0 {
            Err(body.corrupt("it holds no key"))
        } else {
            Ok(Self(count))
        }
    }
}

/// Writes a parameter set.
///
/// # Errors
/// [`CkksError::Io`].
pub fn write_parameters(params: &Parameters, mut sink: impl Write) -> Result<(), CkksError> {
    let mut content = vec![u8::from(params.is_insecure())];
    content.extend(params.literal().to_canonical_bytes());
    write_frame(
        &mut sink,
        Kind::PARAMETERS,
        &params.fingerprint(),
        NO_KEY,
        &content,
    )
}

/// Reads a parameter set and checks it anew, security ceilings included.
///
/// # Errors
/// Those of [`Reader::read`] and [`Parameters::new`]; a set marked insecure is refused.
pub fn read_parameters(source: impl Read) -> Result<Parameters, CkksError> {
    let (literal, insecure, fingerprint) = read_literal(source)?;
    if insecure {
        return Err(CkksError::InvalidParameters {
            field: "insecure",
            found: "a parameter set marked insecure (made for tests)".into(),
            expected: "a set with 128-bit security".into(),
        });
    }
    same_fingerprint(Parameters::new(literal)?, &fingerprint)
}

/// Like [`read_parameters`] without the ceilings: for tests. The result is marked insecure.
///
/// # Errors
/// Those of [`Reader::read`] and [`InsecureParameters::new`].
pub fn read_insecure_parameters(source: impl Read) -> Result<Parameters, CkksError> {
    let (literal, _, fingerprint) = read_literal(source)?;
    same_fingerprint(InsecureParameters::new(literal)?, &fingerprint)
}

fn read_literal(mut source: impl Read) -> Result<(ParametersLiteral, bool, [u8; 32]), CkksError> {
    let kind = Kind::PARAMETERS;
    let header = Header::read(&mut source, kind)?;
    let content = header.content(&mut source, kind.name, 4096, false)?;
    let literal = content
        .split_first()
        .and_then(|(&flag, rest)| Some((ParametersLiteral::from_canonical_bytes(rest)?, flag)));
    match literal {
        Some((literal, flag @ (0 | 1))) => Ok((literal, flag == 1, header.fingerprint)),
        _ => Err(CkksError::Corrupt {
            what: kind.name,
            reason: "its content is not a parameter literal".into(),
        }),
    }
}

fn same_fingerprint(params: Parameters, fingerprint: &[u8; 32]) -> Result<Parameters, CkksError> {
    if params.fingerprint() == *fingerprint {
        return Ok(params);
    }
    let (found, expected) = (short_hex(fingerprint), short_hex(&params.fingerprint()));
    Err(CkksError::ForeignParameters {
        what: Kind::PARAMETERS.name,
        found,
        expected,
    })
}

struct Header {
    bytes: [u8; HEADER],
    fingerprint: [u8; 32],
    key: KeyId,
    len: u64,
}

impl Header {
    fn read(source: &mut impl Read, kind: Kind) -> Result<Self, CkksError> {
        let what = kind.name;
        let mut bytes = [0; HEADER];
        let found = read_up_to(source, &mut bytes, what)?;
        if found >= 4 && bytes[..4] != MAGIC {
            return Err(CkksError::BadMagic {
                expected: what,
                found: [bytes[0], bytes[1], bytes[2], bytes[3]],
            });
        }
        if found < HEADER {
            return Err(CkksError::Truncated {
                what,
                found: found as u64,
                expected: HEADER as u64,
            });
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != VERSION {
            return Err(CkksError::Version {
                expected: what,
                found: version,
                supported: VERSION,
            });
        }
        if bytes[6] != kind.code {
            return Err(CkksError::WrongKind {
                expected: what,
                found: Kind::name_of(bytes[6]),
            });
        }
        if bytes[7] != 0 {
            return Err(CkksError::Corrupt {
                what,
                reason: "a reserved byte of its header is set".into(),
            });
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(&bytes[8..40]);
        let mut key = [0; 16];
        key.copy_from_slice(&bytes[40..56]);
        let mut len = [0; 8];
        len.copy_from_slice(&bytes[56..64]);
        Ok(Self {
            bytes,
            fingerprint,
            key: KeyId(key),
            len: u64::from_le_bytes(len),
        })
    }

    /// Reads and verifies what follows the header.
    fn content(
        &self,
        source: &mut impl Read,
        what: &'static str,
        max_len: u64,
        secret: bool,
    ) -> Result<Vec<u8>, CkksError> {
        if self.len > max_len {
            return Err(CkksError::Corrupt {
                what,
                reason: format!(
                    "it claims {} bytes of content, at most {max_len} are possible",
                    self.len
                ),
            });
        }
        // A claimed length is believed only as far as bytes arrive; a secret's buffer must not move, and is small.
        let mut content = Vec::with_capacity(if secret {
            self.len as usize
        } else {
            self.len.min(1 << 20) as usize
        });
        source
            .by_ref()
            .take(self.len)
            .read_to_end(&mut content)
            .map_err(|source| CkksError::Io { what, source })?;
        let expected = HEADER as u64 + self.len + 32;
        let mut found = HEADER as u64 + content.len() as u64;
        let mut checksum = [0; 32];
        if content.len() as u64 == self.len {
            found += read_up_to(source, &mut checksum, what)? as u64;
        }
        if found < expected {
            return Err(CkksError::Truncated {
                what,
                found,
                expected,
            });
        }
        if frame_hash(&self.bytes, &content) != checksum {
            return Err(CkksError::Corrupt {
                what,
                reason: "its checksum does not match its content".into(),
            });
        }
        Ok(content)
    }
}

fn frame_hash(header: &[u8; HEADER], content: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new()
        .update(header)
        .update(content)
        .finalize()
        .as_bytes()
}

fn write_frame(
    sink: &mut impl Write,
    kind: Kind,
    fingerprint: &[u8; 32],
    key: KeyId,
    content: &[u8],
) -> Result<(), CkksError> {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6] = kind.code;
    header[8..40].copy_from_slice(fingerprint);
    header[40..56].copy_from_slice(&key.0);
    header[56..].copy_from_slice(&(content.len() as u64).to_le_bytes());
    let checksum = frame_hash(&header, content);
    [&header[..], content, &checksum]
        .iter()
        .try_for_each(|part| sink.write_all(part))
        .map_err(|source| CkksError::Io {
            what: kind.name,
            source,
        })
}

/// Reads until the buffer is full or the source ends; how many bytes there were.
fn read_up_to(
    source: &mut impl Read,
    buffer: &mut [u8],
    what: &'static str,
) -> Result<usize, CkksError> {
    let mut found = 0;
    while found < buffer.len() {
        match source.read(&mut buffer[found..]) {
            Ok(0) => break,
            Ok(n) => found += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(CkksError::Io { what, source }),
        }
    }
    Ok(found)
}
