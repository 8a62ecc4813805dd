//! Freed blocks stay with the process once it has asked for that; a test of its own, since it holds for the whole process.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_freed_block_stays_with_the_process() {
    const MIB: usize = 1 << 20;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    };
    let held = || drop(std::hint::black_box(vec![1u8; 24 * MIB]));
    let before = resident();
    held();
    assert!(resident() < before + 8 * MIB, "kept without being asked");
    tacit_ring::keep_freed_blocks();
    held();
    assert!(resident() > before + 16 * MIB, "given back");
}
