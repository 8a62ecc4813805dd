//! The tokenizer inside a GGUF file, rebuilt as far as its description goes: byte-level BPE ("gpt2") with its merges.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::container::{Gguf, Value};
use crate::error::BitnetError;
use crate::tokenizer::Tokenizer;

/// How Llama 3 cuts text before its merges.
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Token types that are never made by merges: control tokens and those a user added.
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;

/// The embedded tokenizer of a GGUF file.
///
/// # Errors
/// When the file holds none, or one that its metadata does not describe fully (SentencePiece): a `tokenizer.json` is needed then.
pub fn tokenizer(path: &Path) -> Result<Tokenizer, BitnetError> {
    let gguf = Gguf::open(path)?;
    let needs_json = |problem: String| {
        BitnetError::format(
            gguf.file(),
            problem,
            "put the tokenizer.json of the model's own release beside the file",
        )
    };
    let model = gguf.text("tokenizer.ggml.model").unwrap_or("none");
    if model != "gpt2" {
        return Err(needs_json(format!(
            "embeds a tokenizer of kind `{model}`, only byte-level BPE (`gpt2`) can be rebuilt from GGUF"
        )));
    }
    let texts = |key: &str| -> Option<Vec<&str>> {
        gguf.list(key)?
            .iter()
            .map(|v| match v {
                Value::Text(t) => Some(t.as_str()),
                _ => None,
            })
            .collect()
    };
    let tokens = texts("tokenizer.ggml.tokens")
        .ok_or_else(|| needs_json("has no tokenizer.ggml.tokens".into()))?;
    let merges = texts("tokenizer.ggml.merges")
        .ok_or_else(|| needs_json("has no tokenizer.ggml.merges".into()))?;
    let special = |i: usize| match gguf
        .list("tokenizer.ggml.token_type")
        .and_then(|t| t.get(i))
    {
        Some(Value::Int(kind)) => *kind == CONTROL || *kind == USER_DEFINED,
        _ => false,
    };
    let mut vocab = serde_json::Map::new();
    let mut added = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        if special(id) {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true
            }));
        }
        vocab.insert((*token).to_string(), json!(id));
    }
    let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let (pre_tokenizer, ignore_merges) = match gguf.text("tokenizer.ggml.pre").unwrap_or("default")
    {
        "llama-bpe" | "llama3" | "llama-v3" => {
            let split = json!({"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": false});
            (
                json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]}),
                true,
            )
        }
        "default" | "gpt-2" | "gpt2" => (byte_level(true), false),
        other => {
            return Err(needs_json(format!(
                "cuts text in the way `{other}`, which is not known here"
            )));
        }
    };
    let bos = gguf
        .size("tokenizer.ggml.bos_token_id")
        .filter(|id| (*id as usize) < tokens.len());
    let adds_bos = matches!(
        gguf.metadata.get("tokenizer.ggml.add_bos_token"),
        Some(Value::Bool(true))
    );
    let post_processor = match bos {
        Some(id) if adds_bos => {
            let token = tokens[id as usize];
            let first = json!({"SpecialToken": {"id": token, "type_id": 0}});
            let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
            json!({
                "type": "TemplateProcessing", "single": [first.clone(), text("A")], "pair": [first, text("A"), text("B")],
                "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}
            })
        }
        _ => Json::Null,
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges
        }
    });
    Tokenizer::from_bytes(file.to_string().as_bytes(), &gguf.file())
}
