//! Hugging Face folders: `config.json` and safetensors with packed (u8) or master (bf16, f16, f32) linear weights.
//!
//! Packed form (transformers `integrations/bitnet.py`): a `rows x cols` matrix is stored as `ceil(rows/4) x cols` bytes; bits
//! `2i..2i+1` of packed row `r` hold `code + 1` of row `i * ceil(rows/4) + r`: blocks of rows share a byte, not neighbours.

use std::collections::BTreeSet;
use std::path::Path;

use super::assemble::{
    Assembly, Source, check_sub_norms, expect_shape, linear_from_floats, table, vector,
};
use super::safetensors_shards::{DType, RawTensor, Shards};
use super::{LayerWeights, LoadReport, Model, WeightForm};
use crate::config::{Config, LinearClass};
use crate::error::BitnetError;
use crate::ternary::TernaryMatrix;

/// Reads a model folder.
///
/// # Errors
/// As [`super::load`].
pub fn load(folder: &Path) -> Result<(Model, LoadReport), BitnetError> {
    let config = Config::from_file(&folder.join("config.json"))?;
    let shards = Shards::open(folder)?;
    let mut reader = Reader {
        config: &config,
        shards: &shards,
        assembly: Assembly::default(),
        used: BTreeSet::new(),
    };
    reader.assembly.report.container = "safetensors".to_string();
    reader.assembly.report.files = shards.files().to_vec();

    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let embeddings = reader.table("model.embed_tokens.weight", vocab, hidden)?;
    let mut head = None;
    if config.tied_embeddings {
        if shards.contains("lm_head.weight") {
            let stored = reader.table("lm_head.weight", vocab, hidden)?;
            if stored != embeddings {
                reader.assembly.report.warnings.push(
                    "config.json ties the head to the embedding table, but lm_head.weight differs from it: the embedding table is used".to_string(),
                );
            }
        }
    } else if shards.contains("lm_head.weight") {
        head = Some(reader.table("lm_head.weight", vocab, hidden)?);
    } else {
        return Err(BitnetError::tensor(
            folder.display().to_string(),
            "lm_head.weight",
            "a head, since tie_word_embeddings is not true",
            "nothing",
            "set tie_word_embeddings to true in config.json if the model's head is its embedding table",
        ));
    }
    let mut layers = Vec::with_capacity(config.layers.min(1024));
    for n in 0..config.layers {
        layers.push(reader.layer(n)?);
    }
    let final_norm = reader.vector("model.norm.weight", hidden)?;
    let name = folder.display().to_string();
    check_sub_norms(&name, &layers, config.sub_norms)?;

    let Reader {
        mut assembly, used, ..
    } = reader;
    let unknown: Vec<&str> = shards
        .names()
        .filter(|n| !used.contains(*n) && !n.ends_with("rotary_emb.inv_freq"))
        .collect();
    assembly.unknown(&unknown);
    if assembly.report.forms.contains(&WeightForm::Masters) && !config.quantization.online {
        let declared = if config.quantization.declared {
            "offline quantization"
        } else {
            "no quantization_config"
        };
        assembly.report.warnings.push(format!(
            "config.json declares {declared}, the weights are full-precision masters: they were ternarised while loading; some other \
             programs run such files dense and give other results"
        ));
    }
    if assembly.report.forms.len() > 1 {
        assembly
            .report
            .warnings
            .push("linear weights are stored in different forms".to_string());
    }
    let declared = assembly.report.forms.contains(&WeightForm::Packed);
    let model = Model {
        config: config.clone(),
        embeddings,
        head,
        layers,
        final_norm,
    };
    assembly.finish(&name, model, declared)
}

struct Reader<'a> {
    config: &'a Config,
    shards: &'a Shards,
    assembly: Assembly,
    used: BTreeSet<String>,
}

impl Reader<'_> {
    fn read(&mut self, name: &str) -> Result<RawTensor, BitnetError> {
        self.used.insert(name.to_string());
        self.shards.read(name)
    }

    fn table(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<crate::ternary::DenseMatrix, BitnetError> {
        let tensor = self.read(name)?;
        table(
            &Source {
                file: &self.shards.file_of(name),
                tensor: name,
            },
            tensor,
            rows,
            cols,
        )
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, BitnetError> {
        let tensor = self.read(name)?;
        vector(
            &Source {
                file: &self.shards.file_of(name),
                tensor: name,
            },
            &tensor,
            length,
        )
    }

    /// The first of several names that is there.
    fn optional_vector(
        &mut self,
        names: [String; 2],
        length: usize,
    ) -> Result<Option<Vec<f32>>, BitnetError> {
        let present: Vec<&String> = names.iter().filter(|n| self.shards.contains(n)).collect();
        match present[..] {
            [] => Ok(None),
            [name] => self.vector(name, length).map(Some),
            _ => Err(BitnetError::tensor(
                self.shards.file_of(&names[0]),
                &names[0],
                "one sub-norm",
                format!("`{}` too", names[1]),
                "remove one of the two from the checkpoint",
            )),
        }
    }

    fn layer(&mut self, n: usize) -> Result<LayerWeights, BitnetError> {
        let c = self.config;
        let (hidden, ffn, kv) = (c.hidden_size, c.intermediate_size, c.kv_size());
        let at = |name: &str| format!("model.layers.{n}.{name}");
        let bias = at("self_attn.head_bias");
        let head_bias = if self.shards.contains(&bias) {
            self.vector(&bias, c.heads)?
        } else if c.attention.is_sigmoid() {
            return Err(BitnetError::tensor(
                self.shards.file_of(&bias),
                bias,
                format!(
                    "one bias a head, since tacit.attention is \"{}\"",
                    c.attention.name()
                ),
                "nothing",
                "export the model again",
            ));
        } else {
            vec![0.0; c.heads]
        };
        Ok(LayerWeights {
            input_norm: self.vector(&at("input_layernorm.weight"), hidden)?,
            q: self.linear(&at("self_attn.q_proj"), hidden, hidden)?,
            k: self.linear(&at("self_attn.k_proj"), kv, hidden)?,
            v: self.linear(&at("self_attn.v_proj"), kv, hidden)?,
            o: self.linear(&at("self_attn.o_proj"), hidden, hidden)?,
            attn_sub_norm: self.optional_vector(
                [
                    at("self_attn.attn_sub_norm.weight"),
                    at("self_attn.inner_attn_ln.weight"),
                ],
                hidden,
            )?,
            head_bias,
            post_attention_norm: self.vector(&at("post_attention_layernorm.weight"), hidden)?,
            gate: self.linear(&at("mlp.gate_proj"), ffn, hidden)?,
            up: self.linear(&at("mlp.up_proj"), ffn, hidden)?,
            down: self.linear(&at("mlp.down_proj"), hidden, ffn)?,
            ffn_sub_norm: self.optional_vector(
                [
                    at("mlp.ffn_sub_norm.weight"),
                    at("mlp.ffn_layernorm.weight"),
                ],
                ffn,
            )?,
        })
    }

    fn linear(
        &mut self,
        layer: &str,
        rows: usize,
        cols: usize,
    ) -> Result<TernaryMatrix, BitnetError> {
        let name = format!("{layer}.weight");
        let scale = self.scale(layer)?;
        let tensor = self.read(&name)?;
        let file = self.shards.file_of(&name);
        let source = Source {
            file: &file,
            tensor: &name,
        };
        let kind = tensor.dtype.to_string();
        let (matrix, form) = match tensor.dtype {
            DType::U8 => {
                let Some(scale) = scale else {
                    return Err(BitnetError::tensor(
                        &file,
                        format!("{layer}.weight_scale"),
                        "the scale of the packed weights",
                        "nothing",
                        "the checkpoint is incomplete: download it again",
                    ));
                };
                if tensor.shape == [rows, cols] && rows > 1 {
                    return Err(source.error(
                        format!("shape {:?} (four rows in a byte)", [rows.div_ceil(4), cols]),
                        format!("{:?}", tensor.shape),
                        "U8 weights must be packed as transformers does",
                    ));
                }
                expect_shape(&source, &tensor.shape, &[rows.div_ceil(4), cols])?;
                (
                    unpack(&source, &tensor.bytes, rows, cols, scale)?,
                    WeightForm::Packed,
                )
            }
            DType::I8 => {
                expect_shape(&source, &tensor.shape, &[rows, cols])?;
                if let Some(p) = tensor
                    .bytes
                    .iter()
                    .position(|b| !(-1..=1).contains(&(*b as i8)))
                {
                    return Err(source.error(
                        "weights -1, 0 and 1",
                        format!(
                            "{} at row {}, column {}",
                            tensor.bytes[p] as i8,
                            p / cols,
                            p % cols
                        ),
                        "use a ternary checkpoint",
                    ));
                }
                linear_from_floats(
                    &source,
                    rows,
                    cols,
                    &tensor.to_f32(),
                    Some(scale.unwrap_or(1.0)),
                )?
            }
            _ => {
                expect_shape(&source, &tensor.shape, &[rows, cols])?;
                linear_from_floats(&source, rows, cols, &tensor.to_f32(), scale)?
            }
        };
        self.assembly.linear(&source, matrix, form, &kind)
    }

    /// The factor of the output, whichever direction the file stores it in.
    fn scale(&mut self, layer: &str) -> Result<Option<f32>, BitnetError> {
        let name = format!("{layer}.weight_scale");
        if !self.shards.contains(&name) {
            return Ok(None);
        }
        let tensor = self.read(&name)?;
        let file = self.shards.file_of(&name);
        let source = Source {
            file: &file,
            tensor: &name,
        };
        let values = tensor.to_f32();
        let &[stored] = values.as_slice() else {
            return Err(source.error(
                "one scale for the matrix",
                format!("{} values", values.len()),
                "scales per row are not supported",
            ));
        };
        let scale = match self.config.quantization.linear_class {
            LinearClass::BitLinear => 1.0 / stored,
            LinearClass::AutoBitLinear => stored,
        };
        if !(stored.is_finite() && stored > 0.0 && scale.is_finite() && scale > 0.0) {
            return Err(source.error(
                "a positive scale",
                stored.to_string(),
                "the checkpoint is damaged: download it again",
            ));
        }
        Ok(Some(scale))
    }
}

/// Unpacks row blocks; see the module page.
fn unpack(
    source: &Source,
    bytes: &[u8],
    rows: usize,
    cols: usize,
    scale: f32,
) -> Result<TernaryMatrix, BitnetError> {
    let block = rows.div_ceil(4);
    let field = |r: usize, c: usize| (bytes[(r % block) * cols + c] >> (2 * (r / block))) & 3;
    for (p, byte) in bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| (*b & (*b >> 1) & 0x55) != 0)
    {
        // Fields past the last row are padding.
        let row = (0..4)
            .filter(|i| (byte >> (2 * i)) & 3 == 3)
            .map(|i| i * block + p / cols)
            .find(|row| *row < rows);
        if let Some(row) = row {
            return Err(source.error(
                "two-bit codes 0, 1 and 2",
                format!("code 3 at row {row}, column {}", p % cols),
                "the weights are damaged or packed in another way: download them again",
            ));
        }
    }
    TernaryMatrix::from_fn(rows, cols, scale, |r, c| field(r, c) as i8 - 1)
}
