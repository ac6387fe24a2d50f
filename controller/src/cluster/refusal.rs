//! Decides which parts of the message of a refusal may be repeated in our messages. The API server, an admission policy
//! or a webhook wrote this message.
//!
//! The refusal of a Secret may quote old and new values of the Secret, whatever the verb of the request. So the text of
//! this refusal is never repeated. Our message is made only of known words: the reason, the fields and what is wrong
//! with them, the policy or webhook that refused, and the right that an account does not have.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};
use pipeline::refusal::{in_short, not_of_its_kind};
use serde::{Deserialize, de::IgnoredAny};

use super::ApiError;

/// Every message about a refused Secret begins with this.
pub(super) const OF_SECRET: &str = "the API server refused the Secret";
/// Our words for the cause `NamespaceTerminating`.
pub(super) const NAMESPACE_GOES: &str = "the namespace is being deleted";

/// The hint for a field that must be a string but is a number or a boolean in YAML.
const QUOTE: &str = "; quote the value: in YAML, 123, true, yes, no, on, off, y and n are not text";

/// What a request is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum About {
    /// Secrets: the API server's text may quote their values.
    Secrets,
    /// Anything but Secrets.
    Others,
}

impl About {
    /// What the request with this path is about, whatever its verb, query and subresource are.
    pub(super) fn path(path: &str) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let mut segments = path.trim_start_matches('/').split('/');
        if (segments.next(), segments.next()) != (Some("api"), Some("v1")) {
            return Self::Others;
        }
        let resource = match segments.next() {
            Some("namespaces") => segments.nth(1),
            resource => resource,
        };
        if resource == Some("secrets") { Self::Secrets } else { Self::Others }
    }

    /// The error for an answer whose status `code` means a failure. `method` and `sent` are the method and the body of
    /// the request.
    pub(super) fn refused(self, method: &Method, code: u16, answer: &[u8], sent: &[u8]) -> ApiError {
        let status: Status = serde_json::from_slice(answer).unwrap_or_default();
        let not_of_its_kind = (code == 500).then(|| not_of_its_kind(status.message.as_deref()?)).flatten();
        // The code 500 says that the API server failed. But an object that does not fit its kind is a wrong request:
        // nothing was written, and another try would be refused, too. So the code becomes 400.
        let code = if not_of_its_kind.is_some() { 400 } else { code };
        match self {
            Self::Secrets => of_secrets(method, code, &status, sent),
            Self::Others => {
                let reason = status.reason.clone().unwrap_or_else(|| format!("HTTP {code}"));
                let in_short = (code == 422).then(|| in_short(&status)).flatten();
                let mut message = not_of_its_kind
                    .or(in_short)
                    .or(status.message)
                    .unwrap_or_else(|| format!("the API server answered with status {code}"));
                if message.contains("expected string, got") || message.contains("of type string") {
                    message.push_str(QUOTE);
                }
                ApiError::Refused { code, reason, message }
            }
        }
    }
}

fn of_secrets(method: &Method, code: u16, status: &Status, sent: &[u8]) -> ApiError {
    let reason = status.reason.as_deref().filter(|reason| REASONS.contains(reason));
    let reason = reason.map_or_else(|| format!("HTTP {code}"), str::to_owned);
    let message = status.message.as_deref().unwrap_or_default();
    let causes = status.details.as_ref().and_then(|details| details.causes.as_deref()).unwrap_or_default();
    let is_immutable = code == 422 && causes.iter().any(of_immutable);
    let causes = known_causes(causes, sent);
    let mut text = format!("{OF_SECRET}: {reason} ({code})");
    if let Some(who) = admission(message).or_else(|| missing_right(message)) {
        text.push_str(&format!(": {who}"));
    }
    if is_immutable {
        // Sealed Secrets reports this case in the same words.
        text.push_str(": the target Secret is immutable");
    }
    if !causes.is_empty() {
        text.push_str(&format!(": {}", causes.join(", ")));
    }
    text.push_str(hint(method, code, &causes));
    ApiError::Refused { code, reason, message: text }
}

/// Whether the cause is an attempt to change the values of an immutable Secret.
fn of_immutable(cause: &StatusCause) -> bool {
    let message = cause.message.as_deref().unwrap_or_default();
    cause.field.as_deref().is_some_and(|field| ["data", "immutable"].contains(&field))
        && message.ends_with("field is immutable when `immutable` is set")
}

fn hint(method: &Method, code: u16, causes: &[String]) -> &'static str {
    match code {
        403 if *method == Method::DELETE => {
            "; an account that deletes the Secret needs the right to delete secrets in the namespace of the Secret, \
             and no admission policy may refuse the deletion"
        }
        403 if *method == Method::GET => {
            "; an account that reads the Secret needs the right to get secrets in the namespace of the Secret"
        }
        403 => {
            "; an account that writes the Secret needs the rights to create and patch secrets in the namespace of the \
             Secret, and no admission policy may refuse the write"
        }
        422 if causes.iter().any(|cause| cause.ends_with(REQUIRED)) => "; the type of the Secret requires this value",
        422 => {
            "; some types of Secrets require certain values, and neither the type of a Secret nor an immutable Secret \
             can be changed: delete the Secret, and it is made again"
        }
        _ => "",
    }
}

/// The reasons that a `metav1.Status` can have. A webhook may write any text as the reason, so only these known reasons
/// are repeated.
const REASONS: &[&str] = &[
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "AlreadyExists",
    "Conflict",
    "Gone",
    "Invalid",
    "ServerTimeout",
    "StoreReadError",
    "Timeout",
    "TooManyRequests",
    "BadRequest",
    "MethodNotAllowed",
    "NotAcceptable",
    "RequestEntityTooLarge",
    "UnsupportedMediaType",
    "InternalError",
    "Expired",
    "ServiceUnavailable",
];

const REQUIRED: &str = "required value";

/// The types that a `metav1.StatusCause` can have, and our words for them. The cause's own message is not repeated,
/// because it may quote a value.
const CAUSES: &[(&str, &str)] = &[
    ("FieldValueNotFound", "not found"),
    ("FieldValueRequired", REQUIRED),
    ("FieldValueDuplicate", "duplicate value"),
    ("FieldValueInvalid", "invalid value"),
    ("FieldValueNotSupported", "unsupported value"),
    ("FieldValueForbidden", "forbidden"),
    ("FieldValueTooLong", "too long"),
    ("FieldValueTooMany", "too many"),
    ("FieldValueTypeInvalid", "wrong type"),
    ("InternalError", "internal error"),
    ("FieldManagerConflict", "owned by another field manager"),
    ("NamespaceTerminating", NAMESPACE_GOES),
];

/// The fields of a Secret, as the API server's validation names them. `data[KEY]` is handled separately.
const FIELDS: &[&str] = &[
    "apiVersion",
    "kind",
    "type",
    "immutable",
    "data",
    "stringData",
    "metadata",
    "metadata.name",
    "metadata.generateName",
    "metadata.namespace",
    "metadata.labels",
    "metadata.annotations",
    "metadata.finalizers",
    "metadata.ownerReferences",
    "metadata.managedFields",
    "metadata.resourceVersion",
    "metadata.uid",
];

/// The keys that the Secret types of Kubernetes require.
const KEYS: &[&str] =
    &["tls.crt", "tls.key", ".dockercfg", ".dockerconfigjson", "username", "password", "ssh-privatekey"];

/// Which fields are wrong, and how. The same field with the same reason is named only once. The name of a field is
/// repeated only if it is a known field of Secrets or a key in the request, because any other name may be any text.
fn known_causes(causes: &[StatusCause], sent: &[u8]) -> Vec<String> {
    let mut keys: BTreeSet<String> = KEYS.iter().map(|key| (*key).to_owned()).collect();
    // Only the keys of the values are parsed. The values themselves are skipped and not copied.
    let sent: Sent = serde_json::from_slice(sent).unwrap_or_default();
    keys.extend(sent.data.into_iter().flatten().map(|(key, _)| key));
    let mut known = Vec::new();
    for cause in causes {
        let reason = cause.reason.as_deref().unwrap_or_default();
        let Some((_, words)) = CAUSES.iter().find(|(name, _)| *name == reason) else { continue };
        let text = match cause.field.as_deref().and_then(|field| known_field(field, &keys)) {
            Some(field) => format!("{field}: {words}"),
            None => (*words).to_owned(),
        };
        if !known.contains(&text) {
            known.push(text);
        }
    }
    known
}

fn known_field(field: &str, keys: &BTreeSet<String>) -> Option<String> {
    if FIELDS.contains(&field) {
        return Some(field.to_owned());
    }
    let key = field.strip_prefix("data[")?.strip_suffix(']')?;
    keys.contains(key).then(|| format!("data[{}]", manifests::printable(key)))
}

#[expect(clippy::zero_sized_map_values, reason = "serde cannot read the keys of a map into a set")]
#[derive(Default, Deserialize)]
struct Sent {
    #[serde(default)]
    data: Option<BTreeMap<String, IgnoredAny>>,
}

/// Which policy or webhook refused. The API server names the policy or webhook first, before it repeats the text of the
/// policy or webhook.
fn admission(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("admission webhook \"") {
        let name = resource_name(rest.split_once("\" denied the request")?.0)?;
        return Some(format!("admission webhook {name} denied the request"));
    }
    if let Some(rest) = message.strip_prefix("Internal error occurred: failed calling webhook \"") {
        let name = resource_name(rest.split_once('"')?.0)?;
        return Some(format!("admission webhook {name} could not be called"));
    }
    let rest = without_object(message)?.strip_prefix("ValidatingAdmissionPolicy '")?;
    let name = resource_name(rest.split_once('\'')?.0)?;
    Some(format!("ValidatingAdmissionPolicy {name} denied the request"))
}

/// Which right an account does not have. The API server checks rights before it reads the body, so the sentence of the
/// API server cannot quote a value of the Secret. The authorizer's own text comes after this sentence, and is left out.
fn missing_right(message: &str) -> Option<String> {
    let (user, rest) = without_object(message)?.strip_prefix("User \"")?.split_once("\" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, _) = rest.split_once("\" in API group \"")?;
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b"/-.".contains(&b));
    let is_user = user.len() <= 512 && !user.contains(['"', '\'']) && !user.contains(char::is_whitespace);
    (is_user && is_word(verb) && is_word(resource))
        .then(|| format!("{} cannot {verb} {resource}", manifests::printable(user)))
}

/// The text after a beginning such as `secrets "db" is forbidden: ` in the API server's message.
fn without_object(message: &str) -> Option<&str> {
    let (kind, rest) = message.split_once(' ')?;
    if !kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'.') {
        return None;
    }
    let rest = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\" ")?.1,
        None => rest,
    };
    rest.strip_prefix("is forbidden: ")
}

fn resource_name(text: &str) -> Option<&str> {
    let is_name = (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
    is_name.then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of_a_secret(code: u16, status: Value, sent: Value) -> String {
        About::Secrets
            .refused(&Method::PATCH, code, status.to_string().as_bytes(), sent.to_string().as_bytes())
            .to_string()
    }

    #[test]
    fn secrets_are_told_by_the_path() {
        for path in [
            "/api/v1/secrets",
            "/api/v1/secrets?limit=1",
            "/api/v1/namespaces/a/secrets",
            "/api/v1/namespaces/a/secrets/b?fieldManager=x",
            "/api/v1/namespaces/a/secrets/b/status",
            "/api/v1/namespaces/secrets/secrets/secrets",
        ] {
            assert_eq!(About::path(path), About::Secrets, "{path}");
        }
        for path in [
            "/api/v1/namespaces/secrets",
            "/api/v1/namespaces/secrets/configmaps/secrets",
            "/api/v1/namespaces/a/configmaps/b?x=/secrets/",
            "/apis/example.com/v1/namespaces/a/secrets/b",
            "/apis/bitnami.com/v1alpha1/namespaces/a/sealedsecrets/b",
            "/version",
        ] {
            assert_eq!(About::path(path), About::Others, "{path}");
        }
    }

    #[test]
    fn a_number_for_a_text_says_what_to_do() {
        for message in [
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
            "cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ] {
            let status = json!({"reason": "BadRequest", "message": message}).to_string();
            let told = About::Others.refused(&Method::PATCH, 400, status.as_bytes(), b"").to_string();
            assert!(told.contains(message) && told.ends_with("are not text"), "{told}");
        }
        let status = json!({"reason": "BadRequest", "message": "unknown field"}).to_string();
        assert!(!About::Others.refused(&Method::PATCH, 400, status.as_bytes(), b"").to_string().contains("quote"));
    }

    #[test]
    fn what_does_not_fit_its_kind_is_a_mistake_in_git_although_the_status_is_500() {
        let refused = |message: &str| {
            let status = json!({"status": "Failure", "message": message, "code": 500}).to_string();
            About::Others.refused(&Method::PATCH, 500, status.as_bytes(), b"")
        };
        let error = refused(
            "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): .spec.replica: field not declared in schema",
        );
        assert_eq!(error.to_string(), ".spec.replica: field not declared in schema; is it misspelt?");
        assert_eq!(error.code(), Some(400));
        assert!(!error.is_transient());
        let error = refused("etcdserver: request timed out");
        assert_eq!(error.code(), Some(500));
        assert!(error.is_transient());
    }

    #[test]
    fn what_is_wrong_is_told_and_no_value() {
        let invalid = |causes: Value| {
            json!({"reason": "Invalid", "message": "Secret \"db\" is invalid: data[x]: Invalid value: \"hunter2\"",
                "details": {"name": "db", "kind": "Secret", "causes": causes}})
        };
        let causes = json!([
            {"reason": "FieldValueRequired", "message": "Required value", "field": "data[tls.key]"},
            {"reason": "FieldValueInvalid", "message": "Invalid value: \"hunter2\"", "field": "data[x]"},
            {"reason": "FieldValueInvalid", "message": "Invalid value: \"hunter2\"", "field": "data[x]"},
            {"reason": "FieldValueInvalid", "message": "field is immutable", "field": "type"},
            {"reason": "FieldValueInvalid", "message": "hunter2", "field": "data[hunter2]"},
            {"reason": "hunter2", "message": "hunter2", "field": "hunter2"},
        ]);
        let text = of_a_secret(422, invalid(causes), json!({"data": {"x": "aHVudGVyMg=="}}));
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("Invalid (422): data[tls.key]: required value, data[x]: invalid value, type: invalid"));
        let immutable = json!([{"reason": "FieldValueForbidden", "field": "data",
            "message": "Forbidden: field is immutable when `immutable` is set"}]);
        let text = of_a_secret(422, invalid(immutable), json!(null));
        assert!(text.contains("(422): the target Secret is immutable: data: forbidden; "), "{text}");
        let text = of_a_secret(422, invalid(json!([{"reason": "FieldValueInvalid", "field": "type"}])), json!(null));
        assert!(text.contains("type: invalid value; ") && text.contains("delete the Secret"), "{text}");
    }

    #[test]
    fn who_said_no_is_told_and_nothing_else() {
        for (code, message, told) in [
            (422, "admission webhook \"a.example.com\" denied the request: hunter2", "admission webhook a.example.com"),
            (
                422,
                "secrets \"db\" is forbidden: ValidatingAdmissionPolicy 'length' with binding 'b' denied request: hunter2",
                "ValidatingAdmissionPolicy length denied",
            ),
            (
                403,
                "secrets \"db\" is forbidden: User \"system:serviceaccount:a:b\" cannot patch resource \"secrets\" in API group \"\" in the namespace \"a\": hunter2",
                "system:serviceaccount:a:b cannot patch secrets",
            ),
            (
                403,
                "serviceaccounts \"b\" is forbidden: User \"gitseal\" cannot impersonate resource \"serviceaccounts\" in API group \"\" in the namespace \"a\"",
                "gitseal cannot impersonate serviceaccounts",
            ),
            (403, "hunter2: User \"hunter2\" cannot hunter2 resource \"hunter2\" in API group \"\"", "(403); "),
            (
                500,
                "Internal error occurred: failed calling webhook \"a.example.com\": hunter2",
                "admission webhook a.example.com could not be called",
            ),
            (500, "hunter2", "HTTP 500 (500)"),
        ] {
            let status =
                json!({"reason": "hunter2", "message": message, "details": {"causes": [{"message": message}]}});
            let text = of_a_secret(code, status, json!({"data": {"x": "aHVudGVyMg=="}}));
            assert!(text.contains(told), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn the_remedy_is_for_what_was_refused() {
        let told = |method: &Method| About::Secrets.refused(method, 403, br#"{"reason":"Forbidden"}"#, b"").to_string();
        assert!(told(&Method::PATCH).contains("rights to create and patch secrets"));
        assert!(told(&Method::DELETE).contains("right to delete secrets"));
        assert!(told(&Method::GET).contains("right to get secrets"));
    }

    #[test]
    fn others_are_told_in_the_api_servers_words() {
        let error =
            About::Others.refused(&Method::PATCH, 422, br#"{"reason":"Invalid","message":"spec.replicas: no"}"#, b"");
        assert_eq!(error.to_string(), "spec.replicas: no");
    }
}
