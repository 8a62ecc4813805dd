//! Peak memory and processor time of this process.

/// Largest resident set so far, in bytes: `VmHWM` of `/proc/self/status`; `None` where there is no such file.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse(&status)
}

/// Memory that can be had without swapping, in bytes: `MemAvailable` of `/proc/meminfo`; `None` where there is no such file.
pub fn available_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    kib_of(&info, "MemAvailable:")
}

fn parse(status: &str) -> Option<u64> {
    kib_of(status, "VmHWM:")
}

/// A line of kibibytes, in bytes.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Processor time so far, user and system, all threads, in seconds: fields 14 and 15 of `/proc/self/stat` (Linux counts them in hundredths
/// of a second); `None` where there is no such file.
pub fn cpu_seconds() -> Option<f64> {
    parse_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn parse_stat(stat: &str) -> Option<f64> {
    // The command's name is in parentheses and may hold anything.
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
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

    #[test]
    fn reads_the_processor_time() {
        let stat = "7 (a) b) R 1 7 1 0 -1 0 100 0 0 0 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_stat(stat), Some(3.0));
        assert_eq!(parse_stat("7 a"), None);
    }
}
