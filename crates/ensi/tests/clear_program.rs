//! The program on slots in the clear against a transformer written directly from the formulas.

mod common;

use common::{Case, layer, model, uniform};
use num_complex::Complex64;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tacit_ensi::{
    layout::Layout,
    machine::{Chain, clear::ClearMachine},
    transformer::Transformer,
};

/// A chain like the default one: q0, 3 below the user levels, 13 user primes.
fn chain() -> Chain {
    let mut q = vec![2f64.powi(50)];
    q.extend([2f64.powi(40); 3]);
    q.extend([2f64.powi(45); 13]);
    Chain {
        q,
        top: 16,
        bottom: 3,
        scale: 2f64.powi(45),
        message_scale: 2f64.powi(40),
    }
}

fn check(case: &Case, seed: u64) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (model, calibration) = model(case, &mut rng);
    let transformer = Transformer::new(&model, &calibration, 1 << 11).unwrap();
    let layout = *transformer.layout();
    let mut x: Vec<Vec<f64>> = (0..layout.tokens())
        .map(|_| (0..case.hidden).map(|_| 1.5 * uniform(&mut rng)).collect())
        .collect();
    let chain = chain();
    let (level, scale) = (
        transformer.residual_level(chain.bottom),
        transformer.residual_scale(chain.scale),
    );
    let mut machine = ClearMachine::new(chain, layout, None);
    let mut slots =
        vec![vec![Complex64::default(); layout.slots()]; layout.ciphertexts(case.hidden)];
    for (t, row) in x.iter().enumerate() {
        for (i, value) in row.iter().enumerate() {
            for (c, block) in layout.positions(i, case.hidden) {
                slots[c][layout.slot(block, t)] = Complex64::new(*value, 0.0);
            }
        }
    }
    let input = slots
        .into_iter()
        .map(|s| machine.input(s, level, scale))
        .collect();
    let out = transformer.run(&mut machine, input).unwrap();
    for (w, c) in model.layers.iter().zip(&calibration.layers) {
        layer(&model.config, w, c, &mut x);
    }
    let mut worst = 0f64;
    for (t, row) in x.iter().enumerate() {
        for (i, expected) in row.iter().enumerate() {
            for (c, block) in layout.positions(i, case.hidden) {
                worst = worst.max((out[c].values[layout.slot(block, t)] - expected).norm());
            }
        }
    }
    let largest = x.iter().flatten().fold(0f64, |m, v| m.max(v.abs()));
    assert!(
        largest.is_finite() && largest > 0.1,
        "degenerate case: {largest}"
    );
    assert!(
        worst < 1e-9 * largest,
        "error {worst:e} at values up to {largest}"
    );
}

#[test]
fn small_model_with_repeated_features() {
    check(&Case::small(2), 1);
}

#[test]
fn grouped_queries_gains_several_ciphertexts() {
    // 160 features need two ciphertexts of 128 blocks; 20 heads need two groups of 16
    check(
        &Case {
            hidden: 160,
            ffn: 200,
            heads: 20,
            kv_heads: 5,
            layers: 1,
            gains: true,
            sub_norms: true,
            normalised: false,
        },
        2,
    );
}

#[test]
fn no_sub_norms_and_heads_as_wide_as_the_window() {
    check(
        &Case {
            hidden: 32,
            ffn: 64,
            heads: 2,
            kv_heads: 1,
            layers: 1,
            gains: true,
            sub_norms: false,
            normalised: false,
        },
        3,
    );
}

#[test]
fn heads_that_are_padded_and_grouped_queries_that_share_a_set() {
    // head size 6: three pairs in room for four; 32 heads in two groups of 16, of which eight share keys and values
    check(
        &Case {
            hidden: 192,
            ffn: 300,
            heads: 32,
            kv_heads: 2,
            layers: 1,
            gains: true,
            sub_norms: true,
            normalised: false,
        },
        4,
    );
}

#[test]
fn rows_divided_by_their_sums() {
    check(
        &Case {
            normalised: true,
            ..Case::small(2)
        },
        8,
    );
    // three groups of 16 heads: their sums share one ciphertext
    check(
        &Case {
            hidden: 160,
            ffn: 200,
            heads: 40,
            kv_heads: 5,
            layers: 1,
            gains: true,
            sub_norms: true,
            normalised: true,
        },
        9,
    );
}

/// Slots of a vector in a layout, the same for all its tokens or one row each.
fn slots(layout: &Layout, rows: &[Vec<f64>]) -> Vec<Vec<Complex64>> {
    let features = rows[0].len();
    let mut out = vec![vec![Complex64::default(); layout.slots()]; layout.ciphertexts(features)];
    for t in 0..layout.tokens() {
        for (i, value) in rows[t % rows.len()].iter().enumerate() {
            for (c, block) in layout.positions(i, features) {
                out[c][layout.slot(block, t)] = Complex64::new(*value, 0.0);
            }
        }
    }
    out
}

/// The last tokens of a window one by one over the cache of the first ones, against the formulas.
fn check_steps(case: &Case, step: usize, prompt: usize, seed: u64) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (model, calibration) = model(case, &mut rng);
    let window = Transformer::new(&model, &calibration, 1 << 11).unwrap();
    let decoder = Transformer::decoder(&model, &calibration, 1 << 11, step).unwrap();
    let tokens = window.layout().tokens();
    let mut x: Vec<Vec<f64>> = (0..tokens)
        .map(|_| (0..case.hidden).map(|_| 1.5 * uniform(&mut rng)).collect())
        .collect();
    let chain = chain();
    let (level, scale) = (
        window.residual_level(chain.bottom),
        window.residual_scale(chain.scale),
    );
    let mut machine = ClearMachine::new(chain.clone(), *window.layout(), None);
    let mut stream: Vec<_> = slots(window.layout(), &x)
        .into_iter()
        .map(|s| machine.input(s, level, scale))
        .collect();
    let masks = decoder.keep_masks(prompt).unwrap();
    let mut kept = Vec::new();
    for layer in 0..case.layers {
        let cache = decoder.cache().unwrap();
        let (next, layer_cache) = window
            .run_layer_keeping(&mut machine, layer, stream, cache, &masks)
            .unwrap();
        stream = next;
        kept.push(layer_cache);
    }
    let embeddings = x.clone();
    for (w, c) in model.layers.iter().zip(&calibration.layers) {
        layer(&model.config, w, c, &mut x);
    }
    let largest = x.iter().flatten().fold(0f64, |m, v| m.max(v.abs()));
    let mut machine = ClearMachine::new(chain, *decoder.layout(), None);
    for position in prompt..tokens {
        let masks = decoder.step_masks(position).unwrap();
        let mut stream: Vec<_> = slots(decoder.layout(), &embeddings[position..=position])
            .into_iter()
            .map(|s| machine.input(s, level, scale))
            .collect();
        for (index, kept) in kept.iter_mut().enumerate() {
            stream = decoder
                .run_step(&mut machine, index, stream, kept, &masks)
                .unwrap();
        }
        let expected = slots(decoder.layout(), &x[position..=position]);
        for (got, want) in stream.iter().zip(&expected) {
            for (g, w) in got.values.iter().zip(want) {
                let error = (g - w).norm();
                assert!(
                    error < 1e-9 * largest,
                    "position {position}: error {error:e}"
                );
            }
        }
    }
    assert!(decoder.step_masks(tokens).is_err());
    assert!(window.step_masks(0).is_err());
}

#[test]
fn decode_steps_give_what_the_window_gives() {
    check_steps(&Case::small(2), 2, 5, 5);
    let normalised = Case {
        normalised: true,
        ..Case::small(2)
    };
    check_steps(&normalised, 2, 5, 11);
}

#[test]
fn decode_steps_with_grouped_queries_gains_and_several_ciphertexts() {
    // 32 heads in two groups of 16 places; key-value heads 0 to 3 of set 0, 4 to 7 of set 1
    let case = Case {
        hidden: 256,
        ffn: 300,
        heads: 32,
        kv_heads: 8,
        layers: 1,
        gains: true,
        sub_norms: true,
        normalised: false,
    };
    check_steps(&case, 1, 6, 6);
    // both groups on one set
    let shared = Case {
        heads: 32,
        kv_heads: 1,
        ..case
    };
    check_steps(&shared, 2, 1, 7);
    let normalised = Case {
        normalised: true,
        ..shared
    };
    check_steps(&normalised, 2, 3, 10);
}
