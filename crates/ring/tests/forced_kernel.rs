//! `TACIT_KERNEL` picks the kernel of a process. Alone in its file: the choice is made once per process.

use tacit_ring::{RingError, kernels};

#[test]
fn the_environment_forces_a_kernel() {
    // SAFETY: the only test of this process, before anything else reads the environment.
    unsafe { std::env::set_var("TACIT_KERNEL", "portable") };
    assert_eq!(kernels::active().name(), "portable");
    assert_eq!(kernels::by_name("portable").unwrap().name(), "portable");
    let error = kernels::by_name("quantum").err().unwrap();
    assert!(matches!(&error, RingError::Kernel { name, .. } if name == "quantum"));
    assert!(error.to_string().contains("portable"), "{error}");
}
