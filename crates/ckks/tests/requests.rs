//! Several requests at once share one pool of workers: no thread is started for a request, and each gets the result it gets alone.

mod common;

use std::sync::{
    Barrier,
    atomic::{AtomicUsize, Ordering},
};

use common::Fixture;

/// Threads of this process, where the system tells.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

#[test]
fn requests_share_the_pool_and_get_what_they_get_alone() {
    const REQUESTS: usize = 6;
    let mut f = Fixture::small();
    let keys = f.keys(&[1, 2]);
    let inputs: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let slots = f.random_slots();
            f.encrypt(&slots, 6)
        })
        .collect();
    let (f, keys, inputs) = (&f, &keys, &inputs);
    let answer = |request: usize| {
        let square = f.evaluator.square(&inputs[request], keys).unwrap();
        let hoisted = f
            .evaluator
            .hoist(&square, keys.relinearisation.shape().special)
            .unwrap();
        let rotated = f.evaluator.rotate_hoisted(&hoisted, &[1, 2], keys).unwrap();
        rotated.into_iter().map(|ct| ct.parts).collect::<Vec<_>>()
    };
    let alone: Vec<_> = (0..REQUESTS).map(answer).collect();
    let before = threads();
    let (most, start) = (AtomicUsize::new(0), Barrier::new(REQUESTS));
    std::thread::scope(|scope| {
        for (request, alone) in alone.iter().enumerate() {
            let (most, start) = (&most, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..8 {
                    assert!(answer(request) == *alone, "request {request}");
                    most.fetch_max(threads().unwrap_or(0), Ordering::Relaxed);
                }
            });
        }
    });
    if let Some(before) = before {
        let most = most.into_inner();
        assert!(
            most <= before + REQUESTS,
            "{REQUESTS} callers made {} threads",
            most - before
        );
        assert!(
            most > before,
            "the callers themselves should have been seen"
        );
    }
}
