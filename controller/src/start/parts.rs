//! Tasks that run for ever. If one of them ends, all end.

use futures::{FutureExt, future::BoxFuture};

/// The tasks of the controller that run for ever. If one of them ends, the controller ends.
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
