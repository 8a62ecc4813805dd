//! Progress on standard error, shown only on a terminal and never with `--json`.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How the user is kept informed while work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// Nothing but the final JSON object.
    Json,
    /// Standard error is a terminal: bars.
    Bars,
    /// Standard error is a file or pipe: no bars.
    Plain,
}

impl Display {
    /// Picks the display from `--json` and the terminal.
    pub fn pick(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Display::Json,
            (false, true) => Display::Bars,
            (false, false) => Display::Plain,
        }
    }

    fn bar(self, length: u64, template: &str) -> ProgressBar {
        let target = if self == Display::Bars {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if self == Display::Bars {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        bar
    }

    /// A bar over `length` pieces of equal size, with the time left estimated from the pace so far.
    pub fn pieces(self, what: &str, length: u64) -> ProgressBar {
        let bar = self.bar(
            length,
            "{spinner} {prefix} [{bar:30}] {pos}/{len} {eta} left",
        );
        bar.set_prefix(what.to_string());
        bar
    }

    /// A spinner for work whose length nobody knows.
    pub fn waiting(self, what: &str) -> ProgressBar {
        let bar = self.bar(1, "{spinner} {prefix}");
        bar.set_prefix(what.to_string());
        bar
    }

    /// Text and a bar whose length is the predicted time of a plan.
    pub fn planned(self, predicted_seconds: f64) -> PlannedBar {
        let bar = self.bar(
            (predicted_seconds * 1000.0).max(1.0) as u64,
            "{wide_msg}\n{spinner} [{bar:30}] {prefix}",
        );
        PlannedBar {
            bar,
            predicted: predicted_seconds,
            done: 0.0,
            measured: 0.0,
            started: Instant::now(),
            display: self,
            text: String::new(),
        }
    }
}

/// A bar that knows the plan's predicted seconds and corrects them by what it measures.
pub struct PlannedBar {
    bar: ProgressBar,
    predicted: f64,
    done: f64,
    measured: f64,
    started: Instant,
    display: Display,
    text: String,
}

impl PlannedBar {
    /// Says what runs now: which token, and which step of it.
    pub fn doing(&self, token: &str, step: &str) {
        self.bar
            .set_prefix(format!("{token}, {} left: {step}", clock(self.remaining())));
    }

    /// A step of `predicted` seconds took `measured`.
    pub fn finished(&mut self, predicted: f64, measured: f64) {
        self.done += predicted;
        self.measured += measured;
        self.bar.set_position((self.done * 1000.0) as u64);
    }

    /// Seconds left: the plan's, times measured over predicted so far.
    pub fn remaining(&self) -> f64 {
        remaining(self.predicted, self.done, self.measured)
    }

    /// Shows more of the answer: inside the bar's own lines on a terminal, else straight to standard output.
    pub fn text(&mut self, more: &str) {
        self.text.push_str(more);
        match self.display {
            Display::Json => {}
            Display::Bars => {
                let flat: String = self
                    .text
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .collect();
                let tail: String = flat
                    .chars()
                    .rev()
                    .take(200)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect();
                self.bar.set_message(tail);
            }
            Display::Plain => {
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(more.as_bytes());
                let _ = out.flush();
            }
        }
    }

    /// Removes the bar; on a terminal the whole text is printed now, as it is. Returns the seconds since the bar was made.
    pub fn end(self) -> f64 {
        self.bar.finish_and_clear();
        match self.display {
            Display::Json => {}
            Display::Bars => println!("{}", self.text),
            Display::Plain => println!(),
        }
        self.started.elapsed().as_secs_f64()
    }
}

/// Predicted seconds of what is not done yet, scaled by measured over predicted once 5 % is done.
fn remaining(predicted: f64, done: f64, measured: f64) -> f64 {
    let pace = if done > 0.05 * predicted && done > 0.0 {
        measured / done
    } else {
        1.0
    };
    ((predicted - done) * pace).max(0.0)
}

/// `75` seconds as `1:15`.
fn clock(seconds: f64) -> String {
    let s = seconds.round() as u64;
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_time_follows_the_measured_pace() {
        assert_eq!(remaining(100.0, 0.0, 0.0), 100.0);
        assert_eq!(remaining(100.0, 50.0, 100.0), 100.0);
        assert_eq!(remaining(100.0, 120.0, 100.0), 0.0);
    }

    #[test]
    fn clocks() {
        assert_eq!(clock(75.2), "1:15");
        assert_eq!(clock(3675.0), "1:01:15");
    }
}
