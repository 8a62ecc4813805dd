//! The specification: every operation on slot values in the clear, exactly.

use num_complex::Complex64;
use rayon::prelude::*;

use crate::{
    EnsiError,
    columns::sums::ColumnSums,
    layout::{Half, Layout},
    machine::{Chain, Machine, Mask, Refreshed, series_depth},
    ternary_layer::TernaryLayer,
};

/// Slots in the clear, with the level and scale a ciphertext would have.
#[derive(Clone, Debug)]
pub struct ClearCt {
    /// Slot values.
    pub values: Vec<Complex64>,
    level: usize,
    scale: f64,
}

impl ClearCt {
    /// The level a ciphertext would have.
    pub fn level(&self) -> usize {
        self.level
    }

    /// The scale a ciphertext would have.
    pub fn scale(&self) -> f64 {
        self.scale
    }
}

/// Called with every probed value: name, layer, slots.
pub type ProbeFn<'a> = Box<dyn FnMut(&str, usize, &[Complex64]) + 'a>;

/// Runs the program on slots in the clear.
pub struct ClearMachine<'a> {
    chain: Chain,
    layout: Layout,
    step: String,
    probe: Option<ProbeFn<'a>>,
}

impl<'a> ClearMachine<'a> {
    /// A machine for this chain and layout; `probe` sees intermediate values.
    pub fn new(chain: Chain, layout: Layout, probe: Option<ProbeFn<'a>>) -> Self {
        Self {
            chain,
            layout,
            step: String::new(),
            probe,
        }
    }

    /// A value as a fresh ciphertext would hold it.
    pub fn input(&self, values: Vec<Complex64>, level: usize, scale: f64) -> ClearCt {
        ClearCt {
            values,
            level,
            scale,
        }
    }

    /// A vector's rows as fresh ciphertexts would hold them; see [`Layout::slots_of`].
    pub fn rows<R: AsRef<[f32]>>(&self, rows: &[R], level: usize, scale: f64) -> Vec<ClearCt> {
        let complex = |slots: Vec<f64>| slots.iter().map(|&x| x.into()).collect();
        self.layout
            .slots_of(rows)
            .into_iter()
            .map(|slots| self.input(complex(slots), level, scale))
            .collect()
    }

    fn zip(
        a: &ClearCt,
        b: &ClearCt,
        f: impl Fn(Complex64, Complex64) -> Complex64,
    ) -> Vec<Complex64> {
        a.values
            .iter()
            .zip(&b.values)
            .map(|(x, y)| f(*x, *y))
            .collect()
    }
}

impl Machine for ClearMachine<'_> {
    type Ct = ClearCt;

    fn chain(&self) -> &Chain {
        &self.chain
    }
    fn level(&self, ct: &ClearCt) -> usize {
        ct.level
    }
    fn scale(&self, ct: &ClearCt) -> f64 {
        ct.scale
    }
    fn begin(&mut self, name: &str, _layer: Option<usize>) -> Result<(), EnsiError> {
        name.clone_into(&mut self.step);
        Ok(())
    }
    fn probe(&mut self, name: &str, layer: usize, ct: &ClearCt) -> Result<(), EnsiError> {
        if let Some(probe) = &mut self.probe {
            probe(name, layer, &ct.values);
        }
        Ok(())
    }

    fn rotate(&mut self, ct: &ClearCt, steps: i64) -> Result<ClearCt, EnsiError> {
        let mut out = ct.clone();
        let slots = out.values.len() as i64;
        out.values.rotate_left(steps.rem_euclid(slots) as usize);
        Ok(out)
    }
    fn rotate_many(&mut self, ct: &ClearCt, steps: &[i64]) -> Result<Vec<ClearCt>, EnsiError> {
        steps.iter().map(|s| self.rotate(ct, *s)).collect()
    }
    fn conjugate(&mut self, ct: &ClearCt) -> Result<ClearCt, EnsiError> {
        Ok(ClearCt {
            values: ct.values.iter().map(Complex64::conj).collect(),
            ..*ct
        })
    }
    fn add(&mut self, a: &ClearCt, b: &ClearCt) -> Result<ClearCt, EnsiError> {
        self.chain.same_scale(&self.step, a.scale, b.scale)?;
        Ok(ClearCt {
            values: Self::zip(a, b, |x, y| x + y),
            level: a.level.min(b.level),
            scale: a.scale,
        })
    }
    fn sub(&mut self, a: &ClearCt, b: &ClearCt) -> Result<ClearCt, EnsiError> {
        self.chain.same_scale(&self.step, a.scale, b.scale)?;
        Ok(ClearCt {
            values: Self::zip(a, b, |x, y| x - y),
            level: a.level.min(b.level),
            scale: a.scale,
        })
    }
    fn add_values(&mut self, ct: &ClearCt, values: &[f64]) -> Result<ClearCt, EnsiError> {
        Ok(ClearCt {
            values: ct.values.iter().zip(values).map(|(x, y)| x + y).collect(),
            ..*ct
        })
    }
    fn add_const(&mut self, ct: &ClearCt, value: f64) -> Result<ClearCt, EnsiError> {
        Ok(ClearCt {
            values: ct.values.iter().map(|x| x + value).collect(),
            ..*ct
        })
    }
    fn mul_i(&mut self, ct: &ClearCt) -> Result<ClearCt, EnsiError> {
        Ok(ClearCt {
            values: ct.values.iter().map(|x| x * Complex64::i()).collect(),
            ..*ct
        })
    }
    fn dot_masks_unscaled(&mut self, terms: &[(&ClearCt, &Mask)]) -> Result<ClearCt, EnsiError> {
        let first = terms[0].0;
        let mut values = vec![Complex64::default(); first.values.len()];
        let mut level = first.level;
        for (ct, mask) in terms {
            self.chain.same_scale(&self.step, first.scale, ct.scale)?;
            level = level.min(ct.level);
            for (v, (x, w)) in values.iter_mut().zip(ct.values.iter().zip(mask.values())) {
                *v += x * w;
            }
        }
        Ok(ClearCt {
            values,
            level,
            scale: first.scale * self.chain.q[level],
        })
    }
    fn dot(&mut self, terms: &[(&ClearCt, &ClearCt)]) -> Result<ClearCt, EnsiError> {
        let (first, second) = terms[0];
        let scale = first.scale * second.scale;
        let mut values = vec![Complex64::default(); first.values.len()];
        let mut level = first.level;
        for (a, b) in terms {
            self.chain
                .same_scale(&self.step, scale, a.scale * b.scale)?;
            level = level.min(a.level).min(b.level);
            for (v, (x, y)) in values.iter_mut().zip(a.values.iter().zip(&b.values)) {
                *v += x * y;
            }
        }
        self.rescale(&ClearCt {
            values,
            level,
            scale,
        })
    }
    fn rescale(&mut self, ct: &ClearCt) -> Result<ClearCt, EnsiError> {
        let level = self.chain.spend(&self.step, ct.level, 1)?;
        Ok(ClearCt {
            values: ct.values.clone(),
            level,
            scale: ct.scale / self.chain.q[ct.level],
        })
    }
    fn scale_values(&mut self, ct: &ClearCt, factor: f64) -> ClearCt {
        ClearCt {
            values: ct.values.iter().map(|x| x * factor).collect(),
            level: ct.level,
            scale: ct.scale / factor,
        }
    }
    fn match_scale(&mut self, ct: &ClearCt, scale: f64) -> Result<ClearCt, EnsiError> {
        Ok(ClearCt {
            values: ct.values.clone(),
            level: self.chain.spend(&self.step, ct.level, 1)?,
            scale,
        })
    }
    fn drop_to_level(&mut self, ct: &ClearCt, level: usize) -> Result<ClearCt, EnsiError> {
        if level > ct.level {
            return Err(EnsiError::OutOfLevels {
                step: self.step.clone(),
                needed: level,
                found: ct.level,
            });
        }
        Ok(ClearCt {
            level,
            ..ct.clone()
        })
    }
    fn chebyshev(
        &mut self,
        ct: &ClearCt,
        coefficients: &[f64],
        scale: f64,
    ) -> Result<ClearCt, EnsiError> {
        let level = self
            .chain
            .spend(&self.step, ct.level, series_depth(coefficients.len()))?;
        let eval = |u: Complex64| {
            let (mut b1, mut b2) = (Complex64::default(), Complex64::default());
            for c in coefficients.iter().skip(1).rev() {
                (b1, b2) = (2.0 * u * b1 - b2 + c, b1);
            }
            u * b1 - b2 + coefficients[0]
        };
        Ok(ClearCt {
            values: ct.values.iter().map(|u| eval(*u)).collect(),
            level,
            scale,
        })
    }
    fn linear(
        &mut self,
        inputs: &[ClearCt],
        layer: &TernaryLayer,
        delta: f64,
    ) -> Result<Vec<Refreshed<ClearCt>>, EnsiError> {
        check_linear(&self.chain, layer, inputs.iter().map(|ct| ct.level))?;
        let tokens = self.layout.tokens();
        let zero = || vec![Complex64::default(); self.layout.slots()];
        let mut re: Vec<Vec<Complex64>> = (0..layer.outputs()).map(|_| zero()).collect();
        let mut im: Vec<Vec<Complex64>> = (0..layer.outputs()).map(|_| zero()).collect();
        let columns: Vec<Vec<f64>> = layer
            .columns()
            .iter()
            .map(|column| {
                let start = self.layout.slot(column.block, 0);
                let values = &inputs[column.ciphertext].values[start..start + tokens];
                values.iter().map(|x| x.re).collect()
            })
            .collect();
        let products: Vec<Vec<f64>> = (0..layer.rows())
            .into_par_iter()
            .map(|row| {
                let mut sums = vec![0.0; tokens];
                for (weight, column) in layer.row(row).iter().zip(&columns) {
                    let weight = f64::from(*weight);
                    for (sum, x) in sums.iter_mut().zip(column) {
                        *sum += weight * x;
                    }
                }
                sums
            })
            .collect();
        for (row, sums) in products.iter().enumerate() {
            for place in layer.places(row) {
                let half = if place.half == Half::Re {
                    &mut re
                } else {
                    &mut im
                };
                let start = self.layout.slot(place.block, 0);
                for (out, sum) in half[place.ciphertext][start..].iter_mut().zip(sums) {
                    out.re += sum;
                }
            }
        }
        let scale = refreshed_scale(&self.chain, delta);
        let level = self.chain.top;
        Ok(re
            .into_iter()
            .zip(im)
            .enumerate()
            .map(|(c, (re, im))| {
                let im = layer.uses_imaginary(c).then_some(ClearCt {
                    values: im,
                    level,
                    scale,
                });
                (
                    ClearCt {
                        values: re,
                        level,
                        scale,
                    },
                    im,
                )
            })
            .collect())
    }
    fn columns(
        &mut self,
        inputs: &[&ClearCt],
        sums: &ColumnSums,
    ) -> Result<Vec<ClearCt>, EnsiError> {
        let (level, scale) =
            check_columns(&self.chain, sums, inputs.iter().map(|x| (x.level, x.scale)))?;
        let slots = inputs[0].values.len();
        let rows: Vec<Vec<Complex64>> = (0..sums.codes().rows())
            .into_par_iter()
            .map(|row| {
                let mut out = vec![Complex64::default(); slots];
                for (col, x) in inputs.iter().enumerate() {
                    let w = f64::from(sums.codes().weight(row, col));
                    for (o, x) in out.iter_mut().zip(&x.values) {
                        *o += x * w;
                    }
                }
                out
            })
            .collect();
        let masked = |terms: &Vec<(usize, Mask)>| {
            let mut values = vec![Complex64::default(); slots];
            for (row, mask) in terms {
                for (v, (x, w)) in values.iter_mut().zip(rows[*row].iter().zip(mask.values())) {
                    *v += x * w;
                }
            }
            ClearCt {
                values,
                level,
                scale,
            }
        };
        Ok(sums.outputs().iter().map(masked).collect())
    }
    fn refresh(&mut self, cts: &[ClearCt], delta: f64) -> Result<Vec<ClearCt>, EnsiError> {
        check_refresh(
            &self.chain,
            &self.step,
            cts.iter().map(|x| (x.level, x.scale)),
        )?;
        let scale = refreshed_scale(&self.chain, delta);
        let level = self.chain.top;
        let refreshed = |ct: &ClearCt| ClearCt {
            values: ct.values.iter().map(|x| x.re.into()).collect(),
            level,
            scale,
        };
        Ok(cts.iter().map(refreshed).collect())
    }
}

/// What every machine checks before [`Machine::columns`]: number of inputs, scales. Level and scale of the results.
pub(crate) fn check_columns(
    chain: &Chain,
    sums: &ColumnSums,
    inputs: impl ExactSizeIterator<Item = (usize, f64)>,
) -> Result<(usize, f64), EnsiError> {
    if inputs.len() == 0 || inputs.len() != sums.codes().cols() {
        return Err(EnsiError::Shape(format!(
            "{}: {} input ciphertexts, expected {}",
            sums.name(),
            inputs.len(),
            sums.codes().cols()
        )));
    }
    let (mut lowest, mut first) = (usize::MAX, None);
    for (level, scale) in inputs {
        chain.same_scale(sums.name(), *first.get_or_insert(scale), scale)?;
        lowest = lowest.min(level);
    }
    let level = chain.spend(sums.name(), lowest, 1)?;
    Ok((level, first.unwrap_or(chain.scale)))
}

/// What every machine checks before [`Machine::refresh`]: levels, scales.
pub(crate) fn check_refresh(
    chain: &Chain,
    step: &str,
    cts: impl Iterator<Item = (usize, f64)>,
) -> Result<(), EnsiError> {
    let mut first = None;
    for (level, scale) in cts {
        chain.same_scale(step, *first.get_or_insert(scale), scale)?;
        chain.spend(step, level, chain.bottom)?;
    }
    Ok(())
}

/// What every machine checks before a linear layer: number of inputs, levels.
pub(crate) fn check_linear(
    chain: &Chain,
    layer: &TernaryLayer,
    levels: impl ExactSizeIterator<Item = usize>,
) -> Result<(), EnsiError> {
    if levels.len() != layer.inputs() {
        return Err(EnsiError::Shape(format!(
            "{}: {} input ciphertexts, expected {}",
            layer.name(),
            levels.len(),
            layer.inputs()
        )));
    }
    for level in levels {
        if level < chain.bottom {
            return Err(EnsiError::OutOfLevels {
                step: layer.name().to_owned(),
                needed: chain.bottom,
                found: level,
            });
        }
    }
    Ok(())
}

/// Scale at which a refreshed ciphertext holds *integer combinations*: the refresh returns messages at the ordinary scale, and a
/// message is the integer combination times `delta / message scale`.
pub(crate) fn refreshed_scale(chain: &Chain, delta: f64) -> f64 {
    chain.scale * delta / chain.message_scale
}
