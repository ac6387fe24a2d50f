use crate::global::Global;

/// (being written)
#[derive(clap::Args)]
pub struct SealArgs {}

pub async fn run(_: SealArgs, _: &Global) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}
