//! The shipped model: it loads without a warning, its calibration is its own, and prompts stay inside the calibrated intervals.

use std::path::PathBuf;

use tacit_bitnet::checkpoint::WeightForm;
use tacit_bitnet::{
    Attention, Calibration, ForwardOptions, Functions, KvCache, Model, Tokenizer, argmax,
    checkpoint, evaluate,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/tacit-mini")
}

fn shipped() -> (Model, Tokenizer, Calibration) {
    let (model, report) = checkpoint::load(&folder()).unwrap();
    assert!(report.warnings.is_empty(), "{report}");
    assert_eq!(report.forms, [WeightForm::Packed]);
    let tokenizer = checkpoint::load_tokenizer(&folder(), &model.config).unwrap();
    let calibration =
        Calibration::from_file(&folder().join("calibration.json"), &model.config).unwrap();
    (model, tokenizer, calibration)
}

const PROSE: &str = "The function returns an error if the input is empty or if the buffer is too small to hold the result. \
    Creates a new instance with the default configuration, which can be changed with the methods of the builder. \
    This method panics when the index is out of bounds; use the checked version to get an option instead. \
    Returns the number of bytes written so far. If the stream was closed by the peer, the value is zero. \
    Note that the iterator yields the elements in no particular order, and that keys may appear more than once. \
    Converts a slice of bytes to a string, replacing any sequence that is not valid with the replacement character. \
    The lock is released when the guard goes out of scope. A thread that panics while it holds the lock poisons it. \
    See the module level documentation for more details about how values are parsed and formatted.";

#[test]
fn prompts_and_answers_stay_inside_the_intervals() {
    let (model, tokenizer, calibration) = shipped();
    let context = model.config.context;
    assert_eq!(model.config.attention, Attention::Sigmoid);
    assert_eq!(calibration.context, context);
    let polynomial = ForwardOptions::new(Functions::Polynomial(&calibration));
    for prompt in [
        "The function returns",
        "Returns an error if",
        "a",
        "0123456789",
        "if x < y { return",
        "\u{e9}\u{1f980}",
        "================================================================",
        "****************************************************************",
        "1111111111111111111111111111111111111111111111111111111111111111",
        "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a",
        "////////////////////////////////////////////////////////////////",
        "the the the the the the the the the the the the the the the the",
    ] {
        let mut ids = tokenizer.encode(prompt, true).unwrap();
        ids.truncate(context / 2);
        let mut cache = KvCache::new(&model.config);
        let mut new = ids.clone();
        while ids.len() < context {
            let states = model.forward(&new, &polynomial, &mut cache, None).unwrap();
            assert_eq!(states.range.outside(), 0, "{prompt}: {}", states.range);
            let logits = model.head_logits(&states.normed).unwrap();
            let next = argmax(logits.row(logits.rows - 1)).unwrap();
            ids.push(next);
            new = vec![next];
        }
    }
}

#[test]
fn polynomials_agree_with_the_exact_functions() {
    let (model, tokenizer, calibration) = shipped();
    let ids = tokenizer.encode(PROSE, true).unwrap();
    let windows: Vec<Vec<u32>> = ids
        .windows(model.config.context)
        .step_by(16)
        .map(<[u32]>::to_vec)
        .collect();
    let run = |functions| evaluate(&model, &ForwardOptions::new(functions), &windows).unwrap();
    let exact = run(Functions::ExactSigmoid);
    let polynomial = run(Functions::Polynomial(&calibration));
    assert_eq!(polynomial.range.outside(), 0, "{}", polynomial.range);
    assert!((polynomial.loss - exact.loss).abs() < 0.02);
    assert!(polynomial.agreement(&exact, 0.0) > 0.95);
    assert_eq!(polynomial.agreement(&exact, 0.5), 1.0);
    // It models English: far better than the uniform distribution over its 2048 tokens.
    assert!(exact.perplexity() < 150.0, "{}", exact.perplexity());
}
