//! GGUF files of BitNets: architectures `bitnet` (SiLU gate, 1bitLLM), `bitnet-b1.58` and `bitnet-25` (squared ReLU, 2B4T), linear
//! weights as TQ1_0, TQ2_0, I2_S, F16, BF16 or F32. The order of I2_S weights is not written in the file: see [`I2sLayout`].

mod container;
mod ternary_types;
mod tokenizer;

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};

pub use container::{Gguf, TensorInfo, Value};
pub use ternary_types::I2sLayout;
pub use tokenizer::tokenizer;

use super::assemble::{
    Assembly, Source, check_sub_norms, expect_shape, linear_from_floats, table, vector,
};
use super::safetensors_shards::{DType, RawTensor};
use super::{LayerWeights, LoadReport, Model, WeightForm};
use crate::config::{Activation, Attention, Config, LinearClass, Quantization};
use crate::error::BitnetError;
use crate::ternary::{DenseMatrix, DenseValues, TernaryMatrix};
use ternary_types::{BLOCK, TQ1_0_BYTES, TQ2_0_BYTES, i2_s, tq1_0, tq2_0};

/// Largest size taken from a file.
const LARGEST_SIZE: u64 = 1 << 28;

/// ggml type numbers.
mod kind {
    pub const F32: u32 = 0;
    pub const F16: u32 = 1;
    pub const BF16: u32 = 30;
    pub const TQ1_0: u32 = 34;
    pub const TQ2_0: u32 = 35;
    pub const I2_S: u32 = 36;
}

fn kind_name(kind: u32) -> String {
    match kind {
        kind::F32 => "F32".into(),
        kind::F16 => "F16".into(),
        kind::BF16 => "BF16".into(),
        kind::TQ1_0 => "TQ1_0".into(),
        kind::TQ2_0 => "TQ2_0".into(),
        kind::I2_S => "I2_S".into(),
        38 => "TL1".into(),
        39 => "TL2".into(),
        other => dense_type(other).map_or(format!("ggml type {other}"), |t| format!("{t:?}")),
    }
}

/// Block-quantised types that embedding tables and heads come in, decoded by candle.
fn dense_type(kind: u32) -> Option<GgmlDType> {
    Some(match kind {
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        _ => return None,
    })
}

/// Reads a GGUF file.
///
/// # Errors
/// As [`super::load`]; also when linear layers are of a type that is not ternary.
pub fn load(path: &Path, layout: I2sLayout) -> Result<(Model, LoadReport), BitnetError> {
    let gguf = Gguf::open(path)?;
    let config = config(&gguf)?;
    let mut reader = Reader {
        gguf: &gguf,
        layout,
        assembly: Assembly::default(),
        used: BTreeSet::new(),
    };
    reader.assembly.report.container = format!("GGUF version {}", gguf.version);
    reader.assembly.report.files = vec![path.to_path_buf()];
    let (hidden, ffn, kv) = (
        config.hidden_size,
        config.intermediate_size,
        config.kv_size(),
    );
    let embeddings = reader.table("token_embd.weight", config.vocab_size, hidden)?;
    let head = if config.tied_embeddings {
        None
    } else {
        Some(reader.table("output.weight", config.vocab_size, hidden)?)
    };
    let mut layers = Vec::with_capacity(config.layers.min(1024));
    for n in 0..config.layers {
        let at = |name: &str| format!("blk.{n}.{name}");
        let mut sub_norm = |name: &str, length: usize| -> Result<Option<Vec<f32>>, BitnetError> {
            let name = at(name);
            let present = gguf.tensors.contains_key(&name);
            present.then(|| reader.vector(&name, length)).transpose()
        };
        let attn_sub_norm = sub_norm("attn_sub_norm.weight", hidden)?;
        let ffn_sub_norm = sub_norm("ffn_sub_norm.weight", ffn)?;
        layers.push(LayerWeights {
            input_norm: reader.vector(&at("attn_norm.weight"), hidden)?,
            q: reader.linear(&at("attn_q"), hidden, hidden)?,
            k: reader.linear(&at("attn_k"), kv, hidden)?,
            v: reader.linear(&at("attn_v"), kv, hidden)?,
            o: reader.linear(&at("attn_output"), hidden, hidden)?,
            attn_sub_norm,
            head_bias: vec![0.0; config.heads],
            post_attention_norm: reader.vector(&at("ffn_norm.weight"), hidden)?,
            gate: reader.linear(&at("ffn_gate"), ffn, hidden)?,
            up: reader.linear(&at("ffn_up"), ffn, hidden)?,
            down: reader.linear(&at("ffn_down"), hidden, ffn)?,
            ffn_sub_norm,
        });
    }
    let final_norm = reader.vector("output_norm.weight", hidden)?;
    check_sub_norms(&gguf.file(), &layers, config.sub_norms)?;
    let Reader {
        mut assembly, used, ..
    } = reader;
    let unknown: Vec<&str> = gguf
        .tensors
        .keys()
        .map(String::as_str)
        .filter(|n| !used.contains(*n))
        .collect();
    assembly.unknown(&unknown);
    let warnings = &mut assembly.report.warnings;
    if assembly.report.forms.contains(&WeightForm::Masters) {
        warnings.push(
            "linear weights are full-precision masters: they were ternarised while loading"
                .to_string(),
        );
    }
    if assembly.report.types.iter().any(|(t, _)| t == "I2_S") {
        warnings.push(format!(
            "I2_S does not say in which order it stores weights: taken as {layout:?}. If the model talks nonsense, try the other layout \
             or take the safetensors release"
        ));
    }
    let model = Model {
        config,
        embeddings,
        head,
        layers,
        final_norm,
    };
    assembly.finish(&gguf.file(), model, false)
}

fn config(gguf: &Gguf) -> Result<Config, BitnetError> {
    let wrong = |field: &str, expected: String, remedy: &str| BitnetError::Config {
        file: gguf.file().into(),
        field: field.into(),
        expected: expected.into(),
        found: gguf
            .metadata
            .get(field)
            .map_or("nothing".to_string(), |v| {
                format!("{v:?}").chars().take(80).collect()
            })
            .into(),
        remedy: remedy.into(),
    };
    let architecture = gguf
        .text("general.architecture")
        .unwrap_or_default()
        .to_string();
    let activation = match architecture.as_str() {
        "bitnet" => Activation::Silu,
        "bitnet-b1.58" | "bitnet-25" => Activation::SquaredRelu,
        _ => {
            return Err(wrong(
                "general.architecture",
                "\"bitnet\", \"bitnet-b1.58\" or \"bitnet-25\"".into(),
                "use a BitNet file, or the safetensors release of the model",
            ));
        }
    };
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str, default: Option<u64>| -> Result<usize, BitnetError> {
        let field = key(name);
        let found = if gguf.metadata.contains_key(&field) {
            gguf.size(&field)
        } else {
            default
        };
        match found {
            Some(n) if (1..=LARGEST_SIZE).contains(&n) => Ok(n as usize),
            _ => Err(wrong(
                &field,
                format!("a whole number from 1 to {LARGEST_SIZE}"),
                "convert the model again",
            )),
        }
    };
    let positive = |name: &str, default: f64| -> Result<f64, BitnetError> {
        let field = key(name);
        match gguf.number(&field) {
            Some(v) if v.is_finite() && v > 0.0 => Ok(v),
            None if !gguf.metadata.contains_key(&field) => Ok(default),
            _ => Err(wrong(
                &field,
                "a positive number".into(),
                "convert the model again",
            )),
        }
    };
    let scaling = key("rope.scaling.type");
    if gguf.metadata.contains_key(&scaling) && gguf.text(&scaling) != Some("none") {
        return Err(wrong(
            &scaling,
            "\"none\"".into(),
            "scaled rotary embeddings are not supported",
        ));
    }
    let table_rows = gguf
        .tensors
        .get("token_embd.weight")
        .and_then(|t| t.shape.first())
        .map(|n| *n as u64);
    let hidden_size = size("embedding_length", None)?;
    let heads = size("attention.head_count", None)?;
    let kv_heads = size("attention.head_count_kv", Some(heads as u64))?;
    let head_dim = size("rope.dimension_count", Some((hidden_size / heads) as u64))?;
    if head_dim % 2 != 0 || head_dim.checked_mul(heads) != Some(hidden_size) {
        return Err(wrong(
            &key("rope.dimension_count"),
            format!(
                "an even number, embedding_length / head_count = {}",
                hidden_size / heads
            ),
            "partial rotary embeddings are not supported",
        ));
    }
    if heads % kv_heads != 0 {
        return Err(wrong(
            &key("attention.head_count_kv"),
            format!("a divisor of {heads}"),
            "convert the model again",
        ));
    }
    let token = |name: &str| gguf.size(name).and_then(|id| u32::try_from(id).ok());
    Ok(Config {
        vocab_size: size("vocab_size", table_rows)?,
        hidden_size,
        intermediate_size: size("feed_forward_length", None)?,
        layers: size("block_count", None)?,
        heads,
        kv_heads,
        head_dim,
        activation,
        context: size("context_length", Some(2048))?,
        rms_norm_eps: positive("attention.layer_norm_rms_epsilon", 1e-5)?,
        rope_theta: positive("rope.freq_base", 10_000.0)?,
        tied_embeddings: !gguf.tensors.contains_key("output.weight"),
        bos_token: token("tokenizer.ggml.bos_token_id"),
        eos_tokens: token("tokenizer.ggml.eos_token_id").into_iter().collect(),
        attention: Attention::Softmax,
        attn_sub_norm_eps: Vec::new(),
        row_sum_eps: Vec::new(),
        quantization: Quantization {
            linear_class: LinearClass::AutoBitLinear,
            online: false,
            declared: false,
            modules_to_not_convert: Vec::new(),
        },
        sub_norms: true,
        model_type: architecture,
    })
}

struct Reader<'a> {
    gguf: &'a Gguf,
    layout: I2sLayout,
    assembly: Assembly,
    used: BTreeSet<String>,
}

impl Reader<'_> {
    fn info(&mut self, name: &str) -> Result<TensorInfo, BitnetError> {
        self.used.insert(name.to_string());
        self.gguf.tensors.get(name).cloned().ok_or_else(|| {
            BitnetError::tensor(
                self.gguf.file(),
                name,
                "this tensor",
                "nothing",
                "the file is incomplete or of another architecture: download it again",
            )
        })
    }

    /// A floating-point tensor as stored.
    fn floats(&mut self, name: &str, info: &TensorInfo) -> Result<RawTensor, BitnetError> {
        let dtype = match info.kind {
            kind::F32 => DType::F32,
            kind::F16 => DType::F16,
            kind::BF16 => DType::Bf16,
            other => {
                return Err(BitnetError::tensor(
                    self.gguf.file(),
                    name,
                    "type F32, F16 or BF16",
                    kind_name(other),
                    "convert the model again",
                ));
            }
        };
        let bytes = elements(&info.shape)
            .and_then(|n| n.checked_mul(dtype.bytes()))
            .ok_or_else(|| self.too_large(name, info))?;
        let bytes = self.gguf.read(name, info, bytes)?;
        Ok(RawTensor {
            dtype,
            shape: info.shape.clone(),
            bytes,
        })
    }

    fn too_large(&self, name: &str, info: &TensorInfo) -> BitnetError {
        BitnetError::tensor(
            self.gguf.file(),
            name,
            "a size that fits the file",
            format!("shape {:?}", info.shape),
            "the file is damaged: download it again",
        )
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, BitnetError> {
        let info = self.info(name)?;
        let tensor = self.floats(name, &info)?;
        vector(
            &Source {
                file: &self.gguf.file(),
                tensor: name,
            },
            &tensor,
            length,
        )
    }

    fn table(&mut self, name: &str, rows: usize, cols: usize) -> Result<DenseMatrix, BitnetError> {
        let info = self.info(name)?;
        let file = self.gguf.file();
        let source = Source {
            file: &file,
            tensor: name,
        };
        expect_shape(&source, &info.shape, &[rows, cols])?;
        let Some(dtype) = dense_type(info.kind) else {
            return table(&source, self.floats(name, &info)?, rows, cols);
        };
        let block = dtype.block_size();
        if !cols.is_multiple_of(block) {
            return Err(source.error(
                format!("rows of whole blocks of {block}"),
                format!("{cols} columns"),
                "the file is damaged: download it again",
            ));
        }
        let bytes = (rows * cols / block)
            .checked_mul(dtype.type_size())
            .ok_or_else(|| self.too_large(name, &info))?;
        let bytes = self.gguf.read(name, &info, bytes)?;
        let device = candle_core::Device::Cpu;
        let values: Vec<f32> = qtensor_from_ggml(dtype, &bytes, vec![rows, cols], &device)?
            .dequantize(&device)?
            .flatten_all()?
            .to_vec1()?;
        self.assembly.report.warnings.push(format!(
            "{name} is stored as {dtype:?}: logits carry its rounding"
        ));
        if values.iter().any(|v| !v.is_finite()) {
            return Err(source.error(
                "finite values",
                "NaN or infinity",
                "the file is damaged: download it again",
            ));
        }
        DenseMatrix::new(rows, cols, DenseValues::F32(values))
    }

    fn linear(
        &mut self,
        layer: &str,
        rows: usize,
        cols: usize,
    ) -> Result<TernaryMatrix, BitnetError> {
        let name = format!("{layer}.weight");
        let info = self.info(&name)?;
        let file = self.gguf.file();
        let source = Source {
            file: &file,
            tensor: &name,
        };
        expect_shape(&source, &info.shape, &[rows, cols])?;
        let n = rows * cols;
        // llama.cpp's converter keeps the scale of some models beside codes -1, 0, 1.
        let scale_name = format!("{layer}.scale");
        let factor = if self.gguf.tensors.contains_key(&scale_name) {
            Some(self.vector(&scale_name, 1)?[0])
        } else {
            None
        };
        let (matrix, form) = match info.kind {
            kind::TQ1_0 | kind::TQ2_0 => {
                let bytes_of_block = if info.kind == kind::TQ1_0 {
                    TQ1_0_BYTES
                } else {
                    TQ2_0_BYTES
                };
                if !cols.is_multiple_of(BLOCK) {
                    return Err(source.error(
                        format!("rows of whole blocks of {BLOCK}"),
                        format!("{cols} columns"),
                        "the file is damaged: download it again",
                    ));
                }
                let bytes = self.gguf.read(&name, &info, n / BLOCK * bytes_of_block)?;
                let mut codes = Vec::with_capacity(n);
                let mut scale = 0.0f32;
                for (b, block) in bytes.chunks_exact(bytes_of_block).enumerate() {
                    let from = codes.len();
                    let d = if info.kind == kind::TQ1_0 {
                        tq1_0(block, &mut codes)
                    } else {
                        tq2_0(block, &mut codes)
                    };
                    // Blocks of zeros only have any scale.
                    if codes[from..].iter().all(|c| *c == 0) {
                        continue;
                    }
                    let same = scale == 0.0 || (d - scale).abs() <= 2e-3 * scale;
                    if !(d.is_finite() && d > 0.0 && same) {
                        return Err(source.error(
                            "one positive scale for all blocks",
                            format!("{d} in block {b} beside {scale}"),
                            "these weights are not those of a BitNet: convert from a ternary checkpoint",
                        ));
                    }
                    scale = scale.max(d);
                }
                (
                    self.coded(&source, rows, cols, codes, scale * factor.unwrap_or(1.0))?,
                    WeightForm::Packed,
                )
            }
            kind::I2_S => {
                if !n.is_multiple_of(128) {
                    return Err(source.error(
                        "whole blocks of 128 weights",
                        format!("{n} weights"),
                        "the file is damaged: download it again",
                    ));
                }
                let bytes = self.gguf.read(&name, &info, n / 4 + 4)?;
                let (weights, tail) = bytes.split_at(n / 4);
                let scale = f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
                if !(scale.is_finite() && scale > 0.0) {
                    return Err(source.error(
                        "a positive scale behind the weights",
                        scale.to_string(),
                        "the file is damaged or of another I2_S layout: take the safetensors release",
                    ));
                }
                let codes = i2_s(weights, self.layout);
                (
                    self.coded(&source, rows, cols, codes, scale * factor.unwrap_or(1.0))?,
                    WeightForm::Packed,
                )
            }
            kind::F32 | kind::F16 | kind::BF16 => {
                let values = self.floats(&name, &info)?.to_f32();
                linear_from_floats(&source, rows, cols, &values, factor)?
            }
            other => {
                return Err(source.error(
                    "type TQ1_0, TQ2_0, I2_S, F16, BF16 or F32",
                    kind_name(other),
                    "this type does not keep ternary weights exactly: convert the model again, or take the safetensors release",
                ));
            }
        };
        self.assembly
            .linear(&source, matrix, form, &kind_name(info.kind))
    }

    fn coded(
        &self,
        source: &Source,
        rows: usize,
        cols: usize,
        codes: Vec<i8>,
        scale: f32,
    ) -> Result<TernaryMatrix, BitnetError> {
        if let Some(p) = codes.iter().position(|c| *c > 1) {
            return Err(source.error(
                "two-bit codes 0, 1 and 2",
                format!("code 3 at row {}, column {} or near it", p / cols, p % cols),
                "the weights are damaged or of another layout: take the safetensors release",
            ));
        }
        TernaryMatrix::from_codes(rows, cols, &codes, scale)
    }
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, s| n.checked_mul(*s))
}
