//! `tacit inspect --encrypted`: fusion and head on encrypted features. Client and server run in this process and share bytes only.

use std::time::Instant;

use serde::Serialize;
use tacit_humansam::model::encrypted::{Client, Server};
use tacit_humansam::model::evaluate::metrics::CLASSES;
use tacit_humansam::model::native::NativeModel;
use tacit_humansam::model::native::verdict::Inspection;

use super::failure;
use crate::exit::Outcome;

/// What an exchange cost, and how near its answer is to the one in the clear.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Account {
    /// Windows asked about.
    pub windows: usize,
    /// Bytes from client to server.
    pub bytes_up: usize,
    /// Bytes from server to client.
    pub bytes_down: usize,
    /// Seconds of the client: key, encryption, decryption.
    pub client_seconds: f64,
    /// Seconds of the server, with encoding the head.
    pub server_seconds: f64,
    /// `-log2` of the largest difference to the logits in the clear, relative to the largest logit.
    pub agreement_bits: f64,
}

impl Account {
    /// For the terminal.
    pub fn sentence(&self) -> String {
        format!(
            "head under encryption: {:.3} s, {} KB up, {} KB down, logits agree to {:.0} bits",
            self.client_seconds + self.server_seconds,
            self.bytes_up.div_ceil(1000),
            self.bytes_down.div_ceil(1000),
            self.agreement_bits
        )
    }
}

/// The logits of each window, and the account.
pub struct Exchange {
    /// Logits as the client decrypted them.
    pub logits: Vec<[f64; CLASSES]>,
    /// What it cost.
    pub account: Account,
}

/// Asks a server for the logits of a video's windows.
pub fn logits(model: &NativeModel, seen: &Inspection) -> Outcome<Exchange> {
    let features: Vec<Vec<f64>> = seen
        .features
        .iter()
        .map(|f| f.joined().iter().map(|v| f64::from(*v)).collect())
        .collect();
    let affine = model.affine();
    let start = Instant::now();
    let client = Client::new(affine.width, affine.classes).map_err(failure)?;
    let question = client.question(&features).map_err(failure)?;
    let asked = start.elapsed();
    let start = Instant::now();
    let server = Server::new(affine).map_err(failure)?;
    let answer = server.answer(&question).map_err(failure)?;
    let answered = start.elapsed();
    let start = Instant::now();
    let rows = client.logits(&answer, features.len()).map_err(failure)?;
    let opened = start.elapsed();
    let (mut off, mut top) = (0f64, 1e-12f64);
    for (x, z) in features.iter().zip(&rows) {
        for (a, b) in affine.apply(x).map_err(failure)?.iter().zip(z) {
            off = off.max((a - b).abs());
            top = top.max(a.abs());
        }
    }
    Ok(Exchange {
        logits: rows.iter().map(|z| std::array::from_fn(|k| z[k])).collect(),
        account: Account {
            windows: features.len(),
            bytes_up: question.len(),
            bytes_down: answer.len(),
            client_seconds: (asked + opened).as_secs_f64(),
            server_seconds: answered.as_secs_f64(),
            agreement_bits: -(off / top).max(2f64.powi(-60)).log2(),
        },
    })
}
