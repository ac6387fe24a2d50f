//! Notes on disk about work during which the process may die. They prevent that the next process begins with the same
//! work and dies as well.
//!
//! A note is a small file that exists while a piece of work runs. If a note exists when the process starts, the
//! previous process died during that work. The note says how often a process died during that work. Such work is
//! delayed, longer after each death, and its error says so. If the work is never done again, for example because there
//! is a newer commit, the note is removed after a week.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use sha2::{Digest as _, Sha256};

/// Folder of the notes. This folder is beside the folders of the namespaces, and no namespace can have this name.
const FOLDER: &str = ".attempts";
/// First word of a note: the work is in progress.
const RUNNING: &str = "running";
/// First word of a note: a process died during the work.
const DIED: &str = "died";
/// How long work is delayed after the first death. The delay doubles with each further death.
const PAUSE: Duration = Duration::from_secs(15);
/// The longest time that work is delayed.
const LONGEST: Duration = Duration::from_secs(3600);
/// A note that is older than this is removed.
const OLD: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where notes are written. Clones share it.
#[derive(Clone, Default)]
pub struct Attempts(Option<Arc<Inner>>);

struct Inner {
    folder: PathBuf,
    notes: Mutex<HashMap<String, Note>>,
}

/// The state of work that is in progress, or was in progress when a process died.
#[derive(Default)]
struct Note {
    /// How many threads do this work now. The file of the note exists until the last of these threads has finished.
    running: u32,
    /// What this process found at its start: how often a process died during the work, and until when the work is
    /// delayed.
    died: Option<(u32, Instant)>,
}

/// Work that is delayed, because the process died while it was in progress.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Died {
    /// How often a process died during the work.
    pub(crate) times: u32,
    /// How long the work is delayed from now.
    pub(crate) pause: Duration,
}

/// The note about work in progress. Its file is removed when this value is dropped.
pub(crate) struct Attempt(Option<(Arc<Inner>, String)>);

impl Attempts {
    /// Notes are kept in `storage`. Notes that the previous process left there are read.
    pub(crate) fn new(storage: &Path) -> Self {
        let folder = storage.join(FOLDER);
        let mut notes = HashMap::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if is_old(&entry) {
                let _ = fs::remove_file(entry.path());
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let (state, times) = text.split_once(' ').unwrap_or((RUNNING, "0"));
            let times = times.parse::<u32>().unwrap_or(0).saturating_add(u32::from(state == RUNNING)).max(1);
            // The work is no longer in progress. The note stays until the work has been done without another death.
            if state == RUNNING {
                let _ = fs::write(entry.path(), format!("{DIED} {times}"));
            }
            let pause = PAUSE.saturating_mul(1 << (times - 1).min(10)).min(LONGEST);
            notes.insert(name, Note { running: 0, died: Some((times, Instant::now() + pause)) });
        }
        let _ = fs::create_dir_all(&folder);
        Self(Some(Arc::new(Inner { folder, notes: Mutex::new(notes) })))
    }

    /// Notes that the work `what` begins, unless it is delayed. This function writes to the disk, so do not call it on
    /// async threads.
    pub(crate) fn begin(&self, what: &str) -> Result<Attempt, Died> {
        let Some(inner) = &self.0 else { return Ok(Attempt(None)) };
        let name = name_of(what);
        let mut notes = lock(&inner.notes);
        let note = notes.entry(name.clone()).or_default();
        if let Some((times, until)) = note.died {
            let pause = until.saturating_duration_since(Instant::now());
            if !pause.is_zero() {
                return Err(Died { times, pause });
            }
        }
        if note.running == 0 {
            // If the disk is full, the work is done without a note.
            let _ =
                fs::write(inner.folder.join(&name), format!("{RUNNING} {}", note.died.map_or(0, |(times, _)| times)));
        }
        note.running += 1;
        drop(notes);
        Ok(Attempt(Some((inner.clone(), name))))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some((inner, name)) = &self.0 else { return };
        let mut notes = lock(&inner.notes);
        let Some(note) = notes.get_mut(name) else { return };
        note.running -= 1;
        if note.running == 0 {
            let _ = fs::remove_file(inner.folder.join(name));
            notes.remove(name);
        }
    }
}

/// Whether a note was last written long ago. If the clock was set back, the note counts as new.
fn is_old(entry: &fs::DirEntry) -> bool {
    let written = entry.metadata().and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| SystemTime::now().duration_since(written).is_ok_and(|age| age > OLD))
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

    fn let_pause_end(attempts: &Attempts) {
        for note in lock(&attempts.0.as_ref().unwrap().notes).values_mut() {
            note.died = note.died.map(|(times, _)| (times, Instant::now()));
        }
    }

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
        let_pause_end(&attempts);
        std::mem::forget(attempts.begin("deadly").unwrap());
        let twice = Attempts::new(folder.path()).begin("deadly").err().expect("put off");
        assert!(twice.times == 2 && twice.pause > PAUSE);
    }

    #[test]
    fn what_is_tried_again_and_ends_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        std::mem::forget(Attempts::new(folder.path()).begin("deadly").unwrap());
        let attempts = Attempts::new(folder.path());
        let_pause_end(&attempts);
        drop(attempts.begin("deadly").unwrap());
        assert!(attempts.begin("deadly").is_ok());
        assert!(Attempts::new(folder.path()).begin("deadly").is_ok());
    }

    #[test]
    fn of_two_who_do_the_same_the_last_one_takes_the_note_away() {
        let folder = tempfile::tempdir().unwrap();
        let attempts = Attempts::new(folder.path());
        let (first, second) = (attempts.begin("same").unwrap(), attempts.begin("same").unwrap());
        drop(first);
        std::mem::forget(second);
        assert!(Attempts::new(folder.path()).begin("same").is_err(), "the process died while one of them lasted");
    }

    #[test]
    fn what_nobody_begins_again_is_forgotten_after_a_week() {
        let folder = tempfile::tempdir().unwrap();
        let attempts = Attempts::new(folder.path());
        std::mem::forget(attempts.begin("a commit").unwrap());
        std::mem::forget(attempts.begin("the next one").unwrap());
        let note = |what: &str| folder.path().join(FOLDER).join(name_of(what));
        let written = |what: &str| fs::File::options().write(true).open(note(what)).unwrap();
        written("a commit").set_modified(SystemTime::now() - OLD - Duration::from_secs(1)).unwrap();
        written("the next one").set_modified(SystemTime::now() - OLD / 2).unwrap();
        for _ in 0..2 {
            let attempts = Attempts::new(folder.path());
            assert!(attempts.begin("a commit").is_ok() && !note("a commit").exists());
            assert!(attempts.begin("the next one").is_err());
        }
        // Starting the controller does not begin the work, so it does not make the note newer.
        written("the next one").set_modified(SystemTime::now() - OLD / 2).unwrap();
        let before = fs::metadata(note("the next one")).unwrap().modified().unwrap();
        let _ = Attempts::new(folder.path());
        assert_eq!(fs::metadata(note("the next one")).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn without_a_folder_nothing_is_noted() {
        drop(Attempts::default().begin("anything").unwrap());
    }
}
