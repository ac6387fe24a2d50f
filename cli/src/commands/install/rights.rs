//! Checks whether an upgrade would give the controller, or people, more rights.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    apply,
    bundle::{AGGREGATE_TO_EDIT, DEPLOYMENT_NAME, EDIT_ROLE},
    choices::Choices,
    live::Live,
    plan::Step,
};

/// The rights that the controller or people would get and do not have now, as text.
pub fn growth(steps: &[Step], live: &Live, choices: &Choices) -> Vec<String> {
    let mut new = of_the_controller(steps, live, choices);
    // In a new installation for several teams, what everybody with the role `edit` may do is not listed here, because
    // the user has just chosen an installation for several teams.
    let was_shared = live.tenancy.is_some_and(|tenancy| !tenancy.cluster_admin);
    let edit = steps.iter().find(|step| was_shared && apply::widens(step, choices));
    if edit.is_some_and(|step| step.live.as_ref().is_some_and(|role| !is_aggregated(role))) {
        new.push(format!(
            "everybody who may `edit` a namespace: {EDIT_ROLE}, which allows them to create Syncs and SealedSecrets \
             there"
        ));
    }
    new
}

fn is_aggregated(role: &Value) -> bool {
    role["metadata"]["labels"][AGGREGATE_TO_EDIT] == "true"
}

fn of_the_controller(steps: &[Step], live: &Live, choices: &Choices) -> Vec<String> {
    if live.is_cluster_admin {
        return Vec::new();
    }
    if choices.tenancy.cluster_admin {
        return vec!["cluster-admin: it may do everything in the whole cluster".to_owned()];
    }
    let (mut had, mut gets) = (BTreeSet::new(), BTreeSet::new());
    let roles = steps.iter().filter(|step| step.object.id.kind.ends_with("Role"));
    // Only the controller's own roles are looked at here. The other roles are for people.
    for step in roles.filter(|step| step.object.id.name.starts_with(DEPLOYMENT_NAME)) {
        let place = step.object.id.namespace.clone();
        if is_bound(steps, step) {
            had.extend(step.live.iter().flat_map(|role| rights(role, place.as_deref())));
        }
        gets.extend(rights(&step.after, place.as_deref()));
    }
    let new = gets.into_iter().filter(|right: &Right| !had.iter().any(|had: &Right| had.covers(right)));
    let mut new: Vec<String> = new.map(|right: Right| format!("{right}")).collect();
    new.dedup();
    new
}

/// Whether the cluster already has the binding of the role, with all subjects that our manifest gives it.
fn is_bound(steps: &[Step], role: &Step) -> bool {
    let id = &role.object.id;
    let of_role = |step: &&Step| {
        let other = &step.object.id;
        other.kind == format!("{}Binding", id.kind) && other.name == id.name && other.namespace == id.namespace
    };
    let Some(binding) = steps.iter().find(of_role) else { return true };
    let subjects = |of: &Value| of["subjects"].as_array().cloned().unwrap_or_default();
    let had = binding.live.as_ref().map(subjects).unwrap_or_default();
    subjects(&binding.after).iter().all(|subject| had.contains(subject))
}

/// One verb on one kind.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
struct Right {
    group: String,
    resource: String,
    verb: String,
    name: Option<String>,
    /// `None` for all namespaces.
    namespace: Option<String>,
}

impl Right {
    fn covers(&self, other: &Self) -> bool {
        let fits = |mine: &str, other: &str| mine == "*" || mine == other;
        let is_wide = |mine: &Option<String>, other: &Option<String>| mine.is_none() || mine == other;
        fits(&self.group, &other.group)
            && fits(&self.resource, &other.resource)
            && fits(&self.verb, &other.verb)
            && is_wide(&self.name, &other.name)
            && is_wide(&self.namespace, &other.namespace)
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => write!(f, " in every namespace"),
        }
    }
}

fn rights(role: &Value, namespace: Option<&str>) -> Vec<Right> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut all = Vec::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        let names = texts(&rule["resourceNames"]);
        let names: Vec<_> = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    all.extend(names.iter().map(|name| Right {
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                        name: name.clone(),
                        namespace: namespace.map(str::to_owned),
                    }));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::rights;

    #[test]
    fn a_wider_right_covers_a_narrower_one() {
        let of = |rule: serde_json::Value, namespace| rights(&json!({"rules": [rule]}), namespace).remove(0);
        let all = of(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}), None);
        let one = of(
            json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["a"]}),
            Some("n"),
        );
        assert!(all.covers(&one) && !one.covers(&all));
        assert_eq!(one.to_string(), "get secrets a in n");
        assert_eq!(all.to_string(), "get *.* in every namespace");
    }
}
