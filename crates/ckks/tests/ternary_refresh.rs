//! A ternary linear layer between the two halves of a refresh: slots in, slots out, at a small ring dimension.

mod common;

use common::Fixture;
use num_complex::Complex64;
use rand_core::RngCore;
use tacit_ckks::{
    EvaluationKeys, OpCounts, ParametersLiteral,
    bootstrap::{Bootstrapper, EncapsulationKeys},
    mlwe::{InputPlacement, MlweContext, MlweKeys, OutputPlacement, TernaryMix},
};

/// Blocks of `TOKENS` slots hold a feature each; the imaginary parts hold another feature.
const TOKENS: usize = 16;

fn bit_reversed(x: usize, count: usize) -> usize {
    x.reverse_bits() >> (usize::BITS - count.trailing_zeros())
}

#[test]
fn a_layer_inside_a_refresh_maps_slots_to_slots() {
    let mut f = Fixture::new(ParametersLiteral::default_chain(11));
    let bootstrapper = Bootstrapper::for_context(f.ctx.clone()).unwrap();
    let relinearisation = f
        .generator
        .relinearisation(&f.secret, bootstrapper.relinearisation_shape())
        .unwrap();
    let mut keys = EvaluationKeys::new(relinearisation);
    for key in bootstrapper.galois_keys(&mut f.generator, &f.secret) {
        assert!(keys.insert(key.unwrap()).is_none());
    }
    let ephemeral = f.generator.ephemeral_secret(&f.secret).unwrap();
    let encapsulation =
        EncapsulationKeys::generate(&mut f.generator, &f.secret, &ephemeral).unwrap();
    let context = MlweContext::new(&f.ctx, 2 * TOKENS).unwrap();
    let mlwe_keys = MlweKeys::generate(&context, &f.secret, &ephemeral, &mut f.rng).unwrap();

    // 100 features in the real parts of two ciphertexts; 150 outputs: real and imaginary parts of the first ciphertext, and 22
    // more in the second.
    let blocks = context.shape().features();
    assert_eq!(blocks, 64);
    let (d_in, d_out) = (100, 150);
    let x: Vec<Vec<f64>> = (0..d_in)
        .map(|_| {
            (0..TOKENS)
                .map(|_| f.rng.next_u32() as f64 / f64::from(u32::MAX) * 2.0 - 1.0)
                .collect()
        })
        .collect();
    let w: Vec<i8> = (0..d_in * d_out)
        .map(|_| (f.rng.next_u32() % 3) as i8 - 1)
        .collect();
    let inputs: Vec<_> = (0..d_in)
        .map(|i| InputPlacement {
            ciphertext: i / blocks,
            feature: bit_reversed(i % blocks, blocks),
            shift: 0,
        })
        .collect();
    // (ciphertext, block, imaginary)
    let place = |o: usize| (o / (2 * blocks), o % blocks, o / blocks % 2 == 1);
    let outputs: Vec<_> = (0..d_out)
        .map(|o| {
            let (ciphertext, block, imaginary) = place(o);
            let shift = if imaginary { TOKENS } else { 0 };
            vec![OutputPlacement {
                ciphertext,
                feature: bit_reversed(block, blocks),
                shift,
            }]
        })
        .collect();
    let mix = TernaryMix::new(*context.shape(), |o, i| w[o * d_in + i], inputs, &outputs).unwrap();

    let encrypted: Vec<_> = x
        .chunks(blocks)
        .map(|rows| {
            let mut slots = vec![Complex64::default(); f.ctx.params().slots()];
            for (slot, &v) in slots.iter_mut().zip(rows.iter().flatten()) {
                slot.re = v;
            }
            f.encrypt(&slots, f.ctx.params().bottom_user_level())
        })
        .collect();

    // Outputs reach about 20; they must stay within [-1, 1] of the message until EvalMod is done.
    let factor = 1.0 / 32.0;
    let coefficients: Vec<_> = encrypted
        .iter()
        .map(|ct| {
            bootstrapper
                .slots_to_coeffs(&f.evaluator, ct, factor, &keys)
                .unwrap()
        })
        .collect();
    f.evaluator.reset_counts();
    let (mixed, report) = context
        .apply::<u64>(&f.evaluator, &mlwe_keys, &mix, &coefficients)
        .unwrap();
    let counts = OpCounts {
        additions: report.additions,
        key_switches: 4,
        ..OpCounts::default()
    };
    assert_eq!(
        f.evaluator.counts(),
        counts,
        "a ternary layer adds and switches keys, nothing else"
    );

    let slots: Vec<Vec<Complex64>> = mixed
        .iter()
        .map(|ct| {
            let (re, im) = bootstrapper
                .refresh(&f.evaluator, ct, true, &keys, &encapsulation)
                .unwrap();
            assert_eq!(re.level, f.ctx.params().top_user_level());
            let im = f.decrypt(&im.unwrap());
            f.decrypt(&re)
                .iter()
                .zip(&im)
                .map(|(re, im)| Complex64::new(re.re, im.re))
                .collect()
        })
        .collect();
    let mut worst = 0f64;
    for o in 0..d_out {
        let (ciphertext, block, imaginary) = place(o);
        for t in 0..TOKENS {
            let want: f64 = (0..d_in)
                .map(|i| f64::from(w[o * d_in + i]) * x[i][t])
                .sum();
            let found = slots[ciphertext][block * TOKENS + t];
            let found = if imaginary { found.im } else { found.re };
            worst = worst.max((found - want).abs());
        }
    }
    println!("worst error of {d_out} outputs: {:.2} bits", -worst.log2());
    // 15.5 bits of EvalMod relative to 1, times 32.
    assert!(worst < 2f64.powi(-10), "{worst}");
}
