//! Other libraries measured beside: every script of a folder, under whichever Python has what it needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::engine::{Other, read_others};
use crate::exit::{Failure, Outcome};

/// Pythons that are tried last, by name.
const ON_PATH: [&str; 2] = ["python3.10", "python3"];

/// Runs the scripts `*.py` of `folder`, one after another, each as `PYTHON SCRIPT --json FILE`, and reads what they write. Environments are
/// folders in it with `bin/python`; then those on the path are tried. A script that no Python can run is named with the reason and left out.
///
/// # Errors
/// When there is no script, or one writes something else than lines of figures.
pub fn measure(folder: &Path) -> Outcome<Vec<Other>> {
    let mut interpreters: Vec<PathBuf> = entries(folder)?
        .into_iter()
        .map(|entry| entry.join("bin").join("python"))
        .filter(|python| python.exists())
        .collect();
    interpreters.extend(ON_PATH.map(PathBuf::from));
    let scripts: Vec<PathBuf> = entries(folder)?
        .into_iter()
        .filter(|entry| entry.extension().is_some_and(|e| e == "py"))
        .collect();
    if scripts.is_empty() {
        return Err(Failure::input(format!(
            "{}: no script *.py to run; this repository's are in the folder bench",
            folder.display()
        )));
    }
    let mut others = Vec::new();
    for script in scripts {
        match run(&script, &interpreters)? {
            Ok(measured) => others.extend(measured),
            Err(why) => eprintln!("{} left out: {why}", script.display()),
        }
    }
    Ok(others)
}

/// What is in a folder, sorted.
fn entries(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let refuse = |e: std::io::Error| {
        Failure::input(format!(
            "{}: {e}; give a folder with scripts",
            folder.display()
        ))
    };
    let mut paths = std::fs::read_dir(folder)
        .map_err(refuse)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refuse)?;
    paths.sort();
    Ok(paths)
}

/// The figures of a script under the first interpreter that runs it to its end, or why none did.
fn run(script: &Path, interpreters: &[PathBuf]) -> Outcome<Result<Vec<Other>, String>> {
    let cannot = |e: std::io::Error| Failure::input(format!("a folder for figures: {e}"));
    let folder = tempfile::tempdir().map_err(cannot)?;
    let mut why = "no Python found".to_string();
    for (i, interpreter) in interpreters.iter().enumerate() {
        let figures = folder.path().join(format!("{i}.json"));
        let ran = Command::new(interpreter)
            .arg(script)
            .arg("--json")
            .arg(&figures)
            .stdin(Stdio::null())
            .output();
        match ran {
            Ok(output) if output.status.success() && figures.exists() => {
                return read_others(&figures).map(Ok);
            }
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                let last = text.lines().rfind(|line| !line.trim().is_empty());
                why = format!(
                    "{}: {}",
                    interpreter.display(),
                    last.unwrap_or("no figures came")
                );
            }
            Err(_) => {}
        }
    }
    Ok(Err(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts are run by `sh` here: what is tested is the choice among interpreters.
    #[test]
    fn the_first_interpreter_that_can_run_a_script_gives_its_figures() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("other.py");
        let line = r#"{"lib":"x","case":"c","results":{"rotate":{"median":0.5}}}"#;
        std::fs::write(&script, format!("echo '{line}' > \"$2\"\n")).unwrap();
        let known = [PathBuf::from("/no/such/python"), PathBuf::from("sh")];
        let others = run(&script, &known).unwrap().unwrap();
        assert_eq!(others[0].seconds("rotate"), Some(0.5));
        std::fs::write(&script, "echo 'no module x' >&2; exit 1\n").unwrap();
        let why = run(&script, &known).unwrap().unwrap_err();
        assert_eq!(why, "sh: no module x");
        std::fs::write(&script, "exit 0\n").unwrap();
        let why = run(&script, &known).unwrap().unwrap_err();
        assert_eq!(why, "sh: no figures came");
        std::fs::write(&script, "echo nonsense > \"$2\"\n").unwrap();
        assert!(run(&script, &known).is_err());
        let why = run(&script, &known[..1]).unwrap().unwrap_err();
        assert_eq!(why, "no Python found");
    }

    #[test]
    fn folders_without_scripts_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            measure(folder.path())
                .unwrap_err()
                .message
                .contains("no script")
        );
        assert!(measure(&folder.path().join("none")).is_err());
    }
}
