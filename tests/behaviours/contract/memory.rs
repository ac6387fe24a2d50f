//! The controller watches Secrets without keeping their values in memory.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::{own::Own, side::one_more_is_served};

#[tokio::test]
async fn secrets_are_watched_by_their_metadata_only() -> Result<()> {
    const SECRETS: usize = 60;
    const SIZE: usize = 900_000;
    let own = Own::start("memory", &["--all-namespaces=false"]).await?;
    let resident =
        async |own: &Own| own.controller.metric::<f64>("process_resident_memory_bytes").await?.context("no metric");
    one_more_is_served(&own.side, "first").await?;
    let before = resident(&own).await?;
    let create = |n: usize| {
        let side = &own.side;
        async move { side.create_secret(&format!("big-{n}"), json!({"stringData": {"value": "x".repeat(SIZE)}})).await }
    };
    stream::iter(0..SECRETS).map(create).buffer_unordered(4).try_collect::<Vec<_>>().await?;
    // The memory may grow by at most half of the size of all values.
    let allowed = f64::from(u32::try_from(SECRETS * SIZE / 2)?);
    one_more_is_served(&own.side, "second").await?;
    let grown = resident(&own).await? - before;
    assert!(grown < allowed, "{grown} bytes more");
    let own = own.restart().await?;
    one_more_is_served(&own.side, "third").await?;
    let grown = resident(&own).await? - before;
    assert!(grown < allowed, "{grown} bytes more after a start");
    Ok(())
}
