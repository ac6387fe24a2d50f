//! Which of several replicas works: the holder of a Lease in the controller's namespace.
//!
//! # Guarantees
//! - At most one replica leads, whatever the clocks of the machines say: each one measures by its own how long it has
//!   not seen the lease renewed, and takes it over only as it saw it (resource version).
//! - The holder knows that it leads until ten seconds after it *sent* the last renewal that was answered; others wait
//!   fifteen from when they *saw* it. In between nobody leads. [`Leadership::leads`] compares with the clock at every
//!   question, so that a process which was frozen knows as soon as it goes on.
//! - A replica leads once: who loses the lease ends, see [`Election::lost`].
//! - The holder renews every two seconds; the others only watch.
//! - A leader whose writes get no answer, while its lease can be renewed, gives the lease back; nobody takes it whose
//!   writes get none. Who finds out sends one that changes nothing.
//! - What stands in the lease is believed within bounds: a holder that is gone keeps nobody waiting for more than a
//!   minute, whatever duration somebody wrote into it, and whoever deletes it.
//!
//! # Caveats
//! - A write that was sent in time and reached the API server late is not taken back; what is written is made of what is
//!   in the cluster and in Git, so that the next leader writes the same.
//! - The clock may stand still while a machine is suspended: a leader on it believes in itself for up to ten seconds
//!   when it goes on, though another one leads by then. Its next renewal, two seconds later at most, tells.
//! - Two processes that were given one name each take the lease from the other: who loses it knows at its next renewal.
//!
//! # Why not a library
//! kube-lease-manager 0.13 is the one for kube 5. It trusts the clocks of other machines, goes on leading when renewals
//! fail (the state only changes with an answer), and sees that a lease was released when it would have expired.

mod lease;
mod reach;

#[cfg(test)]
mod tests;

use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
};

use clap::{ArgAction, Args};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use self::lease::Candidate;
pub use self::reach::Reach;
use crate::metrics::Metrics;

/// Several replicas.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Replicas")]
pub struct ElectionFlags {
    /// Work only while holding the lease; the other replicas stand by. Without it, never run more than one.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    pub leader_elect: bool,
    /// Name of the lease, in the controller's namespace.
    #[arg(long, default_value = "gitseal-controller", value_name = "NAME")]
    pub leader_elect_lease_name: String,
    /// Who this replica is among the others; the host name without it. No two may have one name: a replica that comes
    /// back under its name goes on at once.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub leader_elect_identity: Option<String>,
}

impl ElectionFlags {
    fn identity(&self) -> String {
        let given = self.leader_elect_identity.clone().filter(|name| !name.is_empty());
        let host = || fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
        let host = || host().filter(|name| !name.is_empty()).or_else(|| env::var("HOSTNAME").ok());
        given.or_else(host).unwrap_or_else(|| format!("gitseal-controller-{:016x}", RandomState::new().hash_one(())))
    }
}

/// How far this replica is.
#[derive(Clone, Copy, Debug)]
enum Term {
    /// It stands by.
    Waiting,
    /// It leads, and that is certain until then.
    Until(Instant),
    /// There are no others.
    Alone,
    /// It led.
    Over,
}

/// Whether this replica leads, and whether it can; clones share it.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: watch::Receiver<Term>,
    reach: Reach,
}

impl Leadership {
    fn new(term: watch::Receiver<Term>) -> Self {
        Self { term, reach: Reach::default() }
    }

    /// That of the only replica.
    pub fn alone() -> Self {
        Self::new(watch::channel(Term::Alone).1)
    }

    /// Whether the API server answers.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Whether it leads at this moment.
    pub fn leads(&self) -> bool {
        match *self.term.borrow() {
            Term::Until(end) => Instant::now() < end,
            Term::Alone => true,
            Term::Waiting | Term::Over => false,
        }
    }

    /// Waits until it leads, for ever when that does not happen.
    pub async fn begun(&self) {
        let mut term = self.term.clone();
        if term.wait_for(|term| !matches!(term, Term::Waiting)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why a leader is none any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the lease {lease} is lost: {reason}")]
pub struct LeaseLost {
    /// Namespace and name of the lease.
    pub lease: String,
    /// What happened.
    pub reason: String,
}

/// A replica that may lead one day; before it does, it has to know how to reach the API server.
pub struct Candidacy {
    flags: ElectionFlags,
    term: watch::Sender<Term>,
    leadership: Leadership,
}

impl Candidacy {
    /// The only replica leads at once.
    pub fn new(flags: &ElectionFlags) -> Self {
        let (term, receiver) = watch::channel(if flags.leader_elect { Term::Waiting } else { Term::Alone });
        Self { flags: flags.clone(), term, leadership: Leadership::new(receiver) }
    }

    /// Whether this replica leads.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Begins to wait for the lease; the only replica has none.
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
        Election { leadership, release, task }
    }
}

/// This replica's part in the election; when it is dropped, the lease is left to expire.
pub struct Election {
    leadership: Leadership,
    release: CancellationToken,
    task: JoinHandle<Option<LeaseLost>>,
}

impl Election {
    /// Whether this replica leads.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Waits until the lease is lost. Everything has to stop then; the process ends and starts anew.
    pub async fn lost(&mut self) -> LeaseLost {
        match (&mut self.task).await {
            Ok(Some(lost)) => lost,
            Ok(None) => std::future::pending().await,
            Err(error) => LeaseLost { lease: String::new(), reason: error.to_string() },
        }
    }

    /// Gives the lease to whoever waits for it: after the last write.
    pub async fn release(mut self) {
        self.release.cancel();
        // Whoever lost it meanwhile has nothing to give.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}
