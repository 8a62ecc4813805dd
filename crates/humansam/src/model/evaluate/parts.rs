//! How well the trunk sees the parts of the body, and what that is worth: whether a spatial anomaly can be told from the geometry of the
//! parts, as the trunk sees them and as they are.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use super::extract::Selection;
use super::logistic::Logistic;
use super::metrics::auc;
use crate::class::Class;
use crate::error::Result;
use crate::generator::{self, Spec};
use crate::model::backbone::vit::softmax;
use crate::model::native::data::{self, Split, person};
use crate::model::native::input::{self, Region};
use crate::model::native::likeliest;
use crate::model::native::loss::Overlap;
use crate::model::native::network::{FRAMES, Network, PARTS, PARTS_SIDE, REGIONS};

/// Folds of pairs; each is judged by a regression that has not seen it.
const FOLDS: usize = 5;
/// Numbers of a part.
const EACH: usize = 6;
/// The limbs' left sides; the right one is the next number.
const LIMBS: std::ops::Range<usize> = 4..16;

/// Areas under the curve of forged clips against the same clips without their anomaly, by geometry of the parts.
#[derive(Clone, Debug, Serialize)]
pub struct Family {
    /// The operators' family; "all" for every clip.
    pub name: String,
    /// On the trunk's parts.
    pub seen: f64,
    /// On the true parts.
    pub truth: f64,
    /// Pairs of clips.
    pub pairs: usize,
}

/// What the command prints.
#[derive(Clone, Debug, Serialize)]
pub struct Parts {
    /// Pairs of clips.
    pub pairs: usize,
    /// Mean intersection over union of the trunk's parts with the true ones.
    pub mean_iou: f64,
    /// The same by number of the part, from 1 on.
    pub iou: Vec<Option<f64>>,
    /// All clips first.
    pub families: Vec<Family>,
}

/// One clip, looked at.
struct Looked {
    seen: Vec<f32>,
    truth: Vec<f32>,
    overlap: Overlap,
    family: String,
}

/// Renders `count` clips with spatial anomalies that no test has, of motions and places that training never sees, half of them of operator
/// families that it never sees, and their counterfactual twins; looks at all of them. `done` is called after each pair.
///
/// # Errors
/// When rendering, looking or fitting fails.
pub fn measure(
    network: &Network,
    seed: u64,
    count: usize,
    done: &(dyn Fn() + Sync),
) -> Result<Parts> {
    let pairs = (0..count)
        .into_par_iter()
        .map(|i| {
            let selection = Selection {
                split: Split::Test,
                held_out_scenes: true,
                held_out_operators: i % 2 == 1,
                count,
                place: None,
            };
            let forged = Spec {
                class: Class::Spatial,
                // Beyond the clips of the tests.
                ..selection.spec(seed, i + (1 << 18))
            };
            let both = [look(network, &forged)?, look(network, &forged.twin())?];
            done();
            Ok(both)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut overlap = Overlap::default();
    pairs.iter().flatten().for_each(|l| overlap.add(&l.overlap));
    let seen = scores(&pairs, &|l| &l.seen)?;
    let truth = scores(&pairs, &|l| &l.truth)?;
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, [forged, _]) in pairs.iter().enumerate() {
        members.entry(&forged.family).or_default().push(i);
    }
    let family = |name: &str, of: &[usize]| {
        let area = |scores: &[[f64; 2]]| {
            let each = of.iter().flat_map(|&i| {
                let [forged, real] = scores[i];
                [(forged, true), (real, false)]
            });
            auc(&each.collect::<Vec<_>>())
        };
        Family {
            name: name.to_owned(),
            seen: area(&seen),
            truth: area(&truth),
            pairs: of.len(),
        }
    };
    let all: Vec<usize> = (0..count).collect();
    let mut families = vec![family("all", &all)];
    families.extend(members.iter().map(|(name, of)| family(name, of)));
    Ok(Parts {
        pairs: count,
        mean_iou: overlap.mean_iou(),
        iou: (1..REGIONS as u8).map(|p| overlap.iou(p)).collect(),
        families,
    })
}

fn look(network: &Network, spec: &Spec) -> Result<Looked> {
    let all: Vec<usize> = (0..spec.frames).collect();
    let r = generator::sample_frames(spec, &all)?;
    let region = Region::around(
        person(&r).unwrap_or([0.0, 0.0, 1.0, 1.0]),
        0.08,
        r.clip.width,
        r.clip.height,
    );
    let sample = data::sample(&r, region);
    let moments = network.moments(&input::tensor(&[&sample.input])?)?;
    let said: Vec<f32> = softmax(&moments.parts)?.flatten_all()?.to_vec1()?;
    let mut truth = vec![0f32; said.len()];
    for (row, p) in truth.chunks_exact_mut(REGIONS).zip(&sample.parts) {
        row[usize::from(*p)] = 1.0;
    }
    Ok(Looked {
        seen: geometry(&said),
        truth: geometry(&truth),
        overlap: Overlap::of(&likeliest(&moments.parts)?, &sample.parts),
        family: r.anomaly.map(|a| a.family).unwrap_or_default(),
    })
}

/// Geometry of a window, given the probabilities `[FRAMES, PARTS_SIDE², REGIONS]`: of each part the mean over the moments of the root of
/// its area, of its place and spread about the trunk's (both in roots of the trunk's area, zero where it is not seen), deviation and
/// maximum over the moments of the root of its area; and of each pair of limbs the difference of the mean roots.
fn geometry(p: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; PARTS * EACH];
    for frame in p.chunks_exact(PARTS_SIDE * PARTS_SIDE * REGIONS) {
        let mut sums = [[0f32; 4]; REGIONS];
        for (i, row) in frame.chunks_exact(REGIONS).enumerate() {
            let (x, y) = ((i % PARTS_SIDE) as f32, (i / PARTS_SIDE) as f32);
            for (s, p) in sums.iter_mut().zip(row) {
                for (s, v) in s.iter_mut().zip([1.0, x, y, x * x + y * y]) {
                    *s += p * v;
                }
            }
        }
        let [trunk, x, y, _] = sums[1];
        let (x, y) = (x / trunk.max(1e-3), y / trunk.max(1e-3));
        let unit = trunk.max(1.0).sqrt();
        for (o, [n, sx, sy, ss]) in out.chunks_exact_mut(EACH).zip(&sums[1..]) {
            let (mx, my) = (sx / n.max(1e-3), sy / n.max(1e-3));
            let sure = n / (n + 0.5);
            let spread = (ss / n.max(1e-3) - mx * mx - my * my).max(0.0).sqrt();
            let root = n.sqrt();
            let mean = 1.0 / FRAMES as f32;
            o[0] += mean * root;
            o[1] += mean * sure * (mx - x) / unit;
            o[2] += mean * sure * (my - y) / unit;
            o[3] += mean * sure * spread / unit;
            o[4] += mean * root * root;
            o[5] = o[5].max(root);
        }
    }
    for o in out.chunks_exact_mut(EACH) {
        o[4] = (o[4] - o[0] * o[0]).max(0.0).sqrt();
    }
    let root = |part: usize| out[(part - 1) * EACH];
    let apart: Vec<f32> = LIMBS
        .step_by(2)
        .map(|l| (root(l) - root(l + 1)).abs())
        .collect();
    out.extend(apart);
    out
}

/// Log-odds of forged against real of both clips of each pair, by regressions that were fitted to the other folds.
fn scores(pairs: &[[Looked; 2]], columns: &dyn Fn(&Looked) -> &Vec<f32>) -> Result<Vec<[f64; 2]>> {
    let mut out = vec![[0.0; 2]; pairs.len()];
    for fold in 0..FOLDS {
        let rows: Vec<Vec<f32>> = (0..pairs.len())
            .filter(|i| i / 2 % FOLDS != fold)
            .flat_map(|i| pairs[i].iter().map(|l| columns(l).clone()))
            .collect();
        let labels: Vec<usize> = (0..rows.len())
            .map(|i| [Class::Spatial, Class::Real][i % 2].label())
            .collect();
        let width = rows.first().map_or(0, Vec::len);
        let regression = Logistic::fit(
            &rows,
            &labels,
            &vec![1.0; rows.len()],
            std::slice::from_ref(&(0..width)),
        )?;
        for (pair, o) in pairs
            .iter()
            .zip(&mut out)
            .enumerate()
            .filter_map(|(i, x)| (i / 2 % FOLDS == fold).then_some(x))
        {
            for (l, o) in pair.iter().zip(o) {
                let p = regression.probabilities(columns(l))?;
                *o = (p[Class::Spatial.label()] / p[Class::Real.label()].max(1e-12)).ln();
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trunk of 4 × 4 places and, from its right edge on, a left hand of 2 × 1 in every second moment.
    #[test]
    fn geometry_is_that_of_a_made_up_window() {
        let mut p = vec![0f32; FRAMES * PARTS_SIDE * PARTS_SIDE * REGIONS];
        for f in 0..FRAMES {
            for y in 10..14 {
                for x in 6..10 {
                    p[((f * PARTS_SIDE + y) * PARTS_SIDE + x) * REGIONS + 1] = 1.0;
                }
            }
            if f % 2 == 0 {
                for x in 10..12 {
                    p[((f * PARTS_SIDE + 12) * PARTS_SIDE + x) * REGIONS + 8] = 1.0;
                }
            }
        }
        let g = geometry(&p);
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-3, "{a} {b}");
        let of = |part: usize| &g[(part - 1) * EACH..part * EACH];
        near(of(1)[0], 4.0);
        near(of(1)[1], 0.0);
        near(of(1)[4], 0.0);
        let root = 2f32.sqrt();
        near(of(8)[0], root / 2.0);
        // Its middle is three places to the right of the trunk's and half a place below; a probability of 2/2.5 that it is there.
        near(of(8)[1], 0.5 * 0.8 * 3.0 / 4.0);
        near(of(8)[2], 0.5 * 0.8 * 0.5 / 4.0);
        near(of(8)[4], root / 2.0);
        near(of(8)[5], root);
        assert!(of(2).iter().all(|v| *v == 0.0));
        // Hands are the third pair of limbs.
        near(g[PARTS * EACH + 2], root / 2.0);
    }

    #[test]
    fn the_benchmark_of_parts_runs() {
        let network = Network::new(crate::model::native::network::initial(1).unwrap());
        let found = measure(&network, 7, 10, &|| ()).unwrap();
        assert_eq!((found.pairs, found.iou.len()), (10, PARTS));
        assert!((0.0..0.5).contains(&found.mean_iou));
        assert_eq!(found.families[0].name, "all");
        let pairs: usize = found.families[1..].iter().map(|f| f.pairs).sum();
        assert_eq!(pairs, 10);
        assert!(
            found
                .families
                .iter()
                .all(|f| (0.0..=1.0).contains(&f.truth))
        );
    }
}
