//! Seconds and bytes of a sum by two aggregators that verify every update's norm (Prio3).
//!
//! ```text
//! cargo run --release -p tacit-federated --example verified_sum
//! ```

use std::time::Instant;
use tacit_federated::protection::ckks_aggregation::sample_update;
use tacit_federated::protection::verified_sum::VerifiedSum;

fn main() {
    let clients = 4;
    for dimension in [1_000usize, 10_000, 75_000] {
        let scheme = VerifiedSum::new(dimension, 1.0, b"example").expect("valid sizes");
        let start = Instant::now();
        let reports: Vec<_> = (0..clients as u64)
            .map(|k| {
                let mut update = sample_update(k, dimension, 1.0);
                let norm = update.iter().map(|x| x * x).sum::<f32>().sqrt();
                update.iter_mut().for_each(|x| *x /= 1.0001 * norm);
                scheme.report(&update).expect("within the bound")
            })
            .collect();
        let making = start.elapsed().as_secs_f64() / clients as f64;
        let start = Instant::now();
        let out = scheme.sum(&reports).expect("accepted reports");
        let verifying = start.elapsed().as_secs_f64() / clients as f64;
        assert_eq!(out.accepted, clients);
        let up: usize = reports[0].0.iter().map(Vec::len).sum();
        println!(
            "{dimension} values: a client {making:.2} s and {up} bytes up ({:.0} x plain f32), both aggregators {verifying:.2} s a client and {} bytes between them",
            up as f64 / (4 * dimension) as f64,
            out.bytes_between / clients as u64,
        );
    }
}
