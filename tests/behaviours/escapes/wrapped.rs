//! The tenant's Git contains objects of other namespaces, and hides them inside of other objects, for example of a
//! List.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Case, GITSEAL, RBAC, seal, sealed_secret};

fn file(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

#[tokio::test]
async fn objects_of_the_neighbour_are_refused_in_every_wrapping() -> Result<()> {
    let case = Case::new("escape-smuggled").await?;
    let (theirs, own) = (&case.victim.namespace, &case.tenant.namespace);
    let rbac = format!("{RBAC}/v1");
    let taken = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": theirs},
        "data": {"value": "taken"},
    });
    let list = |items: Value| json!({"apiVersion": "v1", "kind": "List", "items": items});
    let sync = |name: &str| {
        json!({
            "apiVersion": GITSEAL, "kind": "Sync", "metadata": {"name": name, "namespace": theirs},
            "spec": {"repository": {"name": "repo"}, "path": "./other"},
        })
    };
    let account = json!([{"kind": "ServiceAccount", "name": "tenant", "namespace": own}]);
    let admin = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"});
    let cluster_role = json!({
        "apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": format!("of-{own}")},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    });
    let cluster_binding = json!({
        "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": format!("of-{own}")},
        "roleRef": admin, "subjects": account,
    });
    let binding = json!({
        "apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": "mine", "namespace": theirs},
        "roleRef": admin, "subjects": account,
    });
    let aggregated = json!({
        "apiVersion": rbac, "kind": "ClusterRole",
        "metadata": {"name": format!("of-{own}"), "labels": {"rbac.authorization.k8s.io/aggregate-to-admin": "true"}},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    });
    let managed = |annotation: &str| {
        let annotations = json!({format!("sealedsecrets.bitnami.com/{annotation}"): "true"});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": theirs, "annotations": annotations}})
    };
    let marked = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "settings", "namespace": theirs,
            "labels": {"gitseal.dev/sync-name": "shop", "gitseal.dev/sync-namespace": theirs},
        },
    });
    let key = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": format!("sealed-secrets-key-{own}"), "namespace": "kube-system",
            "labels": {"sealedsecrets.bitnami.com/sealed-secrets-key": "active"},
        },
    });
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": format!("of-{own}")}, "webhooks": [],
    });
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": theirs, "labels": {"owner": "tenant"}},
    });
    let repository = json!({
        "apiVersion": GITSEAL, "kind": "Repository", "metadata": {"name": "repo", "namespace": theirs},
        "spec": {"url": "https://example.invalid/evil", "ref": {"branch": "main"}},
    });
    let token = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "token", "namespace": theirs, "annotations": {"kubernetes.io/service-account.name": "deployer"},
        },
    });
    let own_sealed = json!({"a": seal(&case.plane.certificate, theirs, "db", "wrapped-value")?});
    let over = sealed_secret("db", &json!({"namespace": theirs}), &own_sealed, &json!({}));
    for (escape, text) in [
        ("an object with the victim's namespace", file(std::slice::from_ref(&taken))),
        ("an object inside a List", file(&[list(json!([taken.clone()]))])),
        ("a SealedSecret of one's own over the victim's", over),
        ("the victim's labels on the victim's object", file(&[marked])),
        ("a Sync in the victim's namespace", file(&[sync("new")])),
        ("the victim's Sync itself", file(&[sync("shop")])),
        ("the victim's Repository", file(&[repository])),
        ("a ClusterRole", file(&[cluster_role])),
        ("a ClusterRole that is aggregated to admin", file(&[aggregated])),
        ("a ClusterRoleBinding", file(&[cluster_binding])),
        ("a RoleBinding in the victim's namespace", file(&[binding])),
        ("the victim's Namespace", file(&[namespace])),
        ("a webhook for all", file(&[webhook])),
        ("the annotation managed on the victim's Secret", file(&[managed("managed")])),
        ("the annotation patch on the victim's Secret", file(&[managed("patch")])),
        ("a sealing key", file(&[key])),
        ("a token of the victim's account", file(&[token])),
    ] {
        let message = case.is_refused(escape, &text, "Forbidden").await?;
        ensure!(message.contains("app/bad.yaml") && message.contains(&format!("{own}:tenant")), "{escape}: {message}");
    }

    let nested = file(&[list(json!([list(json!([taken.clone()]))]))]);
    case.is_refused("an object inside a List inside a List", &nested, "InvalidManifest").await?;

    // Rights in the tenant's own namespace give it no rights elsewhere.
    let mut binding_at_home = json!({
        "apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": "mine"}, "roleRef": admin, "subjects": account,
    });
    let ended = case.tries("cluster-admin bound at home", &file(&[binding_at_home.clone()])).await?;
    ensure!(ended.reason == "Applied", "{}: {}", ended.reason, ended.message);
    binding_at_home["metadata"]["labels"] = json!({"round": "two"});
    let text = file(&[binding_at_home, taken]);
    case.is_refused("an object with the victim's namespace, with cluster-admin at home", &text, "Forbidden").await?;
    case.victim_goes_on().await
}
