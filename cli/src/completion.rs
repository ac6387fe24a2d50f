//! Completions: what a shell offers while a command line is typed. Names come from the cluster that the command line
//! would use.
//!
//! The script of `gitseal completions` runs this program with [`VARIABLE`] set, and with the words of the command line
//! after `--`.
//!
//! # Guarantees
//! - Nothing is printed except what is offered. If names cannot be found for any reason, none are offered.
//! - The user is never asked anything, and never waits longer than [`LONGEST`].
//! - Every shell reads what is offered as one word, even without quotes. Names that contain anything except letters,
//!   digits and `-._/:@+=,` are left out. bash puts an offered word into the command line unchanged, so a file
//!   `$(command).yaml` in somebody's repository would run a command.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fmt::Debug,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::bail;
use clap::{CommandFactory as _, FromArgMatches as _, ValueHint};
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _},
    env::Shells,
};
use crds::{Repository, Sync as GitSync};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::ListParams,
    config::ExecInteractiveMode,
    core::{NamespaceResourceScope, PartialObjectMeta},
};
use sealing::Scope;
use serde::de::DeserializeOwned;

use crate::{Cli, found::api, global::Global};

/// The environment variable in which a script names its shell.
const VARIABLE: &str = "GITSEAL_COMPLETE";
/// The index of the word that is completed, as the scripts of bash and zsh pass it. In the other shells it is the last
/// word.
const PLACE: &str = "_CLAP_COMPLETE_INDEX";
/// How long the cluster may take to answer.
const LONGEST: Duration = Duration::from_millis(1500);

/// Answers a shell, if this program was started by a completion script.
pub fn answer() -> Option<ExitCode> {
    std::env::var_os(VARIABLE).filter(|shell| !shell.is_empty())?;
    // A panic prints nothing, because the terminal belongs to the shell.
    std::panic::set_hook(Box::new(|_| {}));
    let folder = std::env::current_dir().ok();
    let answered =
        CompleteEnv::with_factory(what_fits).var(VARIABLE).try_complete(std::env::args_os(), folder.as_deref());
    Some(if answered.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command line, in which flags are offered only if the word begins with a dash or if there is nothing else to
/// offer.
fn what_fits() -> clap::Command {
    fn without_flags(command: clap::Command) -> clap::Command {
        let command = command.mut_args(|arg| if arg.is_positional() { arg } else { arg.hide(true) });
        command.mut_subcommands(without_flags)
    }
    let mut command = with_safe_files(crate::command_line());
    if line().is_some_and(|(_, word)| word.as_encoded_bytes().starts_with(b"-")) {
        return command;
    }
    // clap's `build` adds `--help` and the global flags to every subcommand, so that they are hidden, too.
    command.build();
    without_flags(command)
}

/// Where a command line can name a file, offers only files whose names are one word for every shell.
fn with_safe_files(command: clap::Command) -> clap::Command {
    let files = |word: &OsStr| {
        let mut files = PathCompleter::any().complete(word);
        files.retain(|file| file.get_value().to_str().is_some_and(is_one_word));
        files
    };
    let command = command.mut_args(|arg| match arg.get_value_hint() {
        ValueHint::AnyPath => arg.add(ArgValueCompleter::new(files)),
        _ => arg,
    });
    command.mut_subcommands(with_safe_files)
}

/// The script that a shell runs.
///
/// # Errors
/// There is no script for this shell.
pub fn script(shell: Shell) -> anyhow::Result<String> {
    let (shells, name) = (Shells::builtins(), shell.to_string());
    let Some(shell) = shells.completer(&name) else { bail!("there are no completions for {name}") };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "gitseal", "gitseal", "gitseal", &mut script)?;
    Ok(String::from_utf8(script)?)
}

/// Offers the contexts of the kubeconfig.
pub fn contexts() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let kubeconfig = typed().and_then(|global| global.kubeconfig().ok().cloned()).unwrap_or_default();
        offered(kubeconfig.contexts.into_iter().map(|context| context.name), "")
    })
}

/// Offers the scopes of sealed values.
pub fn scopes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let scopes = [Scope::Strict, Scope::NamespaceWide, Scope::ClusterWide];
        scopes.into_iter().map(|scope| CompletionCandidate::new(scope.to_string())).collect()
    })
}

/// Offers the namespaces of the cluster.
pub fn namespaces() -> ArgValueCompleter {
    from_cluster(async |client: &Client, _: &Global, _: &str| {
        let found = Api::<Namespace>::all(client.clone()).list_metadata(&ListParams::default()).await?;
        Ok(found.items.iter().map(PartialObjectMeta::name_any).collect())
    })
}

/// Offers the Syncs and Repositories of the namespace: by name, or as `KIND/NAME` if the typed word has a `/`.
pub fn targets() -> ArgValueCompleter {
    from_cluster(async |client: &Client, global: &Global, typed: &str| Ok(named(client, global, typed).await))
}

/// Offers the Syncs of the namespace.
pub fn syncs() -> ArgValueCompleter {
    from_cluster(async |client: &Client, global: &Global, _: &str| {
        names::<GitSync>(client, &global.default_namespace()).await
    })
}

/// The Syncs and Repositories of the namespace, as a user can type them: `web`, `sync/web` or `repository/web`.
pub async fn named(client: &Client, global: &Global, typed: &str) -> Vec<String> {
    let namespace = global.default_namespace();
    let found = futures::join!(names::<GitSync>(client, &namespace), names::<Repository>(client, &namespace));
    // If the user may list only one of the kinds, that kind is offered.
    let (syncs, repositories) = (found.0.unwrap_or_default(), found.1.unwrap_or_default());
    if typed.contains('/') {
        let repositories = repositories.iter().map(|name| format!("repository/{name}"));
        return syncs.iter().map(|name| format!("sync/{name}")).chain(repositories).collect();
    }
    // If a Sync and a Repository have the same name, the name alone means the Sync.
    let repositories =
        repositories.into_iter().map(|name| if syncs.contains(&name) { format!("repository/{name}") } else { name });
    let repositories: Vec<_> = repositories.collect();
    syncs.into_iter().chain(repositories).collect()
}

/// The names of a kind in a namespace.
///
/// # Errors
/// The cluster does not answer, or refuses the request.
pub async fn names<K>(client: &Client, namespace: &str) -> anyhow::Result<Vec<String>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let found = api::<K>(client, Some(namespace)).list_metadata(&ListParams::default()).await?;
    Ok(found.items.iter().map(PartialObjectMeta::name_any).collect())
}

/// Offers names from the cluster. `names` is called with the part of the word that was typed.
pub fn from_cluster<F>(names: F) -> ArgValueCompleter
where
    F: AsyncFn(&Client, &Global, &str) -> anyhow::Result<Vec<String>> + Copy + Send + Sync + 'static,
{
    ArgValueCompleter::new(move |word: &OsStr| {
        let word = word.to_string_lossy().into_owned();
        let (answer, answered) = mpsc::channel();
        let asked = word.clone();
        // The request runs on a separate thread that nobody waits for, because a credential program of the kubeconfig
        // may block it.
        thread::spawn(move || {
            if let Ok(names) = ask(&asked, names) {
                let _ = answer.send(names);
            }
        });
        offered(answered.recv_timeout(LONGEST).unwrap_or_default(), &word)
    })
}

fn ask(
    word: &str,
    names: impl AsyncFn(&Client, &Global, &str) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<Vec<String>> {
    let Some(global) = typed() else { bail!("the command line so far cannot be parsed") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut config = global.config().await?;
        if let Some(program) = &mut config.auth_info.exec {
            if program.interactive_mode == Some(ExecInteractiveMode::Always) {
                bail!("the kubeconfig's program for credentials would ask for input");
            }
            // Without a terminal, the program cannot ask for input.
            program.interactive_mode = Some(ExecInteractiveMode::Never);
        }
        names(&global.client_of(config)?, &global, word).await
    })
}

/// The typed command line without the word that is completed, and that word.
fn line() -> Option<(Vec<OsString>, OsString)> {
    let mut line: Vec<_> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let place = std::env::var(PLACE).ok().and_then(|place| place.parse().ok());
    let place = place.unwrap_or(line.len().checked_sub(1)?);
    let word = (place < line.len()).then(|| line.remove(place))?;
    Some((line, word))
}

/// The global flags in the typed command line.
fn typed() -> Option<Global> {
    let (line, _) = line()?;
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(line).ok()?;
    Global::from_arg_matches(&matches).ok()
}

/// The names that begin with `word` and that every shell reads as one word.
fn offered(names: impl IntoIterator<Item = String>, word: &str) -> Vec<CompletionCandidate> {
    let names: BTreeSet<_> = names.into_iter().filter(|name| name.starts_with(word) && is_one_word(name)).collect();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// Whether every shell reads the text as one word.
fn is_one_word(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "-._/:@+=,".contains(c))
}
