//! Secrets of 32 bytes in files.

use std::path::Path;

use tacit_federated::protection::secure_aggregation::identity;

use super::failure;
use crate::exit::{Failure, Outcome};

/// The secret in a file: 64 hexadecimal digits.
pub fn read_secret(file: &Path) -> Outcome<[u8; 32]> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        Failure::input(format!("cannot read the secret in {}: {e}", file.display()))
    })?;
    let text = text.trim();
    let bytes: Option<Vec<u8>> = (0..32)
        .map(|i| {
            text.get(2 * i..2 * i + 2)
                .and_then(|d| u8::from_str_radix(d, 16).ok())
        })
        .collect();
    bytes
        .filter(|_| text.len() == 64)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| {
            Failure::input(format!(
                "{}: expected 64 hexadecimal digits, found {} characters; name a file that is not there to make a secret",
                file.display(),
                text.chars().count()
            ))
        })
}

/// The secret in a file, made if there is none; whether it was.
pub fn secret(file: &Path) -> Outcome<([u8; 32], bool)> {
    if file.exists() {
        return Ok((read_secret(file)?, false));
    }
    let fresh = identity().map_err(|e| failure(e.into()))?.to_bytes();
    let text: String = fresh.iter().map(|b| format!("{b:02x}")).collect();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(file)
        .and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes()));
    written.map_err(|e| {
        Failure::input(format!(
            "cannot write the secret to {}: {e}",
            file.display()
        ))
    })?;
    Ok((fresh, true))
}
