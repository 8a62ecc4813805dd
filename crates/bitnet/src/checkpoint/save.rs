//! Writes a model as a Hugging Face folder with packed weights: the form that [`super::load`] reads back unchanged.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::Model;
use crate::config::{Activation, Config};
use crate::error::BitnetError;
use crate::ternary::{DenseMatrix, DenseValues, TernaryMatrix};
use crate::train::pack_ternary;

/// A tensor to be written.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

impl Config {
    /// The `config.json` of a folder with packed weights whose scales multiply (`autobitlinear`).
    pub fn to_json(&self) -> Value {
        let (class, model_type) = if self.sub_norms {
            ("BitNetForCausalLM", "bitnet")
        } else {
            ("LlamaForCausalLM", "llama")
        };
        let mut value = json!({
            "architectures": [class],
            "model_type": model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "hidden_act": match self.activation {
                Activation::SquaredRelu => "relu2",
                Activation::Silu => "silu",
            },
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "attention_bias": false,
            "tie_word_embeddings": self.tied_embeddings,
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "offline",
                "modules_to_not_convert": ["lm_head"],
            },
        });
        if let Some(id) = self.bos_token {
            value["bos_token_id"] = json!(id);
        }
        match self.eos_tokens.as_slice() {
            [] => {}
            [id] => value["eos_token_id"] = json!(id),
            ids => value["eos_token_id"] = json!(ids),
        }
        if self.attention.is_sigmoid() || !self.attn_sub_norm_eps.is_empty() {
            value["tacit"] = json!({"attention": self.attention.name(), "context": self.context});
            if !self.attn_sub_norm_eps.is_empty() {
                value["tacit"]["attn_sub_norm_eps"] = json!(self.attn_sub_norm_eps);
            }
            if !self.row_sum_eps.is_empty() {
                value["tacit"]["row_sum_eps"] = json!(self.row_sum_eps);
            }
        }
        value
    }
}

/// Writes `config.json` and `model.safetensors` into `folder` (which is made when it is not there). The tokenizer is not part
/// of a [`Model`]: copy `tokenizer.json` beside them.
///
/// # Errors
/// When a file cannot be written.
pub fn save(model: &Model, folder: &Path) -> Result<(), BitnetError> {
    std::fs::create_dir_all(folder).map_err(|e| BitnetError::io(folder, e))?;
    let mut tensors = BTreeMap::new();
    tensors.insert(
        "model.embed_tokens.weight".to_string(),
        dense(&model.embeddings),
    );
    if let Some(head) = &model.head {
        tensors.insert("lm_head.weight".to_string(), dense(head));
    }
    tensors.insert("model.norm.weight".to_string(), vector(&model.final_norm));
    for (n, l) in model.layers.iter().enumerate() {
        let mut put = |name: &str, tensor: Stored| {
            tensors.insert(format!("model.layers.{n}.{name}"), tensor);
        };
        put("input_layernorm.weight", vector(&l.input_norm));
        put(
            "post_attention_layernorm.weight",
            vector(&l.post_attention_norm),
        );
        if let Some(gain) = &l.attn_sub_norm {
            put("self_attn.attn_sub_norm.weight", vector(gain));
        }
        if let Some(gain) = &l.ffn_sub_norm {
            put("mlp.ffn_sub_norm.weight", vector(gain));
        }
        if model.config.attention.is_sigmoid() {
            put("self_attn.head_bias", vector(&l.head_bias));
        }
        for (name, w) in [
            ("self_attn.q_proj", &l.q),
            ("self_attn.k_proj", &l.k),
            ("self_attn.v_proj", &l.v),
            ("self_attn.o_proj", &l.o),
            ("mlp.gate_proj", &l.gate),
            ("mlp.up_proj", &l.up),
            ("mlp.down_proj", &l.down),
        ] {
            put(&format!("{name}.weight"), packed(w));
            put(&format!("{name}.weight_scale"), vector(&[w.scale()]));
        }
    }
    let file = folder.join("model.safetensors");
    let failed = |e: &dyn std::fmt::Display| {
        BitnetError::format(
            file.display().to_string(),
            format!("cannot be written: {e}"),
            "free disk space or choose another folder",
        )
    };
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| {
            Ok((
                name.as_str(),
                TensorView::new(*dtype, shape.clone(), bytes)?,
            ))
        })
        .collect::<Result<_, safetensors::SafeTensorError>>()
        .map_err(|e| failed(&e))?;
    safetensors::serialize_to_file(views, None, &file).map_err(|e| failed(&e))?;
    let file = folder.join("config.json");
    std::fs::write(&file, format!("{:#}\n", model.config.to_json()))
        .map_err(|e| BitnetError::io(&file, e))
}

fn vector(values: &[f32]) -> Stored {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    (Dtype::F32, vec![values.len()], bytes)
}

fn dense(table: &DenseMatrix) -> Stored {
    let (dtype, bytes) = match table.values() {
        DenseValues::F32(v) => (Dtype::F32, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DenseValues::F16(v) => (Dtype::F16, v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DenseValues::Bf16(v) => (
            Dtype::BF16,
            v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
    };
    (dtype, vec![table.rows(), table.cols()], bytes)
}

/// Four row blocks in a byte, as [`super::hf`] describes.
fn packed(w: &TernaryMatrix) -> Stored {
    let codes: Vec<i8> = (0..w.rows()).flat_map(|r| w.row_codes(r)).collect();
    let bytes = pack_ternary(&codes, w.rows(), w.cols());
    (Dtype::U8, vec![w.rows().div_ceil(4), w.cols()], bytes)
}
