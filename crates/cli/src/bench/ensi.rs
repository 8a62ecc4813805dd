//! `tacit bench ensi`: the paper's claims beside what this engine does, operation by operation, on one machine.
//!
//! What is measured here, at 128-bit parameters: the ternary product with its ring switch and repack; ENSI's column form of the same product,
//! one addition timed and scaled by the number of additions; the sigmoid on a full ciphertext of scores; a norm over six ciphertexts.
//! Times of NEXUS (Zhang et al., NDSS 2025) were measured once with its public code, one core of such a machine; they are constants of this
//! file, not measurements of it.

use std::time::Instant;

use num_complex::Complex64;
use serde::Serialize;
use tacit_bitnet::{ChebyshevSeries, synth};
use tacit_ckks::{Context, Encoder, Evaluator, KeyGenerator, KeyShape, Parameters, encrypt};
use tacit_ensi::layout::Layout;
use tacit_ensi::transformer::attention::HeadLayout;
use tacit_ring::galois_of_rotation;

use super::{engine_failure, linear, median};
use crate::args::{EnsiArgs, Global, LinearArgs};
use crate::exit::Outcome;
use crate::interrupt;
use crate::output::{Table, print_json, seconds};

/// Seconds of NEXUS's softmax on 128 x 128 scores, one core.
const NEXUS_SOFTMAX: f64 = 4.8;
/// Seconds of NEXUS's LayerNorm on 16 x 768 values, one core.
const NEXUS_LAYER_NORM: f64 = 8.1;
/// Limbs at which the column form is assumed to add: half of a usual chain.
const COLUMN_LIMBS: usize = 10;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Claim {
    what: String,
    /// What the paper says about its own gain.
    paper: &'static str,
    other: String,
    /// Seconds (or a count) of the other way.
    theirs: f64,
    ours: f64,
    ratio: f64,
    target: f64,
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    threads: usize,
    claims: Vec<Claim>,
}

/// Runs the command.
pub fn run(args: &EnsiArgs, global: &Global) -> Outcome {
    let shape = &synth::SHAPES[0];
    let tokens = 128usize;
    let mut claims = Vec::new();
    let mut claim = |what: String, paper, other: String, theirs: f64, ours: f64, target| {
        claims.push(Claim {
            what,
            paper,
            other,
            theirs,
            ours,
            ratio: theirs / ours,
            target,
        });
    };

    // the ternary product, and the column form of it
    let product = linear::total_seconds(&LinearArgs {
        d_in: shape.hidden,
        d_out: shape.hidden,
        tokens,
        words: 64,
        runs: args.runs,
    })?;
    let pieces = Pieces::measure(args.runs)?;
    let additions = (shape.hidden * shape.hidden) as f64 * 2.0 / 3.0;
    let columns = additions * pieces.addition;
    let batch = (Parameters::default_128().slots() / tokens) as f64;
    claim(
        format!(
            "ternary product {0} x {0}, one prompt of {tokens} tokens, s",
            shape.hidden
        ),
        "about 8x",
        format!("column form, {additions:.0} additions of {COLUMN_LIMBS} limbs"),
        columns,
        product,
        100.0,
    );
    claim(
        format!("the same for a full batch of {batch:.0} prompts, s"),
        "about 8x",
        "column form, as many additions".into(),
        columns,
        product * batch,
        8.0,
    );
    claim(
        "attention's non-linearity, 128 x 128 scores, s".into(),
        "2.6x",
        "NEXUS softmax (measured once, see the source)".into(),
        NEXUS_SOFTMAX,
        pieces.sigmoid * (tokens * tokens) as f64 / pieces.slots as f64,
        20.0,
    );
    claim(
        format!("norm of {tokens} x {} values, us a value", shape.hidden),
        "",
        "NEXUS LayerNorm (measured once, see the source)".into(),
        1e6 * NEXUS_LAYER_NORM / (16.0 * 768.0),
        1e6 * pieces.norm / (tokens * shape.hidden) as f64,
        20.0,
    );
    let layout =
        Layout::new(Parameters::default_128().n(), tokens).map_err(crate::session::failure)?;
    let heads = HeadLayout::new(
        layout,
        shape.heads,
        shape.heads / shape.kv_heads,
        shape.hidden / shape.heads,
    )
    .map_err(crate::session::failure)?;
    let vector = layout.ciphertexts(shape.hidden);
    let ours = heads.packed_ciphertexts()
        + (vector + 1).div_ceil(2)
        + layout.ciphertexts(shape.ffn)
        + vector.div_ceil(2);
    claim(
        format!("bootstraps of a layer of {}, {tokens} tokens", shape.name),
        "1 % of the time",
        "column form, one for each output of a linear layer".into(),
        (4 * shape.hidden + 2 * shape.ffn + shape.hidden) as f64,
        ours as f64,
        15_872.0 / 40.0,
    );
    let report = Report {
        threads: rayon::current_num_threads(),
        claims,
    };
    if global.json {
        return print_json(&report);
    }
    let mut table = Table::new(&[
        "",
        "paper's gain",
        "other way",
        "theirs",
        "ours",
        "ratio",
        "aimed at",
    ]);
    for c in &report.claims {
        table.row(vec![
            c.what.clone(),
            c.paper.into(),
            c.other.clone(),
            seconds(c.theirs),
            seconds(c.ours),
            format!("{:.0}", c.ratio),
            format!("{:.0}", c.target),
        ]);
    }
    print!("{}", table.render());
    println!("\n{} threads; NEXUS used one core", report.threads);
    Ok(())
}

/// Seconds of single pieces, medians.
struct Pieces {
    /// One addition of ciphertexts of [`COLUMN_LIMBS`] limbs.
    addition: f64,
    /// A sigmoid of degree 15 on a full ciphertext, at the level where attention does it.
    sigmoid: f64,
    /// RMSNorm over six ciphertexts: 1,536 features of 128 tokens, an inverse root of degree 7.
    norm: f64,
    slots: usize,
}

impl Pieces {
    fn measure(runs: u32) -> Outcome<Self> {
        /// Level of the scores in the encrypted model, and of the residual stream.
        const LEVEL: usize = 10;
        const CIPHERTEXTS: usize = 6;
        const TOKENS: i64 = 128;
        let context = Context::new(Parameters::default_128()).map_err(engine_failure)?;
        let params = context.params();
        let mut generator = KeyGenerator::new(context.clone());
        let secret = generator.secret();
        let key = KeyShape {
            level: LEVEL,
            special: params.p_len(),
        };
        let blocks = params.slots() as i64 / TOKENS;
        let rotations: Vec<(u64, KeyShape)> = (0..blocks.ilog2())
            .map(|bit| (galois_of_rotation(params.n(), TOKENS << bit), key))
            .collect();
        let keys = generator
            .evaluation_keys(&secret, key, &rotations)
            .map_err(engine_failure)?;
        let evaluator = Evaluator::new(context.clone());
        let encoder = Encoder::new(context.clone());
        let values: Vec<Complex64> = (0..params.slots())
            .map(|i| Complex64::new(((i * 37 % 1001) as f64 / 500.5 - 1.0) * 0.9, 0.0))
            .collect();
        let scale = params.user_scale();
        let mut rng = tacit_ring::sampling::secure_rng();
        let plain = encoder
            .encode(&values, scale, LEVEL)
            .map_err(engine_failure)?;
        let ct = encrypt::encrypt_symmetric(&plain, &secret, &mut rng).map_err(engine_failure)?;
        let low = evaluator
            .drop_to_level(&ct, COLUMN_LIMBS - 1)
            .map_err(engine_failure)?;
        let time = |what: &mut dyn FnMut() -> Result<(), tacit_ckks::CkksError>| -> Outcome<f64> {
            let mut taken = Vec::new();
            for _ in 0..=runs {
                interrupt::check()?;
                let start = Instant::now();
                what().map_err(engine_failure)?;
                taken.push(start.elapsed().as_secs_f64());
            }
            // the first one touches memory for the first time
            Ok(median(&taken[1..]))
        };
        let sigmoid = ChebyshevSeries::fit(-12.0, 6.0, 15, |z| 1.0 / (1.0 + (-z).exp()))
            .map_err(crate::model::failure)?;
        let root = ChebyshevSeries::fit(0.05, 2.0, 7, |v| 1.0 / v.sqrt())
            .map_err(crate::model::failure)?;
        const ADDITIONS: u32 = 20;
        let mut sum = low.clone();
        let addition = time(&mut || {
            for _ in 0..ADDITIONS {
                evaluator.add_assign(&mut sum, &low)?;
            }
            Ok(())
        })? / f64::from(ADDITIONS);
        let sigmoid = time(&mut || {
            evaluator
                .evaluate_chebyshev(&ct, &sigmoid.coeffs, scale, &keys)
                .map(drop)
        })?;
        let data = vec![ct.clone(); CIPHERTEXTS];
        let norm = time(&mut || {
            let pairs: Vec<_> = data.iter().map(|ct| (ct, ct)).collect();
            let squares = evaluator.dot_tensor(&pairs)?;
            let mut sum = evaluator.relinearise_rescale(&squares, &keys)?;
            for bit in 0..blocks.ilog2() {
                let moved = evaluator.rotate(&sum, TOKENS << bit, &keys)?;
                sum = evaluator.add(&sum, &moved)?;
            }
            sum.scale = scale;
            let inverse = evaluator.evaluate_chebyshev(&sum, &root.coeffs, scale, &keys)?;
            for ct in &data {
                evaluator.mul(ct, &inverse, &keys)?;
            }
            Ok(())
        })?;
        Ok(Self {
            addition,
            sigmoid,
            norm,
            slots: params.slots(),
        })
    }
}
