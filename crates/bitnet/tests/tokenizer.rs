//! Tokenizers: streaming, and the wrong one for a model.

mod common;

use serde_json::json;
use tacit_bitnet::Tokenizer;

/// A byte-level BPE with a few merges, as a `tokenizer.json`.
fn byte_level() -> Tokenizer {
    let printable =
        |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut vocab = serde_json::Map::new();
    let mut next = 256;
    for b in 0..256u32 {
        let c = if printable(b) {
            b
        } else {
            next += 1;
            next - 1
        };
        vocab.insert(char::from_u32(c).unwrap().to_string(), json!(b));
    }
    for (i, token) in ["he", "ll", "hell", "hello", "\u{120}w"].iter().enumerate() {
        vocab.insert((*token).to_string(), json!(256 + i));
    }
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": 261, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": level, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
            "merges": ["h e", "l l", "he ll", "hell o", "\u{120} w"]}
    });
    Tokenizer::from_bytes(file.to_string().as_bytes(), "tokenizer.json").unwrap()
}

#[test]
fn streams_whole_characters_only() {
    let tokenizer = byte_level();
    let text = "hello w\u{f6}rld \u{1f980}\u{4f60}\u{597d} end";
    let ids = tokenizer.encode(text, false).unwrap();
    assert_eq!(ids[0], 259);
    let mut stream = tokenizer.stream();
    let mut pieces = Vec::new();
    for id in &ids {
        let piece = stream.push(*id).unwrap();
        assert!(!piece.contains('\u{FFFD}'), "{piece:?}");
        pieces.push(piece);
    }
    assert_eq!(pieces.concat(), text);
    // The crab is four bytes: nothing for three tokens, then all of it.
    let crab = pieces.iter().position(|p| p == "\u{1f980}").unwrap();
    assert!(pieces[crab - 3..crab].iter().all(String::is_empty));
    assert_eq!(stream.finish().unwrap(), "");

    let mut cut = tokenizer.stream();
    assert_eq!(cut.push(0xf0).unwrap(), "");
    assert_eq!(cut.push(0x9f).unwrap(), "");
    assert!(cut.finish().unwrap().contains('\u{FFFD}'));
}

#[test]
fn special_tokens_are_left_out_of_text() {
    let tokenizer = byte_level();
    assert_eq!(tokenizer.token_id("<s>"), Some(261));
    assert_eq!(tokenizer.decode(&[261, 259]).unwrap(), "hello");
    // Rows that a model pads its table with have no text.
    assert_eq!(tokenizer.decode(&[259, 4000]).unwrap(), "hello");
}

#[test]
fn the_wrong_tokenizer_is_an_error() {
    let tokenizer = byte_level();
    let mut config = common::config_json();
    for (vocab, fits) in [
        (262, true),
        (300, true),
        (64, false),
        (261, false),
        (128_256, false),
    ] {
        config["vocab_size"] = json!(vocab);
        let result = tokenizer.check(&common::config(&config));
        assert_eq!(result.is_ok(), fits, "{vocab}");
        if let Err(e) = result {
            assert!(
                e.to_string().contains("wrong tokenizer")
                    && e.to_string().contains(&vocab.to_string())
            );
        }
    }
    let error = Tokenizer::from_bytes(b"{\"model\": 3}", "tokenizer.json").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("tokenizer.json: is not a tokenizer")
    );
    assert!(Tokenizer::from_file(std::path::Path::new("/nowhere/tokenizer.json")).is_err());
}
