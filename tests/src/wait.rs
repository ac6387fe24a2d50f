//! Waits for a condition. The limit is so generous that it is reached only if something is broken.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The limit of every wait.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Calls `look` until it succeeds. Its last error is shown when the limit is reached.
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let start = Instant::now();
    loop {
        match look().await {
            Ok(answer) => return Ok(answer),
            Err(state) if start.elapsed() > LIMIT => {
                bail!("waited {LIMIT:?} for {what}: {state:#}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}

/// Waits for `done`, at most for `limit`, a time that the documentation promises.
pub async fn within<T>(limit: Duration, done: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, done).await.with_context(|| format!("it took longer than {limit:?}"))?
}
