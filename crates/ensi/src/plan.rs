//! The plan: every step of a forward pass with levels, operation counts and predicted seconds, before anything runs.

use std::ops::{Add, AddAssign, Mul, Sub};

use serde::Serialize;
use tacit_ckks::bootstrap::BootstrapOptions;

/// Numbers of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Refreshes: one for each ciphertext that goes through ModRaise and CoeffsToSlots.
    pub bootstraps: u64,
    /// Key switches (relinearisations, rotations, conjugations), those inside refreshes included.
    pub key_switches: u64,
    /// Products of two ciphertexts.
    pub ct_ct: u64,
    /// Products of a ciphertext and a plaintext or a constant.
    pub ct_pt: u64,
    /// Additions and subtractions of ciphertexts, plaintexts and constants.
    pub additions: u64,
    /// Word additions of the ternary products (no ciphertext operation in the sense of the others).
    pub word_additions: u64,
    /// Rescales.
    pub rescales: u64,
}

impl Counts {
    /// All ciphertext operations but the word additions.
    pub fn operations(&self) -> u64 {
        self.key_switches + self.ct_ct + self.ct_pt + self.additions + self.rescales
    }
}

impl Add for Counts {
    type Output = Counts;
    fn add(self, o: Counts) -> Counts {
        Counts {
            bootstraps: self.bootstraps + o.bootstraps,
            key_switches: self.key_switches + o.key_switches,
            ct_ct: self.ct_ct + o.ct_ct,
            ct_pt: self.ct_pt + o.ct_pt,
            additions: self.additions + o.additions,
            word_additions: self.word_additions + o.word_additions,
            rescales: self.rescales + o.rescales,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, o: Counts) {
        *self = *self + o;
    }
}

impl Mul<usize> for Counts {
    type Output = Counts;
    fn mul(self, times: usize) -> Counts {
        let n = times as u64;
        Counts {
            bootstraps: n * self.bootstraps,
            key_switches: n * self.key_switches,
            ct_ct: n * self.ct_ct,
            ct_pt: n * self.ct_pt,
            additions: n * self.additions,
            word_additions: n * self.word_additions,
            rescales: n * self.rescales,
        }
    }
}

impl Sub for Counts {
    type Output = Counts;
    fn sub(self, o: Counts) -> Counts {
        Counts {
            bootstraps: self.bootstraps - o.bootstraps,
            key_switches: self.key_switches - o.key_switches,
            ct_ct: self.ct_ct - o.ct_ct,
            ct_pt: self.ct_pt - o.ct_pt,
            additions: self.additions - o.additions,
            word_additions: self.word_additions - o.word_additions,
            rescales: self.rescales - o.rescales,
        }
    }
}

/// One step of the plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanStep {
    /// What it does.
    pub name: String,
    /// Which layer it belongs to.
    pub layer: Option<usize>,
    /// Highest level operated on.
    pub level_in: usize,
    /// Lowest level operated on.
    pub level_out: usize,
    /// Operations.
    pub counts: Counts,
    /// Seconds, from the cost model.
    pub predicted_seconds: f64,
}

impl PlanStep {
    pub(crate) fn new(name: &str, layer: Option<usize>) -> Self {
        Self {
            name: name.to_owned(),
            layer,
            level_in: 0,
            level_out: usize::MAX,
            counts: Counts::default(),
            predicted_seconds: 0.0,
        }
    }
}

/// The plan of a forward pass.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Steps in order.
    pub steps: Vec<PlanStep>,
    /// Tokens of the window.
    pub context: usize,
    /// Level of the encrypted input.
    pub input_level: usize,
    /// Ciphertexts of the encrypted input.
    pub input_ciphertexts: usize,
    /// Bytes of all evaluation keys in memory.
    pub key_bytes: u64,
}

impl Plan {
    /// Sum over all steps.
    pub fn total(&self) -> Counts {
        self.steps
            .iter()
            .fold(Counts::default(), |sum, s| sum + s.counts)
    }

    /// Number of steps before a layer.
    pub fn steps_before(&self, layer: usize) -> usize {
        let earlier = |step: &&PlanStep| step.layer.is_none_or(|l| l < layer);
        self.steps.iter().take_while(earlier).count()
    }

    /// Predicted seconds of a forward pass.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|s| s.predicted_seconds).sum()
    }
}

/// Seconds of each operation as a function of the level, for one number of threads.
///
/// Key switches cost `dnum` digits times the limbs of the extended basis; the rest is linear in the limbs. The unit is one limb
/// transform (NTT); the factors are those of `tacit bench engine --threads 1` on a quiet machine, memory traffic included.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Seconds of one limb's transform, measured on this machine, divided by the useful threads.
    pub unit: f64,
    /// Digit size in limbs.
    pub alpha: usize,
    /// Special primes.
    pub special: usize,
    /// Seconds of SlotsToCoeffs of one ciphertext with its ring switch.
    pub slots_to_coeffs: f64,
    /// Seconds per weight (zeros included) of the ternary product.
    pub mix_per_weight: f64,
    /// Seconds of a word addition where ciphertexts are the columns.
    pub word_addition: f64,
    /// Seconds of repack, ModRaise and CoeffsToSlots of one ciphertext.
    pub coeffs_to_slots: f64,
    /// Seconds of one EvalMod.
    pub eval_mod: f64,
}

impl Cost {
    /// One key switch at a level; a hoisted one leaves out the decomposition.
    pub fn key_switch(&self, level: usize, hoisted: bool) -> f64 {
        let limbs = level + 1;
        let extended = (limbs + self.special) as f64;
        let digits = limbs.div_ceil(self.alpha) as f64;
        let decomposition = digits * extended * 1.6 + limbs as f64;
        let product = digits * extended * 0.5 + 4.5 * extended;
        self.unit
            * if hoisted {
                product
            } else {
                decomposition + product
            }
    }
    /// Tensor product of two ciphertexts.
    pub fn tensor(&self, level: usize) -> f64 {
        self.unit * 1.7 * (level + 1) as f64
    }
    /// Ciphertext times plaintext.
    pub fn plain_product(&self, level: usize) -> f64 {
        self.unit * 0.9 * (level + 1) as f64
    }
    /// Rescale of two polynomials.
    pub fn rescale(&self, level: usize) -> f64 {
        self.unit * 3.6 * (level + 1) as f64
    }
    /// Addition.
    pub fn addition(&self, level: usize) -> f64 {
        self.unit * 0.9 * (level + 1) as f64
    }
    /// Encoding of slot values.
    pub fn encode(&self, level: usize) -> f64 {
        self.unit * (40.0 + 1.2 * (level + 1) as f64)
    }
}

impl Cost {
    /// The cost model for a context on this machine: measures one limb transform over all primes in turn (some ten milliseconds).
    ///
    /// The refresh figures are multiples of it, for the default shapes of CoeffsToSlots, EvalMod and SlotsToCoeffs.
    pub fn measure(context: &tacit_ckks::Context) -> Self {
        let params = context.params();
        let n = params.n();
        let mut limb: Vec<u64> = (0..n as u64).collect();
        // the fastest of some rounds: others are disturbed
        let mut round = || {
            let start = std::time::Instant::now();
            for i in 0..params.q_len() {
                context.q_table(i).forward(&mut limb);
            }
            start.elapsed().as_secs_f64() / params.q_len() as f64
        };
        let fastest = (0..6).map(|_| round()).fold(f64::INFINITY, f64::min);
        let threads = rayon::current_num_threads().max(1) as f64;
        let unit = fastest / (1.0 + 0.75 * (threads - 1.0));
        let top = params.max_level();
        let mut cost = Self {
            unit,
            alpha: params.alpha(),
            special: params.p_len(),
            slots_to_coeffs: 0.0,
            // `tacit bench linear`: 1536 x 1536 weights take 0.030 s on two threads.
            mix_per_weight: 2.2e-8 / (1.0 + 0.75 * (threads - 1.0)) * n as f64 / 65536.0,
            word_addition: 1.3e-10 / (1.0 + 0.75 * (threads - 1.0)),
            coeffs_to_slots: 0.0,
            eval_mod: 0.0,
        };
        let literal = params.literal();
        let options = BootstrapOptions::for_parameters(params);
        // Rotations that stay over QP cost two fifths of others, products in one pass over the limbs half of single ones.
        let factors =
            |stages: &[usize], wraps: usize, level: usize, babies: Option<usize>| -> f64 {
                let factor = |(k, stages): (usize, &usize)| {
                    let level = level - k;
                    let diagonals = if k == wraps {
                        1 << stages
                    } else {
                        (2 << stages) - 1
                    };
                    let babies = babies.unwrap_or(if diagonals > 32 { 16 } else { 8 });
                    let giants = (diagonals as usize).div_ceil(babies) - 1;
                    let hoisted = cost.key_switch(level, true);
                    let full = cost.key_switch(level, false);
                    (full - hoisted)
                        + hoisted * 0.4 * (babies - 1) as f64
                        + full * giants as f64
                        + cost.plain_product(level) * 0.55 * diagonals as f64
                };
                stages.iter().enumerate().map(factor).sum()
            };
        let stc = &options.stc_stages;
        let stc = factors(stc, stc.len() - 1, params.bottom_user_level(), None);
        let babies = options.cts_baby_steps.first().copied().flatten();
        let cts = factors(&options.cts_stages, 0, top, babies) + 2.0 * cost.key_switch(top, false);
        let start = top - literal.cts_bits.len();
        let eval_mod: f64 = (0..19)
            .map(|i| {
                let level = start - i * literal.eval_mod_bits.len() / 19;
                cost.tensor(level) + cost.key_switch(level, false) + cost.rescale(level)
            })
            .sum();
        cost.slots_to_coeffs = stc;
        cost.coeffs_to_slots = cts;
        cost.eval_mod = eval_mod;
        cost
    }
}
