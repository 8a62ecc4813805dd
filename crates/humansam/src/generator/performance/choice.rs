//! Which anomaly a clip shows: one that fits the scene and can be seen.

use super::Take;
use crate::generator::anomaly::Anomaly;
use crate::generator::flesh::part;
use crate::generator::math::{V3, v3};
use crate::generator::operator::Operator;
use crate::generator::render::parts;
use crate::generator::rng::Rng;
use crate::generator::{AnomalyRecord, Spec};

/// Severities are drawn from here on: below, an eye that knows where to look finds little.
const LEAST_SEVERITY: f32 = 0.5;
/// Change of a channel that is seen, of a full scale of 1.
const VISIBLE: f32 = 0.07;

impl Take {
    /// Picks an operator that can be seen in this scene. Scenes are drawn first, so that they say nothing about the class.
    ///
    /// Operators that fit are tried in random order; the first that changes enough of the picture is taken ([`Spec::shown`]), or, when
    /// none does, the one that changes most. A given operator is taken as it is.
    pub(super) fn draw_anomaly(&self, spec: &Spec) -> Anomaly {
        let mut rng = Rng::named(spec.seed, "anomaly");
        let drawn_severity = rng.range(LEAST_SEVERITY, 1.0);
        let severity = spec.severity.unwrap_or(drawn_severity);
        let (start, end) = (self.time(0), self.time(spec.frames - 1));
        let draw = |operator: Operator, rng: &mut Rng| {
            let (motion, look) = (&self.motion, &self.look);
            Anomaly::draw(rng, operator, severity, start, end, motion, look)
        };
        if let Some(operator) = spec.operator {
            return draw(operator, &mut rng);
        }
        let seen = self.visible(spec);
        let seen = |p: u8| seen[p as usize];
        let of_class = Operator::ALL
            .into_iter()
            .filter(|o| o.class() == spec.class);
        let admitted: Vec<Operator> = of_class
            .filter(|o| spec.operators.admits(o.held_out()) && o.can_be_told())
            .collect();
        let mut fitting: Vec<Operator> = admitted
            .iter()
            .copied()
            .filter(|&o| Anomaly::fits(o, &self.motion, &self.look, &seen))
            .collect();
        if fitting.is_empty() {
            fitting = admitted;
        }
        let mut best: Option<(f32, Anomaly)> = None;
        while !fitting.is_empty() {
            let operator = fitting.swap_remove(rng.below(fitting.len()));
            let anomaly = draw(operator, &mut rng);
            let shown = self.shown(&anomaly, spec);
            if best.as_ref().is_none_or(|b| shown > b.0) {
                best = Some((shown, anomaly));
            }
            if shown >= spec.shown {
                break;
            }
        }
        match best {
            Some((_, anomaly)) => anomaly,
            // Not reached: every class has operators in each pool.
            None => draw(Operator::Jitter, &mut rng),
        }
    }

    /// Share of the picture that the anomaly changes to the eye (by more than [`VISIBLE`] in a channel, on a curve near that of
    /// the eye), mean of instants spread over its span.
    fn shown(&self, anomaly: &Anomaly, spec: &Spec) -> f32 {
        const INSTANTS: usize = 4;
        let record = self.record(anomaly, spec);
        let (first, last) = (record.first_frame, record.last_frame);
        let (w, h) = (72, (72 * spec.height / spec.width).clamp(24, 144));
        let mut sum = 0.0;
        for k in 0..INSTANTS {
            let frame = first + (2 * k + 1) * (last - first + 1) / (2 * INSTANTS);
            let take = |anomaly| self.light(anomaly, frame, w, h, 1).1.linear;
            let curve = |c: V3| {
                v3(
                    c.x.max(0.0).sqrt(),
                    c.y.max(0.0).sqrt(),
                    c.z.max(0.0).sqrt(),
                )
            };
            let changed = take(Some(anomaly))
                .into_iter()
                .zip(take(None))
                .filter(|&(a, b)| {
                    let d = curve(a) - curve(b);
                    d.x.abs().max(d.y.abs()).max(d.z.abs()) > VISIBLE
                })
                .count();
            sum += changed as f32 / (w * h) as f32;
        }
        sum / INSTANTS as f32
    }

    /// Share of the picture that each part covers, mean of three instants, without anomaly.
    fn visible(&self, spec: &Spec) -> Vec<f32> {
        let mut counts = vec![0f32; part::COUNT as usize];
        let (w, h) = (96, (96 * spec.height / spec.width).clamp(24, 192));
        for k in 0..3 {
            let frame = k * (spec.frames - 1) / 2;
            let shot = self.shot(None, frame, frame, w, h);
            for p in parts(&shot.prims, &shot.view) {
                counts[p as usize] += 1.0 / (3.0 * (w * h) as f32);
            }
        }
        counts
    }

    pub(super) fn record(&self, a: &Anomaly, spec: &Spec) -> AnomalyRecord {
        let wrong = |f: &usize| a.active(self.time(*f));
        let first_frame = (0..spec.frames).find(wrong).unwrap_or(0);
        let last_frame = (0..spec.frames).rev().find(wrong).unwrap_or(first_frame);
        AnomalyRecord {
            operator: a.operator,
            family: a.operator.family().to_owned(),
            severity: a.severity,
            first_frame,
            last_frame,
        }
    }
}
