//! Bootstrapping, SlotsToCoeffs first.
//!
//! ```text
//! slots, level 3 --StC--> coefficients, level 0, secret s
//!     --key switch (or the ternary layer of crate::mlwe)--> level 0, ephemeral sparse secret s'
//!     --ModRaise, switch to s--> top level, coefficients m + q0*I
//!     --CtS--> slots (I + m/ratio)/K --conjugation--> real and imaginary parts --EvalMod each--> slots m, user level
//! ```
//!
//! Why in this order: SlotsToCoeffs runs on the lowest four limbs instead of the middle of the chain, and between the two halves there is a
//! ciphertext modulo one 50-bit prime whose *coefficients* are the data: the place where a ternary linear layer costs additions only. The
//! halves are therefore separate functions, [`Bootstrapper::slots_to_coeffs`] and [`Bootstrapper::refresh`]; [`Bootstrapper::bootstrap`]
//! puts them together.
//!
//! The ephemeral secret (Bossuat, Troncoso-Pastoriza and Hubaux, ACNS 2022) has a low weight so that `|I|` is small; only ciphertexts
//! modulo `q0` are ever under it, whose keys have a modulus of `q0` times one special prime.
//!
//! *Sparse* vectors of `n < N/2` slots, repeated, are polynomials in `X^gap`, `gap = N/2n`. Their factors have `log2(n)` stages. ModRaise puts
//! multiples of `q0` into all coefficients; a trace, `log2(gap)` rotations, clears those between. It commutes with the factors, whose diagonals
//! have period `n`, and comes before the last one, where it has fewer limbs. Real and imaginary part fit side by side into
//! one EvalMod (Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, EUROCRYPT 2021, section 5).
//!
//! Scales: a message `m` sits in the coefficients as `m * q0/ratio`, `ratio = 2^10` by default, and must keep `|m| <= 1`. EvalMod is evaluated
//! at the scale that turns into the user scale when its factor `2 pi/ratio` is read as part of the scale: it costs no level.

use std::collections::BTreeMap;
use std::sync::Arc;

use tacit_ring::{RnsPoly, galois_conjugation, galois_of_rotation, ops};

use num_complex::Complex64;

use crate::ciphertext::Ciphertext;
use crate::context::Context;
use crate::counts::count;
use crate::dft::{SparseMatrix, coeffs_to_slots_factors, slots_to_coeffs_factors};
pub use crate::encapsulation::EncapsulationKeys;
use crate::encapsulation::check_id;
use crate::error::CkksError;
use crate::eval_mod::{EvalModParameters, EvalModPolynomial, failure_log2};
use crate::evaluator::Evaluator;
use crate::fft::SpecialFft;
use crate::key_generator::KeyGenerator;
use crate::key_switch::Division;
use crate::keys::{EvaluationKeys, KeyShape, SecretKey, SwitchingKey};
use crate::linear_map::{LinearMap, LinearMapOptions};
use crate::parameters::Parameters;
use crate::quadratic::Quadratic;

/// Choices that are not in the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapOptions {
    /// `log2` of the number of complex slots `n`, at most `log2(N/2)`; below that, *sparse*: see the module page.
    pub log_slots: u32,
    /// Stages in each factor of CoeffsToSlots, in order of application; one level each; they sum to `log_slots`.
    pub cts_stages: Vec<usize>,
    /// Stages in each factor of SlotsToCoeffs, in order of application.
    pub stc_stages: Vec<usize>,
    /// Baby steps of the CoeffsToSlots factors; fewer are less key memory and more time. `None`: the default of [`LinearMapOptions`].
    pub cts_baby_steps: Vec<Option<usize>>,
    /// EvalMod.
    pub eval_mod: EvalModParameters,
}

/// Baby steps of a CoeffsToSlots factor: half of what [`LinearMapOptions`] would pick for 63 diagonals. At the top of the chain a key is
/// 108 MiB; for each of two factors 8 keys and 8 hoisted rotations go, 4 full rotations come.
const CTS_BABY_STEPS: usize = 8;

impl BootstrapOptions {
    /// What fits the parameters: the stages are shared out evenly over the CtS and StC primes.
    pub fn for_parameters(params: &Parameters) -> Self {
        Self::sparse(params, params.log_n() - 1)
    }

    /// For vectors of `2^log_slots` slots, at most `N/2`.
    pub fn sparse(params: &Parameters, log_slots: u32) -> Self {
        let literal = params.literal();
        let stages = log_slots as usize;
        let cts_stages = shared_out(stages, literal.cts_bits.len());
        let mut stc_stages = shared_out(stages, literal.stc_bits.len());
        stc_stages.reverse();
        Self {
            log_slots,
            cts_baby_steps: vec![Some(CTS_BABY_STEPS); cts_stages.len()],
            cts_stages,
            stc_stages,
            eval_mod: EvalModParameters {
                log_ratio: literal.log_message_ratio,
                ..EvalModParameters::default()
            },
        }
    }
}

/// `total` in `parts` parts that differ by at most one, the larger ones first.
fn shared_out(total: usize, parts: usize) -> Vec<usize> {
    (0..parts)
        .map(|k| total / parts + usize::from(k < total % parts))
        .collect()
}

/// Everything bootstrapping needs but keys: encoded factors of CoeffsToSlots and SlotsToCoeffs, and the polynomial of EvalMod.
pub struct Bootstrapper {
    ctx: Arc<Context>,
    options: BootstrapOptions,
    /// The first factor of SlotsToCoeffs is encoded on the fly: its diagonals have a short period, and it carries the scale.
    stc_first: SparseMatrix,
    stc_rest: Vec<LinearMap>,
    cts: Vec<LinearMap>,
    /// For sparse vectors only.
    packing: Option<Packing>,
    eval_mod: EvalModPolynomial,
}

/// Real and imaginary parts of `n <= N/4` slots side by side in `2n` real slots: one EvalMod for both.
struct Packing {
    /// The last factor of CoeffsToSlots times `(1, …, 1, -i, …, -i)`: its result plus the conjugate is `2 Re | 2 Im`.
    last: LinearMap,
    /// `(re | im)` to `(re + i im | re + i im)`: one level.
    unpack: LinearMap,
}

impl Packing {
    fn new(
        ctx: &Arc<Context>,
        options: &BootstrapOptions,
        last: &SparseMatrix,
    ) -> Result<Self, CkksError> {
        let params = ctx.params();
        let n = 1usize << options.log_slots;
        let halves = |first: Complex64, second: Complex64| -> Vec<Complex64> {
            (0..2 * n)
                .map(|k| if k < n { first } else { second })
                .collect()
        };
        let one = Complex64::ONE;
        let i = Complex64::I;
        let diagonals = last
            .diagonals()
            .iter()
            .map(|(&index, d)| {
                let row = halves(one, -i);
                (
                    index,
                    row.iter()
                        .zip(d.iter().cycle())
                        .map(|(a, b)| a * b)
                        .collect(),
                )
            })
            .collect();
        let factors = options.cts_stages.len();
        let at = LinearMapOptions::at_level(ctx, params.max_level() + 1 - factors);
        let baby_steps = options.cts_baby_steps[factors - 1];
        let unpack = BTreeMap::from([(0, halves(one, i)), (n as i64, halves(i, one))]);
        Ok(Self {
            last: LinearMap::new(
                ctx.clone(),
                &diagonals,
                LinearMapOptions { baby_steps, ..at },
            )?,
            unpack: LinearMap::new(
                ctx.clone(),
                &unpack,
                LinearMapOptions::at_level(ctx, params.top_user_level()),
            )?,
        })
    }
}

impl Bootstrapper {
    /// Checks that chain and options fit each other and encodes the factors.
    ///
    /// # Errors
    /// [`CkksError::InvalidParameters`] if the numbers of StC, EvalMod or CtS primes are not those the options consume, or the message ratio
    /// differs.
    pub fn new(ctx: Arc<Context>, options: BootstrapOptions) -> Result<Self, CkksError> {
        let params = ctx.params().clone();
        let literal = params.literal();
        let stages = options.log_slots as usize;
        let refuse = |field, found: String, expected: String| {
            Err(CkksError::InvalidParameters {
                field,
                found,
                expected,
            })
        };
        if !(1..params.log_n()).contains(&options.log_slots) {
            return refuse(
                "log_slots",
                options.log_slots.to_string(),
                format!("1 to {}", params.log_n() - 1),
            );
        }
        for (field, groups, primes) in [
            ("stc_stages", &options.stc_stages, literal.stc_bits.len()),
            ("cts_stages", &options.cts_stages, literal.cts_bits.len()),
        ] {
            if groups.len() != primes
                || groups.is_empty()
                || groups.contains(&0)
                || groups.iter().sum::<usize>() != stages
            {
                return refuse(
                    field,
                    format!("{groups:?}"),
                    format!("{primes} (at least one) positive numbers that sum to {stages}"),
                );
            }
        }
        if options.cts_baby_steps.len() != options.cts_stages.len() {
            return refuse(
                "cts_baby_steps",
                format!("{} entries", options.cts_baby_steps.len()),
                format!("{}", options.cts_stages.len()),
            );
        }
        if literal.eval_mod_bits.len() != options.eval_mod.depth() {
            return refuse(
                "eval_mod_bits",
                format!("{} primes", literal.eval_mod_bits.len()),
                format!("{}", options.eval_mod.depth()),
            );
        }
        if literal.log_message_ratio != options.eval_mod.log_ratio {
            return refuse(
                "log_message_ratio",
                literal.log_message_ratio.to_string(),
                options.eval_mod.log_ratio.to_string(),
            );
        }
        let eval_mod = EvalModPolynomial::fit(options.eval_mod)?;

        // Vectors of n slots are polynomials in X^gap, a ring of dimension 2n of its own.
        let slots = 1usize << options.log_slots;
        let gap = ctx.n() / 2 / slots;
        let small_fft;
        let fft = if gap == 1 {
            ctx.fft()
        } else {
            small_fft = SpecialFft::new(2 * slots);
            &small_fft
        };
        let mut stc = slots_to_coeffs_factors(fft, &options.stc_stages);
        let stc_first = stc.remove(0);
        let mut level = params.bottom_user_level();
        let stc_rest = stc
            .iter()
            .map(|factor| {
                level -= 1;
                LinearMap::from_matrix(ctx.clone(), factor, LinearMapOptions::at_level(&ctx, level))
            })
            .collect::<Result<_, _>>()?;

        let mut cts = coeffs_to_slots_factors(fft, &options.cts_stages);
        // The half of the real and imaginary parts, the interval of EvalMod, and the terms of the trace.
        if let Some(last) = cts.last_mut() {
            last.scale(0.5 / options.eval_mod.range() / gap as f64);
        }
        let packing = match cts.last() {
            Some(last) if gap > 1 => Some(Packing::new(&ctx, &options, last)?),
            _ => None,
        };
        let cts = cts
            .iter()
            .zip(&options.cts_baby_steps)
            .enumerate()
            .map(|(k, (factor, &baby_steps))| {
                let at = LinearMapOptions::at_level(&ctx, params.max_level() - k);
                LinearMap::from_matrix(ctx.clone(), factor, LinearMapOptions { baby_steps, ..at })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            ctx,
            options,
            stc_first,
            stc_rest,
            cts,
            packing,
            eval_mod,
        })
    }

    /// With the options that fit the parameters.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_context(ctx: Arc<Context>) -> Result<Self, CkksError> {
        let options = BootstrapOptions::for_parameters(ctx.params());
        Self::new(ctx, options)
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// The options.
    pub fn options(&self) -> &BootstrapOptions {
        &self.options
    }

    /// The polynomial of EvalMod.
    pub fn eval_mod_polynomial(&self) -> &EvalModPolynomial {
        &self.eval_mod
    }

    /// `q0/ratio`: the coefficient that stands for a message of 1 between the two halves.
    pub fn message_scale(&self) -> f64 {
        self.ctx.params().q(0).value() as f64 / self.options.eval_mod.ratio()
    }

    /// Level of the results of [`Self::refresh`]; [`Self::bootstrap`] of sparse complex vectors ends one below.
    pub fn output_level(&self) -> usize {
        self.ctx.params().top_user_level()
    }

    /// Level of the split into real and imaginary parts, where EvalMod begins.
    fn eval_mod_level(&self) -> usize {
        self.ctx.params().max_level() - self.cts.len()
    }

    /// `log2` of the failure probability of one refresh: see [`failure_log2`].
    pub fn failure_log2(&self) -> f64 {
        failure_log2(
            self.ctx.params().literal().ephemeral_weight,
            self.options.eval_mod.bound,
            self.ctx.n(),
        )
    }

    /// Shape of the relinearisation key.
    pub fn relinearisation_shape(&self) -> KeyShape {
        KeyShape::minimal(self.ctx.params(), self.eval_mod_level())
    }

    /// Galois keys needed, by element and shape; of keys that differ in their level only, the highest.
    pub fn required_keys(&self) -> Vec<(u64, KeyShape)> {
        self.merged(
            self.refresh_keys()
                .into_iter()
                .chain(self.slots_to_coeffs_keys()),
        )
    }

    /// Galois keys of [`Self::refresh`] alone.
    pub fn refresh_keys(&self) -> Vec<(u64, KeyShape)> {
        let conjugation = (
            galois_conjugation(self.ctx.n()),
            KeyShape::minimal(self.ctx.params(), self.eval_mod_level()),
        );
        self.merged(
            self.cts
                .iter()
                .flat_map(LinearMap::required_keys)
                .chain(self.trace_rotations().map(|rotation| {
                    let element = galois_of_rotation(self.ctx.n(), rotation);
                    (
                        element,
                        KeyShape::minimal(self.ctx.params(), self.eval_mod_level() + 1),
                    )
                }))
                .chain([conjugation])
                .chain(self.packing.iter().flat_map(|p| p.unpack.required_keys())),
        )
    }

    /// Galois keys of [`Self::slots_to_coeffs`] alone.
    pub fn slots_to_coeffs_keys(&self) -> Vec<(u64, KeyShape)> {
        let first = self
            .first_stc_map(1.0)
            .map(|map| map.required_keys())
            .unwrap_or_default();
        self.merged(
            first
                .into_iter()
                .chain(self.stc_rest.iter().flat_map(LinearMap::required_keys)),
        )
    }

    /// Rotations whose sum of images keeps the coefficients of `X^gap` only.
    fn trace_rotations(&self) -> impl Iterator<Item = i64> + use<> {
        (self.options.log_slots..self.ctx.params().log_n() - 1).map(|k| 1i64 << k)
    }

    fn merged(&self, keys: impl Iterator<Item = (u64, KeyShape)>) -> Vec<(u64, KeyShape)> {
        let mut highest = BTreeMap::new();
        for (element, KeyShape { level, special }) in keys {
            let entry = highest.entry((element, special)).or_insert(level);
            *entry = level.max(*entry);
        }
        highest
            .into_iter()
            .map(|((element, special), level)| (element, KeyShape { level, special }))
            .collect()
    }

    /// Generates the Galois keys one by one: they are several GiB together, to be sent or stored as they come.
    pub fn galois_keys<'a>(
        &self,
        generator: &'a mut KeyGenerator,
        secret: &'a SecretKey,
    ) -> impl Iterator<Item = Result<SwitchingKey, CkksError>> + use<'a> {
        self.required_keys()
            .into_iter()
            .map(move |(element, shape)| generator.galois(secret, element, shape))
    }

    /// Bytes of the encoded factors.
    pub fn plaintext_bytes(&self) -> usize {
        self.cts
            .iter()
            .chain(&self.stc_rest)
            .map(LinearMap::bytes)
            .sum()
    }

    fn first_stc_map(&self, scale: f64) -> Result<LinearMap, CkksError> {
        let at = LinearMapOptions::at_level(&self.ctx, self.ctx.params().bottom_user_level());
        LinearMap::from_matrix(
            self.ctx.clone(),
            &self.stc_first,
            LinearMapOptions {
                scale: Some(scale),
                ..at
            },
        )
    }

    /// Slots to coefficients: slot `j` of a ciphertext at [`Parameters::bottom_user_level`] or above becomes, times `factor`, the coefficients
    /// `br(j)` (real part) and `br(j) + N/2` (imaginary part) of a ciphertext at level 0 under the same secret; see [`crate::dft::slot_of_coefficient`].
    ///
    /// The coefficients are `factor * q0/ratio * slot`, exactly whatever scale came in, and the result's scale is that: it must keep
    /// `|factor * slot| <= 1` until the refresh. `factor` makes room where a linear layer between the halves makes values grow.
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`], [`CkksError::MissingKey`], or [`CkksError::InvalidParameters`] for a factor that is not positive.
    pub fn slots_to_coeffs(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        factor: f64,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        if !(factor.is_finite() && factor > 0.0) {
            return Err(CkksError::InvalidParameters {
                field: "factor of SlotsToCoeffs",
                found: factor.to_string(),
                expected: "a positive number".into(),
            });
        }
        let scale = factor * self.message_scale();
        let top = self
            .ctx
            .params()
            .q(self.ctx.params().bottom_user_level())
            .value() as f64;
        let mut out = self
            .first_stc_map(top * scale / ct.scale)?
            .apply(evaluator, ct, keys)?;
        for map in &self.stc_rest {
            out = map.apply(evaluator, &out, keys)?;
        }
        out.scale = scale;
        Ok(out)
    }

    /// The level-0 ciphertext under the ephemeral secret, for [`Self::refresh`].
    ///
    /// # Errors
    /// [`CkksError::MissingKey`] if the keys were made without this one.
    pub fn encapsulate(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        keys: &EncapsulationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let key = keys.to_sparse().ok_or_else(|| CkksError::MissingKey {
            operation: "bootstrap",
            key: "switching key to the ephemeral secret".into(),
            level: 0,
        })?;
        evaluator.key_switch(ct, key)
    }

    /// A level-0 ciphertext under the ephemeral secret, its coefficients `m*scale`, to slots under the main secret at [`Self::output_level`]:
    /// the real ciphertext holds coefficient `br(j)` in slot `j`, the imaginary one (if wanted) coefficient `br(j) + N/2`.
    ///
    /// The results' scale is the user scale if `ct.scale` is [`Self::message_scale`], and in proportion to it otherwise. Needs
    /// `|m * scale| <= message_scale`; beyond, EvalMod's error grows quickly.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for a ciphertext that is not at level 0; [`CkksError::MissingKey`]; [`CkksError::ForeignKey`] if the two sets of
    /// keys belong to different main secrets.
    pub fn refresh(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        want_imaginary: bool,
        keys: &EvaluationKeys,
        encapsulation: &EncapsulationKeys,
    ) -> Result<(Ciphertext, Option<Ciphertext>), CkksError> {
        check_id("key set of the refresh", keys.id(), encapsulation.id())?;
        let relative = ct.scale / self.message_scale();
        let raised = self.mod_raise(evaluator, ct, encapsulation)?;
        let slots = self.coeffs_to_slots(evaluator, raised, None, keys)?;
        let conjugate = evaluator.conjugate(&slots, keys)?;
        let finish = |part: Ciphertext| -> Result<Ciphertext, CkksError> {
            let mut out = self.eval_mod(evaluator, &part, keys)?;
            out.scale *= relative;
            Ok(out)
        };
        let real = || finish(evaluator.add(&slots, &conjugate)?);
        // i (conj(v) - v) = 2 Im v
        let imaginary = || finish(evaluator.mul_i(&evaluator.sub(&conjugate, &slots)?)?);
        let (real, imaginary) = if want_imaginary {
            let (real, imaginary) = rayon::join(real, imaginary);
            (real?, Some(imaginary?))
        } else {
            (real()?, None)
        };
        evaluator.count_bootstrap();
        Ok((real, imaginary))
    }

    /// The whole bootstrapping: slots `|re|, |im| <= 1` at [`Parameters::bottom_user_level`] or above to the same slots at
    /// [`Self::output_level`] (for sparse vectors one below), with the user scale.
    ///
    /// # Errors
    /// Those of the two halves.
    pub fn bootstrap(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
        encapsulation: &EncapsulationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let sparse = self.encapsulated_coeffs(evaluator, ct, keys, encapsulation)?;
        if let Some(packing) = &self.packing {
            return self.refresh_packed(evaluator, &sparse, packing, keys, encapsulation);
        }
        let (mut real, imaginary) = self.refresh(evaluator, &sparse, true, keys, encapsulation)?;
        if let Some(imaginary) = imaginary {
            evaluator.add_assign(&mut real, &evaluator.mul_i(&imaginary)?)?;
        }
        Ok(real)
    }

    /// The whole bootstrapping of real slots: one EvalMod, imaginary parts are dropped. As [`Self::bootstrap`], at [`Self::output_level`].
    ///
    /// # Errors
    /// Those of the two halves.
    pub fn bootstrap_real(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
        encapsulation: &EncapsulationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let sparse = self.encapsulated_coeffs(evaluator, ct, keys, encapsulation)?;
        Ok(self
            .refresh(evaluator, &sparse, false, keys, encapsulation)?
            .0)
    }

    /// The first half of the bootstrapping: coefficients at level 0 under the ephemeral secret.
    fn encapsulated_coeffs(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
        encapsulation: &EncapsulationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let coefficients = self.slots_to_coeffs(evaluator, ct, 1.0, keys)?;
        self.encapsulate(evaluator, &coefficients, encapsulation)
    }

    /// Sparse complex vectors: both parts in one EvalMod.
    fn refresh_packed(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        packing: &Packing,
        keys: &EvaluationKeys,
        encapsulation: &EncapsulationKeys,
    ) -> Result<Ciphertext, CkksError> {
        check_id("key set of the refresh", keys.id(), encapsulation.id())?;
        let raised = self.mod_raise(evaluator, ct, encapsulation)?;
        let slots = self.coeffs_to_slots(evaluator, raised, Some(&packing.last), keys)?;
        let conjugate = evaluator.conjugate(&slots, keys)?;
        let parts = evaluator.add(&slots, &conjugate)?;
        let mut out = self.eval_mod(evaluator, &parts, keys)?;
        out.scale *= ct.scale / self.message_scale();
        evaluator.count_bootstrap();
        packing.unpack.apply(evaluator, &out, keys)
    }

    /// ModRaise and the switch to the main secret: the top level, coefficients `m*scale + q0*I`, with `q0` as scale.
    fn mod_raise(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        keys: &EncapsulationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let ctx = &*self.ctx;
        ctx.check_linear(ct)?;
        if ct.level != 0 {
            return Err(CkksError::Shape {
                what: "level of a ciphertext to refresh",
                found: ct.level,
                expected: "0 (SlotsToCoeffs or a ternary layer ends there)".into(),
            });
        }
        let KeyShape { level, special } = KeyShape::full(ctx.params());
        let lifted = |part: &RnsPoly| {
            let mut bottom = part.clone();
            ctx.q_table(0).inverse(bottom.limb_mut(0));
            let mut out = RnsPoly::unspecified(ctx.n(), level + 1 + special);
            evaluator.each_limb(&mut out, level, |j, m, limb| {
                if j == 0 {
                    limb.copy_from_slice(part.limb(0));
                } else {
                    ops::reduce_centred(m, ctx.modulus(level, 0), limb, bottom.limb(0));
                    ctx.table(level, j).forward(limb);
                }
            });
            out
        };
        let mut b = lifted(&ct.parts[0]);
        b.truncate(level + 1);
        let a = lifted(&ct.parts[1]);
        let division = Division {
            level,
            special,
            rescale: false,
            addends: [Some(&b), None],
            permutation: None,
        };
        let (key0, key1) = keys.raise();
        let reads = |j| [vec![key0.limb(j)], vec![key1.limb(j)]];
        let parts = division.of(ctx, reads, |j, u0, u1| {
            let m = ctx.modulus(level, j);
            ops::mul(m, u0, a.limb(j), key0.limb(j));
            ops::mul(m, u1, a.limb(j), key1.limb(j));
        })?;
        count(&evaluator.counters.key_switches, 1);
        Ok(Ciphertext {
            parts: parts.into(),
            level,
            scale: ctx.params().q(0).value() as f64,
        })
    }

    /// All factors of CoeffsToSlots, the last one replaced by `last` if given, and before it the trace of sparse vectors, which multiplies
    /// by `gap`.
    fn coeffs_to_slots(
        &self,
        evaluator: &Evaluator,
        mut ct: Ciphertext,
        last: Option<&LinearMap>,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let number = self.cts.len();
        for (k, map) in self.cts.iter().enumerate() {
            let map = if k + 1 == number {
                for rotation in self.trace_rotations() {
                    let image = evaluator.rotate(&ct, rotation, keys)?;
                    evaluator.add_assign(&mut ct, &image)?;
                }
                last.unwrap_or(map)
            } else {
                map
            };
            ct = map.apply(evaluator, &ct, keys)?;
        }
        Ok(ct)
    }

    /// `sin(2 pi y)` on slots `y/range`, read as the message: scale `user_scale`.
    fn eval_mod(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let params = self.ctx.params();
        let settings = self.options.eval_mod;
        let amplitude = 2.0 * std::f64::consts::PI / settings.ratio();
        // What the sine's result is read at: the user scale, or a prime where a polynomial follows.
        let bottom = self.output_level() + 2 * usize::from(settings.arcsine);
        let message_scale = if settings.arcsine {
            params.q(bottom).value() as f64
        } else {
            params.user_scale()
        };
        // Backwards through the squarings: each takes scale s to s^2/q.
        let angles = settings.double_angles as usize;
        let scale = (0..angles).fold(message_scale / amplitude, |s, k| {
            (s * params.q(bottom + 1 + k).value() as f64).sqrt()
        });
        let mut value =
            evaluator.evaluate_chebyshev(ct, self.eval_mod.coefficients(), scale, keys)?;
        for _ in 0..angles {
            let square = [(&value, &value)];
            let doubled = Quadratic {
                factor: 2,
                constant: -1.0,
                ..Quadratic::sum(&square)?
            };
            value = evaluator.quadratic(&doubled, keys)?;
        }
        value.scale = message_scale;
        if settings.arcsine {
            // v + c v^3 with v^3 = (3 T_1 + T_3)/4
            let c = settings.cubic() / 4.0;
            let coefficients = [0.0, 1.0 + 3.0 * c, 0.0, c];
            value =
                evaluator.evaluate_chebyshev(&value, &coefficients, params.user_scale(), keys)?;
        }
        Ok(value)
    }
}
