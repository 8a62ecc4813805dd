//! `TACIT_KERNEL` picks the kernel of a process, and every kernel gives a process the same results.
//!
//! The choice is made once per process, so each test starts this file again with the variable set.

use std::process::{Command, Output};

use rand_core::SeedableRng;
use tacit_ring::{
    BaseConverter, Modulus, NttPermutation, NttTable, RingError, RnsPoly, galois_of_rotation,
    kernels, ntt_primes, ops, sampling,
};

/// Runs the test of a name in a process of its own.
fn with_kernel(test: &str, kernel: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("TACIT_KERNEL", kernel)
        .output()
        .unwrap()
}

/// The line that [`work`] prints, which follows the name of the test.
fn result(kernel: &str) -> String {
    let output = with_kernel("work", kernel);
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "kernel {kernel}: {out}{err}");
    assert_eq!(err, "", "kernel {kernel}");
    let start = out
        .find("kernel ")
        .unwrap_or_else(|| panic!("kernel {kernel} printed no result: {out}"));
    out[start..].lines().next().unwrap().to_owned()
}

/// Every operation of the active kernel through the checked interface, and a line with its name and a digest.
#[test]
fn work() {
    let (n, limbs) = (1 << 12, 5);
    let moduli: Vec<Modulus> = ntt_primes(50, n, 2 * limbs, &[])
        .unwrap()
        .into_iter()
        .map(|p| Modulus::new(p).unwrap())
        .collect();
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([9; 32]);
    let secret = sampling::ternary(&mut rng, n);
    let mut random = || {
        let mut poly = RnsPoly::zero(n, limbs);
        for (limb, m) in poly.limbs_iter_mut().zip(&moduli) {
            sampling::uniform(m, &mut rng, limb);
        }
        poly
    };
    let (mut a, b) = (random(), random());
    let permutation = NttPermutation::new(n, galois_of_rotation(n, 3));
    for (i, m) in moduli[..limbs].iter().enumerate() {
        let table = NttTable::new(n, *m).unwrap();
        let (x, y) = (a.limb_mut(i), b.limb(i));
        let mut s = vec![0; n];
        sampling::signed_to_residues_i8(m, &secret, &mut s);
        table.forward(&mut s);
        table.forward(x);
        ops::mul_assign(m, x, &s);
        ops::add_assign(m, x, y);
        ops::mul_add_assign(m, x, &s, y);
        ops::sub_mul_scalar_assign(m, x, y, 12_345);
        ops::mul_scalar_add_assign(m, x, &s, m.value() - 1);
        let mut image = vec![0; n];
        permutation.apply(&mut image, x);
        let rows: Vec<&[u64]> = vec![&image, y, &s, &s, y, &image, y];
        ops::inner_product(m, x, &rows, &rows);
        table.inverse(x);
    }
    let converter = BaseConverter::new(&moduli[..limbs], &moduli[limbs..]).unwrap();
    let mut out = RnsPoly::zero(n, limbs);
    converter.convert(
        &a.limbs_iter().collect::<Vec<_>>(),
        &mut out.limbs_iter_mut().collect::<Vec<_>>(),
    );
    let digest = a
        .as_slice()
        .iter()
        .chain(out.as_slice())
        .fold(0u64, |acc, &x| {
            (acc ^ x)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        });
    println!("kernel {} {digest:016x}", kernels::active().name());
}

#[test]
fn a_forced_kernel_is_used_and_changes_nothing() {
    let all = kernels::available();
    assert_eq!(all.last().unwrap().name(), "portable");
    let digest = |kernel: &str| {
        result(kernel)
            .strip_prefix(&format!("kernel {kernel} "))
            .unwrap_or_else(|| panic!("kernel {kernel} was not used"))
            .to_owned()
    };
    let want = digest("portable");
    for kernel in &all {
        assert_eq!(digest(kernel.name()), want, "{}", kernel.name());
    }
    // Nothing asked for: the fastest.
    assert_eq!(result(""), format!("kernel {} {want}", all[0].name()));
}

#[test]
fn a_kernel_that_is_not_there_is_named_and_replaced() {
    let error = kernels::by_name("quantum").err().unwrap();
    assert!(matches!(&error, RingError::Kernel { name, .. } if name == "quantum"));
    for kernel in kernels::available() {
        assert!(error.to_string().contains(kernel.name()), "{error}");
    }
    let output = with_kernel("work", "quantum");
    assert!(output.status.success());
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(out.contains("kernel portable"), "{out}");
    assert_eq!(
        err.trim(),
        format!("TACIT_KERNEL: {error}; using the portable kernel")
    );
}
