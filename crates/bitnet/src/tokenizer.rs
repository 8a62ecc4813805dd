//! Text to token ids and back, from a `tokenizer.json`.

use std::path::Path;

use crate::config::Config;
use crate::error::BitnetError;

/// A tokenizer read from `tokenizer.json` (any model that the `tokenizers` crate knows: byte-level BPE, SentencePiece BPE, ...).
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    file: String,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is missing or not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self, BitnetError> {
        let bytes = std::fs::read(path).map_err(|e| BitnetError::io(path, e))?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// From the content of a `tokenizer.json`; `file` names it in errors.
    ///
    /// # Errors
    /// When the content is not a tokenizer.
    pub fn from_bytes(bytes: &[u8], file: &str) -> Result<Self, BitnetError> {
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| {
            BitnetError::format(
                file,
                format!("is not a tokenizer: {e}"),
                "take tokenizer.json from the model's own release",
            )
        })?;
        Ok(Self {
            inner,
            file: file.to_string(),
        })
    }

    /// Wraps a tokenizer made in memory.
    pub fn from_inner(inner: tokenizers::Tokenizer, file: &str) -> Self {
        Self {
            inner,
            file: file.to_string(),
        }
    }

    /// The tokenizer of the `tokenizers` crate.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Checks that every id the tokenizer can give has a row in the model's embedding table, and that the table is not
    /// suspiciously larger (models pad tables to round sizes, by less than an eighth or 1024 rows).
    ///
    /// # Errors
    /// A "wrong tokenizer" error with both sizes.
    pub fn check(&self, config: &Config) -> Result<(), BitnetError> {
        let largest = self
            .inner
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1);
        let slack = (config.vocab_size / 8).max(1024);
        if largest == 0 || largest > config.vocab_size || largest + slack < config.vocab_size {
            return Err(BitnetError::format(
                &self.file,
                format!(
                    "wrong tokenizer: it gives ids below {largest}, the model has an embedding table of {} tokens",
                    config.vocab_size
                ),
                "take tokenizer.json from the model's own release",
            ));
        }
        Ok(())
    }

    /// Token ids of `text`; `special` adds what the model's post-processor adds (such as the beginning-of-text token).
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, BitnetError> {
        let encoding = self.inner.encode(text, special).map_err(|e| {
            BitnetError::format(
                &self.file,
                format!("cannot encode the text: {e}"),
                "check tokenizer.json",
            )
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`, special tokens left out. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When an id is unknown or the tokenizer refuses.
    pub fn decode(&self, ids: &[u32]) -> Result<String, BitnetError> {
        if let Some(id) = ids.iter().find(|id| self.inner.id_to_token(**id).is_none()) {
            // Rows that a model pads its table with have no text.
            if *id as usize >= self.vocab_size() {
                let known: Vec<u32> = ids
                    .iter()
                    .copied()
                    .filter(|id| self.inner.id_to_token(*id).is_some())
                    .collect();
                return self.decode_known(&known);
            }
        }
        self.decode_known(ids)
    }

    fn decode_known(&self, ids: &[u32]) -> Result<String, BitnetError> {
        self.inner.decode(ids, true).map_err(|e| {
            BitnetError::format(
                &self.file,
                format!("cannot decode token ids: {e}"),
                "check tokenizer.json",
            )
        })
    }

    /// Id of a token by its exact text (such as `<|eot_id|>`).
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A decoder that is fed one token at a time and gives text as soon as it is certain.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder {
            tokenizer: self,
            ids: Vec::new(),
            start: 0,
            sent: 0,
        }
    }
}

/// Decodes token by token. A piece that ends inside a UTF-8 character is held back until the character is complete, and
/// pieces are decoded together with those before them, so that spaces come out as in the whole text.
#[derive(Clone, Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// First id that is decoded again for context.
    start: usize,
    /// First id whose text has not been given out.
    sent: usize,
}

impl StreamDecoder<'_> {
    /// Adds a token and returns the new text (empty while a character is incomplete).
    ///
    /// # Errors
    /// When the tokenizer refuses the id.
    pub fn push(&mut self, id: u32) -> Result<String, BitnetError> {
        self.ids.push(id);
        let before = self.tokenizer.decode(&self.ids[self.start..self.sent])?;
        let now = self.tokenizer.decode(&self.ids[self.start..])?;
        if now.ends_with('\u{FFFD}')
            || now.len() <= before.len()
            || !now.is_char_boundary(before.len())
        {
            return Ok(String::new());
        }
        let text = now[before.len()..].to_string();
        self.start = self.sent;
        self.sent = self.ids.len();
        Ok(text)
    }

    /// What is still held back, with U+FFFD for a character that never got complete.
    ///
    /// # Errors
    /// When the tokenizer refuses the ids.
    pub fn finish(self) -> Result<String, BitnetError> {
        let before = self.tokenizer.decode(&self.ids[self.start..self.sent])?;
        let now = self.tokenizer.decode(&self.ids[self.start..])?;
        Ok(now.get(before.len()..).unwrap_or_default().to_string())
    }
}
