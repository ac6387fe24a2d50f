//! What a refusal of the API server says about an object or its namespace.

use super::{
    ApiError,
    refusal::{NAMESPACE_GOES, OF_SECRET},
};

/// Why nothing can be created in a namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoPlace {
    /// The namespace does not exist.
    Missing,
    /// The namespace is being deleted.
    Going,
}

/// What is wrong with the object's namespace, if the object was refused because of its namespace. The caller knows that
/// the kind is served, so "not found" can only be about the namespace.
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

/// The API server's message about a namespace that is being deleted begins with this.
const NEW_CONTENT: &str = "forbidden: unable to create new content in namespace ";

/// Whether the object was refused because it is being deleted. The API server does not accept new finalizers on such an
/// object.
pub fn is_going(error: &ApiError) -> bool {
    let ApiError::Refused { message, .. } = error else { return false };
    ["if the object is being deleted", "object is being deleted: "].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::refusal::About;

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
            no_place(&About::Secrets.refused(&http::Method::PATCH, code, status.to_string().as_bytes(), b"{}"))
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
