//! Tensors by name out of one or several safetensors files, each read only when it is asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use serde::Deserialize;

use crate::error::BitnetError;

/// Longest header that is read (as in the safetensors reference implementation).
const LONGEST_HEADER: u64 = 100_000_000;
/// What to do about a file that is cut or damaged.
const DOWNLOAD_AGAIN: &str = "the file is damaged or incomplete: download it again";

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// Unsigned bytes (packed ternary weights).
    U8,
    /// Signed bytes.
    I8,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
}

impl DType {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "U8" => Self::U8,
            "I8" => Self::I8,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "F32" => Self::F32,
            "F64" => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
        })
    }
}

/// A tensor as stored: type, shape and little-endian bytes.
#[derive(Clone, Debug)]
pub struct RawTensor {
    /// Element type.
    pub dtype: DType,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Elements.
    pub bytes: Vec<u8>,
}

impl RawTensor {
    /// All elements as 32-bit floats.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::U8 => self.bytes.iter().map(|b| f32::from(*b)).collect(),
            DType::I8 => self.bytes.iter().map(|b| f32::from(*b as i8)).collect(),
            DType::F16 => pairs(&self.bytes)
                .map(|b| f16::from_le_bytes(b).to_f32())
                .collect(),
            DType::Bf16 => pairs(&self.bytes)
                .map(|b| bf16::from_le_bytes(b).to_f32())
                .collect(),
            DType::F32 => self
                .bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            DType::F64 => self
                .bytes
                .chunks_exact(8)
                .map(|b| {
                    f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32
                })
                .collect(),
        }
    }
}

/// Two-byte elements.
pub(crate) fn pairs(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> + '_ {
    bytes.chunks_exact(2).map(|b| [b[0], b[1]])
}

struct Entry {
    file: usize,
    dtype: Option<DType>,
    dtype_name: String,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

/// The tensors of a folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
pub struct Shards {
    folder: PathBuf,
    files: Vec<PathBuf>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens the tensors of a model folder. Only headers are read.
    ///
    /// # Errors
    /// When there are no weights, a shard lies outside of the folder, a header is damaged, or the index and the shards disagree.
    pub fn open(folder: &Path) -> Result<Self, BitnetError> {
        let mut shards = Self {
            folder: folder.to_path_buf(),
            files: Vec::new(),
            entries: BTreeMap::new(),
        };
        let index_path = folder.join("model.safetensors.index.json");
        let single = folder.join("model.safetensors");
        if single.is_file() {
            shards.add(single)?;
            return Ok(shards);
        }
        let text = match std::fs::read_to_string(&index_path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(BitnetError::format(
                    folder.display().to_string(),
                    "holds neither model.safetensors nor model.safetensors.index.json",
                    "point to the folder of a model, or convert its weights to safetensors",
                ));
            }
            Err(e) => return Err(BitnetError::io(index_path, e)),
        };
        let index_name = index_path.display().to_string();
        let index: Index = serde_json::from_str(&text).map_err(|e| {
            BitnetError::format(
                &index_name,
                format!("is not an index of shards: {e}"),
                DOWNLOAD_AGAIN,
            )
        })?;
        let mut names: Vec<&String> = index.weight_map.values().collect();
        names.sort();
        names.dedup();
        for name in names {
            let path = Path::new(name);
            let inside =
                !name.is_empty() && path.components().all(|c| matches!(c, Component::Normal(_)));
            if !inside || name.contains('\\') {
                return Err(BitnetError::format(
                    &index_name,
                    format!("names the shard `{name}`, which lies outside of the model folder"),
                    "do not trust this file: take the model from its own release",
                ));
            }
            shards.add(folder.join(path))?;
        }
        for (tensor, file) in &index.weight_map {
            let found = shards
                .entries
                .get(tensor)
                .map(|e| shards.files[e.file].clone());
            if found.as_deref() != Some(&folder.join(file)) {
                return Err(BitnetError::tensor(
                    &index_name,
                    tensor,
                    format!("in shard {file}"),
                    found.map_or("nothing".to_string(), |f| f.display().to_string()),
                    "index and shards are of different releases: download all of them again",
                ));
            }
        }
        Ok(shards)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), BitnetError> {
        let file = path.display().to_string();
        let io = |e| BitnetError::io(&path, e);
        let mut reader = File::open(&path).map_err(io)?;
        let length = reader.metadata().map_err(io)?.len();
        let damaged = |problem: String| BitnetError::format(&file, problem, DOWNLOAD_AGAIN);
        let mut size = [0u8; 8];
        if length < 8 {
            return Err(damaged(format!(
                "has {length} bytes, too few for a safetensors header"
            )));
        }
        reader.read_exact(&mut size).map_err(io)?;
        let header_size = u64::from_le_bytes(size);
        if header_size > LONGEST_HEADER || header_size > length - 8 {
            return Err(damaged(format!(
                "announces a header of {header_size} bytes in a file of {length} bytes"
            )));
        }
        let mut header = vec![0u8; header_size as usize];
        reader.read_exact(&mut header).map_err(io)?;
        let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header)
            .map_err(|e| damaged(format!("has a damaged header: {e}")))?;
        let data = length - 8 - header_size;
        let index = self.files.len();
        for (name, value) in header {
            if name == "__metadata__" {
                continue;
            }
            let entry: HeaderEntry = serde_json::from_value(value)
                .map_err(|e| damaged(format!("has a damaged header entry for `{name}`: {e}")))?;
            let [start, end] = entry.data_offsets;
            if start > end || end > data {
                return Err(damaged(format!(
                    "puts tensor `{name}` at bytes {start} to {end} of {data}"
                )));
            }
            let dtype = DType::parse(&entry.dtype);
            if let Some(dtype) = dtype {
                let wanted = entry
                    .shape
                    .iter()
                    .try_fold(dtype.bytes(), |n, s| n.checked_mul(*s));
                if wanted.map(|w| w as u64) != Some(end - start) {
                    return Err(damaged(format!(
                        "gives tensor `{name}` of type {dtype} and shape {:?} {} bytes",
                        entry.shape,
                        end - start
                    )));
                }
            }
            let entry = Entry {
                file: index,
                dtype,
                dtype_name: entry.dtype,
                shape: entry.shape,
                start: 8 + header_size + start,
                bytes: (end - start) as usize,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(damaged(format!(
                    "holds tensor `{name}`, which another shard holds too"
                )));
            }
        }
        self.files.push(path);
        Ok(())
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The files that were opened.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// File that holds the tensor, or the folder when none does, for messages.
    pub fn file_of(&self, name: &str) -> String {
        self.entries
            .get(name)
            .map_or(&self.folder, |e| &self.files[e.file])
            .display()
            .to_string()
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// When it is missing, of a type that no BitNet uses, or cannot be read.
    pub fn read(&self, name: &str) -> Result<RawTensor, BitnetError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(BitnetError::tensor(
                self.folder.display().to_string(),
                name,
                "this tensor",
                "nothing",
                "the checkpoint is incomplete or of another architecture: download it again and check config.json",
            ));
        };
        let Some(dtype) = entry.dtype else {
            return Err(BitnetError::tensor(
                self.file_of(name),
                name,
                "type U8, I8, F16, BF16, F32 or F64",
                &entry.dtype_name,
                "convert the tensor to BF16",
            ));
        };
        let path = &self.files[entry.file];
        let mut reader = File::open(path).map_err(|e| BitnetError::io(path, e))?;
        let mut bytes = vec![0u8; entry.bytes];
        reader
            .seek(SeekFrom::Start(entry.start))
            .and_then(|_| reader.read_exact(&mut bytes))
            .map_err(|e| BitnetError::io(path, e))?;
        Ok(RawTensor {
            dtype,
            shape: entry.shape.clone(),
            bytes,
        })
    }
}
