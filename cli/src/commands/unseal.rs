use crate::global::Global;

/// (being written)
#[derive(clap::Args)]
pub struct UnsealArgs {}

pub async fn run(_: UnsealArgs, _: &Global) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}
