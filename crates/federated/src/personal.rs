//! Personal adapters: beside the shared low-rank adapter every client trains one of its own, which never leaves it.
//!
//! ```text
//! W = W0 + R + s (B A + B_k A_k)        B A shared and aggregated, B_k A_k private to client k
//! ```
//!
//! Both parts are one adapter of rank `r + p` while a client trains: `[B B_k]` and `[A; A_k]`. Its first `r` columns and rows are the shared part, of
//! which the change is sent; the last `p` stay. The two orders of training:
//!
//! | `order` | a client's round | source |
//! | --- | --- | --- |
//! | `together` | both parts in every step | FedPer (arXiv 1912.00818), pFedLoRA (2310.13283) with low-rank parts in place of layers |
//! | `alternate` | `steps` of the private part with the shared one frozen, then `train.steps` of the shared part with the private one frozen | FedRep (2102.07078) |

use serde::{Deserialize, Serialize};

use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors};

/// In which order a client trains its two parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Both in every step.
    #[default]
    Together,
    /// The private part first, then the shared one.
    Alternate,
}

/// Settings of personal adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Personal {
    /// Rank of a client's private part.
    pub rank: usize,
    /// Order of training.
    pub order: Order,
    /// Steps of the private part alone, with `order = "alternate"`.
    pub steps: usize,
}

impl Default for Personal {
    fn default() -> Self {
        Self {
            rank: 4,
            order: Order::Together,
            steps: 4,
        }
    }
}

/// Which part of a joined adapter moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moves {
    /// All of it.
    #[default]
    All,
    /// Columns of `B` and rows of `A` below this rank, and everything that has no rank.
    Shared(usize),
    /// Those from this rank on.
    Private(usize),
}

impl Moves {
    /// Sets the gradient of what does not move to 0.
    pub(crate) fn mask(self, gradient: &mut NamedTensors) {
        let (rank, private) = match self {
            Self::All => return,
            Self::Shared(rank) => (rank, false),
            Self::Private(rank) => (rank, true),
        };
        let names: Vec<(String, Vec<usize>)> = gradient
            .iter()
            .map(|t| (t.name.clone(), t.shape.clone()))
            .collect();
        for (name, shape) in names {
            let Some(values) = gradient.values_mut(&name) else {
                continue;
            };
            let cols = shape.last().copied().unwrap_or(1).max(1);
            for (i, v) in values.iter_mut().enumerate() {
                let is_private = match Factor::of(&name) {
                    Factor::A => i / cols >= rank,
                    Factor::B => i % cols >= rank,
                    Factor::Neither => false,
                };
                if is_private != private {
                    *v = 0.0;
                }
            }
        }
    }
}

/// What a tensor's name says it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Factor {
    A,
    B,
    Neither,
}

impl Factor {
    fn of(name: &str) -> Self {
        if name.ends_with(".lora_a") {
            Self::A
        } else if name.ends_with(".lora_b") {
            Self::B
        } else {
            Self::Neither
        }
    }
}

/// The private part with which client number `client` begins: `B_k = 0`, so that it changes nothing yet.
///
/// # Errors
/// Never for the tuner's own layout.
pub fn initial(tuner: &Tuner, rank: usize, client: usize) -> Result<NamedTensors, FederatedError> {
    // Rounds count up from 0, clients down from the other end: no two starts are alike.
    let all = tuner.initial(rank, u64::MAX - client as u64)?;
    let mut out = NamedTensors::new();
    for t in all
        .iter()
        .filter(|t| Factor::of(&t.name) != Factor::Neither)
    {
        out.insert(&t.name, &t.shape, t.values.clone())?;
    }
    Ok(out)
}

/// `shared` with the columns and rows of `private` behind its own; `shared` itself where there is no private part.
///
/// # Errors
/// [`FederatedError::Layout`] when the two do not belong to one network.
pub fn join(shared: &NamedTensors, private: &NamedTensors) -> Result<NamedTensors, FederatedError> {
    if private.is_empty() {
        return Ok(shared.clone());
    }
    let mut out = NamedTensors::new();
    for s in shared.iter() {
        let (kind, p) = (Factor::of(&s.name), private.get(&s.name));
        let axis = usize::from(kind == Factor::B);
        let other = |shape: &[usize]| shape.get(1 - axis).copied();
        match (kind, p) {
            (Factor::Neither, _) => out.insert(&s.name, &s.shape, s.values.clone())?,
            (_, Some(p)) if p.shape.len() == 2 && other(&p.shape) == other(&s.shape) => {
                let mut shape = s.shape.clone();
                shape[axis] += p.shape[axis];
                let values = if kind == Factor::A {
                    [s.values.as_slice(), &p.values].concat()
                } else {
                    let rows = s.values.chunks_exact(s.shape[1].max(1));
                    let more = p.values.chunks_exact(p.shape[1].max(1));
                    rows.zip(more).flat_map(|(a, b)| [a, b].concat()).collect()
                };
                out.insert(&s.name, &shape, values)?;
            }
            (_, p) => {
                return Err(FederatedError::Layout {
                    what: "joining a personal adapter".into(),
                    tensor: s.name.clone(),
                    expected: format!("factors beside {:?}", s.shape),
                    found: p.map_or_else(|| "none".into(), |p| format!("{:?}", p.shape)),
                    remedy: "remove what the client remembers, or give the run another folder"
                        .into(),
                });
            }
        }
    }
    Ok(out)
}

/// The inverse of [`join`] for a shared part of rank `rank`: `(shared, private)`.
///
/// # Errors
/// [`FederatedError::Layout`] when a factor is not a matrix.
pub fn split(
    joined: &NamedTensors,
    rank: usize,
) -> Result<(NamedTensors, NamedTensors), FederatedError> {
    let (mut shared, mut private) = (NamedTensors::new(), NamedTensors::new());
    for t in joined.iter() {
        match (Factor::of(&t.name), t.shape.as_slice()) {
            (Factor::A, &[all, cols]) if all >= rank => {
                let (s, p) = t.values.split_at(rank * cols);
                shared.insert(&t.name, &[rank, cols], s.to_vec())?;
                private.insert(&t.name, &[all - rank, cols], p.to_vec())?;
            }
            (Factor::B, &[rows, all]) if all >= rank => {
                let part = |range: std::ops::Range<usize>| -> Vec<f32> {
                    let rows = t.values.chunks_exact(all.max(1));
                    rows.flat_map(|r| r[range.clone()].to_vec()).collect()
                };
                shared.insert(&t.name, &[rows, rank], part(0..rank))?;
                private.insert(&t.name, &[rows, all - rank], part(rank..all))?;
            }
            _ => shared.insert(&t.name, &t.shape, t.values.clone())?,
        }
    }
    Ok((shared, private))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::tuner::Method;

    fn tuner() -> Tuner {
        Tuner::new(fixture::network(16, 8, false), &Method::default(), 3).unwrap()
    }

    /// Distinct values everywhere.
    fn numbered(t: &NamedTensors, from: f32) -> NamedTensors {
        let values: Vec<f32> = (0..t.count()).map(|i| from + i as f32 / 8192.0).collect();
        t.unflatten(&values).unwrap()
    }

    #[test]
    fn joined_parts_come_apart_again_and_add_up_in_the_network() {
        let t = tuner();
        let shared = numbered(&t.initial(8, 0).unwrap(), 0.1);
        let private = numbered(&initial(&t, 3, 5).unwrap(), -0.2);
        let joined = join(&shared, &private).unwrap();
        assert_eq!(joined.get("layers.0.o.lora_b").unwrap().shape, [16, 11]);
        assert_eq!(joined.get("layers.0.o.lora_a").unwrap().shape, [11, 16]);
        let (s, p) = split(&joined, 8).unwrap();
        assert_eq!((s, p), (shared.clone(), private.clone()));
        // s (B A + B_k A_k), both at the shared adapter's scale.
        let none = NamedTensors::new();
        let change = |state: &NamedTensors| -> Vec<f64> {
            let n = t.network(state, &none).unwrap();
            let base: Vec<&[f32]> = t.base().parameters().map(|p| p.values).collect();
            let moved = n.parameters().nth(1).unwrap().values.to_vec();
            moved
                .iter()
                .zip(base[1])
                .map(|(a, b)| f64::from(a - b))
                .collect()
        };
        let alone = {
            let zero = shared.zeros_like();
            change(&join(&zero, &private).unwrap())
        };
        for ((both, s), p) in change(&joined).iter().zip(change(&shared)).zip(alone) {
            assert!((both - s - p).abs() < 1e-4 * (1.0 + both.abs()));
        }
        assert_eq!(join(&shared, &none).unwrap(), shared);
        assert!(join(&shared, &numbered(&none, 0.0)).is_ok());
        let mut wrong = NamedTensors::new();
        wrong
            .insert("layers.0.o.lora_a", &[3, 5], vec![0.0; 15])
            .unwrap();
        assert!(
            join(&shared, &wrong)
                .unwrap_err()
                .to_string()
                .contains("personal")
        );
    }

    #[test]
    fn a_fresh_private_part_changes_nothing_and_clients_begin_apart() {
        let t = tuner();
        let (a, b) = (initial(&t, 4, 0).unwrap(), initial(&t, 4, 1).unwrap());
        assert_ne!(a, b);
        assert_eq!(initial(&t, 4, 0).unwrap(), a);
        let shared = t.initial(8, 0).unwrap();
        let none = NamedTensors::new();
        let ids = [1u32, 2, 3];
        let logits = |s: &NamedTensors| t.network(s, &none).unwrap().logits(&ids, 3).unwrap();
        assert_eq!(logits(&join(&shared, &a).unwrap()), logits(&shared));
    }

    #[test]
    fn masks_leave_one_part_of_a_gradient() {
        let t = tuner();
        let shared = numbered(&t.initial(8, 0).unwrap(), 1.0);
        let private = numbered(&initial(&t, 3, 5).unwrap(), 1.0);
        let joined = join(&shared, &private).unwrap();
        let masked = |m: Moves| {
            let mut g = joined.clone();
            m.mask(&mut g);
            split(&g, 8).unwrap()
        };
        assert_eq!(masked(Moves::All), (shared.clone(), private.clone()));
        assert_eq!(
            masked(Moves::Shared(8)),
            (shared.clone(), private.zeros_like())
        );
        assert_eq!(masked(Moves::Private(8)), (shared.zeros_like(), private));
    }
}
