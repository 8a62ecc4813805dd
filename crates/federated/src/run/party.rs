//! One client by itself: its text or other examples, what it remembers between rounds, and its answers to a coordinator's messages.
//!
//! | message | content | answer |
//! | --- | --- | --- |
//! | `query` | | the untrained adapter, number of the client, its examples, what it takes part in |
//! | `train` | `arrays` (adapter), `server-round` | `arrays` (trained adapter), `num-examples`, as Flower's FedAvg wants them |
//! | `train` from a coordinator of ours (`tacit`) | the same, `residual`, with SCAFFOLD `control`, without rounds `turn` | the update as the stages wrote it, or the first message of a secure sum; with SCAFFOLD `control-change` |
//! | `train.sum` | a message of the secure sum | its answer |
//! | `evaluate` | `arrays` | loss over its validation text or examples |
//!
//! What compression keeps is written before the answer goes out, together with what it was before the round: a round that is asked for twice, because
//! either side died, is answered with the same bytes.

use std::path::PathBuf;

use ed25519_dalek::{SigningKey, VerifyingKey};

use super::client::{Contribution, When};
use super::memory::Memory;
use super::private::PrivateSum;
use super::signer::seal_as;
use super::task_client::Side;
use super::work::{Examples, Shared, Text, Work};
use super::{BaseModel, client_data, fingerprint, session_of, task};
use crate::config::RunConfig;
use crate::flower::limits::{self, MESSAGE};
use crate::flower::proto::Scalar;
use crate::flower::record::{Array, Content, Record, from_tensors, to_tensors};
use crate::lora::{Combine, Global};
use crate::partition::ClientText;
use crate::protection::ClientId;
use crate::protection::secure_aggregation::{Client, FixedPoint, Roster, RoundConfig};
use crate::task::Task;
use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors};

/// Serialisation name of an update.
pub(super) const UPDATE: &str = "tacit.update";
/// Serialisation name of a message of the secure sum.
pub(super) const SUM: &str = "tacit.sum";

/// A client of a federation whose other members are elsewhere.
pub struct Party {
    config: RunConfig,
    work: Box<dyn Work>,
    client: usize,
    agreement: String,
    file: PathBuf,
    /// Round of the last answer, what was kept before it and after it.
    last: Option<usize>,
    before: Memory,
    after: Memory,
    identity: Option<SigningKey>,
    sum: Option<Client>,
}

impl std::fmt::Debug for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Party")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

fn refuse(setting: &str, expected: &str, found: impl ToString, remedy: &str) -> FederatedError {
    FederatedError::setting(setting, expected, found.to_string(), remedy)
}

impl Party {
    /// Client number `client` of `config` with its text. `identity` signs its messages of a secure sum.
    ///
    /// # Errors
    /// As [`super::Run::new`]; [`FederatedError::Setting`] for stages that need a coordinator in the same process.
    pub fn new(
        config: RunConfig,
        base: BaseModel,
        text: &ClientText,
        client: usize,
        identity: Option<SigningKey>,
    ) -> Result<Self, FederatedError> {
        config.check()?;
        check_remote(&config)?;
        let tuner = Tuner::new(base.network, &config.method, config.seed)?;
        check_messages(&config, &tuner, MESSAGE)?;
        let data = client_data(&config, &tuner, &base.tokenizer, text, client)?;
        let agreement = fingerprint(&config, &tuner, &[], &Default::default())?;
        Self::begun(
            config,
            Box::new(Text { tuner, data }),
            client,
            agreement,
            identity,
        )
    }

    /// Client number `client` of a run over a task, with its examples.
    ///
    /// # Errors
    /// As [`Self::new`] and [`super::TaskRun::new`].
    pub fn of_task<T: Task + Send + 'static>(
        config: RunConfig,
        task: T,
        side: Side<T::Example>,
        client: usize,
        identity: Option<SigningKey>,
    ) -> Result<Self, FederatedError> {
        config.check()?;
        check_remote(&config)?;
        side.check()?;
        let initial = task.initial()?;
        check_values(initial.count() as u64)?;
        let agreement = task::fingerprint(&config, &task, &initial, &[])?;
        Self::begun(
            config,
            Box::new(Examples { task, side }),
            client,
            agreement,
            identity,
        )
    }

    fn begun(
        config: RunConfig,
        work: Box<dyn Work>,
        client: usize,
        agreement: String,
        identity: Option<SigningKey>,
    ) -> Result<Self, FederatedError> {
        let file = config.out.join(format!("node-{client}.safetensors"));
        let first = work.first_memory(&config, client)?;
        let mut party = Self {
            last: None,
            before: first.clone(),
            after: first,
            identity,
            sum: None,
            config,
            work,
            client,
            agreement,
            file,
        };
        party.remember()?;
        Ok(party)
    }

    fn remember(&mut self) -> Result<(), FederatedError> {
        if !self.file.is_file() {
            return Ok(());
        }
        let (all, meta) = NamedTensors::load(&self.file)?;
        if meta.get("run").is_none_or(|r| *r != self.agreement) {
            return Err(FederatedError::format(
                self.file.display().to_string(),
                "it is what this client remembers of another configuration or base model",
                "give the node another folder with --out",
            ));
        }
        self.last = meta.get("round").and_then(|r| r.parse().ok());
        (self.before, self.after) = Default::default();
        for t in all.iter() {
            let (group, name) = t.name.split_once('/').unwrap_or_default();
            let target = if group == "before" {
                &mut self.before
            } else {
                &mut self.after
            };
            target.read(name, &t.shape, t.values.clone())?;
        }
        Ok(())
    }

    fn keep(&mut self, round: usize, before: Memory, after: Memory) -> Result<(), FederatedError> {
        if !(before.is_empty() && after.is_empty()) {
            let mut all = NamedTensors::new();
            before.write("before", &mut all)?;
            after.write("after", &mut all)?;
            std::fs::create_dir_all(&self.config.out)
                .map_err(|e| FederatedError::io(&self.config.out, e))?;
            all.save(
                &self.file,
                &[
                    ("run".to_owned(), self.agreement.clone()),
                    ("round".to_owned(), round.to_string()),
                ],
            )?;
        }
        (self.last, self.before, self.after) = (Some(round), before, after);
        Ok(())
    }

    /// Number of the client.
    pub fn client(&self) -> usize {
        self.client
    }

    /// Examples to train on: sequences of text, or what the task has.
    pub fn examples(&self) -> usize {
        self.work.examples()
    }

    /// The answer to a message of type `kind`.
    ///
    /// # Errors
    /// [`FederatedError::Format`] and [`FederatedError::Layout`] for messages that do not fit, [`FederatedError::Setting`] for a coordinator with
    /// other settings, else whatever goes wrong in training.
    pub fn answer(&mut self, kind: &str, content: &Content) -> Result<Content, FederatedError> {
        if let Some(theirs) = content.text("tacit")
            && theirs != self.agreement
        {
            return Err(refuse(
                "configuration",
                "the coordinator's settings and base model",
                "others",
                "use one configuration file on all machines",
            ));
        }
        match kind {
            "query" => self.introduce(content),
            "train" => self.train(content),
            "train.sum" => self.go_on(content),
            "evaluate" => self.evaluate(content),
            other => Err(FederatedError::format(
                "message",
                format!("its type is `{other}`, expected query, train, train.sum or evaluate"),
                "use another coordinator",
            )),
        }
    }

    fn metrics(&self, more: Vec<(String, Scalar)>) -> (String, Record) {
        let mut all = vec![
            (
                "num-examples".to_owned(),
                Scalar::Sint(self.examples() as i64),
            ),
            ("client".to_owned(), Scalar::Sint(self.client as i64)),
        ];
        all.extend(more);
        ("metrics".to_owned(), Record::Metrics(all))
    }

    fn introduce(&self, content: &Content) -> Result<Content, FederatedError> {
        let mut records = vec![
            self.metrics(Vec::new()),
            (
                "config".to_owned(),
                Record::Config(vec![(
                    "tacit".to_owned(),
                    Scalar::Text(self.agreement.clone()),
                )]),
            ),
        ];
        if content.text("tacit").is_none() {
            let adapter = self.work.initial(&self.config)?;
            records.push(("arrays".to_owned(), from_tensors(&adapter)));
        }
        Ok(Content(records))
    }

    /// The shared state in a message.
    fn global(&self, content: &Content) -> Result<Global, FederatedError> {
        let like = self.work.initial(&self.config)?;
        let mut residual = NamedTensors::new();
        if let Some(Record::Arrays(arrays)) = content.get("residual") {
            for (name, a) in arrays {
                let (shape, values) = a.to_f32()?;
                residual.insert(name.as_str(), &shape, values)?;
            }
            residual.check_finite("a tensor of a message")?;
        }
        Ok(Global {
            adapter: to_tensors(content.arrays("arrays")?, &like)?,
            residual,
        })
    }

    fn train(&mut self, content: &Content) -> Result<Content, FederatedError> {
        let round = content
            .number("server-round")
            .filter(|r| *r >= 1.0 && r.fract() == 0.0 && *r <= 1e9)
            .ok_or_else(|| {
                FederatedError::format(
                    "message",
                    "it has no `server-round` from 1",
                    "Flower's strategies set it",
                )
            })? as usize
            - 1;
        let ours = content.text("tacit").is_some();
        let stock_can = self.config.combine == Combine::Average
            && !self.config.hides_updates()
            && !self.config.train.scaffold
            && !self.config.signed();
        if !ours && !stock_can {
            return Err(refuse(
                "coordinator",
                "one of this software, for this configuration",
                "another",
                "hidden sums, signed payloads, SCAFFOLD and rules beside `average` need `tacit federate coordinate`",
            ));
        }
        // Without rounds a client may train twice from one state: then its turns are counted.
        let turn = content
            .number("turn")
            .filter(|t| ours && *t >= 0.0 && t.fract() == 0.0 && *t <= 1e9)
            .map_or(round, |t| t as usize);
        let global = self.global(content)?;
        // What was remembered before this round: a round that is asked for again begins where it began.
        let memory = if self.last == Some(turn) {
            self.before.clone()
        } else {
            self.after.clone()
        };
        let control = if self.config.train.scaffold {
            to_tensors(content.arrays("control")?, &global.adapter)?
        } else {
            NamedTensors::new()
        };
        let shared = Shared {
            global: &global,
            control: &control,
        };
        let when = When { turn, round };
        let mut c = (self.work).contribute(&self.config, self.client, when, &shared, &memory)?;
        let after = std::mem::take(&mut c.memory);
        let metrics = self.metrics(vec![
            ("train-loss".to_owned(), Scalar::Double(c.loss)),
            ("train-tokens".to_owned(), Scalar::Sint(c.tokens as i64)),
        ]);
        let record = if self.config.hides_updates() {
            let first = self.begin_sum(round, &c, content)?;
            (
                "sum".to_owned(),
                Record::Arrays(vec![("message".to_owned(), Array::from_bytes(SUM, &first))]),
            )
        } else if ours {
            (
                "update".to_owned(),
                Record::Arrays(vec![(
                    "payload".to_owned(),
                    Array::from_bytes(UPDATE, &self.signed(turn, c.payload)?),
                )]),
            )
        } else {
            let mut local = c.start.clone();
            local.axpy(1.0, &c.update)?;
            ("arrays".to_owned(), from_tensors(&local))
        };
        self.keep(turn, memory, after)?;
        let mut records = vec![record, metrics];
        if !c.control_change.is_empty() {
            let change = from_tensors(&c.control_change);
            records.push(("control-change".to_owned(), change));
        }
        Ok(Content(records))
    }

    /// The payload as it travels: signed where a stage says so.
    fn signed(&self, round: usize, payload: Vec<u8>) -> Result<Vec<u8>, FederatedError> {
        if !self.config.signed() {
            return Ok(payload);
        }
        let session = session_of(&self.agreement);
        seal_as(self.key()?, session, self.client, round, &payload)
    }

    /// The key that signs this client's messages.
    fn key(&self) -> Result<&SigningKey, FederatedError> {
        self.identity.as_ref().ok_or_else(|| {
            refuse(
                "identity",
                "this client's signature key",
                "none",
                "give the node --identity FILE",
            )
        })
    }

    fn begin_sum(
        &mut self,
        round: usize,
        c: &Contribution,
        content: &Content,
    ) -> Result<Vec<u8>, FederatedError> {
        let identity = self.key()?.clone();
        let bits = self.config.secure_bits().unwrap_or(24);
        let drawn = drawn_of(content)?;
        let roster = roster(&self.config, &drawn)?;
        let session = content
            .bytes("sum", SUM)
            .and_then(|b| <[u8; 16]>::try_from(b).ok())
            .ok_or_else(|| {
                FederatedError::format(
                    "message",
                    "it names no session of the secure sum",
                    "use `tacit federate coordinate` of the same version",
                )
            })?;
        let input = match self.config.noise() {
            Some(noise) => {
                let rotation = *blake3::hash(self.agreement.as_bytes()).as_bytes();
                let private = PrivateSum::new(
                    noise,
                    self.config.rounds,
                    drawn.len(),
                    c.update.count(),
                    bits,
                    rotation,
                )?;
                // The budget is checked here too: a coordinator cannot ask for more rounds than were agreed.
                private.ledger(round + 1)?;
                private.encode(&c.update)?
            }
            None => {
                let bound = self.config.clip().unwrap_or(1.0);
                FixedPoint::new(bits, bound, drawn.len())?.encode(&c.update.flatten())?
            }
        };
        let config = RoundConfig::complete(session, round as u64, input.len(), bits, &roster);
        let mut client = Client::new(config, roster, self.client as ClientId, identity, input)?;
        let first = client.advertise()?;
        self.sum = Some(client);
        Ok(first)
    }

    fn go_on(&mut self, content: &Content) -> Result<Content, FederatedError> {
        let message = content.bytes("sum", SUM).ok_or_else(|| {
            FederatedError::format(
                "message",
                "it has no message of the secure sum",
                "use `tacit federate coordinate` of the same version",
            )
        })?;
        let client = self.sum.as_mut().ok_or_else(|| {
            FederatedError::format(
                "secure sum",
                "this node has begun none (it may have been restarted)",
                "the coordinator asks for the round again",
            )
        })?;
        let answer = client.receive(message)?;
        Ok(Content(vec![
            (
                "sum".to_owned(),
                Record::Arrays(vec![(
                    "message".to_owned(),
                    Array::from_bytes(SUM, &answer),
                )]),
            ),
            self.metrics(Vec::new()),
        ]))
    }

    fn evaluate(&self, content: &Content) -> Result<Content, FederatedError> {
        let global = self.global(content)?;
        let mut said = self.work.evaluate(&self.config, &global)?;
        said.push(("client".to_owned(), Scalar::Sint(self.client as i64)));
        Ok(Content(vec![("metrics".to_owned(), Record::Metrics(said))]))
    }
}

/// What cannot be done between machines.
pub(super) fn check_remote(config: &RunConfig) -> Result<(), FederatedError> {
    if config.verified() {
        return Err(refuse(
            "stage (verified-sum)",
            "one coordinator between machines",
            "two aggregators",
            "use `tacit federate run`, or secure-sum, which needs one coordinator",
        ));
    }
    if config.buckets() > 0 {
        return Err(refuse(
            "stage (robust).buckets",
            "one secure sum between machines",
            "several",
            "use `tacit federate run`, or a robust rule without a secure sum",
        ));
    }
    if config.encrypted() {
        return Err(refuse(
            "stage (encrypted-sum)",
            "another hidden sum between machines",
            "encrypted-sum",
            "its key is the clients': they would have to agree on one, and to decrypt every round's sum for the coordinator; secure-sum needs neither",
        ));
    }
    if config.history {
        return Err(refuse(
            "history",
            "false between machines",
            "true",
            "forgetting replays every other client's training, and their text is elsewhere: use `tacit federate run`",
        ));
    }
    Ok(())
}

/// Whether the messages of a round are of at most `limit` bytes, before any of them or what they hold is made.
pub(super) fn check_messages(
    config: &RunConfig,
    tuner: &Tuner,
    limit: u64,
) -> Result<(), FederatedError> {
    let rank = config.method.ranks.iter().copied().max();
    let values = tuner.count(rank.unwrap_or(0).max(config.method.rank));
    let control = if config.train.scaffold { 2 } else { 1 };
    limits::check(
        &format!("what is trained ({values} values)"),
        4 * values * control,
        limit,
        "between machines train less: method.kind = \"lora\" or \"ffa-lora\", a lower method.rank or fewer method.targets; `tacit federate run` knows no such limit",
    )
}

/// Whether the tensors of a task fit a message.
pub(super) fn check_values(values: u64) -> Result<(), FederatedError> {
    limits::check(
        &format!("what is trained ({values} values)"),
        4 * values,
        MESSAGE,
        "`tacit federate run` knows no such limit",
    )
}

/// Numbers of the clients of a round, in a message.
fn drawn_of(content: &Content) -> Result<Vec<usize>, FederatedError> {
    match content.value("clients") {
        Some(Scalar::Sints(list)) if !list.vals.is_empty() && list.vals.len() <= 1 << 12 => list
            .vals
            .iter()
            .map(|&k| {
                usize::try_from(k).map_err(|_| {
                    FederatedError::format("message", "a negative client", "report this")
                })
            })
            .collect(),
        _ => Err(FederatedError::format(
            "message",
            "it does not name the clients of the round",
            "use `tacit federate coordinate` of the same version",
        )),
    }
}

/// The keys of these clients, from the configuration.
pub(super) fn roster(config: &RunConfig, drawn: &[usize]) -> Result<Roster, FederatedError> {
    let key = |k: usize| -> Option<VerifyingKey> {
        let text = config.roster.get(k)?;
        let bytes: Option<Vec<u8>> = (0..32)
            .map(|i| {
                text.get(2 * i..2 * i + 2)
                    .and_then(|d| u8::from_str_radix(d, 16).ok())
            })
            .collect();
        VerifyingKey::from_bytes(&bytes?.try_into().ok()?).ok()
    };
    let keys = drawn
        .iter()
        .map(|&k| {
            key(k).map(|v| (k as ClientId, v)).ok_or_else(|| {
                refuse(
                    "roster",
                    &format!("64 hexadecimal digits for client {k}"),
                    config.roster.get(k).map_or("nothing", String::as_str),
                    "`tacit federate node --show-identity --identity FILE` prints a client's key",
                )
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Roster::new(keys))
}
