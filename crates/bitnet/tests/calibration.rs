//! Calibration on a small random model, and what happens when text leaves the calibrated ranges.

mod common;

use common::{config_json, ids, model};
use serde_json::json;
use tacit_bitnet::{
    Calibration, CalibrationOptions, Config, ForwardOptions, FunctionKind, Functions, KvCache,
    Matrix, Model, Probe, Quantity, calibrate, evaluate,
};

fn sigmoid_model() -> Model {
    let mut config = config_json();
    config["tacit"] =
        json!({"attention": "sigmoid", "context": 24, "attn_sub_norm_eps": [0.02, 0.02]});
    model(&config, 11)
}

fn windows(n: usize, seed: u64) -> Vec<Vec<u32>> {
    (0..n).map(|i| ids(24, 64, seed + i as u64)).collect()
}

#[test]
fn polynomials_come_close_to_the_exact_functions() {
    let model = sigmoid_model();
    let outcome = calibrate(&model, &windows(120, 100), &CalibrationOptions::default()).unwrap();
    println!("{outcome}");
    assert!(outcome.target_met);
    assert_eq!(outcome.polynomial.range.outside(), 0);
    // Repetition is tried without being covered, and told apart.
    assert_eq!(
        (outcome.greedy.sequences, outcome.repeated.sequences),
        (24, 24)
    );
    assert_eq!(
        outcome.outside(),
        outcome.greedy.range.outside() + outcome.repeated.range.outside()
    );
    assert_eq!(
        outcome.repeated.leaving > 0,
        outcome.repeated.range.outside() > 0
    );
    assert!(outcome.perplexity_change().abs() < 0.01);
    assert!(outcome.polynomial.agreement(&outcome.exact, 0.0) > 0.9);
    assert_eq!(outcome.degrees.post_attention_norm, 1);
    assert_eq!(
        outcome.calibration.layers[0]
            .post_attention_norm
            .coeffs
            .len(),
        2
    );
    assert_eq!(
        (outcome.calibration.tokens, outcome.calibration.context),
        (96 * 24, 24)
    );

    // Higher degrees come closer.
    let mut finer = CalibrationOptions::default();
    for kind in FunctionKind::ALL {
        *finer.degrees.field(kind) = 63;
        *finer.largest.field(kind) = 63;
    }
    let fine = calibrate(&model, &windows(120, 100), &finer).unwrap();
    let loss_difference =
        |o: &tacit_bitnet::CalibrationOutcome| 1.0 - o.polynomial.agreement(&o.exact, 0.0);
    assert!(loss_difference(&fine) < loss_difference(&outcome).max(0.01));
    assert!(fine.polynomial.agreement(&fine.exact, 0.0) > 0.98);

    // Ranges hold what the model shows on text it was not calibrated on.
    struct Check<'a>(&'a Calibration, usize);
    impl Probe for Check<'_> {
        fn record(&mut self, layer: usize, quantity: Quantity, values: &Matrix) {
            let layer = &self.0.layers[layer];
            let within = |x: f64, series: &tacit_bitnet::ChebyshevSeries| series.contains(x);
            for v in values.data.iter().map(|v| f64::from(*v)) {
                let inside = match quantity {
                    Quantity::Z => within(v, &layer.sigmoid),
                    Quantity::Gate => within(v, &layer.activation),
                    Quantity::MsInput => within(v, &layer.input_norm),
                    Quantity::MsPost => within(v, &layer.post_attention_norm),
                    Quantity::MsAttn => within(v, layer.attn_sub_norm.as_ref().unwrap()),
                    Quantity::MsGated => within(v, layer.ffn_sub_norm.as_ref().unwrap()),
                    _ => true,
                };
                assert!(inside, "{} = {v}", quantity.name());
                if let Some(most) = layer.max_abs.get(quantity) {
                    assert!(
                        v.abs() < 1.5 * most,
                        "{}: {v} beside {most}",
                        quantity.name()
                    );
                    self.1 += 1;
                }
            }
        }
    }
    let mut check = Check(&outcome.calibration, 0);
    let options = ForwardOptions::new(Functions::Polynomial(&outcome.calibration));
    for window in windows(10, 9_000) {
        let mut cache = KvCache::new(&model.config);
        model
            .forward(&window, &options, &mut cache, Some(&mut check))
            .unwrap();
    }
    assert!(check.1 > 10 * 24 * 2 * 16);

    // Written and read again, it is the same; against another model it is refused.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calibration.json");
    outcome.calibration.save(&path).unwrap();
    let read = Calibration::from_file(&path, &model.config).unwrap();
    assert_eq!(read.layers.len(), 2);
    for (a, b) in read.layers.iter().zip(&outcome.calibration.layers) {
        for ((name, a), (_, b)) in a.series().zip(b.series()) {
            assert_eq!(a.coeffs.len(), b.coeffs.len(), "{name}");
            for x in [a.lo, a.hi, 0.5 * (a.lo + a.hi)] {
                assert!((a.eval(x) - b.eval(x)).abs() < 1e-9, "{name}");
            }
        }
    }
    let other = Config {
        layers: 3,
        ..model.config.clone()
    };
    let message = Calibration::from_file(&path, &other)
        .unwrap_err()
        .to_string();
    assert!(message.contains("2 layers, the model has 3"), "{message}");
    std::fs::write(&path, "{\"format\": 1}").unwrap();
    assert!(Calibration::from_file(&path, &model.config).is_err());

    // A value outside of its interval is counted, with the place.
    let mut narrow = outcome.calibration.clone();
    narrow.layers[1].sigmoid.hi -=
        0.6 * (narrow.layers[1].sigmoid.hi - narrow.layers[1].sigmoid.lo);
    let evaluation = evaluate(
        &model,
        &ForwardOptions::new(Functions::Polynomial(&narrow)),
        &windows(4, 9_000),
    )
    .unwrap();
    let counts = evaluation.range.functions[&(1, FunctionKind::Sigmoid)];
    assert!(counts.outside > 0 && counts.worst > 1.0);
    assert!(evaluation.range.to_string().contains("layer 1 sigmoid"));
    // Every entry of every row is evaluated, masked ones too: 4 windows of 23 tokens, 4 heads.
    assert_eq!(counts.evaluated, 4 * 4 * 23 * 23);

    // A polynomial that explodes is reported as such, not as a number.
    narrow.layers[0].input_norm.coeffs[7] = 1e300;
    let exploded = evaluate(
        &model,
        &ForwardOptions::new(Functions::Polynomial(&narrow)),
        &windows(4, 9_000),
    )
    .unwrap();
    assert!(exploded.range.non_finite > 0 && exploded.perplexity().is_infinite());
    assert_eq!(exploded.agreement(&evaluation, 0.0), 0.0);
}

#[test]
fn intervals_cover_repeated_tokens() {
    let model = sigmoid_model();
    let text = windows(60, 700);
    let without = CalibrationOptions {
        stress_windows: 0,
        ..CalibrationOptions::default()
    };
    let narrow = calibrate(&model, &text, &without).unwrap();
    let with = CalibrationOptions {
        stress_windows: 128,
        ..CalibrationOptions::default()
    };
    let wide = calibrate(&model, &text, &with).unwrap();
    assert!(wide.target_met && narrow.target_met);
    assert_eq!(wide.greedy.leaving + wide.repeated.leaving, 0);
    assert_eq!((wide.repeated.sequences, wide.outside()), (12, 0));
    // What the narrow intervals leave out is said, and does not fail them.
    assert!(narrow.repeated.leaving > 0, "{narrow}");
    assert!(narrow.outside() > 0 && narrow.polynomial.range.outside() == 0);
    for (narrow, wide) in narrow
        .calibration
        .layers
        .iter()
        .zip(&wide.calibration.layers)
    {
        let (narrow, wide) = (
            narrow.attn_sub_norm.as_ref().unwrap(),
            wide.attn_sub_norm.as_ref().unwrap(),
        );
        // Rows that attend to the same token everywhere sum to far more than rows of text.
        assert!(wide.hi > 1.2 * narrow.hi, "{} {}", wide.hi, narrow.hi);
    }
    // Every token's embedding lies inside of the first layer's interval, whether text used it or not.
    for token in 0..64 {
        let row = model.embeddings.row(token);
        let ms = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / row.len() as f64;
        assert!(wide.calibration.layers[0].input_norm.contains(ms));
    }
}

#[test]
fn one_function_alone_and_models_without_sub_norms() {
    let mut config = config_json();
    config["model_type"] = json!("llama");
    config["hidden_act"] = json!("silu");
    let model = model_without_sub_norms(&config);
    let outcome = calibrate(&model, &windows(40, 300), &CalibrationOptions::default()).unwrap();
    println!("{outcome}");
    assert!(outcome.target_met);
    let layer = &outcome.calibration.layers[0];
    assert!(layer.attn_sub_norm.is_none() && layer.ffn_sub_norm.is_none());
    assert!(outcome.degrees.post_attention_norm >= 7);
    let text = windows(6, 900);
    let alone = evaluate(
        &model,
        &ForwardOptions::new(Functions::PolynomialOnly(
            &outcome.calibration,
            FunctionKind::Activation,
        )),
        &text,
    )
    .unwrap();
    assert!(
        alone
            .range
            .functions
            .keys()
            .all(|(_, kind)| *kind == FunctionKind::Activation)
    );
    assert_eq!(alone.range.functions.len(), 2);
    // A calibration of a model with sub-norms is refused.
    let with = sigmoid_model();
    let options = ForwardOptions::new(Functions::Polynomial(&outcome.calibration));
    let message = with.logits(&[1, 2], &options).unwrap_err().to_string();
    assert!(message.contains("attn_sub_norm"), "{message}");
}

fn model_without_sub_norms(config: &serde_json::Value) -> Model {
    let mut config = config.clone();
    config["architectures"] = json!(["LlamaForCausalLM"]);
    let model = model(&config, 12);
    assert!(!model.config.sub_norms);
    model
}

#[test]
fn bad_calibration_input_is_refused() {
    let model = sigmoid_model();
    let defaults = CalibrationOptions::default();
    let message =
        |w: &[Vec<u32>], o: &CalibrationOptions| calibrate(&model, w, o).unwrap_err().to_string();
    assert!(message(&windows(3, 1), &defaults).contains("3 windows"));
    let mut long = windows(5, 1);
    long[2] = ids(25, 64, 3);
    assert!(message(&long, &defaults).contains("25 tokens"));
    let options = CalibrationOptions {
        margin: 0.5,
        ..defaults.clone()
    };
    assert!(message(&windows(5, 1), &options).contains("margin"));
    let mut foreign = windows(5, 1);
    foreign[4][3] = 64;
    assert!(message(&foreign, &defaults).contains("token id 64"));
}

#[test]
fn head_biases_make_rows_sum_to_one() {
    struct Sums(Vec<Vec<f64>>);
    impl Probe for Sums {
        fn record(&mut self, layer: usize, quantity: Quantity, values: &Matrix) {
            if quantity == Quantity::Weights {
                for r in 0..values.rows {
                    let sum: f64 = values.row(r).iter().map(|w| f64::from(*w)).sum();
                    self.0[4 * layer + r / values.cols].push(sum);
                }
            }
        }
    }
    let mut model = model(&config_json(), 13);
    let text = windows(40, 500);
    tacit_bitnet::calibrate_head_biases(&mut model, &text).unwrap();
    assert_eq!(model.exact_functions().calibration(), None);
    assert_eq!(model.config.attention, tacit_bitnet::Attention::Sigmoid);
    assert_eq!(model.config.attn_sub_norm_eps.len(), 2);
    assert!(
        model
            .config
            .attn_sub_norm_eps
            .iter()
            .all(|e| *e > 1e-4 && *e < 0.1)
    );
    let mut sums = Sums(vec![Vec::new(); 8]);
    for window in &text {
        let mut cache = KvCache::new(&model.config);
        let options = ForwardOptions::new(Functions::ExactSigmoid);
        model
            .forward(window, &options, &mut cache, Some(&mut sums))
            .unwrap();
    }
    for (i, sums) in sums.0.iter().enumerate() {
        let mean = sums.iter().sum::<f64>() / sums.len() as f64;
        // The second layer sees inputs that the first layer's new attention has changed.
        let bound = if i < 4 { 1e-3 } else { 0.2 };
        assert!((mean - 1.0).abs() < bound, "head {i}: {mean}");
    }
    assert!(tacit_bitnet::calibrate_head_biases(&mut model, &[]).is_err());
}

/// Normalised sigmoids stand for softmax: nearer to it than balanced biases alone, and their polynomials near to themselves.
#[test]
fn normalised_rows_come_close_to_softmax() {
    let softmax = model(&config_json(), 13);
    let text = windows(60, 700);
    let mut biased = softmax.clone();
    tacit_bitnet::calibrate_head_biases(&mut biased, &text).unwrap();
    let mut normalised = softmax.clone();
    tacit_bitnet::normalise_rows(&mut normalised, &text).unwrap();
    let config = &normalised.config;
    assert_eq!(config.attention, tacit_bitnet::Attention::NormalisedSigmoid);
    assert_eq!(config.row_sum_eps.len(), 2);
    assert!(config.row_sum_eps.iter().all(|e| *e > 0.0 && *e < 0.1));
    let held_out = windows(20, 900);
    let logits = |m: &Model, functions: Functions| -> Vec<f32> {
        held_out
            .iter()
            .flat_map(|ids| m.logits(ids, &ForwardOptions::new(functions)).unwrap().data)
            .collect()
    };
    let exact = logits(&softmax, Functions::ExactSoftmax);
    let distance = |other: &[f32]| -> f64 {
        let difference: f64 = exact
            .iter()
            .zip(other)
            .map(|(a, b)| f64::from(a - b).powi(2))
            .sum();
        let size: f64 = exact.iter().map(|a| f64::from(*a).powi(2)).sum();
        (difference / size).sqrt()
    };
    let with_biases = distance(&logits(&biased, Functions::ExactSigmoid));
    let with_sums = distance(&logits(&normalised, Functions::ExactSigmoid));
    assert!(
        with_sums < 0.5 * with_biases,
        "{with_sums} normalised, {with_biases} with biases alone"
    );

    let outcome = calibrate(
        &normalised,
        &windows(120, 100),
        &CalibrationOptions::default(),
    )
    .unwrap();
    assert!(outcome.target_met, "{outcome}");
    for layer in &outcome.calibration.layers {
        assert_eq!(layer.sigmoid_squarings, 1);
        let (compression, inverse) = (
            layer.row_compression.as_ref().unwrap(),
            layer.row_inverse.as_ref().unwrap(),
        );
        assert!(compression.degree() <= 7);
        // grows, so that the inverse is a function of it
        let at = |i: usize| compression.lo + (compression.hi - compression.lo) * i as f64 / 500.0;
        assert!((0..500).all(|i| compression.eval(at(i)) < compression.eval(at(i + 1))));
        assert!(inverse.contains(compression.eval(compression.lo)));
        assert!(inverse.contains(compression.eval(compression.hi)));
    }
    let alone = Functions::PolynomialOnly(&outcome.calibration, FunctionKind::RowInverse);
    let near = logits(&normalised, alone);
    let own = logits(&normalised, Functions::ExactSigmoid);
    let worst = own
        .iter()
        .zip(&near)
        .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    let largest = own.iter().fold(0f32, |m, a| m.max(a.abs()));
    assert!(worst > 0.0 && worst < 0.1 * largest, "{worst} of {largest}");
    assert!(tacit_bitnet::normalise_rows(&mut normalised, &[]).is_err());
}
