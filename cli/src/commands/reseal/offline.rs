//! Reseals with private keys that the user has.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sealing::{Binding, Certificate, PrivateKey, UnsealError};

use super::{File, ResealArgs, Verdict};
use crate::commands::seal::{self, project::Certificates};
use crate::commands::sealed_files::Place;
use crate::commands::unseal;
use crate::edit::{SealedObject, ValueInText};
use crate::global::Global;
use crate::output::{self, Hint};
use crate::parallel;

/// A verdict for every value of every SealedSecret in every file.
pub(super) async fn judge(
    files: &[File<'_>],
    args: &ResealArgs,
    global: &Global,
) -> anyhow::Result<Vec<Vec<Vec<Verdict>>>> {
    let keys = unseal::keys::read(&args.private_key, &args.decryption)?;
    let mut certificates = Certificates::new(args.cert.clone(), args.trust.clone(), global, Timestamp::now())?;
    let namespace = seal::namespace(global);
    let (mut jobs, mut told) = (Vec::new(), BTreeSet::new());
    for file in files {
        let rules = certificates.rules(file.input.path())?;
        let certificate = certificates.of(&rules).await?;
        let place = rules.cert_place().unwrap_or("the controller");
        if rules.chose_cert() {
            check_key_is_given(&keys, &certificate, place)?;
        }
        if told.insert(certificate.fingerprint()) {
            output::note(format_args!("sealing with the certificate sha256:{} of {place}", certificate.fingerprint()));
        }
        jobs.push((file, certificate));
    }
    // Each value costs some milliseconds of computation for each key.
    Ok(parallel::map(parallel::processors(), jobs, |(file, certificate)| {
        let unsealer = Unsealer::new(&keys, &certificate);
        file.text.sealed.iter().map(|object| unsealer.object(object, namespace.as_ref())).collect()
    }))
}

/// Anybody who can write to the repository can change the certificate that its rules name. They could name their own
/// certificate, to read the values that are sealed with it. Only if the user has given the certificate's private key,
/// it is certain that this is the cluster's certificate.
fn check_key_is_given(keys: &[PrivateKey], certificate: &Certificate, place: &str) -> anyhow::Result<()> {
    let fingerprint = certificate.public_key().fingerprint();
    if keys.iter().any(|key| key.public_key().fingerprint() == fingerprint) {
        return Ok(());
    }
    Err(Hint::error(
        format!(
            "the certificate {place} (sha256:{}) was chosen by .gitseal.yaml, and none of the private keys belongs to it",
            certificate.fingerprint()
        ),
        "the author of that file may have named their own certificate, to read the resealed values: give the \
        certificate's private key as well, \
         or name the cluster's certificate yourself with --cert",
    ))
}

/// Reseals values for one certificate, with the private keys that were given.
struct Unsealer<'k> {
    certificate: &'k Certificate,
    /// The private key of the certificate, if it was given.
    newest: Option<&'k PrivateKey>,
    others: Vec<&'k PrivateKey>,
}

impl<'k> Unsealer<'k> {
    fn new(keys: &'k [PrivateKey], certificate: &'k Certificate) -> Self {
        let is_newest = |key: &&PrivateKey| key.public_key().fingerprint() == certificate.public_key().fingerprint();
        Self {
            certificate,
            newest: keys.iter().find(is_newest),
            others: keys.iter().filter(|key| !is_newest(key)).collect(),
        }
    }

    fn object(&self, object: &SealedObject, namespace: Option<&String>) -> Vec<Verdict> {
        let place = Place::of(object, namespace);
        // Equal texts get the same verdict. So a value that several keys share through a YAML anchor is sealed only
        // once.
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let verdict = |value: &ValueInText| match &place {
            Err(reason) => Verdict::Failed(reason.clone()),
            Ok(place) => self.value(&value.value, place.binding(&object.manifest.id.name, value.key.as_deref())),
        };
        object
            .values
            .iter()
            .map(|value| {
                let text = value.value.replace(['\r', '\n'], "");
                if let Some(resealed) = known.get(&text) {
                    return Verdict::Resealed(resealed.clone());
                }
                let verdict = verdict(value);
                if let Verdict::Resealed(resealed) = &verdict {
                    known.insert(text, resealed.clone());
                }
                verdict
            })
            .collect()
    }

    fn value(&self, value: &str, binding: Binding<'_>) -> Verdict {
        if self.newest.is_some_and(|key| sealing::unseal([key], binding, value).is_ok()) {
            return Verdict::Newest;
        }
        let unsealed = match sealing::unseal(self.others.iter().copied(), binding, value) {
            Ok(unsealed) => unsealed,
            Err(error) => return Verdict::Failed(self.reason(error)),
        };
        match sealing::seal(self.certificate, binding, unsealed.expose()) {
            Ok(sealed) => Verdict::Resealed(sealed),
            Err(error) => Verdict::Failed(error.to_string()),
        }
    }

    fn reason(&self, error: UnsealError) -> String {
        match error {
            UnsealError::Refused | UnsealError::NoKeys if self.newest.is_none() => {
                "none of the private keys unseals the value; if it is sealed with the certificate that values are \
                 resealed with, also give the private key of that certificate"
                    .into()
            }
            UnsealError::NoKeys => "none of the private keys unseals the value".into(),
            error => error.to_string(),
        }
    }
}
