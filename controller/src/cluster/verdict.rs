//! What a refusal means, in few words.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};
use manifests::printable;

use super::{
    ApiError,
    refusal::{NAMESPACE_GOES, OF_SECRET},
};

/// How many things that are wrong with an object are told.
const TOLD: usize = 5;
/// The longest that is repeated of a value or a message, in characters.
const LONG: usize = 120;

/// What the API server says is wrong, field by field, without the values that it quotes: those can be whole pod templates.
/// `None` when it names no fields.
pub(super) fn in_short(status: &Status) -> Option<String> {
    let causes = status.details.as_ref()?.causes.as_deref()?;
    let mut told: Vec<String> = Vec::new();
    for text in causes.iter().filter_map(cause) {
        if !told.contains(&text) {
            told.push(text);
        }
    }
    let more = told.len().saturating_sub(TOLD);
    told.truncate(TOLD);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    (!told.is_empty()).then(|| told.join(BETWEEN))
}

const BETWEEN: &str = "; ";

/// `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
fn cause(cause: &StatusCause) -> Option<String> {
    let field = cause.field.as_deref().filter(|field| !field.is_empty())?;
    let message = cause.message.as_deref().unwrap_or_default();
    // What follows on other lines is a difference of the two objects.
    let message = message.lines().next().unwrap_or_default();
    let message = match message.strip_prefix("Invalid value: ").and_then(|rest| rest.rsplit_once(": ")) {
        Some((value, why)) if value.chars().count() > LONG || is_immutable(why) => why.to_owned(),
        _ if message.chars().count() > 3 * LONG => format!("{}…", message.chars().take(3 * LONG).collect::<String>()),
        _ => message.to_owned(),
    };
    Some(format!("{}: {message}", printable(field)))
}

/// The ways in which Kubernetes says that a field cannot be changed in place.
const IMMUTABLE: [&str; 7] = [
    "immutable",
    "may not be changed",
    "may not change",
    "cannot change",
    "cannot be changed",
    "updates to ",
    "not allowed to be changed",
];

fn is_immutable(why: &str) -> bool {
    IMMUTABLE.iter().any(|words| why.contains(words))
}

/// What of an object cannot be changed in place, if that is why it was refused: `spec.template`, or with the API server's
/// own words where they say more than that.
pub fn immutable(error: &ApiError) -> Option<String> {
    let ApiError::Refused { code: 422, message, .. } = error else { return None };
    let parts = message.split(BETWEEN).filter_map(|part| part.split_once(": ")).filter(|(_, why)| is_immutable(why));
    let told: Vec<_> = parts
        .map(|(field, why)| match why.strip_prefix("Forbidden: ").unwrap_or(why) {
            "field is immutable" => field.to_owned(),
            why => format!("{field} ({why})"),
        })
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// Why nothing new can be made in a namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoPlace {
    /// It is not there.
    Missing,
    /// It is being deleted.
    Going,
}

/// What is wrong with the namespace of an object, if that is why it was refused. The kind of the object is one that is
/// served: what is not found is the namespace.
pub fn no_place(error: &ApiError) -> Option<NoPlace> {
    let ApiError::Refused { code, reason, message } = error else { return None };
    match (*code, reason.as_str()) {
        (404, "NotFound") if message.starts_with("namespaces ") || message.starts_with(OF_SECRET) => {
            Some(NoPlace::Missing)
        }
        (403, "Forbidden") if message.contains(NEW_CONTENT) || message.contains(NAMESPACE_GOES) => Some(NoPlace::Going),
        _ => None,
    }
}

/// With which the API server's words on a namespace that goes begin.
const NEW_CONTENT: &str = "forbidden: unable to create new content in namespace ";

/// Whether the object was refused because it is being deleted: nothing that would keep it is added to it then.
pub fn is_going(error: &ApiError) -> bool {
    let ApiError::Refused { message, .. } = error else { return false };
    ["if the object is being deleted", "object is being deleted: "].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::refusal::About;

    fn refused(causes: &[(&str, &str)]) -> ApiError {
        let causes: Vec<_> =
            causes.iter().map(|(field, message)| json!({"field": field, "message": message})).collect();
        let status = json!({"reason": "Invalid", "message": "all of it", "details": {"causes": causes}});
        let status: Status = serde_json::from_value(status).unwrap();
        let message = in_short(&status).unwrap_or_else(|| "all of it".into());
        ApiError::Refused { code: 422, reason: "Invalid".into(), message }
    }

    #[test]
    fn a_whole_pod_template_is_not_repeated() {
        let dump = format!("Invalid value: core.PodTemplateSpec{{{}}}: field is immutable", "x: y, ".repeat(400));
        let error = refused(&[("spec.template", &dump)]);
        assert_eq!(error.to_string(), "spec.template: field is immutable");
        assert_eq!(immutable(&error).as_deref(), Some("spec.template"));
    }

    #[test]
    fn every_way_to_say_that_it_cannot_be_changed() {
        for (field, message, told) in [
            ("spec.selector", "Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable", "spec.selector"),
            (
                "spec",
                "Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden",
                "spec (updates to statefulset spec for fields other than 'replicas' are forbidden)",
            ),
            (
                "spec",
                "Forbidden: spec is immutable after creation except resources.requests\n  core.Spec{\n-\ta: 1\n",
                "spec (spec is immutable after creation except resources.requests)",
            ),
            (
                "spec.clusterIPs[0]",
                "Invalid value: [\"10.0.0.1\"]: may not change once set",
                "spec.clusterIPs[0] (may not change once set)",
            ),
            ("roleRef", "Invalid value: {\"kind\":\"Role\"}: cannot change roleRef", "roleRef (cannot change roleRef)"),
            ("value", "Forbidden: may not be changed in an update.", "value (may not be changed in an update.)"),
            (
                "parameters",
                "Forbidden: updates to parameters are forbidden.",
                "parameters (updates to parameters are forbidden.)",
            ),
            (
                "data",
                "Forbidden: field is immutable when `immutable` is set",
                "data (field is immutable when `immutable` is set)",
            ),
        ] {
            assert_eq!(immutable(&refused(&[(field, message)])).as_deref(), Some(told));
        }
    }

    #[test]
    fn what_is_merely_wrong_is_told_as_it_is() {
        let error = refused(&[
            ("spec.replicas", "Invalid value: -1: must be greater than or equal to 0"),
            ("spec.replicas", "Invalid value: -1: must be greater than or equal to 0"),
            ("spec.type", "Unsupported value: \"X\": supported values: \"A\", \"B\""),
        ]);
        let expected = "spec.replicas: Invalid value: -1: must be greater than or equal to 0; \
                        spec.type: Unsupported value: \"X\": supported values: \"A\", \"B\"";
        assert_eq!(error.to_string(), expected);
        assert_eq!(immutable(&error), None);
        assert_eq!(refused(&[]).to_string(), "all of it");
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(|field| (field, "Required value")).into();
        assert!(refused(&many).to_string().ends_with("e: Required value; and 2 more"));
        let other =
            ApiError::Refused { code: 403, reason: "Forbidden".into(), message: "a: field is immutable".into() };
        assert_eq!(immutable(&other), None);
    }

    #[test]
    fn a_namespace_that_is_not_there_or_goes_is_told_from_other_refusals() {
        let place = |code, reason: &str, message: &str| {
            no_place(&ApiError::Refused { code, reason: reason.into(), message: message.into() })
        };
        assert_eq!(place(404, "NotFound", "namespaces \"shop\" not found"), Some(NoPlace::Missing));
        assert_eq!(place(404, "NotFound", "configmaps \"namespaces\" not found"), None);
        assert_eq!(place(404, "HTTP 404", "404 page not found"), None);
        let going = "configmaps \"a\" is forbidden: unable to create new content in namespace shop because it is being terminated";
        assert_eq!(place(403, "Forbidden", going), Some(NoPlace::Going));
        assert_eq!(place(403, "Forbidden", "configmaps \"a\" is forbidden: User \"x\" cannot patch"), None);
        let secret = |code, status: serde_json::Value| {
            no_place(&About::Secrets.refused(code, status.to_string().as_bytes(), b"{}"))
        };
        assert_eq!(secret(404, json!({"reason": "NotFound"})), Some(NoPlace::Missing));
        assert_eq!(secret(403, json!({"reason": "Forbidden"})), None);
        let causes = json!({"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]});
        assert_eq!(secret(403, json!({"reason": "Forbidden", "details": causes})), Some(NoPlace::Going));
    }

    #[test]
    fn what_is_being_deleted_takes_no_new_finalizers() {
        let refused = |message: &str| {
            is_going(&ApiError::Refused { code: 422, reason: "Invalid".into(), message: message.into() })
        };
        assert!(refused(
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a\"}"
        ));
        assert!(!refused("metadata.finalizers: Invalid value: \"a\""));
    }
}
