//! Watches that begin with a new list after every failure.

use std::{fmt::Debug, time::Duration};

use futures::{Stream, StreamExt, stream::BoxStream};
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::backoff::pause;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest pause. It is short, so that everything works again a few seconds after an outage.
const LONGEST: Duration = Duration::from_secs(4);
/// A watch that lasted this long counts as successful: after its end, the pauses begin with the shortest one again.
const LASTED: Duration = Duration::from_secs(60);
/// The longest pause if the API server refuses the watch. It is longer, because a missing right or kind seldom appears
/// within seconds.
const REFUSED: Duration = Duration::from_secs(30);

struct State<K> {
    stream: Option<BoxStream<'static, watcher::Result<Event<K>>>>,
    began: Instant,
    /// Number of failures in a row.
    failures: u32,
    refused: bool,
    has_listed: bool,
}

/// Watches objects for ever. The API server ends every watch after some minutes; the next watch then continues where
/// the last one ended. After a *failure*, the watch begins again with a list that does not come from a cache. The
/// reason: the API server's store may have been restored from a backup, and resource versions that we have seen may not
/// exist yet in the restored store. A watch from such a version would wait without any event.
///
/// `first` is the configuration of the first list, `again` the configuration of all later lists.
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
                // If the controller may list but not watch, each list succeeds and each watch fails. So only a watch
                // that lasted for [`LASTED`] resets the count of failures.
                let before = if state.began.elapsed() >= LASTED { 0 } else { state.failures };
                state.failures = before.saturating_add(1);
                state.refused = is_refused(error);
            }
        }
        Some((event, (state, api, first, again)))
    })
}

/// Whether the controller's role does not allow the watch, or the kind does not exist.
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
