//! The server's side: collects a client's evaluation keys, runs forward passes, never sees a secret.

use std::{ops::Range, sync::Arc};

use tacit_ckks::{Ciphertext, KeyId};

use crate::{
    EnsiError,
    keys::KeyStore,
    machine::encrypted::{CiphertextProbe, EncryptedMachine, Engine, ProgressFn},
    message,
    model::{Decoder, EncryptedModel},
    plan::{Counts, Plan},
    transformer::cached::{CacheLayout, LayerCache},
};

/// What happens in a forward pass.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// A step of the plan begins.
    Started {
        /// Index in the plan.
        step: usize,
    },
    /// A step of the plan is done.
    Finished {
        /// Index in the plan.
        step: usize,
        /// Seconds it took.
        seconds: f64,
        /// Operations it did.
        counts: Counts,
    },
}

fn decoder(model: &EncryptedModel) -> Result<&Decoder, EnsiError> {
    model.decoder().ok_or_else(|| {
        EnsiError::Shape("the model was placed without a decoder; place it with one".into())
    })
}

/// One client's session on the server.
pub struct Server {
    model: Arc<EncryptedModel>,
    keys: KeyStore,
    kept: Option<Kept>,
}

/// Keys and values of a prompt, encrypted.
struct Kept {
    layers: Vec<LayerCache<Ciphertext>>,
    /// Tokens in them.
    tokens: usize,
}

impl Server {
    /// A session without keys.
    pub fn new(model: Arc<EncryptedModel>) -> Self {
        Self {
            model,
            keys: KeyStore::default(),
            kept: None,
        }
    }

    /// Takes one key message of the client.
    ///
    /// # Errors
    /// A message that is truncated, corrupt, made for other parameters, or not a key; a key the plan has no use for.
    pub fn accept_key(&mut self, bytes: &[u8]) -> Result<(), EnsiError> {
        let decoder = self.model.decoder().map(Decoder::engine);
        let engines: Vec<&Engine> = std::iter::once(self.model.engine())
            .chain(decoder)
            .collect();
        self.keys.accept(bytes, &engines, self.model.key_plan())
    }

    /// Checks that all keys of the plan have come and makes the session ready.
    ///
    /// # Errors
    /// [`EnsiError::MissingKeys`] naming what is missing.
    pub fn ready(&mut self) -> Result<(), EnsiError> {
        self.keys
            .ready(self.model.engine().context(), self.model.key_plan())
    }

    /// One forward pass on an encrypted prompt: the answer holds the residual stream after the last layer for every token of the
    /// window.
    ///
    /// # Errors
    /// Missing keys, a foreign or malformed message, or [`EnsiError::Stopped`] from `progress`.
    pub fn forward(
        &mut self,
        prompt: &[u8],
        progress: ProgressFn<'_>,
    ) -> Result<Vec<u8>, EnsiError> {
        self.forward_probed(prompt, progress, None)
    }

    /// [`forward`](Self::forward) with a look at intermediate ciphertexts, for tests and error analysis.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_probed(
        &mut self,
        prompt: &[u8],
        progress: ProgressFn<'_>,
        probe: Option<CiphertextProbe<'_>>,
    ) -> Result<Vec<u8>, EnsiError> {
        let x = self.read_prompt(prompt)?;
        let layers = 0..self.model.transformer().layers();
        let out = self.run_layers(x, layers, progress, probe)?;
        self.write_answer(&out)
    }

    /// [`forward`](Self::forward) that keeps the keys and values of the prompt's first `length` tokens, in the place of any kept before.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); [`EnsiError::Window`] for a length outside of the window; [`EnsiError::Shape`] when the model was placed
    /// without a decoder.
    pub fn prefill(
        &mut self,
        prompt: &[u8],
        length: usize,
        progress: ProgressFn<'_>,
    ) -> Result<Vec<u8>, EnsiError> {
        let mut x = self.read_prompt(prompt)?;
        let model = self.model.clone();
        let decoder = decoder(&model)?;
        let window = model.plan().context;
        if length == 0 || length > window {
            return Err(EnsiError::Window {
                tokens: length,
                window,
            });
        }
        let keys = self.keys.complete()?;
        let masks = decoder.transformer().keep_masks(length)?;
        let cache = decoder
            .transformer()
            .cache()
            .ok_or_else(|| EnsiError::Shape("a decoder without a cache".into()))?;
        let mut machine = EncryptedMachine::new(model.engine(), keys, 0, progress, None);
        let mut layers = Vec::with_capacity(model.transformer().layers());
        for layer in 0..model.transformer().layers() {
            let (next, kept) =
                model
                    .transformer()
                    .run_layer_keeping(&mut machine, layer, x, cache, &masks)?;
            x = next;
            layers.push(kept);
        }
        machine.finish_step()?;
        model.engine().forget_passing();
        self.kept = Some(Kept {
            layers,
            tokens: length,
        });
        self.write_answer(&x)
    }

    /// One decode step: the encrypted embedding of the token after those that are kept, to its hidden state after the last layer. Its keys
    /// and values are kept too; after an error the cache is as it was before.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] without a cache; [`EnsiError::Window`] when it is full; as [`forward`](Self::forward).
    pub fn decode(&mut self, token: &[u8], progress: ProgressFn<'_>) -> Result<Vec<u8>, EnsiError> {
        self.ready()?;
        let model = self.model.clone();
        let decoder = decoder(&model)?;
        let engine = decoder.engine();
        let mut x = message::read_prompt(token, engine.context(), self.keys.id())?;
        self.check_input(&x, decoder.plan())?;
        let kept = self.kept.as_ref().ok_or_else(|| {
            EnsiError::Shape("no prompt is kept; send one with prefill first".into())
        })?;
        let keys = self.keys.complete()?;
        let masks = decoder.transformer().step_masks(kept.tokens)?;
        let mut machine = EncryptedMachine::new(engine, keys, 0, progress, None);
        // the last token's cache stays until the step is through
        let mut layers = kept.layers.clone();
        let tokens = kept.tokens + 1;
        for (layer, kept) in layers.iter_mut().enumerate() {
            x = decoder
                .transformer()
                .run_step(&mut machine, layer, x, kept, &masks)?;
        }
        machine.finish_step()?;
        engine.forget_passing();
        self.kept = Some(Kept { layers, tokens });
        self.write_answer(&x)
    }

    /// Takes keys and values of `tokens` tokens that were made elsewhere, in the place of any kept before.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] when their number or levels are not those that [`prefill`](Self::prefill) would keep.
    pub fn restore(
        &mut self,
        layers: Vec<LayerCache<Ciphertext>>,
        tokens: usize,
    ) -> Result<(), EnsiError> {
        let decoder = decoder(&self.model)?.transformer();
        let count = decoder.cache().map_or(0, CacheLayout::ciphertexts);
        let window = self.model.plan().context;
        if layers.len() != decoder.layers()
            || layers
                .iter()
                .any(|l| l.keys.len() != count || l.values.len() != count)
            || tokens == 0
            || tokens > window
        {
            return Err(EnsiError::Shape(format!(
                "a cache of {} layers and {tokens} tokens; expected {} layers of {count} ciphertexts of keys and of values, and 1 to {window} tokens",
                layers.len(),
                decoder.layers()
            )));
        }
        self.kept = Some(Kept { layers, tokens });
        Ok(())
    }

    /// Tokens whose keys and values are kept.
    pub fn kept_tokens(&self) -> usize {
        self.kept.as_ref().map_or(0, |k| k.tokens)
    }

    /// Bytes of the keys and values kept.
    pub fn kept_bytes(&self) -> u64 {
        let size = |ct: &Ciphertext| {
            ct.parts
                .iter()
                .map(|p| 8 * p.n() * p.limbs())
                .sum::<usize>()
        };
        self.kept.as_ref().map_or(0, |kept| {
            let ciphertexts = kept
                .layers
                .iter()
                .flat_map(|l| l.keys.iter().chain(&l.values));
            ciphertexts.map(|ct| size(ct) as u64).sum()
        })
    }

    /// Reads an encrypted prompt: the residual stream before the first layer.
    ///
    /// # Errors
    /// Missing keys, a foreign or malformed message.
    pub fn read_prompt(&mut self, prompt: &[u8]) -> Result<Vec<Ciphertext>, EnsiError> {
        self.ready()?;
        let x = message::read_prompt(prompt, self.model.engine().context(), self.keys.id())?;
        self.check_input(&x, self.model.plan())?;
        Ok(x)
    }

    /// Some layers of a forward pass on the residual stream; steps are reported by their index in the whole plan.
    ///
    /// # Errors
    /// Missing keys, or [`EnsiError::Stopped`] from `progress`.
    ///
    /// # Panics
    /// For layers that the model does not have.
    pub fn run_layers(
        &mut self,
        x: Vec<Ciphertext>,
        layers: Range<usize>,
        progress: ProgressFn<'_>,
        probe: Option<CiphertextProbe<'_>>,
    ) -> Result<Vec<Ciphertext>, EnsiError> {
        self.ready()?;
        let keys = self.keys.complete()?;
        let transformer = self.model.transformer();
        let before = self.model.plan().steps_before(layers.start);
        let mut machine = EncryptedMachine::new(self.model.engine(), keys, before, progress, probe);
        let mut x = x;
        for layer in layers {
            x = transformer.run_layer(&mut machine, layer, x)?;
        }
        machine.finish_step()?;
        Ok(x)
    }

    /// The residual stream between two layers as bytes: what a server keeps to go on after an interruption.
    ///
    /// # Errors
    /// Missing keys.
    pub fn write_state(&self, x: &[Ciphertext]) -> Result<Vec<u8>, EnsiError> {
        message::write_answer(x, self.model.engine().context(), self.key_id()?)
    }

    /// Reads what [`write_state`](Self::write_state) wrote.
    ///
    /// # Errors
    /// Damaged bytes, or those of another client or of other parameters.
    pub fn read_state(&self, bytes: &[u8]) -> Result<Vec<Ciphertext>, EnsiError> {
        let x = message::read_answer(bytes, self.model.engine().context(), self.key_id()?)?;
        let expected = self.model.plan().input_ciphertexts;
        if x.len() != expected {
            return Err(EnsiError::Message(format!(
                "the saved state has {} ciphertexts, expected {expected}: it belongs to another model",
                x.len()
            )));
        }
        Ok(x)
    }

    fn key_id(&self) -> Result<KeyId, EnsiError> {
        self.keys
            .id()
            .ok_or_else(|| EnsiError::MissingKeys("all".into()))
    }

    /// The answer to send back.
    ///
    /// # Errors
    /// Missing keys.
    pub fn write_answer(&self, out: &[Ciphertext]) -> Result<Vec<u8>, EnsiError> {
        message::write_low_answer(out, self.model.engine().context(), self.key_id()?)
    }

    fn check_input(&self, x: &[Ciphertext], plan: &Plan) -> Result<(), EnsiError> {
        message::check_prompt(x, plan, self.model.key_plan().input_scale)
    }
}
