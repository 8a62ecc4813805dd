//! A client and a server that share only bytes, in a small ring: every step against the same program in the clear.

mod common;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use common::{Case, model, uniform};
use num_complex::Complex64;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tacit_ckks::{InsecureParameters, Parameters, ParametersLiteral};
use tacit_ensi::{
    Client, EncryptedModel, EnsiError, Progress, Server, machine::clear::ClearMachine,
};

/// The default chain in a ring of dimension 2^11 with a small ring of 2^8.
fn parameters() -> Parameters {
    InsecureParameters::new(ParametersLiteral {
        small_log_n: 8,
        ..ParametersLiteral::default_chain(11)
    })
    .unwrap()
}

struct Session {
    model: Arc<EncryptedModel>,
    client: Client,
    server: Server,
    rows: Vec<Vec<f32>>,
}

fn session(case: &Case, tokens: usize, seed: u64) -> Session {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (bitnet, calibration) = model(case, &mut rng);
    let model = Arc::new(EncryptedModel::new(&bitnet, &calibration, parameters()).unwrap());
    let client = Client::new(model.key_plan(), parameters()).unwrap();
    let mut server = Server::new(model.clone());
    for message in client.key_messages() {
        server.accept_key(&message.unwrap()).unwrap();
    }
    let rows = (0..tokens)
        .map(|_| {
            (0..case.hidden)
                .map(|_| 1.5 * uniform(&mut rng) as f32)
                .collect()
        })
        .collect();
    Session {
        model,
        client,
        server,
        rows,
    }
}

/// Runs the session and compares every probed value; returns the worst bits of any, the answer included.
fn worst_bits(s: &mut Session) -> f64 {
    let layout = *s.model.transformer().layout();
    let hidden = s.rows[0].len();
    let mut slots = vec![vec![Complex64::default(); layout.slots()]; layout.ciphertexts(hidden)];
    for t in 0..layout.tokens() {
        for (i, value) in s.rows[t % s.rows.len()].iter().enumerate() {
            for (c, block) in layout.positions(i, hidden) {
                slots[c][layout.slot(block, t)] = Complex64::new(f64::from(*value), 0.0);
            }
        }
    }
    let plan = s.model.key_plan();
    // values of several ciphertexts come under one name, in order
    let mut expected: BTreeMap<String, VecDeque<Vec<Complex64>>> = BTreeMap::new();
    let out = {
        let probe = |name: &str, layer: usize, values: &[Complex64]| {
            expected
                .entry(format!("{layer} {name}"))
                .or_default()
                .push_back(values.to_vec());
        };
        let mut clear = ClearMachine::new(
            s.model.engine().chain().clone(),
            layout,
            Some(Box::new(probe)),
        );
        let input = slots
            .into_iter()
            .map(|v| clear.input(v, plan.input_level, plan.input_scale))
            .collect();
        s.model.transformer().run(&mut clear, input).unwrap()
    };
    let prompt = s.client.encrypt_prompt(&s.rows).unwrap();
    let mut worst = f64::INFINITY;
    let client = &s.client;
    let probe = |name: &str, layer: usize, ct: &tacit_ckks::Ciphertext| {
        let got = client.decrypt_slots(ct).unwrap();
        let want = expected
            .get_mut(&format!("{layer} {name}"))
            .and_then(VecDeque::pop_front)
            .unwrap();
        let largest = want.iter().fold(0f64, |m, v| m.max(v.norm()));
        let error = got
            .iter()
            .zip(&want)
            .fold(0f64, |m, (a, b)| m.max((a - b).norm()));
        let bits = -(error / largest).log2();
        println!("{layer} {name}: largest {largest:.3} error {error:.3e} bits {bits:.1}");
        worst = worst.min(bits);
    };
    let answer = s
        .server
        .forward_probed(&prompt, &mut |_| Ok(()), Some(Box::new(probe)))
        .unwrap();
    let hidden_states = s.client.decrypt_answer(&answer, s.rows.len()).unwrap();
    let (mut largest, mut error) = (0f64, 0f64);
    for (t, row) in hidden_states.iter().enumerate() {
        for (i, got) in row.iter().enumerate() {
            let (c, block) = layout.positions(i, hidden)[0];
            let want = out[c].values[layout.slot(block, t)].re;
            largest = largest.max(want.abs());
            error = error.max((got - want).abs());
        }
    }
    assert_eq!(hidden_states.len(), s.rows.len());
    worst.min(-(error / largest).log2())
}

/// Operations of every step against the plan.
fn every_count_is_as_planned(s: &mut Session) {
    let prompt = s.client.encrypt_prompt(&s.rows).unwrap();
    let mut done = Vec::new();
    s.server
        .forward(&prompt, &mut |p| {
            if let Progress::Finished { step, counts, .. } = p {
                done.push((step, counts));
            }
            Ok(())
        })
        .unwrap();
    let planned = &s.model.plan().steps;
    assert_eq!(done.len(), planned.len());
    for ((step, counts), plan) in done.iter().zip(planned) {
        assert_eq!(*counts, plan.counts, "step {step}, {}", plan.name);
    }
}

#[test]
fn two_layers_match_the_clear_program_and_the_plan() {
    let case = Case::small(2);
    let mut s = session(&case, 8, 11);
    let bits = worst_bits(&mut s);
    assert!(bits > 10.0, "{bits}");
    every_count_is_as_planned(&mut s);
}

#[test]
fn gains_grouped_queries_and_two_ciphertexts() {
    let case = Case {
        hidden: 160,
        ffn: 150,
        heads: 20,
        kv_heads: 5,
        layers: 1,
        gains: true,
        sub_norms: true,
        normalised: false,
    };
    let mut s = session(&case, 3, 12);
    let bits = worst_bits(&mut s);
    assert!(bits > 10.0, "{bits}");
    every_count_is_as_planned(&mut s);
}

#[test]
fn foreign_truncated_and_missing_messages_are_refused() {
    let case = Case::small(1);
    let mut s = session(&case, 2, 13);
    let prompt = s.client.encrypt_prompt(&s.rows).unwrap();
    let say = |r: Result<Vec<u8>, EnsiError>| r.err().map(|e| e.to_string()).unwrap_or_default();
    // another client's prompt
    let mut other = Client::new(s.model.key_plan(), parameters()).unwrap();
    let foreign = other.encrypt_prompt(&s.rows).unwrap();
    let message = say(s.server.forward(&foreign, &mut |_| Ok(())));
    assert!(message.contains("key"), "{message}");
    // cut off, and damaged in the middle
    let message = say(s
        .server
        .forward(&prompt[..prompt.len() / 2], &mut |_| Ok(())));
    assert!(!message.is_empty());
    let mut damaged = prompt.clone();
    damaged[prompt.len() / 2] ^= 4;
    assert!(!say(s.server.forward(&damaged, &mut |_| Ok(()))).is_empty());
    // an answer read by a client it is not for
    let answer = s.server.forward(&prompt, &mut |_| Ok(())).unwrap();
    assert!(other.decrypt_answer(&answer, 2).is_err());
    assert!(s.client.decrypt_answer(&prompt, 2).is_err());
    // a server without keys names them
    let mut empty = Server::new(s.model.clone());
    let message = say(empty.forward(&prompt, &mut |_| Ok(())));
    assert!(
        message.contains("relinearisation") || message.contains("Galois"),
        "{message}"
    );
    let mut key = s.client.key_messages().next().unwrap().unwrap();
    key.truncate(key.len() - 9);
    assert!(empty.accept_key(&key).is_err());
    // too many tokens, none, wrong width
    assert!(matches!(
        s.client.encrypt_prompt(&vec![vec![0.0; 32]; 9]),
        Err(EnsiError::Window {
            tokens: 9,
            window: 8
        })
    ));
    assert!(s.client.encrypt_prompt(&[]).is_err());
    assert!(s.client.encrypt_prompt(&[vec![0.0; 31]]).is_err());
    // the caller may stop
    let stopped = s.server.forward(&prompt, &mut |_| Err(EnsiError::Stopped));
    assert!(matches!(stopped, Err(EnsiError::Stopped)));
}

#[test]
fn published_keys_are_listed_by_their_own_numbers() {
    let case = Case::small(1);
    let s = session(&case, 2, 14);
    let keys = s.client.published_keys();
    // every message is a key; the ternary products' message holds two
    assert_eq!(keys.len(), s.client.key_count() + 1);
}

/// A run that ends after the first layer and goes on in another process: same seed, same saved state, same ciphertexts.
#[test]
fn a_pass_that_was_interrupted_goes_on_with_the_same_ciphertexts() {
    let mut rng = ChaCha20Rng::seed_from_u64(15);
    let (bitnet, calibration) = model(&Case::small(2), &mut rng);
    let model = Arc::new(EncryptedModel::new(&bitnet, &calibration, parameters()).unwrap());
    let rows: Vec<Vec<f32>> = (0..8)
        .map(|_| (0..32).map(|_| uniform(&mut rng) as f32).collect())
        .collect();
    let seed = [7; 32];
    let begin = || {
        let client = Client::from_seed(model.key_plan(), parameters(), &seed).unwrap();
        let mut server = Server::new(model.clone());
        for message in client.key_messages() {
            server.accept_key(&message.unwrap()).unwrap();
        }
        server.ready().unwrap();
        (client, server)
    };
    let (mut client, mut server) = begin();
    let prompt = client.encrypt_prompt(&rows).unwrap();
    let undisturbed = server.forward(&prompt, &mut |_| Ok(())).unwrap();
    let saved = {
        let x = server.read_prompt(&prompt).unwrap();
        let x = server.run_layers(x, 0..1, &mut |_| Ok(()), None).unwrap();
        server.write_state(&x).unwrap()
    };

    let (client, mut server) = begin();
    let x = server.read_state(&saved).unwrap();
    let mut steps = Vec::new();
    let x = server
        .run_layers(
            x,
            1..2,
            &mut |p| {
                if let Progress::Started { step } = p {
                    steps.push(step);
                }
                Ok(())
            },
            None,
        )
        .unwrap();
    let answer = server.write_answer(&x).unwrap();
    assert!(
        answer == undisturbed,
        "another answer after the interruption"
    );
    assert_eq!(client.decrypt_answer(&answer, 8).unwrap().len(), 8);
    // progress goes on where the plan's second layer begins
    assert_eq!(steps.first(), Some(&model.plan().steps_before(1)));
    assert!(server.read_state(&saved[..saved.len() - 1]).is_err());
}

#[test]
fn decode_steps_over_a_cache_match_the_window() {
    steps_match_the_window(&Case::small(2));
}

#[test]
fn rows_divided_by_their_sums_match_the_clear_program_and_the_window() {
    let case = Case {
        normalised: true,
        ..Case::small(2)
    };
    let mut s = session(&case, 8, 15);
    assert!(worst_bits(&mut s) > 10.0);
    every_count_is_as_planned(&mut s);
    steps_match_the_window(&case);
}

/// Tokens after the prompt one by one over the encrypted cache, against the hidden states of a pass over the whole window.
fn steps_match_the_window(case: &Case) {
    let mut rng = ChaCha20Rng::seed_from_u64(16);
    let (bitnet, calibration) = model(case, &mut rng);
    let model = Arc::new(
        EncryptedModel::with_decoder(&bitnet, &calibration, parameters(), Some(2)).unwrap(),
    );
    let rows: Vec<Vec<f32>> = (0..8)
        .map(|_| (0..32).map(|_| 1.5 * uniform(&mut rng) as f32).collect())
        .collect();
    let mut client = Client::new(model.key_plan(), parameters()).unwrap();
    assert_eq!(client.published_keys().len(), client.key_count() + 2);
    let mut server = Server::new(model.clone());
    for message in client.key_messages() {
        server.accept_key(&message.unwrap()).unwrap();
    }
    let token = client.encrypt_token(&rows[0]).unwrap();
    let message = server.decode(&token, &mut |_| Ok(())).unwrap_err();
    assert!(message.to_string().contains("prefill"), "{message}");

    let prompt = client.encrypt_prompt(&rows).unwrap();
    let window = server.forward(&prompt, &mut |_| Ok(())).unwrap();
    let window = client.decrypt_answer(&window, 8).unwrap();
    let first = client.encrypt_prompt(&rows[..6]).unwrap();
    let answer = server.prefill(&first, 6, &mut |_| Ok(())).unwrap();
    let answer = client.decrypt_answer(&answer, 6).unwrap();
    let bits = |got: &[f64], want: &[f64]| {
        let largest = window.iter().flatten().fold(0f64, |m, v| m.max(v.abs()));
        let error = got
            .iter()
            .zip(want)
            .fold(0f64, |m, (a, b)| m.max((a - b).abs()));
        -(error / largest).log2()
    };
    assert!(bits(&answer[5], &window[5]) > 10.0);
    assert!(server.kept_bytes() > 0);
    let decoder = model.decoder().unwrap();
    // here the two vectors of a refresh share its real parts
    assert!(decoder.transformer().layout().beside(case.ffn).is_some());
    let planned = &decoder.plan().steps;
    for position in 6..8 {
        assert_eq!(server.kept_tokens(), position);
        // a step that is stopped leaves the cache as it was
        let token = client.encrypt_token(&rows[position]).unwrap();
        let stopped = server.decode(&token, &mut |_| Err(EnsiError::Stopped));
        assert!(matches!(stopped, Err(EnsiError::Stopped)));
        let mut done = Vec::new();
        let answer = server
            .decode(&token, &mut |p| {
                if let Progress::Finished { step, counts, .. } = p {
                    done.push((step, counts));
                }
                Ok(())
            })
            .unwrap();
        let hidden = client.decrypt_token(&answer).unwrap();
        let bits = bits(&hidden, &window[position]);
        assert!(bits > 10.0, "position {position}: {bits} bits");
        assert_eq!(done.len(), planned.len());
        if position == 7 {
            for ((step, counts), plan) in done.iter().zip(planned) {
                assert_eq!(*counts, plan.counts, "step {step}, {}", plan.name);
            }
        }
    }
    // the window is full
    let token = client.encrypt_token(&rows[0]).unwrap();
    let full = server.decode(&token, &mut |_| Ok(()));
    assert!(matches!(full, Err(EnsiError::Window { .. })));
}
