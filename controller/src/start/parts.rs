//! Endless tasks that end together.

use futures::{FutureExt, future::BoxFuture};

/// The endless parts of the controller: when one ends, the controller does.
#[derive(Default)]
pub(super) struct Parts {
    running: Vec<(&'static str, tokio::task::JoinHandle<()>)>,
}

impl Parts {
    pub(super) fn start(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.running.push((name, tokio::spawn(part)));
    }

    pub(super) async fn first_to_end(&mut self) -> &'static str {
        let parts: Vec<BoxFuture<'_, &'static str>> = self
            .running
            .iter_mut()
            .map(|(name, task)| {
                let name = *name;
                task.map(move |_| name).boxed()
            })
            .collect();
        futures::future::select_all(parts).await.0
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (_, task) in &self.running {
            task.abort();
        }
    }
}
