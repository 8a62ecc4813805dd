//! Rust code as documents.

use std::path::{Path, PathBuf};

use tacit_bitnet::train::Document;

use crate::FederatedError;

/// Rust code of the files below `root`, one document per item-sized piece: lines without comments, pieces divided at empty lines.
pub(super) fn code(root: &Path, exclude: &[String]) -> Result<Vec<Document>, FederatedError> {
    let mut files = Vec::new();
    rust_files(root, None, exclude, &mut files)?;
    let mut out = Vec::new();
    for (package, path) in files {
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut piece = String::new();
        for line in text.lines().chain([""]) {
            let trimmed = line.trim_start();
            if trimmed.starts_with("//") {
                continue;
            }
            if trimmed.is_empty() {
                let letters = piece.chars().filter(char::is_ascii_alphabetic).count();
                if piece.len() >= 80 && letters * 2 >= piece.len() {
                    out.push(Document {
                        package: package.clone(),
                        text: std::mem::take(&mut piece),
                    });
                }
                piece.clear();
                continue;
            }
            if !piece.is_empty() {
                piece.push('\n');
            }
            piece.push_str(line.trim_end());
        }
    }
    Ok(out)
}

fn rust_files(
    folder: &Path,
    package: Option<&str>,
    exclude: &[String],
    out: &mut Vec<(String, PathBuf)>,
) -> Result<(), FederatedError> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .and_then(|d| d.collect::<Result<Vec<_>, _>>())
        .map_err(|e| FederatedError::io(folder, e))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let shown = path.to_string_lossy().into_owned();
        if exclude.iter().any(|x| shown.contains(x.as_str())) || name.starts_with('.') {
            continue;
        }
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            let own = if package.is_none() && path.join("Cargo.toml").is_file() {
                Some(name.as_str())
            } else {
                package
            };
            rust_files(&path, own, exclude, out)?;
        } else if kind.is_file()
            && name.ends_with(".rs")
            && entry.metadata().is_ok_and(|m| m.len() < 1 << 20)
        {
            out.push((package.unwrap_or("files").to_owned(), path));
        }
    }
    Ok(())
}
