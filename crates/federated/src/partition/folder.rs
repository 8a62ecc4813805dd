//! A partition as a folder.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tacit_bitnet::train::Document;

use super::ClientText;
use crate::FederatedError;
use crate::tensors::write_atomically;

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    clients: Vec<ManifestClient>,
}

#[derive(Serialize, Deserialize)]
struct ManifestClient {
    name: String,
    file: String,
    documents: usize,
    bytes: usize,
}

#[derive(Serialize, Deserialize)]
struct Line {
    package: String,
    text: String,
}

/// Writes a partition into `folder`.
///
/// # Errors
/// [`FederatedError::Io`] when it cannot be written.
pub fn write(folder: &Path, clients: &[ClientText]) -> Result<(), FederatedError> {
    std::fs::create_dir_all(folder).map_err(|e| FederatedError::io(folder, e))?;
    let json =
        |e: serde_json::Error| FederatedError::format("partition", e.to_string(), "report this");
    let mut manifest = Manifest {
        format: 1,
        clients: Vec::new(),
    };
    for (i, c) in clients.iter().enumerate() {
        let file = format!("client-{i:02}.jsonl");
        let mut text = String::new();
        for d in &c.documents {
            let line = Line {
                package: d.package.clone(),
                text: d.text.clone(),
            };
            text += &serde_json::to_string(&line).map_err(json)?;
            text.push('\n');
        }
        write_atomically(&folder.join(&file), text.as_bytes())?;
        manifest.clients.push(ManifestClient {
            name: c.name.clone(),
            file,
            documents: c.documents.len(),
            bytes: c.bytes(),
        });
    }
    let text = serde_json::to_string_pretty(&manifest).map_err(json)?;
    write_atomically(&folder.join("partition.json"), text.as_bytes())
}

/// Reads a partition that [`write()`] wrote.
///
/// # Errors
/// [`FederatedError::Io`] and [`FederatedError::Format`].
pub fn read(folder: &Path) -> Result<Vec<ClientText>, FederatedError> {
    let path = folder.join("partition.json");
    let bad = |path: &Path, problem: String| {
        FederatedError::format(
            path.display().to_string(),
            problem,
            "make the partition again with `tacit federate partition`",
        )
    };
    let text = std::fs::read_to_string(&path).map_err(|e| FederatedError::io(&path, e))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|e| bad(&path, e.to_string()))?;
    if manifest.format != 1 {
        return Err(bad(
            &path,
            format!("is of format {}, expected 1", manifest.format),
        ));
    }
    let mut clients = Vec::new();
    for c in manifest.clients {
        if c.file.contains(['/', '\\']) || c.file.starts_with('.') {
            return Err(bad(
                &path,
                format!("names a file outside the folder: {:?}", c.file),
            ));
        }
        let file = folder.join(&c.file);
        let text = std::fs::read_to_string(&file).map_err(|e| FederatedError::io(&file, e))?;
        let documents = text
            .lines()
            .enumerate()
            .map(|(n, l)| {
                serde_json::from_str::<Line>(l)
                    .map(|l| Document {
                        package: l.package,
                        text: l.text,
                    })
                    .map_err(|e| bad(&file, format!("line {}: {e}", n + 1)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        clients.push(ClientText {
            name: c.name,
            documents,
        });
    }
    Ok(clients)
}
