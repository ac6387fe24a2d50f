//! Through the controller, which keeps the plaintext to itself.

use crds::endpoints::{Which, WhichItem};
use sealing::is_sealed;
use serde_json::Value;

use super::{File, ResealArgs, Verdict};
use crate::commands::seal;
use crate::commands::sealed_files::{Place, question};
use crate::controller::{Controller, sealed_with};
use crate::edit::SealedObject;
use crate::global::Global;
use crate::output::Hint;

/// A verdict for every value of every SealedSecret of every file.
///
/// # Errors
/// The controller cannot be asked, or it seals with another key than the certificate that was given.
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
            "the cluster cannot tell which values need the newest key",
            "with the private keys at hand: --private-key FILE --cert FILE-OR-URL",
        ))
    })?;
    check_certificate(args, &which, global).await?;
    let Which { newest, items } = which;
    let mut items = items.into_iter();
    let mut verdicts = Vec::new();
    for file in files {
        let mut of_file = Vec::new();
        for object in &file.text.sealed {
            of_file.push(match Place::of(object, namespace.as_ref()) {
                Err(reason) => object.values.iter().map(|_| Verdict::Failed(reason.clone())).collect(),
                Ok(place) => {
                    let item = items.next().unwrap_or_default();
                    self::object(&controller, object, &place, &item, &newest, args.dry_run).await
                }
            });
        }
        verdicts.push(of_file);
    }
    Ok(verdicts)
}

/// What is sealed is sealed by the controller: a certificate can only say which key that has to be.
async fn check_certificate(args: &ResealArgs, which: &Which, global: &Global) -> anyhow::Result<()> {
    let Some(cert) = &args.cert else {
        return Ok(());
    };
    let certificate = global.certificate(Some(cert)).await?;
    if certificate.public_key().fingerprint() == which.newest {
        return Ok(());
    }
    Err(Hint::error(
        format!("the controller seals with another key than that of {cert}"),
        "leave --cert out, or open the values here: --private-key FILE",
    ))
}

async fn object(
    controller: &Controller,
    object: &SealedObject,
    place: &Place,
    which: &WhichItem,
    newest: &str,
    dry_run: bool,
) -> Vec<Verdict> {
    let key_of = |index: usize| sealed_with(which, object.values[index].key.as_deref());
    let is_old = |index: usize| key_of(index).is_some_and(|key| key != newest);
    let judged = |index: usize| match key_of(index) {
        None => Verdict::Failed("no key of the controller opens it as this namespace, name and scope".into()),
        Some(_) => Verdict::Newest,
    };
    let old: Vec<usize> = (0..object.values.len()).filter(|index| is_old(*index)).collect();
    if old.is_empty() {
        return (0..object.values.len()).map(judged).collect();
    }
    let mut resealed = if dry_run {
        Ok(old.iter().map(|index| object.values[*index].value.clone()).collect())
    } else {
        rotate(controller, object, place, &old).await
    };
    (0..object.values.len())
        .map(|index| match (&mut resealed, old.iter().position(|at| *at == index)) {
            (_, None) => judged(index),
            (Ok(values), Some(at)) => Verdict::Resealed(std::mem::take(&mut values[at])),
            (Err(reason), Some(_)) => Verdict::Failed(reason.clone()),
        })
        .collect()
}

/// The new values of these indices, in order; or what went wrong, as a message.
async fn rotate(
    controller: &Controller,
    object: &SealedObject,
    place: &Place,
    indices: &[usize],
) -> Result<Vec<String>, String> {
    let question = question(object, place, |index| indices.contains(&index));
    let answer = controller.rotate(&question).await;
    let answer = answer.map_err(|refused| crate::output::one_line(&controller.error("/v1/rotate", refused)))?;
    let spec = answer.get("spec").unwrap_or(&Value::Null);
    indices
        .iter()
        .map(|index| {
            let value = match &object.values[*index].key {
                Some(key) => spec.get("encryptedData").and_then(|data| data.get(key)),
                None => spec.get("data"),
            };
            let value = value.and_then(Value::as_str).filter(|value| is_sealed(value).is_ok());
            value.map(str::to_owned).ok_or_else(|| "the controller's answer lacks its new value".to_owned())
        })
        .collect()
}
