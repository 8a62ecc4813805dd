//! What goes to standard output: JSON objects or tables, and the units in them.

use std::io::Write;

use crate::exit::Outcome;

/// Prints one JSON object, indented, with a newline behind it.
pub fn print_json(value: &impl serde::Serialize) -> Outcome {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

/// A table of text cells; columns are as wide as their widest cell; numbers stand to the right.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub fn new(head: &[&str]) -> Self {
        Table {
            head: head.iter().map(|s| s.to_string()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty, surplus ones are dropped.
    pub fn row(&mut self, cells: Vec<String>) {
        let mut cells = cells;
        cells.resize(self.head.len(), String::new());
        self.rows.push(cells);
    }

    /// The table as text, lines ended by newlines.
    pub fn render(&self) -> String {
        let width = |c: usize| {
            self.rows
                .iter()
                .map(|r| r[c].chars().count())
                .chain([self.head[c].chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let numeric = |c: usize| {
            self.rows.iter().any(|r| !r[c].is_empty())
                && self.rows.iter().all(|r| {
                    r[c].is_empty() || r[c].starts_with(|x: char| x.is_ascii_digit() || x == '-')
                })
        };
        let right: Vec<bool> = (0..self.head.len()).map(numeric).collect();
        let line = |cells: &[String]| {
            let mut text = String::new();
            for (c, cell) in cells.iter().enumerate() {
                let pad = " ".repeat(widths[c] - cell.chars().count());
                if c > 0 {
                    text.push_str("  ");
                }
                if right[c] {
                    text.push_str(&pad);
                    text.push_str(cell);
                } else {
                    text.push_str(cell);
                    text.push_str(&pad);
                }
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
            text
        };
        let mut text = line(&self.head);
        text.push_str(&line(
            &widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>(),
        ));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

/// `1234` bytes as `1.2 KiB` and so on.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 || unit == "GiB" {
            return if unit == "B" {
                format!("{n} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    unreachable!("the loop returns at its last unit")
}

/// Seconds with as many digits as are worth reading.
pub fn seconds(s: f64) -> String {
    match s {
        s if s >= 100.0 => format!("{s:.0}"),
        s if s >= 1.0 => format!("{s:.2}"),
        s if s >= 0.001 => format!("{s:.4}"),
        s => format!("{s:.2e}"),
    }
}

/// A count in groups of three: `1234567` as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(d);
    }
    text
}

/// Precision in bits of `got` against `want`: `-log2(max |got - want| / max |want|)`. `None` for empty or all-zero references,
/// lengths that differ, or anything that is not a number.
pub fn error_bits(got: &[f64], want: &[f64]) -> Option<f64> {
    if got.len() != want.len() {
        return None;
    }
    let mut error = 0.0f64;
    let mut scale = 0.0f64;
    for (g, w) in got.iter().zip(want) {
        let d = (g - w).abs();
        if !d.is_finite() || !w.is_finite() {
            return None;
        }
        error = error.max(d);
        scale = scale.max(w.abs());
    }
    (scale > 0.0).then(|| -(error.max(scale * 2f64.powi(-53)) / scale).log2())
}

/// Says how many polynomials were evaluated outside of their intervals, if any were.
pub fn say_out_of_range(evaluations: usize) {
    if evaluations > 0 {
        println!("{evaluations} polynomial evaluations left their interval");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_numbers_to_the_right() {
        let mut t = Table::new(&["step", "s"]);
        t.row(vec!["norm".into(), "1.5".into()]);
        t.row(vec!["q, k, v".into(), "12.5".into()]);
        assert_eq!(
            t.render(),
            "step        s\n-------  ----\nnorm      1.5\nq, k, v  12.5\n"
        );
    }

    #[test]
    fn units() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(bytes(5000 << 30), "5000.0 GiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
        assert_eq!(seconds(12.345), "12.35");
    }

    #[test]
    fn bits_of_error() {
        let bits = error_bits(&[1.0, 2.0 + 2f64.powi(-9)], &[1.0, 2.0]).unwrap();
        assert!((bits - 10.0).abs() < 1e-9);
        assert_eq!(error_bits(&[f64::NAN], &[1.0]), None);
        assert_eq!(error_bits(&[1.0], &[0.0]), None);
        assert_eq!(error_bits(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(error_bits(&[1.0], &[1.0]), Some(53.0));
    }
}
