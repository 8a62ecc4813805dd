//! Gradient checks of the whole network.

use super::*;
use crate::train::AttentionKind;

fn tiny(attention: AttentionKind, unquantised: bool) -> (TrainConfig, Network) {
    let c = TrainConfig {
        hidden: 16,
        layers: 2,
        heads: 2,
        ffn: 24,
        vocab: 300,
        context: 5,
        attention,
        unquantised,
        ..TrainConfig::default()
    };
    let mut n = Network::new(&c);
    // Larger weights than the initial ones, so that nothing is nearly linear.
    for p in &mut n.parameters {
        let scale = if p.kind == Kind::Vector { 1.0 } else { 12.0 };
        p.data.iter_mut().for_each(|x| *x *= scale);
    }
    n.norms = NormState {
        attn_centre: vec![-1.0; 2],
        ffn_centre: vec![0.5; 2],
        attn_eps: vec![0.01; 2],
        primed: true,
    };
    (c, n)
}

#[test]
fn gradients_agree_with_difference_quotients() {
    let inputs: Vec<u32> = vec![1, 7, 299, 7, 0, 5, 5, 9, 120, 3];
    let targets: Vec<u32> = vec![7, 299, 7, 0, 4, 5, 9, 120, 3, 2];
    for attention in [AttentionKind::Sigmoid, AttentionKind::Softmax] {
        let (_, mut net) = tiny(attention, true);
        let p = Penalties {
            logits: 1.0,
            logit_range: (-1.0, -0.5),
            norms: 0.3,
            norm_width: 0.2,
            gate: 0.4,
            gate_limit: 0.6,
            peaks: 0.5,
            peak_limit: 1.2,
        };
        let step = net.step(&inputs, &targets, &p).unwrap();
        assert!(step.penalties[1] > 1e-3 && step.penalties[2] > 1e-3);
        let value = |n: &Network| {
            let s = n.step(&inputs, &targets, &p).unwrap();
            s.loss + s.penalties.iter().sum::<f64>()
        };
        for i in 0..net.parameters.len() {
            let g = with_data(step.gradients[i].as_ref().unwrap(), <[f32]>::to_vec).unwrap();
            assert_eq!(g.len(), net.parameters[i].data.len());
            let len = g.len();
            let mut largest = (0..len)
                .max_by(|&a, &b| g[a].abs().total_cmp(&g[b].abs()))
                .into_iter()
                .chain([len / 3, len - 1])
                .collect::<Vec<_>>();
            largest.dedup();
            for j in largest {
                let h = 2e-3f32;
                let old = net.parameters[i].data[j];
                net.parameters[i].data[j] = old + h;
                let up = value(&net);
                net.parameters[i].data[j] = old - h;
                let slope = (up - value(&net)) / f64::from((old + h) - (old - h));
                net.parameters[i].data[j] = old;
                let err = (slope - f64::from(g[j])).abs();
                assert!(
                    err < 2e-2 * slope.abs().max(0.02),
                    "{} [{j}]: {slope} against {}",
                    net.parameters[i].name,
                    g[j]
                );
            }
        }
    }
}

#[test]
fn ternary_weights_pass_the_gradient_straight_through() {
    let (inputs, targets): (Vec<u32>, Vec<u32>) = (vec![1, 2, 3, 4, 5], vec![2, 3, 4, 5, 6]);
    let (_, net) = tiny(AttentionKind::Sigmoid, false);
    let mut dense = net.clone();
    for p in &mut dense.parameters {
        p.data = p.effective(true);
    }
    dense.sizes.quantised = false;
    let (a, b) = (
        net.step(&inputs, &targets, &Penalties::default()).unwrap(),
        dense
            .step(&inputs, &targets, &Penalties::default())
            .unwrap(),
    );
    assert_eq!(a.loss.to_bits(), b.loss.to_bits());
    for (x, y) in a.gradients.iter().zip(&b.gradients) {
        assert_eq!(
            with_data(x.as_ref().unwrap(), <[f32]>::to_vec).unwrap(),
            with_data(y.as_ref().unwrap(), <[f32]>::to_vec).unwrap()
        );
    }
    let qkv = &dense.parameters[QKV].data;
    let mut values: Vec<_> = qkv[..16 * 16].iter().map(|x| x.abs().to_bits()).collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!(
        values.len(),
        2,
        "a ternary tensor has one magnitude besides 0"
    );
}

#[test]
fn evaluation_and_training_losses_agree_and_bad_input_is_named() {
    let (_, net) = tiny(AttentionKind::Sigmoid, false);
    let window = (vec![1u32, 2, 3, 4, 5], vec![2u32, 3, 4, 5, 6]);
    let s = net.step(&window.0, &window.1, &Penalties::none()).unwrap();
    assert!((net.total_loss(&[window], 4).unwrap() / 5.0 - s.loss).abs() < 1e-6);
    assert!(
        net.logits(&[300], 1)
            .unwrap_err()
            .to_string()
            .contains("300")
    );
    assert!(net.logits(&[1; 6], 6).is_err());
    assert_eq!(net.logits(&[1, 2, 3], 3).unwrap().len(), 900);
}
