//! Waiting for the controller, by watches.

use std::{collections::BTreeMap, pin::pin};

use anyhow::bail;
use crds::Sync;
use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watch_object, watcher},
    },
};

use super::{
    Name,
    progress::{Line, Progress},
};
use crate::managed::{Managed, State};

/// Waits until the controller has acted on the request `token` and the object has settled.
///
/// # Errors
/// The object is not Ready (the error is the condition's reason and message), or it is gone.
pub async fn follow<K: Managed>(
    api: Api<K>,
    name: &Name,
    token: &str,
    line: &Line,
) -> anyhow::Result<K> {
    line.say("requested");
    let mut objects = pin!(watch_object(api, &name.name).default_backoff());
    while let Some(object) = objects.next().await {
        let object = match object {
            Ok(Some(object)) => object,
            Ok(None) => bail!("{}/{} was deleted", K::KIND, name.name),
            Err(error) => {
                give_up_if_forbidden(&error)?;
                line.say("the connection was interrupted, trying again");
                continue;
            }
        };
        match State::of(&object) {
            State::Suspended => bail!("{} was suspended", object.reference()),
            State::Working { message } => line.say(&message),
            // The state is that of an earlier run.
            State::Ready | State::Failed { .. } if object.last_handled_request() != Some(token) => {
            }
            State::Ready => return Ok(object),
            State::Failed {
                reason, message, ..
            } => bail!("{reason}: {message}"),
        }
    }
    bail!("the watch of {}/{} ended", K::KIND, name.name)
}

/// Waits until no Sync of `repository` is being reconciled any more; tells how those went that `revision` changed, and
/// whether all of these are Ready.
pub async fn follow_syncs_of(
    api: Api<Sync>,
    repository: &Name,
    revision: &str,
    progress: &Progress,
) -> bool {
    let mut syncs: BTreeMap<String, Sync> = BTreeMap::new();
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    let mut listed = false;
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => syncs.clear(),
            Ok(Event::InitDone) => listed = true,
            Ok(Event::InitApply(sync) | Event::Apply(sync)) if is_of(&sync, repository) => {
                if let State::Working { message } = State::of(&sync) {
                    let name = Name {
                        namespace: repository.namespace.clone(),
                        name: sync.name_any(),
                    };
                    lines
                        .entry(sync.name_any())
                        .or_insert_with(|| progress.line(Sync::KIND, &name))
                        .say(&message);
                }
                syncs.insert(sync.name_any(), sync);
            }
            Ok(Event::Delete(sync)) => _ = syncs.remove(&sync.name_any()),
            Ok(Event::InitApply(_) | Event::Apply(_)) | Err(_) => {}
        }
        if listed
            && !syncs
                .values()
                .any(|sync| matches!(State::of(sync), State::Working { .. }))
        {
            break;
        }
    }
    let changed = syncs
        .values()
        .filter(|sync| attempted(sync) == Some(revision));
    let outcomes: Vec<bool> = changed
        .map(|sync| {
            let name = Name {
                namespace: repository.namespace.clone(),
                name: sync.name_any(),
            };
            let line = lines
                .remove(&name.name)
                .unwrap_or_else(|| progress.line(Sync::KIND, &name));
            match State::of(sync) {
                State::Failed {
                    reason, message, ..
                } => {
                    line.fail(&anyhow::anyhow!("{reason}: {message}"));
                    false
                }
                State::Ready | State::Working { .. } | State::Suspended => {
                    line.succeed(sync);
                    true
                }
            }
        })
        .collect();
    outcomes.into_iter().all(|ready| ready)
}

fn attempted(sync: &Sync) -> Option<&str> {
    sync.status.as_ref()?.last_attempted_revision.as_deref()
}

fn is_of(sync: &Sync, repository: &Name) -> bool {
    let reference = &sync.spec.repository;
    reference.name == repository.name
        && reference
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == repository.namespace)
        && !sync.spec.suspend
}

/// A watch that may not be is not tried for ever.
fn give_up_if_forbidden(error: &watcher::Error) -> anyhow::Result<()> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return Ok(());
    };
    if matches!(status.code, 401 | 403) {
        bail!("{}", status.message);
    }
    Ok(())
}
