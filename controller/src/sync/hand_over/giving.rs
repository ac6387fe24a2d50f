//! A Sync releases the objects that left its folder and that other Syncs want.

use std::collections::BTreeMap;

use crds::ObjectKey;
use futures::{StreamExt as _, stream};
use manifests::ObjectId;
use pipeline::{Failure, Inventory, Stage};
use tokio::time::Instant;

use super::WAITS_FOR;
use crate::{
    context::InStore as _,
    sync::{Pass, allow::AT_ONCE, prune::Pruner},
};

impl Pass<'_> {
    /// Releases the objects that other Syncs want, and removes from the inventory the objects that other Syncs have
    /// applied.
    pub(in crate::sync) async fn hand_over(
        &self,
        pruner: &Pruner<'_>,
        by: &BTreeMap<ObjectId, ObjectKey>,
        inventory: &mut Inventory,
    ) -> OnItsWay {
        let mut on_its_way = OnItsWay::default();
        let known = &*inventory;
        let reads: Vec<_> = stream::iter(by.clone())
            .map(|(id, to)| async {
                let is_ours = pruner.is_ours(&id, known).await;
                (id, to, is_ours)
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        for (id, to, is_ours) in reads {
            let is_suspended = self.ctx.syncs.get(&to.to_ref()).is_some_and(|to| to.spec.suspend);
            match is_ours {
                Ok(false) => {
                    inventory.remove(&id);
                    self.ctx.cluster.live.release(self.key, &id);
                }
                Ok(true) => {
                    self.ctx.cluster.live.hand_over(self.key, &id, &to);
                    let goes = if is_suspended { &mut on_its_way.to_suspended } else { &mut on_its_way.to_others };
                    goes.push((id, to));
                }
                Err(error) => {
                    tracing::warn!(sync = %self.key, object = %id, %error, "the controller could not find out to which Sync this object belongs, so it is not pruned");
                    on_its_way.to_others.push((id, to));
                }
            }
        }
        on_its_way
    }
}

/// Objects that were released for other Syncs. They stay in the inventory until the other Syncs have applied them.
#[derive(Default)]
pub(in crate::sync) struct OnItsWay {
    /// Objects for Syncs that may take them at any moment.
    to_others: Vec<(ObjectId, ObjectKey)>,
    /// Objects for suspended Syncs, which take nothing until they are resumed.
    to_suspended: Vec<(ObjectId, ObjectKey)>,
}

impl OnItsWay {
    /// The failure that says which objects are still to be taken, if there are any.
    pub(in crate::sync) fn failure(&self) -> Option<Failure> {
        let message = match (moved(&self.to_others), moved(&self.to_suspended)) {
            (Some(moved), _) => format!("{moved}, which takes it over as it is"),
            (None, Some(moved)) => format!("{moved}, which is suspended; the hand-over waits until that Sync resumes"),
            (None, None) => return None,
        };
        Some(Failure { waits: true, message, ..Failure::new(Stage::Prune, "HandingOver") })
    }

    /// While the Sync waits for other Syncs to take the objects, returns the failure that says so. The Sync waits for a
    /// limited time, which began at `since`, and not for suspended Syncs. Otherwise, returns a text that names the
    /// objects that it does not wait for.
    pub(in crate::sync) fn settle(&self, since: &mut Option<Instant>) -> Result<Option<String>, Failure> {
        let suspended = moved(&self.to_suspended)
            .map(|moved| format!("{moved}, which is suspended; nothing changes until that Sync takes it"));
        let Some(moved) = moved(&self.to_others) else {
            if suspended.is_some() {
                *since = None;
            }
            return Ok(suspended);
        };
        if since.get_or_insert_with(Instant::now).elapsed() < WAITS_FOR {
            return self.failure().map_or(Ok(None), Err);
        }
        let late = format!(
            "{moved}, which did not take it within {} s (the status of that Sync says why); nothing changes until it \
             does",
            WAITS_FOR.as_secs()
        );
        Ok(Some([Some(late), suspended].into_iter().flatten().collect::<Vec<_>>().join("; ")))
    }
}

/// A text with the first object, how many more there are, and the Sync that the first one moves to.
fn moved(objects: &[(ObjectId, ObjectKey)]) -> Option<String> {
    let (id, to) = objects.first()?;
    let more = match objects.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{id}{more} moved to the folder of Sync {to}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> (ObjectId, ObjectKey) {
        let id = ObjectId { group: String::new(), kind: "ConfigMap".into(), namespace: None, name: name.into() };
        (id, ObjectKey::new("ns", "taker"))
    }

    #[test]
    fn who_may_take_an_object_is_waited_for_and_not_for_ever() {
        let on_its_way = OnItsWay { to_others: vec![object("a"), object("b")], to_suspended: vec![object("c")] };
        let mut since = None;
        let failure = on_its_way.settle(&mut since).expect_err("it is waited for");
        assert!(failure.waits && failure.message.contains("a and 1 more"), "{}", failure.message);
        since = since.and_then(|since| since.checked_sub(WAITS_FOR));
        assert!(since.is_some());
        let told = on_its_way.settle(&mut since).expect("not for ever").expect("and it is told");
        assert!(told.contains("did not take it") && told.contains("which is suspended"), "{told}");
        assert!(since.is_some(), "the next look does not wait again");
    }

    #[test]
    fn who_is_suspended_is_not_waited_for() {
        let on_its_way = OnItsWay { to_others: Vec::new(), to_suspended: vec![object("c")] };
        let mut since = None;
        let told = on_its_way.settle(&mut since).expect("it is not waited for").expect("it is told");
        assert!(told.contains("Sync ns/taker, which is suspended"), "{told}");
        assert_eq!(since, None);
        assert!(on_its_way.failure().is_some_and(|failure| failure.waits), "whoever goes waits for a while");
        assert!(OnItsWay::default().failure().is_none());
    }
}
