//! The four clips of `tacit inspect generate --demo`: one real, one of each kind of anomaly, all clearly to be seen.
//!
//! They were picked: of some ten real clips and a handful of each kind, one each that the shipped model is sure about and right. How often it is right on clips
//! that nobody picked stands in `docs/humansam-model.md`.

use super::{Action, Framing, Operator, Setting, Spec};
use crate::class::Class;

/// Names and specs of the demonstration.
pub fn demo() -> Vec<(&'static str, Spec)> {
    let base = |seed: u64, action, setting, framing| Spec {
        action: Some(action),
        setting: Some(setting),
        framing: Some(framing),
        width: 640,
        height: 360,
        frames: 60,
        fps: Some(24.0),
        severity: Some(0.9),
        nuisance: 0.6,
        maps: true,
        ..Spec::new(seed)
    };
    let forged = |spec: Spec, operator: Operator| Spec {
        class: operator.class(),
        operator: Some(operator),
        ..spec
    };
    let real = base(15, Action::Talk, Setting::Room, Framing::Medium);
    debug_assert_eq!(real.class, Class::Real);
    vec![
        ("real", real),
        (
            "spatial",
            forged(
                base(12, Action::Wave, Setting::Park, Framing::Full),
                Operator::LimbThroughBody,
            ),
        ),
        (
            "appearance",
            forged(
                base(12, Action::Lift, Setting::Kitchen, Framing::Medium),
                Operator::PatternSwap,
            ),
        ),
        (
            "motion",
            forged(
                base(15, Action::Walk, Setting::Street, Framing::Full),
                Operator::TimeWarp,
            ),
        ),
    ]
}
