//! The GGUF container: metadata and tensor directory, read with every length checked against the file before it is believed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::BitnetError;

const DOWNLOAD_AGAIN: &str = "the file is damaged or incomplete: download it again";
/// Nested arrays deeper than this are damage.
const DEEPEST: usize = 4;
/// Longer arrays are damage: vocabularies have some hundred thousand entries.
const LONGEST_ARRAY: u64 = 1 << 22;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned or signed integer.
    Int(i128),
    /// Any float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text (bytes that are not UTF-8 are replaced).
    Text(String),
    /// An array.
    List(Vec<Value>),
}

/// Where a tensor lies and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Shape, outermost first (GGUF stores it innermost first).
    pub shape: Vec<usize>,
    /// ggml type number.
    pub kind: u32,
    /// First byte in the file.
    pub start: u64,
    /// Bytes to the next tensor or the end of the file.
    pub room: u64,
}

/// An opened GGUF file.
pub struct Gguf {
    path: PathBuf,
    /// Version of the container, 2 or 3.
    pub version: u32,
    /// Metadata.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
}

struct Input<R> {
    reader: R,
    left: u64,
    read: u64,
    file: String,
}

impl<R: Read> Input<R> {
    fn damaged(&self, problem: String) -> BitnetError {
        BitnetError::format(&self.file, problem, DOWNLOAD_AGAIN)
    }

    /// `n` bytes; refused before anything is allocated when the file has fewer.
    fn bytes(&mut self, n: u64, what: &str) -> Result<Vec<u8>, BitnetError> {
        if n > self.left {
            return Err(self.damaged(format!(
                "ends inside of {what} ({n} bytes announced, {} left)",
                self.left
            )));
        }
        let mut bytes = vec![0; n as usize];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|e| BitnetError::io(&self.file, e))?;
        self.left -= n;
        self.read += n;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], BitnetError> {
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32, BitnetError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, BitnetError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self, what: &str) -> Result<String, BitnetError> {
        let n = self.u64(what)?;
        Ok(String::from_utf8_lossy(&self.bytes(n, what)?).into_owned())
    }

    fn value(&mut self, kind: u32, key: &str, depth: usize) -> Result<Value, BitnetError> {
        Ok(match kind {
            0 => Value::Int(u8::from_le_bytes(self.array(key)?).into()),
            1 => Value::Int(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array(key)?).into()),
            4 => Value::Int(u32::from_le_bytes(self.array(key)?).into()),
            5 => Value::Int(i32::from_le_bytes(self.array(key)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            7 => Value::Bool(self.array::<1>(key)?[0] != 0),
            8 => Value::Text(self.text(key)?),
            9 if depth < DEEPEST => {
                let kind = self.u32(key)?;
                let n = self.u64(key)?;
                let least = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    8 | 10..=12 => 8,
                    _ => 12,
                };
                if n > LONGEST_ARRAY || n * least > self.left {
                    return Err(self.damaged(format!(
                        "announces {n} elements in `{key}`, more than the file can hold"
                    )));
                }
                let mut list = Vec::new();
                for _ in 0..n {
                    list.push(self.value(kind, key, depth + 1)?);
                }
                Value::List(list)
            }
            10 => Value::Int(u64::from_le_bytes(self.array(key)?).into()),
            11 => Value::Int(i64::from_le_bytes(self.array(key)?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            other => {
                return Err(self.damaged(format!("gives `{key}` the unknown value type {other}")));
            }
        })
    }
}

impl Gguf {
    /// Opens a file and reads its directory.
    ///
    /// # Errors
    /// When the file is not GGUF version 2 or 3, or any length or offset in it does not fit its size.
    pub fn open(path: &Path) -> Result<Self, BitnetError> {
        let io = |e| BitnetError::io(path, e);
        let reader = File::open(path).map_err(io)?;
        let length = reader.metadata().map_err(io)?.len();
        let mut input = Input {
            reader: BufReader::new(reader),
            left: length,
            read: 0,
            file: path.display().to_string(),
        };
        let magic: [u8; 4] = input.array("the magic number")?;
        if &magic != b"GGUF" {
            return Err(BitnetError::format(
                &input.file,
                format!("does not begin with \"GGUF\" but with bytes {magic:02x?}"),
                "give a GGUF file",
            ));
        }
        let version = input.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(BitnetError::format(
                &input.file,
                format!("is GGUF version {version} (or big-endian), expected 2 or 3"),
                "convert the model again with a current converter",
            ));
        }
        let tensor_count = input.u64("the number of tensors")?;
        let value_count = input.u64("the number of metadata values")?;
        // A value takes at least 8 + 4 + 1 bytes, a tensor entry 8 + 4 + 4 + 8.
        if value_count > input.left / 13 || tensor_count > input.left / 24 {
            return Err(input.damaged(format!(
                "announces {value_count} metadata values and {tensor_count} tensors in {length} bytes"
            )));
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..value_count {
            let key = input.text("a metadata key")?;
            let kind = input.u32(&key)?;
            let value = input.value(kind, &key, 0)?;
            metadata.insert(key, value);
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = input.text("a tensor name")?;
            let dimensions = input.u32(&name)?;
            if dimensions > 4 {
                return Err(input.damaged(format!("gives tensor `{name}` {dimensions} dimensions")));
            }
            let mut shape = Vec::new();
            for _ in 0..dimensions {
                let size = input.u64(&name)?;
                let size = usize::try_from(size).map_err(|_| {
                    input.damaged(format!("gives tensor `{name}` a dimension of {size}"))
                })?;
                shape.insert(0, size);
            }
            let kind = input.u32(&name)?;
            let start = input.u64(&name)?;
            let info = TensorInfo {
                shape,
                kind,
                start,
                room: 0,
            };
            if tensors.insert(name.clone(), info).is_some() {
                return Err(input.damaged(format!("holds two tensors named `{name}`")));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Int(a)) if (1..=1 << 20).contains(a) => *a as u64,
            Some(other) => return Err(input.damaged(format!("has general.alignment {other:?}"))),
        };
        let data = input.read.next_multiple_of(alignment);
        for (name, info) in &mut tensors {
            info.start = data
                .checked_add(info.start)
                .filter(|s| *s <= length)
                .ok_or_else(|| input.damaged(format!("puts tensor `{name}` behind its end")))?;
        }
        let mut starts: Vec<u64> = tensors.values().map(|t| t.start).collect();
        starts.sort_unstable();
        for info in tensors.values_mut() {
            let next = starts.partition_point(|s| *s <= info.start);
            info.room = starts.get(next).copied().unwrap_or(length) - info.start;
        }
        Ok(Self {
            path: path.to_path_buf(),
            version,
            metadata,
            tensors,
        })
    }

    /// The file's name, for messages.
    pub fn file(&self) -> String {
        self.path.display().to_string()
    }

    /// The first `bytes` bytes of a tensor's data.
    ///
    /// # Errors
    /// When the tensor has no room for them or the file cannot be read.
    pub fn read(
        &self,
        name: &str,
        info: &TensorInfo,
        bytes: usize,
    ) -> Result<Vec<u8>, BitnetError> {
        if bytes as u64 > info.room {
            return Err(BitnetError::tensor(
                self.file(),
                name,
                format!("{bytes} bytes for shape {:?}", info.shape),
                format!("room for {}", info.room),
                DOWNLOAD_AGAIN,
            ));
        }
        let mut out = vec![0; bytes];
        let mut reader = File::open(&self.path).map_err(|e| BitnetError::io(&self.path, e))?;
        reader
            .seek(SeekFrom::Start(info.start))
            .and_then(|_| reader.read_exact(&mut out))
            .map_err(|e| BitnetError::io(&self.path, e))?;
        Ok(out)
    }

    /// A metadata text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A metadata integer that is not negative.
    pub fn size(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key) {
            Some(Value::Int(n)) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A metadata number.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key) {
            Some(Value::Float(x)) => Some(*x),
            Some(Value::Int(n)) => Some(*n as f64),
            _ => None,
        }
    }

    /// A metadata list.
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        match self.metadata.get(key) {
            Some(Value::List(list)) => Some(list),
            _ => None,
        }
    }
}
