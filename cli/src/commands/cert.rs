use std::{fmt::Write, process::ExitCode};

use anyhow::Context;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::json;

use crate::{
    certificate::{self, CertificateTrust},
    controller::{Controller, ControllerAddress},
    global::Global,
    output::{self, BAD, GOOD, WARN, styled},
    time,
};

/// Fetch the certificate that secrets are sealed with
///
/// Prints the certificate as PEM text. Keep it next to the manifests, so that
/// you can seal without the cluster:
///
///     gitseal cert > cluster.pem
///     gitseal seal --cert cluster.pem …
///
/// With --check, the exit code is 1 if the certificate has expired or expires
/// soon.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CertArgs {
    /// Look at this certificate, a file or an http(s) URL, instead of the controller's
    #[arg(long, value_name = "FILE-OR-URL")]
    cert: Option<String>,

    #[command(flatten)]
    trust: CertificateTrust,

    #[command(flatten)]
    controller: ControllerAddress,

    /// Show names, dates and fingerprint instead of the PEM text
    #[arg(long)]
    show: bool,

    /// Exit with 1 when the certificate is expired or expires soon (see --within)
    #[arg(long)]
    check: bool,

    /// How long before its end a certificate counts as expiring soon, for example 30d or 12h
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = time::parse_duration)]
    within: SignedDuration,
}

pub async fn run(args: CertArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let certificate = match (&args.cert, &args.controller.controller_url) {
        (None, Some(url)) if certificate::is_on_this_machine(url) => {
            let certificate = Controller::find(&args.controller, global).await?.certificate().await?;
            args.trust.check(&certificate, url)?;
            certificate
        }
        (None, Some(url)) => {
            let url = format!("{}/v1/cert.pem", url.trim_end_matches('/'));
            certificate::fetch(global, Some(&url), &args.trust).await?
        }
        (cert, _) => certificate::fetch(global, cert.as_deref(), &args.trust).await?,
    };
    let validity = Validity::of(&certificate, Timestamp::now(), args.within);
    match global.output {
        Some(format) => output::print(format.text(&description(&certificate, &validity))?)?,
        None if args.show => output::print(summary(&certificate, &validity)?)?,
        None if args.check => output::print(format_args!("{validity}\n"))?,
        None => output::print(certificate.to_pem())?,
    }
    Ok(if args.check && validity.state != State::Valid { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    NotYetValid,
    Valid,
    Expiring,
    Expired,
}

struct Validity {
    state: State,
    not_before: Timestamp,
    not_after: Timestamp,
    left: SignedDuration,
}

impl Validity {
    fn of(certificate: &sealing::Certificate, now: Timestamp, within: SignedDuration) -> Self {
        let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
        let left = not_after.duration_since(now);
        let state = if certificate.is_expired(now) {
            State::Expired
        } else if now < not_before {
            State::NotYetValid
        } else if left <= within {
            State::Expiring
        } else {
            State::Valid
        };
        Self { state, not_before, not_after, left }
    }
}

impl std::fmt::Display for Validity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = time::short(self.left.abs());
        match self.state {
            State::Valid => write!(f, "{GOOD}valid{GOOD:#} until {} (for another {left})", self.not_after),
            State::Expiring => {
                write!(
                    f,
                    "{WARN}expires soon{WARN:#}: {} (in {left}); fetch the newest certificate: gitseal cert",
                    self.not_after
                )
            }
            State::Expired => {
                write!(
                    f,
                    "{BAD}expired{BAD:#} since {} ({left} ago); fetch the newest certificate: gitseal cert",
                    self.not_after
                )
            }
            State::NotYetValid => write!(f, "{BAD}not valid{BAD:#} before {}", self.not_before),
        }
    }
}

fn summary(certificate: &sealing::Certificate, validity: &Validity) -> anyhow::Result<String> {
    let day = |time: Timestamp| time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string();
    let rows = [
        (
            "Subject",
            certificate.common_name().map_or_else(|| styled(output::FAINT, "none"), |name| format!("CN={name}")),
        ),
        ("Valid from", day(validity.not_before)),
        ("Valid until", day(validity.not_after)),
        ("State", validity.to_string()),
        ("Key", format!("RSA, {} bits", certificate.public_key().bits())),
        ("Fingerprint", format!("sha256:{}", certificate.fingerprint())),
        ("Key fingerprint", format!("sha256:{}", certificate.public_key().fingerprint())),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        writeln!(text, "{:<17}{value}", format!("{name}:")).context("text grows")?;
    }
    Ok(text)
}

fn description(certificate: &sealing::Certificate, validity: &Validity) -> serde_json::Value {
    json!({
        "subject": certificate.common_name().map(|name| format!("CN={name}")),
        "notBefore": validity.not_before.to_string(),
        "notAfter": validity.not_after.to_string(),
        "state": match validity.state {
            State::NotYetValid => "NotYetValid",
            State::Valid => "Valid",
            State::Expiring => "Expiring",
            State::Expired => "Expired",
        },
        "bits": certificate.public_key().bits(),
        "fingerprint": format!("sha256:{}", certificate.fingerprint()),
        "publicKeyFingerprint": format!("sha256:{}", certificate.public_key().fingerprint()),
        "pem": certificate.to_pem(),
    })
}
