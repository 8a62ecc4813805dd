//! Many documents at once: one feature a ciphertext, the column encoding of ENSI (arXiv 2509.09424, section on matrix products).
//!
//! With `H D T = N/2` slots for `D` documents of `T` tokens in `H` lanes ([`layout`]), a ternary product is sums of whole ciphertexts ([`sums`]), at any
//! level and without leaving the slots; what is refreshed shrinks to the two increments of the residual stream ([`program`]).
//!
//! [`ColumnModel`] and [`ColumnServer`] are to a batch what [`EncryptedModel`](crate::EncryptedModel) and [`Server`](crate::Server) are to a prompt; the
//! client is the same, with a key plan of this model. Documents of one batch are one client's: all are under one secret.

pub mod layout;
mod place;
pub mod program;
pub mod sums;

use std::sync::Arc;

use tacit_bitnet::{Calibration, Model};
use tacit_ckks::{Ciphertext, Context, Parameters, presets::Preset};

use crate::{
    EnsiError,
    columns::{layout::ColumnLayout, program::ColumnTransformer},
    keys::KeyStore,
    layout::Layout,
    machine::{
        counting::{CountingMachine, Shape},
        encrypted::{CiphertextProbe, EncryptedMachine, Engine, ProgressFn},
    },
    message,
    model::{KeyPlan, evaluation_keys},
    plan::{Cost, Plan},
};

/// The model as a server of batches holds it: placed weights, engine, plan. Nothing secret, nothing of a client.
pub struct ColumnModel {
    transformer: ColumnTransformer,
    engine: Engine,
    plan: Plan,
    key_plan: KeyPlan,
}

/// Preset that batches are computed under.
pub const PRESET: &str = "four-factors";

/// Bytes for tables, encoded masks, intermediate values and freed memory that is kept.
const BESIDES: u64 = 4 << 30;

impl ColumnModel {
    /// The model for batches of `documents`, under [`PRESET`]: with as many lanes as leave room for them. More documents than fit one batch make
    /// a layout without lanes.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_documents(
        model: &Model,
        calibration: &Calibration,
        documents: usize,
    ) -> Result<Self, EnsiError> {
        let preset = Preset::named(PRESET)
            .ok_or_else(|| EnsiError::Shape(format!("there is no preset {PRESET}")))?;
        let params = preset.parameters()?;
        let kv_heads = model.config.kv_heads;
        let layout =
            ColumnLayout::for_documents(params.n(), calibration.context, documents, kv_heads)?;
        Self::new(model, calibration, params, layout.lanes())
    }

    /// Places the weights and plans a pass over a batch in so many lanes. Fails here, before anything is encrypted, when the polynomials are too deep
    /// for the parameters.
    ///
    /// # Errors
    /// [`EnsiError::Shape`], [`EnsiError::Calibration`], [`EnsiError::OutOfLevels`] and engine errors.
    pub fn new(
        model: &Model,
        calibration: &Calibration,
        params: Parameters,
        lanes: usize,
    ) -> Result<Self, EnsiError> {
        let layout = ColumnLayout::new(params.n(), calibration.context, lanes)?;
        let transformer = ColumnTransformer::new(model, calibration, layout)?;
        let context = Context::new(params)?;
        let engine = Engine::new(context.clone(), Layout::new(context.n(), layout.tokens())?)?;
        let fresh = Shape {
            level: engine.chain().top,
            scale: transformer.residual_scale(engine.chain()),
        };
        let input_ciphertexts = layout.ciphertexts(transformer.hidden());
        let mut machine = CountingMachine::new(&engine, Cost::measure(&context))?;
        transformer.run(&mut machine, vec![fresh; input_ciphertexts])?;
        let (steps, used) = machine.finish();
        let (relinearisation, galois) = evaluation_keys(&engine, &used);
        let key_plan = KeyPlan {
            relinearisation,
            galois,
            tokens: layout.tokens(),
            hidden: transformer.hidden(),
            input_level: fresh.level,
            input_scale: fresh.scale,
            step_tokens: None,
            lanes: Some(lanes),
        };
        let plan = Plan {
            steps,
            context: layout.tokens(),
            input_level: fresh.level,
            input_ciphertexts,
            key_bytes: key_plan.bytes(context.params()),
        };
        Ok(Self {
            transformer,
            engine,
            plan,
            key_plan,
        })
    }

    /// The program.
    pub fn transformer(&self) -> &ColumnTransformer {
        &self.transformer
    }
    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    /// The plan of one batch.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    /// What clients need.
    pub fn key_plan(&self) -> &KeyPlan {
        &self.key_plan
    }
    /// The encryption parameters.
    pub fn params(&self) -> &Parameters {
        self.engine.context().params()
    }
    /// Bytes of memory that a pass is predicted to take at its peak: keys, ciphertexts, and some gigabytes of tables, masks
    /// and intermediate values.
    pub fn memory_bytes(&self) -> u64 {
        let ciphertexts = self.transformer.ciphertext_bytes(self.engine.chain());
        self.plan.key_bytes + ciphertexts + BESIDES
    }

    /// Documents of a batch.
    pub fn documents(&self) -> usize {
        self.transformer.layout().documents()
    }
}

/// One client's session on a server of batches.
pub struct ColumnServer {
    model: Arc<ColumnModel>,
    keys: KeyStore,
}

impl ColumnServer {
    /// A session without keys.
    pub fn new(model: Arc<ColumnModel>) -> Self {
        Self {
            model,
            keys: KeyStore::default(),
        }
    }

    /// Takes one key message of the client.
    ///
    /// # Errors
    /// A message that is truncated, corrupt, made for other parameters, or not a key; a key the plan has no use for.
    pub fn accept_key(&mut self, bytes: &[u8]) -> Result<(), EnsiError> {
        self.keys
            .accept(bytes, &[self.model.engine()], self.model.key_plan())
    }

    /// Checks that all keys of the plan have come and makes the session ready.
    ///
    /// # Errors
    /// [`EnsiError::MissingKeys`] naming what is missing.
    pub fn ready(&mut self) -> Result<(), EnsiError> {
        self.keys
            .ready(self.model.engine().context(), self.model.key_plan())
    }

    /// Reads an encrypted batch: the residual stream before the first layer. The message can go then; the ciphertexts are as large.
    ///
    /// # Errors
    /// Missing keys, a foreign or malformed message.
    pub fn read(&mut self, batch: &[u8]) -> Result<Vec<Ciphertext>, EnsiError> {
        self.ready()?;
        let x = message::read_prompt(batch, self.model.engine.context(), self.keys.id())?;
        message::check_prompt(&x, &self.model.plan, self.model.key_plan.input_scale)?;
        Ok(x)
    }

    /// A forward pass over a batch that was [`read`](Self::read): the answer holds the residual stream after the last layer for every token of every
    /// document. `probe` sees intermediate ciphertexts, for tests and error analysis.
    ///
    /// # Errors
    /// Missing keys, or [`EnsiError::Stopped`] from `progress`.
    pub fn forward(
        &mut self,
        x: Vec<Ciphertext>,
        progress: ProgressFn<'_>,
        probe: Option<CiphertextProbe<'_>>,
    ) -> Result<Vec<u8>, EnsiError> {
        self.ready()?;
        let model = &*self.model;
        let mut machine =
            EncryptedMachine::new(&model.engine, self.keys.complete()?, 0, progress, probe);
        let out = model.transformer.run(&mut machine, x)?;
        machine.finish_step()?;
        let id = self
            .keys
            .id()
            .ok_or_else(|| EnsiError::MissingKeys("all".into()))?;
        message::write_low_answer(&out, model.engine.context(), id)
    }
}
