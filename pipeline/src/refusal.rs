//! Shortens the messages with which the API server refuses requests.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};
use manifests::printable;

/// How many mistakes in an object a message names.
const TOLD: usize = 5;
/// A line with more characters than this is cut off, and a value with more characters than this is left out.
const LONG: usize = 120;

/// The API server's message for each wrong field, without the values that it quotes, because these can be whole Pod
/// templates. `None` if the API server names no fields.
pub fn in_short(status: &Status) -> Option<String> {
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

/// How the API server's message begins if the body of an apply does not fit the schema of its kind: a field does not
/// exist, or its value has the wrong type.
const NOT_OF_ITS_KIND: &str = "failed to create typed patch object (";
/// How the API server shows a value that has the wrong type.
const GO_VALUE: &str = "&value.valueUnstructured{Value:";

/// What in the body of an apply does not fit the schema of its kind; `None` if the API server refused the apply for
/// another reason. If the body does not fit, the API server answers with status 500, as if it had failed itself. But
/// nothing was written, and the same request would be refused again.
pub fn not_of_its_kind(message: &str) -> Option<String> {
    let (_, told) = message.strip_prefix(NOT_OF_ITS_KIND)?.split_once("): ")?;
    let mut lines: Vec<_> = told.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "errors:").collect();
    let more = lines.len().saturating_sub(TOLD);
    lines.truncate(TOLD);
    let mut told: Vec<_> = lines.into_iter().map(without_go).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    let told = told.join(BETWEEN);
    let hint = if told.contains("field not declared in schema") { "; is it misspelt?" } else { "" };
    Some(format!("{told}{hint}"))
}

/// `line` with the wrong value itself instead of Go's notation of this value. A long line is cut off.
fn without_go(line: &str) -> String {
    let line = match line.split_once(GO_VALUE).and_then(|(before, rest)| Some((before, rest.strip_suffix('}')?))) {
        Some((before, value)) => format!("{before}{value}"),
        None => line.to_owned(),
    };
    if line.chars().count() > LONG { format!("{}…", line.chars().take(LONG).collect::<String>()) } else { line }
}

/// What is wrong with one field, for example `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
fn cause(cause: &StatusCause) -> Option<String> {
    let field = cause.field.as_deref().filter(|field| !field.is_empty())?;
    let message = cause.message.as_deref().unwrap_or_default();
    // The lines after the first one compare the old object with the new one.
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

/// The fields that cannot be changed in place, for example `spec.template`; `None` if the API server refused the object
/// for another reason. If the API server says more about a field, its words follow in parentheses. `message` is the
/// refusal as [`in_short`] returns it.
pub fn immutable(code: u16, message: &str) -> Option<String> {
    let parts = Some(message)
        .filter(|_| code == 422)?
        .split(BETWEEN)
        .filter_map(|part| part.split_once(": "))
        .filter(|(_, why)| is_immutable(why));
    let told: Vec<_> = parts
        .map(|(field, why)| match why.strip_prefix("Forbidden: ").unwrap_or(why) {
            "field is immutable" => field.to_owned(),
            why => format!("{field} ({why})"),
        })
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(causes: &[(&str, &str)]) -> Option<String> {
        let causes: Vec<_> =
            causes.iter().map(|(field, message)| json!({"field": field, "message": message})).collect();
        let status = json!({"reason": "Invalid", "message": "all of it", "details": {"causes": causes}});
        in_short(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_body_that_does_not_fit_its_kind_is_told_without_go() {
        let told = |errors: &str| {
            not_of_its_kind(&format!("failed to create typed patch object (a/b; apps/v1, Kind=Deployment): {errors}"))
        };
        let expected = ".spec.replica: field not declared in schema; is it misspelt?";
        assert_eq!(told(".spec.replica: field not declared in schema").as_deref(), Some(expected));
        let errors = "errors:\n  .data.a: expected string, got &value.valueUnstructured{Value:1}\n  .data.b: no";
        assert_eq!(told(errors).as_deref(), Some(".data.a: expected string, got 1; .data.b: no"));
        let many: String = (0..9).map(|number| format!("\n  .data.k{number}: no")).collect();
        assert!(told(&format!("errors:{many}")).unwrap().ends_with(".data.k4: no; and 4 more"));
        let long = told(&format!(".data.a: {}", "x".repeat(1000))).unwrap();
        assert!(long.ends_with('…') && long.chars().count() == LONG + 1, "{long}");
        assert_eq!(not_of_its_kind("etcdserver: request timed out"), None);
    }

    #[test]
    fn a_whole_pod_template_is_not_repeated() {
        let dump = format!("Invalid value: core.PodTemplateSpec{{{}}}: field is immutable", "x: y, ".repeat(400));
        let message = refused(&[("spec.template", &dump)]).unwrap();
        assert_eq!(message, "spec.template: field is immutable");
        assert_eq!(immutable(422, &message).as_deref(), Some("spec.template"));
        assert_eq!(immutable(403, &message), None);
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
            let message = refused(&[(field, message)]).unwrap();
            assert_eq!(immutable(422, &message).as_deref(), Some(told));
        }
    }

    #[test]
    fn what_is_merely_wrong_is_told_as_it_is() {
        let message = refused(&[
            ("spec.replicas", "Invalid value: -1: must be greater than or equal to 0"),
            ("spec.replicas", "Invalid value: -1: must be greater than or equal to 0"),
            ("spec.type", "Unsupported value: \"X\": supported values: \"A\", \"B\""),
        ]);
        let expected = "spec.replicas: Invalid value: -1: must be greater than or equal to 0; \
                        spec.type: Unsupported value: \"X\": supported values: \"A\", \"B\"";
        assert_eq!(message.as_deref(), Some(expected));
        assert_eq!(immutable(422, expected), None);
        assert_eq!(refused(&[]), None);
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(|field| (field, "Required value")).into();
        assert!(refused(&many).unwrap().ends_with("e: Required value; and 2 more"));
    }
}
