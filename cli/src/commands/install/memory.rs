//! The memory limit of the controller's Pod, which has to fit its `--memory-budget` and `--renderer-memory`.

use serde_json::Value;

/// The memory limit in the manifests of gitseal, for a controller with the default arguments.
pub const USUAL_LIMIT: &str = "1Gi";
/// How much memory the controller may need in addition to the memory for its work on repositories.
const ABOVE: u64 = 192 << 20;

/// The memory limit that fits these arguments: never less than the usual one.
pub fn limit(arguments: &[String]) -> String {
    let usual = flags::bytes(USUAL_LIMIT).unwrap_or_default();
    let wanted = flags::memory(arguments).map_or(usual, |memory| memory.saturating_add(ABOVE));
    if wanted <= usual { USUAL_LIMIT.to_owned() } else { format!("{}Mi", wanted.div_ceil(1 << 20)) }
}

/// The note for the user if the limit differs from the usual one.
pub fn note(arguments: &[String]) -> Option<String> {
    let limit = limit(arguments);
    (limit != USUAL_LIMIT).then(|| {
        format!("the memory limit of the controller is {limit} instead of {USUAL_LIMIT}, so that --memory-budget and --renderer-memory fit")
    })
}

/// A warning if somebody chose the memory limit of the Deployment by hand and it is too low for the arguments.
pub fn warning(deployment: &Value, arguments: &[String]) -> Option<String> {
    let limit_now = deployment.pointer("/spec/template/spec/containers/0/resources/limits/memory")?.as_str()?;
    let is_too_low = flags::bytes(limit_now)? < flags::memory(arguments)?.saturating_add(ABOVE);
    let text = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    is_too_low.then(|| {
        format!(
            "somebody set the memory limit of the controller to {limit_now}, which is too low for its --memory-budget and --renderer-memory, so it \
             may be killed: kubectl set resources deployment -n {} {} -c controller --limits=memory={}",
            text("/metadata/namespace"),
            text("/metadata/name"),
            limit(arguments)
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn budget(size: &str) -> Vec<String> {
        vec!["--storage=/var".into(), format!("--memory-budget={size}")]
    }

    #[test]
    fn the_limit_follows_the_budget() {
        assert_eq!((limit(&[]).as_str(), note(&[])), (USUAL_LIMIT, None));
        for (size, expected) in [("128Mi", "1Gi"), ("256Mi", "1Gi"), ("512Mi", "1280Mi"), ("1Gi", "1792Mi")] {
            assert_eq!(limit(&budget(size)), expected, "{size}");
        }
        assert_eq!(limit(&["--of-another-version".into()]), USUAL_LIMIT, "it is not known");
        assert_eq!(limit(&["--memory-budget".into(), "512Mi".into()]), "1280Mi", "two words");
        let renderers = vec!["--memory-budget=256Mi".into(), "--renderer-memory=512Mi".into()];
        assert_eq!(limit(&renderers), "1472Mi", "two processes");
        assert!(note(&budget("512Mi")).unwrap().contains("1280Mi instead of 1Gi"));
    }

    #[test]
    fn a_limit_that_somebody_chose_is_warned_of_if_it_is_too_low() {
        let with = |limit: &str| {
            let containers = json!([{"name": "controller", "resources": {"limits": {"memory": limit}}}]);
            json!({"metadata": {"namespace": "gitops", "name": "gitseal-controller"},
                   "spec": {"template": {"spec": {"containers": containers}}}})
        };
        assert_eq!(warning(&with("1280Mi"), &budget("512Mi")), None);
        assert_eq!(warning(&with("2Gi"), &budget("512Mi")), None);
        let told = warning(&with("1279Mi"), &budget("512Mi")).unwrap();
        assert!(
            told.contains("1279Mi")
                && told.ends_with("deployment -n gitops gitseal-controller -c controller --limits=memory=1280Mi")
        );
        assert_eq!(warning(&json!({}), &budget("512Mi")), None);
    }
}
