//! What a client of a federation of nodes trains, behind its messages: a language model on text, or a [`Task`] on its examples.

use super::client::{Contribution, When, Worker};
use super::memory::Memory;
use super::perplexity;
use super::task_client::{Side, TaskWorker};
use crate::config::RunConfig;
use crate::data::{ClientData, Window};
use crate::flower::proto::Scalar;
use crate::lora::Global;
use crate::task::Task;
use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors};

/// A client's training and measuring.
pub(super) trait Work: Send {
    /// The shared tensors before any training.
    fn initial(&self, config: &RunConfig) -> Result<NamedTensors, FederatedError>;
    /// What client `client` remembers before its first round.
    fn first_memory(&self, config: &RunConfig, client: usize) -> Result<Memory, FederatedError>;
    /// Examples to train on.
    fn examples(&self) -> usize;
    /// Client `client`'s part of a round from the shared state.
    fn contribute(
        &self,
        config: &RunConfig,
        client: usize,
        when: When,
        shared: &Shared<'_>,
        memory: &Memory,
    ) -> Result<Contribution, FederatedError>;
    /// How the shared state does on the client's examples that nobody trains on: what is said of it in a message, `num-examples` and `loss` among it.
    fn evaluate(
        &self,
        config: &RunConfig,
        global: &Global,
    ) -> Result<Vec<(String, Scalar)>, FederatedError>;
}

/// What a client is sent: the shared state, and SCAFFOLD's control (empty without it).
pub(super) struct Shared<'a> {
    pub global: &'a Global,
    pub control: &'a NamedTensors,
}

/// A language model and a client's text.
pub(super) struct Text {
    pub tuner: Tuner,
    pub data: ClientData,
}

impl Text {
    fn worker<'a>(&'a self, config: &'a RunConfig, client: usize) -> Worker<'a> {
        Worker {
            config,
            tuner: &self.tuner,
            data: &self.data,
            client,
        }
    }
}

impl Work for Text {
    fn initial(&self, config: &RunConfig) -> Result<NamedTensors, FederatedError> {
        self.tuner.initial(config.method.rank, 0)
    }

    fn first_memory(&self, config: &RunConfig, client: usize) -> Result<Memory, FederatedError> {
        self.worker(config, client).first_memory()
    }

    fn examples(&self) -> usize {
        self.data.train.len()
    }

    fn contribute(
        &self,
        config: &RunConfig,
        client: usize,
        when: When,
        shared: &Shared<'_>,
        memory: &Memory,
    ) -> Result<Contribution, FederatedError> {
        self.worker(config, client)
            .contribute(when, shared.global, shared.control, memory)
    }

    fn evaluate(
        &self,
        config: &RunConfig,
        global: &Global,
    ) -> Result<Vec<(String, Scalar)>, FederatedError> {
        let network = self.tuner.network(&global.adapter, &global.residual)?;
        let limit = match config.data.validation_limit {
            0 => self.data.valid.len(),
            n => n.min(self.data.valid.len()),
        };
        let windows: &[Window] = &self.data.valid[..limit];
        let tokens: usize = windows.iter().map(|w| w.0.len()).sum();
        let p = perplexity(&network, windows)?;
        Ok(vec![
            ("num-examples".to_owned(), Scalar::Sint(tokens as i64)),
            ("loss".to_owned(), Scalar::Double(p.ln())),
            ("perplexity".to_owned(), Scalar::Double(p)),
        ])
    }
}

/// A task and a client's examples.
pub(super) struct Examples<T: Task> {
    pub task: T,
    pub side: Side<T::Example>,
}

impl<T: Task + Send> Work for Examples<T> {
    fn initial(&self, _: &RunConfig) -> Result<NamedTensors, FederatedError> {
        self.task.initial()
    }

    fn first_memory(&self, _: &RunConfig, _: usize) -> Result<Memory, FederatedError> {
        Ok(Memory::default())
    }

    fn examples(&self) -> usize {
        self.side.train.len()
    }

    fn contribute(
        &self,
        config: &RunConfig,
        client: usize,
        when: When,
        shared: &Shared<'_>,
        memory: &Memory,
    ) -> Result<Contribution, FederatedError> {
        let worker = TaskWorker {
            config,
            task: &self.task,
            side: &self.side,
            client,
        };
        worker.contribute(when, &shared.global.adapter, memory)
    }

    fn evaluate(
        &self,
        _: &RunConfig,
        global: &Global,
    ) -> Result<Vec<(String, Scalar)>, FederatedError> {
        let m = self.task.measure(&global.adapter, &self.side.valid)?;
        Ok(vec![
            ("num-examples".to_owned(), Scalar::Sint(m.examples as i64)),
            ("loss".to_owned(), Scalar::Double(m.loss)),
            ("right".to_owned(), Scalar::Double(m.right)),
        ])
    }
}
