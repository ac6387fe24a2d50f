//! A work queue of keys: each key waits at most once, is worked on by one worker at a time, and can be put off.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Keys that wait for a worker.
///
/// Guarantees: a key that is added while it is worked on is worked on once more afterwards; a key that is put off and
/// then added at once is not worked on twice.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    idle: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    running: HashSet<K>,
    again: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    sequence: u64,
    closed: bool,
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            sequence: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), idle: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Wants `key` worked on now.
    pub fn add(&self, key: K) {
        self.lock().add(key);
        self.changed.notify_one();
    }

    /// Wants `key` worked on after `delay`, or earlier if it is already due earlier.
    pub fn add_after(&self, key: K, delay: Duration) {
        let mut state = self.lock();
        let at = Instant::now() + delay;
        if let Some(&(due, sequence)) = state.due.get(&key) {
            if due <= at {
                return;
            }
            state.delayed.remove(&(due, sequence));
        }
        state.sequence += 1;
        let slot = (at, state.sequence);
        state.delayed.insert(slot, key.clone());
        state.due.insert(key, slot);
        drop(state);
        self.changed.notify_one();
    }

    /// Drops what was put off for `key`.
    pub fn forget(&self, key: &K) {
        let mut state = self.lock();
        if let Some(slot) = state.due.remove(key) {
            state.delayed.remove(&slot);
        }
    }

    /// Waits for the next key; [`Queue::done`] must follow.
    pub async fn next(&self) -> K {
        loop {
            let notified = self.changed.notified();
            let next_due = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                if state.closed { None } else { state.delayed.keys().next().map(|(at, _)| *at) }
            };
            match next_due {
                Some(at) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// Hands out no more keys.
    pub fn close(&self) {
        self.lock().closed = true;
        self.idle.notify_waiters();
    }

    /// Waits until nobody works: a closed queue is done then, an open one has nothing to do for a moment.
    pub async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.lock().running.is_empty() {
                return;
            }
            idle.await;
        }
    }

    /// The work on `key` ended.
    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        state.running.remove(key);
        if state.running.is_empty() {
            self.idle.notify_waiters();
        }
        if state.again.remove(key) {
            state.add(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Runs `work` on every key, `workers` at a time, until dropped.
    pub async fn run<F>(self: Arc<Self>, workers: usize, work: impl Fn(K) -> F)
    where
        K: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let slots = Arc::new(tokio::sync::Semaphore::new(workers));
        // Aborts the work under way when the loop itself is dropped.
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let key = self.next().await;
            let (queue, future) = (self.clone(), work(key.clone()));
            tasks.spawn(async move {
                let finished = Finished { queue: &queue, key: &key };
                future.await;
                drop(finished);
                drop(slot);
            });
            while tasks.try_join_next().is_some() {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the key done even when the work panicked, so that one bad object does not block its key for ever.
struct Finished<'a, K: Clone + Eq + Hash> {
    queue: &'a Queue<K>,
    key: &'a K,
}

impl<K: Clone + Eq + Hash> Drop for Finished<'_, K> {
    fn drop(&mut self) {
        self.queue.done(self.key);
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        if self.closed {
            return None;
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_only_once_and_runs_again_when_added_while_running() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        queue.done(&"b");
        assert!(queue.lock().ready.is_empty() && queue.lock().running.is_empty());
    }

    #[tokio::test]
    async fn the_earlier_of_two_delays_counts() {
        let queue = Queue::default();
        queue.add_after("key", Duration::from_secs(3600));
        queue.add_after("key", Duration::from_millis(1));
        queue.add_after("key", Duration::from_secs(1800));
        assert_eq!(queue.next().await, "key");
        assert!(queue.lock().delayed.is_empty() && queue.lock().due.is_empty());
    }

    #[tokio::test]
    async fn a_closed_queue_hands_out_nothing_and_drains() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.close();
        queue.done(&"a");
        queue.drained().await;
        assert!(tokio::time::timeout(Duration::from_millis(20), queue.next()).await.is_err());
    }

    #[tokio::test]
    async fn a_panic_does_not_block_the_key() {
        let queue = Arc::new(Queue::default());
        let runs = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let seen = runs.clone();
        let worker = tokio::spawn(queue.clone().run(1, move |_: &str| {
            let seen = seen.clone();
            async move {
                assert!(seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0, "the first run fails");
            }
        }));
        queue.add("key");
        while runs.load(std::sync::atomic::Ordering::SeqCst) < 2 {
            queue.add("key");
            tokio::task::yield_now().await;
        }
        worker.abort();
    }
}
