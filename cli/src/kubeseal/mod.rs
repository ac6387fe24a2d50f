//! `kubeseal`: the program of the Sealed Secrets project, with its name, flags, output and exit codes.
//!
//! `gitseal` behaves like this if it is started under that name (a link or a copy), or as `gitseal kubeseal …`.
//! docs/kubeseal.md has the differences. Output is written only when it is complete.

mod certificate;
mod cluster;
mod errors;
mod flags;
mod output;
mod read;
mod recover;
mod remote;
mod seal;
mod shape;
mod yaml;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use sealing::{PublicKey, Scope};
use zeroize::Zeroizing;

use self::cluster::ClusterFlags;
use self::flags::{Flags, Stop};
use self::seal::Sealing;
use crate::edit;
use crate::output::{Hint, is_broken_pipe, note, note_lines, one_line, print_raw, warn};

/// The name that makes `gitseal` behave as kubeseal.
pub const NAME: &str = "kubeseal";

/// The release of Sealed Secrets whose kubeseal this is compatible with. Scripts compare this version.
const VERSION: &str = "0.36.6";

const API_VERSION: &str = "bitnami.com/v1alpha1";
const KIND: &str = "SealedSecret";

/// Exit code for a command line that cannot be read.
const USAGE: u8 = 2;

/// Arguments after the subcommand's name. They are read by kubeseal's rules.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, disable_help_flag = true)]
pub struct KubesealArgs {
    /// kubeseal's flags, see `gitseal kubeseal --help`
    #[arg(value_name = "FLAG", trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<String>,
}

/// Runs as kubeseal. The name of the program is not one of the `arguments`.
pub async fn run(arguments: Vec<String>) -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    let flags = match Flags::read(arguments, environment) {
        Ok(flags) => flags,
        Err(Stop::Help) => return finish(print_help()),
        Err(Stop::Wrong(message)) => {
            note_lines(format_args!("Usage of {NAME}:\n{}{message}", flags::help()));
            return ExitCode::from(USAGE);
        }
    };
    flags.notes.iter().for_each(note);
    finish(act(&flags).await)
}

impl KubesealArgs {
    /// Global flags before the subcommand would be lost, because kubeseal has its own flags.
    pub fn refuse() -> anyhow::Error {
        Hint::error(
            "flags cannot be given before kubeseal",
            "put them after the word kubeseal: gitseal kubeseal \
            --context NAME …",
        )
    }
}

fn finish(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // The message has no colour, because scripts look for this prefix.
            note_lines(format_args!("error: {}", one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

fn print_help() -> anyhow::Result<()> {
    print_raw(format!("Usage of {NAME}:\n{}", flags::help()).as_bytes())
}

async fn act(flags: &Flags) -> anyhow::Result<()> {
    if flags.is_on("version") {
        return print_raw(format!("kubeseal version: {VERSION}\n").as_bytes());
    }
    if flags.is_on("help") {
        return print_help();
    }
    if !flags.list("from-file").is_empty() && !flags.is_on("raw") {
        bail!("--from-file requires --raw");
    }
    let run = Run::new(flags)?;
    let text = run.text().await?;
    match run.target {
        Some(_) if run.is_silent() => Ok(()),
        Some(target) => {
            edit::create_private(Path::new(target), &text).with_context(|| format!("cannot write {target}"))
        }
        None => print_raw(&text),
    }
}

/// The inputs and outputs of one run.
struct Run<'f> {
    flags: &'f Flags,
    /// The file of `--sealed-secret-file`. Without this flag, `--re-encrypt` writes into the input file.
    target: Option<&'f str>,
    format: &'f str,
}

impl<'f> Run<'f> {
    fn new(flags: &'f Flags) -> anyhow::Result<Self> {
        let input = flags.filled("secret-file");
        if input.is_some_and(|file| std::fs::File::open(file).is_err()) {
            bail!("Could not read file specified with --secret-file");
        }
        let target = flags.filled("sealed-secret-file");
        let target = if flags.is_on("re-encrypt") { target.or(input) } else { target };
        if let Some(target) = target
            && let Some(folder) = Path::new(target).parent().filter(|folder| *folder != Path::new(""))
            && !folder.is_dir()
        {
            bail!("open {target}: no such file or directory");
        }
        let is_yaml = target.is_some_and(|target| {
            Path::new(target).extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
        });
        Ok(Self { flags, target, format: if is_yaml { "yaml" } else { flags.text("format") } })
    }

    /// Whether nothing is written, not even an empty file.
    fn is_silent(&self) -> bool {
        let flags = self.flags;
        let has_output = flags.is_on("recovery-unseal") || flags.is_on("fetch-cert");
        !has_output && (flags.is_on("validate") || flags.filled("merge-into").is_some())
    }

    /// Does what the flags ask for, and returns what is to be written.
    async fn text(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let flags = self.flags;
        if flags.is_on("recovery-unseal") {
            let keys = recover::keys(flags.list("recovery-private-key"))?;
            let text = recover::unseal((self.input_name(), &self.input()?), &keys, self.format)?;
            return Ok(into_bytes(text));
        }
        if !flags.list("recovery-private-key").is_empty() && std::io::stderr().is_terminal() {
            warn("ignoring --recovery-private-key because unseal command not chosen with --recovery-unseal");
        }
        if flags.is_on("validate") {
            remote::validate(flags, self.input_name(), &self.input()?).await?;
            return Ok(Zeroizing::default());
        }
        if flags.is_on("re-encrypt") {
            let text = remote::re_encrypt(flags, self.input_name(), &self.input()?, self.format).await?;
            return Ok(Zeroizing::new(text.into_bytes()));
        }
        let certificate = certificate::fetch(flags).await?;
        if flags.is_on("fetch-cert") {
            return Ok(Zeroizing::new(certificate));
        }
        let key = certificate::key(&certificate)?;
        self.seal(&key).map(|text| Zeroizing::new(text.into_bytes()))
    }

    fn seal(&self, key: &PublicKey) -> anyhow::Result<String> {
        let flags = self.flags;
        let scope: Scope = flags.text("scope").parse()?;
        if flags.filled("merge-into").is_none() && flags.is_on("raw") {
            return self.seal_raw(key, scope);
        }
        let sealing = Sealing {
            key,
            scope,
            name: flags.filled("name").map(str::to_owned),
            namespace: None,
            default_namespace: ClusterFlags::new(flags).namespace().ok(),
            allow_empty: flags.is_on("allow-empty-data"),
        };
        let Some(file) = flags.filled("merge-into") else {
            return sealing.seal_all(self.input_name(), &self.input()?, self.format);
        };
        let original = read::bytes(Some(file))?;
        let text = seal::merge(sealing, (self.input_name(), &self.input()?), (file, &original), self.format)?;
        edit::replace(Path::new(file), text.as_bytes())?;
        Ok(String::new())
    }

    /// One value, sealed, without a newline.
    fn seal_raw(&self, key: &PublicKey, scope: Scope) -> anyhow::Result<String> {
        let (name, mut namespace) = (self.flags.text("name"), String::new());
        if scope != Scope::ClusterWide {
            namespace = ClusterFlags::new(self.flags).namespace()?.0;
            if name.is_empty() && scope == Scope::Strict {
                bail!("must provide the --name flag with --raw and --scope {scope}");
            }
        }
        let value = match self.flags.list("from-file") {
            [] => {
                hint_at_terminal("a secret to encrypt");
                read::bytes(None)?
            }
            [file] => read::bytes(Some(file.split_once('=').map_or(file, |(_, file)| file)))?,
            _ => bail!("must provide only one --from-file when encrypting a single item with --raw"),
        };
        // The key of the value in the SealedSecret is chosen later. This is possible only because the format does not
        // bind a value to its key.
        Ok(sealing::seal(key, scope.binding(&namespace, name, ""), &value)?)
    }

    fn input(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let file = self.flags.filled("secret-file");
        if file.is_none() {
            hint_at_terminal("json/yaml k8s resource");
        }
        read::bytes(file)
    }

    fn input_name(&self) -> &'f str {
        self.flags.filled("secret-file").unwrap_or("standard input")
    }
}

fn hint_at_terminal(what: &str) {
    if std::io::stdin().is_terminal() {
        note(format_args!("(tty detected: expecting {what} in stdin)"));
    }
}

/// The bytes of a text, in the same buffer, which is wiped.
fn into_bytes(mut text: Zeroizing<String>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(std::mem::take(&mut *text).into_bytes())
}
