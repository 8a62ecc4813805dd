//! Many documents at once: the program in the clear against a transformer from the formulas, a client and a server that share only bytes against the
//! program in the clear, and every count against the plan.

mod common;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use common::{Case, layer, model, uniform};
use num_complex::Complex64;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tacit_bitnet::{Calibration, Model};
use tacit_ckks::{InsecureParameters, Parameters, ParametersLiteral};
use tacit_ensi::{
    Client, ColumnModel, ColumnServer, EnsiError, Progress,
    columns::{layout::ColumnLayout, program::ColumnTransformer},
    layout::Layout,
    machine::{Chain, clear::ClearMachine},
};

/// The chain of the preset that batches take, in a ring of dimension 2^11.
fn parameters() -> Parameters {
    let default = ParametersLiteral::default_chain(11);
    InsecureParameters::new(ParametersLiteral {
        small_log_n: 8,
        user_bits: vec![45; 12],
        cts_bits: vec![50; 4],
        ..default
    })
    .unwrap()
}

/// `documents` of random embeddings, of different lengths when `ragged`.
fn documents(case: &Case, count: usize, ragged: bool, rng: &mut ChaCha20Rng) -> Vec<Vec<Vec<f32>>> {
    (0..count)
        .map(|d| {
            (0..if ragged { 1 + (3 * d) % 8 } else { 8 })
                .map(|_| {
                    (0..case.hidden)
                        .map(|_| 1.5 * uniform(rng) as f32)
                        .collect()
                })
                .collect()
        })
        .collect()
}

/// The formulas on one document.
fn expected(model: &Model, calibration: &Calibration, document: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let mut x: Vec<Vec<f64>> = document
        .iter()
        .map(|row| row.iter().map(|x| f64::from(*x)).collect())
        .collect();
    for (w, c) in model.layers.iter().zip(&calibration.layers) {
        layer(&model.config, w, c, &mut x);
    }
    x
}

fn clear_run(
    transformer: &ColumnTransformer,
    chain: Chain,
    batch: &[Vec<Vec<f32>>],
    probe: Option<tacit_ensi::machine::clear::ProbeFn<'_>>,
) -> Vec<Vec<f64>> {
    let layout = transformer.layout();
    let scale = transformer.residual_scale(&chain);
    let top = chain.top;
    let window = Layout::new(2 * layout.slots(), layout.tokens()).unwrap();
    let mut machine = ClearMachine::new(chain, window, probe);
    let x = layout
        .slots_of(batch)
        .into_iter()
        .map(|slots| {
            let values = slots.into_iter().map(Complex64::from).collect();
            machine.input(values, top, scale)
        })
        .collect();
    let out = transformer.run(&mut machine, x).unwrap();
    out.iter()
        .map(|ct| ct.values.iter().map(|x| x.re).collect())
        .collect()
}

fn largest_difference(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

#[test]
fn the_program_is_the_formulas() {
    let chain = Chain::of(&parameters());
    let cases = [
        (Case::small(2), 1),
        (Case::small(2), 4),
        (Case::small(1), 2),
        (
            Case {
                kv_heads: 2,
                gains: true,
                ..Case::small(1)
            },
            2,
        ),
        (
            Case {
                sub_norms: false,
                ..Case::small(1)
            },
            2,
        ),
    ];
    for (number, (case, lanes)) in cases.into_iter().enumerate() {
        let mut rng = ChaCha20Rng::seed_from_u64(number as u64);
        let (model, calibration) = model(&case, &mut rng);
        let layout = ColumnLayout::new(1 << 9, 8, lanes).unwrap();
        // gains take levels that the chain does not have; the clear program needs none of their limits
        let chain = Chain {
            q: [&chain.q[..], &[chain.scale; 4]].concat(),
            top: chain.top + 4,
            ..chain.clone()
        };
        let transformer = ColumnTransformer::new(&model, &calibration, layout).unwrap();
        let batch = documents(&case, layout.documents(), false, &mut rng);
        let out = clear_run(&transformer, chain, &batch, None);
        for (d, document) in batch.iter().enumerate() {
            let found: Vec<Vec<f64>> = (0..8)
                .map(|t| layout.vector(&out, case.hidden, d, t))
                .collect();
            let wanted = expected(&model, &calibration, document);
            let error = largest_difference(&found, &wanted);
            assert!(error < 1e-6, "case {number}, document {d}: {error}");
        }
    }
}

struct Session {
    model: Arc<ColumnModel>,
    client: Client,
    server: ColumnServer,
    bitnet: Model,
    calibration: Calibration,
}

fn session(case: &Case, lanes: usize, seed: u64) -> Session {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (bitnet, calibration) = model(case, &mut rng);
    let model = ColumnModel::new(&bitnet, &calibration, parameters(), lanes).unwrap();
    let model = Arc::new(model);
    let client = Client::new(model.key_plan(), parameters()).unwrap();
    let mut server = ColumnServer::new(model.clone());
    assert!(matches!(server.ready(), Err(EnsiError::MissingKeys(_))));
    for message in client.key_messages() {
        server.accept_key(&message.unwrap()).unwrap();
    }
    server.ready().unwrap();
    Session {
        model,
        client,
        server,
        bitnet,
        calibration,
    }
}

/// Ragged documents, not as many as the batch takes: every probed value and the answer against the program in the clear, the answer against the
/// formulas, and the operations of every step against the plan.
#[test]
fn a_batch_matches_the_clear_program_and_the_plan() {
    let case = Case::small(2);
    let mut s = session(&case, 4, 5);
    let layout = *s.model.transformer().layout();
    assert_eq!((layout.lanes(), layout.documents()), (4, 32));
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let batch = documents(&case, 21, true, &mut rng);
    let mut probed: BTreeMap<String, VecDeque<Vec<Complex64>>> = BTreeMap::new();
    let clear = {
        let probe = |name: &str, layer: usize, values: &[Complex64]| {
            let values = values.to_vec();
            probed
                .entry(format!("{layer} {name}"))
                .or_default()
                .push_back(values);
        };
        let chain = s.model.engine().chain().clone();
        clear_run(s.model.transformer(), chain, &batch, Some(Box::new(probe)))
    };
    let message = s.client.encrypt_documents(&batch).unwrap();
    let client = &s.client;
    let mut worst = f64::INFINITY;
    let probe = |name: &str, layer: usize, ct: &tacit_ckks::Ciphertext| {
        let got = client.decrypt_slots(ct).unwrap();
        let values = probed.get_mut(&format!("{layer} {name}"));
        let want = values.and_then(VecDeque::pop_front).unwrap();
        let largest = want.iter().fold(0f64, |m, v| m.max(v.norm()));
        let pairs = got.iter().zip(&want);
        let error = pairs.fold(0f64, |m, (a, b)| m.max((a - b).norm()));
        let bits = -(error / largest).log2();
        println!("{layer} {name}: largest {largest:.3} error {error:.3e} bits {bits:.1}");
        worst = worst.min(bits);
    };
    let mut done = Vec::new();
    let x = s.server.read(&message).unwrap();
    let answer = s
        .server
        .forward(
            x,
            &mut |p| {
                if let Progress::Finished { step, counts, .. } = p {
                    done.push((step, counts));
                }
                Ok(())
            },
            Some(Box::new(probe)),
        )
        .unwrap();
    assert!(worst > 9.0, "{worst} bits");
    let lengths: Vec<usize> = batch.iter().map(Vec::len).collect();
    let states = s.client.decrypt_documents(&answer, &lengths).unwrap();
    assert_eq!(states.len(), 21);
    for (d, (state, document)) in states.iter().zip(&batch).enumerate() {
        let wanted: Vec<Vec<f64>> = (0..document.len())
            .map(|t| layout.vector(&clear, case.hidden, d, t))
            .collect();
        assert!(largest_difference(state, &wanted) < 0.01, "document {d}");
        let formulas = expected(&s.bitnet, &s.calibration, document);
        assert!(largest_difference(state, &formulas) < 0.01, "document {d}");
    }
    let planned = &s.model.plan().steps;
    assert_eq!(done.len(), planned.len());
    for ((step, counts), plan) in done.iter().zip(planned) {
        assert_eq!(*counts, plan.counts, "step {step}, {}", plan.name);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let case = Case::small(1);
    let (bitnet, calibration) = model(&case, &mut rng);
    for lanes in [3, 8] {
        let refused = ColumnModel::new(&bitnet, &calibration, parameters(), lanes);
        assert!(matches!(refused, Err(EnsiError::Shape(_))), "{lanes} lanes");
    }
    let normalised = Case {
        normalised: true,
        ..Case::small(1)
    };
    let (bitnet, calibration) = model(&normalised, &mut rng);
    let refused = ColumnModel::new(&bitnet, &calibration, parameters(), 2);
    let Err(EnsiError::Shape(says)) = refused else {
        panic!("normalised rows in columns");
    };
    assert!(says.contains("one by one"), "{says}");

    let mut s = session(&case, 4, 10);
    let batch = documents(&case, 33, false, &mut rng);
    assert!(s.client.encrypt_documents(&batch).is_err());
    assert!(s.client.encrypt_documents(&[]).is_err());
    assert!(s.client.encrypt_documents(&[vec![vec![0.0; 3]]]).is_err());
    let long = vec![vec![vec![0.0; case.hidden]; 9]];
    assert!(matches!(
        s.client.encrypt_documents(&long),
        Err(EnsiError::Window { .. })
    ));
    assert!(s.server.read(b"TSES").is_err());
    let message = s.client.encrypt_documents(&batch[..2]).unwrap();
    let x = s.server.read(&message).unwrap();
    let stopped = s.server.forward(x, &mut |_| Err(EnsiError::Stopped), None);
    assert!(matches!(stopped, Err(EnsiError::Stopped)));
}
