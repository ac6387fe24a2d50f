//! `gitseal reseal`.

mod cluster;
mod offline;
mod report;

use std::path::PathBuf;

use zeroize::Zeroizing;

use self::report::{Failure, FileReport, Report};
use super::seal::inputs::{self, Input};
use crate::certificate::CertificateTrust;
use crate::commands::keys::encryption::Decryption;
use crate::controller::ControllerAddress;
use crate::edit::{self, Replacement, SealedText};
use crate::global::Global;
use crate::output::{self, Hint};

/// Seal values again that were not sealed with the newest key
///
/// Goes through files and folders (except what .gitsealignore excludes) and replaces values of
/// SealedSecrets. Everything else stays byte for byte, and so do values that use the newest key already.
///
///     gitseal reseal .                     with the keys of the controller
///     gitseal reseal . --dry-run           prints what would change
///     gitseal reseal . --private-key keys.yaml --cert cluster.pem   offline
///
/// With --private-key, values are unsealed with these keys and sealed with a certificate: that of --cert, else that
/// of the rules in .gitseal.yaml, else the controller's. A certificate of .gitseal.yaml is used only if its private
/// key is given as well. Also give the newest private key, so that the command can tell which values use the newest
/// key already. If no key unseals a value, the command names the value and leaves it as it is, and the exit code is
/// 1.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ResealArgs {
    /// Files and folders
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// The certificate to seal with, a file or an http(s) URL
    #[arg(long, value_name = "FILE-OR-URL")]
    cert: Option<String>,

    #[command(flatten)]
    trust: CertificateTrust,

    /// Private keys to unseal with: PEM, key Secrets in YAML or JSON, or a file of `keys backup`; can be given several times
    #[arg(long, value_name = "FILE", env = "GITSEAL_PRIVATE_KEY")]
    private_key: Vec<PathBuf>,

    #[command(flatten)]
    decryption: Decryption,

    /// Change nothing; say what would change
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    address: ControllerAddress,
}

/// What is done with one value.
enum Verdict {
    /// The value was sealed with the newest key.
    Newest,
    /// The value is replaced by this one.
    Resealed(String),
    /// The value stays, for this reason.
    Failed(String),
}

/// A file with SealedSecrets.
struct File<'t> {
    input: &'t Input,
    name: String,
    text: SealedText<'t>,
}

pub async fn run(args: ResealArgs, global: &Global) -> anyhow::Result<()> {
    if args.paths.iter().any(|path| path.as_os_str() == "-") {
        return Err(Hint::error("standard input cannot be resealed", "name files or folders"));
    }
    let inputs = inputs::collect(&args.paths)?;
    let mut report = Report::new(args.dry_run);
    let texts = read(&inputs, &mut report)?;
    let files = with_sealed_secrets(&texts, &mut report)?;
    let verdicts = if args.private_key.is_empty() {
        cluster::judge(&files, &args, global).await?
    } else {
        offline::judge(&files, &args, global).await?
    };
    for (file, verdicts) in files.iter().zip(verdicts) {
        finish(file, verdicts, &args, &mut report)?;
    }
    report.print(global)?;
    report.outcome()
}

/// The texts of all files. If a file in a folder cannot be read, this is reported.
fn read<'i>(inputs: &'i [Input], report: &mut Report) -> anyhow::Result<Vec<(&'i Input, Zeroizing<String>)>> {
    let mut texts = Vec::new();
    for input in inputs {
        match input.read() {
            Ok(text) => texts.push((input, text)),
            Err(error) if input.was_found => {
                report.failed.push(Failure::of_file(&input.name(), 1, output::one_line(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(texts)
}

fn with_sealed_secrets<'t>(
    texts: &'t [(&Input, Zeroizing<String>)],
    report: &mut Report,
) -> anyhow::Result<Vec<File<'t>>> {
    let mut files = Vec::new();
    for (input, text) in texts {
        let name = input.name();
        let text = SealedText::read(&name, text);
        for error in &text.unreadable {
            if !input.was_found {
                return Err(Hint::error(error.to_string(), error.hint()));
            }
            let reason = format!("{}; {}", error.kind(), error.hint());
            report.failed.push(Failure::of_file(&name, error.location().line, reason));
        }
        if text.sealed.is_empty() && !input.was_found && text.unreadable.is_empty() {
            return Err(Hint::error(
                format!("{name} holds no SealedSecret"),
                "a SealedSecret has `apiVersion: bitnami.com/v1alpha1`; `gitseal seal` makes one",
            ));
        }
        if !text.sealed.is_empty() {
            files.push(File { input, name, text });
        }
    }
    Ok(files)
}

/// Replaces the values and writes the file, if anything changed.
fn finish(file: &File<'_>, verdicts: Vec<Vec<Verdict>>, args: &ResealArgs, report: &mut Report) -> anyhow::Result<()> {
    let mut replacements = Vec::new();
    let mut entry = FileReport::new(&file.name);
    for (object, verdicts) in verdicts.into_iter().enumerate() {
        for (value, verdict) in verdicts.into_iter().enumerate() {
            match verdict {
                Verdict::Newest => entry.newest += 1,
                Verdict::Resealed(text) => replacements.push(Replacement { object, value, text }),
                Verdict::Failed(reason) => {
                    report.failed.push(Failure::of_value(file, object, value, reason));
                    entry.failed += 1;
                }
            }
        }
    }
    let (text, refused) = file.text.replace(&replacements);
    for at in &refused {
        let Replacement { object, value, .. } = replacements[*at];
        let reason =
            "the value is written with an alias (*) or a merge (<<), or an alias refers to it: write the value itself";
        report.failed.push(Failure::of_value(file, object, value, reason.into()));
    }
    entry.failed += refused.len();
    entry.resealed = replacements.len() - refused.len();
    if let (true, false, Some(path)) = (entry.resealed > 0, args.dry_run, file.input.path()) {
        edit::replace(path, text.as_bytes())?;
    }
    report.files.push(entry);
    Ok(())
}
