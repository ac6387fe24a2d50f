use serde_json::json;

use super::*;

#[test]
fn a_hidden_file_is_named_with_the_rule_that_takes_it_back() {
    let stays = |folder: &str, file: &str| stays_in_hidden_file(folder, &Location { file: file.into(), line: 3 });
    let told = stays("apps/.deploy", "apps/.deploy/web/.k8s/.more/a.yaml");
    assert!(told.starts_with("it is in apps/.deploy/web/.k8s/.more/a.yaml:3, and hidden"), "{told}");
    assert!(told.contains("list !.k8s/ in .gitsealignore"), "{told}");
    let told = stays("", ".a.yaml");
    assert!(told.contains("list !.a.yaml in .gitsealignore"), "{told}");
}
use crate::fixtures::{config_maps, id, inventory, sync};

const REVISION: &str = "main@sha1:0123456789abcdef0123456789abcdef01234567";

#[test]
fn a_prune_limit_is_a_count_or_a_percentage() {
    let cases = [
        ("0", 100, 0),
        ("0%", 100, 0),
        ("00%", 100, 0),
        ("7", 100, 7),
        ("7", 3, 7),
        ("50%", 100, 50),
        ("50%", 3, 2),
        ("50%", 1, 1),
        ("1%", 3, 1),
        ("1%", 101, 2),
        ("100%", 3, 3),
        ("50%", 0, 1),
        ("nonsense", 100, 0),
        ("x%", 100, 0),
        ("%", 100, 0),
        ("", 100, 0),
        ("100%", usize::MAX, usize::MAX / 100 + 1),
    ];
    for (limit, total, allowed) in cases {
        assert_eq!(prune_allowance(limit, total), allowed, "{limit} of {total}");
    }
}

#[test]
fn a_prune_beyond_the_limit_waits_and_says_how_to_go_on() {
    let all = config_maps(10);
    let current = inventory(&all);
    let prune = |count: usize| all[..count].iter().cloned().collect();
    let sync = sync(json!({"pruneLimit": "50%"}));
    let waits = |count| large_prune(&sync, (0, REVISION, all[count..].iter()), &current, None, &prune(count));
    assert_eq!(waits(0), None);
    assert_eq!(waits(5), None);
    let LargePrune { message, confirmation, .. } = waits(6).unwrap();
    assert!(confirmation.starts_with(&format!("{REVISION}+")), "{confirmation}");
    for part in [REVISION, "6 of 10", "50%", &format!("gitseal sync -n team apps --confirm-prune {confirmation} ")] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_was_created_since_does_not_make_a_prune_smaller() {
    let all = config_maps(8);
    let current = inventory(&all);
    let prune = all[..4].iter().cloned().collect();
    let sync = sync(json!({"pruneLimit": "50%"}));
    let waits = |applied| {
        let waits = large_prune(&sync, (0, REVISION, all[4..].iter()), &current, applied, &prune);
        waits.map(|prune| prune.message)
    };
    assert_eq!(waits(None), None);
    assert_eq!(waits(Some(8)), None);
    let message = waits(Some(4)).unwrap();
    assert!(message.contains("4 of 4"), "{message}");
    assert!(waits(Some(0)).is_some_and(|message| message.contains("4 of 4")));
}

#[test]
fn what_was_done_and_deleted_does_not_make_a_prune_smaller() {
    let all = config_maps(8);
    let (mut current, sync) = (inventory(&all), sync(json!({"pruneLimit": "50%"})));
    let prune: BTreeSet<_> = all[..4].iter().cloned().collect();
    let exceeds =
        |current: &Inventory| exceeds_limit(&sync, current, Some(8), &prune).map(|many| (many.count, many.all));
    assert_eq!(exceeds(&current), None);
    current.set_deletion(&all[7], Some(crds::Deletion::Done));
    assert_eq!(exceeds(&current), None, "50% of 7 objects are rounded up");
    current.set_deletion(&all[6], Some(crds::Deletion::Done));
    assert_eq!(exceeds(&current), Some((4, 6)));
}

#[test]
fn only_the_confirmation_of_this_very_prune_counts() {
    let all = config_maps(4);
    let mut sync = sync(json!({"pruneLimit": "0"}));
    sync.metadata.generation = Some(3);
    let after = |confirmed: i64, sync: &Sync, revision: &str, goes: usize, deleted: usize| {
        let (current, prune) = (inventory(&all[deleted..]), all[deleted..goes].iter().cloned().collect());
        let prune = large_prune(sync, (confirmed, revision, all[goes..].iter()), &current, None, &prune).unwrap();
        (!prune.is_confirmed).then_some(prune.confirmation)
    };
    let waits = |sync: &Sync, revision: &str, goes, deleted| after(0, sync, revision, goes, deleted);
    let confirmation = waits(&sync, REVISION, 3, 0).unwrap();
    for confirmed in [REVISION, "main@sha1:ffff", "true", "", &confirmation] {
        let annotations = [(crds::names::CONFIRM_PRUNE.to_owned(), confirmed.to_owned())];
        sync.metadata.annotations = Some(annotations.into());
        assert_eq!(waits(&sync, REVISION, 3, 0).is_some(), confirmed != confirmation, "{confirmed}");
    }
    assert_eq!(waits(&sync, REVISION, 3, 2), None, "it goes on after a part was deleted");
    assert!(waits(&sync, "main@sha1:ffff", 3, 0).is_some(), "another revision");
    assert!(waits(&sync, REVISION, 2, 0).is_some(), "another prune of the same revision");
    assert!(after(1, &sync, REVISION, 3, 0).is_some(), "the confirmed prune is done");
    sync.metadata.generation = Some(4);
    assert!(waits(&sync, REVISION, 3, 0).is_some(), "the Sync was edited");
}

#[test]
fn a_sealed_secret_and_its_secret_are_one_object_to_prune() {
    let sealed = |name: &str| id("bitnami.com", "SealedSecret", name);
    let secret = |name: &str| id("", "Secret", name);
    let current = inventory(&[sealed("a"), secret("a"), sealed("b"), secret("b")]);
    let sync = sync(json!({"pruneLimit": "1"}));
    let one = BTreeSet::from([sealed("a"), secret("a")]);
    let nothing = || (0, REVISION, std::iter::empty());
    assert_eq!(large_prune(&sync, nothing(), &current, None, &one), None);
    let two = BTreeSet::from([sealed("a"), secret("a"), sealed("b"), secret("b")]);
    let LargePrune { message, .. } = large_prune(&sync, nothing(), &current, None, &two).unwrap();
    assert!(message.contains("2 of 2 objects, "), "{message}");
    let (only, mut none) = (inventory(&[sealed("a"), secret("a")]), sync);
    none.spec.prune_limit = "0".into();
    let LargePrune { message, .. } = large_prune(&none, nothing(), &only, None, &one).unwrap();
    assert!(message.contains("1 of 1 object, "), "{message}");
}

/// The labels of an object name a Sync. The object counts as belonging to this Sync only if a prune of this Sync would
/// delete the object.
#[test]
fn labels_count_where_a_prune_would_take_the_object() {
    let own = ObjectKey::new("team", "apps");
    let labels = json!({crds::names::SYNC_NAME: "apps", crds::names::SYNC_NAMESPACE: "team"});
    let owner = json!([{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "a", "uid": "1"}]);
    let fields = json!([{"manager": "gitseal", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}}}}]);
    let meta = |more: serde_json::Value| -> ObjectMeta {
        let mut meta = json!({"name": "a", "labels": labels, "managedFields": fields});
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(meta).unwrap()
    };
    let digest = json!({crds::names::SEALED_DIGEST: "x"});
    let (secret, config_map) = (id("", "Secret", "a"), id("", "ConfigMap", "a"));
    for (id, more, expected) in [
        (&secret, json!({}), Ok(())),
        (&secret, json!({"annotations": {crds::names::PRUNE: "disabled"}}), Err(Stays::AsksToBeKept)),
        (&config_map, json!({"annotations": {crds::names::PRUNE: "disabled"}}), Err(Stays::AsksToBeKept)),
        (&secret, json!({"annotations": {crds::names::PRUNE: "enabled"}}), Ok(())),
        (&secret, json!({"annotations": digest}), Err(Stays::Outlives)),
        (&secret, json!({"annotations": {crds::names::PATCH: "true"}}), Err(Stays::Outlives)),
        (&secret, json!({"annotations": digest, "ownerReferences": owner}), Ok(())),
        // Only Secrets are made by unsealing. The annotation has no effect on other kinds.
        (&config_map, json!({"annotations": digest}), Ok(())),
        (&secret, json!({"labels": {}}), Err(Stays::NotOurs)),
        (&secret, json!({"labels": {crds::names::SYNC_NAME: "apps"}}), Err(Stays::NotOurs)),
    ] {
        let meta = meta(more.clone());
        assert_eq!(verdict(&own, id, &meta, false, None), expected, "{id}: {more}");
        assert_eq!(said_by(id, &meta), expected.ok().map(|()| own.clone()), "{id}: {more}");
    }
    for more in [json!({"managedFields": []}), json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})] {
        assert_eq!(said_by(&secret, &meta(more.clone())), None, "{more}");
    }
    assert_eq!(verdict(&own, &secret, &meta(json!({})), true, None), Err(Stays::Outlives), "made from a SealedSecret");

    // A Secret that a SealedSecret owns belongs to the Sync of the SealedSecret. The Secret's own labels do not count.
    let controlled = json!([{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "a", "uid": "1", "controller": true}]);
    let made = meta(json!({"ownerReferences": controlled, "labels": {}}));
    let sealed = |uid: &str, labels: &serde_json::Value| -> ObjectMeta {
        serde_json::from_value(json!({"name": "a", "uid": uid, "labels": labels})).unwrap()
    };
    assert_eq!(said_by(&secret, &made), None);
    for (sealed, expected) in [
        (Some(sealed("1", &labels)), Ok(())),
        (Some(sealed("2", &labels)), Err(Stays::NotOurs)),
        (Some(sealed("1", &json!({}))), Err(Stays::NotOurs)),
        (None, Err(Stays::NotOurs)),
    ] {
        assert_eq!(verdict(&own, &secret, &made, true, sealed.as_ref()), expected, "{sealed:?}");
    }
}
