//! Watches that never go on where they broke off.

use std::{fmt::Debug, time::Duration};

use futures::{Stream, StreamExt, stream::BoxStream};
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::backoff::pause;

/// The pause after a first failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest pause: an outage ends within seconds of its cause.
const LONGEST: Duration = Duration::from_secs(4);
/// What lasted for so long was no failure.
const LASTED: Duration = Duration::from_secs(60);
/// The longest pause where the API server says no: rights and kinds do not come by the second.
const REFUSED: Duration = Duration::from_secs(30);

struct State<K> {
    stream: Option<BoxStream<'static, watcher::Result<Event<K>>>>,
    began: Instant,
    /// Failures in a row.
    failures: u32,
    refused: bool,
    has_listed: bool,
}

/// Follows objects for ever. The API server ends watches every few minutes; those go on where they ended. One that
/// *fails* begins anew with a list that is not from a cache: the store behind it may be another one now, restored from a
/// backup, and the resource versions that were seen may lie in its future, where a watch would wait in silence.
///
/// `first` is how the first list is made; the ones after that are those of `again`.
pub(crate) fn follow<K>(
    api: Api<K>,
    first: watcher::Config,
    again: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let state = State { stream: None, began: Instant::now(), failures: 0, refused: false, has_listed: false };
    futures::stream::unfold((state, api, first, again), |(mut state, api, first, again)| async move {
        let mut stream = if let Some(stream) = state.stream.take() {
            stream
        } else {
            if state.failures > 0 {
                let longest = if state.refused { REFUSED } else { LONGEST };
                tokio::time::sleep(pause(state.failures, FIRST, longest)).await;
            }
            state.began = Instant::now();
            let config = if state.has_listed { &again } else { &first };
            watcher(api.clone(), config.clone()).boxed()
        };
        let event = stream.next().await?;
        match &event {
            Ok(event) => {
                state.has_listed |= matches!(event, Event::InitDone);
                state.stream = Some(stream);
            }
            Err(error) => {
                // One that lists and cannot watch fails again and again, too.
                let before = if state.began.elapsed() >= LASTED { 0 } else { state.failures };
                state.failures = before.saturating_add(1);
                state.refused = is_refused(error);
            }
        }
        Some((event, (state, api, first, again)))
    })
}

/// Whether the role does not allow it, or there is nothing to watch.
pub(crate) fn is_refused(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let status = match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status,
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => return false,
    };
    matches!(status.code, 403 | 404)
}
