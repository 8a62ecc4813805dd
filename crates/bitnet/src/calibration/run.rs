//! The calibration itself: rounds of measuring and fitting, then degrees raised until the target is met.

use super::evaluate::{Evaluation, evaluate};
use super::fit::{Seen, fit};
use super::measure::{Statistics, measure};
use super::stress::{SequenceReport, Stress, leaving, repeated_tokens};
use super::{Calibration, MaxAbs};
use crate::checkpoint::Model;
use crate::config::{Activation, Attention};
use crate::error::BitnetError;
use crate::functions::{ForwardOptions, FunctionKind, Functions};

/// Rounds of measuring with polynomials after the exact one.
const ROUNDS: usize = 3;
/// How often margins may be widened because held-out sequences left the intervals, and by which factor.
const WIDENINGS: usize = 4;
const WIDENING: f64 = 1.25;
/// Sequences of each kind that are tried on the finished polynomials when intervals need not cover them.
const TRIED: usize = 32;

/// Degree of each function's polynomial, the same in all layers. `2^k - 1` costs k levels under encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degrees {
    /// Inverse root of the input norm.
    pub input_norm: usize,
    /// Sigmoid.
    pub sigmoid: usize,
    /// Inverse of a row's sum.
    pub row_inverse: usize,
    /// Inverse root of `attn_sub_norm`.
    pub attn_sub_norm: usize,
    /// Inverse root of the post-attention norm.
    pub post_attention_norm: usize,
    /// Activation.
    pub activation: usize,
    /// Inverse root of `ffn_sub_norm`.
    pub ffn_sub_norm: usize,
}

impl Degrees {
    /// The degree of a function.
    pub fn of(&self, kind: FunctionKind) -> usize {
        let mut copy = *self;
        *copy.field(kind)
    }

    /// The degree of a function, mutable.
    pub fn field(&mut self, kind: FunctionKind) -> &mut usize {
        match kind {
            FunctionKind::InputNorm => &mut self.input_norm,
            FunctionKind::Sigmoid => &mut self.sigmoid,
            FunctionKind::RowInverse => &mut self.row_inverse,
            FunctionKind::AttnSubNorm => &mut self.attn_sub_norm,
            FunctionKind::PostAttentionNorm => &mut self.post_attention_norm,
            FunctionKind::Activation => &mut self.activation,
            FunctionKind::FfnSubNorm => &mut self.ffn_sub_norm,
        }
    }
}

/// Choices of a calibration.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationOptions {
    /// Degrees to begin with. `post_attention_norm` is lowered to 1 where squared ReLU and `ffn_sub_norm` undo its error.
    pub degrees: Degrees,
    /// Degrees that are never exceeded.
    pub largest: Degrees,
    /// Norms' intervals are `[smallest / margin, largest * margin]`.
    pub norm_margin: f64,
    /// Half-width of the sigmoid's and the activation's intervals is multiplied by this.
    pub margin: f64,
    /// Weight of a uniform distribution in the fits, beside the measured one.
    pub uniform_share: f64,
    /// Sequences that the model writes greedily, and as many of repeated tokens, whose ranges the intervals cover too.
    /// 0 by default: intervals that cover endless repetition cost bits. With 128, the shipped model's series keep their
    /// degrees, and one encrypted token had 12.2 bits instead of 15 to 16 (a single prompt).
    pub stress_windows: usize,
    /// As `norm_margin`, for those sequences.
    pub stress_margin: f64,
    /// Weight of those sequences in the norms' fits.
    pub stress_share: f64,
    /// Share of the windows (the last ones) that is held out to verify on.
    pub held_out: f64,
    /// Largest relative increase of perplexity over the exact functions.
    pub perplexity_target: f64,
    /// Smallest share of predictions with the exact functions' most probable token.
    pub agreement_target: f64,
}

impl Default for CalibrationOptions {
    fn default() -> Self {
        Self {
            degrees: Degrees {
                input_norm: 7,
                sigmoid: 15,
                row_inverse: 15,
                attn_sub_norm: 31,
                post_attention_norm: 7,
                activation: 15,
                ffn_sub_norm: 15,
            },
            largest: Degrees {
                input_norm: 15,
                sigmoid: 31,
                row_inverse: 63,
                attn_sub_norm: 63,
                post_attention_norm: 15,
                activation: 31,
                ffn_sub_norm: 31,
            },
            norm_margin: 2.0,
            margin: 1.25,
            uniform_share: 0.02,
            stress_windows: 0,
            stress_margin: 1.25,
            stress_share: 0.02,
            held_out: 0.2,
            perplexity_target: 0.01,
            agreement_target: 0.0,
        }
    }
}

/// A calibration and how it did on held-out text.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationOutcome {
    /// The polynomials and ranges.
    pub calibration: Calibration,
    /// Degrees in use.
    pub degrees: Degrees,
    /// Held-out text with exact functions (sigmoid attention).
    pub exact: Evaluation,
    /// Held-out text with the polynomials.
    pub polynomial: Evaluation,
    /// Sequences that the model writes greedily, begun with held-out text, with the polynomials.
    pub greedy: SequenceReport,
    /// Repeated tokens and phrases of held-out text, with the polynomials.
    pub repeated: SequenceReport,
    /// Whether the targets were met and held-out text lies inside of the intervals; greedy and repeated sequences too where
    /// intervals were to cover them (`stress_windows`).
    pub target_met: bool,
}

impl CalibrationOutcome {
    /// Relative change of perplexity from exact functions to polynomials.
    pub fn perplexity_change(&self) -> f64 {
        (self.polynomial.loss - self.exact.loss).exp_m1()
    }

    /// Evaluations outside of their intervals: held-out text, greedy and repeated sequences together.
    pub fn outside(&self) -> usize {
        self.polynomial.range.outside()
            + self.greedy.range.outside()
            + self.repeated.range.outside()
    }
}

impl std::fmt::Display for CalibrationOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "held-out text, {} predictions: perplexity {:.4} exact, {:.4} with polynomials ({:+.3} %); same top token {:.2} % \
             ({:.2} % where the top two logits differ by 0.25 or more)",
            self.exact.predictions,
            self.exact.perplexity(),
            self.polynomial.perplexity(),
            100.0 * self.perplexity_change(),
            100.0 * self.polynomial.agreement(&self.exact, 0.0),
            100.0 * self.polynomial.agreement(&self.exact, 0.25),
        )?;
        let layer = self.calibration.layers.first();
        let degrees: Vec<String> = FunctionKind::ALL
            .iter()
            .filter(|kind| layer.is_some_and(|l| l.series_of(**kind).is_some()))
            .map(|kind| format!("{} {}", kind.name(), self.degrees.of(*kind)))
            .collect();
        writeln!(f, "degrees: {}", degrees.join(", "))?;
        write!(f, "text: {}", self.polynomial.range)?;
        write!(f, "greedy answers: {}", self.greedy)?;
        write!(f, "repeated tokens and phrases: {}", self.repeated)?;
        if !self.target_met {
            writeln!(
                f,
                "the target was not met with the degrees and margins allowed"
            )?;
        }
        Ok(())
    }
}

/// Measures `windows` (token ids, each at most the model's context long, each read from position 0) and fits the polynomials
/// that stand for the model's functions under encryption. The model is run with sigmoid attention.
///
/// Distributions are measured with the exact functions first and then with the polynomials themselves, since a polynomial
/// changes what the next one sees. Intervals take the union of all rounds and the biases that masked attention entries have, plus margins;
/// with `stress_windows` they also cover sequences that the model writes greedily and repeated tokens and phrases, whose
/// attention rows sum to much more than those of text. Without, a few such sequences are tried and counted, and not more.
/// Degrees go up from `options.degrees`, always for the function whose polynomial alone costs most agreement, until the
/// targets are met on held-out windows or `options.largest` is reached. Margins are widened, up to four times by a quarter, when
/// held-out sequences leave the intervals.
///
/// # Errors
/// When there are fewer than 4 windows, a window is too long, an option is out of its range, or activations are not finite.
pub fn calibrate(
    model: &Model,
    windows: &[Vec<u32>],
    options: &CalibrationOptions,
) -> Result<CalibrationOutcome, BitnetError> {
    check(model, windows, options)?;
    let held_out =
        ((windows.len() as f64 * options.held_out).ceil() as usize).clamp(1, windows.len() / 2);
    let (text, held_out) = windows.split_at(windows.len() - held_out);
    let context = windows.iter().map(Vec::len).max().unwrap_or(1);
    let mut degrees = options.degrees;
    let homogeneous = model.config.activation == Activation::SquaredRelu
        && model.layers.iter().all(|l| l.ffn_sub_norm.is_some());
    if homogeneous {
        degrees.post_attention_norm = degrees.post_attention_norm.min(1);
    }

    let exact_options = ForwardOptions::new(Functions::ExactSigmoid);
    let covers_stress = options.stress_windows > 0;
    let stress = Stress::new(model, text, options.stress_windows)?;
    let tried = if covers_stress {
        options.stress_windows
    } else {
        TRIED
    };
    let held_out_stress = Stress::new(model, held_out, tried)?;
    let exact_seen = measure(model, text, &exact_options)?;
    if exact_seen.range.non_finite > 0 {
        return Err(BitnetError::input(
            format!(
                "the exact model gives {} hidden values that are not finite",
                exact_seen.range.non_finite
            ),
            "the weights are damaged: take another checkpoint",
        ));
    }
    let exact = evaluate(model, &exact_options, held_out)?;
    let mut options = options.clone();
    if model.config.attention == Attention::NormalisedSigmoid {
        // the squaring behind it takes the level that a higher degree would
        options.largest.sigmoid = options.largest.sigmoid.min(options.degrees.sigmoid);
    }
    let options = &mut options;
    let mut widenings = 0;
    let mut first = Seen::default();
    first.reach(
        model,
        &repeated_tokens(model, context, options.stress_windows)?,
    );
    let exact_stress = stress.measure(model, &exact_options)?;
    let mut max_abs = widest(&exact_seen, &exact_stress);
    first.update(model, exact_seen, exact_stress, context);
    loop {
        let mut seen = first.clone();
        let mut calibration = fit(model, &seen, &degrees, &*options, context)?;
        for round in 0..ROUNDS {
            // The first round replaces the coarsest polynomial only, so that the others see its effect without failing.
            let functions = if round == 0 {
                Functions::PolynomialOnly(&calibration, FunctionKind::PostAttentionNorm)
            } else {
                Functions::Polynomial(&calibration)
            };
            let functions = ForwardOptions::new(functions);
            let on_text = measure(model, text, &functions)?;
            let on_stress = stress.measure(model, &functions)?;
            let outside = on_text.range.outside() + on_stress.range.outside();
            tracing::info!(round, outside, "measured with polynomials");
            let trusted = on_text.range.non_finite == 0 && on_stress.range.non_finite == 0;
            if trusted {
                for (mine, theirs) in max_abs.iter_mut().zip(widest(&on_text, &on_stress)) {
                    mine.widen(&theirs);
                }
                let max_abs_final = calibration.max_abs_final;
                seen.update(model, on_text, on_stress, context);
                calibration = fit(model, &seen, &degrees, &*options, context)?;
                calibration.max_abs_final = max_abs_final.max(calibration.max_abs_final);
                for (layer, max_abs) in calibration.layers.iter_mut().zip(&max_abs) {
                    layer.max_abs = *max_abs;
                }
            }
            if round > 0 && trusted && outside == 0 {
                break;
            }
        }
        let polynomials = ForwardOptions::new(Functions::Polynomial(&calibration));
        let polynomial = evaluate(model, &polynomials, held_out)?;
        let greedy = leaving(model, &held_out_stress.greedy, &polynomials)?;
        let repeated = leaving(model, &held_out_stress.repeated, &polynomials)?;
        let mut outcome = CalibrationOutcome {
            calibration,
            degrees,
            exact: exact.clone(),
            polynomial,
            greedy,
            repeated,
            target_met: false,
        };
        let stress_inside = outcome.greedy.leaving + outcome.repeated.leaving == 0;
        let inside = outcome.polynomial.range.outside() == 0 && (stress_inside || !covers_stress);
        let close = outcome.perplexity_change() <= options.perplexity_target
            && outcome.polynomial.agreement(&outcome.exact, 0.0) >= options.agreement_target;
        outcome.target_met = inside && close;
        tracing::info!("{outcome}");
        if outcome.target_met {
            return Ok(outcome);
        }
        // Margins first: no degree helps a value outside of its interval.
        if !inside && widenings < WIDENINGS {
            widenings += 1;
            options.stress_margin *= WIDENING;
            if outcome.polynomial.range.outside() > 0 {
                options.norm_margin *= WIDENING;
                options.margin *= WIDENING;
            }
            continue;
        }
        if close {
            return Ok(outcome);
        }
        match worst(model, &outcome, &degrees, options, homogeneous, held_out)? {
            Some(kind) => {
                let degree = degrees.field(kind);
                *degree = (2 * *degree + 1).min(options.largest.of(kind));
            }
            None => return Ok(outcome),
        }
    }
}

/// Largest absolute values of text and stress sequences.
fn widest(text: &Statistics, stress: &Statistics) -> Vec<MaxAbs> {
    let mut all: Vec<MaxAbs> = text.layers.iter().map(|l| l.max_abs).collect();
    for (mine, theirs) in all.iter_mut().zip(&stress.layers) {
        mine.widen(&theirs.max_abs);
    }
    all
}

/// The function whose polynomial alone costs most agreement, among those whose degree may still go up.
fn worst(
    model: &Model,
    outcome: &CalibrationOutcome,
    degrees: &Degrees,
    options: &CalibrationOptions,
    homogeneous: bool,
    held_out: &[Vec<u32>],
) -> Result<Option<FunctionKind>, BitnetError> {
    let mut worst: Option<(FunctionKind, f64)> = None;
    for kind in FunctionKind::ALL {
        let absent = outcome
            .calibration
            .layers
            .iter()
            .all(|l| l.series_of(kind).is_none());
        let undone = homogeneous && kind == FunctionKind::PostAttentionNorm;
        if absent || undone || degrees.of(kind) >= options.largest.of(kind) {
            continue;
        }
        let only = ForwardOptions::new(Functions::PolynomialOnly(&outcome.calibration, kind));
        let alone = evaluate(model, &only, held_out)?;
        let agreement = alone.agreement(&outcome.exact, 0.0);
        tracing::info!(
            function = kind.name(),
            degree = degrees.of(kind),
            agreement,
            "alone"
        );
        if worst.is_none_or(|(_, least)| agreement < least) {
            worst = Some((kind, agreement));
        }
    }
    Ok(worst.map(|(kind, _)| kind))
}

fn check(
    model: &Model,
    windows: &[Vec<u32>],
    options: &CalibrationOptions,
) -> Result<(), BitnetError> {
    if windows.len() < 4 {
        return Err(BitnetError::input(
            format!(
                "{} windows of text are too few to calibrate on",
                windows.len()
            ),
            "give at least 4, better 500, windows of the model's context length",
        ));
    }
    if let Some(w) = windows
        .iter()
        .find(|w| w.len() > model.config.context || w.is_empty())
    {
        return Err(BitnetError::input(
            format!(
                "a calibration window has {} tokens, the model reads 1 to {}",
                w.len(),
                model.config.context
            ),
            "cut the text into windows of the model's context length",
        ));
    }
    let good = options.norm_margin >= 1.0
        && options.margin >= 1.0
        && options.stress_margin >= 1.0
        && (0.0..0.5).contains(&options.stress_share)
        && (0.0..=0.5).contains(&options.uniform_share)
        && options.uniform_share > 0.0
        && (0.0..1.0).contains(&options.held_out)
        && FunctionKind::ALL
            .iter()
            .all(|k| (1..=127).contains(&options.degrees.of(*k)));
    if !good {
        return Err(BitnetError::input(
            format!("calibration options are out of range: {options:?}"),
            "margins are 1 or more, shares between 0 and 1, degrees 1 to 127",
        ));
    }
    Ok(())
}
