//! Ctrl-C: a flag that long work looks at between its pieces, and a vault whose content is dropped (and so zeroized) before
//! the process ends even when a piece is still running.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::exit::{Failure, Kind, Outcome};

static PRESSED: AtomicUsize = AtomicUsize::new(0);
/// Empties one vault; false when it is in use.
type Empty = Box<dyn Fn() -> bool + Send>;

static ON_EXIT: OnceLock<Mutex<Vec<Empty>>> = OnceLock::new();

/// Installs the handler. The first Ctrl-C asks the work to stop and empties the vaults; the second ends the process at once.
pub fn install() -> Outcome {
    ctrlc::set_handler(|| {
        if PRESSED.fetch_add(1, Ordering::SeqCst) > 0 {
            std::process::exit(i32::from(Kind::Interrupted.code()));
        }
        // Without secrets to drop, the work ends by itself when it next looks at the flag.
        if ON_EXIT.get().is_none() {
            return;
        }
        // Vaults that are free are emptied now; one in use belongs to a thread that looks at the flag itself.
        std::thread::spawn(|| {
            while !empty_vaults() {
                std::thread::sleep(Duration::from_millis(100));
            }
            // Leave the main thread a moment to end in its own words.
            std::thread::sleep(Duration::from_millis(300));
            eprintln!("\ntacit: {}", Failure::interrupted());
            std::process::exit(i32::from(Kind::Interrupted.code()));
        });
    })
    .map_err(|e| {
        Failure::new(
            Kind::Other,
            format!("cannot install the Ctrl-C handler: {e}"),
        )
    })
}

/// Empties every vault that nobody uses; true when all are empty.
fn empty_vaults() -> bool {
    let Some(vaults) = ON_EXIT.get() else {
        return true;
    };
    let vaults = vaults.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = true;
    for empty in vaults.iter() {
        all &= empty();
    }
    all
}

/// Whether Ctrl-C was pressed.
pub fn pressed() -> bool {
    PRESSED.load(Ordering::SeqCst) > 0
}

/// Fails with [`Kind::Interrupted`] once Ctrl-C was pressed.
pub fn check() -> Outcome {
    if pressed() {
        Err(Failure::interrupted())
    } else {
        Ok(())
    }
}

/// Holds a value with secrets. It is taken out and dropped when the process is interrupted while nobody uses it.
pub struct Vault<T>(Arc<Mutex<Option<T>>>);

impl<T: Send + 'static> Vault<T> {
    /// Puts a value under protection.
    pub fn new(value: T) -> Self {
        let slot = Arc::new(Mutex::new(Some(value)));
        let watched = Arc::clone(&slot);
        ON_EXIT
            .get_or_init(Default::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(move || match watched.try_lock() {
                Ok(mut value) => {
                    value.take();
                    true
                }
                Err(std::sync::TryLockError::Poisoned(e)) => {
                    e.into_inner().take();
                    true
                }
                Err(std::sync::TryLockError::WouldBlock) => false,
            }));
        Vault(slot)
    }

    /// Uses the value; fails with [`Kind::Interrupted`] if it has been dropped.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Outcome<R> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_mut() {
            Some(value) => Ok(work(value)),
            None => Err(Failure::interrupted()),
        }
    }
}

impl<T> Drop for Vault<T> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_lends_its_value_and_drops_it_with_itself() {
        let value = Arc::new(());
        let vault = Vault::new(Arc::clone(&value));
        assert_eq!(Arc::strong_count(&value), 2);
        assert!(vault.with(|v| Arc::ptr_eq(v, &value)).unwrap());
        drop(vault);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
