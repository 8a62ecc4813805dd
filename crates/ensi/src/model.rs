//! The encrypted model: placed weights, engine, plan. Nothing secret, nothing of a client.

use serde::{Deserialize, Serialize};
use tacit_bitnet::{Calibration, Model};
use tacit_ckks::{Context, KeyShape, Parameters, presets::Preset};
use tacit_ring::galois_of_rotation;

use crate::{
    EnsiError,
    machine::{
        counting::{CountingMachine, KeyUse, Shape},
        encrypted::Engine,
    },
    plan::{Cost, Plan},
    transformer::{Room, Transformer},
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
    /// Token slots of a decode step, if the server decodes over a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_tokens: Option<usize>,
    /// Lanes of a batch in columns ([`ColumnLayout`](crate::columns::layout::ColumnLayout)), if the server computes documents by columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<usize>,
}

impl KeyPlan {
    /// Number of key messages: relinearisation, Galois keys, ModRaise, and those of the ternary products in a window and, where the
    /// server decodes over a cache, in a step; for columns the key to the ephemeral secret takes the place of these.
    pub fn messages(&self) -> usize {
        self.galois.len() + 3 + usize::from(self.step_tokens.is_some())
    }

    /// Bytes of the switching keys in memory, those of the ternary products apart.
    pub fn bytes(&self, params: &Parameters) -> u64 {
        self.galois_shapes()
            .map(|(_, shape)| shape)
            .chain([self.relinearisation_shape(), KeyShape::full(params)])
            .map(|shape| shape.bytes(params))
            .sum()
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

/// The program of one new token over a cache, with its plan.
pub struct Decoder {
    transformer: Transformer,
    engine: Engine,
    plan: Plan,
}

impl Decoder {
    /// The program.
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }
    /// The engine, in the step's layout.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    /// The plan of one step, at the window's last position.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// The model as a server holds it.
pub struct EncryptedModel {
    transformer: Transformer,
    engine: Engine,
    plan: Plan,
    key_plan: KeyPlan,
    decoder: Option<Decoder>,
}

/// Presets that models are placed under, the fastest first (`tacit bench presets`): the first has a level less.
pub const PRESETS: [&str; 2] = ["four-factors", "default"];

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
        Self::build(model, calibration, params, None, Room::Beside)
    }

    /// The model under the fastest preset with levels enough for its polynomials ([`PRESETS`]), without a decoder.
    ///
    /// # Errors
    /// As [`new`](Self::new), of the last preset.
    pub fn fastest(model: &Model, calibration: &Calibration) -> Result<Self, EnsiError> {
        Self::fastest_with(model, calibration, |_| Ok(None))
    }

    /// [`fastest`](Self::fastest) with a decoder, as [`with_decoder`](Self::with_decoder).
    ///
    /// # Errors
    /// As [`with_decoder`](Self::with_decoder), of the last preset.
    pub fn fastest_with_decoder(
        model: &Model,
        calibration: &Calibration,
        step_tokens: Option<usize>,
    ) -> Result<Self, EnsiError> {
        Self::fastest_with(model, calibration, |params| {
            Self::step_tokens(model, calibration, params, step_tokens).map(Some)
        })
    }

    fn fastest_with(
        model: &Model,
        calibration: &Calibration,
        step_tokens: impl Fn(&Parameters) -> Result<Option<usize>, EnsiError>,
    ) -> Result<Self, EnsiError> {
        let mut refused = None;
        for name in PRESETS {
            let Some(preset) = Preset::named(name) else {
                continue;
            };
            let params = preset.parameters()?;
            let steps = step_tokens(&params)?;
            for mean_square in [Room::Beside, Room::Imaginary] {
                match Self::build(model, calibration, params.clone(), steps, mean_square) {
                    Err(error @ EnsiError::OutOfLevels { .. }) => refused = Some(error),
                    done => return done,
                }
            }
        }
        Err(refused.unwrap_or_else(|| EnsiError::Shape("there is no preset to try".into())))
    }

    fn step_tokens(
        model: &Model,
        calibration: &Calibration,
        params: &Parameters,
        chosen: Option<usize>,
    ) -> Result<usize, EnsiError> {
        match chosen {
            Some(tokens) => Ok(tokens),
            None => Transformer::step_tokens(model, calibration, params.n()),
        }
    }

    /// [`new`](Self::new) with a decoder: a window's keys and values can be kept, and further tokens computed one by one over them.
    /// A step's vectors have `step_tokens` slots a feature, or as many as [`Transformer::step_tokens`] says.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`EnsiError::Shape`] when the heads do not fit the step's layout.
    pub fn with_decoder(
        model: &Model,
        calibration: &Calibration,
        params: Parameters,
        step_tokens: Option<usize>,
    ) -> Result<Self, EnsiError> {
        let step_tokens = Self::step_tokens(model, calibration, &params, step_tokens)?;
        Self::build(model, calibration, params, Some(step_tokens), Room::Beside)
    }

    fn build(
        model: &Model,
        calibration: &Calibration,
        params: Parameters,
        step_tokens: Option<usize>,
        mean_square: Room,
    ) -> Result<Self, EnsiError> {
        let transformer = Transformer::build(model, calibration, params.n(), None, mean_square)?;
        let context = Context::new(params)?;
        let engine = Engine::new(context.clone(), *transformer.layout())?;
        let params = context.params();
        let input_level = transformer.residual_level(engine.chain().bottom);
        let input_scale = transformer.residual_scale(engine.chain().scale);
        let ciphertexts = transformer.layout().ciphertexts(transformer.hidden());
        let cost = Cost::measure(&context);
        let fresh = Shape {
            level: input_level,
            scale: input_scale,
        };
        let mut machine = CountingMachine::new(&engine, cost.clone())?;
        let mut x = vec![fresh; ciphertexts];
        let (steps, mut used, decoder) = match step_tokens {
            None => {
                transformer.run(&mut machine, x)?;
                let (steps, used) = machine.finish();
                (steps, used, None)
            }
            Some(tokens) => {
                let decoder =
                    Transformer::build(model, calibration, params.n(), Some(tokens), mean_square)?;
                let keep = decoder.keep_masks(1)?;
                let cache = decoder
                    .cache()
                    .ok_or_else(|| EnsiError::Shape("a decoder without a cache".into()))?;
                let mut kept = Vec::with_capacity(transformer.layers());
                for layer in 0..transformer.layers() {
                    let (next, layer_cache) =
                        transformer.run_layer_keeping(&mut machine, layer, x, cache, &keep)?;
                    x = next;
                    kept.push(layer_cache);
                }
                let (steps, used) = machine.finish();
                let engine = engine.beside(*decoder.layout())?;
                (steps, used, Some((decoder, engine, kept)))
            }
        };
        let decoder = match decoder {
            None => None,
            Some((transformer, engine, mut kept)) => {
                let last = calibration.context - 1;
                let masks = transformer.step_masks(last)?;
                let mut machine = CountingMachine::new(&engine, cost)?;
                let count = transformer.layout().ciphertexts(transformer.hidden());
                let mut x = vec![fresh; count];
                for (layer, kept) in kept.iter_mut().enumerate() {
                    x = transformer.run_step(&mut machine, layer, x, kept, &masks)?;
                }
                let (steps, more) = machine.finish();
                used.merge(&more);
                let plan = Plan {
                    steps,
                    context: 1,
                    input_level,
                    input_ciphertexts: count,
                    key_bytes: 0,
                };
                Some(Decoder {
                    transformer,
                    engine,
                    plan,
                })
            }
        };
        let (relinearisation, galois) = evaluation_keys(&engine, &used);
        let key_plan = KeyPlan {
            relinearisation,
            galois,
            tokens: transformer.layout().tokens(),
            hidden: transformer.hidden(),
            input_level,
            input_scale,
            step_tokens,
            lanes: None,
        };
        let key_bytes = key_plan.bytes(params);
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
            decoder,
        })
    }

    /// The decoder, if the model was placed with one.
    pub fn decoder(&self) -> Option<&Decoder> {
        self.decoder.as_ref()
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

/// A Galois key: element, level, special primes.
type GaloisKey = (u64, usize, usize);

/// Level and special primes of the relinearisation key, and the Galois keys, of a refresh and a program.
pub(crate) fn evaluation_keys(engine: &Engine, used: &KeyUse) -> ((usize, usize), Vec<GaloisKey>) {
    let params = engine.context().params();
    let special = params.p_len();
    let bootstrapper = engine.bootstrapper();
    let mut galois: Vec<GaloisKey> = bootstrapper
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
    let level = relinearisation.level.max(used.relinearisation);
    ((level, relinearisation.special), galois)
}
