//! Fusion and head of the native model, fitted on the features of the frozen branches with the RCE loss, as HumanSAM trains
//! them; and what else than learned features goes into them.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use candle_core::{Device, Tensor, Var};

use super::network::{DEPTH_WIDTH, VIDEO_WIDTH};
use super::window_priors::{self, WindowPriors};
use super::{Observed, part_paths};
use crate::class::Class;
use crate::error::{HumansamError, Result};
use crate::model::evaluate::logistic::{Logistic, Scaler};
use crate::model::evaluate::metrics::CLASSES;
use crate::model::evaluate::statistics;
use crate::model::fusion::{AffineHead, Fusion, FusionConfig, FusionMode};
use crate::model::optimiser::{AdamW, Variables, gradients};
use crate::model::rce;
use crate::model::weights::{Layout, Weights};
use crate::priors::evidence;

/// Numbers that are computed without further weights and join the video branch's feature: priors, D3 and trajectory, the parts'
/// paths.
pub const EXTRA: usize = window_priors::NUMBERS
    + evidence::STATISTICS
    + statistics::D3
    + statistics::TRAJECTORY
    + part_paths::NUMBERS;
/// Where the priors' numbers are in the video branch's feature.
pub const PRIORS: Range<usize> = VIDEO_WIDTH..VIDEO_WIDTH + window_priors::NUMBERS;
/// The richer statistics of the priors.
pub const STATISTICS: Range<usize> = PRIORS.end..PRIORS.end + evidence::STATISTICS;
/// D3.
pub const D3: Range<usize> = STATISTICS.end..STATISTICS.end + statistics::D3;
/// Trajectory features.
pub const TRAJECTORY: Range<usize> = D3.end..D3.end + statistics::TRAJECTORY;
/// Width of the joint feature with gated fusion.
const JOINT: usize = 24;
/// Columns of `[video; depth]` that share a penalty: the appearance-motion branch, the priors, their statistics, D3 and trajectory,
/// the parts' paths, the structure branch.
const GROUPS: [Range<usize>; 6] = [
    0..VIDEO_WIDTH,
    PRIORS,
    STATISTICS,
    D3.start..TRAJECTORY.end,
    TRAJECTORY.end..VIDEO_WIDTH + EXTRA,
    VIDEO_WIDTH + EXTRA..VIDEO_WIDTH + EXTRA + DEPTH_WIDTH,
];
/// Most full-batch steps of a fit.
const STEPS: usize = 600;
/// Steps between looks at the clips kept back.
const LOOK_EVERY: usize = 5;
/// Rate of a fit; constant, so that the best number of steps found on a part holds for the whole.
const RATE: f64 = 1e-3;

/// A clip as fusion sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// The video branch's feature and the numbers computed without weights.
    pub video: Vec<f32>,
    /// The structure branch's feature.
    pub depth: Vec<f32>,
}

impl Features {
    /// Both, one after the other.
    pub fn joined(&self) -> Vec<f32> {
        self.video.iter().chain(&self.depth).copied().collect()
    }

    /// Logits of the four classes, in label order, by the affine map of a head.
    ///
    /// # Errors
    /// When the features are not that head's.
    pub fn logits(&self, affine: &AffineHead) -> Result<[f64; CLASSES]> {
        let raw: Vec<f64> = self.joined().iter().map(|v| f64::from(*v)).collect();
        let z = affine.apply(&raw)?;
        Ok(std::array::from_fn(|k| z[k]))
    }
}

/// A fitted head.
#[derive(Clone, Debug)]
pub struct Head {
    /// Standardises `[video; depth]`.
    pub scaler: Scaler,
    /// Fusion and head.
    pub fusion: Fusion,
}

/// Sizes of fusion and head.
pub fn config(mode: FusionMode) -> FusionConfig {
    let video = VIDEO_WIDTH + EXTRA;
    match mode {
        FusionMode::Gated => FusionConfig::gated(video, DEPTH_WIDTH, JOINT, CLASSES),
        FusionMode::Paper => FusionConfig::paper(video, DEPTH_WIDTH, CLASSES),
    }
}

/// Tensors of a head in a file.
pub fn layout() -> Layout {
    let mut l = Layout::default();
    l.nest("fusion.", &config(FusionMode::Gated).layout());
    for n in ["mean", "deviation"] {
        l.add(format!("scaler.{n}"), &[VIDEO_WIDTH + EXTRA + DEPTH_WIDTH]);
    }
    l
}

impl Head {
    /// Fits fusion and head to clips on the RCE loss.
    ///
    /// Gated: one multinomial logistic regression over both branches' features and the numbers computed without weights, with a penalty
    /// for each of these groups that cross-validation chooses ([`logistic`](crate::model::evaluate::logistic)): what does not help on
    /// clips kept back is penalised away. Paper: full-batch AdamW, stopped where the loss of a fifth of the clips is least on a fit to
    /// the others.
    ///
    /// # Errors
    /// When there are no clips or lengths differ.
    pub fn fit(
        mode: FusionMode,
        clips: &[&Features],
        labels: &[Class],
        confidences: &[f64],
        seed: u64,
    ) -> Result<Self> {
        if mode == FusionMode::Gated {
            return Self::regressed(clips, labels, confidences);
        }
        check(clips, labels, confidences)?;
        let config = config(mode);
        let part = |kept: &dyn Fn(usize) -> bool| -> Vec<usize> {
            (0..clips.len()).filter(|i| kept(*i)).collect()
        };
        // Classes take turns with period four; blocks of four keep them even.
        let (most, fifth) = (part(&|i| i / 4 % 5 != 4), part(&|i| i / 4 % 5 == 4));
        let steps = if fifth.is_empty() {
            STEPS
        } else {
            let (_, best) = descend(
                config,
                clips,
                labels,
                confidences,
                &most,
                Some(&fifth),
                STEPS,
                Start::Seed(seed),
            )?;
            best
        };
        let all = part(&|_| true);
        let (head, _) = descend(
            config,
            clips,
            labels,
            confidences,
            &all,
            None,
            steps,
            Start::Seed(seed),
        )?;
        Ok(head)
    }

    /// The penalised regression as gates, `fc1`, `fc2` and `head`.
    fn regressed(clips: &[&Features], labels: &[Class], confidences: &[f64]) -> Result<Self> {
        check(clips, labels, confidences)?;
        let config = config(FusionMode::Gated);
        let rows: Vec<Vec<f32>> = clips.iter().map(|c| c.joined()).collect();
        let labels: Vec<usize> = labels.iter().map(|l| l.label()).collect();
        let weights: Vec<f64> = confidences.iter().map(|c| rce::weight(*c)).collect();
        let (scaler, affine) = Logistic::fit(&rows, &labels, &weights, &GROUPS)?.into_parts();

        // head = [I 0]: the first numbers of the joint feature are the classes' sums, each its own. A class's gate is the share of
        // its branch in how much the sum varies over clips; g and 1 - g are divided out.
        let (j, width) = (config.joint, affine.width);
        let spread = |k: usize, columns: Range<usize>| -> f64 {
            let row = &affine.weight[k * width..(k + 1) * width];
            let sums: Vec<f64> = rows
                .iter()
                .map(|r| {
                    let x = scaler.apply(r);
                    columns.clone().map(|i| row[i] * x[i]).sum()
                })
                .collect();
            let mean = sums.iter().sum::<f64>() / sums.len() as f64;
            (sums.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / sums.len() as f64).sqrt()
        };
        let mut head = vec![0f32; CLASSES * j];
        let mut fc1 = vec![0f32; j * config.video];
        let mut fc2 = vec![0f32; j * config.depth];
        let mut logits = vec![0f32; CLASSES];
        for k in 0..CLASSES {
            head[k * j + k] = 1.0;
            let (video, depth) = (spread(k, 0..config.video), spread(k, config.video..width));
            let gate = (video / (video + depth).max(1e-9)).clamp(0.05, 0.95);
            logits[k] = (gate / (1.0 - gate)).ln() as f32;
            let row = &affine.weight[k * width..(k + 1) * width];
            for (i, w) in row.iter().enumerate() {
                match i.checked_sub(config.video) {
                    None => fc1[k * config.video + i] = (w / gate) as f32,
                    Some(i) => fc2[k * config.depth + i] = (w / (1.0 - gate)) as f32,
                }
            }
        }
        let bias: Vec<f32> = affine.bias.iter().map(|b| *b as f32).collect();
        let of = |v: Vec<f32>, shape: &[usize]| -> Result<Tensor> {
            Ok(Tensor::from_vec(v, shape, &Device::Cpu)?)
        };
        let tensors = HashMap::from([
            ("gate".to_owned(), of(logits, &[CLASSES])?),
            ("fc1.weight".to_owned(), of(fc1, &[j, config.video])?),
            ("fc1.bias".to_owned(), of(vec![0.0; j], &[j])?),
            ("fc2.weight".to_owned(), of(fc2, &[j, config.depth])?),
            ("fc2.bias".to_owned(), of(vec![0.0; j], &[j])?),
            ("head.weight".to_owned(), of(head, &[CLASSES, j])?),
            ("head.bias".to_owned(), of(bias, &[CLASSES])?),
        ]);
        Ok(Self {
            scaler,
            fusion: Fusion::new(config, Path::new("head"), tensors)?,
        })
    }

    /// Standardisation, fusion and head as one affine map of the raw feature `[video; depth]`.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn affine(&self) -> Result<AffineHead> {
        let mut a = self.fusion.fold()?;
        for k in 0..a.classes {
            let row = &mut a.weight[k * a.width..(k + 1) * a.width];
            for (i, w) in row.iter_mut().enumerate() {
                *w /= self.scaler.deviation[i];
                a.bias[k] -= *w * self.scaler.mean[i];
            }
        }
        Ok(a)
    }

    /// Named tensors: `fusion.…`, `scaler.mean`, `scaler.deviation`.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let mut out: HashMap<String, Tensor> = self
            .fusion
            .tensors()
            .iter()
            .map(|(n, t)| (format!("fusion.{n}"), t.clone()))
            .collect();
        for (n, v) in [
            ("mean", &self.scaler.mean),
            ("deviation", &self.scaler.deviation),
        ] {
            let v: Vec<f32> = v.iter().map(|x| *x as f32).collect();
            let length = v.len();
            out.insert(
                format!("scaler.{n}"),
                Tensor::from_vec(v, length, &Device::Cpu)?,
            );
        }
        Ok(out)
    }

    /// From the tensors of [`layout`].
    ///
    /// # Errors
    /// When one is missing.
    pub fn from_weights(w: &Weights, source: &Path) -> Result<Self> {
        let of = |n: &str| -> Result<Vec<f64>> {
            Ok(w.get(n)?
                .to_vec1::<f32>()?
                .into_iter()
                .map(f64::from)
                .collect())
        };
        Ok(Self {
            scaler: Scaler {
                mean: of("scaler.mean")?,
                deviation: of("scaler.deviation")?,
            },
            fusion: Fusion::new(
                config(FusionMode::Gated),
                source,
                w.under("fusion.").tensors().clone(),
            )?,
        })
    }
}

/// Where a fit begins.
enum Start<'a> {
    /// At random values, with a scaler fitted to the clips.
    Seed(u64),
    /// At a head, with its scaler.
    Head(&'a Head),
}

/// Variables to start from: even gates and a head that knows nothing yet.
pub(super) fn blank(config: FusionConfig, seed: u64) -> Result<Variables> {
    Weights::synthetic(&config.layout(), seed)?
        .tensors()
        .iter()
        .map(|(n, t)| {
            let t = match n.as_str() {
                "gate" => t.zeros_like()?,
                "alpha" => (t.zeros_like()? + 0.5)?,
                "head.weight" | "head.bias" => (t * 0.1)?,
                _ => t.clone(),
            };
            Ok((n.clone(), Var::from_tensor(&t)?))
        })
        .collect()
}

/// `steps` full-batch steps from `head` on these clips.
pub(super) fn tune(
    head: &Head,
    clips: &[&Features],
    labels: &[Class],
    confidences: &[f64],
    steps: usize,
) -> Result<Head> {
    check(clips, labels, confidences)?;
    let all: Vec<usize> = (0..clips.len()).collect();
    let config = *head.fusion.config();
    let start = Start::Head(head);
    Ok(descend(config, clips, labels, confidences, &all, None, steps, start)?.0)
}

fn check(clips: &[&Features], labels: &[Class], confidences: &[f64]) -> Result<()> {
    if clips.is_empty() || clips.len() != labels.len() || clips.len() != confidences.len() {
        return Err(HumansamError::Argument(format!(
            "a head cannot be fitted to {} clips with {} labels and {} confidences",
            clips.len(),
            labels.len(),
            confidences.len()
        )));
    }
    Ok(())
}

/// Fits to the clips `on`; returns the head after `steps` and the number of steps at which the loss of the clips `watched` was
/// least.
#[allow(clippy::too_many_arguments)]
fn descend(
    config: FusionConfig,
    clips: &[&Features],
    labels: &[Class],
    confidences: &[f64],
    on: &[usize],
    watched: Option<&[usize]>,
    steps: usize,
    start: Start<'_>,
) -> Result<(Head, usize)> {
    let (scaler, variables) = match start {
        Start::Seed(seed) => {
            let rows: Vec<Vec<f32>> = on.iter().map(|&i| clips[i].joined()).collect();
            (Scaler::fit(&rows), blank(config, seed)?)
        }
        Start::Head(head) => {
            let variables = head
                .fusion
                .tensors()
                .iter()
                .map(|(n, t)| Ok((n.clone(), Var::from_tensor(t)?)))
                .collect::<Result<_>>()?;
            (head.scaler.clone(), variables)
        }
    };
    // Features of both branches, labels and confidences of some clips.
    let gather = |of: &[usize]| -> Result<(Tensor, Tensor, Vec<usize>, Vec<f64>)> {
        let data: Vec<f32> = of
            .iter()
            .flat_map(|&i| scaler.apply(&clips[i].joined()))
            .map(|v| v as f32)
            .collect();
        let x = Tensor::from_vec(data, (of.len(), config.video + config.depth), &Device::Cpu)?;
        Ok((
            x.narrow(1, 0, config.video)?.contiguous()?,
            x.narrow(1, config.video, config.depth)?.contiguous()?,
            of.iter().map(|&i| labels[i].label()).collect(),
            of.iter().map(|&i| confidences[i]).collect(),
        ))
    };
    let (v, d, l, c) = gather(on)?;
    let held = watched.map(gather).transpose()?;
    let tensors = |vars: &Variables| -> HashMap<String, Tensor> {
        vars.iter()
            .map(|(n, v)| (n.clone(), v.as_tensor().clone()))
            .collect()
    };
    let fusion = Fusion::new(config, Path::new("head"), tensors(&variables))?;
    let mut adam = AdamW::new(&variables, 1.0, 5.0, None)?;
    let (mut best, mut least) = (steps, f32::MAX);
    for step in 1..=steps {
        let loss = rce::loss(&fusion.forward(&v, &d)?, &l, &c)?;
        adam.update(&variables, &gradients(&loss, &variables)?, RATE)?;
        if let Some((v, d, l, c)) = held.as_ref().filter(|_| step % LOOK_EVERY == 0) {
            let loss = rce::loss(&fusion.forward(v, d)?, l, c)?.to_scalar::<f32>()?;
            if loss < least {
                (best, least) = (step, loss);
            }
        }
    }
    let fixed = tensors(&variables)
        .into_iter()
        .map(|(n, t)| (n, t.detach()))
        .collect();
    Ok((
        Head {
            scaler,
            fusion: Fusion::new(config, Path::new("head"), fixed)?,
        },
        best,
    ))
}

/// The numbers that join the video branch's feature: [`WindowPriors::numbers`], [`WindowPriors::statistics`],
/// [`statistics::all`], [`part_paths::numbers`].
pub fn extra(priors: &WindowPriors, observed: &Observed) -> Vec<f32> {
    let mut out = priors.numbers.to_vec();
    out.extend(&priors.statistics);
    out.extend(&observed.statistics);
    out.extend(part_paths::numbers(&observed.observation.described));
    debug_assert_eq!(out.len(), EXTRA);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fitted_head_folds_to_one_map_and_survives_its_file() {
        let features: Vec<Features> = (0..60)
            .map(|i| {
                let at = |j: usize| {
                    ((i * 31 + j * 17) as f32 * 0.61).sin() + if j % 4 == i % 4 { 1.5 } else { 0.0 }
                };
                Features {
                    video: (0..VIDEO_WIDTH + EXTRA).map(at).collect(),
                    depth: (0..DEPTH_WIDTH).map(at).collect(),
                }
            })
            .collect();
        let refs: Vec<&Features> = features.iter().collect();
        let labels: Vec<Class> = (0..60).map(|i| Class::ALL[i % 4]).collect();
        for mode in [FusionMode::Gated, FusionMode::Paper] {
            let head = Head::fit(mode, &refs, &labels, &[0.0; 60], 1).unwrap();
            let affine = head.affine().unwrap();
            let mut right = 0;
            for (f, l) in features.iter().zip(&labels) {
                let z = f.logits(&affine).unwrap();
                let best = (0..4).max_by(|&a, &b| z[a].total_cmp(&z[b])).unwrap();
                right += usize::from(best == l.label());
                let x: Vec<f32> = head
                    .scaler
                    .apply(&f.joined())
                    .iter()
                    .map(|v| *v as f32)
                    .collect();
                let x = Tensor::from_vec(x, (1, affine.width), &Device::Cpu).unwrap();
                let c = head.fusion.config();
                let want = head
                    .fusion
                    .forward(
                        &x.narrow(1, 0, c.video).unwrap(),
                        &x.narrow(1, c.video, c.depth).unwrap(),
                    )
                    .unwrap();
                let want = want.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(
                    z.iter()
                        .zip(&want)
                        .all(|(a, b)| (a - f64::from(*b)).abs() < 1e-3),
                    "{z:?} {want:?}"
                );
            }
            assert!(right >= 50, "{right} of 60");
            if mode == FusionMode::Gated {
                let path = Path::new("head");
                let w = Weights::check(path, head.tensors().unwrap(), &layout()).unwrap();
                let again = Head::from_weights(&w, path).unwrap();
                assert!((again.affine().unwrap().bias[0] - affine.bias[0]).abs() < 1e-4);
            }
        }
    }
}
