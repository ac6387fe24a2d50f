use pipeline::plan::LiveView as _;
use serde_json::json;

use super::*;
use crate::{
    keys::tests::keyring_of_vectors,
    sync::fake_server::{Client, FakeServer},
};

fn sync() -> ObjectKey {
    ObjectKey::new("team", "apps")
}

fn id(group: &str, kind: &str, name: &str) -> ObjectId {
    ObjectId { group: group.into(), kind: kind.into(), namespace: Some("ns".into()), name: name.into() }
}

fn path(id: &ObjectId) -> String {
    let kind = id.kind.to_lowercase();
    format!("/api/v1/namespaces/{}/{kind}s/{}", id.namespace.as_deref().unwrap_or_default(), id.name)
}

/// An object with our labels, and with `more` in its metadata.
fn ours(id: &ObjectId, more: &Value) -> Value {
    let mut meta = json!({
        "name": id.name, "namespace": "ns", "uid": "1-2-3",
        "labels": {crds::names::SYNC_NAME: "apps", crds::names::SYNC_NAMESPACE: "team"},
    });
    let fields = meta.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    json!({"metadata": meta})
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
           "reason": reason, "message": format!("the server said {reason}")})
}

struct Scene {
    server: FakeServer,
    client: Client,
    inventory: Inventory,
}

impl Scene {
    /// A Sync with `ids` in its inventory.
    async fn new(ids: &[&ObjectId]) -> Self {
        let (server, client) = FakeServer::start().await;
        let mut inventory = Inventory::default();
        for id in ids {
            inventory.widen((*id).clone(), "v1");
            client.live.claim(&sync(), id).unwrap();
        }
        Self { server, client, inventory }
    }

    /// Puts `object` on the fake server under `id`. The server also accepts the deletion of the object.
    fn with(self, id: &ObjectId, object: Value) -> Self {
        let path = path(id);
        self.server.answer(&format!("GET {path}"), 200, object);
        self.server.answer(&format!("DELETE {path}"), 200, json!({"kind": "Status"}));
        self
    }

    /// Puts the SealedSecret `name` on the fake server, with our labels and with `more` in its metadata.
    fn with_sealed(self, name: &str, more: &Value) -> Self {
        let path = format!("GET /apis/bitnami.com/v1alpha1/namespaces/ns/sealedsecrets/{name}");
        self.server.answer(&path, 200, ours(&id("bitnami.com", "SealedSecret", name), more));
        self
    }

    async fn prune(&mut self, ids: &[&ObjectId]) -> Result<Vec<ObjectId>, PruneError> {
        let sync = sync();
        let Client { api, discovery, live } = &self.client;
        let keyring = keyring_of_vectors().await;
        let pruner = Pruner { api, discovery, live, sync: &sync, writes: &Places::new(16), keyring: &keyring };
        let ids = ids.iter().copied().cloned().collect();
        let mut deleted = Vec::new();
        pruner.prune(&ids, &mut self.inventory, &mut deleted).await.map(|()| deleted)
    }

    fn deletions(&self) -> Vec<String> {
        let requests = self.server.requests();
        requests.into_iter().filter_map(|request| request.strip_prefix("DELETE ").map(str::to_owned)).collect()
    }

    fn is_tracked(&self, id: &ObjectId) -> bool {
        let is_owned = self.client.live.owner(id) == Some(sync());
        assert_eq!(is_owned, self.inventory.contains(id), "inventory and index agree");
        is_owned
    }
}

#[tokio::test]
async fn what_left_git_is_deleted_and_no_longer_tracked() {
    let id = id("", "ConfigMap", "a");
    let mut scene = Scene::new(&[&id]).await.with(&id, ours(&id, &json!({})));
    assert_eq!(scene.prune(&[&id]).await.unwrap(), std::slice::from_ref(&id));
    assert_eq!(scene.deletions(), [path(&id)]);
    assert!(!scene.is_tracked(&id));
}

#[tokio::test]
async fn last_waves_go_first() {
    let (config, webhookish, secret) = (id("", "ConfigMap", "a"), id("", "Namespace", "b"), id("", "Secret", "c"));
    let owner = json!({"ownerReferences": [{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "c", "uid": "9", "controller": true}]});
    let mut scene = Scene::new(&[&config, &webhookish, &secret])
        .await
        .with(&config, ours(&config, &json!({})))
        .with(&secret, ours(&secret, &owner))
        .with_sealed("c", &json!({"uid": "9"}));
    let namespace = "/api/v1/namespaces/b";
    let body = ours(&webhookish, &json!({}));
    scene.server.answer(&format!("GET {namespace}"), 200, body);
    scene.server.answer(&format!("DELETE {namespace}"), 200, json!({}));
    scene.prune(&[&webhookish, &config, &secret]).await.unwrap();
    let deletions = scene.deletions();
    assert_eq!(deletions.len(), 3);
    assert_eq!(deletions[2], namespace, "what others live in goes last");
}

#[tokio::test]
async fn numbers_of_waves_count_before_kinds() {
    let [first, usual, last] = ["a", "b", "c"].map(|name| id("", "ConfigMap", name));
    let secret = id("", "Secret", "late");
    let mut scene = Scene::new(&[&first, &usual, &last, &secret]).await;
    for (id, number) in [(&first, -2), (&usual, 0), (&last, 3), (&secret, 3)] {
        scene = scene.with(id, ours(id, &json!({})));
        scene.inventory.set_wave(id, number);
    }
    scene.prune(&[&first, &usual, &last, &secret]).await.unwrap();
    assert_eq!(scene.deletions(), [&last, &secret, &usual, &first].map(path));
}

#[tokio::test]
async fn what_is_not_there_is_gone() {
    let id = id("", "ConfigMap", "a");
    let mut scene = Scene::new(&[&id]).await;
    let request = format!("GET {}", path(&id));
    scene.server.answer(&request, 404, status(404, "NotFound"));
    assert_eq!(scene.prune(&[&id]).await.unwrap(), std::slice::from_ref(&id));
    assert_eq!(scene.deletions(), Vec::<String>::new());
    assert!(!scene.is_tracked(&id));
}

#[tokio::test]
async fn what_was_applied_in_a_version_that_is_gone_is_pruned_in_another() {
    let gadget = id("example.com", "Gadget", "a");
    let mut scene = Scene::new(&[&gadget]).await;
    let versions = json!([{"groupVersion": "example.com/v2", "version": "v2"}]);
    let groups = json!([{"name": "example.com", "versions": versions}]);
    scene.server.answer("GET /apis", 200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}));
    let kind =
        json!({"kind": "Gadget", "name": "gadgets", "singularName": "", "namespaced": true, "verbs": ["delete"]});
    let kinds =
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "example.com/v2", "resources": [kind]});
    scene.server.answer("GET /apis/example.com/v2", 200, kinds);
    let path = "/apis/example.com/v2/namespaces/ns/gadgets/a";
    scene.server.answer(&format!("GET {path}"), 200, ours(&gadget, &json!({})));
    scene.server.answer(&format!("DELETE {path}"), 200, json!({"kind": "Status"}));
    assert_eq!(scene.prune(&[&gadget]).await.unwrap(), std::slice::from_ref(&gadget));
    assert_eq!(scene.deletions(), [path]);
}

#[tokio::test]
async fn a_kind_that_is_not_served_any_more_says_nothing_about_its_objects() {
    let known = id("", "ConfigMap", "a");
    // The kind was found before, but now the API server answers with a 404 without a reason.
    let mut scene = Scene::new(&[&known]).await;
    let resource = scene.client.discovery.find("", "v1", "ConfigMap").await;
    assert!(resource.is_ok());
    assert_eq!(scene.prune(&[&known]).await.unwrap(), []);
    assert!(scene.is_tracked(&known));

    let unknown = id("example.com", "Gadget", "a");
    let mut scene = Scene::new(&[&unknown]).await;
    assert_eq!(scene.prune(&[&unknown]).await.unwrap(), []);
    assert!(scene.is_tracked(&unknown));
    assert_eq!(scene.deletions(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_somebody_elses_or_asks_to_be_kept_is_let_go() {
    let id = id("", "ConfigMap", "a");
    let other_sync = json!({"labels": {crds::names::SYNC_NAME: "other", crds::names::SYNC_NAMESPACE: "team"}});
    let other_namespace = json!({"labels": {crds::names::SYNC_NAME: "apps", crds::names::SYNC_NAMESPACE: "shop"}});
    let no_labels = json!({"labels": {}});
    let kept = json!({"annotations": {crds::names::PRUNE: "disabled"}});
    for more in [other_sync, other_namespace, no_labels, kept] {
        let mut scene = Scene::new(&[&id]).await.with(&id, ours(&id, &more));
        assert_eq!(scene.prune(&[&id]).await.unwrap(), []);
        assert_eq!(scene.deletions(), Vec::<String>::new(), "{more}");
        assert!(!scene.is_tracked(&id));
    }
}

#[tokio::test]
async fn the_controllers_own_secrets_are_let_go() {
    let labels = |more: Value| {
        let mut labels = json!({crds::names::SYNC_NAME: "apps", crds::names::SYNC_NAMESPACE: "team"});
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"labels": labels})
    };
    let (none, key) = (json!({}), json!({crds::names::SEALING_KEY: "active"}));
    for (namespace, name, more, is_deleted) in [
        ("sealing", "gitseal-digest-key", &none, false),
        ("sealing", "sealed-secrets-key1", &none, false),
        ("sealing", "any", &key, false),
        ("sealing", "any", &json!({crds::names::OTHER_SEALING_KEY: "active"}), false),
        ("sealing", "any", &none, true),
        ("ns", "sealed-secrets-key1", &key, true),
    ] {
        let id = ObjectId { namespace: Some(namespace.into()), ..id("", "Secret", name) };
        let mut scene = Scene::new(&[&id]).await.with(&id, ours(&id, &labels(more.clone())));
        scene.prune(&[&id]).await.unwrap();
        assert_eq!(!scene.deletions().is_empty(), is_deleted, "{id} {more}");
        assert!(!scene.is_tracked(&id));
    }
}

#[tokio::test]
async fn an_unsealed_secret_without_an_owner_outlives_its_sealed_secret() {
    let (secret, sealed) = (id("", "Secret", "db"), id("bitnami.com", "SealedSecret", "db"));
    let owner = json!([{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "db", "uid": "9", "controller": true}]);
    let cases = [
        (json!({}), true, false),
        (json!({"annotations": {crds::names::SEALED_DIGEST: "d"}}), false, false),
        (json!({"annotations": {crds::names::PATCH: "true"}}), false, false),
        (json!({"ownerReferences": owner, "labels": {}}), true, true),
        // A Secret without values that was itself in Git, for example for a service account's token.
        (json!({}), false, true),
    ];
    for (more, is_derived, is_deleted) in cases {
        let mut scene = Scene::new(&[&secret]).await.with(&secret, ours(&secret, &more));
        scene = scene.with_sealed("db", &json!({"uid": "9"}));
        if is_derived {
            scene.inventory.widen(sealed.clone(), "v1alpha1");
        }
        scene.prune(&[&secret]).await.unwrap();
        let deleted = scene.deletions();
        assert_eq!(!deleted.is_empty(), is_deleted, "{more} {is_derived}");
        assert!(!scene.is_tracked(&secret));
    }
}

#[tokio::test]
async fn a_secret_belongs_to_whoever_has_its_sealed_secret() {
    let (secret, sealed) = (id("", "Secret", "db"), id("bitnami.com", "SealedSecret", "db"));
    let owner = json!([{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "db", "uid": "9", "controller": true}]);
    let theirs = json!({crds::names::SYNC_NAME: "other", crds::names::SYNC_NAMESPACE: "team"});
    for (more, is_deleted, case) in [
        (json!({"uid": "9"}), true, "ours"),
        (json!({"uid": "9", "labels": theirs}), false, "another Sync has it by now"),
        (json!({"uid": "10"}), false, "made anew since"),
    ] {
        // The labels of the SealedSecret say which Sync has the Secret. The Secret's own labels do not count.
        let secret_of = ours(&secret, &json!({"ownerReferences": owner}));
        let mut scene = Scene::new(&[&secret]).await.with(&secret, secret_of).with_sealed("db", &more);
        scene.inventory.widen(sealed.clone(), "v1alpha1");
        scene.prune(&[&secret]).await.unwrap();
        assert_eq!(!scene.deletions().is_empty(), is_deleted, "{case}");
        assert!(!scene.is_tracked(&secret), "{case}");
    }
}

#[tokio::test]
async fn one_that_cannot_be_deleted_stays_tracked_and_holds_up_no_other() {
    let names = ["a", "b", "c"];
    let [a, b, c] = names.map(|name| id("", "ConfigMap", name));
    let mut scene = Scene::new(&[&a, &b, &c])
        .await
        .with(&a, ours(&a, &json!({})))
        .with(&b, ours(&b, &json!({})))
        .with(&c, ours(&c, &json!({})));
    let forbidden = status(403, "Forbidden");
    scene.server.answer(&format!("DELETE {}", path(&a)), 403, forbidden.clone());
    scene.server.answer(&format!("GET {}", path(&c)), 403, forbidden);
    let error = scene.prune(&[&a, &b, &c]).await.unwrap_err();
    assert_eq!(error.reason(), "Forbidden");
    let message = error.to_string();
    assert!(message.contains("ConfigMap ns/a") && message.contains("1 more"), "{message}");
    assert!(message.contains("the right to delete it, or keep it"), "{message}");
    let tracked = [&a, &b, &c].map(|id| scene.is_tracked(id));
    assert_eq!(tracked, [true, false, true]);
}

#[tokio::test]
async fn objects_of_one_wave_go_concurrently() {
    let names = ["a", "b", "c", "d"];
    let ids = names.map(|name| id("", "ConfigMap", name));
    let mut scene = Scene::new(&ids.each_ref()).await;
    for id in &ids {
        scene = scene.with(id, ours(id, &json!({})));
    }
    // The server answers the deletions only when all of them have arrived, so the test ends only if they are
    // concurrent.
    scene.server.gather("DELETE ", names.len());
    let pruned = tokio::time::timeout(std::time::Duration::from_secs(60), scene.prune(&ids.each_ref())).await;
    assert_eq!(pruned.expect("they go one after the other").unwrap().len(), names.len());
}

#[tokio::test]
async fn what_was_handed_over_between_the_look_and_the_delete_is_let_go() {
    let id = id("", "ConfigMap", "a");
    let mut scene = Scene::new(&[&id]).await.with(&id, ours(&id, &json!({"resourceVersion": "7"})));
    let theirs = json!({
        "resourceVersion": "8", "labels": {crds::names::SYNC_NAME: "other", crds::names::SYNC_NAMESPACE: "team"},
    });
    let (get, delete) = (format!("GET {}", path(&id)), format!("DELETE {}", path(&id)));
    scene.server.answer(&delete, 409, status(409, "Conflict"));
    scene.server.answer_after(&delete, &get, 200, ours(&id, &theirs));
    assert_eq!(scene.prune(&[&id]).await.unwrap(), []);
    assert_eq!(scene.deletions().len(), 1);
    let body: Value = serde_json::from_str(&scene.server.bodies(&delete)[0]).unwrap();
    assert_eq!(body["preconditions"], json!({"uid": "1-2-3", "resourceVersion": "7"}));
    assert!(!scene.is_tracked(&id));
}

#[tokio::test]
async fn what_others_keep_writing_to_is_left_to_the_next_try() {
    let id = id("", "ConfigMap", "a");
    let mut scene = Scene::new(&[&id]).await.with(&id, ours(&id, &json!({})));
    scene.server.answer(&format!("DELETE {}", path(&id)), 409, status(409, "Conflict"));
    let error = scene.prune(&[&id]).await.unwrap_err();
    assert!(error.is_transient() && error.reason() == "PruneFailed", "{error}");
    assert!(scene.is_tracked(&id));
}

#[tokio::test]
async fn a_sync_with_hooks_for_its_deletion_is_waited_for_as_long_as_they_run() {
    let sync = id("gitseal.dev", "Sync", "child");
    let long_ago = json!({"deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": [crds::names::FINALIZER]});
    for (reason, waits) in [("DeleteHooksRunning", true), ("DeleteHookFailed", true), ("PruneFailed", false)] {
        let mut scene = Scene::new(&[&sync]).await;
        let group = json!([{"name": "gitseal.dev", "versions": [{"groupVersion": "gitseal.dev/v1", "version": "v1"}]}]);
        scene.server.answer("GET /apis", 200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": group}));
        let kind =
            json!({"kind": "Sync", "name": "syncs", "singularName": "", "namespaced": true, "verbs": ["delete"]});
        let kinds = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "gitseal.dev/v1", "resources": [kind]});
        scene.server.answer("GET /apis/gitseal.dev/v1", 200, kinds);
        let path = "/apis/gitseal.dev/v1/namespaces/ns/syncs/child";
        let mut object = ours(&sync, &long_ago);
        object["status"] = json!({"conditions": [{"type": "Ready", "status": "Unknown", "reason": reason}]});
        scene.server.answer(&format!("GET {path}"), 200, object);
        scene.server.answer(&format!("DELETE {path}"), 200, json!({"kind": "Status"}));
        let pruned = scene.prune(&[&sync]).await;
        assert_eq!(matches!(pruned, Err(PruneError::Waits(_))), waits, "{reason}");
        assert_eq!(scene.is_tracked(&sync), waits, "{reason}");
    }
}
