//! The plan: level, scale and cost of every operation, without data.

use serde::Serialize;

use crate::{
    EnsiError,
    columns::sums::ColumnSums,
    machine::{
        Chain, Machine, Mask, Refreshed,
        clear::{check_columns, check_linear, check_refresh, refreshed_scale},
        encrypted::Engine,
        rehearsal::{RefreshCounts, SeriesCounts},
        series_depth,
    },
    plan::{Cost, Counts, PlanStep},
    ternary_layer::TernaryLayer,
};

/// A ciphertext's level and scale.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Shape {
    /// Level.
    pub level: usize,
    /// Scale.
    pub scale: f64,
}

/// Which keys a program uses: rotation steps (and 'conjugation' as `None`) with the highest level each is used at.
#[derive(Clone, Debug, Default)]
pub struct KeyUse {
    /// Rotation steps (reduced modulo the slot count) with the highest level.
    pub rotations: std::collections::BTreeMap<i64, usize>,
    /// Highest level of a conjugation.
    pub conjugation: usize,
    /// Highest level of a relinearisation.
    pub relinearisation: usize,
}

impl KeyUse {
    /// What either program uses.
    pub fn merge(&mut self, other: &Self) {
        for (&steps, &level) in &other.rotations {
            let entry = self.rotations.entry(steps).or_insert(level);
            *entry = level.max(*entry);
        }
        self.conjugation = self.conjugation.max(other.conjugation);
        self.relinearisation = self.relinearisation.max(other.relinearisation);
    }
}

/// Runs the program on shapes only.
pub struct CountingMachine<'a> {
    chain: Chain,
    slots: i64,
    cost: Cost,
    series: SeriesCounts,
    refresh: RefreshCounts,
    engine: &'a Engine,
    steps: Vec<PlanStep>,
    keys: KeyUse,
}

impl<'a> CountingMachine<'a> {
    /// A machine for this engine and cost model.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn new(engine: &'a Engine, cost: Cost) -> Result<Self, EnsiError> {
        let mut series = SeriesCounts::default();
        Ok(Self {
            chain: engine.chain().clone(),
            slots: engine.context().params().slots() as i64,
            cost,
            refresh: RefreshCounts::new(engine.bootstrapper(), &mut series)?,
            series,
            engine,
            steps: Vec::new(),
            keys: KeyUse::default(),
        })
    }

    /// The steps and the keys used.
    pub fn finish(self) -> (Vec<PlanStep>, KeyUse) {
        (self.steps, self.keys)
    }

    fn note(&mut self, level: usize, seconds: f64, add: impl FnOnce(&mut Counts)) {
        if let Some(step) = self.steps.last_mut() {
            add(&mut step.counts);
            step.predicted_seconds += seconds;
            step.level_in = step.level_in.max(level);
            step.level_out = step.level_out.min(level);
        }
    }

    fn key_switch(&mut self, level: usize, hoisted: bool) {
        let seconds = self.cost.key_switch(level, hoisted);
        self.note(level, seconds, |c| c.key_switches += 1);
    }

    fn use_rotation(&mut self, steps: i64, level: usize) -> bool {
        let steps = steps.rem_euclid(self.slots);
        if steps == 0 {
            return false;
        }
        let entry = self.keys.rotations.entry(steps).or_insert(0);
        *entry = level.max(*entry);
        true
    }

    fn spend(&self, level: usize, depth: usize) -> Result<usize, EnsiError> {
        self.chain.spend(self.step_name(), level, depth)
    }

    fn step_name(&self) -> &str {
        self.steps.last().map_or("input", |s| &s.name)
    }
}

impl Machine for CountingMachine<'_> {
    type Ct = Shape;

    fn chain(&self) -> &Chain {
        &self.chain
    }
    fn level(&self, ct: &Shape) -> usize {
        ct.level
    }
    fn scale(&self, ct: &Shape) -> f64 {
        ct.scale
    }
    fn begin(&mut self, name: &str, layer: Option<usize>) -> Result<(), EnsiError> {
        self.steps.push(PlanStep::new(name, layer));
        Ok(())
    }

    fn rotate(&mut self, ct: &Shape, steps: i64) -> Result<Shape, EnsiError> {
        if self.use_rotation(steps, ct.level) {
            self.key_switch(ct.level, false);
        }
        Ok(*ct)
    }
    fn rotate_many(&mut self, ct: &Shape, steps: &[i64]) -> Result<Vec<Shape>, EnsiError> {
        for s in steps {
            if self.use_rotation(*s, ct.level) {
                self.key_switch(ct.level, true);
            }
        }
        Ok(vec![*ct; steps.len()])
    }
    fn conjugate(&mut self, ct: &Shape) -> Result<Shape, EnsiError> {
        self.keys.conjugation = self.keys.conjugation.max(ct.level);
        self.key_switch(ct.level, false);
        Ok(*ct)
    }
    fn add(&mut self, a: &Shape, b: &Shape) -> Result<Shape, EnsiError> {
        self.chain.same_scale(self.step_name(), a.scale, b.scale)?;
        let level = a.level.min(b.level);
        let seconds = self.cost.addition(level);
        self.note(level, seconds, |c| c.additions += 1);
        Ok(Shape {
            level,
            scale: a.scale,
        })
    }
    fn sub(&mut self, a: &Shape, b: &Shape) -> Result<Shape, EnsiError> {
        self.add(a, b)
    }
    fn add_values(&mut self, ct: &Shape, _values: &[f64]) -> Result<Shape, EnsiError> {
        let seconds = self.cost.encode(ct.level);
        self.note(ct.level, seconds, |c| c.additions += 1);
        Ok(*ct)
    }
    fn add_const(&mut self, ct: &Shape, _value: f64) -> Result<Shape, EnsiError> {
        self.note(ct.level, 0.0, |c| c.additions += 1);
        Ok(*ct)
    }
    fn mul_i(&mut self, ct: &Shape) -> Result<Shape, EnsiError> {
        Ok(*ct)
    }
    fn dot_masks_unscaled(&mut self, terms: &[(&Shape, &Mask)]) -> Result<Shape, EnsiError> {
        let level = terms.iter().map(|t| t.0.level).min().unwrap_or(0);
        for (ct, _) in terms {
            self.chain
                .same_scale(self.step_name(), terms[0].0.scale, ct.scale)?;
        }
        let seconds = self.cost.plain_product(level) * terms.len() as f64;
        let n = terms.len() as u64;
        self.note(level, seconds, |c| {
            c.ct_pt += n;
            c.additions += n - 1;
        });
        Ok(Shape {
            level,
            scale: terms[0].0.scale * self.chain.q[level],
        })
    }
    fn dot(&mut self, terms: &[(&Shape, &Shape)]) -> Result<Shape, EnsiError> {
        let (a, b) = terms[0];
        let level = terms
            .iter()
            .map(|(a, b)| a.level.min(b.level))
            .min()
            .unwrap_or(0);
        for (x, y) in terms {
            self.chain
                .same_scale(self.step_name(), a.scale * b.scale, x.scale * y.scale)?;
        }
        self.keys.relinearisation = self.keys.relinearisation.max(level);
        let n = terms.len() as u64;
        let seconds = self.cost.tensor(level) * n as f64;
        self.note(level, seconds, |c| {
            c.ct_ct += n;
            c.additions += n - 1;
        });
        self.key_switch(level, false);
        self.rescale(&Shape {
            level,
            scale: a.scale * b.scale,
        })
    }
    fn rescale(&mut self, ct: &Shape) -> Result<Shape, EnsiError> {
        let seconds = self.cost.rescale(ct.level);
        self.note(ct.level, seconds, |c| c.rescales += 1);
        Ok(Shape {
            level: self.spend(ct.level, 1)?,
            scale: ct.scale / self.chain.q[ct.level],
        })
    }
    fn scale_values(&mut self, ct: &Shape, factor: f64) -> Shape {
        Shape {
            level: ct.level,
            scale: ct.scale / factor,
        }
    }
    fn match_scale(&mut self, ct: &Shape, scale: f64) -> Result<Shape, EnsiError> {
        let seconds = self.cost.rescale(ct.level);
        self.note(ct.level, seconds, |c| {
            c.ct_pt += 1;
            c.rescales += 1;
        });
        Ok(Shape {
            level: self.spend(ct.level, 1)?,
            scale,
        })
    }
    fn drop_to_level(&mut self, ct: &Shape, level: usize) -> Result<Shape, EnsiError> {
        if level > ct.level {
            return Err(EnsiError::OutOfLevels {
                step: self.step_name().to_owned(),
                needed: level,
                found: ct.level,
            });
        }
        Ok(Shape { level, ..*ct })
    }
    fn chebyshev(
        &mut self,
        ct: &Shape,
        coefficients: &[f64],
        scale: f64,
    ) -> Result<Shape, EnsiError> {
        let depth = series_depth(coefficients.len());
        let level = self.spend(ct.level, depth)?;
        let counts = self.series.of(coefficients)?;
        self.keys.relinearisation = self.keys.relinearisation.max(ct.level);
        let middle = ct.level - depth / 2;
        let seconds = self.cost.tensor(middle) * counts.ct_ct as f64
            + self.cost.key_switch(middle, false) * counts.key_switches as f64
            + self.cost.rescale(middle) * counts.rescales as f64;
        self.note(ct.level, seconds, |c| *c += counts);
        Ok(Shape { level, scale })
    }
    fn linear(
        &mut self,
        inputs: &[Shape],
        layer: &TernaryLayer,
        delta: f64,
    ) -> Result<Vec<Refreshed<Shape>>, EnsiError> {
        check_linear(&self.chain, layer, inputs.iter().map(|ct| ct.level))?;
        let out = Shape {
            level: self.chain.top,
            scale: refreshed_scale(&self.chain, delta),
        };
        let imaginary = (0..layer.outputs())
            .filter(|c| layer.uses_imaginary(*c))
            .count();
        let seconds = self.cost.slots_to_coeffs * inputs.len() as f64
            + self.cost.mix_per_weight * (layer.rows() * layer.columns().len()) as f64
            + self.cost.coeffs_to_slots * layer.outputs() as f64
            + self.cost.eval_mod * (layer.outputs() + imaginary) as f64;
        let counts = self
            .refresh
            .linear(inputs.len(), layer.outputs(), imaginary);
        let words = self.engine.word_additions(layer)?;
        self.note(self.chain.bottom, seconds, |c| {
            *c += counts;
            c.word_additions += words;
        });
        Ok((0..layer.outputs())
            .map(|c| (out, layer.uses_imaginary(c).then_some(out)))
            .collect())
    }
    fn columns(&mut self, inputs: &[&Shape], sums: &ColumnSums) -> Result<Vec<Shape>, EnsiError> {
        let shapes = inputs.iter().map(|x| (x.level, x.scale));
        let (level, scale) = check_columns(&self.chain, sums, shapes)?;
        let (terms, outputs) = (sums.terms(), sums.outputs().len());
        let words = sums.word_additions(2 * self.slots as usize, level + 2);
        let seconds = self.cost.word_addition * words as f64
            + self.cost.plain_product(level + 1) * terms as f64
            + self.cost.rescale(level + 1) * outputs as f64;
        self.note(level + 1, seconds, |c| {
            c.ct_pt += terms as u64;
            c.additions += (terms - outputs) as u64;
            c.rescales += outputs as u64;
            c.word_additions += words;
        });
        Ok(vec![Shape { level, scale }; outputs])
    }
    fn refresh(&mut self, cts: &[Shape], delta: f64) -> Result<Vec<Shape>, EnsiError> {
        check_refresh(
            &self.chain,
            self.step_name(),
            cts.iter().map(|x| (x.level, x.scale)),
        )?;
        let bootstraps = cts.len().div_ceil(2);
        let seconds = (self.cost.slots_to_coeffs + self.cost.coeffs_to_slots) * bootstraps as f64
            + self.cost.eval_mod * cts.len() as f64;
        let mut counts = self.refresh.direct(bootstraps, cts.len());
        // the second of a pair is added to the first
        counts.additions += (cts.len() - bootstraps) as u64;
        self.note(self.chain.bottom, seconds, |c| *c += counts);
        let out = Shape {
            level: self.chain.top,
            scale: refreshed_scale(&self.chain, delta),
        };
        Ok(vec![out; cts.len()])
    }
}
