//! The client's side: secrets, key messages, encryption of prompts, decryption of answers.

use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};
use tacit_ckks::{
    Context, Encoder, KeyGenerator, Parameters, SecretKey,
    bootstrap::EncapsulationKeys,
    encrypt,
    mlwe::{MlweContext, MlweKeys},
    security::{KeyDescription, SecretDistribution},
};

use zeroize::Zeroizing;

use crate::{
    EnsiError,
    columns::layout::ColumnLayout,
    keys::{RAISE_KEY, SPARSE_KEY},
    layout::Layout,
    message,
    model::KeyPlan,
};

/// A client's secrets and what it needs to talk to a server. Dropping it wipes the secrets.
pub struct Client {
    context: Arc<Context>,
    encoder: Encoder,
    mlwe: MlweContext,
    layout: Layout,
    /// Layout and module-LWE tables of decode steps.
    step: Option<(Layout, MlweContext)>,
    /// Layout of documents in columns.
    columns: Option<ColumnLayout>,
    plan: KeyPlan,
    secret: SecretKey,
    ephemeral: SecretKey,
    generator: Mutex<KeyGenerator>,
    ternary: Mutex<ChaCha20Rng>,
    rng: ChaCha20Rng,
}

impl Client {
    /// Makes fresh secrets from the operating system's randomness for a server's key plan.
    ///
    /// # Errors
    /// A key plan that does not fit the parameters.
    pub fn new(plan: &KeyPlan, params: Parameters) -> Result<Self, EnsiError> {
        let mut seed = Zeroizing::new([0; 32]);
        tacit_ring::sampling::secure_rng().fill_bytes(&mut *seed);
        Self::from_seed(plan, params, &seed)
    }

    /// Makes the secrets that belong to a seed: the same seed, plan and parameters give the same secrets, evaluation keys (if they are
    /// made in the same order) and prompt encryptions, so that long work can go on after an interruption.
    ///
    /// The seed is as secret as the keys, and good for **one** prompt: two different prompts encrypted with the same randomness give
    /// away their difference.
    ///
    /// # Errors
    /// A key plan that does not fit the parameters.
    pub fn from_seed(
        plan: &KeyPlan,
        params: Parameters,
        seed: &[u8; 32],
    ) -> Result<Self, EnsiError> {
        let stream = |number: u64| {
            let mut rng = ChaCha20Rng::from_seed(*seed);
            rng.set_stream(number);
            rng
        };
        let context = Context::new(params)?;
        let params = context.params();
        let layout = Layout::new(params.n(), plan.tokens)?;
        if plan.input_level > params.max_level()
            || plan.hidden == 0
            || !plan.input_scale.is_normal()
            || plan.input_scale < 1.0
        {
            return Err(EnsiError::Message(
                "the key plan does not fit the parameters; ask the server for its key plan again"
                    .into(),
            ));
        }
        let mlwe = MlweContext::new(&context, 2 * layout.tokens())?;
        let step = match plan.step_tokens {
            None => None,
            Some(tokens) => {
                let layout = Layout::new(params.n(), tokens)?;
                Some((layout, MlweContext::new(&context, 2 * tokens)?))
            }
        };
        let columns = plan
            .lanes
            .map(|lanes| ColumnLayout::new(params.n(), plan.tokens, lanes))
            .transpose()?;
        let mut generator = KeyGenerator::with_rng(context.clone(), stream(0));
        let secret = generator.secret();
        let ephemeral = generator.ephemeral_secret(&secret)?;
        Ok(Self {
            encoder: Encoder::new(context.clone()),
            rng: stream(1),
            ternary: Mutex::new(stream(2)),
            context,
            mlwe,
            layout,
            step,
            columns,
            plan: plan.clone(),
            secret,
            ephemeral,
            generator: Mutex::new(generator),
        })
    }

    /// Number of key messages.
    pub fn key_count(&self) -> usize {
        self.plan.messages()
    }

    /// The evaluation keys, one message at a time: they are gigabytes together.
    pub fn key_messages(&self) -> impl Iterator<Item = Result<Vec<u8>, EnsiError>> + '_ {
        (0..self.key_count()).map(|index| self.key_message(index))
    }

    fn key_message(&self, index: usize) -> Result<Vec<u8>, EnsiError> {
        let mut generator = self
            .generator
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let galois = self.plan.galois.len();
        let params = self.context.params();
        match index {
            0 => message::write_switching(
                &generator.relinearisation(&self.secret, self.plan.relinearisation_shape())?,
                &self.context,
            ),
            i if i <= galois => {
                let (element, shape) = self
                    .plan
                    .galois_shapes()
                    .nth(i - 1)
                    .ok_or_else(|| EnsiError::Message("key plan".into()))?;
                message::write_switching(
                    &generator.galois(&self.secret, element, shape)?,
                    &self.context,
                )
            }
            i if i == galois + 1 => {
                let full = tacit_ckks::KeyShape::full(params);
                message::write_switching(
                    &generator.switching(
                        self.ephemeral.residues(),
                        &self.secret,
                        full,
                        RAISE_KEY,
                    )?,
                    &self.context,
                )
            }
            _ if self.columns.is_some() => message::write_switching(
                &generator.switching(
                    self.secret.residues(),
                    &self.ephemeral,
                    EncapsulationKeys::to_sparse_shape(),
                    SPARSE_KEY,
                )?,
                &self.context,
            ),
            i => {
                let mlwe = match &self.step {
                    Some((_, step)) if i == galois + 3 => step,
                    _ => &self.mlwe,
                };
                let mut rng = self.ternary.lock().unwrap_or_else(PoisonError::into_inner);
                message::write_mlwe(
                    &MlweKeys::generate(mlwe, &self.secret, &self.ephemeral, &mut *rng)?,
                    &self.context,
                )
            }
        }
    }

    /// Every key this client publishes, by what its security depends on.
    pub fn published_keys(&self) -> Vec<KeyDescription> {
        let params = self.context.params();
        let of = |name: String, shape: tacit_ckks::KeyShape| KeyDescription {
            name,
            ring_dimension: params.n(),
            log2_modulus: params.log_q_at(shape.level) + params.log_p_of(shape.special),
            secret: SecretDistribution::DenseTernary,
        };
        let mut keys = vec![of(
            "relinearisation key".into(),
            self.plan.relinearisation_shape(),
        )];
        keys.extend(
            self.plan
                .galois_shapes()
                .map(|(element, shape)| of(format!("Galois key of element {element}"), shape)),
        );
        keys.push(of(
            "switching key of ModRaise, ephemeral to main secret".into(),
            tacit_ckks::KeyShape::full(params),
        ));
        if self.columns.is_some() {
            keys.push(EncapsulationKeys::to_sparse_description(params));
            return keys;
        }
        keys.extend(MlweKeys::descriptions_of(params));
        if self.step.is_some() {
            keys.extend(MlweKeys::descriptions_of(params));
        }
        keys
    }

    /// Encrypts a prompt: one embedding row per token, at most the window.
    ///
    /// With fewer rows than the window has positions, the others are filled with these rows again. Causality keeps them from
    /// touching the rows before, but they are computed, and a value outside a polynomial's interval at any position spoils the
    /// ciphertext: callers who can should give a whole window, the prompt followed by ordinary text. The server cannot tell the
    /// two apart, so the length of the prompt stays private.
    ///
    /// # Errors
    /// [`EnsiError::Window`] for too many tokens or none; rows of another width.
    pub fn encrypt_prompt(&mut self, embeddings: &[Vec<f32>]) -> Result<Vec<u8>, EnsiError> {
        let window = self.layout.tokens();
        if embeddings.is_empty() || embeddings.len() > window {
            return Err(EnsiError::Window {
                tokens: embeddings.len(),
                window,
            });
        }
        let layout = self.layout;
        self.encrypt_rows(embeddings, &layout)
    }

    /// Encrypts the embedding of one token for a decode step.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] for a key plan without decode steps or a row of another width.
    pub fn encrypt_token(&mut self, embedding: &[f32]) -> Result<Vec<u8>, EnsiError> {
        let layout = self.step_layout()?;
        self.encrypt_rows(&[embedding.to_vec()], &layout)
    }

    fn step_layout(&self) -> Result<Layout, EnsiError> {
        let step = self
            .step
            .as_ref()
            .ok_or_else(|| EnsiError::Shape("the server's key plan has no decode steps".into()))?;
        Ok(step.0)
    }

    fn encrypt_rows(&mut self, rows: &[Vec<f32>], layout: &Layout) -> Result<Vec<u8>, EnsiError> {
        self.check_rows(rows)?;
        self.encrypt_vectors(&layout.slots_of(rows))
    }

    /// Encrypts a batch: one embedding row per token of each document, as many tokens as the window has, at most as many documents as the layout.
    /// Shorter documents are filled with their tokens again; see [`encrypt_prompt`](Self::encrypt_prompt) for what is better.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] for a key plan without columns, for no or too many documents, or rows of another width; [`EnsiError::Window`].
    pub fn encrypt_documents(&mut self, documents: &[Vec<Vec<f32>>]) -> Result<Vec<u8>, EnsiError> {
        let layout = self.column_layout()?;
        if documents.is_empty() || documents.len() > layout.documents() {
            return Err(EnsiError::Shape(format!(
                "{} documents in a batch; it takes 1 to {}",
                documents.len(),
                layout.documents()
            )));
        }
        for document in documents {
            self.check_rows(document)?;
            if document.is_empty() || document.len() > layout.tokens() {
                return Err(EnsiError::Window {
                    tokens: document.len(),
                    window: layout.tokens(),
                });
            }
        }
        self.encrypt_vectors(&layout.slots_of(documents))
    }

    fn column_layout(&self) -> Result<ColumnLayout, EnsiError> {
        self.columns.ok_or_else(|| {
            EnsiError::Shape("the server's key plan has no documents in columns".into())
        })
    }

    fn check_rows(&self, rows: &[Vec<f32>]) -> Result<(), EnsiError> {
        let hidden = self.plan.hidden;
        match rows.iter().find(|row| row.len() != hidden) {
            None => Ok(()),
            Some(row) => Err(EnsiError::Shape(format!(
                "an embedding has {} features, the model {hidden}",
                row.len()
            ))),
        }
    }

    fn encrypt_vectors(&mut self, slots: &[Vec<f64>]) -> Result<Vec<u8>, EnsiError> {
        let seeded = slots
            .iter()
            .map(|slots| {
                let plaintext = self.encoder.encode_real(
                    slots,
                    self.plan.input_scale,
                    self.plan.input_level,
                )?;
                encrypt::encrypt_symmetric_seeded(&plaintext, &self.secret, &mut self.rng)
            })
            .collect::<Result<Vec<_>, _>>()?;
        message::write_prompt(&seeded, &self.context, self.secret.id())
    }

    /// Decrypts an answer: hidden states (before the final norm) of the first `tokens` positions.
    ///
    /// # Errors
    /// A message that is not an answer to this client.
    pub fn decrypt_answer(&self, bytes: &[u8], tokens: usize) -> Result<Vec<Vec<f64>>, EnsiError> {
        self.decrypt_rows(bytes, tokens, &self.layout)
    }

    /// Decrypts the answer of a decode step: the token's hidden state before the final norm.
    ///
    /// # Errors
    /// As [`decrypt_answer`](Self::decrypt_answer).
    pub fn decrypt_token(&self, bytes: &[u8]) -> Result<Vec<f64>, EnsiError> {
        let layout = self.step_layout()?;
        Ok(self.decrypt_rows(bytes, 1, &layout)?.remove(0))
    }

    /// Decrypts the answer to a batch: for each of the first `lengths.len()` documents the hidden states of its first tokens.
    ///
    /// # Errors
    /// As [`decrypt_answer`](Self::decrypt_answer), and [`EnsiError::Shape`] for more documents or tokens than the batch has.
    pub fn decrypt_documents(
        &self,
        bytes: &[u8],
        lengths: &[usize],
    ) -> Result<Vec<Vec<Vec<f64>>>, EnsiError> {
        let layout = self.column_layout()?;
        if lengths.len() > layout.documents() || lengths.iter().any(|t| *t > layout.tokens()) {
            return Err(EnsiError::Shape(format!(
                "{} documents wanted of a batch of {} with {} tokens each",
                lengths.len(),
                layout.documents(),
                layout.tokens()
            )));
        }
        let hidden = self.plan.hidden;
        let slots = self.answer_slots(bytes, layout.ciphertexts(hidden))?;
        let real: Vec<Vec<f64>> = slots
            .iter()
            .map(|slots| slots.iter().map(|x| x.re).collect())
            .collect();
        let document = |(d, length): (usize, &usize)| {
            let token = |t| layout.vector(&real, hidden, d, t);
            (0..*length).map(token).collect()
        };
        Ok(lengths.iter().enumerate().map(document).collect())
    }

    /// Slots of an answer of `expected` ciphertexts.
    fn answer_slots(
        &self,
        bytes: &[u8],
        expected: usize,
    ) -> Result<Vec<Vec<num_complex::Complex64>>, EnsiError> {
        let ciphertexts = message::read_answer(bytes, &self.context, self.secret.id())?;
        if ciphertexts.len() != expected {
            return Err(EnsiError::Message(format!(
                "the answer has {} ciphertexts, expected {expected}",
                ciphertexts.len()
            )));
        }
        ciphertexts
            .iter()
            .map(|ct| self.decrypt_slots(ct))
            .collect()
    }

    fn decrypt_rows(
        &self,
        bytes: &[u8],
        tokens: usize,
        layout: &Layout,
    ) -> Result<Vec<Vec<f64>>, EnsiError> {
        let hidden = self.plan.hidden;
        let slots = self.answer_slots(bytes, layout.ciphertexts(hidden))?;
        Ok((0..tokens.min(layout.tokens()))
            .map(|t| {
                (0..hidden)
                    .map(|i| {
                        let (ciphertext, block) = layout.positions(i, hidden)[0];
                        slots[ciphertext][layout.slot(block, t)].re
                    })
                    .collect()
            })
            .collect())
    }

    /// Encrypts slot values: a cache that the client computed itself, from text that it knows.
    ///
    /// # Errors
    /// A level or scale that the parameters do not have.
    pub fn encrypt_slots(
        &mut self,
        values: &[num_complex::Complex64],
        level: usize,
        scale: f64,
    ) -> Result<tacit_ckks::Ciphertext, EnsiError> {
        let plaintext = self.encoder.encode(values, scale, level)?;
        let seeded = encrypt::encrypt_symmetric_seeded(&plaintext, &self.secret, &mut self.rng)?;
        Ok(self.context.expand(&seeded)?)
    }

    /// Slot values of any ciphertext under this client's secret: for error analysis on the client's own machine.
    ///
    /// # Errors
    /// A ciphertext of other parameters.
    pub fn decrypt_slots(
        &self,
        ct: &tacit_ckks::Ciphertext,
    ) -> Result<Vec<num_complex::Complex64>, EnsiError> {
        Ok(self.encoder.decode(&encrypt::decrypt(ct, &self.secret)?)?)
    }
}
