//! A queue of keys to work on. Each key is in the queue at most once, is worked on by one worker at a time, and can be
//! delayed. Namespaces take turns.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crds::ObjectKey;

use crate::fair::Turns;

/// A key that belongs to a namespace.
pub trait Tenant {
    /// The namespace.
    fn tenant(&self) -> &str;
}

impl Tenant for ObjectKey {
    fn tenant(&self) -> &str {
        &self.namespace
    }
}

/// Keys that wait for a worker.
///
/// Guarantees: a key that is added while it is worked on is worked on once more afterwards. A key that is delayed and
/// then added is not worked on twice. Namespaces take turns. While all workers are busy, up to the same number of extra
/// workers take keys, but only of namespaces of which no key is being worked on. So the first key of such a namespace
/// does not wait for the work of other namespaces.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    idle: Notify,
}

struct State<K> {
    ready: Turns<K>,
    waiting: HashSet<K>,
    running: HashSet<K>,
    /// How many keys of each namespace are worked on.
    busy: HashMap<String, usize>,
    workers: usize,
    again: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    sequence: u64,
    closed: bool,
}

impl<K: Clone + Eq + Hash + Tenant> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: Turns::default(),
            waiting: HashSet::new(),
            running: HashSet::new(),
            busy: HashMap::new(),
            workers: usize::MAX,
            again: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            sequence: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), idle: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Tenant> Queue<K> {
    /// Adds `key`, to be worked on as soon as possible.
    pub fn add(&self, key: K) {
        self.lock().add(key);
        self.changed.notify_one();
    }

    /// Adds `key`, to be worked on after `delay`. If `key` is already due earlier, the earlier time holds.
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

    /// Removes `key` from the delayed keys, if it is one of them.
    pub fn forget(&self, key: &K) {
        let mut state = self.lock();
        if let Some(slot) = state.due.remove(key) {
            state.delayed.remove(&slot);
        }
    }

    /// Waits for the next key. When the work on the key ends, [`Queue::done`] must be called.
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

    /// Whether keys wait for a worker.
    pub fn is_behind(&self) -> bool {
        !self.lock().ready.is_empty()
    }

    /// Closes the queue, which then gives out no more keys.
    pub fn close(&self) {
        self.lock().closed = true;
        self.idle.notify_waiters();
    }

    /// Waits until no key is worked on. After that, a closed queue gives out no key; an open queue may do so.
    pub async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.lock().running.is_empty() {
                return;
            }
            idle.await;
        }
    }

    /// Notes that the work on `key` has ended.
    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        state.running.remove(key);
        if let Some(busy) = state.busy.get_mut(key.tenant()) {
            *busy -= 1;
            if *busy == 0 {
                state.busy.remove(key.tenant());
            }
        }
        if state.running.is_empty() {
            self.idle.notify_waiters();
        }
        if state.again.remove(key) {
            state.add(key.clone());
        }
        let is_waiting = !state.ready.is_empty();
        drop(state);
        if is_waiting {
            self.changed.notify_one();
        }
    }

    /// Runs `work` on every key, with `workers` keys at the same time, until the future is dropped. While all workers
    /// are busy, up to `workers` extra workers take keys, but only of namespaces of which no key is being worked on.
    pub async fn run<F>(self: Arc<Self>, workers: usize, work: impl Fn(K) -> F)
    where
        K: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.lock().workers = workers;
        // When this loop is dropped, the tasks are aborted.
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let key = self.next().await;
            let (queue, future) = (self.clone(), work(key.clone()));
            tasks.spawn(async move {
                let finished = Finished { queue: &queue, key: &key };
                future.await;
                drop(finished);
            });
            while tasks.try_join_next().is_some() {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the key as done when this value is dropped. This happens even if the work panicked. Otherwise, the key would
/// never be worked on again.
struct Finished<'a, K: Clone + Eq + Hash + Tenant> {
    queue: &'a Queue<K>,
    key: &'a K,
}

impl<K: Clone + Eq + Hash + Tenant> Drop for Finished<'_, K> {
    fn drop(&mut self) {
        self.queue.done(self.key);
    }
}

impl<K: Clone + Eq + Hash + Tenant> State<K> {
    fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            let tenant = key.tenant().to_owned();
            self.ready.push(&tenant, key);
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
        let is_free = self.running.len() < self.workers;
        let has_more = self.running.len() < self.workers.saturating_mul(2);
        let busy = &self.busy;
        let (tenant, key) = self.ready.pop(|tenant| is_free || has_more && !busy.contains_key(tenant))?;
        self.waiting.remove(&key);
        self.running.insert(key.clone());
        *self.busy.entry(tenant.to_string()).or_default() += 1;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key without a namespace is a namespace of its own.
    impl Tenant for &str {
        fn tenant(&self) -> &str {
            self.split_once('/').map_or(self, |(namespace, _)| namespace)
        }
    }

    #[tokio::test]
    async fn a_namespace_with_much_to_do_keeps_no_other_from_working() {
        let queue = Queue::default();
        queue.lock().workers = 2;
        for key in ["a/1", "a/2", "a/3", "a/4", "b/1", "b/2", "c/1", "d/1"] {
            queue.add(key);
        }
        assert_eq!([queue.next().await, queue.next().await], ["a/1", "b/1"]);
        // All workers are busy. Each namespace of which no key is being worked on gets an extra worker.
        assert_eq!([queue.next().await, queue.next().await], ["c/1", "d/1"]);
        assert!(futures::poll!(Box::pin(queue.next())).is_pending());
        for key in ["b/1", "c/1", "d/1"] {
            queue.done(&key);
        }
        assert_eq!(queue.next().await, "a/2");
        assert_eq!(queue.next().await, "b/2", "nothing of it is worked on");
        assert!(futures::poll!(Box::pin(queue.next())).is_pending());
        queue.done(&"a/1");
        queue.done(&"b/2");
        assert_eq!(queue.next().await, "a/3");
    }

    #[tokio::test]
    async fn work_that_ends_makes_room() {
        let queue = Arc::new(Queue::default());
        let ended = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let keys: Vec<&'static str> = vec!["a/1", "a/2", "a/3", "a/4", "a/5", "b/1"];
        for key in &keys {
            queue.add(*key);
        }
        let counted = ended.clone();
        let worker = tokio::spawn(queue.clone().run(1, move |_: &str| {
            let counted = counted.clone();
            async move {
                tokio::task::yield_now().await;
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }));
        while ended.load(std::sync::atomic::Ordering::SeqCst) < keys.len() {
            tokio::task::yield_now().await;
        }
        worker.abort();
    }

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
