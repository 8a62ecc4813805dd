//! Client and server of encrypted inference in one process, sharing only serialised messages.

use std::sync::Arc;
use std::time::Instant;

use tacit_bitnet::functions::RangeReport;
use tacit_bitnet::{Calibration, ForwardOptions, Functions, Matrix, Model};
use tacit_ckks::Ciphertext;
use tacit_ensi::{Client, ColumnModel, ColumnServer, EncryptedModel, EnsiError, Progress, Server};

use crate::exit::{Failure, Kind, Outcome, chain};
use crate::interrupt::{self, Vault};
use crate::model::Loaded;
use crate::progress::Display;

/// The kind of failure an error of encrypted inference is.
pub fn failure(error: EnsiError) -> Failure {
    let kind = match error {
        EnsiError::Model(e) => return crate::model::failure(*e),
        EnsiError::Stopped => return Failure::interrupted(),
        EnsiError::Window { .. } => Kind::Usage,
        EnsiError::Shape(_)
        | EnsiError::Calibration(_)
        | EnsiError::OutOfLevels { .. }
        | EnsiError::Scale { .. } => Kind::Mismatch,
        _ => Kind::Crypto,
    };
    Failure::new(kind, chain(&error))
}

/// Called with what happens on the server, and by whom intermediate ciphertexts are looked at.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress);

/// Ordinary text for the positions of the window after the prompt. Causality keeps it from touching the prompt's tokens; but every
/// position is computed, and a value outside the polynomials' intervals anywhere would spoil the whole ciphertext. (The prompt
/// over and over is no good: repeated tokens attend to each other and their sums leave the intervals.)
const FILLER: &str = ". Returns an error if the file does not exist or cannot be read. The caller must ensure that the given \
    buffer is large enough to hold the result. This method is used to create a new value from the given parts, and it will \
    return `None` if there are no more elements in the list. See the documentation of the module for more information about \
    the types that implement this trait.";

/// Hidden states larger than this many times the calibration's largest are not an answer.
const IMPLAUSIBLE: f64 = 3.0;

/// Places the weights, encodes the tables and plans a forward pass under the fastest parameters that fit.
pub fn prepare(
    model: &Model,
    calibration: &Calibration,
    display: Display,
) -> Outcome<Arc<EncryptedModel>> {
    let waiting = display.waiting("preparing the encrypted model");
    let encrypted = EncryptedModel::fastest(model, calibration);
    waiting.finish_and_clear();
    Ok(Arc::new(encrypted.map_err(failure)?))
}

/// [`prepare`], with a decoder that computes further tokens over a cache.
pub fn prepare_with_cache(
    model: &Model,
    calibration: &Calibration,
    display: Display,
) -> Outcome<Arc<EncryptedModel>> {
    let waiting = display.waiting("preparing the encrypted model");
    let encrypted = EncryptedModel::fastest_with_decoder(model, calibration, None);
    waiting.finish_and_clear();
    Ok(Arc::new(encrypted.map_err(failure)?))
}

/// What leaves its interval, in the clear, on a window of this prompt and the filler behind it.
pub fn filled_range(loaded: &Loaded, prompt: &[u32], window: usize) -> Outcome<RangeReport> {
    let filler = loaded
        .tokenizer
        .encode(FILLER, false)
        .map_err(crate::model::failure)?;
    let ids: Vec<u32> = prompt
        .iter()
        .chain(filler.iter().cycle())
        .take(window)
        .copied()
        .collect();
    let options = ForwardOptions::new(Functions::Polynomial(&loaded.calibration));
    let states = loaded.model.hidden_states(&ids, &options);
    Ok(states.map_err(crate::model::failure)?.range)
}

/// Makes a client's evaluation keys and hands them over one message at a time; the bytes of them all.
fn hand_over(
    client: &Vault<Client>,
    display: Display,
    mut accept: impl FnMut(&[u8]) -> Result<(), EnsiError>,
) -> Outcome<u64> {
    let mut bytes = 0;
    client.with(|client| -> Outcome {
        let bar = display.pieces("making keys", client.key_count() as u64);
        for message in client.key_messages() {
            interrupt::check()?;
            let message = message.map_err(failure)?;
            bytes += message.len() as u64;
            accept(&message).map_err(failure)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    })??;
    Ok(bytes)
}

/// A server that holds a client's evaluation keys, handed over one message at a time, and the bytes of them all.
pub fn serve(
    client: &Vault<Client>,
    model: &Arc<EncryptedModel>,
    display: Display,
) -> Outcome<(Server, u64)> {
    let mut server = Server::new(Arc::clone(model));
    let bytes = hand_over(client, display, |message| server.accept_key(message))?;
    server.ready().map_err(failure)?;
    Ok((server, bytes))
}

/// Ordinary text that fills windows, and what hidden states of ordinary text look like.
struct Filler {
    rows: Matrix,
    window: usize,
    /// Largest value of the residual stream in the calibration text.
    largest: f64,
}

impl Filler {
    fn new(loaded: &Loaded, window: usize) -> Outcome<Self> {
        let rows = loaded
            .tokenizer
            .encode(FILLER, false)
            .and_then(|ids| loaded.model.embed(&ids))
            .map_err(crate::model::failure)?;
        if rows.rows == 0 {
            return Err(Failure::new(
                Kind::Mismatch,
                "the tokenizer gives no tokens for English text; take tokenizer.json from the model's own release",
            ));
        }
        Ok(Self {
            rows,
            window,
            largest: loaded.calibration.max_abs_final,
        })
    }

    /// The whole window: the rows given, then ordinary text.
    fn fill(&self, embeddings: &Matrix) -> Matrix {
        let mut full = embeddings.clone();
        for i in 0..self.window.saturating_sub(embeddings.rows) {
            full.data
                .extend_from_slice(self.rows.row(i % self.rows.rows));
            full.rows += 1;
        }
        full
    }

    /// Refuses hidden states that no text of the calibration's kind produces: some value left its polynomial's interval on the way.
    fn plausible(&self, hidden: Matrix) -> Outcome<Matrix> {
        let largest = f64::from(hidden.max_abs());
        if hidden.data.iter().all(|v| v.is_finite()) && largest <= IMPLAUSIBLE * self.largest {
            return Ok(hidden);
        }
        Err(Failure::new(
            Kind::Mismatch,
            format!(
                "the decrypted hidden states reach {largest:.3e}, the calibration text's {:.1}: this prompt drives values outside \
                 the intervals of the model's polynomials, and the answer would be noise. Rephrase the prompt as ordinary text, or \
                 calibrate the model on text like it (tacit model calibrate)",
                self.largest
            ),
        ))
    }
}

/// Many documents at once: a client with fresh keys and the server that holds its evaluation keys.
pub struct BatchSession {
    client: Vault<Client>,
    server: ColumnServer,
    filler: Filler,
    /// Seconds to make, serialise and accept all evaluation keys.
    pub keygen_seconds: f64,
    /// Bytes of all key messages.
    pub key_message_bytes: u64,
}

impl BatchSession {
    /// Makes keys and hands the public ones to the server, one message at a time.
    pub fn open(model: &Arc<ColumnModel>, loaded: &Loaded, display: Display) -> Outcome<Self> {
        let start = Instant::now();
        let filler = Filler::new(loaded, model.plan().context)?;
        let client = Client::new(model.key_plan(), model.params().clone()).map_err(failure)?;
        let client = Vault::new(client);
        let mut server = ColumnServer::new(Arc::clone(model));
        let key_message_bytes = hand_over(&client, display, |message| server.accept_key(message))?;
        server.ready().map_err(failure)?;
        Ok(Self {
            client,
            server,
            filler,
            keygen_seconds: start.elapsed().as_secs_f64(),
            key_message_bytes,
        })
    }

    /// Encrypts the embeddings of some documents, has the server compute, decrypts: hidden states before the final norm, one row a token. Also the
    /// bytes of the batch and of the answer.
    pub fn hidden_states(
        &mut self,
        documents: &[Matrix],
        on_progress: OnProgress<'_>,
    ) -> Outcome<(Vec<Matrix>, u64, u64)> {
        let filled: Vec<Vec<Vec<f32>>> = documents
            .iter()
            .map(|document| rows(&self.filler.fill(document)))
            .collect();
        let batch = self
            .client
            .with(|client| client.encrypt_documents(&filled))?
            .map_err(failure)?;
        let up = batch.len() as u64;
        let x = self.server.read(&batch).map_err(failure)?;
        drop(batch);
        let answer = self
            .server
            .forward(x, &mut stoppable(on_progress), None)
            .map_err(failure)?;
        let lengths: Vec<usize> = documents.iter().map(|d| d.rows).collect();
        let hidden = self
            .client
            .with(|client| client.decrypt_documents(&answer, &lengths))?
            .map_err(failure)?;
        let states = hidden
            .iter()
            .zip(documents)
            .map(|(rows, document)| self.filler.plausible(matrix(rows, document.cols)))
            .collect::<Outcome<_>>()?;
        Ok((states, up, answer.len() as u64))
    }
}

/// A client with fresh keys and the server that holds its evaluation keys.
pub struct Session {
    client: Vault<Client>,
    server: Server,
    filler: Filler,
    /// Seconds to make, serialise and accept all evaluation keys.
    pub keygen_seconds: f64,
    /// Bytes of all key messages.
    pub key_message_bytes: u64,
    /// Number of key messages.
    pub key_messages: usize,
}

impl Session {
    /// Makes keys and hands the public ones to the server, one message at a time.
    pub fn open(model: &Arc<EncryptedModel>, loaded: &Loaded, display: Display) -> Outcome<Self> {
        let start = Instant::now();
        let filler = Filler::new(loaded, model.plan().context)?;
        let client = Client::new(model.key_plan(), model.params().clone()).map_err(failure)?;
        let client = Vault::new(client);
        let (server, key_message_bytes) = serve(&client, model, display)?;
        Ok(Session {
            client,
            server,
            filler,
            keygen_seconds: start.elapsed().as_secs_f64(),
            key_message_bytes,
            key_messages: model.key_plan().messages(),
        })
    }

    /// The whole window: the prompt's rows, then ordinary text.
    pub fn fill(&self, embeddings: &Matrix) -> Matrix {
        self.filler.fill(embeddings)
    }

    /// Encrypts embeddings, has the server compute, decrypts: hidden states before the final norm, one row a token.
    pub fn hidden_states(
        &mut self,
        embeddings: &Matrix,
        on_progress: OnProgress<'_>,
    ) -> Outcome<Matrix> {
        self.window_states(embeddings, |server, prompt| {
            server.forward(prompt, &mut stoppable(on_progress))
        })
    }

    /// [`hidden_states`](Self::hidden_states) whose keys and values the server keeps for [`next_state`](Self::next_state). The server
    /// learns the number of tokens.
    pub fn hidden_states_kept(
        &mut self,
        embeddings: &Matrix,
        on_progress: OnProgress<'_>,
    ) -> Outcome<Matrix> {
        self.window_states(embeddings, |server, prompt| {
            server.prefill(prompt, embeddings.rows, &mut stoppable(on_progress))
        })
    }

    /// Encrypts the filled window, has the server compute, decrypts.
    fn window_states(
        &mut self,
        embeddings: &Matrix,
        compute: impl FnOnce(&mut Server, &[u8]) -> Result<Vec<u8>, EnsiError>,
    ) -> Outcome<Matrix> {
        let window = rows(&self.fill(embeddings));
        let prompt = self
            .client
            .with(|client| client.encrypt_prompt(&window))?
            .map_err(failure)?;
        let answer = compute(&mut self.server, &prompt).map_err(failure)?;
        let hidden = self
            .client
            .with(|client| client.decrypt_answer(&answer, embeddings.rows))?
            .map_err(failure)?;
        self.filler.plausible(matrix(&hidden, embeddings.cols))
    }

    /// The hidden state of one more token, over the keys and values that the server keeps.
    pub fn next_state(
        &mut self,
        embedding: &[f32],
        on_progress: OnProgress<'_>,
    ) -> Outcome<Matrix> {
        let token = self
            .client
            .with(|client| client.encrypt_token(embedding))?
            .map_err(failure)?;
        let answer = self
            .server
            .decode(&token, &mut stoppable(on_progress))
            .map_err(failure)?;
        let hidden = self
            .client
            .with(|client| client.decrypt_token(&answer))?
            .map_err(failure)?;
        self.filler.plausible(matrix(&[hidden], embedding.len()))
    }

    /// The same with a look at intermediate ciphertexts: `look` gets decrypting rights, so this is for error analysis on one's own machine.
    pub fn hidden_states_probed(
        &mut self,
        embeddings: &Matrix,
        on_progress: OnProgress<'_>,
        look: &mut dyn FnMut(&Client, &str, usize, &Ciphertext),
    ) -> Outcome<Matrix> {
        let window = rows(&self.fill(embeddings));
        let Session { client, server, .. } = self;
        let hidden = client.with(|client| -> Result<_, EnsiError> {
            let prompt = client.encrypt_prompt(&window)?;
            let client = &*client;
            let probe =
                Box::new(|name: &str, layer: usize, ct: &Ciphertext| look(client, name, layer, ct));
            let answer =
                server.forward_probed(&prompt, &mut stoppable(on_progress), Some(probe))?;
            client.decrypt_answer(&answer, embeddings.rows)
        })?;
        self.filler
            .plausible(matrix(&hidden.map_err(failure)?, embeddings.cols))
    }
}

/// Passes progress on, and stops the server once Ctrl-C was pressed.
pub fn stoppable(on_progress: OnProgress<'_>) -> impl FnMut(Progress) -> Result<(), EnsiError> {
    |progress| {
        on_progress(progress);
        if interrupt::pressed() {
            Err(EnsiError::Stopped)
        } else {
            Ok(())
        }
    }
}

fn rows(m: &Matrix) -> Vec<Vec<f32>> {
    (0..m.rows).map(|r| m.row(r).to_vec()).collect()
}

fn matrix(rows: &[Vec<f64>], cols: usize) -> Matrix {
    Matrix {
        rows: rows.len(),
        cols,
        data: rows.iter().flatten().map(|v| *v as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::filled_range;
    use crate::model::load;

    /// With ordinary text behind them, ordinary prompts of any length stay inside every interval of the shipped model, all over
    /// the window.
    #[test]
    fn filled_windows_of_the_shipped_model_stay_in_range() {
        let loaded = load(None).unwrap();
        let window = loaded.calibration.context;
        for prompt in [
            "The function returns",
            "Returns",
            "This crate provides a fast and safe implementation of",
            "If the iterator is empty, returns `None`. Otherwise, the first element is removed from the queue and",
            "a",
        ] {
            let ids = loaded.tokenizer.encode(prompt, true).unwrap();
            let range = filled_range(&loaded, &ids, window).unwrap();
            assert_eq!(
                (range.outside(), range.non_finite),
                (0, 0),
                "{prompt}: {range}"
            );
        }
    }
}
