//! Tables of features: what `tacit inspect head --features` writes of a party's videos, and `tacit federate run` trains the head on.
//!
//! A table holds one row a video: the joined feature `[video; depth]` of the window that looks least real to the model, the class, and the three prior
//! scores. No picture, no name of a file. It stays with its party.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tacit_federated::NamedTensors;
use tacit_humansam::Class;
use tacit_humansam::generator::Setting;
use tacit_humansam::model::evaluate::extract::{Selection, Treatment, prepare};
use tacit_humansam::model::native::NativeModel;
use tacit_humansam::model::native::data::Split;
use tacit_humansam::model::native::head::Features;
use tacit_humansam::model::rce::PriorScores;
use tacit_humansam::video;

use super::failure;
use super::look::wanted;
use crate::exit::{Failure, Kind, Outcome};
use crate::interrupt;
use crate::progress::Display;

const FORMAT: &str = "tacit-head-table-1";

/// Features, labels and prior scores of a party's videos.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Numbers of a row.
    width: usize,
    /// Rows one after the other.
    features: Vec<f32>,
    /// Classes.
    pub labels: Vec<Class>,
    /// Prior scores.
    pub priors: Vec<PriorScores>,
    /// Hash of the branches that made the features.
    branches: String,
}

/// Identifies the branches of a model: features of others mean something else.
///
/// # Errors
/// When a tensor cannot be read.
pub fn branches(model: &NativeModel) -> Outcome<String> {
    let mut names: Vec<&String> = model.network().tensors().keys().collect();
    names.sort();
    let mut all = NamedTensors::new();
    for name in names {
        let t = &model.network().tensors()[name];
        let values = t
            .flatten_all()
            .and_then(|t| t.to_vec1::<f32>())
            .map_err(|e| failure(e.into()))?;
        all.insert(name, t.dims(), values).map_err(foreign)?;
    }
    Ok(all.content_hash().to_hex().to_string())
}

fn foreign(e: tacit_federated::FederatedError) -> Failure {
    Failure::new(Kind::Input, e.to_string())
}

impl Table {
    /// A table without rows for a model's features.
    ///
    /// # Errors
    /// As [`branches`].
    pub fn of(model: &NativeModel) -> Outcome<Self> {
        Ok(Self {
            width: model.head().width(),
            branches: branches(model)?,
            ..Self::default()
        })
    }

    /// Number of videos.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.features.chunks_exact(self.width.max(1))
    }

    fn push(&mut self, features: &Features, label: Class, priors: PriorScores) {
        self.features.extend(features.joined());
        self.labels.push(label);
        self.priors.push(priors);
    }

    /// Writes the table.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, file: &Path) -> Outcome {
        let n = self.len();
        let labels = self.labels.iter().map(|l| l.label() as f32).collect();
        let priors = self.priors.iter().flatten().map(|v| *v as f32).collect();
        let mut t = NamedTensors::new();
        t.insert("features", &[n, self.width], self.features.clone())
            .map_err(foreign)?;
        t.insert("labels", &[n], labels).map_err(foreign)?;
        t.insert("priors", &[n, 3], priors).map_err(foreign)?;
        let meta = [
            ("format".to_owned(), FORMAT.to_owned()),
            ("branches".to_owned(), self.branches.clone()),
        ];
        t.save(file, &meta).map_err(foreign)
    }

    /// Reads a table.
    ///
    /// # Errors
    /// When the file is not such a table.
    pub fn load(file: &Path) -> Outcome<Self> {
        let (t, meta) = NamedTensors::load(file).map_err(foreign)?;
        let bad = |what: &str| {
            Failure::input(format!(
                "{}: {what}; `tacit inspect head --features` makes tables of features",
                file.display()
            ))
        };
        if meta.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(bad("is not a table of features"));
        }
        let get = |name: &str| t.get(name).ok_or_else(|| bad(&format!("has no `{name}`")));
        let (features, labels, priors) = (get("features")?, get("labels")?, get("priors")?);
        let n = labels.values.len();
        let (&[rows, width], true) = (features.shape.as_slice(), priors.shape == [n, 3]) else {
            return Err(bad("its tensors do not have the shapes of a table"));
        };
        if rows != n || t.flatten().iter().any(|v| !v.is_finite()) {
            return Err(bad("does not hold one finite row a label"));
        }
        let class = |v: &f32| {
            (v.fract() == 0.0 && *v >= 0.0)
                .then(|| Class::from_label(*v as usize))
                .flatten()
                .ok_or_else(|| bad(&format!("has a label {v}, which is no class")))
        };
        Ok(Self {
            width,
            features: features.values.clone(),
            labels: labels.values.iter().map(class).collect::<Outcome<_>>()?,
            priors: priors
                .values
                .chunks_exact(3)
                .map(|p| std::array::from_fn(|k| f64::from(p[k])))
                .collect(),
            branches: meta.get("branches").cloned().unwrap_or_default(),
        })
    }

    /// Checks that the features were made by these branches.
    ///
    /// # Errors
    /// [`Kind::Mismatch`] when they were made by others.
    pub fn check_branches(&self, branches: &str, file: &Path) -> Outcome {
        if self.branches == branches {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Mismatch,
            format!(
                "{}: its features were made by another model's branches than the head's; make it again with --model",
                file.display()
            ),
        ))
    }
}

/// Renders clips of motions and operators that training sees, at one place where that is given, and makes their table.
///
/// # Errors
/// When rendering or looking fails.
pub fn of_generated(
    model: &NativeModel,
    clips: usize,
    seed: u64,
    place: Option<Setting>,
    display: Display,
) -> Outcome<Table> {
    let selection = Selection {
        split: Split::Head,
        held_out_scenes: false,
        held_out_operators: false,
        count: clips,
        place,
    };
    let bar = display.pieces("rendering and looking", clips as u64);
    let as_it_is = |clip: &tacit_humansam::Clip, _: u8| Ok(clip.clone());
    let seen = (0..clips)
        .into_par_iter()
        .map(|i| {
            interrupt::check()?;
            let s = prepare(&selection, seed, i, Treatment::None, &as_it_is)
                .and_then(|p| p.seen(model.network()))
                .map_err(failure)?;
            bar.inc(1);
            Ok(s)
        })
        .collect::<Outcome<Vec<_>>>()?;
    bar.finish_and_clear();
    let mut table = Table::of(model)?;
    for s in &seen {
        table.push(&s.window.features, s.label, s.window.priors.scores);
    }
    Ok(table)
}

/// The table of a folder of videos whose `labels.csv` says `file,label` (0 appearance, 1 spatial, 2 motion, 3 real), and the videos that the model does not
/// judge, which are left out.
///
/// # Errors
/// When the list or a video cannot be read.
pub fn of_videos(
    model: &NativeModel,
    folder: &Path,
    display: Display,
) -> Outcome<(Table, Vec<PathBuf>)> {
    let list = folder.join("labels.csv");
    let text = std::fs::read_to_string(&list)
        .map_err(|e| Failure::input(format!("cannot read {}: {e}", list.display())))?;
    let mut videos = Vec::new();
    for (i, line) in text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty())
    {
        let entry = line.rsplit_once(',').and_then(|(file, label)| {
            let class = Class::from_label(label.trim().parse().ok()?)?;
            Some((folder.join(file.trim()), class))
        });
        videos.push(entry.ok_or_else(|| {
            Failure::input(format!(
                "{}, line {}: expected file,label with a label of 0 to 3, found \"{line}\"",
                list.display(),
                i + 1
            ))
        })?);
    }
    let bar = display.pieces("looking", videos.len() as u64);
    let mut table = Table::of(model)?;
    let mut left_out = Vec::new();
    for (file, class) in videos {
        interrupt::check()?;
        let decoded = video::read(&file, &wanted(20.0)).map_err(failure)?;
        let seen = model.inspect(&decoded.clip).map_err(failure)?;
        let mut least: Option<(f64, usize)> = None;
        for (w, f) in seen.features.iter().enumerate() {
            let z = model.logits(f).map_err(failure)?;
            let real = z[Class::Real.label()] - z.iter().take(3).copied().fold(f64::MIN, f64::max);
            if least.is_none_or(|(r, _)| real < r) {
                least = Some((real, w));
            }
        }
        match least {
            Some((_, w)) => table.push(&seen.features[w], class, seen.priors[w]),
            None => left_out.push(file),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((table, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::look::open_model;

    #[test]
    fn a_table_survives_its_file_and_others_are_refused() {
        let model = open_model(None).unwrap();
        let mut table = Table::of(&model).unwrap();
        let width = model.head().width();
        for i in 0..5 {
            let f = Features {
                video: (0..width - 128).map(|j| (i * j) as f32 * 0.25).collect(),
                depth: vec![i as f32; 128],
            };
            table.push(&f, Class::ALL[i % 4], [i as f64, 0.5, 0.25]);
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("table.safetensors");
        table.save(&file).unwrap();
        let back = Table::load(&file).unwrap();
        assert_eq!(back, table);
        assert_eq!(back.rows().count(), 5);
        let own = branches(&model).unwrap();
        assert!(back.check_branches(&own, &file).is_ok());
        assert!(back.check_branches("others", &file).is_err());
        let mut wrong = table.clone();
        wrong.priors.pop();
        assert!(wrong.save(&file).is_err());
        let mut other = NamedTensors::new();
        other.insert("features", &[1], vec![0.0]).unwrap();
        other.save(&file, &[]).unwrap();
        assert!(
            Table::load(&file)
                .unwrap_err()
                .message
                .contains("not a table")
        );
    }
}
