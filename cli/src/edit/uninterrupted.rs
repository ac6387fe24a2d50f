//! Delays signals that end the program while a file is being written. So no half-written file stays behind, which may
//! have values in plain text.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    low_level::emulate_default_handler,
};

/// What the handlers of signals share with the program.
struct Signals {
    /// Whether a signal ends the program at once, as usual.
    ends: Arc<AtomicBool>,
    /// The last signal that came; 0 for none.
    came: Arc<AtomicUsize>,
    /// Held while a file is written.
    turn: Mutex<()>,
}

/// Does `work`. If SIGINT, SIGTERM or SIGHUP comes meanwhile, the program ends afterwards as the signal says.
pub(super) fn uninterrupted<T>(work: impl FnOnce() -> T) -> T {
    static SIGNALS: OnceLock<Signals> = OnceLock::new();
    let signals = SIGNALS.get_or_init(Signals::handle);
    let _turn = signals.turn.lock().unwrap_or_else(PoisonError::into_inner);
    signals.ends.store(false, Ordering::SeqCst);
    let result = work();
    signals.ends.store(true, Ordering::SeqCst);
    let came = signals.came.load(Ordering::SeqCst);
    if let Some(signal) = i32::try_from(came).ok().filter(|signal| *signal != 0) {
        // The default handler of each of these signals ends the program.
        let _ = emulate_default_handler(signal);
    }
    result
}

impl Signals {
    fn handle() -> Self {
        let (ends, came) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)) {
            // If a signal cannot be handled, it ends the program at once.
            let noted = flag::register_usize(signal, Arc::clone(&came), usize::try_from(signal).unwrap_or_default());
            if noted.is_ok() {
                let _ = flag::register_conditional_default(signal, Arc::clone(&ends));
            }
        }
        Self { ends, came, turn: Mutex::new(()) }
    }
}

/// Whether the program was started with the signal ignored, as nohup does.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
