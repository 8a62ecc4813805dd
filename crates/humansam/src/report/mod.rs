//! One self-contained HTML page about a video: verdict, probabilities, time line, pictures with heat maps, prior curves, the
//! model's card, provenance. No scripts, no links to other files.
//!
//! Numbers come from [`Inspection`]; pictures are embedded as JPEG.

mod charts;
mod picture;

use std::fmt::Write;

use crate::class::Class;
use crate::clip::Clip;
use crate::error::Result;
use crate::model::native::Card;
use crate::model::native::verdict::{Inspection, Moment, Verdict};

/// What else is known about the video.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The file's name.
    pub name: String,
    /// Lines `what, value`: size, frame rate, length, provenance.
    pub facts: Vec<(String, String)>,
    /// Curves `name, one value a point`, over the whole video: the priors.
    pub curves: Vec<(String, Vec<f32>)>,
}

/// Pictures on the page.
const PICTURES: usize = 8;

/// The page.
///
/// # Errors
/// When a picture cannot be encoded.
pub fn html(about: &About, clip: &Clip, inspection: &Inspection, card: &Card) -> Result<String> {
    let mut page = String::new();
    let (headline, sentence, colour) = headline(inspection, card);
    let name = escape(&about.name);
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name}: {headline}</title><style>{STYLE}</style></head><body>\n<main>\n<header style=\"border-color:{colour}\">\
         <p class=\"file\">{name}</p><h1 style=\"color:{colour}\">{headline}</h1><p>{sentence}</p></header>\n"
    );
    if !matches!(inspection.verdict, Verdict::NotApplicable { .. }) {
        section(
            &mut page,
            "How likely",
            "Probability of each answer; the four sum to one.",
            &charts::bars(&inspection.classes),
        );
        let rows: Vec<(String, f64)> = Class::FORGED
            .iter()
            .zip(inspection.kinds)
            .map(|(c, p)| (c.name().to_owned(), p))
            .collect();
        let kinds = charts::table(
            &rows
                .iter()
                .map(|(n, p)| (n.clone(), format!("{:.0} %", 100.0 * p)))
                .collect::<Vec<_>>(),
        );
        section(
            &mut page,
            "Each anomaly by itself",
            "A video can have more than one.",
            &kinds,
        );
        let lines: Vec<(String, Vec<(f64, f64)>)> = Class::FORGED
            .iter()
            .map(|c| {
                let points = inspection
                    .timeline
                    .iter()
                    .map(|m| (m.seconds, f64::from(m.wrong[c.label()])));
                (c.name().to_owned(), points.collect())
            })
            .collect();
        let worst = (0..Class::FORGED.len()).fold(0, |b, k| {
            if inspection.kinds[k] > inspection.kinds[b] {
                k
            } else {
                b
            }
        });
        let dashed = card.calibration.moments[worst];
        section(
            &mut page,
            "When",
            "Probability at each moment that something of this kind is wrong. The dashed line is where the likeliest kind counts as wrong.",
            &charts::lines(&lines, "seconds", Some(f64::from(dashed)), Some(1.0)),
        );
        section(
            &mut page,
            "Where",
            "Moments with the highest probability, in order of time. Red marks where the model sees something wrong; the frame is what it looked at.",
            &pictures(clip, inspection)?,
        );
    }
    if !about.curves.is_empty() {
        let lines: Vec<(String, Vec<(f64, f64)>)> = about
            .curves
            .iter()
            .map(|(n, v)| {
                let seconds = clip.seconds() / v.len().max(1) as f64;
                // Each by its own largest value: they have different units.
                let top = f64::from(v.iter().copied().fold(1e-9f32, f32::max));
                (
                    n.clone(),
                    v.iter()
                        .enumerate()
                        .map(|(i, v)| (i as f64 * seconds, f64::from(*v) / top))
                        .collect(),
                )
            })
            .collect();
        section(
            &mut page,
            "Priors",
            "Scores that need no training, each divided by its largest value in this video.",
            &charts::lines(&lines, "seconds", None, Some(1.0)),
        );
    }
    let facts: Vec<(String, String)> = about
        .facts
        .iter()
        .map(|(a, b)| (escape(a), escape(b)))
        .collect();
    section(&mut page, "The file", "", &charts::table(&facts));
    section(
        &mut page,
        "The model",
        "Trained and tested on generated video only. How often it is right on videos of the world is not known: take the verdict as a hint, not as proof.",
        &charts::table(&[
            ("Name".to_owned(), escape(&card.name)),
            ("Training".to_owned(), training(card)),
            (
                "Head fitted on".to_owned(),
                format!("{} generated clips", card.head_clips),
            ),
            (
                "Calibrated on".to_owned(),
                format!("{} generated clips", card.calibration_clips),
            ),
            (
                "\"Unclear\" below".to_owned(),
                format!("{:.0} %", 100.0 * card.calibration.abstain_below),
            ),
        ]),
    );
    page.push_str("</main></body></html>\n");
    Ok(page)
}

/// The schedules that the trunk went through.
fn training(card: &Card) -> String {
    let stages = card.stages();
    let each: Vec<String> = stages
        .iter()
        .map(|s| {
            format!(
                "{} steps of {} generated clips, seed {}",
                s.steps, s.training.batch, s.training.seed
            )
        })
        .collect();
    each.join("; then ")
}

/// The headline, a sentence, and their colour.
fn headline(i: &Inspection, card: &Card) -> (String, String, &'static str) {
    match i.verdict {
        Verdict::NotApplicable { why } => (
            "Not applicable".to_owned(),
            sentence(why.reason()),
            "#5b6470",
        ),
        Verdict::Unclear { leaning } => (
            "Unclear".to_owned(),
            format!(
                "No answer is likely enough; closest is “{leaning}” with {:.0} %.",
                100.0 * i.classes[leaning.label()]
            ),
            "#8a6100",
        ),
        Verdict::Class { class: Class::Real } => (
            "Nothing wrong was found".to_owned(),
            format!(
                "“Real” with {:.0} %.",
                100.0 * i.classes[Class::Real.label()]
            ),
            "#1b6e3c",
        ),
        Verdict::Class { class } => (
            format!("Forged: {class} anomaly"),
            format!(
                "{} with {:.0} %. {}",
                explain(class),
                100.0 * i.classes[class.label()],
                span(i, class, card)
            ),
            "#a3221b",
        ),
    }
}

fn sentence(s: &str) -> String {
    let mut chars = s.chars();
    chars
        .next()
        .map(|c| format!("{}{}.", c.to_uppercase(), chars.as_str()))
        .unwrap_or_default()
}

/// What a class means, in a sentence.
pub fn explain(class: Class) -> &'static str {
    match class {
        Class::Appearance => {
            "Something changes over time that should not, such as clothes, face or texture,"
        }
        Class::Spatial => {
            "A frame shows what cannot be, such as a limb too many or an arm through the body,"
        }
        Class::Motion => "Each frame is possible, but their succession is not,",
        Class::Real => "Nothing is wrong,",
    }
}

/// From when to when the time line is above its kind's threshold.
fn span(i: &Inspection, class: Class, card: &Card) -> String {
    let wrong: Vec<&Moment> = i
        .timeline
        .iter()
        .filter(|m| m.wrong[class.label()] >= card.calibration.moments[class.label()])
        .collect();
    match (wrong.first(), wrong.last()) {
        (Some(a), Some(b)) if b.seconds > a.seconds => format!(
            "Most visible from {:.1} s to {:.1} s.",
            a.seconds, b.seconds
        ),
        (Some(a), _) => format!("Most visible at {:.1} s.", a.seconds),
        _ => "No single moment stands out.".to_owned(),
    }
}

/// The moments to look at: highest probability first, none within a fortieth of the time of another; in order of time.
fn moments(i: &Inspection) -> Vec<&Moment> {
    let worst = |m: &Moment| m.wrong.iter().copied().fold(0.0, f32::max);
    let mut sorted: Vec<&Moment> = i.timeline.iter().collect();
    sorted.sort_by(|a, b| worst(b).total_cmp(&worst(a)).then(a.frame.cmp(&b.frame)));
    let apart = i.timeline.last().map_or(0.0, |m| m.seconds) / 40.0;
    let mut chosen: Vec<&Moment> = Vec::new();
    for m in sorted {
        if chosen.len() < PICTURES && chosen.iter().all(|c| (c.seconds - m.seconds).abs() > apart) {
            chosen.push(m);
        }
    }
    chosen.sort_by_key(|m| m.frame);
    chosen
}

fn pictures(clip: &Clip, i: &Inspection) -> Result<String> {
    let mut out = String::from("<div class=\"pictures\">");
    for m in moments(i) {
        let Some(frame) = clip.frames.get(m.frame) else {
            continue;
        };
        let jpeg = picture::with_heat(frame, i.region, &m.heat)?;
        let kind = (0..m.wrong.len()).fold(0, |b, k| if m.wrong[k] > m.wrong[b] { k } else { b });
        let caption = format!(
            "{:.2} s: {} {:.0} %",
            m.seconds,
            Class::FORGED[kind],
            100.0 * m.wrong[kind]
        );
        let _ = write!(
            out,
            "<figure><img alt=\"{caption}\" src=\"data:image/jpeg;base64,{}\"><figcaption>{caption}</figcaption></figure>",
            picture::base64(&jpeg)
        );
    }
    out.push_str("</div>");
    Ok(out)
}

fn section(page: &mut String, title: &str, text: &str, body: &str) {
    let text = if text.is_empty() {
        String::new()
    } else {
        format!("<p>{text}</p>")
    };
    let _ = writeln!(page, "<section><h2>{title}</h2>{text}{body}</section>");
}

/// Text for HTML.
fn escape(s: &str) -> String {
    s.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const STYLE: &str = "\
:root{color-scheme:light}body{margin:0;background:#f3f4f6;color:#1d2530;font:16px/1.5 system-ui,sans-serif}\
main{max-width:60rem;margin:0 auto;padding:1.5rem}header{background:#fff;border-left:.5rem solid;padding:1rem 1.5rem;border-radius:.4rem}\
h1{margin:.1rem 0;font-size:1.9rem}h2{margin:0 0 .3rem;font-size:1.1rem}.file{color:#5b6470;margin:0;word-break:break-all}\
header p:last-child{margin:.3rem 0 0}section{background:#fff;border-radius:.4rem;padding:1rem 1.5rem;margin-top:1rem}\
section>p{margin:.1rem 0 .7rem;color:#5b6470}svg{width:100%;height:auto;display:block}\
table{border-collapse:collapse}td{padding:.15rem 1.2rem .15rem 0;vertical-align:top}td:first-child{color:#5b6470}\
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.8rem}\
figure{margin:0}img{width:100%;border-radius:.3rem;display:block}figcaption{font-size:.85rem;color:#5b6470}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::Frame;
    use crate::model::calibration::Calibration;
    use crate::model::native::HEAT_SIDE;
    use crate::model::native::input::Region;
    use crate::model::native::lessons::LessonsConfig;
    use crate::model::native::train::TrainConfig;
    use crate::model::native::verdict::NotApplicable;

    fn card() -> Card {
        Card {
            name: "test".to_owned(),
            training: TrainConfig::default(),
            steps: 10,
            earlier: Vec::new(),
            lessons: LessonsConfig::default(),
            head_clips: 10,
            calibration_clips: 10,
            calibration: Calibration::default(),
            presence: None,
        }
    }

    fn inspection(verdict: Verdict) -> Inspection {
        let timeline = (0..20)
            .map(|t| Moment {
                frame: t,
                seconds: t as f64 / 10.0,
                wrong: [0.1, if t > 8 { 0.9 } else { 0.2 }, 0.05],
                heat: (0..HEAT_SIDE * HEAT_SIDE)
                    .map(|c| if c == 20 { 0.9 } else { 0.0 })
                    .collect(),
                window: 0,
            })
            .collect();
        Inspection {
            verdict,
            classes: [0.1, 0.7, 0.1, 0.1],
            kinds: [0.2, 0.8, 0.1],
            logits: [0.0; 4],
            priors: vec![],
            region: Region {
                x: 4,
                y: 4,
                width: 40,
                height: 40,
            },
            timeline,
            features: vec![],
        }
    }

    #[test]
    fn the_page_says_what_when_and_where_and_is_complete() {
        let clip = Clip::new(10.0, vec![Frame::black(64, 48); 20]).unwrap();
        let about = About {
            name: "<b>odd & \"quoted\".mp4".to_owned(),
            facts: vec![("Size".to_owned(), "64×48".to_owned())],
            curves: vec![("spatial".to_owned(), vec![0.1; 20])],
        };
        let page = html(
            &about,
            &clip,
            &inspection(Verdict::Class {
                class: Class::Spatial,
            }),
            &card(),
        )
        .unwrap();
        for part in [
            "Forged: spatial anomaly",
            "from 0.9 s to 1.9 s",
            "data:image/jpeg;base64,",
            "generated video only",
            "&lt;b&gt;odd &amp;",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<b>odd") && !page.contains("http") && !page.contains("<script"));
        assert_eq!(
            page.matches("<section>").count(),
            page.matches("</section>").count()
        );
        let none = inspection(Verdict::NotApplicable {
            why: NotApplicable::NoHuman,
        });
        let page = html(&about, &clip, &none, &card()).unwrap();
        assert!(page.contains("Not applicable") && !page.contains("<img"));
        let unclear = html(
            &about,
            &clip,
            &inspection(Verdict::Unclear {
                leaning: Class::Motion,
            }),
            &card(),
        )
        .unwrap();
        assert!(unclear.contains("Unclear") && unclear.contains("motion"));
    }
}
