//! The encrypted model: placed weights, engine, plan. Nothing secret, nothing of a client.

use serde::{Deserialize, Serialize};
use tacit_bitnet::{Calibration, Model};
use tacit_ckks::{Context, KeyShape, Parameters};
use tacit_ring::galois_of_rotation;

use crate::{
    EnsiError,
    machine::{
        counting::{CountingMachine, KeyUse, Shape},
        encrypted::Engine,
    },
    plan::{Cost, Plan},
    transformer::Transformer,
};

/// What a client has to know to make keys and encrypt prompts: shapes only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyPlan {
    /// Level of the relinearisation key, and special primes.
    pub relinearisation: (usize, usize),
    /// Galois keys: element, level, special primes.
    pub galois: Vec<(u64, usize, usize)>,
    /// Tokens of the window.
    pub tokens: usize,
    /// Hidden size.
    pub hidden: usize,
    /// Level of the encrypted input.
    pub input_level: usize,
    /// Scale of the encrypted input and of the answer.
    pub input_scale: f64,
}

impl KeyPlan {
    /// Number of key messages: relinearisation, Galois keys, ModRaise, and those of the ternary products.
    pub fn messages(&self) -> usize {
        self.galois.len() + 3
    }

    /// Shape of the relinearisation key.
    pub fn relinearisation_shape(&self) -> KeyShape {
        KeyShape {
            level: self.relinearisation.0,
            special: self.relinearisation.1,
        }
    }

    /// Galois elements with shapes.
    pub fn galois_shapes(&self) -> impl Iterator<Item = (u64, KeyShape)> + '_ {
        self.galois
            .iter()
            .map(|&(element, level, special)| (element, KeyShape { level, special }))
    }
}

/// The model as a server holds it.
pub struct EncryptedModel {
    transformer: Transformer,
    engine: Engine,
    plan: Plan,
    key_plan: KeyPlan,
}

/// Level at which the answer leaves: two limbs hold the residual stream at its scale.
pub const ANSWER_LEVEL: usize = 1;

impl EncryptedModel {
    /// Places the weights, builds the engine, and plans a forward pass. Fails here, before anything is encrypted, when the
    /// polynomials are too deep for the parameters.
    ///
    /// # Errors
    /// [`EnsiError::Shape`], [`EnsiError::Calibration`], [`EnsiError::OutOfLevels`] and engine errors.
    pub fn new(
        model: &Model,
        calibration: &Calibration,
        params: Parameters,
    ) -> Result<Self, EnsiError> {
        let transformer = Transformer::new(model, calibration, params.n())?;
        let context = Context::new(params)?;
        let engine = Engine::new(context.clone(), *transformer.layout())?;
        let params = context.params();
        let input_level = transformer.residual_level(engine.chain().bottom);
        let input_scale = transformer.residual_scale(engine.chain().scale);
        let ciphertexts = transformer.layout().ciphertexts(transformer.hidden());
        let cost = Cost::measure(&context);
        let mut machine = CountingMachine::new(&engine, cost)?;
        let input = vec![
            Shape {
                level: input_level,
                scale: input_scale
            };
            ciphertexts
        ];
        transformer.run(&mut machine, input)?;
        let (steps, used) = machine.finish();
        let key_plan = key_plan(&engine, &transformer, &used, input_level, input_scale);
        let key_bytes = key_plan
            .galois_shapes()
            .map(|(_, shape)| shape)
            .chain([key_plan.relinearisation_shape(), KeyShape::full(params)])
            .map(|shape| key_bytes(params, shape))
            .sum();
        let plan = Plan {
            steps,
            context: transformer.layout().tokens(),
            input_level,
            input_ciphertexts: ciphertexts,
            key_bytes,
        };
        Ok(Self {
            transformer,
            engine,
            plan,
            key_plan,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    /// What clients need.
    pub fn key_plan(&self) -> &KeyPlan {
        &self.key_plan
    }
    /// The program.
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }
    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    /// The encryption parameters.
    pub fn params(&self) -> &Parameters {
        self.engine.context().params()
    }
}

/// Bytes of a switching key in memory: two polynomials for each digit.
fn key_bytes(params: &Parameters, shape: KeyShape) -> u64 {
    (2 * params.digits_at(shape.level) * (shape.level + 1 + shape.special) * params.n() * 8) as u64
}

fn key_plan(
    engine: &Engine,
    transformer: &Transformer,
    used: &KeyUse,
    input_level: usize,
    input_scale: f64,
) -> KeyPlan {
    let params = engine.context().params();
    let special = params.p_len();
    let bootstrapper = engine.bootstrapper();
    let mut galois: Vec<(u64, usize, usize)> = bootstrapper
        .required_keys()
        .into_iter()
        .map(|(element, shape)| (element, shape.level, shape.special))
        .collect();
    for (&steps, &level) in &used.rotations {
        let element = galois_of_rotation(params.n(), steps);
        match galois
            .iter_mut()
            .find(|(e, _, s)| *e == element && *s == special)
        {
            Some(key) => key.1 = key.1.max(level),
            None => galois.push((element, level, special)),
        }
    }
    galois.sort_unstable();
    let relinearisation = bootstrapper.relinearisation_shape();
    KeyPlan {
        relinearisation: (
            relinearisation.level.max(used.relinearisation),
            relinearisation.special,
        ),
        galois,
        tokens: transformer.layout().tokens(),
        hidden: transformer.hidden(),
        input_level,
        input_scale,
    }
}
