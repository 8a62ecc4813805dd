//! Writing a model folder: `config.json`, `model.safetensors` (packed ternary weights), `tokenizer.json`.

use super::checkpoint::bytes_of;
use super::kernels;
use super::model::{NORM_EPS, Network, Parameter, ROPE_THETA};
use super::{AttentionKind, END_OF_TEXT, TrainError};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::Tokenizer;

/// Packs ternary rows `[rows, cols]` four to a byte along the rows, as Hugging Face's BitNet files do: with `q = ceil(rows / 4)`,
/// bits `2i..2i+2` of `packed[r, c]` hold `value + 1` of row `i q + r`. Rows beyond the end are stored as 0 (code 1).
pub fn pack_ternary(trits: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let quarter = rows.div_ceil(4);
    let mut packed = vec![0u8; quarter * cols];
    for (at, byte) in packed.iter_mut().enumerate() {
        let (r, c) = (at / cols, at % cols);
        for i in 0..4 {
            let row = i * quarter + r;
            let code = if row < rows {
                trits[row * cols + c] + 1
            } else {
                1
            };
            *byte |= (code as u8 & 3) << (2 * i);
        }
    }
    packed
}

/// Undoes [`pack_ternary`]; `None` when the length does not fit or a byte holds the unused code 3.
pub fn unpack_ternary(packed: &[u8], rows: usize, cols: usize) -> Option<Vec<i8>> {
    let quarter = rows.div_ceil(4);
    if packed.len() != quarter * cols {
        return None;
    }
    let mut trits = vec![0i8; rows * cols];
    for (at, trit) in trits.iter_mut().enumerate() {
        let (row, c) = (at / cols, at % cols);
        let code = packed[(row % quarter) * cols + c] >> (2 * (row / quarter)) & 3;
        if code == 3 {
            return None;
        }
        *trit = code as i8 - 1;
    }
    Some(trits)
}

struct File {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    quantised: bool,
}

impl File {
    fn f32(&mut self, name: String, values: &[f32]) {
        self.tensors
            .push((name, Dtype::F32, vec![values.len()], bytes_of(values)));
    }

    fn f16(&mut self, name: String, rows: usize, cols: usize, values: &[f32]) {
        let bytes = values
            .iter()
            .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
            .collect();
        self.tensors
            .push((name, Dtype::F16, vec![rows, cols], bytes));
    }

    /// The tensors of a fused layer, under `names`.
    fn linear(&mut self, layer: usize, p: &Parameter, names: &[&str]) {
        let (rows, n) = (p.rows / names.len(), p.data.len() / names.len());
        for (name, w) in names.iter().zip(p.data.chunks(n)) {
            let name = format!("model.layers.{layer}.{name}");
            if self.quantised {
                let (trits, scale) = kernels::ternary(w);
                let packed = pack_ternary(&trits.collect::<Vec<_>>(), rows, p.cols);
                self.tensors.push((
                    format!("{name}.weight"),
                    Dtype::U8,
                    vec![rows.div_ceil(4), p.cols],
                    packed,
                ));
                self.f32(format!("{name}.weight_scale"), &[scale]);
            } else {
                self.f16(format!("{name}.weight"), rows, p.cols, w);
            }
        }
    }
}

/// Writes a model folder in the layout of `microsoft/bitnet-b1.58-2B-4T`: packed `u8` linear weights with the factor `mean |w|` as
/// `weight_scale` (linear class `autobitlinear`: outputs are *multiplied* by it), `f16` embeddings shared with the head, norm
/// gains, and for sigmoid attention one `self_attn.head_bias` per layer. Unquantised networks are written as plain `f16`
/// without `quantization_config`; this crate's loader would ternarise those, they are for other programs. What is particular to this project is in the `tacit` object of `config.json`.
///
/// # Errors
/// [`TrainError::Io`] and [`TrainError::Safetensors`] when a file cannot be written.
pub fn write_model(dir: &Path, network: &Network, tokenizer: &Tokenizer) -> Result<(), TrainError> {
    let s = &network.sizes;
    std::fs::create_dir_all(dir).map_err(|e| TrainError::io(dir, e))?;
    let mut file = File {
        tensors: Vec::new(),
        quantised: s.quantised,
    };
    let ones = |n: usize| vec![1f32; n];
    for l in 0..s.layers {
        file.linear(
            l,
            network.layer_parameter(l, 0),
            &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        );
        file.linear(l, network.layer_parameter(l, 1), &["self_attn.o_proj"]);
        file.linear(
            l,
            network.layer_parameter(l, 2),
            &["mlp.gate_proj", "mlp.up_proj"],
        );
        file.linear(l, network.layer_parameter(l, 3), &["mlp.down_proj"]);
        for (name, n) in [
            ("input_layernorm", s.hidden),
            ("post_attention_layernorm", s.hidden),
            ("self_attn.attn_sub_norm", s.hidden),
            ("mlp.ffn_sub_norm", s.ffn),
        ] {
            file.f32(format!("model.layers.{l}.{name}.weight"), &ones(n));
        }
        if s.attention == AttentionKind::Sigmoid {
            file.f32(
                format!("model.layers.{l}.self_attn.head_bias"),
                &network.layer_parameter(l, 4).data,
            );
        }
    }
    let e = network.embedding();
    file.f16("model.embed_tokens.weight".into(), e.rows, e.cols, &e.data);
    file.f32("model.norm.weight".into(), &network.final_gain().data);

    let end = tokenizer.token_to_id(END_OF_TEXT).unwrap_or(0);
    let mut config = json!({
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "vocab_size": s.vocab,
        "hidden_size": s.hidden,
        "intermediate_size": s.ffn,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.heads,
        "hidden_act": "relu2",
        "max_position_embeddings": s.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": true,
        "attention_bias": false,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float16",
        "tacit": {
            "attention": s.attention,
            "context": s.context,
            "attn_sub_norm_eps": network.norms.attn_eps,
        },
    });
    debug_assert!((NORM_EPS - 1e-5).abs() < 1e-12);
    if s.quantised {
        config["quantization_config"] = json!({
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": ["lm_head"],
        });
    }
    let views = file
        .tensors
        .iter()
        .map(|(n, t, shape, b)| Ok((n.as_str(), TensorView::new(*t, shape.clone(), b)?)))
        .collect::<Result<Vec<_>, TrainError>>()?;
    let bytes = safetensors::serialize(
        views,
        Some(HashMap::from([("format".to_owned(), "pt".to_owned())])),
    )?;
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        let part = dir.join(format!("{name}.part"));
        std::fs::write(&part, bytes)
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(|e| TrainError::io(&path, e))
    };
    put("model.safetensors", &bytes)?;
    put(
        "config.json",
        format!("{}\n", serde_json::to_string_pretty(&config)?).as_bytes(),
    )?;
    let tokenizer = tokenizer
        .to_string(true)
        .map_err(|e| TrainError::Tokenizer(e.to_string()))?;
    put("tokenizer.json", tokenizer.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Corpus, Document, TrainConfig, train_tokenizer};
    use safetensors::SafeTensors;

    #[test]
    fn packing_puts_row_blocks_into_bytes_and_round_trips() {
        let trits: Vec<i8> = (0..8 * 3).map(|i| (i * 7 % 3) as i8 - 1).collect();
        let packed = pack_ternary(&trits, 8, 3);
        assert_eq!(packed.len(), 6);
        // Byte (row 1, column 2) holds rows 1, 3, 5, 7.
        for i in 0..4 {
            assert_eq!(
                (packed[5] >> (2 * i) & 3) as i8 - 1,
                trits[(2 * i + 1) * 3 + 2]
            );
        }
        for rows in [1, 5, 8] {
            assert_eq!(
                unpack_ternary(&pack_ternary(&trits[..rows * 3], rows, 3), rows, 3).unwrap(),
                trits[..rows * 3]
            );
        }
        assert_eq!(unpack_ternary(&[0b11], 4, 1), None);
        assert_eq!(unpack_ternary(&packed, 8, 4), None);
    }

    #[test]
    fn an_exported_folder_holds_the_effective_weights() {
        let corpus = Corpus {
            documents: vec![Document {
                package: "a".into(),
                text: "some words to make pairs of letters from these words".repeat(5),
            }],
        };
        let tokenizer = train_tokenizer(&corpus, 270).unwrap();
        let config = TrainConfig {
            hidden: 16,
            layers: 1,
            heads: 2,
            ffn: 24,
            vocab: 270,
            context: 8,
            ..TrainConfig::default()
        };
        let network = Network::new(&config);
        let dir = tempfile::tempdir().unwrap();
        write_model(dir.path(), &network, &tokenizer).unwrap();
        let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let exported = network.as_exported();
        let up = file.tensor("model.layers.0.mlp.up_proj.weight").unwrap();
        assert_eq!((up.dtype(), up.shape()), (Dtype::U8, &[6usize, 16][..]));
        let trits = unpack_ternary(up.data(), 24, 16).unwrap();
        let scale = f32::from_le_bytes(
            file.tensor("model.layers.0.mlp.up_proj.weight_scale")
                .unwrap()
                .data()
                .try_into()
                .unwrap(),
        );
        let want = &exported.layer_parameter(0, 2).data[24 * 16..];
        assert!(
            trits
                .iter()
                .zip(want)
                .all(|(&t, &w)| f32::from(t) * scale == w)
        );
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap())
                .unwrap();
        assert_eq!(
            config["quantization_config"]["linear_class"],
            "autobitlinear"
        );
        assert_eq!(config["tacit"]["attention"], "sigmoid");
        assert_eq!(
            file.tensor("model.layers.0.self_attn.head_bias")
                .unwrap()
                .shape(),
            [2]
        );
    }
}
