//! What travels: an ordered list of named `f32` tensors.
//!
//! The order is that of insertion; it is part of the identity (hash, flat form, file), so that two parties that build a list the
//! same way agree on the position of every coordinate in the flat vector that is masked, encrypted or quantised.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::FederatedError;

/// Key of the safetensors metadata entry that keeps the order of names.
const ORDER: &str = "tacit.order";

/// One tensor: name, shape, values in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Its name, unique in the list.
    pub name: String,
    /// Sizes of its axes; their product is the number of values.
    pub shape: Vec<usize>,
    /// Values, last axis fastest.
    pub values: Vec<f32>,
}

/// An ordered list of named `f32` tensors: a model state, an update, a gradient.
///
/// ```
/// use tacit_federated::NamedTensors;
/// let mut t = NamedTensors::new();
/// t.insert("a", &[2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
/// t.insert("b", &[1], vec![5.0]).unwrap();
/// let mut flat = t.flatten();
/// flat[4] = 7.0;
/// let u = t.unflatten(&flat).unwrap();
/// assert_eq!(u.get("b").unwrap().values, [7.0]);
/// assert_ne!(t.content_hash(), u.content_hash());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedTensors {
    tensors: Vec<NamedTensor>,
}

impl NamedTensors {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a tensor.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when the name is taken or the number of values is not the product of the shape.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        values: Vec<f32>,
    ) -> Result<(), FederatedError> {
        let name = name.into();
        let wrong = |expected: String, found: String| FederatedError::Layout {
            what: "adding a tensor".into(),
            tensor: name.clone(),
            expected,
            found,
            remedy: "give every tensor its own name and as many values as its shape says".into(),
        };
        if self.get(&name).is_some() {
            return Err(wrong("a new name".into(), "one that is in the list".into()));
        }
        match shape
            .iter()
            .try_fold(1usize, |n, &axis| n.checked_mul(axis))
        {
            Some(n) if n == values.len() => {}
            _ => {
                return Err(wrong(
                    format!("as many values as shape {shape:?} has"),
                    format!("{} values", values.len()),
                ));
            }
        }
        self.tensors.push(NamedTensor {
            name,
            shape: shape.to_vec(),
            values,
        });
        Ok(())
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&NamedTensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// The values of the tensor called `name`, to change.
    pub fn values_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        self.tensors
            .iter_mut()
            .find(|t| t.name == name)
            .map(|t| t.values.as_mut_slice())
    }

    /// The tensors, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &NamedTensor> {
        self.tensors.iter()
    }

    /// The names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|t| t.name.as_str())
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Number of values in all tensors.
    pub fn count(&self) -> usize {
        self.tensors.iter().map(|t| t.values.len()).sum()
    }

    /// All values, tensor after tensor.
    pub fn flatten(&self) -> Vec<f32> {
        self.tensors
            .iter()
            .flat_map(|t| t.values.iter().copied())
            .collect()
    }

    /// Tensors of these names and shapes with the values of `flat`: the inverse of [`Self::flatten`].
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when `flat` has another length than [`Self::count`].
    pub fn unflatten(&self, flat: &[f32]) -> Result<Self, FederatedError> {
        if flat.len() != self.count() {
            return Err(FederatedError::Layout {
                what: "taking tensors from a flat vector".into(),
                tensor: self.names().next().unwrap_or("none").into(),
                expected: format!("{} values", self.count()),
                found: format!("{} values", flat.len()),
                remedy: "both ends must use the same model and adapter settings".into(),
            });
        }
        let mut rest = flat;
        let tensors = self
            .tensors
            .iter()
            .map(|t| {
                let (values, behind) = rest.split_at(t.values.len());
                rest = behind;
                NamedTensor {
                    name: t.name.clone(),
                    shape: t.shape.clone(),
                    values: values.to_vec(),
                }
            })
            .collect();
        Ok(Self { tensors })
    }

    /// The same names and shapes with all values 0.
    pub fn zeros_like(&self) -> Self {
        self.map(|_| 0.0)
    }

    /// The same names and shapes with `f` of every value.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        Self {
            tensors: self
                .tensors
                .iter()
                .map(|t| NamedTensor {
                    name: t.name.clone(),
                    shape: t.shape.clone(),
                    values: t.values.iter().map(|&v| f(v)).collect(),
                })
                .collect(),
        }
    }

    /// Checks that `other` has the same names and shapes in the same order.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] naming the first difference; `what` says what was being done.
    pub fn check_layout(&self, other: &Self, what: &str) -> Result<(), FederatedError> {
        let tell = |t: Option<&NamedTensor>| {
            t.map_or_else(
                || "no further tensor".to_owned(),
                |t| format!("`{}` {:?}", t.name, t.shape),
            )
        };
        for i in 0..self.len().max(other.len()) {
            let (a, b) = (self.tensors.get(i), other.tensors.get(i));
            if a.map(|t| (&t.name, &t.shape)) != b.map(|t| (&t.name, &t.shape)) {
                return Err(FederatedError::Layout {
                    what: what.into(),
                    tensor: a.or(b).map_or_else(String::new, |t| t.name.clone()),
                    expected: tell(a),
                    found: tell(b),
                    remedy: "both ends must use the same model and adapter settings".into(),
                });
            }
        }
        Ok(())
    }

    /// `self += factor * other`.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when names or shapes differ.
    pub fn axpy(&mut self, factor: f32, other: &Self) -> Result<(), FederatedError> {
        self.check_layout(other, "adding tensors")?;
        for (a, b) in self.tensors.iter_mut().zip(&other.tensors) {
            for (x, y) in a.values.iter_mut().zip(&b.values) {
                *x += factor * y;
            }
        }
        Ok(())
    }

    /// `self - other`.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when names or shapes differ.
    pub fn difference(&self, other: &Self) -> Result<Self, FederatedError> {
        let mut d = self.clone();
        d.axpy(-1.0, other)?;
        Ok(d)
    }

    /// Multiplies every value by `factor`.
    pub fn scale(&mut self, factor: f32) {
        for t in &mut self.tensors {
            t.values.iter_mut().for_each(|v| *v *= factor);
        }
    }

    /// Euclidean norm over all values, summed in `f64`.
    pub fn norm(&self) -> f64 {
        self.tensors
            .iter()
            .flat_map(|t| &t.values)
            .map(|&v| f64::from(v) * f64::from(v))
            .sum::<f64>()
            .sqrt()
    }

    /// Checks that every value is finite.
    ///
    /// # Errors
    /// [`FederatedError::NotFinite`] naming the tensor; `what` says whose values they are.
    pub fn check_finite(&self, what: &str) -> Result<(), FederatedError> {
        for t in &self.tensors {
            if let Some(v) = t.values.iter().find(|v| !v.is_finite()) {
                return Err(FederatedError::NotFinite {
                    place: format!("{what}, tensor `{}`", t.name),
                    value: f64::from(*v),
                    remedy: "leave this update out, or lower the learning rate".into(),
                });
            }
        }
        Ok(())
    }

    /// BLAKE3 of names, shapes and the bits of all values, in order: equal for equal lists on every machine.
    pub fn content_hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"tacit named tensors 1");
        let number = |hasher: &mut blake3::Hasher, n: usize| {
            hasher.update(&(n as u64).to_le_bytes());
        };
        number(&mut hasher, self.len());
        let mut bytes = Vec::new();
        for t in &self.tensors {
            number(&mut hasher, t.name.len());
            hasher.update(t.name.as_bytes());
            number(&mut hasher, t.shape.len());
            for &axis in &t.shape {
                number(&mut hasher, axis);
            }
            bytes.clear();
            bytes.extend(t.values.iter().flat_map(|v| v.to_le_bytes()));
            hasher.update(&bytes);
        }
        hasher.finalize()
    }

    /// The bytes of a safetensors file, with `metadata` beside the order of names.
    ///
    /// # Errors
    /// [`FederatedError::Format`] when the library refuses.
    pub fn to_safetensors(&self, metadata: &[(String, String)]) -> Result<Vec<u8>, FederatedError> {
        let failed = |e: &dyn std::fmt::Display| {
            FederatedError::format("safetensors", e.to_string(), "report this")
        };
        let data: Vec<Vec<u8>> = self
            .tensors
            .iter()
            .map(|t| t.values.iter().flat_map(|v| v.to_le_bytes()).collect())
            .collect();
        let mut views = Vec::with_capacity(self.len());
        for (t, d) in self.tensors.iter().zip(&data) {
            let view = TensorView::new(Dtype::F32, t.shape.clone(), d).map_err(|e| failed(&e))?;
            views.push((t.name.as_str(), view));
        }
        let mut all: HashMap<String, String> = metadata.iter().cloned().collect();
        let order: Vec<&str> = self.names().collect();
        all.insert(ORDER.into(), order.join("\n"));
        safetensors::serialize(views, Some(all)).map_err(|e| failed(&e))
    }

    /// Reads what [`Self::to_safetensors`] wrote, or any safetensors file of `F32` tensors (then in order of name). `origin` names
    /// the bytes in errors. Also returns the metadata.
    ///
    /// # Errors
    /// [`FederatedError::Format`] when the bytes are not such a file.
    pub fn from_safetensors(
        bytes: &[u8],
        origin: &str,
    ) -> Result<(Self, HashMap<String, String>), FederatedError> {
        let bad = |problem: String| {
            FederatedError::format(
                origin,
                problem,
                "expected a safetensors file of F32 tensors as `tacit federate` writes it",
            )
        };
        let (_, header) =
            SafeTensors::read_metadata(bytes).map_err(|e| bad(format!("not safetensors: {e}")))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
        let mut metadata = header.metadata().clone().unwrap_or_default();
        let mut names: Vec<String> = file.names().iter().map(|&n| n.to_owned()).collect();
        names.sort_unstable();
        if let Some(order) = metadata.remove(ORDER) {
            let order: Vec<String> = if names.is_empty() {
                Vec::new()
            } else {
                order.split('\n').map(str::to_owned).collect()
            };
            let listed: HashSet<&String> = order.iter().collect();
            if order.len() != names.len() || !names.iter().all(|n| listed.contains(n)) {
                return Err(bad("its list of names is not that of its tensors".into()));
            }
            names = order;
        }
        let mut out = Self::new();
        for name in names {
            let t = file
                .tensor(&name)
                .map_err(|e| bad(format!("tensor `{name}`: {e}")))?;
            if t.dtype() != Dtype::F32 {
                return Err(bad(format!("tensor `{name}` is {:?}", t.dtype())));
            }
            let values = t
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect();
            out.insert(name, t.shape(), values)?;
        }
        Ok((out, metadata))
    }

    /// Writes a safetensors file by way of a temporary one beside it, so that `path` is always whole.
    ///
    /// # Errors
    /// [`FederatedError::Io`] when it cannot be written.
    pub fn save(&self, path: &Path, metadata: &[(String, String)]) -> Result<(), FederatedError> {
        write_atomically(path, &self.to_safetensors(metadata)?)
    }

    /// Reads a file written by [`Self::save`].
    ///
    /// # Errors
    /// [`FederatedError::Io`] and [`FederatedError::Format`].
    pub fn load(path: &Path) -> Result<(Self, HashMap<String, String>), FederatedError> {
        let bytes = std::fs::read(path).map_err(|e| FederatedError::io(path, e))?;
        Self::from_safetensors(&bytes, &path.display().to_string())
    }
}

/// Writes `path` so that a reader sees the old content or the new one, also after a crash: a file beside it, flushed to the disk,
/// then renamed.
///
/// # Errors
/// [`FederatedError::Io`] when it cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FederatedError> {
    use std::io::Write;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|e| FederatedError::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> NamedTensors {
        let mut t = NamedTensors::new();
        t.insert(
            "z",
            &[2, 3],
            vec![1.0, -2.0, 3.0, f32::MIN_POSITIVE, -0.0, 6.5],
        )
        .unwrap();
        t.insert("a", &[], vec![4.0]).unwrap();
        t.insert("empty", &[0, 5], vec![]).unwrap();
        t
    }

    #[test]
    fn files_keep_order_shapes_bits_and_metadata() {
        let t = sample();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        t.save(&path, &[("round".into(), "3".into())]).unwrap();
        let (u, meta) = NamedTensors::load(&path).unwrap();
        assert_eq!(t, u);
        assert_eq!(t.content_hash(), u.content_hash());
        assert_eq!(meta.get("round").unwrap(), "3");
        assert_eq!(u.names().collect::<Vec<_>>(), ["z", "a", "empty"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_hash_sees_names_shapes_order_and_single_bits() {
        let t = sample();
        let mut seen = vec![t.content_hash()];
        let mut bit = t.clone();
        bit.values_mut("z").unwrap()[4] = 0.0;
        seen.push(bit.content_hash());
        let mut shape = NamedTensors::new();
        shape
            .insert("z", &[3, 2], t.get("z").unwrap().values.clone())
            .unwrap();
        shape.insert("a", &[], vec![4.0]).unwrap();
        shape.insert("empty", &[0, 5], vec![]).unwrap();
        seen.push(shape.content_hash());
        let mut order = NamedTensors::new();
        for name in ["a", "z", "empty"] {
            let x = t.get(name).unwrap();
            order.insert(name, &x.shape, x.values.clone()).unwrap();
        }
        seen.push(order.content_hash());
        for i in 0..seen.len() {
            assert!(!seen[..i].contains(&seen[i]), "{i}");
        }
    }

    #[test]
    fn wrong_layouts_are_named() {
        let mut t = sample();
        assert!(t.insert("a", &[1], vec![0.0]).is_err());
        assert!(t.insert("b", &[2], vec![0.0]).is_err());
        assert!(t.insert("c", &[usize::MAX, 2], vec![]).is_err());
        let mut u = sample();
        u.insert("more", &[1], vec![1.0]).unwrap();
        let message = t.axpy(1.0, &u).unwrap_err().to_string();
        assert!(message.contains("`more`"), "{message}");
        assert!(t.unflatten(&[0.0; 6]).is_err());
        t.values_mut("a").unwrap()[0] = f32::NAN;
        assert!(t.check_finite("x").unwrap_err().to_string().contains("`a`"));
    }

    proptest! {
        #[test]
        fn algebra_agrees_with_flat_vectors(xs in prop::collection::vec(-10f32..10.0, 12), k in -3f32..3.0) {
            let mut t = NamedTensors::new();
            t.insert("a", &[2, 4], xs[..8].to_vec()).unwrap();
            t.insert("b", &[4], xs[8..].to_vec()).unwrap();
            prop_assert_eq!(t.flatten(), xs.clone());
            let mut u = t.unflatten(&xs.iter().rev().copied().collect::<Vec<_>>()).unwrap();
            u.axpy(k, &t).unwrap();
            for (i, v) in u.flatten().into_iter().enumerate() {
                prop_assert_eq!(v, xs[11 - i] + k * xs[i]);
            }
            let norm = xs.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            prop_assert!((t.norm() - norm).abs() < 1e-9);
            prop_assert_eq!(t.difference(&t).unwrap(), t.zeros_like().map(|_| 0.0));
        }

        #[test]
        fn outside_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let _ = NamedTensors::from_safetensors(&bytes, "fuzz");
            let mut file = sample().to_safetensors(&[]).unwrap();
            let i = at.index(file.len());
            file[i] = to;
            let _ = NamedTensors::from_safetensors(&file, "fuzz");
        }
    }
}
