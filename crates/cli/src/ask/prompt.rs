//! From the command line to token ids: reading the prompt, and refusing what cannot be served before any key is made.

use std::io::Read;

use crate::args::SamplingArgs;
use crate::exit::{Failure, Outcome};

/// Longest prompt read from standard input, in bytes. Far above any context window.
const LONGEST: u64 = 1 << 20;

/// The prompt, or standard input for `-`, with a final newline removed.
pub fn read(argument: &str) -> Outcome<String> {
    let text = if argument == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .take(LONGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| {
                Failure::input(format!("cannot read the prompt from standard input: {e}"))
            })?;
        if bytes.len() as u64 > LONGEST {
            return Err(Failure::usage(format!(
                "the prompt on standard input is longer than {LONGEST} bytes; shorten it"
            )));
        }
        let mut text = String::from_utf8(bytes).map_err(|e| {
            Failure::usage(format!(
                "the prompt on standard input is not UTF-8 (byte {}); convert it",
                e.utf8_error().valid_up_to()
            ))
        })?;
        if text.ends_with('\n') {
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
        }
        text
    } else {
        argument.to_string()
    };
    if text.trim().is_empty() {
        return Err(Failure::usage(
            "the prompt is empty; give some text, for example: tacit ask \"The function returns\"",
        ));
    }
    Ok(text)
}

/// Checks that prompt and new tokens fit into the model's window together.
///
/// The last new token is read off the state of the token before it, so it needs no place itself.
pub fn fit(prompt_tokens: usize, new_tokens: usize, window: usize) -> Outcome {
    if prompt_tokens == 0 {
        return Err(Failure::usage("the prompt gives no tokens; give some text"));
    }
    if prompt_tokens + new_tokens - 1 <= window {
        return Ok(());
    }
    let remedy = if prompt_tokens <= window {
        format!(
            "at most {} new tokens fit: use --tokens {} or a shorter prompt",
            window + 1 - prompt_tokens,
            window + 1 - prompt_tokens
        )
    } else {
        format!(
            "shorten the prompt by at least {} tokens",
            prompt_tokens + new_tokens - 1 - window
        )
    };
    Err(Failure::usage(format!(
        "over-long prompt: {prompt_tokens} prompt tokens and {new_tokens} new ones do not fit the model's window of {window} tokens; {remedy}"
    )))
}

/// Checks the sampler's flags.
pub fn check_sampling(sampling: &SamplingArgs) -> Outcome {
    if !(sampling.temperature.is_finite() && sampling.temperature >= 0.0) {
        return Err(Failure::usage(format!(
            "--temperature {} is not a number of at least 0",
            sampling.temperature
        )));
    }
    if sampling.top_k == Some(0) {
        return Err(Failure::usage(
            "--top-k 0 leaves no token to pick; use 1 or more",
        ));
    }
    if let Some(p) = sampling.top_p
        && !(p > 0.0 && p <= 1.0)
    {
        return Err(Failure::usage(format!(
            "--top-p {p} is not above 0 and at most 1"
        )));
    }
    if sampling.temperature == 0.0
        && (sampling.top_k.is_some_and(|k| k > 1) || sampling.top_p.is_some())
    {
        return Err(Failure::usage(
            "--top-k and --top-p need --temperature above 0; without it the likeliest token is always picked",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_prompt_and_all_new_tokens_but_the_last() {
        assert!(fit(57, 8, 64).is_ok());
        let e = fit(58, 8, 64).unwrap_err();
        assert!(e.message.contains("at most 7 new tokens"), "{e}");
        let e = fit(70, 1, 64).unwrap_err();
        assert!(e.message.contains("by at least 6 tokens"), "{e}");
        assert!(fit(0, 1, 64).is_err());
    }

    #[test]
    fn impossible_sampling_is_refused() {
        let flags = |temperature, top_k, top_p| SamplingArgs {
            temperature,
            top_k,
            top_p,
            seed: 0,
        };
        assert!(check_sampling(&flags(0.0, None, None)).is_ok());
        assert!(check_sampling(&flags(0.7, Some(40), Some(0.9))).is_ok());
        for bad in [
            flags(-1.0, None, None),
            flags(f64::NAN, None, None),
            flags(1.0, Some(0), None),
            flags(1.0, None, Some(0.0)),
            flags(1.0, None, Some(1.5)),
            flags(0.0, Some(5), None),
        ] {
            assert!(check_sampling(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_prompt_is_refused() {
        assert!(read("  \n").is_err());
        assert_eq!(read("x ").unwrap(), "x ");
    }
}
