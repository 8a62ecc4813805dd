//! The benchmark on generated video: the native model, its ablations and the baselines on the same clips.

use std::collections::HashMap;

use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;

use super::extract::{
    Encoder, Localisation, Seen, Selection, Treatment, extract, lessons, localisation,
    moment_thresholds,
};
use super::gate::{self, Gate};
use super::logistic::Logistic;
use super::metrics::{
    self, CLASSES, Interval, Scored, accuracy, binary_auc, bootstrap, calibration_error, confusion,
    macro_f1, one_versus_rest, tpr_at_fpr,
};
use crate::class::Class;
use crate::clip::Clip;
use crate::error::Result;
use crate::model::calibration::Calibration;
use crate::model::fusion::FusionMode;
use crate::model::native::data::Split;
use crate::model::native::head::{self, Features, Head};
use crate::model::native::lessons::{Lesson, LessonsProgress};
use crate::model::native::network::{self, Network};
use crate::model::native::{self, Card, NativeModel};
use crate::model::rce::{self, Confidence};

/// Places that the decision on persons is fitted on.
pub const PLACES: usize = 400;

/// The numbers of a clip that a baseline is given.
type Columns<'a> = &'a dyn Fn(&Seen) -> Vec<f32>;

/// How many clips of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Seed of the clips; the head's must be the one of its training.
    pub seed: u64,
    /// Clips that baselines and ablations are fitted on, the same as the head's.
    pub fit: usize,
    /// Clips of each of the two tests.
    pub test: usize,
    /// Clips under each treatment of the robustness grid; 0 leaves the grid out.
    pub treated: usize,
    /// Places that are looked at with a person and without.
    pub places: usize,
}

/// Measures of one classifier on one test.
#[derive(Clone, Debug, Serialize)]
pub struct Measures {
    /// Share of right classes.
    pub accuracy: Interval,
    /// Mean F1 of the classes.
    pub macro_f1: Interval,
    /// Mean one-versus-rest area.
    pub auc: Interval,
    /// Area of forged against real.
    pub binary_auc: Interval,
    /// Share of forged clips found when one real clip in a hundred is called forged.
    pub tpr_at_1_fpr: f64,
    /// Expected calibration error.
    pub calibration_error: f64,
    /// Rows truth, columns verdict, in label order.
    pub confusion: [[usize; CLASSES]; CLASSES],
}

/// Measures of scored clips.
pub fn measure(scored: &[Scored]) -> Measures {
    Measures {
        accuracy: bootstrap(scored, 1, accuracy),
        macro_f1: bootstrap(scored, 2, macro_f1),
        auc: bootstrap(scored, 3, one_versus_rest),
        binary_auc: bootstrap(scored, 4, binary_auc),
        tpr_at_1_fpr: tpr_at_fpr(scored, 0.01),
        calibration_error: calibration_error(scored),
        confusion: confusion(scored),
    }
}

/// Accuracy of `ours` less that of `other` on the same clips, clips drawn in pairs.
pub fn lead(ours: &[Scored], other: &[Scored]) -> Interval {
    let right = |s: &Scored| f64::from(u8::from(s.best() == s.label));
    let differences: Vec<f64> = ours
        .iter()
        .zip(other)
        .map(|(a, b)| right(a) - right(b))
        .collect();
    bootstrap(&differences, 5, |d| {
        d.iter().sum::<f64>() / d.len().max(1) as f64
    })
}

/// A classifier on both tests.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name.
    pub name: String,
    /// Held-out bodies, motions and places, operators that training has seen.
    pub seen: Measures,
    /// Operator families that training has not seen as well.
    pub unseen: Measures,
    /// The model's accuracy less this classifier's on the same clips, and the interval of that difference: seen operators.
    pub lead_seen: Interval,
    /// The same with unseen operators.
    pub lead_unseen: Interval,
}

/// One line of the robustness grid.
#[derive(Clone, Debug, Serialize)]
pub struct Treated {
    /// What was done to the clips.
    pub treatment: String,
    /// Share of right classes.
    pub accuracy: f64,
    /// Mean one-versus-rest area.
    pub auc: f64,
    /// Clips.
    pub clips: usize,
}

/// Answers kept when the least sure ones are left out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Kept {
    /// Share of clips answered at the model's own threshold.
    pub answered: f64,
    /// Share of those that are right.
    pub right: f64,
}

/// Everything the benchmark prints.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// What was run.
    pub plan: Plan,
    /// The model first, then ablations, then baselines.
    pub rows: Vec<Row>,
    /// Share of right classes per operator family, of the model, and number of clips.
    pub families: Vec<(String, f64, usize)>,
    /// Time and place, operators seen.
    pub localisation_seen: Localisation,
    /// Time and place, operators unseen.
    pub localisation_unseen: Localisation,
    /// Abstention on both tests together.
    pub abstention: Kept,
    /// Whether persons are seen, and their absence.
    pub gate: Gate,
    /// Robustness grid.
    pub treated: Vec<Treated>,
}

/// Fits fusion, head and calibration on generated clips, as `train` does at its end.
///
/// # Errors
/// When a fit fails.
pub fn fit_head(
    fit: &[Seen],
    calibrate: &[Seen],
    mode: FusionMode,
    confidence: Confidence,
    seed: u64,
) -> Result<(Head, Calibration)> {
    let labels: Vec<Class> = fit.iter().map(|s| s.label).collect();
    let priors: Vec<_> = fit.iter().map(|s| s.window.priors.scores).collect();
    let c = rce::confidences(&priors, &labels, confidence, seed)?;
    let features: Vec<&Features> = fit.iter().map(|s| &s.window.features).collect();
    let head = Head::fit(mode, &features, &labels, &c, seed)?;
    let affine = head.affine()?;
    let logits = calibrate
        .iter()
        .map(|s| s.window.features.logits(&affine))
        .collect::<Result<Vec<[f64; CLASSES]>>>()?;
    let labels: Vec<Class> = calibrate.iter().map(|s| s.label).collect();
    let calibration = Calibration {
        moments: moment_thresholds(calibrate),
        ..Calibration::fit(&logits, &labels)
    };
    Ok((head, calibration))
}

/// A network of these tensors of the trunk, its layers over time still at random.
///
/// # Errors
/// When tensors cannot be made.
pub fn with_trunk(trunk: HashMap<String, Tensor>, seed: u64) -> Result<Network> {
    let mut tensors = network::initial(seed)?;
    for (n, t) in trunk {
        tensors.insert(format!("trunk.{n}"), t);
    }
    Ok(Network::new(tensors))
}

/// Makes a model of a trained trunk: renders pairs of clips and trains the layers over time on what the trunk sees in them; renders
/// clips for the head and for calibration, and places with and without a person, and fits all three. `done` is called after each clip, `progress` while the layers learn.
///
/// # Errors
/// When rendering, looking, training or fitting fails.
pub fn finish(
    trunk: HashMap<String, Tensor>,
    card: Card,
    done: &(dyn Fn() + Sync),
    progress: impl FnMut(&LessonsProgress),
) -> Result<NativeModel> {
    let seed = card.training.seed;
    let network = with_trunk(trunk, seed)?;
    let pairs = (0..card.lessons.pairs as u64)
        .into_par_iter()
        .map(|pair| {
            let both = lessons(&network, seed, pair);
            done();
            done();
            both
        })
        .collect::<Result<Vec<_>>>()?;
    let pairs: Vec<Lesson> = pairs.into_iter().flatten().collect();
    let time = native::lessons::train(&card.lessons, &pairs, progress)?;
    drop(pairs);
    let network = with_time(&network, time);
    let unused = |clip: &Clip, _: u8| -> Result<Clip> { Ok(clip.clone()) };
    let get = |split, count| {
        let selection = Selection {
            split,
            held_out_scenes: false,
            held_out_operators: false,
            count,
            place: None,
        };
        extract(&network, &selection, seed, Treatment::None, &unused, done)
    };
    let fit = get(Split::Head, card.head_clips)?;
    let calibrate = get(Split::Calibration, card.calibration_clips)?;
    let card = Card {
        presence: Some(gate::fit(&network, seed, PLACES, done)?),
        ..card
    };
    finish_on(network, card, &fit, &calibrate)
}

/// The network with these layers over time.
pub fn with_time(network: &Network, time: HashMap<String, Tensor>) -> Network {
    let mut tensors = network.tensors().clone();
    tensors.extend(time.into_iter().map(|(n, t)| (format!("time.{n}"), t)));
    Network::new(tensors)
}

/// [`finish`] on clips that were seen already.
///
/// # Errors
/// When fitting fails.
pub fn finish_on(
    network: Network,
    mut card: Card,
    fit: &[Seen],
    calibrate: &[Seen],
) -> Result<NativeModel> {
    let (head, calibration) = fit_head(
        fit,
        calibrate,
        FusionMode::Gated,
        Confidence::Rank,
        card.training.seed,
    )?;
    card.calibration = calibration;
    NativeModel::new(network, head, card)
}

/// Runs the benchmark; `done` is called after each clip.
///
/// # Errors
/// When rendering, looking or fitting fails.
pub fn run(
    model: &NativeModel,
    plan: Plan,
    encode: &Encoder,
    done: &(dyn Fn() + Sync),
) -> Result<Bench> {
    let select = |split, held_out_scenes, held_out_operators, count| Selection {
        split,
        held_out_scenes,
        held_out_operators,
        count,
        place: None,
    };
    let get = |s: &Selection, t| extract(model.network(), s, plan.seed, t, encode, done);
    let fit = get(
        &select(Split::Head, false, false, plan.fit),
        Treatment::None,
    )?;
    let seen = get(
        &select(Split::Test, true, false, plan.test),
        Treatment::None,
    )?;
    let unseen = get(&select(Split::Test, true, true, plan.test), Treatment::None)?;
    let gate = gate::measure(model, plan.seed, plan.places, done)?;
    let mut bench = tables(model, plan, &fit, &seen, &unseen, gate)?;
    if plan.treated > 0 {
        bench.treated = robustness(model, plan, encode, done)?;
    }
    Ok(bench)
}

/// The robustness grid: the same clips under every treatment, operators seen.
///
/// # Errors
/// When rendering, encoding or looking fails.
pub fn robustness(
    model: &NativeModel,
    plan: Plan,
    encode: &Encoder,
    done: &(dyn Fn() + Sync),
) -> Result<Vec<Treated>> {
    let clips = Selection {
        split: Split::Test,
        held_out_scenes: true,
        held_out_operators: false,
        count: plan.treated,
        place: None,
    };
    [
        Treatment::None,
        Treatment::Crf(23),
        Treatment::Crf(28),
        Treatment::Crf(35),
        Treatment::HalfSize,
        Treatment::DroppedFrames,
    ]
    .into_iter()
    .map(|t| {
        let set = extract(model.network(), &clips, plan.seed, t, encode, done)?;
        let scores = scored(&set, &|s| ours(model, s))?;
        Ok(Treated {
            treatment: t.name(),
            accuracy: metrics::accuracy(&scores),
            auc: one_versus_rest(&scores),
            clips: set.len(),
        })
    })
    .collect()
}

/// Probabilities of a clip by the model.
fn ours(model: &NativeModel, s: &Seen) -> Result<[f64; CLASSES]> {
    let logits = model.logits(&s.window.features)?;
    Ok(model.card.calibration.classes(&logits))
}

fn scored(set: &[Seen], p: &dyn Fn(&Seen) -> Result<[f64; CLASSES]>) -> Result<Vec<Scored>> {
    set.iter()
        .map(|s| {
            Ok(Scored {
                probabilities: p(s)?,
                label: s.label,
            })
        })
        .collect()
}

/// The tables, from clips that were seen already: those of the head's fit, and of both tests.
///
/// # Errors
/// When a fit fails.
pub fn tables(
    model: &NativeModel,
    plan: Plan,
    fit: &[Seen],
    seen: &[Seen],
    unseen: &[Seen],
    gate: Gate,
) -> Result<Bench> {
    let mut rows = Vec::new();
    let best = [
        scored(seen, &|s| ours(model, s))?,
        scored(unseen, &|s| ours(model, s))?,
    ];
    let mut add = |name: &str, p: &dyn Fn(&Seen) -> Result<[f64; CLASSES]>| -> Result<()> {
        let (seen, unseen) = (scored(seen, p)?, scored(unseen, p)?);
        rows.push(Row {
            name: name.to_owned(),
            lead_seen: lead(&best[0], &seen),
            lead_unseen: lead(&best[1], &unseen),
            seen: measure(&seen),
            unseen: measure(&unseen),
        });
        Ok(())
    };
    add("native model (gated fusion, RCE by rank)", &|s| {
        ours(model, s)
    })?;
    for (name, mode, confidence) in [
        (
            "  paper's fusion, one scalar",
            FusionMode::Paper,
            Confidence::Rank,
        ),
        ("  no RCE", FusionMode::Gated, Confidence::None),
        ("  RCE by score", FusionMode::Gated, Confidence::Score),
        (
            "  RCE, ranks shuffled",
            FusionMode::Gated,
            Confidence::Shuffled,
        ),
    ] {
        // Calibrated on the fit itself: only the order of these rows' classes is compared.
        let (head, calibration) = fit_head(fit, fit, mode, confidence, plan.seed)?;
        let affine = head.affine()?;
        add(name, &|s| {
            Ok(calibration.classes(&s.window.features.logits(&affine)?))
        })?;
    }
    let labels: Vec<usize> = fit.iter().map(|s| s.label.label()).collect();
    let pick: [(&str, Columns); 7] = [
        ("appearance-motion branch alone", &|s| {
            s.window.features.video[..network::VIDEO_WIDTH].to_vec()
        }),
        ("structure branch alone", &|s| {
            s.window.features.depth.clone()
        }),
        ("priors, logistic regression", &|s| {
            s.window.features.video[head::PRIORS].to_vec()
        }),
        ("priors and their statistics, logistic regression", &|s| {
            s.window.features.video[head::PRIORS.start..head::STATISTICS.end].to_vec()
        }),
        ("D3, logistic regression", &|s| {
            s.window.features.video[head::D3].to_vec()
        }),
        ("trajectory features, logistic regression", &|s| {
            s.window.features.video[head::TRAJECTORY].to_vec()
        }),
        ("metadata only, logistic regression", &|s| {
            s.metadata.clone()
        }),
    ];
    for (name, columns) in pick {
        let x: Vec<Vec<f32>> = fit.iter().map(columns).collect();
        let regression = {
            let width = x.first().map_or(0, Vec::len);
            Logistic::fit(
                &x,
                &labels,
                &vec![1.0; x.len()],
                std::slice::from_ref(&(0..width)),
            )?
        };
        add(name, &|s| regression.probabilities(&columns(s)))?;
    }
    add("majority class", &|_| Ok([0.0, 0.0, 0.0, 1.0]))?;

    let both: Vec<&Seen> = seen.iter().chain(unseen).collect();
    let mut families: std::collections::BTreeMap<String, (usize, usize)> =
        std::collections::BTreeMap::new();
    let (mut answered, mut right) = (0usize, 0usize);
    for s in &both {
        let one = Scored {
            probabilities: ours(model, s)?,
            label: s.label,
        };
        let name = if s.family.is_empty() {
            "(real)"
        } else {
            &s.family
        };
        let entry = families.entry(format!("{} / {name}", s.label)).or_default();
        entry.0 += usize::from(one.best() == s.label);
        entry.1 += 1;
        if one.probabilities[one.best().label()] >= model.card.calibration.abstain_below {
            answered += 1;
            right += usize::from(one.best() == s.label);
        }
    }
    Ok(Bench {
        plan,
        rows,
        families: families
            .into_iter()
            .map(|(f, (r, n))| (f, r as f64 / n as f64, n))
            .collect(),
        localisation_seen: localisation(seen, &model.card.calibration.moments),
        localisation_unseen: localisation(unseen, &model.card.calibration.moments),
        abstention: Kept {
            answered: answered as f64 / both.len().max(1) as f64,
            right: right as f64 / answered.max(1) as f64,
        },
        gate,
        treated: Vec::new(),
    })
}
