//! Named bootstrapping settings at 128 bits, from the fastest to the most precise.
//!
//! The figures of each (seconds, worst and mean bits, levels, keys) are measured by `tacit bench presets`; the table is in
//! `docs/bootstrapping.md`. There is none at `N = 2^15`: the ephemeral secret of weight 32 has no ceiling computed for that ring
//! ([`crate::security`]), and without it the multiples of `q0` need a polynomial that the ring's 868 bits cannot hold.

use crate::bootstrap::BootstrapOptions;
use crate::error::CkksError;
use crate::eval_mod::EvalModParameters;
use crate::parameters::{Parameters, ParametersLiteral};

/// Parameters and EvalMod settings that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// What the command line calls it.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// The parameters.
    pub literal: ParametersLiteral,
    /// EvalMod.
    pub eval_mod: EvalModParameters,
}

impl Preset {
    /// All presets.
    pub fn all() -> Vec<Self> {
        let default = ParametersLiteral::default_128();
        let eval_mod = EvalModParameters::default();
        vec![
            Self {
                name: "default",
                purpose: "the encrypted model",
                literal: default.clone(),
                eval_mod,
            },
            Self {
                name: "four-factors",
                purpose: "12 levels: CoeffsToSlots in four factors, faster with larger keys",
                literal: ParametersLiteral {
                    user_bits: vec![45; 12],
                    cts_bits: vec![50; 4],
                    ..default.clone()
                },
                eval_mod,
            },
            Self {
                name: "two-digits",
                purpose: "12 levels with smaller keys: two digits in a key switch",
                literal: ParametersLiteral {
                    stc_bits: vec![40; 2],
                    user_bits: vec![42; 12],
                    special_bits: one_then(50, vec![46; 12]),
                    log_user_scale: 42,
                    ..default.clone()
                },
                eval_mod,
            },
            Self {
                name: "fast-12",
                purpose: "12 bits, the fastest: one digit in a key switch, 7 levels",
                literal: ParametersLiteral {
                    q0_bits: 46,
                    stc_bits: vec![36; 2],
                    user_bits: vec![40; 7],
                    eval_mod_bits: vec![46; 7],
                    cts_bits: vec![46; 3],
                    special_bits: one_then(46, vec![43; 19]),
                    log_user_scale: 40,
                    log_message_ratio: 8,
                    ..default.clone()
                },
                eval_mod: EvalModParameters {
                    log_ratio: 8,
                    ..eval_mod
                },
            },
            Self {
                name: "precise",
                purpose: "most bits: a small ratio with the arcsine",
                literal: ParametersLiteral {
                    user_bits: vec![45; 11],
                    eval_mod_bits: vec![50; 9],
                    log_message_ratio: 8,
                    ..default
                },
                eval_mod: EvalModParameters {
                    log_ratio: 8,
                    arcsine: true,
                    ..eval_mod
                },
            },
        ]
    }

    /// The preset of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|preset| preset.name == name)
    }

    /// Its parameters, checked for 128 bits.
    ///
    /// # Errors
    /// Those of [`Parameters::new`]; none for the presets of [`Self::all`].
    pub fn parameters(&self) -> Result<Parameters, CkksError> {
        Parameters::new(self.literal.clone())
    }

    /// Bootstrapping options for vectors of `2^log_slots` slots.
    pub fn options(&self, params: &Parameters, log_slots: u32) -> BootstrapOptions {
        BootstrapOptions {
            eval_mod: self.eval_mod,
            ..BootstrapOptions::sparse(params, log_slots)
        }
    }
}

/// The first special prime is as large as `q0`: a key at level 0 has it alone.
fn one_then(first: u32, mut rest: Vec<u32>) -> Vec<u32> {
    rest.insert(0, first);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_128_bit_and_consistent() {
        for preset in Preset::all() {
            let params = preset
                .parameters()
                .unwrap_or_else(|e| panic!("{}: {e}", preset.name));
            println!(
                "{}: log2 QP {:.1}, {} limbs, {} digits",
                preset.name,
                params.log_qp(),
                params.q_len(),
                params.digits_at(params.max_level())
            );
            assert!(!params.is_insecure());
            assert!(params.p(0).value() >= params.q(0).value() / 2);
            assert_eq!(preset.literal.eval_mod_bits.len(), preset.eval_mod.depth());
            assert_eq!(preset.literal.log_message_ratio, preset.eval_mod.log_ratio);
            assert_eq!(Preset::named(preset.name), Some(preset));
        }
    }
}
