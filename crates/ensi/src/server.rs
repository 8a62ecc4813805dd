//! The server's side: collects a client's evaluation keys, runs forward passes, never sees a secret.

use std::sync::Arc;

use tacit_ckks::{
    Ciphertext, EvaluationKeys, KeyId, KeyRole, SwitchingKey, bootstrap::EncapsulationKeys,
    mlwe::MlweKeys,
};

use crate::{
    EnsiError,
    machine::encrypted::{CiphertextProbe, EncryptedMachine, ProgressFn, ServerKeys},
    message::{self, Key},
    model::{ANSWER_LEVEL, EncryptedModel},
    plan::Counts,
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

/// Number by which the switching key from the ephemeral to the main secret is known.
pub const RAISE_KEY: u32 = 2;

/// One client's session on the server.
pub struct Server {
    model: Arc<EncryptedModel>,
    relinearisation: Option<SwitchingKey>,
    galois: Vec<SwitchingKey>,
    raise: Option<EncapsulationKeys>,
    mlwe: Option<MlweKeys>,
    id: Option<KeyId>,
    keys: Option<ServerKeys>,
}

impl Server {
    /// A session without keys.
    pub fn new(model: Arc<EncryptedModel>) -> Self {
        Self {
            model,
            relinearisation: None,
            galois: Vec::new(),
            raise: None,
            mlwe: None,
            id: None,
            keys: None,
        }
    }

    /// Takes one key message of the client.
    ///
    /// # Errors
    /// A message that is truncated, corrupt, made for other parameters, or not a key; a key the plan has no use for.
    pub fn accept_key(&mut self, bytes: &[u8]) -> Result<(), EnsiError> {
        let engine = self.model.engine();
        let context = engine.context();
        let (key, id) = message::read_key(bytes, context, self.id)?;
        self.id = id;
        match key {
            Key::Switching(key) => match key.role {
                KeyRole::Relinearisation => self.relinearisation = Some(key),
                KeyRole::Galois(_) => self.galois.push(key),
                KeyRole::Switch(RAISE_KEY) => {
                    self.raise = Some(EncapsulationKeys::new(context, &key, None)?)
                }
                KeyRole::Switch(other) => {
                    return Err(EnsiError::Message(format!(
                        "switching key {other} is of no use here; send the keys of the session's key plan"
                    )));
                }
            },
            Key::Mlwe(keys) => self.mlwe = Some(keys),
        }
        Ok(())
    }

    /// Checks that all keys of the plan have come and makes the session ready.
    ///
    /// # Errors
    /// [`EnsiError::MissingKeys`] naming what is missing.
    pub fn ready(&mut self) -> Result<(), EnsiError> {
        if self.keys.is_some() {
            return Ok(());
        }
        let mut missing = Vec::new();
        let plan = self.model.key_plan();
        for (element, shape) in plan.galois_shapes() {
            let here = |k: &&SwitchingKey| {
                k.role == KeyRole::Galois(element)
                    && k.level >= shape.level
                    && k.special == shape.special
            };
            if !self.galois.iter().any(|k| here(&k)) {
                missing.push(format!("Galois key of element {element}"));
            }
        }
        for (there, name) in [
            (
                self.relinearisation
                    .as_ref()
                    .is_some_and(|k| k.level >= plan.relinearisation.0),
                "relinearisation key",
            ),
            (self.raise.is_some(), "switching key of ModRaise"),
            (self.mlwe.is_some(), "keys of the ternary products"),
        ] {
            if !there {
                missing.push(name.to_owned());
            }
        }
        if !missing.is_empty() {
            let shown = missing.len().min(4);
            let more = if missing.len() > shown {
                format!(" and {} more", missing.len() - shown)
            } else {
                String::new()
            };
            return Err(EnsiError::MissingKeys(format!(
                "{}{more}",
                missing[..shown].join(", ")
            )));
        }
        if let (Some(relinearisation), Some(encapsulation), Some(mlwe)) = (
            self.relinearisation.take(),
            self.raise.take(),
            self.mlwe.take(),
        ) {
            let mut evaluation = EvaluationKeys::new(relinearisation);
            for key in self.galois.drain(..) {
                evaluation.insert(key);
            }
            self.keys = Some(ServerKeys {
                evaluation,
                encapsulation,
                mlwe,
            });
        }
        Ok(())
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
        self.ready()?;
        let keys = self
            .keys
            .as_ref()
            .ok_or_else(|| EnsiError::MissingKeys("all".into()))?;
        let model = &*self.model;
        let engine = model.engine();
        let x = message::read_prompt(prompt, engine.context(), self.id)?;
        self.check_prompt(&x)?;
        let mut machine = EncryptedMachine::new(engine, keys, progress, probe);
        let out = model.transformer().run(&mut machine, x)?;
        machine.finish_step()?;
        let evaluator = tacit_ckks::Evaluator::new(engine.context().clone());
        let low = out
            .iter()
            .map(|ct| evaluator.drop_to_level(ct, ANSWER_LEVEL))
            .collect::<Result<Vec<_>, _>>()?;
        let id = self
            .id
            .ok_or_else(|| EnsiError::MissingKeys("all".into()))?;
        message::write_answer(&low, engine.context(), id)
    }

    fn check_prompt(&self, x: &[Ciphertext]) -> Result<(), EnsiError> {
        let (plan, keys) = (self.model.plan(), self.model.key_plan());
        if x.len() != plan.input_ciphertexts {
            return Err(EnsiError::Message(format!(
                "the prompt has {} ciphertexts, expected {}",
                x.len(),
                plan.input_ciphertexts
            )));
        }
        for ct in x {
            if ct.level != plan.input_level
                || ct.parts.len() != 2
                || (ct.scale / keys.input_scale - 1.0).abs() > 1e-9
            {
                return Err(EnsiError::Message(format!(
                    "a prompt ciphertext at level {} with scale 2^{:.3}; expected level {} and scale 2^{:.3}: use the key plan of this model",
                    ct.level,
                    ct.scale.log2(),
                    plan.input_level,
                    keys.input_scale.log2()
                )));
            }
        }
        Ok(())
    }
}
