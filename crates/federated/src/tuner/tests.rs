//! Gradients, layouts and refusals of adapters.

use super::*;
use crate::fixture;
use crate::random::normal;

fn base(unquantised: bool) -> Network {
    let mut n = fixture::network(16, 6, unquantised);
    for i in 0..6 {
        n.values_mut(i).iter_mut().for_each(|x| *x *= 10.0);
    }
    n
}

fn randomised(t: &NamedTensors) -> NamedTensors {
    let mut rng = stream(9, "test state", &[]);
    t.map(|_| 0.0)
        .unflatten(
            &(0..t.count())
                .map(|_| 0.2 * normal(&mut rng) as f32)
                .collect::<Vec<_>>(),
        )
        .unwrap()
}

#[test]
fn adapter_gradients_agree_with_difference_quotients() {
    for kind in [
        Kind::Lora,
        Kind::FfaLora,
        Kind::Full,
        Kind::FedKSeed,
        Kind::Prompt,
    ] {
        let method = Method {
            kind,
            rank: 3,
            targets: fixture::everywhere(),
            scales: !matches!(kind, Kind::FedKSeed | Kind::Prompt),
            seeds: 5,
            prompt: 2,
            forward: Forward::Float,
            ..Method::default()
        };
        method.check(1).unwrap();
        let tuner = Tuner::new(base(true), &method, 5).unwrap();
        let state = randomised(&tuner.initial(3, 0).unwrap());
        let (inputs, targets) = (vec![1u32, 7, 299, 4], vec![7u32, 299, 4, 2]);
        let none = NamedTensors::new();
        let penalties = Penalties::default();
        let value = |s: &NamedTensors| {
            let n = tuner.network(s, &none).unwrap();
            let step = n
                .loss_and_gradients(&inputs, &targets, 4, &penalties, &|_| false)
                .unwrap();
            step.loss + step.penalty
        };
        let n = tuner.network(&state, &none).unwrap();
        let (_, g) = tuner
            .gradient(&n, &state, &inputs, &targets, 4, &penalties)
            .unwrap();
        for t in g.iter() {
            let i = (0..t.values.len())
                .max_by(|&a, &b| t.values[a].abs().total_cmp(&t.values[b].abs()))
                .unwrap();
            let move_by = |h: f32| {
                let mut s = state.clone();
                s.values_mut(&t.name).unwrap()[i] += h;
                value(&s)
            };
            let slope = (move_by(2e-3) - move_by(-2e-3)) / 4e-3;
            assert!(
                (slope - f64::from(t.values[i])).abs() < 2e-2 * slope.abs().max(0.02),
                "{kind:?} {}: {slope} against {}",
                t.name,
                t.values[i]
            );
        }
    }
}

#[test]
fn a_fresh_adapter_changes_nothing_and_ternary_results_stay_ternary() {
    let tuner = Tuner::new(base(false), &Method::default(), 1).unwrap();
    let state = tuner.initial(8, 0).unwrap();
    let none = NamedTensors::new();
    let ids = [1u32, 2, 3];
    assert_eq!(
        tuner
            .network(&state, &none)
            .unwrap()
            .logits(&ids, 3)
            .unwrap(),
        base(false).logits(&ids, 3).unwrap()
    );
    let trained = tuner.network(&randomised(&state), &none).unwrap();
    let served = trained.as_exported();
    for (a, b) in trained
        .logits(&ids, 3)
        .unwrap()
        .iter()
        .zip(served.logits(&ids, 3).unwrap())
    {
        assert!(
            (a - b).abs() < 0.02 * (1.0 + b.abs()),
            "only the embedding is rounded: {a} {b}"
        );
    }
}

#[test]
fn wrong_settings_and_layouts_are_named() {
    let m = |f: fn(&mut Method)| {
        let mut m = Method::default();
        f(&mut m);
        m.check(2).unwrap_err().to_string()
    };
    assert!(m(|m| m.rank = 0).contains("method.rank"));
    assert!(m(|m| m.ranks = vec![1]).contains("method.ranks"));
    assert!(m(|m| m.targets = vec!["q".into()]).contains("method.targets"));
    assert!(m(|m| m.scales = true).contains("method.scales"));
    let tuner = Tuner::new(base(false), &Method::default(), 1).unwrap();
    let message = tuner
        .network(&NamedTensors::new(), &NamedTensors::new())
        .unwrap_err()
        .to_string();
    assert!(message.contains("layers.0.qkv.lora_b"), "{message}");
}
