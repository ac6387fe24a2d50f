//! Applies one object of Git. Some refusals of the API server are handled here: if a field cannot be changed, the
//! object is replaced; if others own fields in another API version, their entries are moved to the version in Git.

use pipeline::{plan::Content, refusal::immutable, replacement};
use serde_json::{Map, Value};

use super::{super::overtaken::Overtaken, Applier, Because, Step, Turn, Written};
use crate::{
    cluster::{ApiError, AsInGit, Deleted},
    fair::Place,
};

/// Why a hook is made again that could be changed in place.
const RAN: &str = "a hook that has run";

impl Applier<'_> {
    /// Applies the object. If `version` is given and the object has another resource version, the API server refuses the
    /// first write with a conflict. `place` is the permission to be one of the concurrent writes, whose number is
    /// limited; it is given back at the end.
    pub(super) async fn object(
        &self,
        step: &Step,
        body: &Map<String, Value>,
        version: Option<String>,
        turn: Turn,
        place: Place,
    ) -> Result<Written, Because> {
        let object = AsInGit::of(step, body);
        if step.runs_again
            && replacement::may_replace(&step.id, body, RAN).is_ok()
            && self.is_of_another_revision(step).await?
        {
            return self.replaced(step, object, RAN.to_owned(), place).await;
        }
        let written = match self.in_its_version(step, object, version).await {
            Ok(written) => written,
            Err(error) => return self.instead(step, object, error, Because::Api, place).await,
        };
        if turn == Turn::Later {
            return Ok(written);
        }
        let writing = self.live().begin(&step.id);
        match self.api.take_over(object, written).await {
            Ok(written) => {
                let written = written.beside(&step.left_to_managers);
                writing.applied(&written);
                Ok(written)
            }
            Err(error) => self.instead(step, object, error, Because::NotTakenOver, place).await,
        }
    }

    /// Whether the object exists and was not made from the manifest of this revision. If it was made from it, the controller ended
    /// after it had made the object, and it runs already.
    async fn is_of_another_revision(&self, step: &Step) -> Result<bool, ApiError> {
        let meta = match self.api.get_metadata(&step.resource, step.id.namespace.as_deref(), &step.id.name).await {
            Err(error) if error.is_not_found() => return Ok(false),
            found => found?,
        };
        let made_from = meta.annotations.as_ref().and_then(|all| all.get(crds::names::MADE_FROM));
        Ok(made_from != Some(&step.digest))
    }

    /// Handles the refusal `error`: if a field of the object cannot be changed, the object is replaced; otherwise, the
    /// result is the error.
    async fn instead(
        &self,
        step: &Step,
        object: AsInGit<'_>,
        error: ApiError,
        otherwise: fn(ApiError) -> Because,
        place: Place,
    ) -> Result<Written, Because> {
        let what = match &error {
            ApiError::Refused { code, message, .. } => immutable(*code, message),
            _ => None,
        };
        match what {
            Some(what) => self.replaced(step, object, what, place).await,
            None => Err(otherwise(error)),
        }
    }

    /// Deletes the object and creates it again, if Git allows that. `what` names the field that cannot be changed.
    async fn replaced(&self, step: &Step, object: AsInGit<'_>, what: String, place: Place) -> Result<Written, Because> {
        replacement::may_replace(&step.id, object.body, &what)?;
        let first = step.first.as_deref();
        // The new object has no fields of others yet, so it is made with all fields of Git.
        let whole = first.or(if let Content::Manifest(whole) = &step.content { Some(whole) } else { None });
        let made = whole.map_or(object, |whole| AsInGit { body: whole, ..object });
        if let Err(error) = self.api.would_make(made).await {
            return Err(Because::NotReplaced(what, error));
        }
        // The next pass would have to make the object again.
        if self.pass.is_overtaken() {
            return Err(Overtaken.into());
        }
        tracing::info!(object = %step.id, "{what} cannot be changed in place: the object was deleted, so that it can be made again");
        // Another write may use the place while the finalizers of the object are processed.
        drop(place);
        let deleted = self.api.delete_for_replacement(object, self.pass.overtaken()).await;
        let _place = self.place().await;
        match deleted {
            Ok(Deleted::Gone) => {
                let written = self.write(step, made.json()).await?;
                if first.is_none() {
                    return Ok(written);
                }
                self.release(step, object.body).await?;
                Ok(Written { created: true, ..self.write(step, object.json()).await? })
            }
            Ok(Deleted::Going(finalizers)) => Err(Because::Going(finalizers)),
            Ok(Deleted::NotAwaited) => Err(Overtaken.into()),
            Err(error) => Err(Because::NotDeleted(what, error)),
        }
    }

    /// Applies the object, even if others own fields of it in another version of its kind.
    async fn in_its_version(
        &self,
        step: &Step,
        object: AsInGit<'_>,
        version: Option<String>,
    ) -> Result<Written, ApiError> {
        let body = version.map_or_else(|| object.json(), |version| object.json_if_unchanged(&version));
        match self.write(step, body).await {
            Err(error) if is_of_another_version(&error, object) => {
                if self.api.move_to_version(object).await? {
                    return self.write(step, object.json()).await;
                }
                Err(error)
            }
            written => written,
        }
    }
}

/// API groups of Kubernetes itself, with names that look like those of groups of custom resources. For these groups,
/// the API server can convert objects between all versions.
const BUILT_IN: [&str; 14] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Whether the API server could not apply a custom resource because somebody owns fields of the resource in another
/// version. This version lacks one of the fields that are to be applied, or it is no longer served.
fn is_of_another_version(error: &ApiError, object: AsInGit<'_>) -> bool {
    let group = object.id.group.as_str();
    if !group.contains('.') || BUILT_IN.contains(&group) {
        return false;
    }
    let ApiError::Refused { message, .. } = error else { return false };
    message.contains("field not declared in schema") || message.contains("invalid group/version")
}

#[cfg(test)]
mod tests {
    use ::fields::LeftToOthers;
    use manifests::ObjectId;

    use super::*;
    use pipeline::Resource;

    #[test]
    fn only_custom_resources_have_versions_that_do_not_know_each_other() {
        let refused =
            |message: &str| ApiError::Refused { code: 500, reason: "Internal".into(), message: message.into() };
        let undeclared = refused("failed to convert: .spec.colour: field not declared in schema");
        let body = Map::new();
        let is = |error: &ApiError, group: &str| {
            let id = ObjectId { group: group.into(), kind: "Thing".into(), namespace: None, name: "a".into() };
            let resource = Resource { group: group.into(), ..Resource::secrets() };
            is_of_another_version(
                error,
                AsInGit { id: &id, resource: &resource, body: &body, left_to_others: LeftToOthers::default() },
            )
        };
        assert!(is(&undeclared, "example.com"));
        assert!(is(&undeclared, "gateway.networking.k8s.io"));
        for group in ["", "apps", "networking.k8s.io"] {
            assert!(!is(&undeclared, group), "{group}");
        }
        assert!(is(&refused("request to convert CR to an invalid group/version: x/v1"), "example.com"));
        assert!(!is(&refused("spec.size: must be positive"), "example.com"));
        assert!(!is(&ApiError::Busy, "example.com"));
    }
}
