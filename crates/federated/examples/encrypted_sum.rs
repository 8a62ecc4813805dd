//! Seconds and bytes of encrypted aggregation, beside `tests/interop/tenseal_sum.py` which does the same with TenSEAL.
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo run --release -p tacit-federated --example encrypted_sum
//! ```

use std::time::Instant;
use tacit_federated::protection::ckks_aggregation::{
    CkksAggregation, CkksSum, Selection, sample_update,
};

fn main() {
    let clients = 8;
    println!(
        "{clients} clients; seconds of one client to encrypt, of the coordinator to read and add one update, of one client to decrypt"
    );
    for dimension in [100_000usize, 1_000_000] {
        for fraction in [1.0, 0.1] {
            let updates: Vec<Vec<f32>> = (0..clients as u64)
                .map(|i| sample_update(i, dimension, 1.0))
                .collect();
            let selection = Selection::top(&updates[0], fraction).expect("a fraction in (0, 1]");
            let count = selection.chosen().len();
            let scheme = CkksAggregation::new(count, clients, 1.0).expect("valid sizes");
            let key = scheme.generate_key();
            let mut sum = CkksSum::new(&scheme);
            let (mut encrypting, mut adding, mut up) = (0.0, 0.0, 0);
            for u in &updates {
                let start = Instant::now();
                let (chosen, rest) = selection.split(u).expect("the same dimension");
                let message = scheme.encrypt(&chosen, &key).expect("within the bound");
                encrypting += start.elapsed().as_secs_f64();
                up = message.len() + 4 * rest.len();
                let start = Instant::now();
                sum.add(&message).expect("the same key");
                adding += start.elapsed().as_secs_f64();
            }
            let total = sum.finish().expect("not empty");
            let start = Instant::now();
            let mean = scheme.decrypt_mean(&total, &key).expect("the same key");
            let decrypting = start.elapsed().as_secs_f64();
            let worst = selection
                .chosen()
                .iter()
                .zip(&mean)
                .map(|(&i, m)| {
                    let want: f64 = updates
                        .iter()
                        .map(|u| f64::from(u[i as usize]))
                        .sum::<f64>()
                        / clients as f64;
                    (want - f64::from(*m)).abs()
                })
                .fold(0.0, f64::max);
            println!(
                "{dimension} values, {:.0} % encrypted: encrypt {:.4} s, add {:.4} s, decrypt {decrypting:.4} s; {up} bytes up ({:.2} of plain f32), {} down; largest error {worst:.1e}",
                100.0 * fraction,
                encrypting / clients as f64,
                adding / clients as f64,
                up as f64 / (4 * dimension) as f64,
                total.len() + 4 * (dimension - count),
            );
        }
    }
}
