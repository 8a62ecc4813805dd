//! The program on ciphertexts: what the server runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use num_complex::Complex64;
use rayon::prelude::*;
use tacit_ckks::{
    Ciphertext, CkksError, Context, Encoder, EvaluationKeys, Evaluator, MaskedRows, Plaintext,
    Quadratic,
    bootstrap::{Bootstrapper, EncapsulationKeys},
    mlwe::{InputPlacement, MlweContext, MlweKeys, OutputPlacement, TernaryMix},
};

use crate::{
    EnsiError,
    columns::sums::ColumnSums,
    layout::{Half, Layout},
    machine::{
        Chain, Machine, Mask, MaskUse, Refreshed,
        clear::{check_columns, check_linear, check_refresh, refreshed_scale},
    },
    plan::Counts,
    server::Progress,
    ternary_layer::TernaryLayer,
};

/// Public material that every forward pass uses: tables, encoded factors, packed weights, encoded masks. Nothing of a client.
pub struct Engine {
    context: Arc<Context>,
    encoder: Encoder,
    bootstrapper: Arc<Bootstrapper>,
    mlwe: MlweContext,
    chain: Chain,
    layout: Layout,
    mixes: Mutex<HashMap<String, Arc<TernaryMix>>>,
    masks: Mutex<EncodedMasks>,
    passing: Mutex<EncodedMasks>,
}

/// Products of ciphertexts in a sum up to which its three parts are not written down.
const FEW_PRODUCTS: usize = 2;

/// Encodings by identity of the mask and level.
type EncodedMasks = HashMap<(usize, usize), EncodedMask>;

/// A mask with its encoding at one level; the mask is kept so that its address stays its own.
type EncodedMask = (Mask, Arc<Plaintext>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Builds the engine for a context and layout.
    ///
    /// # Errors
    /// When the parameters do not fit bootstrapping or the module-LWE forms.
    pub fn new(context: Arc<Context>, layout: Layout) -> Result<Self, EnsiError> {
        let bootstrapper = Arc::new(Bootstrapper::for_context(context.clone())?);
        Self::with(context, bootstrapper, layout)
    }

    /// An engine for another layout, with the same parameters and tables for the refresh.
    ///
    /// # Errors
    /// When the parameters do not fit the module-LWE forms.
    pub fn beside(&self, layout: Layout) -> Result<Self, EnsiError> {
        Self::with(self.context.clone(), self.bootstrapper.clone(), layout)
    }

    fn with(
        context: Arc<Context>,
        bootstrapper: Arc<Bootstrapper>,
        layout: Layout,
    ) -> Result<Self, EnsiError> {
        Ok(Self {
            encoder: Encoder::new(context.clone()),
            bootstrapper,
            chain: Chain::of(context.params()),
            mlwe: MlweContext::new(&context, 2 * layout.tokens())?,
            context,
            layout,
            mixes: Mutex::default(),
            masks: Mutex::default(),
            passing: Mutex::default(),
        })
    }

    /// Drops the encodings of masks that were for one pass.
    pub fn forget_passing(&self) {
        lock(&self.passing).clear();
    }

    /// The ckks context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }
    /// Bootstrapping.
    pub fn bootstrapper(&self) -> &Bootstrapper {
        &self.bootstrapper
    }
    /// Module-LWE tables.
    pub fn mlwe(&self) -> &MlweContext {
        &self.mlwe
    }
    /// Levels and scales.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }
    /// Layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn mix(&self, layer: &TernaryLayer) -> Result<Arc<TernaryMix>, EnsiError> {
        if let Some(mix) = lock(&self.mixes).get(layer.name()) {
            return Ok(mix.clone());
        }
        let inputs = layer
            .columns()
            .iter()
            .map(|c| InputPlacement {
                ciphertext: c.ciphertext,
                feature: self.layout.feature(c.block),
                shift: 0,
            })
            .collect();
        let outputs: Vec<Vec<OutputPlacement>> = (0..layer.rows())
            .map(|row| {
                layer
                    .places(row)
                    .iter()
                    .map(|p| OutputPlacement {
                        ciphertext: p.ciphertext,
                        feature: self.layout.feature(p.block),
                        shift: if p.half == Half::Im {
                            self.layout.tokens()
                        } else {
                            0
                        },
                    })
                    .collect()
            })
            .collect();
        let mix = Arc::new(TernaryMix::new(
            *self.mlwe.shape(),
            |r, c| layer.row(r)[c],
            inputs,
            &outputs,
        )?);
        lock(&self.mixes).insert(layer.name().to_owned(), mix.clone());
        Ok(mix)
    }

    /// Word additions of a layer's product (packs its weights, if that has not been done).
    ///
    /// # Errors
    /// When the layer does not fit the module-LWE shape.
    pub fn word_additions(&self, layer: &TernaryLayer) -> Result<u64, EnsiError> {
        Ok(self.mix(layer)?.additions() * (2 * self.layout.tokens()) as u64)
    }

    /// The mask at a level, at the scale of the prime that the product is rescaled by.
    fn encoded(&self, mask: &Mask, level: usize) -> Result<Arc<Plaintext>, EnsiError> {
        let kept = match mask.lifetime() {
            MaskUse::Always => Some(&self.masks),
            MaskUse::Pass => Some(&self.passing),
            MaskUse::Once => None,
        };
        if let Some((_, plaintext)) = kept.and_then(|k| lock(k).get(&(mask.id(), level)).cloned()) {
            return Ok(plaintext);
        }
        let plaintext = Arc::new(
            self.encoder
                .encode(mask.values(), self.chain.q[level], level)?,
        );
        if let Some(kept) = kept {
            lock(kept).insert((mask.id(), level), (mask.clone(), plaintext.clone()));
        }
        Ok(plaintext)
    }
}

/// A client's evaluation keys, complete.
pub struct ServerKeys {
    /// Relinearisation and rotations.
    pub evaluation: EvaluationKeys,
    /// From the ephemeral secret to the main one.
    pub encapsulation: EncapsulationKeys,
    /// From the main secret to the small ring, and from there to the ephemeral secret: in the window's layout and in that of decode steps. None
    /// for batches in columns.
    pub mlwe: Vec<MlweKeys>,
}

impl ServerKeys {
    /// Keys of the ternary products in an engine's layout.
    fn ternary(&self, engine: &Engine) -> Result<&MlweKeys, EnsiError> {
        let fits = |keys: &&MlweKeys| keys.repack().shape() == engine.mlwe.shape();
        self.mlwe
            .iter()
            .find(fits)
            .ok_or_else(|| EnsiError::MissingKeys("keys of the ternary products".into()))
    }
}

/// Called when steps begin and end; an error stops the pass.
pub type ProgressFn<'a> = &'a mut dyn FnMut(Progress) -> Result<(), EnsiError>;
/// Sees intermediate ciphertexts.
pub type CiphertextProbe<'a> = Box<dyn FnMut(&str, usize, &Ciphertext) + 'a>;

/// Runs the program under one client's keys.
pub struct EncryptedMachine<'a> {
    engine: &'a Engine,
    keys: &'a ServerKeys,
    evaluator: Evaluator,
    step: String,
    index: usize,
    began: Option<(Instant, Counts)>,
    vector_additions: u64,
    column_words: u64,
    progress: ProgressFn<'a>,
    probe: Option<CiphertextProbe<'a>>,
}

impl<'a> EncryptedMachine<'a> {
    /// A machine for a forward pass that begins at step `first` of the plan.
    pub fn new(
        engine: &'a Engine,
        keys: &'a ServerKeys,
        first: usize,
        progress: ProgressFn<'a>,
        probe: Option<CiphertextProbe<'a>>,
    ) -> Self {
        Self {
            engine,
            keys,
            evaluator: Evaluator::new(engine.context.clone()),
            step: "input".into(),
            index: first,
            began: None,
            vector_additions: 0,
            column_words: 0,
            progress,
            probe,
        }
    }

    /// Operations so far.
    pub fn counts(&self) -> Counts {
        let counts = Counts::from(self.evaluator.counts());
        Counts {
            additions: counts.additions - self.vector_additions,
            word_additions: self.vector_additions * (2 * self.engine.layout.tokens()) as u64
                + self.column_words,
            ..counts
        }
    }

    /// Reports the end of the running step.
    pub fn finish_step(&mut self) -> Result<(), EnsiError> {
        if let Some((start, before)) = self.began.take() {
            let counts = self.counts() - before;
            (self.progress)(Progress::Finished {
                step: self.index,
                seconds: start.elapsed().as_secs_f64(),
                counts,
            })?;
            self.index += 1;
        }
        Ok(())
    }

    fn evaluation(&self) -> &'a EvaluationKeys {
        &self.keys.evaluation
    }

    /// The masks of a sum of products, encoded at the lowest level among the ciphertexts.
    fn encoded_masks(
        &self,
        terms: &[(&Ciphertext, &Mask)],
    ) -> Result<Vec<Arc<Plaintext>>, EnsiError> {
        let level = terms.iter().map(|t| t.0.level).min().unwrap_or(0);
        let first = terms[0].0;
        terms
            .iter()
            .map(|(ct, mask)| {
                self.engine
                    .chain
                    .same_scale(&self.step, first.scale, ct.scale)?;
                self.engine.encoded(mask, level)
            })
            .collect()
    }

    fn at_least(&self, level: usize, depth: usize) -> Result<(), EnsiError> {
        self.engine
            .chain
            .spend(&self.step, level, depth)
            .map(|_| ())
    }
}

/// Ciphertexts beside their encoded masks.
fn products<'t>(
    terms: &[(&'t Ciphertext, &Mask)],
    masks: &'t [Arc<Plaintext>],
) -> Vec<(&'t Ciphertext, &'t Plaintext)> {
    terms
        .iter()
        .zip(masks)
        .map(|((ct, _), mask)| (*ct, &**mask))
        .collect()
}

impl Machine for EncryptedMachine<'_> {
    type Ct = Ciphertext;

    fn chain(&self) -> &Chain {
        &self.engine.chain
    }
    fn level(&self, ct: &Ciphertext) -> usize {
        ct.level
    }
    fn scale(&self, ct: &Ciphertext) -> f64 {
        ct.scale
    }
    fn begin(&mut self, name: &str, _layer: Option<usize>) -> Result<(), EnsiError> {
        self.finish_step()?;
        name.clone_into(&mut self.step);
        (self.progress)(Progress::Started { step: self.index })?;
        self.began = Some((Instant::now(), self.counts()));
        Ok(())
    }
    fn probe(&mut self, name: &str, layer: usize, ct: &Ciphertext) -> Result<(), EnsiError> {
        if let Some(probe) = &mut self.probe {
            probe(name, layer, ct);
        }
        Ok(())
    }

    fn rotate(&mut self, ct: &Ciphertext, steps: i64) -> Result<Ciphertext, EnsiError> {
        if steps.rem_euclid(self.engine.layout.slots() as i64) == 0 {
            return Ok(ct.clone());
        }
        Ok(self.evaluator.rotate(ct, steps, self.evaluation())?)
    }
    fn rotate_many(
        &mut self,
        ct: &Ciphertext,
        steps: &[i64],
    ) -> Result<Vec<Ciphertext>, EnsiError> {
        let hoisted = self
            .evaluator
            .hoist(ct, self.engine.context.params().p_len())?;
        Ok(self
            .evaluator
            .rotate_hoisted(&hoisted, steps, self.evaluation())?)
    }
    fn conjugate(&mut self, ct: &Ciphertext) -> Result<Ciphertext, EnsiError> {
        Ok(self.evaluator.conjugate(ct, self.evaluation())?)
    }
    fn add(&mut self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, EnsiError> {
        Ok(self.evaluator.add(a, b)?)
    }
    fn sub(&mut self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, EnsiError> {
        Ok(self.evaluator.sub(a, b)?)
    }
    fn add_values(&mut self, ct: &Ciphertext, values: &[f64]) -> Result<Ciphertext, EnsiError> {
        let plaintext = self
            .engine
            .encoder
            .encode_real(values, ct.scale, ct.level)?;
        Ok(self.evaluator.add_plain(ct, &plaintext)?)
    }
    fn add_const(&mut self, ct: &Ciphertext, value: f64) -> Result<Ciphertext, EnsiError> {
        let mut out = ct.clone();
        self.evaluator
            .add_const(&mut out, Complex64::new(value, 0.0))?;
        Ok(out)
    }
    fn mul_i(&mut self, ct: &Ciphertext) -> Result<Ciphertext, EnsiError> {
        Ok(self.evaluator.mul_i(ct)?)
    }
    fn dot_masks_unscaled(
        &mut self,
        terms: &[(&Ciphertext, &Mask)],
    ) -> Result<Ciphertext, EnsiError> {
        let masks = self.encoded_masks(terms)?;
        Ok(self.evaluator.dot_plain(&products(terms, &masks))?)
    }
    fn dot_masks(&mut self, terms: &[(&Ciphertext, &Mask)]) -> Result<Ciphertext, EnsiError> {
        let masks = self.encoded_masks(terms)?;
        Ok(self.evaluator.dot_plain_rescale(&products(terms, &masks))?)
    }
    fn dot(&mut self, terms: &[(&Ciphertext, &Ciphertext)]) -> Result<Ciphertext, EnsiError> {
        let level = terms
            .iter()
            .map(|(a, b)| a.level.min(b.level))
            .min()
            .unwrap_or(0);
        self.at_least(level, 1)?;
        // Of many products the operands are read once for all three parts; few need no parts.
        if terms.len() <= FEW_PRODUCTS {
            let sum = Quadratic::sum(terms)?;
            return Ok(self.evaluator.quadratic(&sum, self.evaluation())?);
        }
        let sum = self.evaluator.dot_tensor(terms)?;
        Ok(self
            .evaluator
            .relinearise_rescale(&sum, self.evaluation())?)
    }
    fn rescale(&mut self, ct: &Ciphertext) -> Result<Ciphertext, EnsiError> {
        self.at_least(ct.level, 1)?;
        Ok(self.evaluator.rescale(ct)?)
    }
    fn scale_values(&mut self, ct: &Ciphertext, factor: f64) -> Ciphertext {
        let mut out = ct.clone();
        out.scale /= factor;
        out
    }
    fn match_scale(&mut self, ct: &Ciphertext, scale: f64) -> Result<Ciphertext, EnsiError> {
        self.at_least(ct.level, 1)?;
        let constant = scale * self.engine.chain.q[ct.level] / ct.scale;
        let product = self.evaluator.mul_const(ct, 1.0, constant)?;
        let mut out = self.evaluator.rescale(&product)?;
        self.engine
            .chain
            .same_scale(&self.step, constant.round(), constant)?;
        out.scale = scale;
        Ok(out)
    }
    fn drop_to_level(&mut self, ct: &Ciphertext, level: usize) -> Result<Ciphertext, EnsiError> {
        if level > ct.level {
            return Err(EnsiError::OutOfLevels {
                step: self.step.clone(),
                needed: level,
                found: ct.level,
            });
        }
        Ok(self.evaluator.drop_to_level(ct, level)?)
    }
    fn chebyshev(
        &mut self,
        ct: &Ciphertext,
        coefficients: &[f64],
        scale: f64,
    ) -> Result<Ciphertext, EnsiError> {
        self.at_least(ct.level, crate::machine::series_depth(coefficients.len()))?;
        Ok(self
            .evaluator
            .evaluate_chebyshev(ct, coefficients, scale, self.evaluation())?)
    }
    fn linear(
        &mut self,
        inputs: &[Ciphertext],
        layer: &TernaryLayer,
        delta: f64,
    ) -> Result<Vec<Refreshed<Ciphertext>>, EnsiError> {
        let engine = self.engine;
        check_linear(&engine.chain, layer, inputs.iter().map(|ct| ct.level))?;
        let mix = engine.mix(layer)?;
        let factor = delta / engine.chain.message_scale;
        let (evaluator, keys) = (&self.evaluator, self.keys);
        let ternary = keys.ternary(engine)?;
        let low = inputs
            .par_iter()
            .map(|ct| {
                let ct = evaluator.drop_to_level(ct, engine.chain.bottom)?;
                engine
                    .bootstrapper
                    .slots_to_coeffs(evaluator, &ct, factor, &keys.evaluation)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (outputs, report) = engine.mlwe.apply::<u64>(evaluator, ternary, &mix, &low)?;
        self.vector_additions += report.additions;
        let scale = refreshed_scale(&engine.chain, delta);
        outputs
            .into_par_iter()
            .enumerate()
            .map(|(c, low)| {
                let wants = layer.uses_imaginary(c);
                let (mut re, mut im) = engine.bootstrapper.refresh(
                    evaluator,
                    &low,
                    wants,
                    &keys.evaluation,
                    &keys.encapsulation,
                )?;
                re.scale = scale;
                if let Some(im) = &mut im {
                    im.scale = scale;
                }
                Ok((re, im))
            })
            .collect()
    }
    fn columns(
        &mut self,
        inputs: &[&Ciphertext],
        sums: &ColumnSums,
    ) -> Result<Vec<Ciphertext>, EnsiError> {
        let engine = self.engine;
        let shapes = inputs.iter().map(|ct| (ct.level, ct.scale));
        let (level, _) = check_columns(&engine.chain, sums, shapes)?;
        let level = level + 1;
        // each mask once, however many outputs have it
        let masks: HashMap<usize, &Mask> = sums
            .outputs()
            .iter()
            .flatten()
            .map(|(_, mask)| (mask.id(), mask))
            .collect();
        let masks: HashMap<usize, Arc<Plaintext>> = masks
            .into_par_iter()
            .map(|(id, mask)| Ok((id, engine.encoded(mask, level)?)))
            .collect::<Result<_, EnsiError>>()?;
        let outputs: Vec<MaskedRows<'_>> = sums
            .outputs()
            .iter()
            .map(|terms| {
                let masked = |(row, mask): &(usize, Mask)| (*row, &*masks[&mask.id()]);
                terms.iter().map(masked).collect()
            })
            .collect();
        let unscaled = self
            .evaluator
            .ternary_columns(inputs, sums.codes(), &outputs)?;
        self.column_words += sums.word_additions(engine.context.n(), level + 1);
        let evaluator = &self.evaluator;
        Ok(unscaled
            .into_par_iter()
            .map(|ct| evaluator.rescale(&ct))
            .collect::<Result<Vec<_>, _>>()?)
    }
    fn refresh(&mut self, cts: &[Ciphertext], delta: f64) -> Result<Vec<Ciphertext>, EnsiError> {
        let engine = self.engine;
        check_refresh(
            &engine.chain,
            &self.step,
            cts.iter().map(|ct| (ct.level, ct.scale)),
        )?;
        let (evaluator, keys) = (&self.evaluator, self.keys);
        let (factor, scale) = (
            delta / engine.chain.message_scale,
            refreshed_scale(&engine.chain, delta),
        );
        let refreshed = cts
            .par_chunks(2)
            .map(|pair| {
                let bottom = |ct| evaluator.drop_to_level(ct, engine.chain.bottom);
                let mut packed = bottom(&pair[0])?;
                if let Some(second) = pair.get(1) {
                    evaluator.add_assign(&mut packed, &evaluator.mul_i(&bottom(second)?)?)?;
                }
                let bootstrapper = &engine.bootstrapper;
                let low =
                    bootstrapper.slots_to_coeffs(evaluator, &packed, factor, &keys.evaluation)?;
                let low = bootstrapper.encapsulate(evaluator, &low, &keys.encapsulation)?;
                let (first, second) = bootstrapper.refresh(
                    evaluator,
                    &low,
                    pair.len() == 2,
                    &keys.evaluation,
                    &keys.encapsulation,
                )?;
                let with_scale = |mut ct: Ciphertext| {
                    ct.scale = scale;
                    ct
                };
                Ok((with_scale(first), second.map(with_scale)))
            })
            .collect::<Result<Vec<_>, CkksError>>()?;
        Ok(refreshed
            .into_iter()
            .flat_map(|(first, second)| std::iter::once(first).chain(second))
            .collect())
    }
}
