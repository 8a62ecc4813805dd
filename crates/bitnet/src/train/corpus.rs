//! Reading a folder of text or source files into training documents.
//!
//! | file | what is taken |
//! | --- | --- |
//! | `.rs` | documentation comments (`///`, `//!`); each run of comment lines is one document |
//! | `.rs.html` (rustdoc's source pages) | the same, after removing the markup |
//! | `.html` | the paragraphs and list items of `<main>` |
//! | `.md`, `.txt` | the whole file |
//!
//! Code blocks, tables, badges and link targets are dropped, wrapped lines are joined, and a paragraph that occurred anywhere
//! before is dropped. Documents belong to a *package* (the nearest folder with a `Cargo.toml`, else the first folder below the
//! root), and packages to a *family* (`regex-automata` and `regex-syntax` are both `regex`), so that validation text can be
//! taken from families that training never sees.

use super::TrainError;
use super::extract::paragraphs_of_file;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Files larger than this are skipped: generated tables, not prose.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// One document: a doc comment or a text file, as paragraphs joined by newlines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The package it comes from, e.g. `regex-automata-0.4.9`.
    pub package: String,
    /// Its text.
    pub text: String,
}

/// The documents of a set of folders.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    /// Documents in path order.
    pub documents: Vec<Document>,
}

impl Corpus {
    /// Reads every supported file below `roots`, in path order, without any path that contains one of `exclude`.
    ///
    /// # Errors
    /// [`TrainError::Io`] when a root cannot be read, [`TrainError::EmptyCorpus`] when nothing usable was found.
    pub fn read(roots: &[PathBuf], exclude: &[String]) -> Result<Self, TrainError> {
        let mut corpus = Self::default();
        let mut seen = HashSet::new();
        for root in roots {
            let mut files = Vec::new();
            let name = root
                .file_name()
                .map_or_else(|| "root".into(), |n| n.to_string_lossy().into_owned());
            let package = root.join("Cargo.toml").is_file().then(|| name.clone());
            walk(root, root, package.as_deref(), exclude, &mut files)?;
            for (package, path) in files {
                let Ok(bytes) = std::fs::read(&path) else {
                    continue;
                };
                let text = String::from_utf8_lossy(&bytes);
                let package = if package.is_empty() {
                    name.clone()
                } else {
                    package
                };
                for paragraphs in paragraphs_of_file(&path, &text) {
                    corpus.push(&package, paragraphs, &mut seen);
                }
            }
        }
        if corpus.documents.is_empty() {
            return Err(TrainError::EmptyCorpus {
                roots: roots.to_vec(),
            });
        }
        Ok(corpus)
    }

    fn push(&mut self, package: &str, paragraphs: Vec<String>, seen: &mut HashSet<u64>) {
        let mut kept: Vec<String> = Vec::new();
        for p in paragraphs {
            if is_heading(&p) {
                if kept.last().is_some_and(|l| is_heading(l)) {
                    kept.pop();
                }
                kept.push(p);
            } else if is_prose(&p) && seen.insert(fingerprint(&p)) {
                kept.push(p);
            }
        }
        if kept.last().is_some_and(|l| is_heading(l)) {
            kept.pop();
        }
        if kept.iter().any(|p| !is_heading(p)) {
            self.documents.push(Document {
                package: package.to_owned(),
                text: kept.join("\n"),
            });
        }
    }

    /// Number of characters in all documents.
    pub fn characters(&self) -> usize {
        self.documents.iter().map(|d| d.text.chars().count()).sum()
    }

    /// The packages with the number of bytes taken from each.
    pub fn packages(&self) -> BTreeMap<String, usize> {
        let mut map = BTreeMap::new();
        for d in &self.documents {
            *map.entry(d.package.clone()).or_insert(0) += d.text.len();
        }
        map
    }

    /// Splits into (training, validation): about `percent` % of the families go to validation, chosen by a hash of the name.
    pub fn split(self, percent: u64) -> (Self, Self) {
        let (mut train, mut valid) = (Self::default(), Self::default());
        for d in self.documents {
            let is_valid = fnv1a(family(&d.package).as_bytes()) % 100 < percent;
            if is_valid { &mut valid } else { &mut train }
                .documents
                .push(d);
        }
        (train, valid)
    }
}

/// The family of a package: its name without version, up to the first `-` or `_`.
pub fn family(package: &str) -> &str {
    package.split(['-', '_']).next().unwrap_or(package)
}

fn walk(
    root: &Path,
    dir: &Path,
    package: Option<&str>,
    exclude: &[String],
    out: &mut Vec<(String, PathBuf)>,
) -> Result<(), TrainError> {
    let mut entries: Vec<_> = std::fs::read_dir(dir)
        .and_then(|d| d.collect::<Result<Vec<_>, _>>())
        .map_err(|e| TrainError::io(dir, e))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        if exclude
            .iter()
            .any(|x| path.to_string_lossy().contains(x.as_str()))
        {
            continue;
        }
        if kind.is_dir() {
            if name.starts_with('.') || name == "target" {
                continue;
            }
            let own = if package.is_none() && (dir == root || path.join("Cargo.toml").is_file()) {
                Some(name.as_str())
            } else {
                package
            };
            // A registry's source folder holds one folder per index, and those hold the packages.
            let own = if own.is_some()
                && package.is_none()
                && !path.join("Cargo.toml").is_file()
                && holds_packages(&path)
            {
                None
            } else {
                own
            };
            walk(root, &path, own, exclude, out)?;
        } else if kind.is_file()
            && wanted(&name)
            && entry.metadata().is_ok_and(|m| m.len() <= MAX_FILE_BYTES)
        {
            out.push((package.unwrap_or("").to_owned(), path));
        }
    }
    Ok(())
}

fn holds_packages(dir: &Path) -> bool {
    std::fs::read_dir(dir)
        .is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| e.path().join("Cargo.toml").is_file())))
}

fn wanted(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let bare = [
        "license",
        "licence",
        "copying",
        "copyright",
        "changelog",
        "changes",
        "notice",
        "print.html",
        "releases",
    ];
    [".rs", ".md", ".txt", ".html"]
        .iter()
        .any(|e| lower.ends_with(e))
        && !bare.iter().any(|b| lower.starts_with(b))
}

fn is_heading(p: &str) -> bool {
    p.starts_with('#')
}

/// Whether a paragraph is prose: at least three words, mostly ASCII letters, no run-away token.
fn is_prose(p: &str) -> bool {
    let dense: Vec<char> = p.chars().filter(|c| !c.is_whitespace()).collect();
    let letters = dense.iter().filter(|c| c.is_ascii_alphabetic()).count();
    let ascii = dense.iter().filter(|c| c.is_ascii()).count();
    p.split_whitespace().count() >= 3
        && letters * 10 >= dense.len() * 7
        && ascii * 100 >= dense.len() * 97
        && p.split_whitespace().all(|w| w.len() <= 60)
}

fn fingerprint(p: &str) -> u64 {
    let normal: String = p
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    fnv1a(normal.as_bytes())
}

pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_empty_headings_are_dropped() {
        let mut corpus = Corpus::default();
        let mut seen = HashSet::new();
        let doc = |t: &str| t.lines().map(str::to_owned).collect::<Vec<_>>();
        corpus.push("a-1.0.0", doc("Returns the length of it.\n# Panics\nPanics when the index is out of bounds.\n# Examples"), &mut seen);
        corpus.push(
            "b-1.0.0",
            doc("returns the length, of it!\n# Panics\n# Errors\n0x00 0x01 0x02 0x03"),
            &mut seen,
        );
        assert_eq!(corpus.documents.len(), 1);
        assert_eq!(
            corpus.documents[0].text,
            "Returns the length of it.\n# Panics\nPanics when the index is out of bounds."
        );
    }

    #[test]
    fn a_folder_is_read_and_split_by_family() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("alpha-core-1.2.0", "one"),
            ("alpha_util-0.1.0", "two"),
            ("beta-2.0.0", "three"),
        ] {
            let p = dir.path().join("index-abc").join(name);
            std::fs::create_dir_all(p.join("src")).unwrap();
            std::fs::write(p.join("Cargo.toml"), "").unwrap();
            std::fs::write(
                p.join("src/lib.rs"),
                format!("//! The text number {text} of this test.\n"),
            )
            .unwrap();
            std::fs::write(p.join("src/skip.bin"), "The text nobody should read here.").unwrap();
        }
        let corpus = Corpus::read(&[dir.path().to_owned()], &[]).unwrap();
        assert_eq!(
            corpus.packages().keys().collect::<Vec<_>>(),
            ["alpha-core-1.2.0", "alpha_util-0.1.0", "beta-2.0.0"]
        );
        assert_eq!(
            corpus.documents[0].text,
            "The text number one of this test."
        );
        assert_eq!(family("alpha_util-0.1.0"), "alpha");
        let (train, valid) = corpus.split(50);
        let families = |c: &Corpus| {
            c.documents
                .iter()
                .map(|d| family(&d.package).to_owned())
                .collect::<HashSet<_>>()
        };
        assert!(families(&train).is_disjoint(&families(&valid)));
        assert_eq!(train.documents.len() + valid.documents.len(), 3);
        let nothing = tempfile::tempdir().unwrap();
        assert!(matches!(
            Corpus::read(&[nothing.path().to_owned()], &[]),
            Err(TrainError::EmptyCorpus { .. })
        ));
    }
}
