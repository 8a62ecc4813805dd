//! Training a byte-level byte-pair tokenizer on a corpus.

use super::{Corpus, TrainError};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer, TokenizerImpl,
};

/// The token that begins, ends and separates documents. Always id 0.
pub const END_OF_TEXT: &str = "<|endoftext|>";

type ByteLevelBpe = TokenizerImpl<
    BPE,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// Trains a byte-level BPE tokenizer with `vocabulary` entries (256 bytes and [`END_OF_TEXT`] included).
///
/// Encoding with special tokens puts [`END_OF_TEXT`] in front, as every training document has it there.
///
/// # Errors
/// [`TrainError::Tokenizer`] when training fails or when the text yields fewer than `vocabulary` entries.
pub fn train_tokenizer(corpus: &Corpus, vocabulary: usize) -> Result<Tokenizer, TrainError> {
    let fail = |e: tokenizers::Error| TrainError::Tokenizer(e.to_string());
    let mut tokenizer = ByteLevelBpe::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(ByteLevel::new(
        false, true, true,
    ))));
    tokenizer.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::new(
        false, true, true,
    ))));
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocabulary)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .build();
    tokenizer
        .train(
            &mut trainer,
            corpus.documents.iter().map(|d| d.text.as_str()),
        )
        .map_err(fail)?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{END_OF_TEXT} $A"))
        .map_err(TrainError::Tokenizer)?
        .special_tokens(vec![(END_OF_TEXT, 0)])
        .build()
        .map_err(|e| TrainError::Tokenizer(e.to_string()))?;
    tokenizer.with_post_processor(Some(PostProcessorWrapper::Template(template)));
    let tokenizer: Tokenizer = tokenizer.into();
    let size = tokenizer.get_vocab_size(true);
    if size != vocabulary || tokenizer.token_to_id(END_OF_TEXT) != Some(0) {
        return Err(TrainError::Tokenizer(format!(
            "the text gives a vocabulary of {size} entries where {vocabulary} were asked for: use more text or a smaller --vocab"
        )));
    }
    Ok(tokenizer)
}

/// Token ids of all documents, each preceded by [`END_OF_TEXT`], and one more at the end.
///
/// # Errors
/// [`TrainError::Tokenizer`] when a document cannot be encoded.
pub fn encode_corpus(tokenizer: &Tokenizer, corpus: &Corpus) -> Result<Vec<u16>, TrainError> {
    let mut ids = Vec::new();
    for chunk in corpus.documents.chunks(4096) {
        let texts: Vec<&str> = chunk.iter().map(|d| d.text.as_str()).collect();
        let encoded = tokenizer
            .encode_batch_fast(texts, true)
            .map_err(|e| TrainError::Tokenizer(e.to_string()))?;
        for e in encoded {
            for &id in e.get_ids() {
                let id = u16::try_from(id).map_err(|_| {
                    TrainError::Tokenizer(format!(
                        "token id {id} exceeds 65535: use a smaller --vocab"
                    ))
                })?;
                ids.push(id);
            }
        }
    }
    ids.push(0);
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::corpus::Document;

    #[test]
    fn a_trained_tokenizer_round_trips_text_and_starts_documents_with_the_separator() {
        let text = "Returns the length of the vector. Returns the number of elements. This function returns an error when the length is zero.";
        let corpus = Corpus {
            documents: vec![
                Document {
                    package: "a".into(),
                    text: text.repeat(4)
                };
                3
            ],
        };
        let tokenizer = train_tokenizer(&corpus, 280).unwrap();
        let ids = encode_corpus(&tokenizer, &corpus).unwrap();
        assert_eq!(ids.iter().filter(|&&i| i == 0).count(), 4);
        assert_eq!((ids[0], ids[ids.len() - 1]), (0, 0));
        let e = tokenizer.encode("Zero: naïve\n\"text\"", true).unwrap();
        assert_eq!(e.get_ids()[0], 0);
        assert_eq!(
            tokenizer.decode(e.get_ids(), true).unwrap(),
            "Zero: naïve\n\"text\""
        );
        assert!(matches!(
            train_tokenizer(&corpus, 5000),
            Err(TrainError::Tokenizer(_))
        ));
    }
}
