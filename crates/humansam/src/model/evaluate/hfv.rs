//! The layout of the HFV data set, for those who hold it: folders of videos, each with header-less CSV files
//! `file,label[,confidence]`, of which `test_4.csv` names the four classes and `test_2.csv` forged (0) and real (1).

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::metrics::{CLASSES, Scored, accuracy, auc, one_versus_rest};
use crate::class::Class;
use crate::error::{HumansamError, Result};

/// One video and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// The class; of a two-class list only whether it is real is known.
    pub label: Class,
    /// The third column, if there is one.
    pub confidence: Option<f64>,
}

/// A folder of videos.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// Its name: the generator's, with `_human_dim` taken off.
    pub name: String,
    /// The videos of `test_4.csv`.
    pub entries: Vec<Entry>,
}

/// The folders under `root`, or under `root/eval_data`, that hold a `test_4.csv`, in order of their names.
///
/// # Errors
/// When there are none, or a list is malformed or names an absent file.
pub fn read(root: &Path) -> Result<Vec<Folder>> {
    let inner = root.join("eval_data");
    let root = if inner.is_dir() { &inner } else { root };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(root).map_err(HumansamError::io("list", root))? {
        let folder = entry.map_err(HumansamError::io("list", root))?.path();
        let list = folder.join("test_4.csv");
        if list.is_file() {
            let name = folder
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            folders.push(Folder {
                name: name.trim_end_matches("_human_dim").to_owned(),
                entries: read_list(&list, &folder)?,
            });
        }
    }
    folders.sort_by(|a, b| a.name.cmp(&b.name));
    if folders.is_empty() {
        return Err(HumansamError::Malformed {
            path: root.to_owned(),
            message: "holds no folder with a test_4.csv; expected eval_data/<generator>/{*.mp4,test_4.csv}".to_owned(),
        });
    }
    Ok(folders)
}

/// Reads one list; names are relative to `folder`.
///
/// # Errors
/// When a line is not `file,label[,confidence]` or its file is absent.
pub fn read_list(list: &Path, folder: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(list).map_err(HumansamError::io("read", list))?;
    let mut entries = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty())
    {
        let bad = |what: String| HumansamError::Malformed {
            path: list.to_owned(),
            message: format!(
                "line {}: {what}; expected file,label[,confidence] with label 0 to 3",
                number + 1
            ),
        };
        // Names may hold commas; labels and confidences do not.
        let fields: Vec<&str> = line.trim().rsplitn(3, ',').collect();
        let number_of = |s: &str| s.trim().parse::<f64>().ok();
        let label_of = |s: &str| s.trim().parse::<usize>().ok().and_then(Class::from_label);
        let (name, label, confidence) = match fields[..] {
            [c, l, n] if label_of(l).is_some() && number_of(c).is_some() => {
                (n.to_owned(), label_of(l), number_of(c))
            }
            [l, n] => (n.to_owned(), label_of(l), None),
            // The second field is part of the name.
            [l, m, n] => (format!("{n},{m}"), label_of(l), None),
            _ => (String::new(), None, None),
        };
        let label = label.ok_or_else(|| bad(format!("\"{line}\" has no label")))?;
        if name.is_empty() {
            return Err(bad(format!("\"{line}\" names no file")));
        }
        let file = Path::new(&name);
        let path = if folder.join(file).is_file() {
            folder.join(file)
        } else {
            folder.join(file.file_name().unwrap_or_default())
        };
        if !path.is_file() {
            return Err(bad(format!("{} does not exist", path.display())));
        }
        entries.push(Entry {
            path,
            label,
            confidence,
        });
    }
    Ok(entries)
}

/// One column of the paper's two tables: a generator, and accuracy and area in per cent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    /// The generator, or `Avg`.
    pub generator: String,
    /// Clips judged.
    pub clips: usize,
    /// Four classes: accuracy.
    pub accuracy_4: f64,
    /// Four classes: mean one-versus-rest area.
    pub auc_4: f64,
    /// Forged or real: accuracy, the three kinds merged.
    pub accuracy_2: f64,
    /// Forged or real: area of the probability of "real".
    pub auc_2: f64,
}

/// The columns of the paper's tables 2 and 4 from scored clips, with the mean of the columns at the end.
pub fn columns(folders: &[(String, Vec<Scored>)]) -> Vec<Column> {
    let mut out: Vec<Column> = folders
        .iter()
        .map(|(name, s)| {
            let real = CLASSES - 1;
            let right = s
                .iter()
                .filter(|s| (s.best() == Class::Real) == (s.label == Class::Real))
                .count();
            let pairs: Vec<(f64, bool)> = s
                .iter()
                .map(|s| (s.probabilities[real], s.label == Class::Real))
                .collect();
            Column {
                generator: name.clone(),
                clips: s.len(),
                accuracy_4: 100.0 * accuracy(s),
                auc_4: 100.0 * one_versus_rest(s),
                accuracy_2: 100.0 * right as f64 / s.len().max(1) as f64,
                auc_2: 100.0 * auc(&pairs),
            }
        })
        .collect();
    let mean =
        |f: &dyn Fn(&Column) -> f64| out.iter().map(f).sum::<f64>() / out.len().max(1) as f64;
    let average = Column {
        generator: "Avg".to_owned(),
        clips: out.iter().map(|c| c.clips).sum(),
        accuracy_4: mean(&|c| c.accuracy_4),
        auc_4: mean(&|c| c.auc_4),
        accuracy_2: mean(&|c| c.accuracy_2),
        auc_2: mean(&|c| c.auc_2),
    };
    out.push(average);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_folder_of_that_layout_is_read_and_averaged() {
        let dir = tempfile::tempdir().unwrap();
        for (g, list) in [
            ("kling_human_dim", "a.mp4,0\nb, c.mp4,3,0.25\n"),
            ("gen2_human_dim", "videos/a.mp4,2\n\n"),
        ] {
            let f = dir.path().join("eval_data").join(g);
            std::fs::create_dir_all(&f).unwrap();
            for v in ["a.mp4", "b, c.mp4"] {
                std::fs::write(f.join(v), b"").unwrap();
            }
            std::fs::write(f.join("test_4.csv"), list).unwrap();
        }
        let folders = read(dir.path()).unwrap();
        assert_eq!(
            folders.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
            ["gen2", "kling"]
        );
        assert_eq!(folders[1].entries[1].label, Class::Real);
        assert_eq!(folders[1].entries[1].confidence, Some(0.25));
        assert!(folders[1].entries[1].path.ends_with("b, c.mp4"));
        let s = |p: [f64; 4], label| Scored {
            probabilities: p,
            label,
        };
        let scored = vec![
            (
                "x".to_owned(),
                vec![
                    s([0.7, 0.1, 0.1, 0.1], Class::Spatial),
                    s([0.1, 0.1, 0.1, 0.7], Class::Real),
                ],
            ),
            (
                "y".to_owned(),
                vec![
                    s([0.7, 0.1, 0.1, 0.1], Class::Appearance),
                    s([0.6, 0.1, 0.1, 0.2], Class::Real),
                ],
            ),
        ];
        let c = columns(&scored);
        assert_eq!(
            (c[0].accuracy_4, c[0].accuracy_2, c[0].auc_2),
            (50.0, 100.0, 100.0)
        );
        assert_eq!(
            (c[2].generator.as_str(), c[2].accuracy_4, c[2].accuracy_2),
            ("Avg", 50.0, 75.0)
        );
        assert!(read(&dir.path().join("eval_data").join("kling_human_dim")).is_err());
    }

    proptest! {
        #[test]
        fn lists_never_panic(text in "[a-c,0-9. \n\"]{0,60}") {
            let dir = tempfile::tempdir().unwrap();
            let list = dir.path().join("l.csv");
            std::fs::write(&list, text).unwrap();
            let _ = read_list(&list, dir.path());
        }
    }
}
