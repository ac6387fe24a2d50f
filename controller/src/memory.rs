//! The budget of memory for contents of Git while they are indexed, read and applied.
//!
//! Memory is taken from the budget before the work and given back afterwards. It is shared fairly among namespaces: others
//! can always read one folder, however much a namespace uses. The folders of a namespace leave it the memory to index a
//! small pack, so that a fetch need not wait for a pass that is stuck: the fetch may bring the revision that overtakes it.
//!
//! How much memory a folder needs is known only while the folder is read. So a reader
//! begins with little memory and takes more as it goes. If no more memory is free, the reader drops what it has read,
//! waits for as much memory as a folder may need at most, and begins again. So nobody waits for memory while holding
//! memory. A pack is indexed in the same way: with little memory at first, and if that is too little, with as much as it may
//! need at most.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::FutureExt as _;
use gitstore::{Admission, Cancel, RepositoryKey};
use pipeline::Room;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    admission::{Claim, Gate, Group, Lease},
    passes,
};

/// Share of the budget for the process that indexes a large pack.
const INDEXER: f64 = 0.5;
/// Share of the budget for the process that indexes a small pack.
const SMALL_INDEXER: f64 = 0.125;
/// With less memory than this, the process that indexes a pack cannot start.
const LEAST_OF_INDEXER: u64 = 32 << 20;
/// Share of the budget for one folder.
const FOLDER: f64 = 0.375;
/// Share of the budget for folders that stay in memory because their objects drift.
const KEPT: f64 = 0.125;
/// Share of the budget for what Syncs read from the cluster. Nothing else can use this share.
const INPUTS: f64 = 0.0625;
/// How much memory a reader takes at first. Most folders need no more.
const FIRST: u64 = 2 << 20;
/// How much more a reader takes each time, at least.
const STEP: u64 = 1 << 20;

/// The memory budget. Clones share the budget.
#[derive(Clone)]
pub struct Memory {
    gate: Gate,
    total: u64,
    spare: Arc<OnceLock<Arc<dyn Spare>>>,
}

/// Memory that is kept although nobody uses it now.
pub(crate) trait Spare: Send + Sync {
    /// Gives up all of the memory, because somebody needs it. Returns whether there was any.
    fn give_up(&self) -> bool;
}

/// Memory that is taken for one folder, until this value is dropped.
pub(crate) struct Taken {
    lease: Lease,
    spare: Arc<OnceLock<Arc<dyn Spare>>>,
    used: u64,
    most: u64,
}

impl Memory {
    /// A budget of `total` bytes.
    pub(crate) fn new(total: u64) -> Self {
        Self { gate: Gate::new(total - share(total, INPUTS)), total, spare: Arc::default() }
    }

    /// Registers `spare`, whose memory is given up before a claim has to wait.
    pub(crate) fn gives_up(&self, spare: Arc<dyn Spare>) {
        let _ = self.spare.set(spare);
    }

    /// The gate, which knows how much memory is taken and how many claims wait.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// The most memory that one folder may take, in bytes.
    pub(crate) fn of_a_folder(&self) -> u64 {
        share(self.total, FOLDER)
    }

    /// The memory with which the process that indexes a pack is tried at first, and the most that it may take, in bytes.
    pub(crate) fn of_the_indexer(&self) -> (u64, u64) {
        let (small, most) = (share(self.total, SMALL_INDEXER), share(self.total, INDEXER));
        (if small < LEAST_OF_INDEXER { most } else { small }, most)
    }

    /// How much memory there is for what Syncs read from the cluster, in bytes.
    pub(crate) fn of_inputs(&self) -> u64 {
        share(self.total, INPUTS)
    }

    /// How much memory may be kept although nobody uses it now, in bytes.
    pub(crate) fn to_keep(&self) -> u64 {
        share(self.total, KEPT)
    }

    /// Whether somebody waits for memory.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.gate.waiting() > 0
    }

    /// Waits for the memory that a reader takes at first.
    pub(crate) async fn some(&self, namespace: &str) -> Taken {
        self.taken(namespace, FIRST).await
    }

    /// The memory that a reader takes at first, if this much is free and nobody waits for memory.
    pub(crate) fn try_some(&self, namespace: &str) -> Option<Taken> {
        let claim = self.claim(namespace, FIRST);
        let admitted = || self.gate.try_admit(claim.clone());
        let lease = admitted().or_else(|| give_up(&self.spare).then(admitted).flatten())?;
        Some(self.take(lease))
    }

    /// Waits for as much memory as one folder may take.
    pub(crate) async fn most(&self, namespace: &str) -> Taken {
        self.taken(namespace, self.of_a_folder()).await
    }

    async fn taken(&self, namespace: &str, bytes: u64) -> Taken {
        self.take(self.admitted(self.claim(namespace, bytes)).await)
    }

    fn take(&self, lease: Lease) -> Taken {
        Taken { lease, spare: self.spare.clone(), used: 0, most: self.of_a_folder() }
    }

    async fn admitted(&self, claim: Claim) -> Lease {
        let mut admitted = pin!(self.gate.admit(claim));
        // Once the claim has been polled, it counts as waiting, and code that is about to keep memory can see this.
        if let Some(lease) = admitted.as_mut().now_or_never() {
            return lease;
        }
        give_up(&self.spare);
        passes::in_turn("memory of --memory-budget that other folders use now", admitted).await
    }

    /// A claim for folders of a namespace.
    fn claim(&self, namespace: &str, bytes: u64) -> Claim {
        let mut claim = self.claim_to_fetch(namespace, bytes);
        let most = claim.groups[0].most - share(self.total, SMALL_INDEXER);
        claim.groups.push(Group { name: format!("folders of namespace {namespace}"), most });
        claim
    }

    /// A claim for a fetch of a namespace.
    fn claim_to_fetch(&self, namespace: &str, bytes: u64) -> Claim {
        let most = self.total - share(self.total, INPUTS) - self.of_a_folder();
        let all = Group { name: format!("namespace {namespace}"), most };
        Claim { namespace: namespace.to_owned(), amount: bytes, groups: vec![all] }
    }
}

/// Memory for plaintexts. A pass takes such memory before it unseals values, and gives the memory back when the Secret
/// is written. This memory is not part of the memory budget, so a pass that holds memory of the budget may wait for it.
pub struct Plaintexts(Gate);

impl Plaintexts {
    /// How many bytes of plaintexts may exist at the same time.
    const ROOM: u64 = 32 << 20;

    /// Room for plaintexts, of which nothing is taken yet.
    pub(crate) fn new() -> Self {
        Self(Gate::new(Self::ROOM))
    }

    /// Waits for room for `bytes`. No namespace gets more than half of the room.
    pub(crate) async fn room(&self, namespace: &str, bytes: u64) -> Lease {
        let half = Group { name: format!("namespace {namespace}"), most: Self::ROOM / 2 };
        let claim = Claim { namespace: namespace.to_owned(), amount: bytes, groups: vec![half] };
        passes::in_turn("memory for plaintexts that others use now", self.0.admit(claim)).await
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn share(total: u64, part: f64) -> u64 {
    (total as f64 * part) as u64
}

fn give_up(spare: &OnceLock<Arc<dyn Spare>>) -> bool {
    spare.get().is_some_and(|spare| spare.give_up())
}

impl Taken {
    /// How much memory is taken, whether it is used or not.
    pub(crate) fn amount(&self) -> u64 {
        self.lease.amount()
    }

    /// Gives back the memory that is not used.
    pub(crate) fn shrink(&mut self) {
        self.lease.shrink_to(self.used);
    }

    fn grow(&mut self, more: u64) -> bool {
        self.lease.grow(more) || give_up(&self.spare) && self.lease.grow(more)
    }
}

impl Room for Taken {
    fn left(&self) -> u64 {
        self.lease.amount().saturating_sub(self.used)
    }

    fn reserve(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.left());
        let step = more.max(STEP).min(self.most.saturating_sub(self.lease.amount()));
        more == 0 || step >= more && (self.lease.grow(step) || self.grow(more))
    }

    fn reserve_all(&mut self) -> bool {
        let more = self.most.saturating_sub(self.lease.amount());
        more > 0 && self.grow(more)
    }

    fn use_up(&mut self, bytes: u64) {
        self.used += bytes;
    }

    fn is_most(&self) -> bool {
        self.lease.amount() >= self.most
    }
}

impl Admission for Memory {
    fn admit(&self, key: &RepositoryKey, bytes: u64, wait: Duration, cancel: &Cancel) -> Option<Box<dyn Send>> {
        let (cancelled, is_cancelled) = oneshot::channel();
        let _hook = cancel.on_cancel(move || {
            let _ = cancelled.send(());
        });
        let claim = self.claim_to_fetch(&key.namespace, bytes);
        // Fetches run on blocking threads of the async runtime, so the runtime's handle exists here.
        Handle::current().block_on(async {
            tokio::select! {
                lease = self.admitted(claim) => Some(Box::new(lease) as Box<dyn Send>),
                _ = is_cancelled => None,
                () = tokio::time::sleep(wait) => None,
            }
        })
    }
}

impl From<Memory> for Arc<dyn Admission> {
    fn from(memory: Memory) -> Self {
        Arc::new(memory)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Records whether somebody was waiting for memory at the time when kept memory had to be given up.
    struct Asked(Memory, AtomicBool);

    impl Spare for Asked {
        fn give_up(&self) -> bool {
            self.1.store(self.0.is_waited_for(), Ordering::Relaxed);
            false
        }
    }

    #[tokio::test]
    async fn a_folder_takes_more_as_it_goes_and_never_more_than_its_share() {
        let memory = Memory::new(100 << 20);
        let mut taken = memory.some("a").await;
        assert!(taken.reserve(1 << 20));
        assert_eq!(memory.gate.taken(), FIRST, "it has that much");
        taken.use_up(2 << 20);
        assert!(taken.reserve(30 << 20) && !taken.is_most());
        taken.use_up(30 << 20);
        assert!(!taken.reserve(10 << 20), "beyond what a folder may take");
        assert!(taken.reserve(11 << 19) && taken.is_most());
        drop(taken);
        assert_eq!(memory.gate.taken(), 0);
    }

    #[tokio::test]
    async fn one_namespace_leaves_half_to_the_others() {
        let memory = Memory::new(100 << 20);
        let first = memory.most("greedy").await;
        let mut second = memory.some("greedy").await;
        assert!(!second.reserve(20 << 20), "it waits for nothing while it holds something");
        assert!(memory.most("greedy").now_or_never().is_none());
        let modest = memory.most("modest").now_or_never().expect("room for others");
        drop((first, second, modest));
        assert_eq!(memory.gate.taken(), 0);
    }

    #[tokio::test]
    async fn who_needs_what_is_kept_is_seen_to_wait_for_it() {
        let memory = Memory::new(100 << 20);
        let asked = Arc::new(Asked(memory.clone(), AtomicBool::new(false)));
        memory.gives_up(asked.clone());
        let _held = memory.most("greedy").await;
        assert!(memory.most("greedy").now_or_never().is_none());
        assert!(asked.1.load(Ordering::Relaxed), "what is kept in that moment would stay, and it would wait");
    }

    #[tokio::test]
    async fn plaintexts_of_one_namespace_leave_room_to_the_others() {
        let plaintexts = Plaintexts::new();
        let first = plaintexts.room("greedy", 10 << 20).await;
        assert!(plaintexts.room("greedy", 10 << 20).now_or_never().is_none());
        let modest = plaintexts.room("modest", 10 << 20).now_or_never().expect("room for others");
        drop(first);
        // A claim for more memory than there is gets as much as one namespace may have at most.
        let all = plaintexts.room("greedy", 1 << 40).now_or_never().expect("its turn");
        assert_eq!((all.amount(), modest.amount()), (16 << 20, 10 << 20));
    }

    #[tokio::test]
    async fn a_small_fetch_does_not_wait_for_the_passes_of_its_own_namespace() {
        let memory = Memory::new(256 << 20);
        let (small, most) = memory.of_the_indexer();
        assert_eq!((small, most), (32 << 20, 128 << 20));
        let _folder = memory.most("a").await;
        let mut stuck = Vec::new();
        while let Some(taken) = memory.some("a").now_or_never() {
            stuck.push(taken);
        }
        assert!(!stuck.is_empty());
        let admitted = tokio::task::spawn_blocking({
            let memory = memory.clone();
            move || {
                let key = RepositoryKey { namespace: "a".into(), name: "repo".into() };
                let fetch = memory.admit(&key, small, Duration::from_secs(3600), &Cancel::new());
                let large = memory.admit(&key, most, Duration::from_millis(1), &Cancel::new());
                (fetch, large.is_some())
            }
        });
        let (fetch, has_large) = admitted.await.unwrap();
        assert!(fetch.is_some() && !has_large);
        assert!(memory.most("b").now_or_never().is_some(), "others can read a folder, whatever a namespace does");
    }

    #[test]
    fn where_a_small_share_is_too_little_all_of_it_is_taken_at_once() {
        assert_eq!(Memory::new(128 << 20).of_the_indexer(), (64 << 20, 64 << 20));
    }

    #[tokio::test]
    async fn an_indexer_waits_for_its_turn_or_its_end_and_not_for_ever() {
        let memory = Memory::new(100 << 20);
        let _held = memory.most("a").await;
        let key = RepositoryKey { namespace: "a".into(), name: "repo".into() };
        let cancel = Cancel::new();
        let admitted = |wait| {
            let (key, memory, cancel) = (key.clone(), memory.clone(), cancel.clone());
            tokio::task::spawn_blocking(move || memory.admit(&key, memory.of_the_indexer().1, wait, &cancel).is_some())
        };
        assert!(!admitted(Duration::from_millis(1)).await.unwrap());
        let waiting = admitted(Duration::from_secs(3600));
        cancel.cancel();
        assert!(!waiting.await.unwrap());
    }
}
