//! Waits until the controller has handled requested reconciles, with one watch for all objects of a kind.

use std::{collections::BTreeMap, pin::pin};

use anyhow::{anyhow, bail};
use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

use super::progress::Line;
use crate::managed::{Managed, State};

/// Waits until the controller has handled the request `token` for each object in `waiting` and each of them has
/// settled. Shows the state of each object on its line. Returns whether all objects are Ready.
///
/// # Errors
/// The watch is not allowed.
pub async fn follow<K: Managed>(api: Api<K>, mut waiting: BTreeMap<String, Line>, token: &str) -> anyhow::Result<bool> {
    let mut config = watcher::Config::default();
    if let (1, Some(name)) = (waiting.len(), waiting.keys().next()) {
        config = config.fields(&format!("metadata.name={name}"));
    }
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut missing: Option<Vec<String>> = None;
    let mut all_ready = true;
    while !waiting.is_empty() {
        let object = match events.next().await {
            Some(Ok(Event::Apply(object) | Event::InitApply(object))) => {
                if let Some(missing) = &mut missing {
                    missing.retain(|name| *name != object.name_any());
                }
                object
            }
            Some(Ok(Event::Init)) => {
                missing = Some(waiting.keys().cloned().collect());
                continue;
            }
            Some(Ok(Event::InitDone)) => {
                for name in missing.take().unwrap_or_default() {
                    all_ready &= deleted::<K>(&mut waiting, &name);
                }
                continue;
            }
            Some(Ok(Event::Delete(object))) => {
                all_ready &= deleted::<K>(&mut waiting, &object.name_any());
                continue;
            }
            Some(Err(error)) => {
                give_up_if_forbidden(&error)?;
                for line in waiting.values() {
                    line.say("the connection was interrupted, trying again");
                }
                continue;
            }
            None => bail!("the watch ended"),
        };
        let name = object.name_any();
        let Some(line) = waiting.get(&name) else {
            continue;
        };
        if let Some(outcome) = settled(&object, token, line) {
            all_ready &= outcome.is_ok();
            line.finish(&object, outcome);
            waiting.remove(&name);
        }
    }
    Ok(all_ready)
}

/// The result for `object`; `None` while the controller still works on it.
fn settled(object: &impl Managed, token: &str, line: &Line) -> Option<anyhow::Result<()>> {
    match State::of(object) {
        State::Suspended => Some(Err(anyhow!("it was suspended"))),
        State::Working { message } => {
            line.say(&message);
            None
        }
        // The controller has not handled the request yet, so the state is from before the request.
        _ if object.last_handled_request() != Some(token) => None,
        State::Ready => Some(Ok(())),
        State::Failed { reason, message, .. } => Some(Err(anyhow!("{reason}: {message}"))),
    }
}

/// Reports that an object was deleted, because it never becomes Ready. Does nothing if the command does not wait for
/// the object.
fn deleted<K: Managed>(waiting: &mut BTreeMap<String, Line>, name: &str) -> bool {
    match waiting.remove(name) {
        Some(line) => {
            line.fail(&anyhow!("{}/{name} was deleted", K::KIND));
            false
        }
        None => true,
    }
}

/// Fails if the watch is not allowed, because another try would not help.
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
