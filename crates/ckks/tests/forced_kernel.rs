//! The same ciphertexts, bit by bit, whichever kernel `TACIT_KERNEL` forces.

mod common;

use std::process::Command;

use common::Fixture;
use tacit_ckks::encrypt;
use tacit_ring::kernels;

/// Encrypts, multiplies, rescales, rotates and decrypts, all from fixed seeds; prints the kernel and a digest of every residue.
#[test]
fn work() {
    let mut f = Fixture::small();
    let keys = f.keys(&[1]);
    let (x, y) = (f.random_slots(), f.random_slots());
    let (a, b) = (f.encrypt(&x, 6), f.encrypt(&y, 6));
    let product = f.evaluator.mul(&a, &b, &keys).unwrap();
    let rotated = f.evaluator.rotate(&product, 1, &keys).unwrap();
    let decrypted = encrypt::decrypt(&rotated, &f.secret).unwrap();
    let slots = f.encoder.decode(&decrypted).unwrap();
    let n = slots.len();
    for (j, z) in slots.iter().enumerate() {
        let want = x[(j + 1) % n] * y[(j + 1) % n];
        assert!((z - want).norm() < 1e-6, "slot {j}: {z} for {want}");
    }
    let mut hasher = blake3::Hasher::new();
    for poly in rotated.parts.iter().chain([&decrypted.poly]) {
        for word in poly.as_slice() {
            hasher.update(&word.to_le_bytes());
        }
    }
    println!(
        "kernel {} {}",
        kernels::active().name(),
        hasher.finalize().to_hex()
    );
}

#[test]
fn every_kernel_gives_the_same_ciphertext() {
    // The kernel is picked once per process: this file again, with the variable set.
    let digest = |kernel: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["work", "--exact", "--nocapture"])
            .env("TACIT_KERNEL", kernel)
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "kernel {kernel}: {out}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let digest = out.split_once(&format!("kernel {kernel} "));
        let (_, digest) = digest.unwrap_or_else(|| panic!("kernel {kernel} was not used: {out}"));
        digest.lines().next().unwrap().to_owned()
    };
    let want = digest("portable");
    for kernel in kernels::available() {
        assert_eq!(digest(kernel.name()), want, "{}", kernel.name());
    }
}
