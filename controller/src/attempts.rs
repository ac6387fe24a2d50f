//! Work during which this process may die: begun ones are noted on disk, so that the next start does not do at once what
//! ended the last one.
//!
//! A note is a small file that is there while the work lasts. One that is found at the start was left by a process that
//! died. It says how often that happened; the work is put off for longer each time, and its error says so.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

/// Folder of the notes: no namespace is called so.
const FOLDER: &str = ".attempts";
/// The work lasts.
const RUNNING: &str = "running";
/// It lasted when a process died.
const DIED: &str = "died";
/// How long work is put off after the first death, and how much longer each time.
const PAUSE: Duration = Duration::from_secs(15);
/// The longest.
const LONGEST: Duration = Duration::from_secs(3600);

/// Where begun work is noted; clones share it.
#[derive(Clone, Default)]
pub struct Attempts(Option<Arc<Inner>>);

struct Inner {
    folder: PathBuf,
    /// What this process found at its start: how often it died, and until when the work is put off.
    died: Mutex<HashMap<String, (u32, Instant)>>,
}

/// Work that is put off, because this process died while it lasted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Died {
    /// How often.
    pub(crate) times: u32,
    /// How long it is still put off.
    pub(crate) pause: Duration,
}

/// The note of work that lasts; removed when dropped.
pub(crate) struct Attempt {
    path: Option<PathBuf>,
    /// How often it died before: kept until the work ends well.
    died: Option<(Arc<Inner>, String)>,
}

impl Attempts {
    /// Notes in `storage`, and what was left there.
    pub(crate) fn new(storage: &Path) -> Self {
        let folder = storage.join(FOLDER);
        let mut died = HashMap::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let (state, times) = text.split_once(' ').unwrap_or((RUNNING, "0"));
            let times = times.parse::<u32>().unwrap_or(0).saturating_add(u32::from(state == RUNNING)).max(1);
            // It lasts no more, and is remembered until it ends well.
            let _ = fs::write(entry.path(), format!("{DIED} {times}"));
            let pause = PAUSE.saturating_mul(1 << (times - 1).min(10)).min(LONGEST);
            died.insert(name, (times, Instant::now() + pause));
        }
        let _ = fs::create_dir_all(&folder);
        Self(Some(Arc::new(Inner { folder, died: Mutex::new(died) })))
    }

    /// Notes that the work `what` begins, unless it is put off.
    pub(crate) fn begin(&self, what: &str) -> Result<Attempt, Died> {
        let Some(inner) = &self.0 else { return Ok(Attempt { path: None, died: None }) };
        let name = name_of(what);
        let died = lock(&inner.died).get(&name).copied();
        if let Some((times, until)) = died {
            let pause = until.saturating_duration_since(Instant::now());
            if !pause.is_zero() {
                return Err(Died { times, pause });
            }
        }
        let path = inner.folder.join(&name);
        // A full disk must not stop the work.
        let _ = fs::write(&path, format!("{RUNNING} {}", died.map_or(0, |(times, _)| times)));
        Ok(Attempt { path: Some(path), died: died.map(|_| (inner.clone(), name)) })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
        if let Some((inner, name)) = &self.died {
            lock(&inner.died).remove(name);
        }
    }
}

fn name_of(what: &str) -> String {
    Sha256::digest(what)[..16].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_ended_is_not_put_off_and_work_that_ended_the_process_is() {
        let folder = tempfile::tempdir().unwrap();
        let attempts = Attempts::new(folder.path());
        drop(attempts.begin("good").unwrap());
        std::mem::forget(attempts.begin("deadly").unwrap());

        let attempts = Attempts::new(folder.path());
        assert!(attempts.begin("good").is_ok());
        let died = attempts.begin("deadly").err().expect("put off");
        assert_eq!(died.times, 1);
        assert!(!died.pause.is_zero() && died.pause <= PAUSE);

        let attempts = Attempts::new(folder.path());
        let again = attempts.begin("deadly").err().expect("put off");
        assert_eq!(again.times, 1, "it was not tried meanwhile");
        assert!(attempts.begin("another commit").is_ok());
        for (_, until) in lock(&attempts.0.as_ref().unwrap().died).values_mut() {
            *until = Instant::now();
        }
        std::mem::forget(attempts.begin("deadly").unwrap());
        let twice = Attempts::new(folder.path()).begin("deadly").err().expect("put off");
        assert!(twice.times == 2 && twice.pause > PAUSE);
    }

    #[test]
    fn what_is_tried_again_and_ends_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        std::mem::forget(Attempts::new(folder.path()).begin("deadly").unwrap());
        let attempts = Attempts::new(folder.path());
        for (_, until) in lock(&attempts.0.as_ref().unwrap().died).values_mut() {
            *until = Instant::now();
        }
        drop(attempts.begin("deadly").unwrap());
        assert!(attempts.begin("deadly").is_ok());
        assert!(Attempts::new(folder.path()).begin("deadly").is_ok());
    }

    #[test]
    fn without_a_folder_nothing_is_noted() {
        drop(Attempts::default().begin("anything").unwrap());
    }
}
