//! Decides which of several replicas works (*leads*): the replica that holds a Lease in the controller's namespace.
//!
//! # Guarantees
//! - At most one replica leads, even if the clocks of the machines differ. Each replica measures with its own clock how
//!   long it has not seen a renewal of the lease. A replica takes the lease over only if the lease still has the
//!   resource version that this replica saw last.
//! - The holder leads until ten seconds after it *sent* the last renewal that was answered. Other replicas wait for
//!   fifteen seconds after they *saw* this renewal. Between these two times, no replica leads. [`Leadership::leads`]
//!   looks at the clock at every call, so a process that was frozen notices at once that it no longer leads.
//! - A replica leads at most once: if it loses the lease, its process ends, see [`Election::lost`].
//! - The holder renews the lease every two seconds; the other replicas only watch it.
//! - If a leader can renew its lease, but its other writes are not answered, it gives the lease back. A replica whose
//!   writes are not answered does not take the lease. To find out whether writes are answered, a replica sends a write
//!   that changes nothing.
//! - If the duration in the lease is longer than a minute, replicas use one minute instead. So if the holder is gone,
//!   another replica leads within a minute, even if somebody wrote a long duration into the lease, or deleted the
//!   lease.
//!
//! # Caveats
//! - A write that a leader sent in time may reach the API server when another replica leads. This does no harm, because
//!   a write depends only on what is in the cluster and in Git, so the next leader writes the same.
//! - While a machine is suspended, its clock may stand still. When the machine resumes, a leader on it may still
//!   believe that it leads, although another replica leads already. It notices this at its next renewal, two seconds
//!   later at most.
//! - Two processes with the same name take the lease from each other. The process that loses the lease notices this at
//!   its next renewal.
//!
//! # Why not a library
//! For kube 5, there is kube-lease-manager 0.13. It trusts the clocks of other machines. It continues to lead when
//! renewals fail, because it updates its state only when a renewal is answered. If the holder releases the lease, the
//! library does not notice this before the time at which the lease would have expired.

mod lease;
mod reach;

#[cfg(test)]
mod tests;

use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
};

pub use flags::ElectionFlags;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use self::lease::Candidate;
pub use self::reach::Reach;
use crate::metrics::Metrics;

/// The name of this replica.
fn identity(flags: &ElectionFlags) -> String {
    let given = flags.leader_elect_identity.clone().filter(|name| !name.is_empty());
    let host = || fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let host = || host().filter(|name| !name.is_empty()).or_else(|| env::var("HOSTNAME").ok());
    given.or_else(host).unwrap_or_else(|| format!("gitseal-controller-{:016x}", RandomState::new().hash_one(())))
}

/// The state of this replica.
#[derive(Clone, Copy, Debug)]
enum Term {
    /// The replica waits for the lease.
    Waiting,
    /// The replica leads, and this is certain until the given time.
    Until(Instant),
    /// The replica leads, because there is no other one.
    Alone,
    /// The replica has led, and no longer leads.
    Over,
}

/// Says whether this replica leads, and whether the API server answers it. Clones share this state.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: watch::Receiver<Term>,
    reach: Reach,
}

impl Leadership {
    fn new(term: watch::Receiver<Term>) -> Self {
        Self { term, reach: Reach::default() }
    }

    /// The state of a replica that is the only one, so it always leads.
    pub fn alone() -> Self {
        Self::new(watch::channel(Term::Alone).1)
    }

    /// Says whether the API server answers.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Whether this replica leads at this moment.
    pub fn leads(&self) -> bool {
        match *self.term.borrow() {
            Term::Until(end) => Instant::now() < end,
            Term::Alone => true,
            Term::Waiting | Term::Over => false,
        }
    }

    /// Waits until this replica leads.
    pub async fn begun(&self) {
        let mut term = self.term.clone();
        if term.wait_for(|term| !matches!(term, Term::Waiting)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why this replica no longer leads.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the lease {lease} is lost: {reason}")]
pub struct LeaseLost {
    /// Namespace and name of the lease.
    pub lease: String,
    /// What happened.
    pub reason: String,
}

/// This replica before it takes part in the election: it has no client for the API server yet, so it cannot wait for
/// the lease.
pub struct Candidacy {
    flags: ElectionFlags,
    term: watch::Sender<Term>,
    leadership: Leadership,
}

impl Candidacy {
    /// Without an election (`--leader-elect=false`), the replica leads at once.
    pub fn new(flags: &ElectionFlags) -> Self {
        let (term, receiver) = watch::channel(if flags.leader_elect { Term::Waiting } else { Term::Alone });
        Self { flags: flags.clone(), term, leadership: Leadership::new(receiver) }
    }

    /// Whether this replica leads.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Begins to wait for the lease. Without an election, no lease is needed.
    pub fn start(self, client: kube::Client, namespace: &str, metrics: Metrics) -> Election {
        let Self { flags, term, leadership } = self;
        let release = CancellationToken::new();
        let candidate = Candidate::new(client, namespace, &flags, leadership.reach().clone());
        let token = release.clone();
        let task = if flags.leader_elect {
            tokio::spawn(async move { candidate.run(&term, &token, &metrics).await })
        } else {
            metrics.leads(true);
            tokio::spawn(async move {
                token.cancelled().await;
                drop(term);
                None
            })
        };
        Election { release, task }
    }
}

/// This replica while it takes part in the election: it waits for the lease, or holds it. If this value is dropped, the
/// lease is no longer renewed and expires.
pub struct Election {
    release: CancellationToken,
    task: JoinHandle<Option<LeaseLost>>,
}

impl Election {
    /// Waits until the lease is lost. After that, all work must stop: the process ends and is started again.
    pub async fn lost(&mut self) -> LeaseLost {
        match (&mut self.task).await {
            Ok(Some(lost)) => lost,
            Ok(None) => std::future::pending().await,
            Err(error) => LeaseLost { lease: String::new(), reason: error.to_string() },
        }
    }

    /// Gives the lease to a replica that waits for it. Call this after the last write.
    pub async fn release(mut self) {
        self.release.cancel();
        // If the lease was lost in the meantime, there is nothing to release.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}
