//! Several requests at once on one pool: no more work at a time than the pool has threads, and every answer the one it has alone.

mod common;

use std::{sync::Arc, time::Instant};

use common::{Case, model, uniform};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rayon::ThreadPoolBuilder;
use tacit_ckks::{InsecureParameters, ParametersLiteral};
use tacit_ensi::{Client, EncryptedModel, Server};

/// Seconds of processor time of all threads of this process, where the system has `/proc`.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name is in parentheses and may hold anything; user and system ticks are fields 14 and 15.
    let (_, after) = stat.rsplit_once(") ")?;
    let ticks = after.split_whitespace().skip(11).take(2);
    Some(ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0)
}

#[test]
fn requests_share_one_pool() {
    let parameters = InsecureParameters::new(ParametersLiteral {
        small_log_n: 8,
        ..ParametersLiteral::default_chain(11)
    })
    .unwrap();
    let case = Case::small(1);
    let mut rng = ChaCha20Rng::seed_from_u64(21);
    let (bitnet, calibration) = model(&case, &mut rng);
    let model = EncryptedModel::new(&bitnet, &calibration, parameters.clone()).unwrap();
    let model = Arc::new(model);
    let mut clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = Client::new(model.key_plan(), parameters.clone()).unwrap();
            let mut server = Server::new(model.clone());
            for message in client.key_messages() {
                server.accept_key(&message.unwrap()).unwrap();
            }
            let rows: Vec<Vec<f32>> = (0..3)
                .map(|_| {
                    let row = (0..case.hidden).map(|_| 1.5 * uniform(&mut rng) as f32);
                    row.collect()
                })
                .collect();
            let prompt = client.encrypt_prompt(&rows).unwrap();
            (server, prompt)
        })
        .collect();
    let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let answer = |(server, prompt): &mut (Server, Vec<u8>)| {
        pool.install(|| server.forward(prompt, &mut |_| Ok(())).unwrap())
    };
    let alone: Vec<_> = clients.iter_mut().map(answer).collect();

    let (start, before) = (Instant::now(), processor_seconds());
    let together: Vec<_> = std::thread::scope(|scope| {
        let requests: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || answer(client)))
            .collect();
        requests.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    let processor = before.and_then(|before| Some(processor_seconds()? - before));
    assert!(
        together == alone,
        "an answer depends on what else the server does"
    );
    if let Some(processor) = processor {
        assert!(
            processor < 1.2 * seconds,
            "{processor:.2} s of processor time in {seconds:.2} s: more than the one thread of the pool worked"
        );
    }
}
