//! Operation counts of the circuits that the ckks crate composes by itself (series, linear maps, refresh), found by running them
//! once on a ciphertext of zeros in a tiny ring: a plan made from these cannot disagree with what runs.
//!
//! Counts do not depend on the ring. Those of a series depend on which coefficients are zero; those of a linear map on where its
//! diagonals lie, in units of their stride. The tiny ring is insecure, and it never holds anything but zeros.

use std::{collections::HashMap, sync::Arc};

use num_complex::Complex64;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tacit_ckks::{
    Ciphertext, Context, Evaluator, InsecureParameters, KeyGenerator, KeyShape, OpCounts,
    ParametersLiteral, SecretKey,
    bootstrap::Bootstrapper,
    dft::{SparseMatrix, coeffs_to_slots_factors, slots_to_coeffs_factors},
    linear_map::{LinearMap, LinearMapOptions},
};
use tacit_ring::RnsPoly;

use crate::{EnsiError, plan::Counts};

/// Levels that a series may take: more than any chain has between two refreshes.
const LEVELS: usize = 12;
/// Dimension of the ring for series.
const LOG_N: u32 = 6;

impl From<OpCounts> for Counts {
    /// Products with constants count as products with plaintexts. Word additions are not told apart: there are none.
    fn from(c: OpCounts) -> Self {
        Self {
            bootstraps: c.bootstraps,
            key_switches: c.key_switches,
            ct_ct: c.ct_ct,
            ct_pt: c.ct_pt + c.constants,
            additions: c.additions,
            word_additions: 0,
            rescales: c.rescales,
        }
    }
}

/// A tiny ring with a secret key.
struct Stage {
    context: Arc<Context>,
    generator: KeyGenerator,
    secret: SecretKey,
}

impl Stage {
    fn new(log_n: u32, levels: usize) -> Result<Self, EnsiError> {
        let literal = ParametersLiteral::levelled(log_n, levels, 2);
        let context = Context::new(InsecureParameters::new(literal)?)?;
        let rng = ChaCha20Rng::from_seed([0; 32]);
        let mut generator = KeyGenerator::with_rng(context.clone(), rng);
        Ok(Self {
            secret: generator.secret(),
            generator,
            context,
        })
    }

    fn zeros(&self) -> Ciphertext {
        let level = self.context.params().max_level();
        Ciphertext {
            parts: vec![RnsPoly::zero(self.context.n(), level + 1); 2],
            level,
            scale: self.context.params().q(level).value() as f64,
        }
    }

    /// What `f` counts, run with a relinearisation key and the Galois keys named.
    fn count(
        &mut self,
        galois: &[(u64, KeyShape)],
        f: impl FnOnce(
            &Evaluator,
            &Ciphertext,
            &tacit_ckks::EvaluationKeys,
        ) -> Result<Ciphertext, tacit_ckks::CkksError>,
    ) -> Result<Counts, EnsiError> {
        let shape = KeyShape::full(self.context.params());
        let keys = self
            .generator
            .evaluation_keys(&self.secret, shape, galois)?;
        let evaluator = Evaluator::new(self.context.clone());
        f(&evaluator, &self.zeros(), &keys)?;
        Ok(evaluator.counts().into())
    }
}

/// Counts of series, each pattern of coefficients run once.
#[derive(Default)]
pub struct SeriesCounts {
    stage: Option<Stage>,
    known: HashMap<Vec<bool>, Counts>,
}

impl SeriesCounts {
    /// Operations of [`Machine::chebyshev`](super::Machine::chebyshev) with these coefficients.
    ///
    /// # Errors
    /// Those of the engine, for series that it refuses.
    pub fn of(&mut self, coefficients: &[f64]) -> Result<Counts, EnsiError> {
        let pattern: Vec<bool> = coefficients.iter().map(|c| *c != 0.0).collect();
        if let Some(counts) = self.known.get(&pattern) {
            return Ok(*counts);
        }
        let stage = match &mut self.stage {
            Some(stage) => stage,
            empty => empty.insert(Stage::new(LOG_N, LEVELS)?),
        };
        let scale = stage.context.params().user_scale();
        let counts = stage.count(&[], |evaluator, zeros, keys| {
            evaluator.evaluate_chebyshev(zeros, coefficients, scale, keys)
        })?;
        self.known.insert(pattern, counts);
        Ok(counts)
    }
}

/// Counts of the parts of a linear layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefreshCounts {
    /// SlotsToCoeffs and ring switch of one ciphertext.
    pub slots_to_coeffs: Counts,
    /// Repack, ModRaise, CoeffsToSlots and conjugation of one ciphertext.
    pub coeffs_to_slots: Counts,
    /// Split and EvalMod of one part, real or imaginary.
    pub eval_mod: Counts,
}

impl RefreshCounts {
    /// The counts of a bootstrapper's circuits.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn new(bootstrapper: &Bootstrapper, series: &mut SeriesCounts) -> Result<Self, EnsiError> {
        let (fft, options) = (bootstrapper.context().fft(), bootstrapper.options());
        let one = Counts {
            key_switches: 1,
            ..Counts::default()
        };
        // the ring switch
        let mut slots_to_coeffs = one;
        for factor in slots_to_coeffs_factors(fft, &options.stc_stages) {
            slots_to_coeffs += linear_map(&factor, None)?;
        }
        // repack, ModRaise and conjugation
        let mut coeffs_to_slots = one + one + one;
        let factors = coeffs_to_slots_factors(fft, &options.cts_stages);
        for (factor, baby_steps) in factors.iter().zip(&options.cts_baby_steps) {
            coeffs_to_slots += linear_map(factor, *baby_steps)?;
        }
        // v + conj(v) or its difference, the series, and 2 x^2 - 1 for every double angle
        let mut eval_mod = series.of(bootstrapper.eval_mod_polynomial().coefficients())?;
        eval_mod.additions += 1;
        for _ in 0..options.eval_mod.double_angles {
            eval_mod += Counts {
                key_switches: 1,
                ct_ct: 1,
                ct_pt: 1,
                additions: 1,
                rescales: 1,
                ..Counts::default()
            };
        }
        Ok(Self {
            slots_to_coeffs,
            coeffs_to_slots,
            eval_mod,
        })
    }

    /// Counts of `bootstraps` refreshes that bring back `parts` real vectors: the switch to the ephemeral secret takes the place of ring switch and
    /// repack.
    pub fn direct(&self, bootstraps: usize, parts: usize) -> Counts {
        let mut counts = self.linear(bootstraps, bootstraps, 0);
        counts.key_switches -= bootstraps as u64;
        counts + self.eval_mod * (parts - bootstraps)
    }

    /// Counts of a linear layer without its word additions; `imaginary` of the outputs are wanted with their imaginary part.
    pub fn linear(&self, inputs: usize, outputs: usize, imaginary: usize) -> Counts {
        Counts {
            bootstraps: outputs as u64,
            ..self.slots_to_coeffs * inputs
                + self.coeffs_to_slots * outputs
                + self.eval_mod * (outputs + imaginary)
        }
    }
}

/// One map, its diagonals moved together: what is counted depends on their places in units of their stride.
fn linear_map(matrix: &SparseMatrix, baby_steps: Option<usize>) -> Result<Counts, EnsiError> {
    let indices: Vec<i64> = matrix.diagonals().keys().copied().collect();
    let stride = indices.iter().fold(0, |g, &i| gcd(g, i)).max(1);
    let diagonals = indices
        .iter()
        .map(|i| (i / stride, vec![Complex64::ONE]))
        .collect();
    let reach = indices.iter().map(|i| i.unsigned_abs()).max().unwrap_or(0) / stride as u64;
    let log_slots = (reach + 1).next_power_of_two().trailing_zeros();
    let mut stage = Stage::new((log_slots + 1).max(LOG_N), 1)?;
    let context = stage.context.clone();
    let options = LinearMapOptions {
        baby_steps,
        ..LinearMapOptions::at_level(&context, context.params().max_level())
    };
    let map = LinearMap::new(context, &diagonals, options)?;
    stage.count(&map.required_keys(), |evaluator, zeros, keys| {
        map.apply(evaluator, zeros, keys)
    })
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}
