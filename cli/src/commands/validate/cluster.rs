//! Checks whether the controller can unseal the values of the SealedSecrets in the files.

use super::File;
use super::problem::{Problem, Report};
use crate::commands::sealed_files::{Place, question};
use crate::controller::{Controller, ControllerAddress, Refused, sealed_with};
use crate::edit::SealedObject;
use crate::global::Global;

/// # Errors
/// The controller does not answer.
pub(super) async fn check(
    files: &[File<'_>],
    address: &ControllerAddress,
    global: &Global,
    report: &mut Report,
) -> anyhow::Result<()> {
    let controller = Controller::find(address, global).await?;
    let namespace = global.namespace();
    let (mut questions, mut asked) = (Vec::new(), Vec::new());
    for file in files {
        for object in &file.text.sealed {
            // If the SealedSecret's namespace, name or scope is wrong, the checks of the files have reported that.
            if let Ok(place) = Place::of(object, namespace.as_ref()) {
                questions.push(question(object, &place, |_| true));
                asked.push((file, object));
            }
        }
    }
    match controller.which(&questions).await {
        Ok(which) => {
            for ((file, object), item) in asked.iter().zip(which.items) {
                for value in &object.values {
                    if sealed_with(&item, value.key.as_deref()).is_none() {
                        let message = format!(
                            "{}: no key of the controller unseals the value for this name, namespace and scope",
                            value.field()
                        );
                        add(report, file, object, value.line, message);
                    }
                }
            }
            Ok(())
        }
        // A Sealed Secrets controller answers only for a whole SealedSecret.
        Err(Refused::Unknown) => {
            for ((file, object), question) in asked.iter().zip(&questions) {
                let is_unsealed = controller.verify(question).await;
                if !is_unsealed.map_err(|refused| controller.error("/v1/verify", refused))? {
                    let message = "at least one of its values cannot be unsealed by the controller".to_owned();
                    add(report, file, object, object.manifest.origin.line, message);
                }
            }
            Ok(())
        }
        Err(refused) => Err(controller.error("/v1/which", refused)),
    }
}

/// Adds the problem, unless another problem of the same value was reported already.
fn add(report: &mut Report, file: &File<'_>, object: &SealedObject, line: u32, message: String) {
    let is_known =
        report.problems.iter().any(|known| known.is("value") && known.file == file.name && known.line == line);
    if !is_known {
        report.problems.push(Problem::error("undecryptable", file.name, line, message).of(&object.manifest.id));
    }
}
