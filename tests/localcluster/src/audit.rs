//! The API server's audit log. It has one line for each request, and says who made the request.

use std::path::Path;

use serde::Deserialize;

use crate::error::{At, Error, Result};

/// Logs one event for each request. Watches are logged when they start, because they may never end. All other requests are
/// logged when they are done.
pub(crate) const POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "rules": [
    {"level": "Metadata", "verbs": ["watch"], "omitStages": ["RequestReceived", "ResponseComplete"]},
    {"level": "Metadata", "omitStages": ["RequestReceived", "ResponseStarted"]}
  ]
}
"#;

/// One request to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Event")]
pub struct AuditEvent {
    /// The user who made the request.
    pub user: String,
    /// The user that was impersonated, if there is one.
    pub impersonated: Option<String>,
    /// The User-Agent of the client.
    pub user_agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; else the HTTP method.
    pub verb: String,
    /// The path with the query.
    pub uri: String,
    /// The API group; empty for the core group, and for requests that are not for a resource.
    pub group: String,
    /// The resource in the plural, with its subresource, as in `deployments/status`; empty for other requests.
    pub resource: String,
    /// The namespace; empty when there is none.
    pub namespace: String,
    /// The name of the object; empty if the request is not for one object.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u16,
    /// When the request arrived, RFC 3339.
    pub received: String,
}

/// Reads the log. A last line that is not complete yet is left out.
pub(crate) fn read(path: &Path) -> Result<Vec<AuditEvent>> {
    let text = std::fs::read_to_string(path).at("cannot read", path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(index, line)| {
        serde_json::from_str(line).map_err(|source| Error::Audit { path: path.into(), line: index + 1, source })
    };
    whole.lines().enumerate().map(parse).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    user: User,
    impersonated_user: Option<User>,
    #[serde(default)]
    user_agent: String,
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
    #[serde(default)]
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

impl From<Event> for AuditEvent {
    fn from(event: Event) -> Self {
        let object = event.object_ref;
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            subresource => format!("{}/{subresource}", object.resource),
        };
        Self {
            user: event.user.username,
            impersonated: event.impersonated_user.map(|user| user.username),
            user_agent: event.user_agent,
            verb: event.verb,
            uri: event.uri,
            group: object.api_group,
            resource,
            namespace: object.namespace,
            name: object.name,
            code: event.response_status.code,
            received: event.request_received_timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_up_to_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let lines = concat!(
            r#"{"verb":"patch","requestURI":"/x","user":{"username":"a"},"userAgent":"t","objectRef":{"apiGroup":"apps","#,
            r#""resource":"deployments","subresource":"status","namespace":"n","name":"d"},"responseStatus":{"code":200}}"#,
            "\n",
            r#"{"verb":"get","requestURI":"/readyz","user":{"username":"b"}}"#,
            "\n",
            r#"{"verb":"ge"#
        );
        std::fs::write(&path, lines).unwrap();
        let events = read(&path).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!((events[0].resource.as_str(), events[0].code), ("deployments/status", 200));
        assert_eq!((events[1].user.as_str(), events[1].resource.as_str()), ("b", ""));
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        std::fs::write(&path, "{}\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("audit.log:1: "), "{error}");
    }
}
