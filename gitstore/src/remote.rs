//! The remote side of a fetch: a Git server, a registry, or a chart repository.

use std::path::Path;

use gix::ObjectId;

use crate::FetchError;
use crate::archive::Layout;
use crate::chart_repository::{self, ChartRepository};
use crate::error::FoundDigest;
use crate::index::Arrived;
use crate::registry::{self, Registry};
use crate::transport::{self, Server};
use crate::verify::TrustedKeys;
use remotes::{Reference, Revision};

/// The server that a fetch talks to, by the protocol that it speaks.
pub(crate) enum Remote<'a> {
    Git(transport::Remote<'a>),
    Registry(Registry<'a>),
    Charts(ChartRepository<'a>),
}

/// What a reference stands for.
pub(crate) enum Found {
    Git(Box<transport::Found>),
    Archive(registry::Found),
    Chart(chart_repository::Found),
}

impl Found {
    /// The revision that was found. If the reference is an annotated tag of Git, the hash may be that of the tag until
    /// the commit was received.
    pub(crate) fn revision(&self) -> &Revision {
        match self {
            Self::Git(found) => &found.revision,
            Self::Archive(found) => &found.revision,
            Self::Chart(found) => &found.revision,
        }
    }
}

impl Found {
    /// The digest that may be shown in a message.
    pub(crate) fn digest(&self) -> FoundDigest {
        let is_own = match self {
            Self::Archive(found) => found.is_own,
            Self::Git(_) | Self::Chart(_) => true,
        };
        FoundDigest::of(self.revision().id.hash().to_owned(), is_own)
    }
}

impl<'a> Remote<'a> {
    pub(crate) fn server(&self) -> Server<'a> {
        match self {
            Self::Git(remote) => remote.server,
            Self::Registry(registry) => registry.server(),
            Self::Charts(charts) => charts.server(),
        }
    }

    /// Asks what `reference` stands for. `known` is the revision that is stored.
    pub(crate) fn find(&mut self, reference: &Reference, known: Option<&Revision>) -> Result<Found, FetchError> {
        match self {
            Self::Git(remote) => remote.find(reference).map(|found| Found::Git(Box::new(found))),
            Self::Registry(registry) => registry.find(reference, known).map(Found::Archive),
            Self::Charts(charts) => charts.find(reference).map(Found::Chart),
        }
    }

    /// Checks that a trusted key signed this revision.
    pub(crate) fn verify(&mut self, revision: &Revision, trusted: &TrustedKeys) -> Result<(), FetchError> {
        match self {
            Self::Registry(registry) => registry.verify(revision, trusted),
            Self::Charts(charts) => charts.verify(revision, trusted),
            Self::Git(_) => unreachable!("only a fetch from a registry may have trusted keys"),
        }
    }

    /// Receives what was found, into the folder `incoming`. `have` is a commit that is stored in the repository at `path`, with all
    /// its objects.
    pub(crate) fn receive(
        &mut self,
        found: Found,
        incoming: &Path,
        path: &Path,
        have: Option<ObjectId>,
    ) -> Result<Arrived, FetchError> {
        match (self, found) {
            (Self::Git(remote), Found::Git(found)) => {
                let (pack, wanted) = (incoming.join("received"), found.id.to_string());
                remote
                    .receive(*found, &transport::Arrival { pack: &pack, shallow_file: path.join("shallow"), have })?;
                Ok(Arrived::Pack { pack, wanted })
            }
            (Self::Registry(registry), Found::Archive(found)) => {
                let archive = incoming.join("archive");
                let layout = registry.receive(found, &archive)?;
                Ok(Arrived::Archive { archive, layout })
            }
            (Self::Charts(charts), Found::Chart(found)) => {
                let archive = incoming.join("archive");
                charts.receive(&found, &archive)?;
                Ok(Arrived::Archive { archive, layout: Layout::Chart })
            }
            _ => unreachable!("`found` comes from this remote, so it is of the same kind"),
        }
    }
}
