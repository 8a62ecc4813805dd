//! Training an existing network from outside: its parameters by name, loss and gradients of any batch, and reading a network back
//! from a model folder or a training checkpoint.
//!
//! Adapters, federated training and audits use these; the training loop of this crate does not.

use super::kernels;
use super::model::{Kind, Network, NormState, Parameter, Step, with_data};
use super::{AttentionKind, Penalties, TrainConfig, TrainError};
use crate::checkpoint::Model;
use crate::config::{Activation, Attention};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::path::Path;

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A linear layer, `[out, in]`, made of this many equally tall matrices, each with a ternary scale of its own.
    Linear {
        /// Number of stacked matrices: 3 for `qkv`, 2 for `gate_up`, else 1.
        parts: usize,
    },
    /// The embedding table `[vocabulary, hidden]`, also the output head.
    Embedding,
    /// A gain or bias.
    Vector,
    /// Trained vectors in front of every sequence, `[vectors, hidden]`: see [`Network::set_prompt`].
    Prompt,
}

/// Name, shape and values of a parameter.
#[derive(Clone, Copy, Debug)]
pub struct ParameterView<'a> {
    /// `layers.0.qkv`, `layers.0.o`, `layers.0.gate_up`, `layers.0.down`, `layers.0.head_bias`, …, `embedding`, `norm`, and
    /// `prompt` where there is one.
    pub name: &'a str,
    /// Rows (outputs); 1 for vectors.
    pub rows: usize,
    /// Columns (inputs).
    pub cols: usize,
    /// What it is.
    pub role: Role,
    /// Row-major values: masters of a quantised network, else what the forward pass multiplies with.
    pub values: &'a [f32],
}

/// Loss and gradients of one batch.
#[derive(Clone, Debug)]
pub struct LossAndGradients {
    /// Mean cross-entropy, nats per token.
    pub loss: f64,
    /// Weighted range penalties, summed.
    pub penalty: f64,
    /// One gradient of `loss + penalty` per parameter, in the order of [`Network::parameters`]; empty where none was wanted.
    pub gradients: Vec<Vec<f32>>,
}

fn wrong(what: impl Into<String>) -> TrainError {
    TrainError::Config(what.into())
}

impl Network {
    /// All parameters, in a fixed order.
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = ParameterView<'_>> {
        self.parameters.iter().map(|p| ParameterView {
            name: &p.name,
            rows: p.rows,
            cols: p.cols,
            role: match p.kind {
                Kind::Linear(parts) => Role::Linear { parts },
                Kind::Embedding => Role::Embedding,
                Kind::Vector => Role::Vector,
                Kind::Prompt => Role::Prompt,
            },
            values: &p.data,
        })
    }

    /// The values of parameter number `index`, to change.
    ///
    /// # Panics
    /// When there is no such parameter.
    pub fn values_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.parameters[index].data
    }

    /// All matrices of the linear layers that have a ternary scale of their own, in the order of the parameters: a layer is one to three of them.
    pub fn ternary_matrices(&self) -> impl Iterator<Item = &[f32]> {
        self.parameters.iter().flat_map(|p| {
            let n = match p.kind {
                Kind::Linear(parts) => p.data.len() / parts,
                _ => 0,
            };
            let all: &[f32] = if n == 0 { &[] } else { &p.data };
            all.chunks(n.max(1))
        })
    }

    /// The same, to change.
    pub fn ternary_matrices_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.parameters.iter_mut().flat_map(|p| {
            let n = match p.kind {
                Kind::Linear(parts) => p.data.len() / parts,
                _ => 0,
            };
            let all: &mut [f32] = if n == 0 { &mut [] } else { &mut p.data };
            all.chunks_mut(n.max(1))
        })
    }

    /// Whether linear layers are ternarised in the forward pass.
    pub fn is_quantised(&self) -> bool {
        self.sizes.quantised
    }

    /// Switches ternarising in the forward pass on or off.
    pub fn set_quantised(&mut self, quantised: bool) {
        self.sizes.quantised = quantised;
    }

    /// Tokens of the longest sequence, beside the prompt.
    pub fn context(&self) -> usize {
        self.sizes.context - self.prompt_rows()
    }

    /// Puts vectors in front of every sequence's embeddings (prompt tuning, arXiv 2104.08691), as the last parameter, `prompt`. `vectors` is
    /// row-major, `[vectors, hidden]`; they take positions of the context and have no loss of their own. An exported folder does not hold them.
    ///
    /// # Errors
    /// [`TrainError::Config`] when there is a prompt already, for part of a vector, or when less than half of the context would be left.
    pub fn set_prompt(&mut self, vectors: Vec<f32>) -> Result<(), TrainError> {
        let (hidden, context) = (self.sizes.hidden, self.sizes.context);
        let rows = vectors.len() / hidden;
        if self.prompt_rows() > 0
            || rows == 0
            || !vectors.len().is_multiple_of(hidden)
            || 2 * rows > context
        {
            return Err(wrong(format!(
                "a prompt of {} values: expected one, of 1 to {} vectors of {hidden} values each",
                vectors.len(),
                context / 2
            )));
        }
        self.parameters.push(Parameter {
            name: "prompt".into(),
            rows,
            cols: hidden,
            kind: Kind::Prompt,
            data: vectors,
        });
        Ok(())
    }

    /// Number of token ids.
    pub fn vocabulary(&self) -> usize {
        self.sizes.vocab
    }

    /// The network of a model folder, with the values the folder holds: unquantised, since `trit * scale` is all there is.
    /// Its logits are those of the folder's model.
    ///
    /// # Errors
    /// [`TrainError::Config`] when the model has what this network has not: gains other than 1 in the norms inside the layers, an
    /// untied head, fewer key than query heads, another activation.
    pub fn from_model(model: &Model) -> Result<Self, TrainError> {
        let c = &model.config;
        if c.activation != Activation::SquaredRelu
            || c.kv_heads != c.heads
            || model.head.is_some()
            || !c.sub_norms
        {
            return Err(wrong(
                "this model cannot be tuned here: expected squared ReLU, as many key as query heads, a tied head and sub-norms, as \
                 `tacit train` makes them",
            ));
        }
        let config = TrainConfig {
            hidden: c.hidden_size,
            layers: c.layers,
            heads: c.heads,
            ffn: c.intermediate_size,
            vocab: c.vocab_size,
            context: c.context,
            attention: match c.attention {
                Attention::Sigmoid => AttentionKind::Sigmoid,
                Attention::Softmax => AttentionKind::Softmax,
                Attention::NormalisedSigmoid => {
                    return Err(wrong(
                        "this model has normalised sigmoid attention, which stands for softmax without training: tune the softmax \
                         model it was made from, or give that one plain sigmoid attention first (tacit model sigmoid)",
                    ));
                }
            },
            unquantised: true,
            ..TrainConfig::default()
        };
        config.check()?;
        let mut network = Self::new(&config);
        for (n, l) in model.layers.iter().enumerate() {
            let unit = |gain: Option<&Vec<f32>>| gain.is_none_or(|g| g.iter().all(|&x| x == 1.0));
            if ![
                Some(&l.input_norm),
                Some(&l.post_attention_norm),
                l.attn_sub_norm.as_ref(),
                l.ffn_sub_norm.as_ref(),
            ]
            .into_iter()
            .all(unit)
            {
                return Err(wrong(format!(
                    "this model cannot be tuned here: a norm of layer {n} has gains other than 1, which a ternary matrix cannot absorb"
                )));
            }
            for (which, matrices) in [
                (0, vec![&l.q, &l.k, &l.v]),
                (1, vec![&l.o]),
                (2, vec![&l.gate, &l.up]),
                (3, vec![&l.down]),
            ] {
                let data = matrices.iter().flat_map(|m| m.dequantise()).collect();
                network.replace(n * 5 + which, data)?;
            }
            network.replace(n * 5 + 4, l.head_bias.clone())?;
        }
        let table = (0..model.embeddings.rows())
            .flat_map(|r| model.embeddings.row(r))
            .collect();
        network.replace(c.layers * 5, table)?;
        network.replace(c.layers * 5 + 1, model.final_norm.clone())?;
        network.norms = NormState {
            attn_eps: (0..c.layers)
                .map(|l| c.attn_sub_norm_eps(l) as f32)
                .collect(),
            ..network.norms
        };
        Ok(network)
    }

    fn replace(&mut self, index: usize, data: Vec<f32>) -> Result<(), TrainError> {
        let p: &mut Parameter = &mut self.parameters[index];
        if p.data.len() != data.len() {
            return Err(wrong(format!(
                "{} has {} values, expected {}",
                p.name,
                data.len(),
                p.data.len()
            )));
        }
        p.data = data;
        Ok(())
    }

    /// The network of a `checkpoint.safetensors` that `tacit train` wrote: full-precision masters.
    ///
    /// # Errors
    /// [`TrainError::Io`] and [`TrainError::Checkpoint`].
    pub fn from_checkpoint(path: &Path) -> Result<Self, TrainError> {
        super::checkpoint::load_network(path)
    }

    /// Makes masters for a network read from a ternary folder, where only the trits and scales are left: values whose ternary form is exactly
    /// that of the folder, spread as trained masters are spread instead of sitting on three points. Every matrix must hold only `-s`, 0
    /// and `s`.
    ///
    /// Trits flip where `|w|` passes `s / 2`. Were all zeros at 0, no small change could flip anything; drawn by `seed`, a small change flips
    /// a number of trits in proportion to it, each in its direction. Zeros are uniform in `(-s/2, s/2)`; non-zeros are `s/2` plus a
    /// half-normal excess, scaled so that `mean |w| = s`.
    ///
    /// # Errors
    /// [`TrainError::Config`] when a matrix is not ternary, or has too few zeros or non-zeros for such masters to exist.
    pub fn make_masters(&mut self, seed: u64) -> Result<(), TrainError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::MAX - 1);
        let mut unit = || ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        for p in &mut self.parameters {
            let Kind::Linear(parts) = p.kind else {
                continue;
            };
            let n = p.data.len() / parts;
            for w in p.data.chunks_mut(n) {
                let s = w.iter().fold(0f32, |m, x| m.max(x.abs()));
                if s == 0.0 || w.iter().any(|x| *x != 0.0 && x.abs() != s) {
                    return Err(wrong(format!(
                        "{} is not ternary: it has magnitudes other than 0 and {s}",
                        p.name
                    )));
                }
                // In units of s: zeros first, then what is left of the mean goes to the excesses.
                let mut zeros = 0f64;
                let mut excess = vec![0f64; n];
                let (mut sum, mut count) = (0f64, 0usize);
                for (w, e) in w.iter_mut().zip(&mut excess) {
                    if *w == 0.0 {
                        let x = 0.998 * (unit() - 0.5);
                        zeros += x.abs();
                        *w = (x * f64::from(s)) as f32;
                    } else {
                        *e = ((-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos())
                            .abs();
                        sum += *e;
                        count += 1;
                    }
                }
                let wanted = n as f64 - zeros - 0.501 * count as f64;
                if wanted <= 0.0 || sum <= 0.0 {
                    return Err(wrong(format!("{} has too few zeros or non-zeros", p.name)));
                }
                for (w, e) in w.iter_mut().zip(&excess) {
                    if *e > 0.0 {
                        let x = 0.501 + e * wanted / sum;
                        *w = ((x * f64::from(s)) as f32).copysign(*w);
                    }
                }
            }
        }
        self.sizes.quantised = true;
        Ok(())
    }

    /// Loss and gradients of sequences of `tokens` ids each, of any length up to the context. Gradients of ternarised matrices are those
    /// of the ternary values (straight-through). Only parameters for which `wanted` says so (by index) get a gradient.
    ///
    /// # Errors
    /// [`TrainError::Config`] when an id, a count or the length is out of range.
    pub fn loss_and_gradients(
        &self,
        inputs: &[u32],
        targets: &[u32],
        tokens: usize,
        penalties: &Penalties,
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<LossAndGradients, TrainError> {
        if targets.len() != inputs.len() || targets.iter().any(|&t| t as usize >= self.sizes.vocab)
        {
            return Err(wrong(format!(
                "{} targets for {} inputs: expected as many, each below {}",
                targets.len(),
                inputs.len(),
                self.sizes.vocab
            )));
        }
        let step: Step = self.step_of(inputs, targets, tokens, penalties, wanted)?;
        let gradients = step
            .gradients
            .iter()
            .map(|g| match g {
                Some(g) => with_data(g, <[f32]>::to_vec),
                None => Ok(Vec::new()),
            })
            .collect::<Result<_, _>>()?;
        Ok(LossAndGradients {
            loss: step.loss,
            penalty: step.penalties.iter().sum(),
            gradients,
        })
    }

    /// Sum of `-ln p(target)` over windows of `(inputs, targets)`; the windows of a batch of `batch` must have one length, so
    /// neighbours of different lengths are computed apart.
    ///
    /// # Errors
    /// [`TrainError::Config`] when an id or a length is out of range.
    pub fn evaluate(
        &self,
        windows: &[(Vec<u32>, Vec<u32>)],
        batch: usize,
    ) -> Result<f64, TrainError> {
        let mut sum = 0.0;
        for run in windows.chunk_by(|a, b| a.0.len() == b.0.len()) {
            sum += self.total_loss(run, batch)?;
        }
        Ok(sum)
    }

    /// `-ln p(target)` of every position of sequences of `tokens` ids.
    ///
    /// # Errors
    /// [`TrainError::Config`] when an id or the length is out of range.
    pub fn token_losses(
        &self,
        inputs: &[u32],
        targets: &[u32],
        tokens: usize,
    ) -> Result<Vec<f64>, TrainError> {
        let logits = self.logits(inputs, tokens)?;
        Ok(logits
            .chunks_exact(self.sizes.vocab)
            .zip(targets)
            .map(|(z, &t)| {
                let m = z.iter().fold(f32::MIN, |m, x| m.max(*x));
                let sum: f64 = z.iter().map(|x| f64::from(x - m).exp()).sum();
                sum.ln() - f64::from(z[t as usize] - m)
            })
            .collect())
    }
}

/// Absolute-mean ternarising of one matrix, as the forward pass of a quantised network does it: `(trits, scale)`.
pub fn ternarise(values: &[f32]) -> (Vec<i8>, f32) {
    let (trits, scale) = kernels::ternary(values);
    (trits.collect(), scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint;
    use crate::train::{Corpus, Document, train_tokenizer, write_model};

    fn config() -> TrainConfig {
        TrainConfig {
            hidden: 16,
            layers: 2,
            heads: 2,
            ffn: 24,
            vocab: 270,
            context: 8,
            ..TrainConfig::default()
        }
    }

    fn exported() -> (Network, tempfile::TempDir) {
        let corpus = Corpus {
            documents: vec![Document {
                package: "a".into(),
                text: "some words to make pairs of letters from these words".repeat(5),
            }],
        };
        let tokenizer = train_tokenizer(&corpus, 270).unwrap();
        let mut network = Network::new(&config());
        network.norms.attn_eps = vec![0.25, 0.5];
        let dir = tempfile::tempdir().unwrap();
        write_model(dir.path(), &network, &tokenizer).unwrap();
        (network, dir)
    }

    #[test]
    fn a_folder_gives_back_the_network_that_was_exported_and_masters_keep_its_trits() {
        let (network, dir) = exported();
        let (model, _) = checkpoint::load(dir.path()).unwrap();
        let mut read = Network::from_model(&model).unwrap();
        let ids = [1u32, 5, 269, 7, 0];
        let want = network.as_exported().logits(&ids, 5).unwrap();
        assert_eq!(read.logits(&ids, 5).unwrap(), want);
        assert_eq!(read.norms.attn_eps, network.norms.attn_eps);
        let folder = read.clone();
        read.make_masters(7).unwrap();
        assert!(read.is_quantised());
        let mut spread = 0;
        for (a, b) in read.parameters().zip(folder.parameters()) {
            let Role::Linear { parts } = a.role else {
                continue;
            };
            let n = a.values.len() / parts;
            for (a, b) in a.values.chunks(n).zip(b.values.chunks(n)) {
                let ((trits, scale), s) = (ternarise(a), b.iter().fold(0f32, |m, x| m.max(*x)));
                assert!((scale / s - 1.0).abs() < 1e-5);
                assert!(trits.iter().zip(b).all(|(&t, &w)| f32::from(t) * s == w));
                spread += a.iter().filter(|x| (x.abs() / s - 0.5).abs() < 0.1).count();
            }
        }
        assert!(
            spread * 20 > read.size() / 4,
            "{spread} of {} near a threshold",
            read.size()
        );
        let again = read.logits(&ids, 5).unwrap();
        for (a, b) in again.iter().zip(&want) {
            assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{a} {b}");
        }
        assert!(Network::new(&config()).make_masters(7).is_err());
    }

    #[test]
    fn gradients_of_short_sequences_agree_with_those_of_whole_batches_and_only_wanted_ones_come() {
        let network = Network::new(&config());
        let (i, t) = (vec![1u32, 2, 3, 4, 5, 6], vec![2u32, 3, 4, 5, 6, 7]);
        let all = |_: usize| true;
        let p = Penalties::none();
        let whole = network.loss_and_gradients(&i, &t, 3, &p, &all).unwrap();
        let a = network
            .loss_and_gradients(&i[..3], &t[..3], 3, &p, &all)
            .unwrap();
        let b = network
            .loss_and_gradients(&i[3..], &t[3..], 3, &p, &all)
            .unwrap();
        assert!((whole.loss - 0.5 * (a.loss + b.loss)).abs() < 1e-6);
        for ((w, a), b) in whole.gradients.iter().zip(&a.gradients).zip(&b.gradients) {
            for ((w, a), b) in w.iter().zip(a).zip(b) {
                assert!((w - 0.5 * (a + b)).abs() < 1e-5);
            }
        }
        let some = network
            .loss_and_gradients(&i, &t, 3, &p, &|n| n == 4)
            .unwrap();
        for (n, g) in some.gradients.iter().enumerate() {
            if n == 4 {
                assert_eq!(g, &whole.gradients[4]);
            } else {
                assert!(g.is_empty());
            }
        }
        assert!(
            network
                .loss_and_gradients(&i, &t[1..], 3, &p, &all)
                .is_err()
        );
        assert!(network.loss_and_gradients(&i, &t, 9, &p, &all).is_err());
        let windows = [
            (i[..3].to_vec(), t[..3].to_vec()),
            (i[3..].to_vec(), t[3..].to_vec()),
            (i[..2].to_vec(), t[..2].to_vec()),
        ];
        let sum = network.evaluate(&windows, 8).unwrap();
        let mut want = 0.0;
        for (x, y) in &windows {
            want += network
                .token_losses(x, y, x.len())
                .unwrap()
                .iter()
                .sum::<f64>();
        }
        assert!((sum - want).abs() < 1e-4);
    }

    #[test]
    fn a_prompt_of_embeddings_is_as_good_as_the_tokens_and_its_gradient_is_a_difference_quotient() {
        let plain = Network::new(&config());
        let table = plain.parameters().find(|p| p.name == "embedding").unwrap();
        let row = |t: usize| table.values[t * 16..(t + 1) * 16].to_vec();
        let mut prompted = plain.clone();
        prompted.set_prompt([row(9), row(200)].concat()).unwrap();
        assert_eq!(prompted.context(), 6);
        // Two sequences of three ids, each behind tokens 9 and 200.
        let (ids, targets) = ([1u32, 2, 3, 4, 5, 6], [2u32, 3, 4, 5, 6, 7]);
        let got = prompted.logits(&ids, 3).unwrap();
        for (sequence, got) in ids.chunks(3).zip(got.chunks(3 * 270)) {
            let long = [&[9, 200], sequence].concat();
            let want = &plain.logits(&long, 5).unwrap()[2 * 270..];
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        let none = Penalties::none();
        let index = prompted.parameters().len() - 1;
        let wanted = |i: usize| i == index;
        let step = prompted
            .loss_and_gradients(&ids, &targets, 3, &none, &wanted)
            .unwrap();
        let loss: f64 = prompted
            .token_losses(&ids, &targets, 3)
            .unwrap()
            .iter()
            .sum();
        assert!((step.loss - loss / 6.0).abs() < 1e-6);
        assert!(step.gradients[..index].iter().all(Vec::is_empty));
        let at = (0..32)
            .max_by(|&a, &b| {
                let g = &step.gradients[index];
                g[a].abs().total_cmp(&g[b].abs())
            })
            .unwrap();
        let moved = |h: f32| {
            let mut n = prompted.clone();
            n.values_mut(index)[at] += h;
            n.token_losses(&ids, &targets, 3)
                .unwrap()
                .iter()
                .sum::<f64>()
                / 6.0
        };
        let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
        let g = f64::from(step.gradients[index][at]);
        assert!((slope - g).abs() < 2e-2 * slope.abs(), "{slope} {g}");
        // Gradients of the other parameters are those of the long sequences, where only the ids have a loss.
        let all = prompted.loss_and_gradients(&ids, &targets, 3, &none, &|_| true);
        assert!(all.unwrap().gradients.iter().all(|g| !g.is_empty()));
        assert!(prompted.logits(&[1; 7], 7).is_err());
        assert!(prompted.set_prompt(row(1)).is_err());
        assert!(plain.clone().set_prompt(vec![0.0; 5 * 16]).is_err());
        assert!(plain.clone().set_prompt(vec![0.0; 17]).is_err());
    }
}
