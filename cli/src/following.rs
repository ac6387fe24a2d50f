//! Follows objects: what exists now, and then every change, until the user interrupts.

use std::{fmt::Debug, pin::pin};

use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::output;

/// Passes all objects to `seen`, and then each one that is new or changed. After an interruption of the watch, all
/// objects are passed again.
///
/// # Errors
/// The error of `seen`.
pub async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    mut seen: impl FnMut(Vec<K>) -> anyhow::Result<()>,
) -> anyhow::Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(object),
            Ok(Event::InitDone) => seen(std::mem::take(&mut listed))?,
            Ok(Event::Apply(object)) => seen(vec![object])?,
            Ok(Event::Delete(_)) => {}
            Err(error) => interrupted(&error),
        }
    }
    Ok(())
}

/// Says that the watch was interrupted and goes on.
pub fn interrupted(error: &watcher::Error) {
    output::warn(format_args!("the watch was interrupted and continues: {}", apiclient::words::of_watch(error)));
}
