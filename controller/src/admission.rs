//! Shares scarce resources (running fetches, memory for contents of Git) fairly among namespaces.
//!
//! # Guarantees
//! - Namespaces take turns: one namespace delays the others by one turn at most, no matter how much it requests.
//! - A claim that must wait because of the limit of its own namespace or host does not delay others. A claim that waits
//!   because too little is free is not overtaken by smaller claims, so that large claims get their turn.
//! - The holder of a lease never waits for more room: [`Lease::grow`] refuses instead. So there are no deadlocks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// A limited amount of a resource (the "room"). Each [`Claim`] gets a part of the room when its turn comes. Clones
/// share the room.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<State>>);

/// A request for a part of the room.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Claim {
    /// The namespace that makes the claim. Namespaces take turns.
    pub(crate) namespace: String,
    /// How much room is requested.
    pub(crate) amount: u64,
    /// The limits that the claim counts against, besides the room itself.
    pub(crate) groups: Vec<Group>,
}

/// A limit for all claims of a group together, for example of one namespace.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Group {
    /// Name of the group, for example `namespace shop`.
    pub(crate) name: String,
    /// How much room the claims of the group may take at the same time.
    pub(crate) most: u64,
}

/// A part of the room. It is taken until the lease is dropped.
pub(crate) struct Lease {
    gate: Gate,
    claim: Claim,
}

struct State {
    room: u64,
    taken: u64,
    groups: HashMap<String, u64>,
    /// The waiting claims of each namespace. The namespaces are in the order of their turns.
    waiting: VecDeque<(String, VecDeque<Waiter>)>,
}

struct Waiter {
    claim: Claim,
    since: Instant,
    admitted: oneshot::Sender<Lease>,
}

/// Why a claim has to wait.
enum Held {
    /// Not enough room is free.
    ByRoom,
    /// One of the groups of the claim has reached the group's limit.
    ByGroup,
}

impl Gate {
    /// A gate with this much room.
    pub(crate) fn new(room: u64) -> Self {
        Self(Arc::new(Mutex::new(State { room, taken: 0, groups: HashMap::new(), waiting: VecDeque::new() })))
    }

    /// Waits until the claim gets its turn. A claim for more than the whole room, or for more than the limit of a
    /// group, gets only that much.
    pub(crate) async fn admit(&self, mut claim: Claim) -> Lease {
        let shares = claim.groups.iter().map(|group| group.most);
        claim.amount = shares.chain([self.lock().room]).fold(claim.amount, u64::min);
        let (admitted, lease) = oneshot::channel();
        {
            let mut state = self.lock();
            let waiter = Waiter { claim, since: Instant::now(), admitted };
            match state.waiting.iter_mut().find(|(namespace, _)| *namespace == waiter.claim.namespace) {
                Some((_, waiters)) => waiters.push_back(waiter),
                None => state.waiting.push_back((waiter.claim.namespace.clone(), VecDeque::from([waiter]))),
            }
        }
        self.hand_out();
        lease.await.expect("a waiter is kept until it is admitted")
    }

    /// Admits the claim if it need not wait and no other claim waits for room.
    pub(crate) fn try_admit(&self, claim: Claim) -> Option<Lease> {
        let mut state = self.lock();
        if !state.waiting.is_empty() || state.held(&claim).is_some() {
            return None;
        }
        state.take(&claim, claim.amount);
        drop(state);
        Some(Lease { gate: self.clone(), claim })
    }

    /// How many claims wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.iter().map(|(_, waiters)| waiters.len()).sum()
    }

    /// How much room is taken.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// How long the oldest of the claims that wait for room has waited until `now`. Claims that wait because of the
    /// limit of a group do not count.
    pub(crate) fn starved_for(&self, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let starved = state.waiting.iter().flat_map(|(_, waiters)| waiters);
        let starved = starved.filter(|waiter| matches!(state.held(&waiter.claim), Some(Held::ByRoom)));
        starved.map(|waiter| now.saturating_duration_since(waiter.since)).max()
    }

    /// Admits all claims that can be admitted. The caller must not hold the lock: a lease whose receiver is gone is
    /// dropped in this function, and dropping a lease takes the lock.
    fn hand_out(&self) {
        loop {
            let Some(waiter) = self.lock().next() else { return };
            let lease = Lease { gate: self.clone(), claim: waiter.claim };
            // If the receiver no longer waits, the lease is dropped, and its room is free again at once.
            drop(waiter.admitted.send(lease));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes the next claim that can be admitted, and takes the room for it.
    fn next(&mut self) -> Option<Waiter> {
        for turn in 0..self.waiting.len() {
            let (_, waiters) = &mut self.waiting[turn];
            waiters.retain(|waiter| !waiter.admitted.is_closed());
            let mut found = None;
            for (place, waiter) in self.waiting[turn].1.iter().enumerate() {
                match self.held(&waiter.claim) {
                    None => {
                        found = Some(place);
                        break;
                    }
                    Some(Held::ByGroup) => {}
                    Some(Held::ByRoom) => return None,
                }
            }
            if let Some(place) = found {
                let (namespace, mut waiters) = self.waiting.remove(turn)?;
                let waiter = waiters.remove(place)?;
                // The next turn of this namespace comes after the turns of all other namespaces.
                self.waiting.push_back((namespace, waiters));
                self.take(&waiter.claim, waiter.claim.amount);
                self.waiting.retain(|(_, waiters)| !waiters.is_empty());
                return Some(waiter);
            }
        }
        self.waiting.retain(|(_, waiters)| !waiters.is_empty());
        None
    }

    fn held(&self, claim: &Claim) -> Option<Held> {
        if !self.groups_have_room(claim, claim.amount) {
            return Some(Held::ByGroup);
        }
        (self.taken + claim.amount > self.room).then_some(Held::ByRoom)
    }

    fn groups_have_room(&self, claim: &Claim, amount: u64) -> bool {
        claim.groups.iter().all(|group| self.groups.get(&group.name).copied().unwrap_or(0) + amount <= group.most)
    }

    fn take(&mut self, claim: &Claim, amount: u64) {
        self.taken += amount;
        for group in &claim.groups {
            *self.groups.entry(group.name.clone()).or_default() += amount;
        }
    }

    fn give_back(&mut self, claim: &Claim, amount: u64) {
        self.taken -= amount;
        for group in &claim.groups {
            if let Some(taken) = self.groups.get_mut(&group.name) {
                *taken -= amount;
                if *taken == 0 {
                    self.groups.remove(&group.name);
                }
            }
        }
    }
}

impl Lease {
    /// Takes more room if enough is free now. This never waits, because a holder that waits for more could cause a
    /// deadlock.
    pub(crate) fn grow(&mut self, more: u64) -> bool {
        let mut state = self.gate.lock();
        if state.taken + more > state.room || !state.groups_have_room(&self.claim, more) {
            return false;
        }
        state.take(&self.claim, more);
        drop(state);
        self.claim.amount += more;
        true
    }

    /// Gives back everything beyond `amount`.
    pub(crate) fn shrink_to(&mut self, amount: u64) {
        let less = self.claim.amount.saturating_sub(amount);
        if less > 0 {
            self.gate.lock().give_back(&self.claim, less);
            self.claim.amount -= less;
            self.gate.hand_out();
        }
    }

    /// How much is taken.
    pub(crate) fn amount(&self) -> u64 {
        self.claim.amount
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn claim(namespace: &str, amount: u64, groups: &[(&str, u64)]) -> Claim {
        let groups = groups.iter().map(|(name, most)| Group { name: (*name).into(), most: *most }).collect();
        Claim { namespace: namespace.into(), amount, groups }
    }

    /// A claim as a future, which is polled by hand.
    fn waits(gate: &Gate, claim: Claim) -> impl Future<Output = Lease> + Unpin + use<> {
        let gate = gate.clone();
        let mut waiting = Box::pin(async move { gate.admit(claim).await });
        assert!(waiting.as_mut().now_or_never().is_none(), "it has to wait");
        waiting
    }

    fn is_admitted(waiting: &mut (impl Future<Output = Lease> + Unpin)) -> Option<Lease> {
        waiting.now_or_never()
    }

    #[tokio::test]
    async fn namespaces_take_turns() {
        let gate = Gate::new(1);
        let first = gate.admit(claim("greedy", 1, &[])).await;
        let mut greedy: Vec<_> = (0..3).map(|_| waits(&gate, claim("greedy", 1, &[]))).collect();
        let mut modest = waits(&gate, claim("modest", 1, &[]));
        drop(first);
        // `greedy` made its claims first. But the second claim of `greedy` gets its turn only after the first claim of
        // `modest`.
        let lease = is_admitted(&mut greedy[0]).expect("its turn");
        assert!(is_admitted(&mut modest).is_none());
        drop(lease);
        let lease = is_admitted(&mut modest).expect("its turn");
        assert!(is_admitted(&mut greedy[1]).is_none());
        drop(lease);
        assert!(is_admitted(&mut greedy[1]).is_some());
    }

    #[tokio::test]
    async fn a_share_that_is_used_up_holds_up_nobody_else() {
        let gate = Gate::new(4);
        let share = [("namespace greedy", 2)];
        let held: Vec<_> =
            [gate.admit(claim("greedy", 1, &share)).await, gate.admit(claim("greedy", 1, &share)).await].into();
        let mut third = waits(&gate, claim("greedy", 1, &share));
        let _other = gate.admit(claim("modest", 1, &[])).await;
        assert_eq!((gate.taken(), gate.waiting()), (3, 1));
        assert!(gate.starved_for(Instant::now()).is_none(), "it waits for its own");
        drop(held);
        assert!(is_admitted(&mut third).is_some());
    }

    #[tokio::test]
    async fn a_large_claim_is_not_overtaken() {
        let gate = Gate::new(10);
        let small = gate.admit(claim("a", 4, &[])).await;
        let mut large = waits(&gate, claim("b", 10, &[]));
        let mut late = waits(&gate, claim("c", 4, &[]));
        assert!(gate.starved_for(Instant::now()).is_some());
        drop(small);
        let lease = is_admitted(&mut large).expect("its turn");
        assert!(is_admitted(&mut late).is_none());
        drop(lease);
        assert!(is_admitted(&mut late).is_some());
    }

    #[tokio::test]
    async fn who_holds_something_grows_or_is_told_no() {
        let gate = Gate::new(10);
        let mut lease = gate.admit(claim("a", 1, &[("namespace a", 6)])).await;
        assert!(lease.grow(5));
        assert!(!lease.grow(1), "beyond its share");
        let _other = gate.admit(claim("b", 100, &[("namespace b", 4)])).await;
        assert_eq!(gate.taken(), 10, "a claim beyond a share is cut to it");
        drop(lease);
        assert_eq!(gate.taken(), 4);
    }

    #[tokio::test]
    async fn who_gave_up_waiting_takes_nothing() {
        let gate = Gate::new(1);
        let first = gate.admit(claim("a", 1, &[])).await;
        drop(waits(&gate, claim("a", 1, &[])));
        let mut next = waits(&gate, claim("a", 1, &[]));
        drop(first);
        assert!(is_admitted(&mut next).is_some());
        assert_eq!((gate.taken(), gate.waiting()), (0, 0));
    }
}
