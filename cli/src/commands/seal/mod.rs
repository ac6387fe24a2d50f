//! `gitseal seal`.

mod files;
pub mod inputs;
mod new;
pub(in crate::commands) mod project;
mod target;

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context;
use jiff::Timestamp;
use manifests::Content;
use sealing::{Certificate, Scope};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use self::inputs::Input;
pub(in crate::commands) use self::inputs::read_file;
use self::project::Certificates;
use crate::certificate::CertificateTrust;
use crate::completion;
use crate::edit::{self, Sealed, Sealer};
use crate::global::Global;
use crate::output::{self, Hint};

/// Turn Secrets into SealedSecrets, which are safe to commit
///
/// Seals every Secret in the files. Everything else in them stays byte for byte: other objects, comments,
/// and values that are sealed already. So you can run it again at any time.
///
///     gitseal seal secret.yaml > sealed.yaml    to standard output
///     gitseal seal -i secret.yaml               in place
///     gitseal seal apps/                        a whole folder, in place
///     kubectl create secret generic db --from-file=a.txt \
///       --dry-run=client -o yaml | gitseal seal
///     gitseal seal --name db --from-literal password    asks for the value
///
/// Values are bound to the Secret's namespace and name (scope strict), unless --scope or the Secret's annotations set
/// another scope. The certificate is that of --cert, else that of the rules in .gitseal.yaml, else the controller's.
/// Comments among the values are removed, because a value that was commented out is still a secret.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct SealArgs {
    /// Files and folders; standard input if `-` or nothing is given
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Replace each file by the sealed one (files in folders are always replaced)
    #[arg(short, long, conflicts_with = "output_file")]
    in_place: bool,

    /// Write to this file instead of standard output
    #[arg(short = 'w', long, value_name = "FILE")]
    output_file: Option<PathBuf>,

    /// Replace the file of --output-file even if values or other objects in it would be lost
    #[arg(long, requires = "output_file")]
    force: bool,

    /// Seal with this certificate, a file or an http(s) URL
    #[arg(long, value_name = "FILE-OR-URL", env = "SEALED_SECRETS_CERT")]
    cert: Option<String>,

    #[command(flatten)]
    trust: CertificateTrust,

    /// Where the values can be unsealed: strict (only with the Secret's own namespace and name), namespace-wide or
    /// cluster-wide
    #[arg(long, value_name = "SCOPE", env = "SEALED_SECRETS_SCOPE", add = completion::scopes())]
    scope: Option<Scope>,

    /// Also seal Secrets without values
    #[arg(long)]
    allow_empty_data: bool,

    #[command(flatten)]
    new: new::NewSecret,
}

/// What was done, as it is shown to people and to programs.
#[derive(Default)]
struct Outcome {
    sealed: Vec<Sealed>,
    /// Objects that are or may be Secrets and could not be sealed.
    failed: Vec<String>,
    sealed_before: usize,
}

pub async fn run(args: SealArgs, global: &Global) -> anyhow::Result<()> {
    if args.new.is_asked_for() {
        return seal_new(args, global).await;
    }
    let inputs = inputs::collect(&args.files)?;
    check_target(&args, &inputs)?;
    let mut certificates = Certificates::new(args.cert.clone(), args.trust.clone(), global, Timestamp::now())?;
    let settings = Settings::new(&args, global);
    let (texts, outcome) = files::seal(&inputs, &args, &settings, &mut certificates).await?;
    if !texts.is_empty() {
        write_out(&join(&texts), &args, global)?;
    }
    let is_in_place = texts.is_empty();
    report(&outcome, is_in_place, global)?;
    finish(&outcome)
}

/// How every Secret of a run is sealed.
struct Settings {
    scope: Option<Scope>,
    namespace: Option<String>,
    is_namespace_asked_for: bool,
    allow_empty: bool,
}

impl Settings {
    fn new(args: &SealArgs, global: &Global) -> Self {
        Self {
            scope: args.scope,
            namespace: namespace(global),
            is_namespace_asked_for: global.namespace().is_some(),
            allow_empty: args.allow_empty_data,
        }
    }

    /// A sealer with this certificate. `scope` is the scope that `.gitseal.yaml` sets, and is used if no flag sets one.
    fn sealer<'k>(&self, certificate: &'k Certificate, scope: Option<Scope>) -> Sealer<'k> {
        Sealer {
            key: certificate.public_key(),
            scope: self.scope.or(scope),
            namespace: self.namespace.clone(),
            is_namespace_asked_for: self.is_namespace_asked_for,
            allow_empty: self.allow_empty,
        }
    }
}

/// The namespace for Secrets without one: that of the flag, or else that of the kubeconfig; `None` without a
/// kubeconfig.
pub(in crate::commands) fn namespace(global: &Global) -> Option<String> {
    global.namespace().or_else(|| global.has_kubeconfig().then(|| global.default_namespace()))
}

/// Makes a new SealedSecret from the values that the flags name.
async fn seal_new(args: SealArgs, global: &Global) -> anyhow::Result<()> {
    let has_files = !args.files.is_empty();
    if has_files || args.in_place {
        return Err(Hint::error(
            "--from-file and --from-literal make a new SealedSecret; they cannot be combined with files to seal or \
             with --in-place",
            "write the new SealedSecret to a file with --output-file",
        ));
    }
    let target = args.output_file.clone();
    let mut certificates = Certificates::new(args.cert.clone(), args.trust.clone(), global, Timestamp::now())?;
    let rules = certificates.rules(target.as_deref())?;
    let settings = Settings::new(&args, global);
    let secret = args.new.secret(settings.namespace.clone())?;
    let certificate = certificates.of(&rules).await?;
    let (body, mut entry) = settings.sealer(&certificate, rules.scope).seal(&secret)?;
    entry.namespace_of_kubeconfig = entry.namespace.is_some() && global.namespace().is_none();
    let is_json = target.as_ref().is_some_and(|path| path.extension().is_some_and(|end| end == "json"));
    let text = if is_json { serde_json::to_string_pretty(&body)? + "\n" } else { edit::new_document(&body)? };
    write_out(&text, &args, global)?;
    report(&Outcome { sealed: vec![entry], ..Outcome::default() }, false, global)
}

/// Checks where the result goes: the result of named files can be written to another file, but folders are always
/// sealed in place.
fn check_target(args: &SealArgs, inputs: &[Input]) -> anyhow::Result<()> {
    let has_stdin = inputs.iter().any(|input| input.path().is_none());
    if args.in_place && has_stdin {
        return Err(Hint::error("standard input cannot be sealed in place", "leave --in-place out, or name a file"));
    }
    if args.output_file.is_some() && inputs.iter().any(|input| input.was_found) {
        return Err(Hint::error(
            "a folder is sealed in place, so --output-file cannot be used",
            "leave --output-file out, or name the files",
        ));
    }
    Ok(())
}

/// Several files as one YAML text.
fn join(texts: &[String]) -> String {
    let mut joined = String::new();
    for text in texts {
        if !joined.is_empty() {
            if !joined.ends_with('\n') {
                joined.push('\n');
            }
            if !text.starts_with("---") {
                joined.push_str("---\n");
            }
        }
        joined.push_str(text);
    }
    joined
}

fn write_out(text: &str, args: &SealArgs, global: &Global) -> anyhow::Result<()> {
    if let Some(target) = &args.output_file {
        if !args.force {
            target::loses_nothing(target, text)?;
        }
        return edit::create(target, text.as_bytes());
    }
    match global.output {
        None => output::print_raw(text.as_bytes()),
        Some(format) => output::print_raw(format.text(&objects(text)?)?.as_bytes()),
    }
}

/// The objects of a text as one object: the single object, or a list.
fn objects(text: &str) -> anyhow::Result<Value> {
    let mut bodies: Vec<Map<String, Value>> = Vec::new();
    for document in manifests::split(text) {
        let content = manifests::parse_document("the result", &document, &manifests::Limits::default())
            .map_err(|error| Hint::error(error.to_string(), "without --output, the text is printed as it is"))?;
        match content {
            Content::Nothing => {}
            Content::Object(manifest) => bodies.push(manifest.body),
            Content::List(items) => bodies.extend(items.into_iter().map(|item| item.body)),
        }
    }
    Ok(match <[_; 1]>::try_from(bodies) {
        Ok([body]) => Value::Object(body),
        Err(bodies) => json!({ "apiVersion": "v1", "kind": "List", "items": bodies }),
    })
}

fn report(outcome: &Outcome, is_in_place: bool, global: &Global) -> anyhow::Result<()> {
    for entry in &outcome.sealed {
        output::note(summary_line(entry));
    }
    for failure in &outcome.failed {
        output::warn(format_args!("not sealed: {failure}"));
    }
    if !is_in_place {
        return Ok(());
    }
    if let Some(format) = global.output {
        return output::print(format.text(&json!({
            "sealed": outcome.sealed,
            "sealedBefore": outcome.sealed_before,
            "failed": outcome.failed,
        }))?);
    }
    if outcome.sealed.is_empty() {
        output::note(format_args!(
            "nothing to seal ({} found)",
            output::counted(outcome.sealed_before, "SealedSecret")
        ));
    }
    Ok(())
}

fn summary_line(entry: &Sealed) -> String {
    let place = if entry.file.is_empty() { String::new() } else { format!("{}:{}: ", entry.file, entry.line) };
    let name = match &entry.namespace {
        Some(namespace) => format!("{namespace}/{}", entry.name),
        None => entry.name.clone(),
    };
    let values = output::counted(entry.keys.len(), "value");
    let comments = match entry.comments_left_out {
        0 => "",
        _ => "; comments above and among the values were left out",
    };
    let namespace =
        if entry.namespace_of_kubeconfig { "; its namespace is that of the kubeconfig's context" } else { "" };
    format!("{place}sealed Secret {name} ({values}, {}){namespace}{comments}", entry.scope)
}

fn finish(outcome: &Outcome) -> anyhow::Result<()> {
    if outcome.failed.is_empty() {
        return Ok(());
    }
    Err(Hint::error(
        format!("not everything was sealed: see the {} above", output::counted(outcome.failed.len(), "warning")),
        "correct these files, or list them in .gitsealignore if they hold no Secrets",
    ))
}

/// All of standard input, wiped when dropped.
pub(super) fn read_stdin() -> anyhow::Result<Zeroizing<Vec<u8>>> {
    edit::read_stdin().context("cannot read standard input")
}

pub(super) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}
