//! Peak memory of this process.

/// Largest resident set so far, in bytes: `VmHWM` of `/proc/self/status`; `None` where there is no such file.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse(&status)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_high_water_mark() {
        assert_eq!(
            parse("Name:\tx\nVmHWM:\t   12 kB\nVmRSS:\t 3 kB\n"),
            Some(12 * 1024)
        );
        assert_eq!(parse("Name:\tx\n"), None);
    }
}
