//! Signs of life beside work.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Does `work`, and beside it `beat` after every `pause`, until the work is done. A beat that has begun is waited for.
pub(super) fn beside<T>(pause: Duration, beat: impl Fn() + Send, work: impl FnOnce() -> T) -> T {
    // Dropped when the work is done, also by a panic: that ends the beats at once.
    let (working, ended) = channel::<()>();
    std::thread::scope(|s| {
        s.spawn(move || {
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                beat();
            }
        });
        let result = work();
        drop(working);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn beats_go_on_while_there_is_work_and_end_with_it() {
        let count = AtomicUsize::new(0);
        let beat = || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let three = || {
            while count.load(Ordering::Relaxed) < 3 {
                std::thread::yield_now();
            }
            7
        };
        assert_eq!(beside(Duration::from_millis(1), beat, three), 7);
        let began = std::time::Instant::now();
        beside(Duration::from_secs(3600), || unreachable!(), || ());
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
