//! Describes how somebody changed an object before it was put back.

use fields::{Touched, touched, touched_beside};
use manifests::ObjectId;

use super::Written;
use crate::cluster::LiveObject;

/// An object that was put back.
#[derive(Clone, Debug)]
pub(crate) struct Healed {
    /// The object.
    pub id: ObjectId,
    /// How others had changed the object.
    pub drifted: Drifted,
    /// Whether something was put back. Otherwise, others only own other fields than before, and these are left to them.
    pub is_put_back: bool,
}

/// See [`Healed::drifted`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Drifted {
    /// The object was deleted.
    Deleted,
    /// These fields were changed. The list is empty if it is not known which fields.
    Touched(Vec<Touched>),
}

impl Drifted {
    /// Whether no field of ours is known to have been changed.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Touched(all) if all.is_empty())
    }

    /// How somebody changed the object. `before` is its state before our write, and `written` the result of the write.
    pub(crate) fn of(before: Option<&LiveObject>, written: &Written) -> Self {
        let Some(before) = before else { return Self::Deleted };
        let owners = before.owners.as_deref().unwrap_or_default();
        if owners.is_empty() {
            return Self::Touched(Vec::new());
        }
        let mut all = touched(owners, &written.managed_fields);
        if let Some(facts) = before.secret.as_deref().filter(|facts| facts.is_mixed()) {
            all.extend(touched_beside(owners, facts.foreign_values.iter().map(|key| &**key)));
        }
        Self::Touched(all)
    }
}

/// How many writers a message names at most.
const NAMED: usize = 3;

impl Drifted {
    /// Describes the change, for example `was changed outside of Git (data.value by kubectl-edit)`. `source` names what
    /// the object is made from, here `Git`.
    pub(crate) fn outside_of(&self, source: &str) -> String {
        let all = match self {
            Self::Deleted => return format!("was deleted outside of {source}"),
            Self::Touched(all) => all,
        };
        let mut named: Vec<_> = all.iter().take(NAMED).map(ToString::to_string).collect();
        if all.len() > NAMED {
            named.push(format!("and by {} more", all.len() - NAMED));
        }
        let named = if named.is_empty() { String::new() } else { format!(" ({})", named.join("; ")) };
        format!("was changed outside of {source}{named}")
    }
}
