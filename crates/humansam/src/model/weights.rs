//! Named tensors: strict loading of safetensors and PyTorch files, and synthetic weights of the same layout.
//!
//! A model states its [`Layout`] (every tensor's name and shape). Loading compares the file with it *before* anything runs and
//! reports all differences at once, so that a checkpoint of another size or another number of classes is an error that names
//! its tensors, never a partly random network.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::error::{HumansamError, Result};

/// Names listed of each kind of difference before the message says "and … more".
const LISTED: usize = 6;

/// The tensors a model is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    tensors: BTreeMap<String, Vec<usize>>,
    ignored: Vec<String>,
}

impl Layout {
    /// Adds a tensor.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.tensors.insert(name.into(), shape.to_vec());
    }

    /// Adds `name.weight` and `name.bias` of a linear map or convolution; the bias is as long as the weight's first dimension.
    pub fn linear(&mut self, name: &str, shape: &[usize]) {
        self.add(format!("{name}.weight"), shape);
        self.add(format!("{name}.bias"), &shape[..1]);
    }

    /// Adds `name.weight` and `name.bias` of a LayerNorm over `d` values.
    pub fn layer_norm(&mut self, name: &str, d: usize) {
        self.add(format!("{name}.weight"), &[d]);
        self.add(format!("{name}.bias"), &[d]);
    }

    /// Tensors that a checkpoint may hold although this model never reads them: names that start or end with `pattern`.
    pub fn ignore(&mut self, pattern: &str) {
        self.ignored.push(pattern.to_owned());
    }

    /// Adds another layout's tensors under a prefix.
    pub fn nest(&mut self, prefix: &str, inner: &Layout) {
        for (name, shape) in &inner.tensors {
            self.add(format!("{prefix}{name}"), shape);
        }
        for pattern in &inner.ignored {
            let nested = if pattern.starts_with('.') {
                pattern.clone()
            } else {
                format!("{prefix}{pattern}")
            };
            self.ignored.push(nested);
        }
    }

    /// Names and shapes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(n, s)| (n.as_str(), s.as_slice()))
    }

    /// Number of values in all tensors.
    pub fn parameters(&self) -> usize {
        self.tensors
            .values()
            .map(|s| s.iter().product::<usize>())
            .sum()
    }

    fn is_ignored(&self, name: &str) -> bool {
        self.ignored.iter().any(|p| {
            name.starts_with(p.as_str()) || (p.starts_with('.') && name.ends_with(p.as_str()))
        })
    }
}

/// Tensors read from a file or made up, exactly those of a [`Layout`].
#[derive(Clone, Debug)]
pub struct Weights {
    source: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl Weights {
    /// Reads a `.safetensors` file, or a PyTorch file (`.pth`, `.pt`, `.bin`; with the tensors at its top or under `model`,
    /// `module` or `state_dict`), as 32-bit floats, and requires exactly the tensors of `layout`.
    ///
    /// # Errors
    /// [`HumansamError::Weights`] for a file that is not readable as either, or lists every missing, unexpected and mis-shaped
    /// tensor.
    pub fn open(path: &Path, layout: &Layout) -> Result<Self> {
        let tensors = read_tensors(path)?;
        Self::check(path, tensors, layout)
    }

    /// Takes tensors as they are, requiring exactly those of `layout`; `source` appears in messages.
    ///
    /// # Errors
    /// As for [`Weights::open`].
    pub fn check(source: &Path, tensors: HashMap<String, Tensor>, layout: &Layout) -> Result<Self> {
        let mut missing = Vec::new();
        let mut shapes = Vec::new();
        for (name, shape) in layout.tensors() {
            match tensors.get(name) {
                None => missing.push(name.to_owned()),
                Some(t) if t.dims() != shape => {
                    shapes.push(format!("{name} {:?} instead of {shape:?}", t.dims()))
                }
                Some(_) => {}
            }
        }
        let mut unexpected: Vec<String> = tensors
            .keys()
            .filter(|n| !layout.tensors.contains_key(*n) && !layout.is_ignored(n))
            .cloned()
            .collect();
        unexpected.sort_unstable();
        let mut parts = Vec::new();
        for (what, names) in [
            ("missing", &missing),
            ("unexpected", &unexpected),
            ("of another shape", &shapes),
        ] {
            if !names.is_empty() {
                let more = names.len().saturating_sub(LISTED);
                let tail = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                parts.push(format!(
                    "{} {what}: {}{tail}",
                    names.len(),
                    names[..names.len().min(LISTED)].join(", ")
                ));
            }
        }
        if !parts.is_empty() {
            return Err(HumansamError::Weights {
                path: source.to_owned(),
                message: format!(
                    "does not hold this model's {} tensors ({}); is it a checkpoint of another size or another number of classes?",
                    layout.tensors.len(),
                    parts.join("; ")
                ),
            });
        }
        let tensors = tensors
            .into_iter()
            .filter(|(n, _)| layout.tensors.contains_key(n))
            .map(|(n, t)| Ok((n, t.to_dtype(DType::F32)?)))
            .collect::<Result<_>>()?;
        Ok(Self {
            source: source.to_owned(),
            tensors,
        })
    }

    /// Made-up weights of the right shapes, the same for the same seed: uniform with the variance of common initialisations
    /// (`1/fan-in` for matrices), norms' gains near 1, variances positive. For tests and measurements of speed.
    pub fn synthetic(layout: &Layout, seed: u64) -> Result<Self> {
        let mut tensors = HashMap::new();
        for (i, (name, shape)) in layout.tensors().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(i as u64);
            let n: usize = shape.iter().product();
            let fan_in: usize = shape.iter().skip(1).product::<usize>().max(1);
            let gain = name.contains("norm") && name.ends_with("weight");
            let (middle, spread) = match () {
                () if name.ends_with("running_var") || gain => (1.0, 0.3),
                () if name.ends_with("gamma") || name.ends_with("lambda1") => (0.5, 0.3),
                () if shape.len() > 1 => (0.0, (3.0 / fan_in as f64).sqrt()),
                () => (0.0, 0.1),
            };
            let data: Vec<f32> = (0..n)
                .map(|_| {
                    (middle
                        + spread * (2.0 * f64::from(rng.next_u32()) / f64::from(u32::MAX) - 1.0))
                        as f32
                })
                .collect();
            tensors.insert(
                name.to_owned(),
                Tensor::from_vec(data, shape, &Device::Cpu)?,
            );
        }
        Ok(Self {
            source: PathBuf::from("synthetic weights"),
            tensors,
        })
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// [`HumansamError::Weights`] when the layout did not have it.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        self.tensors
            .get(name)
            .cloned()
            .ok_or_else(|| HumansamError::Weights {
                path: self.source.clone(),
                message: format!("has no tensor {name}"),
            })
    }

    /// The tensors whose names start with `prefix`, without it.
    pub fn under(&self, prefix: &str) -> Self {
        let tensors = self
            .tensors
            .iter()
            .filter_map(|(n, t)| n.strip_prefix(prefix).map(|n| (n.to_owned(), t.clone())))
            .collect();
        Self {
            source: self.source.clone(),
            tensors,
        }
    }

    /// Names and tensors.
    pub fn tensors(&self) -> &HashMap<String, Tensor> {
        &self.tensors
    }

    /// Writes a safetensors file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        candle_core::safetensors::save(&self.tensors, path).map_err(|e| HumansamError::Weights {
            path: path.to_owned(),
            message: format!("cannot be written: {e}"),
        })
    }
}

pub(crate) fn read_tensors(path: &Path) -> Result<HashMap<String, Tensor>> {
    let bad = |message: String| HumansamError::Weights {
        path: path.to_owned(),
        message,
    };
    let file = std::fs::File::open(path).map_err(HumansamError::io("read", path))?;
    drop(file);
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or("")
        .to_ascii_lowercase();
    if extension == "safetensors" {
        return candle_core::safetensors::load(path, &Device::Cpu)
            .map_err(|e| bad(format!("is not a safetensors file: {e}")));
    }
    if !matches!(extension.as_str(), "pth" | "pt" | "bin") {
        return Err(bad(
            "has an unknown ending: expected .safetensors, .pth, .pt or .bin".to_owned(),
        ));
    }
    let mut last = String::new();
    for key in [Some("model"), Some("module"), Some("state_dict"), None] {
        match candle_core::pickle::read_all_with_key(path, key) {
            Ok(found) if !found.is_empty() => return Ok(found.into_iter().collect()),
            Ok(_) => last = "holds no tensors".to_owned(),
            Err(e) => last = e.to_string(),
        }
    }
    Err(bad(format!(
        "is not a PyTorch file of named tensors: {last}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let mut l = Layout::default();
        l.linear("head", &[4, 8]);
        l.add("norm.weight", &[8]);
        l.ignore("decoder.");
        l.ignore(".num_batches_tracked");
        l
    }

    #[test]
    fn all_differences_are_reported_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let mut t = Weights::synthetic(&layout(), 1).unwrap().tensors;
        Weights {
            source: path.clone(),
            tensors: t.clone(),
        }
        .save(&path)
        .unwrap();
        assert_eq!(Weights::open(&path, &layout()).unwrap().tensors.len(), 3);

        let zero = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        t.insert("decoder.x".into(), zero.clone());
        t.insert("a.num_batches_tracked".into(), zero.clone());
        assert!(Weights::check(&path, t.clone(), &layout()).is_ok());
        t.remove("norm.weight");
        t.insert("head.bias".into(), zero.clone());
        t.insert("surplus".into(), zero);
        let message = Weights::check(&path, t, &layout()).unwrap_err().to_string();
        for part in [
            "1 missing: norm.weight",
            "1 unexpected: surplus",
            "head.bias [3] instead of [4]",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn files_that_are_no_checkpoints_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.safetensors", "a.pth", "a.zip"] {
            let path = dir.path().join(name);
            std::fs::write(&path, b"not a checkpoint").unwrap();
            let message = Weights::open(&path, &layout()).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        assert!(Weights::open(&dir.path().join("absent.pth"), &layout()).is_err());
    }
}
