//! Who holds which text.
//!
//! | split | one client is |
//! | --- | --- |
//! | family | a family of packages (`regex-automata`, `regex-syntax`: `regex`); the families with most text, largest first |
//! | source | one of the folders given; with a single folder, whole packages dealt out so that all clients hold about as much |
//! | dirichlet | a mixture: every family's documents are dealt out by shares drawn from Dirichlet(alpha) over the clients |
//!
//! A partition is kept as a folder: `partition.json` and one `client-NN.jsonl` a client, a JSON object `{"package", "text"}` a line. Nothing of
//! it belongs into a repository: the text is other people's.

mod code;
mod folder;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tacit_bitnet::train::{Corpus, Document, family};

use crate::grammar::pick;
use crate::random::{dirichlet, stream};
use crate::{FederatedError, grammar};
use code::code;
pub use folder::{read, write};

/// What of the files is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Text {
    /// Documentation comments, Markdown, plain text, HTML paragraphs.
    #[default]
    Docs,
    /// Rust code without its comments.
    Code,
}

/// How documents are dealt out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// One family a client.
    #[default]
    Family,
    /// One folder a client, or packages dealt out evenly.
    Source,
    /// Dirichlet shares of every family.
    Dirichlet,
}

/// What one client holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientText {
    /// A name for reports.
    pub name: String,
    /// Documents with the package each comes from.
    pub documents: Vec<Document>,
}

impl ClientText {
    /// Bytes of text.
    pub fn bytes(&self) -> usize {
        self.documents.iter().map(|d| d.text.len()).sum()
    }
}

/// How to cut a partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PartitionOptions {
    /// Folders to read.
    pub from: Vec<PathBuf>,
    /// Paths that contain one of these are left out.
    pub exclude: Vec<String>,
    /// What of the files is taken.
    pub text: Text,
    /// How documents are dealt out.
    pub split: Split,
    /// Number of clients.
    pub clients: usize,
    /// Concentration of the Dirichlet split: small means clients unlike each other.
    pub alpha: f64,
    /// Most bytes of text a client keeps; 0 for no limit.
    pub max_bytes: usize,
    /// Fewest bytes of text a client must have.
    pub min_bytes: usize,
    /// File that lists packages, first word of a line (as `corpus.txt` beside a model): those marked `training` are left out, so that no
    /// client holds text that the base model was trained on.
    pub unseen_by: Option<PathBuf>,
    /// Seed of the Dirichlet split.
    pub seed: u64,
}

impl Default for PartitionOptions {
    fn default() -> Self {
        Self {
            from: Vec::new(),
            exclude: Vec::new(),
            text: Text::Docs,
            split: Split::Family,
            clients: 8,
            alpha: 0.5,
            max_bytes: 0,
            min_bytes: 4096,
            unseen_by: None,
            seed: 1,
        }
    }
}

impl PartitionOptions {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] naming the first wrong one.
    pub fn check(&self) -> Result<(), FederatedError> {
        if !(1..=10_000).contains(&self.clients) {
            return Err(FederatedError::setting(
                "clients",
                "1 to 10000",
                self.clients,
                "8 is the default",
            ));
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(FederatedError::setting(
                "alpha",
                "a positive number",
                self.alpha,
                "0.1 is very uneven, 100 nearly even",
            ));
        }
        Ok(())
    }
}

/// Reads the folders and deals the documents out.
///
/// # Errors
/// [`FederatedError::Training`] when a folder cannot be read, [`FederatedError::Setting`] when there is too little text for so many clients.
pub fn partition(options: &PartitionOptions) -> Result<Vec<ClientText>, FederatedError> {
    options.check()?;
    let seen = match &options.unseen_by {
        Some(path) => trained_on(path)?,
        None => Vec::new(),
    };
    let mut roots: Vec<Vec<Document>> = Vec::new();
    for root in &options.from {
        let documents = match options.text {
            Text::Docs => Corpus::read(std::slice::from_ref(root), &options.exclude)?.documents,
            Text::Code => code(root, &options.exclude)?,
        };
        roots.push(
            documents
                .into_iter()
                .filter(|d| seen.binary_search(&d.package).is_err())
                .collect(),
        );
    }
    let mut clients = match options.split {
        Split::Family => by_family(roots.into_iter().flatten(), options),
        Split::Source => by_source(roots, options),
        Split::Dirichlet => by_dirichlet(roots.into_iter().flatten(), options),
    };
    if options.max_bytes > 0 {
        for c in &mut clients {
            let mut bytes = 0;
            c.documents.retain(|d| {
                bytes += d.text.len();
                bytes <= options.max_bytes
            });
        }
    }
    let enough = clients
        .iter()
        .filter(|c| c.bytes() >= options.min_bytes.max(1))
        .count();
    if enough < options.clients {
        return Err(FederatedError::setting(
            "clients",
            format!(
                "at most {enough}: as many as have {} bytes of text",
                options.min_bytes.max(1)
            ),
            options.clients,
            "give more text, lower clients or min_bytes, or choose another split",
        ));
    }
    Ok(clients)
}

/// Packages that a list marks as `training`, sorted.
fn trained_on(path: &Path) -> Result<Vec<String>, FederatedError> {
    let text = std::fs::read_to_string(path).map_err(|e| FederatedError::io(path, e))?;
    Ok(trained_packages(&text))
}

pub(crate) fn trained_packages(list: &str) -> Vec<String> {
    let mut names: Vec<String> = list
        .lines()
        .filter(|l| !l.starts_with('#') && l.split_whitespace().nth(2) == Some("training"))
        .filter_map(|l| l.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names
}

fn families(documents: impl Iterator<Item = Document>) -> BTreeMap<String, Vec<Document>> {
    let mut map: BTreeMap<String, Vec<Document>> = BTreeMap::new();
    for d in documents {
        map.entry(family(&d.package).to_owned())
            .or_default()
            .push(d);
    }
    map
}

fn size(documents: &[Document]) -> usize {
    documents.iter().map(|d| d.text.len()).sum()
}

fn by_family(
    documents: impl Iterator<Item = Document>,
    options: &PartitionOptions,
) -> Vec<ClientText> {
    let mut all: Vec<(String, Vec<Document>)> = families(documents).into_iter().collect();
    all.sort_by(|a, b| size(&b.1).cmp(&size(&a.1)).then(a.0.cmp(&b.0)));
    all.truncate(options.clients);
    all.into_iter()
        .map(|(name, documents)| ClientText { name, documents })
        .collect()
}

fn by_source(roots: Vec<Vec<Document>>, options: &PartitionOptions) -> Vec<ClientText> {
    if roots.len() > 1 {
        return roots
            .into_iter()
            .zip(&options.from)
            .take(options.clients)
            .map(|(documents, root)| ClientText {
                name: root.display().to_string(),
                documents,
            })
            .collect();
    }
    let mut packages: BTreeMap<String, Vec<Document>> = BTreeMap::new();
    for d in roots.into_iter().flatten() {
        packages.entry(d.package.clone()).or_default().push(d);
    }
    let mut all: Vec<(String, Vec<Document>)> = packages.into_iter().collect();
    all.sort_by(|a, b| size(&b.1).cmp(&size(&a.1)).then(a.0.cmp(&b.0)));
    let mut clients: Vec<ClientText> = (0..options.clients)
        .map(|i| ClientText {
            name: format!("packages {i}"),
            documents: Vec::new(),
        })
        .collect();
    let mut sizes = vec![0usize; options.clients];
    for (_, documents) in all {
        let i = (0..sizes.len()).min_by_key(|&i| sizes[i]).unwrap_or(0);
        sizes[i] += size(&documents);
        clients[i].documents.extend(documents);
    }
    clients
}

fn by_dirichlet(
    documents: impl Iterator<Item = Document>,
    options: &PartitionOptions,
) -> Vec<ClientText> {
    let mut clients: Vec<ClientText> = (0..options.clients)
        .map(|i| ClientText {
            name: format!("mixture {i}"),
            documents: Vec::new(),
        })
        .collect();
    for (n, (_, documents)) in families(documents).into_iter().enumerate() {
        let mut rng = stream(options.seed, "dirichlet split", &[n as u64]);
        let shares = dirichlet(&mut rng, options.clients, options.alpha);
        for d in documents {
            clients[pick(&mut rng, &shares)].documents.push(d);
        }
    }
    clients
}

/// Generated text as a partition.
pub fn generated(
    seed: u64,
    clients: usize,
    documents: usize,
    topics: usize,
    alpha: f64,
) -> Vec<ClientText> {
    grammar::generate(seed, clients, documents, 4, topics, alpha)
        .into_iter()
        .enumerate()
        .map(|(i, texts)| ClientText {
            name: format!("grammar {i}"),
            documents: texts
                .into_iter()
                .map(|text| Document {
                    package: format!("grammar-{i}"),
                    text,
                })
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, n) in [
            ("alpha-core-1.0.0", 30),
            ("alpha-util-1.0.0", 10),
            ("beta-2.0.0", 25),
            ("gamma-0.1.0", 5),
        ] {
            let p = dir.path().join("index").join(name);
            std::fs::create_dir_all(p.join("src")).unwrap();
            std::fs::write(p.join("Cargo.toml"), "").unwrap();
            let mut text = String::new();
            for i in 0..n {
                text += &format!(
                    "/// The {name} text has a part with the name {} in it.\npub fn part_{i}(value: usize, other: usize) -> usize {{\n    // not this\n    value.wrapping_add(other).wrapping_mul({i})\n}}\n\n",
                    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"
                        .chars()
                        .nth(i)
                        .unwrap()
                        .to_string()
                        .repeat(i + 3)
                );
            }
            std::fs::write(p.join("src/lib.rs"), text).unwrap();
        }
        dir
    }

    fn options(dir: &Path, split: Split, clients: usize) -> PartitionOptions {
        PartitionOptions {
            from: vec![dir.to_owned()],
            split,
            clients,
            min_bytes: 1,
            ..PartitionOptions::default()
        }
    }

    #[test]
    fn families_sources_and_mixtures_cover_the_documents() {
        let dir = sources();
        let family = partition(&options(dir.path(), Split::Family, 2)).unwrap();
        assert_eq!(
            family.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            ["alpha", "beta"]
        );
        assert_eq!(family[0].documents.len(), 40);
        let even = partition(&options(dir.path(), Split::Source, 2)).unwrap();
        assert_eq!(even.iter().map(|c| c.documents.len()).sum::<usize>(), 70);
        assert_eq!(even.iter().map(|c| c.documents.len()).max(), Some(35));
        let mixed = options(dir.path(), Split::Dirichlet, 3);
        let a = partition(&mixed).unwrap();
        assert_eq!(a.iter().map(|c| c.documents.len()).sum::<usize>(), 70);
        assert_eq!(a, partition(&mixed).unwrap());
        let code = PartitionOptions {
            text: Text::Code,
            ..options(dir.path(), Split::Family, 2)
        };
        let code = partition(&code).unwrap();
        assert!(code[0].documents[0].text.starts_with("pub fn part_0"));
        assert!(
            code.iter()
                .flat_map(|c| &c.documents)
                .all(|d| !d.text.contains("not this"))
        );
    }

    #[test]
    fn limits_lists_and_shortages() {
        let dir = sources();
        let list = dir.path().join("corpus.txt");
        std::fs::write(
            &list,
            "# package\nalpha-core-1.0.0 99 training\nbeta-2.0.0 99 validation\n",
        )
        .unwrap();
        let unseen = PartitionOptions {
            unseen_by: Some(list),
            exclude: vec!["corpus.txt".into()],
            max_bytes: 600,
            ..options(dir.path(), Split::Family, 3)
        };
        let c = partition(&unseen).unwrap();
        assert_eq!(
            c.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            ["beta", "alpha", "gamma"]
        );
        assert!(c.iter().all(|c| c.bytes() <= 600));
        assert!(
            c[1].documents
                .iter()
                .all(|d| d.package == "alpha-util-1.0.0")
        );
        let e = partition(&options(dir.path(), Split::Family, 4))
            .unwrap_err()
            .to_string();
        assert!(e.contains("at most 3"), "{e}");
        assert!(partition(&options(&dir.path().join("none"), Split::Family, 1)).is_err());
    }

    #[test]
    fn folders_round_trip_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let c = generated(4, 3, 5, 2, 0.5);
        write(dir.path(), &c).unwrap();
        assert_eq!(read(dir.path()).unwrap(), c);
        std::fs::write(dir.path().join("client-01.jsonl"), "{\"package\": 1}\n").unwrap();
        let e = read(dir.path()).unwrap_err().to_string();
        assert!(e.contains("client-01.jsonl") && e.contains("line 1"), "{e}");
        let m = std::fs::read_to_string(dir.path().join("partition.json")).unwrap();
        std::fs::write(
            dir.path().join("partition.json"),
            m.replace("client-00", "../client-00"),
        )
        .unwrap();
        assert!(
            read(dir.path())
                .unwrap_err()
                .to_string()
                .contains("outside")
        );
    }
}
