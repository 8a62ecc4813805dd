//! What is trained: adapters on a frozen base, and how the network's weights come from them.
//!
//! Of a parameter with base value `W0` (and merged residual `R` of earlier rounds) the forward pass uses
//!
//! ```text
//! W = (1 + g) * (W0 + R + D + s B A)      B [out, r], A [r, in], s = alpha / rank
//! ```
//!
//! with any of: `s B A` low rank (LoRA, arXiv 2106.09685; FFA-LoRA, 2403.12313, keeps `A` at its random start and sends only `B`), `D` a
//! full change, `g` one trained factor per ternary matrix. A network that ternarises (see [`Forward`]) uses the ternary form of `W`, and gradients
//! pass straight through, so that what is trained is exactly what is served.
//!
//! Gradients: `dB = s dW Aᵀ`, `dA = s Bᵀ dW`, `dD = dW`, `dg = <dW, W / (1 + g)>`.

use serde::{Deserialize, Serialize};
use tacit_bitnet::train::{Network, Penalties, Role};

use crate::linalg::{add_product, product_transposed, transposed_product};
use crate::random::{stream, unit};
use crate::{FederatedError, NamedTensors};

/// How linear layers are computed while an adapter is trained on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Base plus adapter are ternarised in every forward pass: the result is a ternary model again, without loss.
    #[default]
    Ternary,
    /// The adapter stays beside the ternary base in full precision. Folding it into ternary weights afterwards loses accuracy.
    Float,
}

/// The kind of adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `B` and `A` are trained.
    #[default]
    Lora,
    /// Only `B` is trained; `A` stays at its random start, which all parties derive from the seed.
    FfaLora,
    /// The parameter itself is trained.
    Full,
}

/// What to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Method {
    /// Kind of adapter.
    pub kind: Kind,
    /// Rank of the low-rank kinds.
    pub rank: usize,
    /// One rank per client instead, none above `rank`.
    pub ranks: Vec<usize>,
    /// LoRA's alpha: the product is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Parameters that get the adapter: of `qkv`, `o`, `gate_up`, `down`, `embedding`.
    pub targets: Vec<String>,
    /// Also train the final norm's gain and the head biases.
    pub vectors: bool,
    /// Also train one factor per ternary matrix (only with `forward = "float"`: a ternarised matrix derives its scale from the masters).
    pub scales: bool,
    /// How linear layers are computed.
    pub forward: Forward,
}

impl Default for Method {
    fn default() -> Self {
        Self {
            kind: Kind::Lora,
            rank: 8,
            ranks: Vec::new(),
            alpha: 16.0,
            targets: ["qkv", "o", "gate_up", "down"].map(String::from).to_vec(),
            vectors: true,
            scales: false,
            forward: Forward::Ternary,
        }
    }
}

impl Method {
    /// Checks the settings for a number of clients.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] naming the first wrong one.
    pub fn check(&self, clients: usize) -> Result<(), FederatedError> {
        let bad = |what: &str, expected: &str, found: String, remedy: &str| {
            Err(FederatedError::setting(
                format!("method.{what}"),
                expected,
                found,
                remedy,
            ))
        };
        if self.kind != Kind::Full && !(1..=1024).contains(&self.rank) {
            return bad("rank", "1 to 1024", self.rank.to_string(), "8 is usual");
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return bad(
                "alpha",
                "a positive number",
                self.alpha.to_string(),
                "twice the rank is usual",
            );
        }
        if !self.ranks.is_empty()
            && (self.ranks.len() != clients
                || self.kind == Kind::Full
                || self.ranks.iter().any(|r| !(1..=self.rank).contains(r)))
        {
            return bad(
                "ranks",
                &format!(
                    "one rank of 1 to {} for each of the {clients} clients, with a low-rank kind",
                    self.rank
                ),
                format!("{:?}", self.ranks),
                "leave it out to give every client method.rank",
            );
        }
        let known = ["qkv", "o", "gate_up", "down", "embedding"];
        if let Some(t) = self.targets.iter().find(|t| !known.contains(&t.as_str())) {
            return bad(
                "targets",
                &format!("some of {known:?}"),
                format!("{t:?}"),
                "name parameters as listed",
            );
        }
        if self.targets.is_empty() && !self.vectors && !self.scales {
            return bad(
                "targets",
                "something to train",
                "nothing".into(),
                "name targets, or set vectors = true",
            );
        }
        if self.scales && self.forward == Forward::Ternary {
            return bad(
                "scales",
                "false with forward = \"ternary\"",
                "true".into(),
                "a ternarised matrix derives its scale from its values",
            );
        }
        Ok(())
    }

    /// The rank of client number `client`.
    pub fn rank_of(&self, client: usize) -> usize {
        self.ranks.get(client).copied().unwrap_or(self.rank)
    }
}

/// What is trained of one parameter.
#[derive(Clone, Debug)]
struct Part {
    index: usize,
    name: String,
    rows: usize,
    cols: usize,
    /// Fixed `A` of FFA-LoRA, `[rank, cols]`.
    fixed_a: Option<Vec<f32>>,
    low_rank: bool,
    delta: bool,
    /// Number of ternary matrices with a factor each; 0 for none.
    scales: usize,
}

/// A base network and what is trained on it.
#[derive(Clone, Debug)]
pub struct Tuner {
    base: Network,
    parts: Vec<Part>,
    method: Method,
    seed: u64,
    wanted: Vec<bool>,
}

/// Name of a low-rank factor.
pub(crate) fn factor(parameter: &str, which: char) -> String {
    format!("{parameter}.lora_{which}")
}

impl Tuner {
    /// Puts adapters on `base`, which is ternarised in the forward pass or not as `method` says.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] when the method does not fit the network.
    pub fn new(mut base: Network, method: &Method, seed: u64) -> Result<Self, FederatedError> {
        match (method.forward, base.is_quantised()) {
            (Forward::Ternary, false) => base.make_masters(seed)?,
            (Forward::Float, true) => base = base.as_exported(),
            _ => {}
        }
        let mut parts = Vec::new();
        for (index, p) in base.parameters().enumerate() {
            let short = p.name.rsplit('.').next().unwrap_or(p.name);
            let targeted = method.targets.iter().any(|t| t == short);
            let vector = method.vectors && p.role == Role::Vector;
            let scales = match p.role {
                Role::Linear { parts } if method.scales => parts,
                _ => 0,
            };
            if !(targeted || vector || scales > 0) {
                continue;
            }
            let low_rank = targeted && method.kind != Kind::Full;
            parts.push(Part {
                index,
                name: p.name.to_owned(),
                rows: p.rows,
                cols: p.cols,
                fixed_a: (low_rank && method.kind == Kind::FfaLora)
                    .then(|| random_a(seed, p.name, 0, method.rank, p.cols)),
                low_rank,
                delta: vector || (targeted && method.kind == Kind::Full),
                scales,
            });
        }
        let mut wanted = vec![false; base.parameters().len()];
        for p in &parts {
            wanted[p.index] = true;
        }
        Ok(Self {
            base,
            parts,
            method: method.clone(),
            seed,
            wanted,
        })
    }

    /// The base network.
    pub fn base(&self) -> &Network {
        &self.base
    }

    /// The frozen `A` of FFA-LoRA for a parameter, row-major, and its rank.
    pub fn fixed_a(&self, parameter: &str) -> Option<(&[f32], usize)> {
        let part = self.parts.iter().find(|p| p.name == parameter)?;
        let a = part.fixed_a.as_deref()?;
        Some((a, a.len() / part.cols.max(1)))
    }

    /// What is trained.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// `alpha / rank`.
    pub fn scale(&self) -> f32 {
        self.method.alpha / self.method.rank.max(1) as f32
    }

    /// The start of round `round` for an adapter of rank `rank`: `A` uniform in `±1 / sqrt(in)`, everything else 0. Deterministic by seed; only
    /// stacking (FLoRA) begins anew in every round.
    ///
    /// # Errors
    /// Never for the tuner's own layout.
    pub fn initial(&self, rank: usize, round: u64) -> Result<NamedTensors, FederatedError> {
        let mut t = NamedTensors::new();
        for p in &self.parts {
            if p.low_rank {
                if p.fixed_a.is_none() {
                    let a = random_a(self.seed, &p.name, round, rank, p.cols);
                    t.insert(factor(&p.name, 'a'), &[rank, p.cols], a)?;
                }
                t.insert(
                    factor(&p.name, 'b'),
                    &[p.rows, rank],
                    vec![0.0; p.rows * rank],
                )?;
            }
            if p.delta {
                t.insert(
                    format!("{}.delta", p.name),
                    &[p.rows, p.cols],
                    vec![0.0; p.rows * p.cols],
                )?;
            }
            if p.scales > 0 {
                t.insert(
                    format!("{}.scale", p.name),
                    &[p.scales],
                    vec![0.0; p.scales],
                )?;
            }
        }
        Ok(t)
    }

    /// Names and sizes `(name, out, in)` of the parameters with trained low-rank factors `B` and `A`.
    pub fn low_rank(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.parts
            .iter()
            .filter(|p| p.low_rank && p.fixed_a.is_none())
            .map(|p| (p.name.as_str(), p.rows, p.cols))
    }

    /// Writes the weights of `state` on top of `residual` (dense changes by parameter name) into `network`, a clone of the base.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when a tensor is missing or has the wrong shape.
    pub fn write(
        &self,
        state: &NamedTensors,
        residual: &NamedTensors,
        network: &mut Network,
    ) -> Result<(), FederatedError> {
        let base: Vec<&[f32]> = self.base.parameters().map(|p| p.values).collect();
        for p in &self.parts {
            let w = network.values_mut(p.index);
            w.copy_from_slice(base[p.index]);
            if let Some(r) = residual.get(&p.name) {
                self.shape(p, &r.name, &r.shape, &[p.rows, p.cols])?;
                w.iter_mut().zip(&r.values).for_each(|(w, r)| *w += r);
            }
            if p.low_rank {
                let (a, b, rank) = self.factors(p, state)?;
                add_product(w, self.scale(), b, a, (p.rows, rank, p.cols));
            }
            if p.delta {
                let d = self.tensor(p, state, &format!("{}.delta", p.name), &[p.rows, p.cols])?;
                w.iter_mut().zip(d).for_each(|(w, d)| *w += d);
            }
            if p.scales > 0 {
                let g = self.tensor(p, state, &format!("{}.scale", p.name), &[p.scales])?;
                let n = w.len() / p.scales;
                for (w, g) in w.chunks_mut(n).zip(g) {
                    w.iter_mut().for_each(|w| *w *= 1.0 + g);
                }
            }
        }
        Ok(())
    }

    /// The network with the weights of `state` and `residual`.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn network(
        &self,
        state: &NamedTensors,
        residual: &NamedTensors,
    ) -> Result<Network, FederatedError> {
        let mut n = self.base.clone();
        self.write(state, residual, &mut n)?;
        Ok(n)
    }

    fn shape(
        &self,
        p: &Part,
        name: &str,
        found: &[usize],
        expected: &[usize],
    ) -> Result<(), FederatedError> {
        if found == expected {
            return Ok(());
        }
        Err(FederatedError::Layout {
            what: format!("adapter of {}", p.name),
            tensor: name.into(),
            expected: format!("{expected:?}"),
            found: format!("{found:?}"),
            remedy: "both ends must use the same model and adapter settings".into(),
        })
    }

    fn tensor<'a>(
        &self,
        p: &Part,
        state: &'a NamedTensors,
        name: &str,
        shape: &[usize],
    ) -> Result<&'a [f32], FederatedError> {
        let found = state.get(name).map_or(&[][..], |t| &t.shape);
        if found != shape || state.get(name).is_none() {
            self.shape(
                p,
                name,
                if state.get(name).is_some() {
                    found
                } else {
                    &[usize::MAX]
                },
                shape,
            )?;
        }
        Ok(state.get(name).map_or(&[][..], |t| &t.values))
    }

    /// `(A, B, rank)` of a low-rank part.
    fn factors<'a>(
        &'a self,
        p: &'a Part,
        state: &'a NamedTensors,
    ) -> Result<(&'a [f32], &'a [f32], usize), FederatedError> {
        let name = factor(&p.name, 'b');
        let rank = state
            .get(&name)
            .and_then(|t| t.shape.get(1).copied())
            .unwrap_or(self.method.rank);
        let b = self.tensor(p, state, &name, &[p.rows, rank])?;
        match &p.fixed_a {
            Some(a) if a.len() == rank * p.cols => Ok((a, b, rank)),
            Some(_) => {
                self.shape(p, &name, &[p.rows, rank], &[p.rows, self.method.rank])?;
                Ok((&[], b, rank))
            }
            None => Ok((
                self.tensor(p, state, &factor(&p.name, 'a'), &[rank, p.cols])?,
                b,
                rank,
            )),
        }
    }

    /// Loss per token and gradient (in the layout of `state`) of sequences of one length.
    ///
    /// # Errors
    /// [`FederatedError::Training`] when the network refuses the batch.
    pub fn gradient(
        &self,
        network: &Network,
        state: &NamedTensors,
        inputs: &[u32],
        targets: &[u32],
        tokens: usize,
        penalties: &Penalties,
    ) -> Result<(f64, NamedTensors), FederatedError> {
        let step =
            network.loss_and_gradients(inputs, targets, tokens, penalties, &|i| self.wanted[i])?;
        let mut g = state.zeros_like();
        let put = |g: &mut NamedTensors, name: &str, values: &[f32]| {
            if let Some(v) = g.values_mut(name) {
                v.copy_from_slice(values);
            }
        };
        let weights: Vec<&[f32]> = network.parameters().map(|p| p.values).collect();
        for p in &self.parts {
            let mut dw = step.gradients[p.index].clone();
            if p.scales > 0 {
                let factors = self.tensor(p, state, &format!("{}.scale", p.name), &[p.scales])?;
                let n = dw.len() / p.scales;
                let mut dg = Vec::with_capacity(p.scales);
                for ((dw, w), f) in dw
                    .chunks_mut(n)
                    .zip(weights[p.index].chunks(n))
                    .zip(factors)
                {
                    let dot: f64 = dw
                        .iter()
                        .zip(w)
                        .map(|(a, b)| f64::from(*a) * f64::from(*b))
                        .sum();
                    dg.push((dot / f64::from(1.0 + f)) as f32);
                    dw.iter_mut().for_each(|x| *x *= 1.0 + f);
                }
                put(&mut g, &format!("{}.scale", p.name), &dg);
            }
            if p.low_rank {
                let (a, b, rank) = self.factors(p, state)?;
                let s = self.scale();
                let db = product_transposed(s, &dw, a, (p.rows, p.cols, rank));
                put(&mut g, &factor(&p.name, 'b'), &db);
                if p.fixed_a.is_none() {
                    let da = transposed_product(s, b, &dw, (p.rows, rank, p.cols));
                    put(&mut g, &factor(&p.name, 'a'), &da);
                }
            }
            if p.delta {
                put(&mut g, &format!("{}.delta", p.name), &dw);
            }
        }
        Ok((step.loss, g))
    }
}

fn random_a(seed: u64, name: &str, round: u64, rank: usize, cols: usize) -> Vec<f32> {
    let mut rng = stream(seed, &format!("adapter {name}"), &[round]);
    let bound = 1.0 / (cols as f64).sqrt();
    (0..rank * cols)
        .map(|_| ((2.0 * unit(&mut rng) - 1.0) * bound) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal;
    use tacit_bitnet::train::TrainConfig;

    fn base(unquantised: bool) -> Network {
        let mut n = Network::new(&TrainConfig {
            hidden: 16,
            layers: 1,
            heads: 2,
            ffn: 24,
            vocab: 300,
            context: 6,
            unquantised,
            ..TrainConfig::default()
        });
        for i in 0..6 {
            n.values_mut(i).iter_mut().for_each(|x| *x *= 10.0);
        }
        n
    }

    fn randomised(t: &NamedTensors) -> NamedTensors {
        let mut rng = stream(9, "test state", &[]);
        t.map(|_| 0.0)
            .unflatten(
                &(0..t.count())
                    .map(|_| 0.2 * normal(&mut rng) as f32)
                    .collect::<Vec<_>>(),
            )
            .unwrap()
    }

    #[test]
    fn adapter_gradients_agree_with_difference_quotients() {
        for kind in [Kind::Lora, Kind::FfaLora, Kind::Full] {
            let method = Method {
                kind,
                rank: 3,
                targets: ["qkv", "o", "gate_up", "down", "embedding"]
                    .map(String::from)
                    .to_vec(),
                scales: true,
                forward: Forward::Float,
                ..Method::default()
            };
            method.check(1).unwrap();
            let tuner = Tuner::new(base(true), &method, 5).unwrap();
            let state = randomised(&tuner.initial(3, 0).unwrap());
            let (inputs, targets) = (vec![1u32, 7, 299, 4], vec![7u32, 299, 4, 2]);
            let none = NamedTensors::new();
            let penalties = Penalties::default();
            let value = |s: &NamedTensors| {
                let n = tuner.network(s, &none).unwrap();
                let step = n
                    .loss_and_gradients(&inputs, &targets, 4, &penalties, &|_| false)
                    .unwrap();
                step.loss + step.penalty
            };
            let n = tuner.network(&state, &none).unwrap();
            let (_, g) = tuner
                .gradient(&n, &state, &inputs, &targets, 4, &penalties)
                .unwrap();
            for t in g.iter() {
                let i = (0..t.values.len())
                    .max_by(|&a, &b| t.values[a].abs().total_cmp(&t.values[b].abs()))
                    .unwrap();
                let move_by = |h: f32| {
                    let mut s = state.clone();
                    s.values_mut(&t.name).unwrap()[i] += h;
                    value(&s)
                };
                let slope = (move_by(2e-3) - move_by(-2e-3)) / 4e-3;
                assert!(
                    (slope - f64::from(t.values[i])).abs() < 2e-2 * slope.abs().max(0.02),
                    "{kind:?} {}: {slope} against {}",
                    t.name,
                    t.values[i]
                );
            }
        }
    }

    #[test]
    fn a_fresh_adapter_changes_nothing_and_ternary_results_stay_ternary() {
        let tuner = Tuner::new(base(false), &Method::default(), 1).unwrap();
        let state = tuner.initial(8, 0).unwrap();
        let none = NamedTensors::new();
        let ids = [1u32, 2, 3];
        assert_eq!(
            tuner
                .network(&state, &none)
                .unwrap()
                .logits(&ids, 3)
                .unwrap(),
            base(false).logits(&ids, 3).unwrap()
        );
        let trained = tuner.network(&randomised(&state), &none).unwrap();
        let served = trained.as_exported();
        for (a, b) in trained
            .logits(&ids, 3)
            .unwrap()
            .iter()
            .zip(served.logits(&ids, 3).unwrap())
        {
            assert!(
                (a - b).abs() < 0.02 * (1.0 + b.abs()),
                "only the embedding is rounded: {a} {b}"
            );
        }
    }

    #[test]
    fn wrong_settings_and_layouts_are_named() {
        let m = |f: fn(&mut Method)| {
            let mut m = Method::default();
            f(&mut m);
            m.check(2).unwrap_err().to_string()
        };
        assert!(m(|m| m.rank = 0).contains("method.rank"));
        assert!(m(|m| m.ranks = vec![1]).contains("method.ranks"));
        assert!(m(|m| m.targets = vec!["q".into()]).contains("method.targets"));
        assert!(m(|m| m.scales = true).contains("method.scales"));
        let tuner = Tuner::new(base(false), &Method::default(), 1).unwrap();
        let message = tuner
            .network(&NamedTensors::new(), &NamedTensors::new())
            .unwrap_err()
            .to_string();
        assert!(message.contains("layers.0.qkv.lora_b"), "{message}");
    }
}
