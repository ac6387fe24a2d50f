//! Cancels work that is no longer needed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A flag that cancels work. Clones share it.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_cancelled: bool,
    next: u64,
    hooks: Vec<(u64, Box<dyn FnOnce() + Send>)>,
}

impl Cancel {
    /// Not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the work, and calls the hooks.
    pub fn cancel(&self) {
        let hooks = {
            let mut state = self.lock();
            state.is_cancelled = true;
            std::mem::take(&mut state.hooks)
        };
        for (_, hook) in hooks {
            hook();
        }
    }

    /// Whether the work is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    /// Calls `hook` on cancellation, or at once if the work is cancelled already. Dropping the guard removes the hook.
    #[must_use]
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> OnCancel {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        if state.is_cancelled {
            drop(state);
            hook();
        } else {
            state.hooks.push((id, Box::new(hook)));
        }
        OnCancel { cancel: self.clone(), id }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Cancel::on_cancel`].
pub struct OnCancel {
    cancel: Cancel,
    id: u64,
}

impl Drop for OnCancel {
    fn drop(&mut self) {
        self.cancel.lock().hooks.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn hooks_are_called_once_and_only_while_they_are_wanted() {
        let (cancel, calls) = (Cancel::new(), Arc::new(AtomicU32::new(0)));
        let count = || {
            let calls = calls.clone();
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        drop(cancel.on_cancel(count()));
        let _kept = cancel.on_cancel(count());
        assert!(!cancel.is_cancelled());
        cancel.clone().cancel();
        cancel.cancel();
        assert!(cancel.is_cancelled());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let _late = cancel.on_cancel(count());
        assert_eq!(calls.load(Ordering::SeqCst), 2, "it was cancelled before");
    }
}
