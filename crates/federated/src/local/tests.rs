//! Batches, steps, clipping and SCAFFOLD's formulas.

use super::*;
use crate::fixture;
use crate::tuner::Method;

fn setting() -> (Tuner, Vec<Window>) {
    let method = Method {
        targets: fixture::everywhere(),
        ..Method::default()
    };
    let tuner = Tuner::new(fixture::network(32, 12, false), &method, 1).unwrap();
    (tuner, fixture::windows())
}

fn turn(lr: f64) -> Turn {
    Turn {
        seed: 1,
        client: 0,
        round: 0,
        lr,
    }
}

#[test]
fn batches_pass_over_all_examples_and_do_not_depend_on_history() {
    let data: Vec<Window> = (0..10).map(|i| (vec![i], vec![i])).collect();
    let mut seen: Vec<u32> = (0..5)
        .flat_map(|s| batch(&data, turn(1.0), s, 2))
        .map(|w| w.0[0])
        .collect();
    assert_ne!(seen, (0..10).collect::<Vec<_>>());
    seen.sort_unstable();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    assert_eq!(batch(&data, turn(1.0), 7, 3), batch(&data, turn(1.0), 7, 3));
    assert_eq!(batch(&data[..2], turn(1.0), 0, 5).len(), 5);
}

#[test]
fn micro_batches_of_mixed_lengths_give_the_gradient_of_the_whole() {
    let (tuner, data) = setting();
    let mut state = tuner.initial(8, 0).unwrap();
    state.values_mut("layers.0.o.lora_b").unwrap().fill(0.05);
    let none = NamedTensors::new();
    let network = tuner.network(&state, &none).unwrap();
    let p = Penalties::none();
    let windows: Vec<&Window> = data.iter().take(9).collect();
    let lengths: std::collections::HashSet<usize> = windows.iter().map(|w| w.0.len()).collect();
    assert!(lengths.len() > 1);
    let (l, whole) = mean_gradient(&tuner, &network, &state, &windows, 0, &p).unwrap();
    let (m, parts) = mean_gradient(&tuner, &network, &state, &windows, 2, &p).unwrap();
    assert!((l - m).abs() < 1e-6);
    assert!(whole.difference(&parts).unwrap().norm() < 1e-5 * whole.norm());
    let tokens: usize = windows.iter().map(|w| w.0.len()).sum();
    let all: Vec<Window> = windows.into_iter().cloned().collect();
    let (e, n) = evaluate(&network, &all).unwrap();
    assert!((e - l).abs() < 1e-5 && n == tokens);
}

#[test]
fn training_lowers_the_loss_and_prox_holds_it_near_the_start() {
    let (tuner, data) = setting();
    let start = tuner.initial(8, 0).unwrap();
    let none = NamedTensors::new();
    let options = LocalOptions {
        steps: 30,
        lr: 1e-2,
        ..LocalOptions::default()
    };
    let go = |o: &LocalOptions, lr| {
        train(
            &tuner,
            &start,
            &none,
            &data,
            o,
            turn(lr),
            Guidance::default(),
        )
        .unwrap()
    };
    let free = go(&options, 1e-2);
    let loss = |s: &NamedTensors| {
        evaluate(&tuner.network(s, &none).unwrap(), &data)
            .unwrap()
            .0
    };
    assert!(
        loss(&free.state) < 0.9 * loss(&start),
        "{} {}",
        loss(&free.state),
        loss(&start)
    );
    let sgd = LocalOptions {
        optimiser: Optimiser::Sgd,
        ..options
    };
    let distance = |o: &LocalOptions| go(o, 0.2).state.difference(&start).unwrap().norm();
    let held = LocalOptions {
        prox: 4.0,
        ..sgd.clone()
    };
    assert!(distance(&held) < 0.5 * distance(&sgd));
}

#[test]
fn one_example_moves_a_private_gradient_by_at_most_the_clip() {
    let (tuner, data) = setting();
    let state = tuner.initial(8, 0).unwrap();
    let none = NamedTensors::new();
    let sum = |n: usize| private_gradient(&tuner, &state, &none, &data[..n], 0.05).unwrap();
    let (six, seven) = (sum(6), sum(7));
    let moved = seven.descent.difference(&six.descent).unwrap().norm();
    assert!(moved <= 0.05 * (1.0 + 1e-5) && moved > 0.04, "{moved}");
    assert!(seven.clipped > 0.5);
    // Without clipping it is the sum of the gradients, against the gradient's direction.
    let free = private_gradient(&tuner, &state, &none, &data[..1], 1e9).unwrap();
    let network = tuner.network(&state, &none).unwrap();
    let p = Penalties::none();
    let (l, g) = mean_gradient(&tuner, &network, &state, &[&data[0]], 0, &p).unwrap();
    let mut difference = free.descent.clone();
    difference.axpy(1.0, &g).unwrap();
    assert!(difference.norm() < 0.02 * g.norm() && (free.loss - l).abs() < 0.01);
}

#[test]
fn scaffold_follows_its_formulas() {
    let (tuner, data) = setting();
    let start = tuner.initial(8, 0).unwrap();
    let none = NamedTensors::new();
    let options = LocalOptions {
        steps: 3,
        optimiser: Optimiser::Sgd,
        clip: 0.0,
        scaffold: true,
        ..LocalOptions::default()
    };
    options.check().unwrap();
    let zero = start.zeros_like();
    let server = start.map(|_| 1e-3);
    let lr = 0.1;
    let plain = train(
        &tuner,
        &start,
        &none,
        &data,
        &options,
        turn(lr),
        Guidance::default(),
    )
    .unwrap();
    let by = |server, client| Guidance {
        controls: Some(Controls { server, client }),
        ..Guidance::default()
    };
    let same = by(&zero, &zero);
    let same = train(&tuner, &start, &none, &data, &options, turn(lr), same).unwrap();
    assert_eq!(plain.state, same.state);
    // Option II with zero controls: the mean gradient over the steps.
    let mut want = start.difference(&plain.state).unwrap();
    want.scale((1.0 / (3.0 * lr)) as f32);
    assert!(same.control.unwrap().difference(&want).unwrap().norm() <= 1e-6 * want.norm());
    let one = LocalOptions {
        steps: 1,
        ..options.clone()
    };
    let a = train(
        &tuner,
        &start,
        &none,
        &data,
        &one,
        turn(lr),
        Guidance::default(),
    )
    .unwrap();
    let b = train(
        &tuner,
        &start,
        &none,
        &data,
        &one,
        turn(lr),
        by(&server, &zero),
    )
    .unwrap();
    let moved = a.state.difference(&b.state).unwrap().flatten();
    assert!(moved.iter().all(|m| (m - 1e-4).abs() < 1e-6));
    let adam = LocalOptions {
        optimiser: Optimiser::Adam,
        ..options
    };
    assert!(adam.check().unwrap_err().to_string().contains("scaffold"));
}
