//! `gitseal validate`.

mod checks;
mod cluster;
mod problem;
mod spec;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;
use zeroize::Zeroizing;

use self::checks::Checks;
use self::problem::Report;
pub(super) use self::problem::{Problem, Severity};
use super::seal::inputs;
use crate::certificate::{self, CertificateTrust};
use crate::controller::ControllerAddress;
use crate::edit::{SealedObject, SealedText};
use crate::global::Global;
use crate::output::{self, Hint};

/// Check SealedSecrets before they reach a cluster
///
/// Use it in CI. Checks the structure, scope, names and values of every SealedSecret in the files and folders (except those
/// that .gitsealignore excludes), and looks for duplicates. A plaintext Secret is an error. No cluster is needed.
///
///     gitseal validate .
///     gitseal validate . --cert cluster.pem   also: do values fit this key's size?
///     gitseal validate . --cluster            also: can every value be unsealed?
///
/// Each problem is printed as a line FILE:LINE: error|warning: …; docs/keys.md lists the checks. The exit code is
/// 0 without errors (there may be warnings), 1 with errors, and 2 if something could not be checked.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ValidateArgs {
    /// Files and folders; `-` is standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// The certificate that the values should be sealed with, a file or an http(s) URL
    #[arg(long, value_name = "FILE-OR-URL")]
    cert: Option<String>,

    #[command(flatten)]
    trust: CertificateTrust,

    /// Ask the controller whether it can unseal every value
    #[arg(long)]
    cluster: bool,

    #[command(flatten)]
    address: ControllerAddress,
}

pub async fn run(args: ValidateArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let certificate = match &args.cert {
        Some(cert) => Some(certificate::fetch(global, Some(cert), &args.trust).await?),
        None => None,
    };
    let mut report = Report::default();
    if let (Some(certificate), Some(cert)) = (&certificate, &args.cert)
        && certificate.is_expired(Timestamp::now())
    {
        let message = format!("the certificate expired at {}", certificate.not_after());
        report.problems.push(Problem::error("certificate", cert, 1, message));
    }
    let mut texts = Vec::new();
    for input in inputs::collect(&args.paths)? {
        match input.read() {
            Ok(text) => texts.push((input.name(), text)),
            Err(error) if input.was_found => {
                report.problems.push(Problem::error("unreadable", &input.name(), 1, output::one_line(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    // SealedSecrets that name no namespace are checked as if they were in the namespace of the flag `--namespace`. The
    // namespace of a kubeconfig is not used, because there is no kubeconfig in CI.
    let files = check(&texts, certificate.as_ref(), global.namespace(), &mut report);
    if args.cluster {
        cluster::check(&files, &args.address, global, &mut report).await.with_context(|| {
            Hint::new(
                "it could not be checked whether the values can be unsealed",
                "without --cluster, only the files are checked",
            )
        })?;
    }
    report.print(global)?;
    Ok(if report.errors() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A file that was read.
struct File<'t> {
    name: &'t str,
    text: SealedText<'t>,
}

/// The problems of one SealedSecret of a file. `namespace` is for a SealedSecret that names none.
pub(super) fn problems_of(file: &str, text: &SealedText<'_>, object: &SealedObject, namespace: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    Checks::new(None, Some(namespace.to_owned())).sealed_secret(file, text, object, &mut problems);
    problems
}

fn check<'t>(
    texts: &'t [(String, Zeroizing<String>)],
    certificate: Option<&sealing::Certificate>,
    namespace: Option<String>,
    report: &mut Report,
) -> Vec<File<'t>> {
    let mut checks = Checks::new(certificate, namespace);
    let mut files = Vec::new();
    for (name, text) in texts {
        checks::documents(name, text, &mut report.problems);
        let text = SealedText::read(name, text);
        for object in &text.sealed {
            checks.sealed_secret(name, &text, object, &mut report.problems);
            report.values += object.values.len();
        }
        report.files += 1;
        report.sealed_secrets += text.sealed.len();
        files.push(File { name, text });
    }
    files
}
