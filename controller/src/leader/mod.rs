//! Which of several replicas works: the one that holds a Lease in the controller's namespace.
//!
//! # Guarantees
//! - At most one replica leads, even if the clocks of the machines differ. Each replica measures with its own clock how long
//!   it has not seen the lease renewed. It takes the lease over only if the lease is still as it was seen (resource
//!   version).
//! - The holder leads until ten seconds after it *sent* the last renewal that was answered. Other replicas wait for
//!   fifteen seconds after they *saw* that renewal. In between, nobody leads. [`Leadership::leads`] looks at the clock
//!   at every call. So a process that was frozen notices at once that it no longer leads.
//! - A replica leads at most once: if it loses the lease, its process ends, see [`Election::lost`].
//! - The holder renews the lease every two seconds; the others only watch it.
//! - If the writes of a leader are not answered although it can renew its lease, it gives the lease back. A replica
//!   whose writes are not answered does not take the lease. To find out, it sends a write that changes nothing.
//! - The duration in the lease is used only within limits. So if the holder is gone, another replica leads within a minute,
//!   even if somebody wrote a long duration into the lease or deleted it.
//!
//! # Caveats
//! - A write that was sent in time and reached the API server late cannot be taken back. Writes are made from what is
//!   in the cluster and in Git, so the next leader writes the same.
//! - While a machine is suspended, its clock may stand still. A leader on it may then lead for up to ten more seconds
//!   after it resumes, although another replica leads already. It notices at its next renewal, two seconds later at
//!   most.
//! - Two processes with the same name take the lease from each other. The one that loses it notices at its next
//!   renewal.
//!
//! # Why not a library
//! kube-lease-manager 0.13 is the one for kube 5. It trusts the clocks of other machines. It continues to lead when renewals
//! fail, because its state changes only with an answer. It notices a released lease only when that would have expired.

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
    /// It stands by.
    Waiting,
    /// It leads, and this is certain until then.
    Until(Instant),
    /// It leads, because there is no other replica.
    Alone,
    /// It has led, and does not any more.
    Over,
}

/// Whether this replica leads, and whether the API server answers it. Clones share it.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: watch::Receiver<Term>,
    reach: Reach,
}

impl Leadership {
    fn new(term: watch::Receiver<Term>) -> Self {
        Self { term, reach: Reach::default() }
    }

    /// The leadership of the only replica.
    pub fn alone() -> Self {
        Self::new(watch::channel(Term::Alone).1)
    }

    /// Whether the API server answers.
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

/// A replica that has not begun to wait for the lease, because it has no client of the API server yet.
pub struct Candidacy {
    flags: ElectionFlags,
    term: watch::Sender<Term>,
    leadership: Leadership,
}

impl Candidacy {
    /// A single replica leads at once.
    pub fn new(flags: &ElectionFlags) -> Self {
        let (term, receiver) = watch::channel(if flags.leader_elect { Term::Waiting } else { Term::Alone });
        Self { flags: flags.clone(), term, leadership: Leadership::new(receiver) }
    }

    /// Whether this replica leads.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Begins to wait for the lease. A single replica needs none.
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

/// This replica's part in the election. If it is dropped, the lease expires.
pub struct Election {
    release: CancellationToken,
    task: JoinHandle<Option<LeaseLost>>,
}

impl Election {
    /// Waits until the lease is lost. Then everything must stop: the process ends and is started again.
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
        // If the lease was lost in the meantime, there is nothing to give.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}
