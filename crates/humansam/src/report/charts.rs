//! Bars, lines and tables as SVG and HTML text.

use std::fmt::Write;

use crate::class::Class;

/// Colours that can be told apart, also by most colour-blind people, in label order and for "real".
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#7b3294", "#1b6e3c"];

/// A bar per class.
pub(super) fn bars(probabilities: &[f64; 4]) -> String {
    let mut out =
        String::from("<svg viewBox=\"0 0 800 150\" role=\"img\" aria-label=\"probabilities\">");
    for (i, c) in Class::ALL.iter().enumerate() {
        let (p, y) = (probabilities[i], 10 + 35 * i);
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{0}\" font-size=\"16\">{c}</text><rect x=\"120\" y=\"{y}\" width=\"600\" height=\"22\" fill=\"#e7e9ed\"/>\
             <rect x=\"120\" y=\"{y}\" width=\"{1:.1}\" height=\"22\" fill=\"{2}\"/><text x=\"728\" y=\"{0}\" font-size=\"16\">{3:.0} %</text>",
            y + 17,
            600.0 * p.clamp(0.0, 1.0),
            COLOURS[i],
            100.0 * p
        );
    }
    out.push_str("</svg>");
    out
}

/// Curves over a common axis from 0 to `top` (or the largest value), with an optional dashed line.
pub(super) fn lines(
    curves: &[(String, Vec<(f64, f64)>)],
    unit: &str,
    mark: Option<f64>,
    top: Option<f64>,
) -> String {
    const LEFT: f64 = 40.0;
    const WIDTH: f64 = 740.0;
    const BASE: f64 = 180.0;
    const HEIGHT: f64 = 160.0;
    let all = || curves.iter().flat_map(|c| c.1.iter());
    let end = all().map(|p| p.0).fold(1e-6, f64::max);
    let top = top.unwrap_or_else(|| all().map(|p| p.1).fold(1e-9, f64::max));
    let x = |v: f64| LEFT + WIDTH * v / end;
    let y = |v: f64| BASE - HEIGHT * (v / top).clamp(0.0, 1.0);
    let mut out =
        String::from("<svg viewBox=\"0 0 800 240\" role=\"img\" aria-label=\"curves over time\">");
    for k in 0..=4 {
        let v = top * f64::from(k) / 4.0;
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{0}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#e7e9ed\"/><text x=\"0\" y=\"{2:.1}\" font-size=\"12\" fill=\"#5b6470\">{v:.2}</text>",
            LEFT + WIDTH,
            y(v),
            y(v) + 4.0
        );
        let s = end * f64::from(k) / 4.0;
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"198\" font-size=\"12\" fill=\"#5b6470\" text-anchor=\"middle\">{s:.1}</text>",
            x(s).min(785.0)
        );
    }
    let _ = write!(
        out,
        "<text x=\"{LEFT}\" y=\"214\" font-size=\"12\" fill=\"#5b6470\">{unit}</text>"
    );
    if let Some(m) = mark {
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{0}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#5b6470\" stroke-dasharray=\"5 4\"/>",
            LEFT + WIDTH,
            y(m)
        );
    }
    for (i, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<String> = points
            .iter()
            .map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1)))
            .collect();
        let _ = write!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        let at = 160 + 170 * i;
        let _ = write!(
            out,
            "<rect x=\"{at}\" y=\"222\" width=\"14\" height=\"14\" fill=\"{colour}\"/><text x=\"{}\" y=\"234\" font-size=\"14\">{name}</text>",
            at + 20
        );
    }
    out.push_str("</svg>");
    out
}

/// Rows of two cells, already escaped.
pub(super) fn table(rows: &[(String, String)]) -> String {
    let mut out = String::from("<table>");
    for (a, b) in rows {
        let _ = write!(out, "<tr><td>{a}</td><td>{b}</td></tr>");
    }
    out.push_str("</table>");
    out
}
