//! What a model is: sizes and choices, read from `config.json` in the spellings that BitNet checkpoints use.

use std::path::Path;

use serde_json::Value;

use crate::error::BitnetError;

/// How attention weights come from scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Softmax over the visible tokens.
    Softmax,
    /// `sigma(z - ln(i+1) + b_h)` for query position i (from 0) and head h, without normalisation.
    Sigmoid,
    /// As [`Sigmoid`](Self::Sigmoid), each row times `1/sqrt(S^2 + eps^2)` of its sum `S`: near softmax where the biases are low, for
    /// models that were trained with softmax.
    NormalisedSigmoid,
}

impl Attention {
    /// Name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Sigmoid => "sigmoid",
            Self::NormalisedSigmoid => "normalised-sigmoid",
        }
    }

    /// Whether weights are sigmoids of biased scores.
    pub fn is_sigmoid(self) -> bool {
        self != Self::Softmax
    }
}

/// Function on the gate of the feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)^2` (2B4T).
    SquaredRelu,
    /// `x * sigma(x)` (1bitLLM, Llama3-1.58, Falcon3-1.58).
    Silu,
}

impl Activation {
    /// The function's value.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::SquaredRelu => x.max(0.0) * x.max(0.0),
            Self::Silu => x / (1.0 + (-x).exp()),
        }
    }
}

/// How the stored `weight_scale` of packed weights acts (transformers' `linear_class`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearClass {
    /// `BitLinear`: the output is divided by `weight_scale`, which is `1 / mean|W|`.
    BitLinear,
    /// `AutoBitLinear`: the output is multiplied by `weight_scale`, which is `mean|W|`.
    AutoBitLinear,
}

/// What `quantization_config` (or the model's family) says about the stored linear weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// Direction of `weight_scale`.
    pub linear_class: LinearClass,
    /// Weights are full-precision masters, ternarised on the fly (`quantization_mode: online`).
    pub online: bool,
    /// Whether `quantization_config` was there at all.
    pub declared: bool,
    /// Modules that are kept dense.
    pub modules_to_not_convert: Vec<String>,
}

/// Sizes and choices of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Tokens in the vocabulary (rows of the embedding table).
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads (divides `heads`).
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Gate function.
    pub activation: Activation,
    /// Longest token sequence.
    pub context: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// The head is the embedding table.
    pub tied_embeddings: bool,
    /// Beginning-of-text token.
    pub bos_token: Option<u32>,
    /// End-of-text tokens.
    pub eos_tokens: Vec<u32>,
    /// How attention weights come from scores.
    pub attention: Attention,
    /// Epsilon of each layer's `attn_sub_norm`, absolute; empty when `rms_norm_eps` holds.
    pub attn_sub_norm_eps: Vec<f64>,
    /// Each layer's epsilon of the rows' sums ([`Attention::NormalisedSigmoid`]); empty otherwise.
    pub row_sum_eps: Vec<f64>,
    /// How linear weights are stored.
    pub quantization: Quantization,
    /// The model's family has `attn_sub_norm` and `ffn_sub_norm` in every layer (a checkpoint without them is damaged).
    pub sub_norms: bool,
    /// `model_type` as written.
    pub model_type: String,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Names the file, the field, what was expected and what was found.
    pub fn from_file(path: &Path) -> Result<Self, BitnetError> {
        let text = std::fs::read_to_string(path).map_err(|e| BitnetError::io(path, e))?;
        Self::from_json(&text, &path.display().to_string())
    }

    /// Reads the text of a `config.json`; `file` names it in errors. Of duplicate keys the last one counts, as in Python.
    ///
    /// # Errors
    /// Names the file, the field, what was expected and what was found.
    pub fn from_json(text: &str, file: &str) -> Result<Self, BitnetError> {
        let value: Value = serde_json::from_str(text).map_err(|e| {
            BitnetError::format(
                file,
                format!("is not JSON: {e}"),
                "download the file again or mend it by hand",
            )
        })?;
        let top = Fields {
            file,
            path: "",
            value: &value,
        };
        if !value.is_object() {
            return Err(BitnetError::format(
                file,
                "holds no JSON object",
                "point to the folder of a model",
            ));
        }
        let model_type = top.text("model_type")?.unwrap_or("bitnet").to_string();
        let bitnet_class = value["architectures"].as_array().is_some_and(|a| {
            a.iter().any(|c| {
                c.as_str()
                    .is_some_and(|c| c.eq_ignore_ascii_case("BitNetForCausalLM"))
            })
        });
        let quantised = top.object("quantization_config")?;
        if let Some(q) = &quantised
            && let Some(method) = q.text("quant_method")?
            && method != "bitnet"
        {
            return Err(q.wrong(
                "quant_method",
                "\"bitnet\"",
                "use a BitNet (ternary) checkpoint",
            ));
        }
        let is_bitnet = model_type == "bitnet"
            || bitnet_class
            || quantised.is_some()
            || value["is_bitnet_config"].as_bool() == Some(true)
            || top.number("weight_bits")? == Some(1.0);
        if !is_bitnet {
            return Err(top.wrong(
                "model_type",
                "\"bitnet\", architectures [\"BitNetForCausalLM\"], or a quantization_config with quant_method \"bitnet\"",
                "this is a dense model: use a BitNet (ternary) checkpoint",
            ));
        }

        let vocab_size = top.size("vocab_size", None)?;
        let hidden_size = top.size("hidden_size", None)?;
        let intermediate_size = top.size("intermediate_size", None)?;
        let layers = top.size("num_hidden_layers", None)?;
        let heads = top.size("num_attention_heads", None)?;
        let kv_heads = top.size("num_key_value_heads", Some(heads))?;
        if hidden_size % heads != 0 && value["head_dim"].is_null() {
            return Err(top.wrong(
                "num_attention_heads",
                format!("a divisor of hidden_size = {hidden_size}"),
                "mend config.json or add head_dim",
            ));
        }
        let head_dim = top.size("head_dim", Some(hidden_size / heads.max(1)))?;
        if heads % kv_heads != 0 {
            return Err(top.wrong(
                "num_key_value_heads",
                format!("a divisor of num_attention_heads = {heads}"),
                "mend config.json",
            ));
        }
        if head_dim % 2 != 0 {
            return Err(top.wrong(
                "head_dim",
                "an even number (rotary embedding turns pairs)",
                "mend config.json",
            ));
        }
        if head_dim.checked_mul(heads) != Some(hidden_size) {
            return Err(top.wrong(
                "head_dim",
                format!(
                    "hidden_size / num_attention_heads = {}",
                    hidden_size / heads.max(1)
                ),
                "models whose heads do not fill the hidden size are not supported",
            ));
        }
        let activation = match top.text("hidden_act")? {
            Some("relu2" | "relu_squared" | "squared_relu") => Activation::SquaredRelu,
            Some("silu" | "swish") => Activation::Silu,
            _ => {
                return Err(top.wrong(
                    "hidden_act",
                    "\"relu2\" or \"silu\"",
                    "other gates are not supported",
                ));
            }
        };
        if value["attention_bias"].as_bool() == Some(true)
            || value["mlp_bias"].as_bool() == Some(true)
        {
            let field = if value["attention_bias"].as_bool() == Some(true) {
                "attention_bias"
            } else {
                "mlp_bias"
            };
            return Err(top.wrong(
                field,
                "false",
                "linear layers with a bias are not supported",
            ));
        }
        let rope = top.object("rope_parameters")?;
        for scaling in [rope.as_ref(), top.object("rope_scaling")?.as_ref()]
            .into_iter()
            .flatten()
        {
            let kind = scaling.text("rope_type")?.or(scaling.text("type")?);
            if !matches!(kind, None | Some("default")) {
                return Err(scaling.wrong(
                    "rope_type",
                    "\"default\" or no scaling",
                    "scaled rotary embeddings are not supported",
                ));
            }
        }
        let nested_theta = match &rope {
            Some(rope) => rope.positive("rope_theta", None)?,
            None => None,
        };
        let rope_theta = top
            .positive("rope_theta", nested_theta)?
            .unwrap_or(10_000.0);
        let rms_norm_eps = top.positive("rms_norm_eps", None)?.unwrap_or(1e-5);

        let quantization = Self::quantization(&top, quantised.as_ref())?;
        let tacit = top.object("tacit")?;
        let mut context = top.size("max_position_embeddings", Some(2048))?;
        let mut attention = Attention::Softmax;
        let mut attn_sub_norm_eps = Vec::new();
        let mut row_sum_eps = Vec::new();
        if let Some(tacit) = &tacit {
            attention = match tacit.text("attention")? {
                Some("sigmoid") => Attention::Sigmoid,
                Some("normalised-sigmoid") => Attention::NormalisedSigmoid,
                Some("softmax") | None => Attention::Softmax,
                _ => {
                    return Err(tacit.wrong(
                        "attention",
                        "\"sigmoid\", \"normalised-sigmoid\" or \"softmax\"",
                        "mend config.json",
                    ));
                }
            };
            context = tacit.size("context", Some(context))?;
            attn_sub_norm_eps = tacit.one_a_layer("attn_sub_norm_eps", layers)?;
            row_sum_eps = tacit.one_a_layer("row_sum_eps", layers)?;
            if attention == Attention::NormalisedSigmoid && row_sum_eps.is_empty() {
                return Err(tacit.wrong(
                    "row_sum_eps",
                    format!("{layers} numbers, none negative: one a layer"),
                    "convert the model again (tacit model sigmoid --normalised)",
                ));
            }
        }
        let token = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
        let eos_tokens = match &value["eos_token_id"] {
            Value::Array(list) => list.iter().filter_map(token).collect(),
            one => token(one).into_iter().collect(),
        };
        Ok(Self {
            vocab_size,
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim,
            activation,
            context,
            rms_norm_eps,
            rope_theta,
            tied_embeddings: value["tie_word_embeddings"].as_bool().unwrap_or(false),
            bos_token: token(&value["bos_token_id"]),
            eos_tokens,
            attention,
            attn_sub_norm_eps,
            row_sum_eps,
            quantization,
            sub_norms: model_type == "bitnet" || bitnet_class,
            model_type,
        })
    }

    fn quantization(top: &Fields, quantised: Option<&Fields>) -> Result<Quantization, BitnetError> {
        let mut quantization = Quantization {
            linear_class: LinearClass::BitLinear,
            online: false,
            declared: quantised.is_some(),
            modules_to_not_convert: vec!["lm_head".to_string()],
        };
        if let Some(q) = quantised {
            quantization.linear_class = match q.text("linear_class")? {
                Some("autobitlinear") => LinearClass::AutoBitLinear,
                Some("bitlinear") | None => LinearClass::BitLinear,
                _ => {
                    return Err(q.wrong(
                        "linear_class",
                        "\"bitlinear\" or \"autobitlinear\"",
                        "mend config.json",
                    ));
                }
            };
            quantization.online = match q.text("quantization_mode")? {
                Some("online") => true,
                Some("offline") | None => false,
                _ => {
                    return Err(q.wrong(
                        "quantization_mode",
                        "\"online\" or \"offline\"",
                        "mend config.json",
                    ));
                }
            };
            if q.value["use_rms_norm"].as_bool() == Some(true) {
                return Err(q.wrong(
                    "use_rms_norm",
                    "false",
                    "a norm inside of each linear layer is not supported",
                ));
            }
            if let Some(modules) = q
                .value
                .get("modules_to_not_convert")
                .and_then(Value::as_array)
            {
                quantization.modules_to_not_convert = modules
                    .iter()
                    .filter_map(|m| m.as_str().map(str::to_string))
                    .collect();
                if let Some(m) = quantization.modules_to_not_convert.iter().find(|m| {
                    !matches!(
                        m.as_str(),
                        "lm_head" | "model.embed_tokens" | "embed_tokens"
                    )
                }) {
                    return Err(BitnetError::Config {
                        file: top.file.into(),
                        field: "quantization_config.modules_to_not_convert".into(),
                        expected: "[\"lm_head\"]: only the head stays dense".into(),
                        found: format!("`{m}` among them").into(),
                        remedy: "use a checkpoint whose linear layers are all ternary".into(),
                    });
                }
            }
        }
        Ok(quantization)
    }

    /// Epsilon of layer `layer`'s `attn_sub_norm`.
    pub fn attn_sub_norm_eps(&self, layer: usize) -> f64 {
        self.attn_sub_norm_eps
            .get(layer)
            .copied()
            .unwrap_or(self.rms_norm_eps)
    }

    /// Epsilon of layer `layer`'s row sums, 0 without one.
    pub fn row_sum_eps(&self, layer: usize) -> f64 {
        self.row_sum_eps.get(layer).copied().unwrap_or_default()
    }

    /// Query heads that share one key and value head.
    pub fn queries_per_kv(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Width of keys and values: `kv_heads * head_dim`.
    pub fn kv_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Number of linear (ternary) weights.
    pub fn linear_weights(&self) -> usize {
        let attention = 2 * self.hidden_size * (self.hidden_size + self.kv_size());
        self.layers * (attention + 3 * self.hidden_size * self.intermediate_size)
    }
}

/// Largest size taken from a file: more is a damaged file, not a model.
const LARGEST_SIZE: u64 = 1 << 28;

/// A JSON object with the name of its file and its path in it, for errors.
struct Fields<'a> {
    file: &'a str,
    path: &'a str,
    value: &'a Value,
}

impl<'a> Fields<'a> {
    fn wrong(
        &self,
        field: &str,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> BitnetError {
        let found = match self.value.get(field) {
            None => "nothing".to_string(),
            Some(v) => {
                let text: String = v.to_string().chars().take(80).collect();
                text
            }
        };
        let field = if self.path.is_empty() {
            field.to_string()
        } else {
            format!("{}.{field}", self.path)
        };
        BitnetError::Config {
            file: self.file.into(),
            field: field.into(),
            expected: expected.into().into(),
            found: found.into(),
            remedy: remedy.into().into(),
        }
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.value.get(field).filter(|v| !v.is_null())
    }

    fn object(&self, field: &'a str) -> Result<Option<Fields<'a>>, BitnetError> {
        match self.get(field) {
            None => Ok(None),
            Some(value) if value.is_object() => Ok(Some(Fields {
                file: self.file,
                path: field,
                value,
            })),
            Some(_) => Err(self.wrong(field, "an object", "mend config.json")),
        }
    }

    /// A list of one number a layer, none negative; empty when it is not there.
    fn one_a_layer(&self, field: &str, layers: usize) -> Result<Vec<f64>, BitnetError> {
        let Some(list) = self.get(field) else {
            return Ok(Vec::new());
        };
        let parsed: Option<Vec<f64>> = list
            .as_array()
            .and_then(|a| a.iter().map(Value::as_f64).collect());
        parsed
            .filter(|a| a.len() == layers && a.iter().all(|e| e.is_finite() && *e >= 0.0))
            .ok_or_else(|| {
                self.wrong(
                    field,
                    format!("{layers} numbers, none negative: one a layer"),
                    "mend config.json",
                )
            })
    }

    fn text(&self, field: &str) -> Result<Option<&'a str>, BitnetError> {
        match self.get(field) {
            None => Ok(None),
            Some(v) => v
                .as_str()
                .map(Some)
                .ok_or_else(|| self.wrong(field, "a text", "mend config.json")),
        }
    }

    fn number(&self, field: &str) -> Result<Option<f64>, BitnetError> {
        match self.get(field) {
            None => Ok(None),
            Some(v) => v
                .as_f64()
                .map(Some)
                .ok_or_else(|| self.wrong(field, "a number", "mend config.json")),
        }
    }

    fn positive(&self, field: &str, default: Option<f64>) -> Result<Option<f64>, BitnetError> {
        match self.number(field)? {
            Some(v) if v.is_finite() && v > 0.0 => Ok(Some(v)),
            Some(_) => Err(self.wrong(field, "a positive number", "mend config.json")),
            None => Ok(default),
        }
    }

    fn size(&self, field: &str, default: Option<usize>) -> Result<usize, BitnetError> {
        match (self.get(field), default) {
            (None, Some(d)) => Ok(d),
            (None, None) => Err(self.wrong(
                field,
                "a whole number",
                "this config.json is not one of a BitNet: download it again",
            )),
            (Some(v), _) => match v.as_u64() {
                Some(n) if (1..=LARGEST_SIZE).contains(&n) => Ok(n as usize),
                _ => Err(self.wrong(
                    field,
                    format!("a whole number from 1 to {LARGEST_SIZE}"),
                    "mend config.json",
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "vocab_size": 128256, "hidden_size": 2560,
            "intermediate_size": 6912, "num_hidden_layers": 30, "num_attention_heads": 20, "num_key_value_heads": 5,
            "hidden_act": "relu2", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
            "tie_word_embeddings": true, "bos_token_id": 128000, "eos_token_id": 128001,
            "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
        })
    }

    fn read(v: &Value) -> Result<Config, BitnetError> {
        Config::from_json(&v.to_string(), "config.json")
    }

    #[test]
    fn reads_2b4t() {
        let c = read(&base()).unwrap();
        assert_eq!(
            (c.heads, c.kv_heads, c.head_dim, c.layers),
            (20, 5, 128, 30)
        );
        assert_eq!(c.activation, Activation::SquaredRelu);
        assert_eq!(c.quantization.linear_class, LinearClass::AutoBitLinear);
        assert!(c.tied_embeddings && !c.quantization.online && c.attention == Attention::Softmax);
        assert_eq!(
            (c.bos_token, c.eos_tokens.as_slice()),
            (Some(128000), &[128001][..])
        );
        assert_eq!(
            c.linear_weights(),
            30 * (2 * 2560 * (2560 + 640) + 3 * 2560 * 6912)
        );
    }

    #[test]
    fn reads_1bitllm_and_falcon_spellings() {
        let c = read(&json!({
            "architectures": ["BitnetForCausalLM"], "model_type": "llama", "vocab_size": 32002, "hidden_size": 1536,
            "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "hidden_act": "silu",
            "tie_word_embeddings": true, "weight_bits": 1, "input_bits": 8, "rope_scaling": null
        }))
        .unwrap();
        assert_eq!(
            (c.kv_heads, c.head_dim, c.context, c.rope_theta),
            (16, 96, 2048, 10_000.0)
        );
        assert!(!c.quantization.declared && c.activation == Activation::Silu);
        let c = read(&json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "is_bitnet_config": true, "vocab_size": 131072, "hidden_size": 2048,
            "intermediate_size": 8192, "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
            "hidden_act": "silu", "dtype": "bfloat16", "rope_parameters": {"rope_theta": 1000042, "rope_type": "default"},
            "quantization_config": {"quant_method": "bitnet"}
        }))
        .unwrap();
        assert_eq!((c.rope_theta, c.head_dim), (1_000_042.0, 256));
        assert_eq!(c.quantization.linear_class, LinearClass::BitLinear);
    }

    #[test]
    fn last_of_duplicate_keys_counts() {
        let text = base().to_string();
        let doubled = format!(
            "{{\"quantization_config\": {{\"linear_class\": \"bitlinear\"}}, {}",
            &text[1..]
        );
        assert_eq!(
            Config::from_json(&doubled, "c")
                .unwrap()
                .quantization
                .linear_class,
            LinearClass::AutoBitLinear
        );
    }

    #[test]
    fn reads_the_tacit_object() {
        let mut v = base();
        v["num_hidden_layers"] = json!(2);
        v["tacit"] =
            json!({"attention": "sigmoid", "context": 64, "attn_sub_norm_eps": [0.25, 0.5]});
        let c = read(&v).unwrap();
        assert_eq!((c.attention, c.context), (Attention::Sigmoid, 64));
        assert_eq!(
            (c.attn_sub_norm_eps(0), c.attn_sub_norm_eps(1)),
            (0.25, 0.5)
        );
        v["tacit"]["attn_sub_norm_eps"] = json!([0.25]);
        assert!(
            read(&v)
                .unwrap_err()
                .to_string()
                .contains("tacit.attn_sub_norm_eps")
        );
    }

    #[test]
    fn every_wrong_field_is_named() {
        for (field, value) in [
            ("vocab_size", json!(0)),
            ("hidden_size", json!("wide")),
            ("intermediate_size", Value::Null),
            ("num_hidden_layers", json!(1u64 << 40)),
            ("num_attention_heads", json!(7)),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(64)),
            ("hidden_act", json!("gelu")),
            ("rms_norm_eps", json!(-1)),
            ("rope_theta", json!("x")),
            ("attention_bias", json!(true)),
            ("rope_scaling", json!({"type": "linear", "factor": 2})),
            ("quantization_config", json!({"quant_method": "gptq"})),
            ("quantization_config", json!({"use_rms_norm": true})),
            ("quantization_config", json!({"linear_class": "linear"})),
            (
                "quantization_config",
                json!({"modules_to_not_convert": ["lm_head", "model.layers.0.mlp.up_proj"]}),
            ),
        ] {
            let mut v = base();
            v[field] = value;
            let message = read(&v).unwrap_err().to_string();
            assert!(
                message.contains(field) || message.contains("rope_type"),
                "{field}: {message}"
            );
            assert!(message.starts_with("config.json"), "{message}");
        }
        let mut v = base();
        v["model_type"] = json!("llama");
        v["architectures"] = json!(["LlamaForCausalLM"]);
        v.as_object_mut().unwrap().remove("quantization_config");
        assert!(read(&v).unwrap_err().to_string().contains("dense model"));
    }

    proptest! {
        #[test]
        fn mutated_text_never_panics(position in 0usize..600, byte in any::<u8>(), cut in 0usize..700) {
            let mut text = base().to_string().into_bytes();
            let n = text.len();
            text[position % n] = byte;
            text.truncate(cut.max(1));
            if let Ok(text) = String::from_utf8(text) {
                let _ = Config::from_json(&text, "config.json");
            }
        }

        #[test]
        fn odd_values_never_panic(field in 0usize..12, value in prop_oneof![
            Just(json!(null)), any::<i64>().prop_map(|v| json!(v)), any::<u64>().prop_map(|v| json!(v)), Just(json!([1, "a"])),
            any::<f64>().prop_map(|v| json!(v)), Just(json!({"a": 1})), Just(json!("text")), Just(json!(true)),
        ]) {
            let names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                "head_dim", "rope_theta", "eos_token_id", "quantization_config", "tacit", "architectures"];
            let mut v = base();
            v[names[field]] = value;
            let _ = read(&v);
        }
    }
}
