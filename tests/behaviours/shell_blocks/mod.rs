//! Runs the shell blocks of README.md and docs exactly as they are written, except those marked as not run. They use the
//! real `gitseal`, `kubectl`, `kubeseal`, `git` and `age`, and a real control plane whose Pods run as processes of this
//! machine.

pub(crate) mod desk;
mod fleet;
mod migration;
mod node;
pub(crate) mod page;

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, bail, ensure};
use harness::{Plane, network};
use localcluster::ClusterOptions;

use self::{
    desk::Desk,
    page::{blocks, root},
};
use crate::example;

/// The image of our controller that the pages use.
const IMAGE: &str = "registry.example/gitseal-controller:0.1.0";

/// The paths of README.md, of the pages in docs, and of the page of the example.
fn pages() -> Result<Vec<String>> {
    let mut pages = vec!["README.md".to_owned(), example::PAGE.to_owned()];
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        pages.extend(path.extension().is_some_and(|extension| extension == "md").then(|| format!("docs/{name}")));
    }
    Ok(pages)
}

#[test]
fn every_block_says_what_it_is_and_every_page_with_shell_blocks_is_run() -> Result<()> {
    let mut with_blocks = BTreeSet::new();
    for page in pages()? {
        for block in blocks(&page)? {
            let place = format!("{page}:{}", block.line);
            let known = ["sh", "console", "text", "yaml", "json"];
            ensure!(known.contains(&&block.language[..]), "{place}: a block is one of {known:?}");
            ensure!(
                block.not_run.as_ref().is_none_or(|why| !why.trim().is_empty()),
                "{place}: it is not run, and why?"
            );
            if block.is_shell() && block.not_run.is_none() {
                with_blocks.insert(page.clone());
            }
        }
    }
    let run = fleet::PAGES.iter().chain(migration::PAGES).chain(&[example::PAGE]);
    let run: BTreeSet<_> = run.map(|page| (*page).to_owned()).collect();
    assert_eq!(with_blocks, run);
    Ok(())
}

/// Runs `work` with a cluster that has a node, and with the [`Desk`] at which the commands of the pages are typed.
async fn with_a_node(plane: &Plane, work: impl AsyncFnOnce(&Plane, &Desk) -> Result<()>) -> Result<()> {
    let desk = Desk::new(plane)?;
    tokio::select! {
        done = work(plane, &desk) => done,
        broken = node::run(plane) => match broken {
            Err(why) => Err(why.context("the node")),
            Ok(never) => match never {},
        },
    }
}

#[test]
fn a_cluster_lives_as_the_pages_tell() -> Result<()> {
    network::of_its_own(async || {
        let plane = Plane::bare(ClusterOptions::default()).await?;
        with_a_node(&plane, fleet::live).await
    })
}

#[test]
fn sealed_secrets_is_left_and_had_back_as_the_page_tells() -> Result<()> {
    network::of_its_own(async || {
        let plane = Plane::of_sealed_secrets(ClusterOptions::default()).await?;
        with_a_node(&plane, migration::live).await
    })
}

/// The only line of the text that contains this part.
fn line<'t>(text: &'t str, part: &str) -> Result<&'t str> {
    let mut lines = text.lines().filter(|line| line.contains(part));
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line),
        _ => bail!("not one line with {part:?}:\n{text}"),
    }
}
