//! A client's evaluation keys on their way into the server: one message each, complete before anything runs.

use std::sync::Arc;

use tacit_ckks::{
    Context, EvaluationKeys, KeyId, KeyRole, SwitchingKey, bootstrap::EncapsulationKeys,
    mlwe::MlweKeys,
};

use crate::{
    EnsiError,
    machine::encrypted::{Engine, ServerKeys},
    message::{self, Key},
    model::KeyPlan,
};

/// Number by which the switching key from the main to the ephemeral secret is known.
pub const SPARSE_KEY: u32 = 1;
/// Number by which the switching key from the ephemeral to the main secret is known.
pub const RAISE_KEY: u32 = 2;

/// The keys of one client, as far as they have come.
#[derive(Default)]
pub struct KeyStore {
    relinearisation: Option<SwitchingKey>,
    galois: Vec<SwitchingKey>,
    to_sparse: Option<SwitchingKey>,
    raise: Option<SwitchingKey>,
    mlwe: Vec<MlweKeys>,
    id: Option<KeyId>,
    keys: Option<ServerKeys>,
}

impl KeyStore {
    /// Name of the client's key set, once a key has come.
    pub fn id(&self) -> Option<KeyId> {
        self.id
    }

    /// The keys, once [`ready`](Self::ready) has found them complete.
    ///
    /// # Errors
    /// [`EnsiError::MissingKeys`] before.
    pub fn complete(&self) -> Result<&ServerKeys, EnsiError> {
        self.keys
            .as_ref()
            .ok_or_else(|| EnsiError::MissingKeys("all".into()))
    }

    /// Takes one key message of this plan for these engines, which share a context; a key that has come before is replaced.
    ///
    /// # Errors
    /// A message that is truncated, corrupt, made for other parameters, or not a key; a key that is of no use.
    pub fn accept(
        &mut self,
        bytes: &[u8],
        engines: &[&Engine],
        plan: &KeyPlan,
    ) -> Result<(), EnsiError> {
        let columns = plan.lanes.is_some();
        let (key, id) = message::read_key(bytes, engines[0].context(), self.id)?;
        self.id = id;
        match key {
            Key::Switching(key) => match key.role {
                KeyRole::Relinearisation => self.relinearisation = Some(key),
                KeyRole::Galois(_) => {
                    self.galois
                        .retain(|k| k.role != key.role || k.special != key.special);
                    self.galois.push(key);
                }
                KeyRole::Switch(SPARSE_KEY) if columns => self.to_sparse = Some(key),
                KeyRole::Switch(RAISE_KEY) => self.raise = Some(key),
                KeyRole::Switch(other) => {
                    return Err(EnsiError::Message(format!(
                        "switching key {other} is of no use here; send the keys of the session's key plan"
                    )));
                }
            },
            Key::Mlwe(keys) => {
                let shape = *keys.repack().shape();
                if columns || !engines.iter().any(|e| shape == *e.mlwe().shape()) {
                    return Err(EnsiError::Message(format!(
                        "keys of ternary products for {} tokens are of no use here; send the keys of the session's key plan",
                        shape.tokens()
                    )));
                }
                self.mlwe.retain(|k| *k.repack().shape() != shape);
                self.mlwe.push(keys);
            }
        }
        Ok(())
    }

    /// Checks that all keys of the plan have come.
    ///
    /// # Errors
    /// [`EnsiError::MissingKeys`] naming what is missing; keys that do not belong together.
    pub fn ready(&mut self, context: &Arc<Context>, plan: &KeyPlan) -> Result<(), EnsiError> {
        if self.keys.is_some() {
            return Ok(());
        }
        let missing = self.missing(plan);
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
        if let (Some(relinearisation), Some(raise)) =
            (self.relinearisation.take(), self.raise.take())
        {
            let encapsulation = EncapsulationKeys::new(context, &raise, self.to_sparse.take())?;
            let mut evaluation = EvaluationKeys::new(relinearisation);
            for key in self.galois.drain(..) {
                evaluation.insert(key);
            }
            self.keys = Some(ServerKeys {
                evaluation,
                encapsulation,
                mlwe: std::mem::take(&mut self.mlwe),
            });
        }
        Ok(())
    }

    fn missing(&self, plan: &KeyPlan) -> Vec<String> {
        let mut missing = Vec::new();
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
        let ternary = |tokens: usize| {
            let mut shapes = self.mlwe.iter().map(|keys| keys.repack().shape());
            shapes.any(|shape| shape.tokens() == 2 * tokens)
        };
        for (there, name) in [
            (
                self.relinearisation
                    .as_ref()
                    .is_some_and(|k| k.level >= plan.relinearisation.0),
                "relinearisation key",
            ),
            (self.raise.is_some(), "switching key of ModRaise"),
            (
                self.to_sparse.is_some() || plan.lanes.is_none(),
                "switching key to the ephemeral secret",
            ),
            (
                plan.lanes.is_some() || ternary(plan.tokens),
                "keys of the ternary products",
            ),
            (
                plan.step_tokens.is_none_or(ternary),
                "keys of the ternary products of a decode step",
            ),
        ] {
            if !there {
                missing.push(name.to_owned());
            }
        }
        missing
    }
}
