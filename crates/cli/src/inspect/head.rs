//! `tacit inspect head`: fusion and head as named tensors, as federated training exchanges them.

use std::path::Path;

use serde_json::json;
use tacit_federated::{FederatedError, NamedTensors, rules};
use tacit_humansam::Class;
use tacit_humansam::model::native::head::Head;
use tacit_humansam::model::native::{Card, NativeModel};

use super::look::open_model;
use super::model_args::HeadArgs;
use super::{failure, table};
use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use crate::output::print_json;
use crate::progress::Display;

fn foreign(e: FederatedError) -> Failure {
    Failure::new(Kind::Input, e.to_string())
}

/// Fusion and head of a model, in the federation's form.
///
/// # Errors
/// When a tensor cannot be read or named.
pub fn export(head: &Head) -> Outcome<NamedTensors> {
    let mut out = NamedTensors::new();
    for (name, shape, values) in head.export().map_err(failure)? {
        out.insert(name, &shape, values).map_err(foreign)?;
    }
    Ok(out)
}

/// `head` with the values of `state`.
///
/// # Errors
/// When `state` does not hold exactly the tensors of such a head.
pub fn import(head: &Head, state: &NamedTensors, source: &Path) -> Outcome<Head> {
    let named: Vec<_> = state
        .iter()
        .map(|t| (t.name.clone(), t.shape.clone(), t.values.clone()))
        .collect();
    head.import(&named, source).map_err(failure)
}

/// The model with the fusion and head of a file; probabilities are calibrated as before.
///
/// # Errors
/// When the file does not hold exactly the tensors of such a head.
pub fn with_head(model: &NativeModel, file: &Path) -> Outcome<NativeModel> {
    let (state, _) = NamedTensors::load(file).map_err(foreign)?;
    let card = Card {
        name: format!("{} with the head {}", model.card.name, file.display()),
        ..model.card.clone()
    };
    NativeModel::new(
        model.network().clone(),
        import(model.head(), &state, file)?,
        card,
    )
    .map_err(failure)
}

/// Makes a table of features.
fn features(model: &NativeModel, args: &HeadArgs, file: &Path, global: &Global) -> Outcome {
    let display = Display::pick(global.json);
    let (table, left_out) = match &args.videos {
        Some(folder) => table::of_videos(model, folder, display)?,
        None => {
            let made = table::of_generated(model, args.clips, args.seed, args.place, display)?;
            (made, Vec::new())
        }
    };
    table.save(file)?;
    let classes = Class::ALL.map(|c| table.labels.iter().filter(|l| **l == c).count());
    if global.json {
        return print_json(&json!({
            "table": file, "clips": table.len(), "features": model.head().width(), "classes": classes, "not_applicable": left_out,
        }));
    }
    println!(
        "{} clips with {} numbers each in {} ({} appearance, {} spatial, {} motion, {} real)",
        table.len(),
        model.head().width(),
        file.display(),
        classes[0],
        classes[1],
        classes[2],
        classes[3]
    );
    for v in &left_out {
        println!("left out, for the model does not judge it: {}", v.display());
    }
    Ok(())
}

/// Runs the command: writes the head of a model, or takes in the weighted average of heads.
pub fn run(args: &HeadArgs, global: &Global) -> Outcome {
    let model = open_model(args.model.as_deref())?;
    if let Some(file) = &args.features {
        return features(&model, args, file, global);
    }
    let tensors = if let Some(file) = &args.export {
        let state = export(model.head())?;
        state.save(file, &[]).map_err(foreign)?;
        if !global.json {
            println!(
                "{} tensors with {} values in {}",
                state.len(),
                state.count(),
                file.display()
            );
        }
        state
    } else {
        let out = args
            .out
            .as_deref()
            .ok_or_else(|| Failure::usage("--average needs --out for the new model folder"))?;
        let mut parties = Vec::new();
        for entry in &args.average {
            parties.push((
                NamedTensors::load(&entry.file).map_err(foreign)?.0,
                entry.weight,
            ));
        }
        let references: Vec<(&NamedTensors, f64)> = parties.iter().map(|(s, w)| (s, *w)).collect();
        let average = rules::weighted_average(&references).map_err(foreign)?;
        let head = import(model.head(), &average, out)?;
        let card = Card {
            name: format!("{}-averaged", model.card.name),
            ..model.card.clone()
        };
        NativeModel::new(model.network().clone(), head, card)
            .and_then(|m| m.save(out))
            .map_err(failure)?;
        if !global.json {
            println!(
                "the average of {} heads is in the model folder {}; its probabilities are calibrated as before",
                parties.len(),
                out.display()
            );
        }
        average
    };
    if global.json {
        print_json(&json!({
            "tensors": tensors.iter().map(|t| json!({ "name": t.name, "shape": t.shape })).collect::<Vec<_>>(),
            "values": tensors.count(),
            "hash": tensors.content_hash().to_hex().to_string(),
        }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tacit_humansam::model::fusion::FusionMode;
    use tacit_humansam::model::native::head::{EXTRA, Features};
    use tacit_humansam::model::native::network::{DEPTH_WIDTH, VIDEO_WIDTH};

    fn clip(i: usize) -> Features {
        let at = |j: usize| {
            ((i * 31 + j * 17) as f32 * 0.61).sin() + if j % 4 == i % 4 { 0.6 } else { 0.0 }
        };
        Features {
            video: (0..VIDEO_WIDTH + EXTRA).map(at).collect(),
            depth: (0..DEPTH_WIDTH).map(at).collect(),
        }
    }

    fn right(head: &Head, clips: &[Features]) -> usize {
        let affine = head.affine().unwrap();
        let mut right = 0;
        for (i, f) in clips.iter().enumerate() {
            let raw: Vec<f64> = f.joined().iter().map(|v| f64::from(*v)).collect();
            let z = affine.apply(&raw).unwrap();
            let best = (0..4).max_by(|&a, &b| z[a].total_cmp(&z[b])).unwrap();
            right += usize::from(best == i % 4);
        }
        right
    }

    /// Two parties that hold different classes learn from one start; the average knows all four.
    #[test]
    fn rounds_of_two_parties_are_averaged_to_one_head() {
        let clips: Vec<Features> = (0..120).map(clip).collect();
        let labels: Vec<Class> = (0..120).map(|i| Class::ALL[i % 4]).collect();
        let of = |wanted: &dyn Fn(usize) -> bool| -> (Vec<&Features>, Vec<Class>) {
            (0..120)
                .filter(|i| wanted(*i))
                .map(|i| (&clips[i], labels[i]))
                .unzip()
        };
        let (few, their) = of(&|i| i < 8);
        let mut global = Head::fit(FusionMode::Gated, &few, &their, &[0.0; 8], 1).unwrap();
        let before = right(&global, &clips);
        for _ in 0..4 {
            let mut updates = Vec::new();
            for party in 0..2 {
                let (own, labels) = of(&|i| i % 4 / 2 == party);
                let weights = vec![0.0; own.len()];
                let tuned = global.local_round(&own, &labels, &weights, 20).unwrap();
                updates.push((export(&tuned).unwrap(), own.len() as f64));
            }
            let references: Vec<(&NamedTensors, f64)> =
                updates.iter().map(|(s, w)| (s, *w)).collect();
            let average = rules::weighted_average(&references).unwrap();
            global = import(&global, &average, Path::new("average")).unwrap();
        }
        let after = right(&global, &clips);
        assert!(after >= before && after >= 100, "{before} {after} of 120");
    }

    #[test]
    fn a_state_survives_its_file() {
        let model = open_model(None).unwrap();
        let state = export(model.head()).unwrap();
        let bytes = state.to_safetensors(&[]).unwrap();
        let (back, _) = NamedTensors::from_safetensors(&bytes, "test").unwrap();
        assert_eq!(back.content_hash(), state.content_hash());
        let head = import(model.head(), &back, Path::new("file")).unwrap();
        assert_eq!(export(&head).unwrap(), state);
    }
}
