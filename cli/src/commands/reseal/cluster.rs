//! Reseals through the controller, so that no plaintext leaves it.

use crds::endpoints::{Which, WhichItem};
use sealing::is_sealed;
use serde_json::Value;

use super::{File, ResealArgs, Verdict};
use crate::certificate;
use crate::commands::seal;
use crate::commands::sealed_files::{Place, question};
use crate::controller::{Controller, Refused, sealed_with};
use crate::edit::SealedObject;
use crate::global::Global;
use crate::output::{Hint, one_line};

/// A verdict for every value of every SealedSecret in every file.
///
/// # Errors
/// The controller does not answer, or it seals with another key than the given certificate.
pub(super) async fn judge(
    files: &[File<'_>],
    args: &ResealArgs,
    global: &Global,
) -> anyhow::Result<Vec<Vec<Vec<Verdict>>>> {
    let controller = Controller::find(&args.address, global).await?;
    let namespace = seal::namespace(global);
    let questions: Vec<Value> = files
        .iter()
        .flat_map(|file| &file.text.sealed)
        .filter_map(|object| Some(question(object, &Place::of(object, namespace.as_ref()).ok()?, |_| true)))
        .collect();
    let which = controller.which(&questions).await.map_err(|refused| {
        controller.error("/v1/which", refused).context(Hint::new(
            "the controller did not say which values have to be sealed again",
            "if you have the private keys, do without the controller: --private-key FILE --cert FILE-OR-URL",
        ))
    })?;
    check_certificate(args, &which, global).await?;
    let Which { newest, items } = which;
    let mut items = items.into_iter();
    let mut resealer = Resealer { controller, newest, dry_run: args.dry_run, gone: None };
    let mut verdicts = Vec::new();
    for file in files {
        let mut of_file = Vec::new();
        for object in &file.text.sealed {
            of_file.push(match Place::of(object, namespace.as_ref()) {
                Err(reason) => object.values.iter().map(|_| Verdict::Failed(reason.clone())).collect(),
                Ok(place) => resealer.object(object, &place, &items.next().unwrap_or_default()).await,
            });
        }
        verdicts.push(of_file);
    }
    Ok(verdicts)
}

/// Checks the certificate of --cert. Because the controller does the sealing, this certificate only says which key
/// the controller must seal with.
async fn check_certificate(args: &ResealArgs, which: &Which, global: &Global) -> anyhow::Result<()> {
    let Some(cert) = &args.cert else {
        return Ok(());
    };
    let certificate = certificate::fetch(global, Some(cert), &args.trust).await?;
    if certificate.public_key().fingerprint() == which.newest {
        return Ok(());
    }
    Err(Hint::error(
        format!("the controller seals with another key than that of {cert}"),
        "leave --cert out, or unseal the values on this machine: --private-key FILE",
    ))
}

/// Asks the controller to seal values again.
struct Resealer {
    controller: Controller,
    /// Fingerprint of the key that new values are sealed with.
    newest: String,
    dry_run: bool,
    /// Why the controller is no longer asked.
    gone: Option<String>,
}

impl Resealer {
    async fn object(&mut self, object: &SealedObject, place: &Place, which: &WhichItem) -> Vec<Verdict> {
        let key_of = |index: usize| sealed_with(which, object.values[index].key.as_deref());
        let judged = |index: usize| match key_of(index) {
            None => {
                Verdict::Failed("no key of the controller unseals the value for this namespace, name and scope".into())
            }
            Some(_) => Verdict::Newest,
        };
        let all = 0..object.values.len();
        let old: Vec<usize> =
            all.clone().filter(|index| key_of(*index).is_some_and(|key| key != self.newest)).collect();
        let mut resealed = if old.is_empty() || self.dry_run {
            Ok(old.iter().map(|index| object.values[*index].value.clone()).collect())
        } else {
            self.rotate(object, place, &old).await
        };
        all.map(|index| match (&mut resealed, old.iter().position(|at| *at == index)) {
            (_, None) => judged(index),
            (Ok(values), Some(at)) => Verdict::Resealed(std::mem::take(&mut values[at])),
            (Err(reason), Some(_)) => Verdict::Failed(reason.clone()),
        })
        .collect()
    }

    /// The new values for these indices, in order, or the error as a message.
    async fn rotate(&mut self, object: &SealedObject, place: &Place, indices: &[usize]) -> Result<Vec<String>, String> {
        if let Some(reason) = &self.gone {
            return Err(reason.clone());
        }
        let question = question(object, place, |index| indices.contains(&index));
        let answer = self.controller.rotate(&question).await.map_err(|refused| {
            let is_gone = !matches!(refused, Refused::Status(..));
            let reason = one_line(&self.controller.error("/v1/rotate", refused));
            self.gone = is_gone.then(|| reason.clone());
            reason
        })?;
        let spec = answer.get("spec").unwrap_or(&Value::Null);
        indices
            .iter()
            .map(|index| {
                let value = match &object.values[*index].key {
                    Some(key) => spec.get("encryptedData").and_then(|data| data.get(key)),
                    None => spec.get("data"),
                };
                let value = value.and_then(Value::as_str).filter(|value| is_sealed(value).is_ok());
                value.map(str::to_owned).ok_or_else(|| "the controller's answer lacks the new value".to_owned())
            })
            .collect()
    }
}
