//! Tests that the error of every stage says rightly whether another try may help. A failure that is tried again by
//! itself must never be reported as Stalled; a failure that needs somebody's help must be.

use std::sync::Arc;

use crds::{ConditionStatus, ObjectKey, Sync, conditions, find_condition};
use gitstore::SnapshotError;
use manifests::{Limits, Location, ObjectId};
use pipeline::{
    Failure, Held, NotManifests, Unmanaged,
    guard::{NotAllowed, guard},
    health::HealthError,
    plan::{PlanError, TooLate},
    render::NotRendered,
    replacement::NotReplaced,
};
use serde_json::json;
use unsealing::UnsealError;

use super::{
    allow::AllowError,
    apply::{ApplyError, Because, Refused},
    assess::ExpressionError,
    carry_out::{WidenError, held_failure},
    dependencies::DependencyError,
    finalize::GoesWithError,
    inputs::InputError,
    overtaken::Overtaken,
    prepare::KindError,
    prune::PruneError,
    report::progress_of,
    source::SourceError,
};
use crate::{
    cluster::{ApiError, DiscoveryError, WatchError},
    render::RenderError,
    status::{Progress, set_progress},
};

/// A table of errors, with one line for each variant of an enum. If the line for a new variant is missing, the table
/// does not compile.
macro_rules! table {
    ($($variant:pat => $sample:expr, $terminal:literal;)*) => {{
        let is_in_the_table = |error: &_| match error { $($variant => {})* };
        let mut table = Vec::new();
        $(
            let error = $sample;
            is_in_the_table(&error);
            let said = format!("{error:?}");
            table.push((said, Failure::from(error), $terminal));
        )*
        table
    }};
}

fn id() -> ObjectId {
    ObjectId { group: String::new(), kind: "ConfigMap".into(), namespace: Some("a".into()), name: "b".into() }
}

fn key() -> ObjectKey {
    ObjectKey::new("a", "b")
}

fn origin() -> Location {
    Location { file: Arc::from("a.yaml"), line: 1 }
}

fn refused_with(code: u16) -> ApiError {
    ApiError::Refused { code, reason: "Invalid".into(), message: "no".into() }
}

fn unknown_kind() -> DiscoveryError {
    DiscoveryError::UnknownKind { api_version: "v1".into(), kind: "A".into() }
}

fn not_started() -> WatchError {
    WatchError::NotStarted { group: String::new(), kind: "A".into() }
}

fn plaintext() -> NotAllowed {
    let text = b"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: b}\n";
    let manifests = manifests::parse("a.yaml", text, &Limits::default()).expect("it is one");
    let spec = json!({"repository": {"name": "repo"}, "path": "./app"});
    let sync = Sync::new("a", serde_json::from_value(spec).expect("it is one"));
    guard(&sync, &manifests).expect_err("it is a Secret")
}

fn not_manifests() -> NotManifests {
    NotManifests::new(manifests::parse("a.yaml", b"kind: [", &Limits::default()).expect_err("it is none"))
}

fn not_rendered(is_terminal: bool) -> RenderError {
    let why = NotRendered { tool: "Helm", reason: "RenderFailed", message: "no".into(), is_terminal };
    RenderError::NotRendered { folder: "a".into(), why }
}

fn is_reported(said: &str, failure: &Failure, terminal: bool) {
    assert_eq!(failure.terminal, terminal, "{said}");
    let progress = progress_of(failure);
    assert_eq!(progress == Progress::Stalled, terminal, "{said}");
    let mut all = Vec::new();
    set_progress(&mut all, progress, failure.reason, &failure.message, Some(1));
    let is = |type_: &str| find_condition(&all, type_).map(|condition| condition.status);
    assert_eq!(is(conditions::STALLED), terminal.then_some(ConditionStatus::True), "{said}");
    assert_eq!(is(conditions::RECONCILING), (!terminal).then_some(ConditionStatus::True), "{said}");
    assert_eq!(is(conditions::READY), Some(ConditionStatus::False), "{said}");
}

#[test]
fn what_is_tried_again_is_never_stalled() {
    let mut all = table! {
        SourceError::CrossNamespace(_) => SourceError::CrossNamespace(key()), true;
        SourceError::NoRepository { .. } => SourceError::NoRepository { repository: key(), field: "a".into() }, true;
        SourceError::NoFile { .. } => SourceError::NoFile { file: "a".into(), revision: "b".into(), field: "c".into() }, true;
        SourceError::Unread => SourceError::Unread, false;
        SourceError::Cluster(_) => SourceError::Cluster(Arc::new(InputError::TooLarge("a".into()))), true;
        SourceError::Values(_) => SourceError::Values(Box::new(SourceError::NotFetched(key()))), false;
        SourceError::Pending(_) => SourceError::Pending(key()), false;
        SourceError::Slow(_) => SourceError::Slow(key()), false;
        SourceError::NotFetched(_) => SourceError::NotFetched(key()), false;
        SourceError::Unsupported(_) => SourceError::Unsupported("a"), true;
        SourceError::Path { terminal: true, .. } => SourceError::of_folder(&SnapshotError::PathRefused("a".into())), true;
        SourceError::Path { terminal: false, .. } => SourceError::of_folder(&SnapshotError::Corrupt("a".into())), false;
    };
    let (map, field) = (|| "a".to_owned(), || "b".to_owned());
    all.extend(table! {
        InputError::NoMap { .. } => InputError::NoMap { map: map(), field: field() }, true;
        InputError::NoKey { .. } => InputError::NoKey { place: map(), there_is: "c".into(), field: field() }, true;
        InputError::OwnSecret { .. } => InputError::OwnSecret { secret: map(), field: field() }, true;
        InputError::TokenSecret { .. } => InputError::TokenSecret { secret: map(), field: field(), type_: String::new() }, true;
        InputError::TooLarge(_) => InputError::TooLarge(map()), true;
        InputError::NoRoom { .. } => InputError::NoRoom { what: map(), most: 1 }, false;
        InputError::TooMany { .. } => InputError::TooMany { what: map(), field: field(), who: String::new(), remedy: "name one" }, true;
        InputError::Secret { .. } => InputError::Secret { what: map(), field: field() }, true;
        InputError::NoKind { .. } => InputError::NoKind { what: map(), field: field() }, false;
        InputError::Forbidden { .. } => InputError::Forbidden { what: map(), field: field(), verb: "get", source: ApiError::Busy }, false;
        InputError::NotRead { .. } => InputError::NotRead { what: map(), field: field(), source: ApiError::Busy }, false;
    });
    all.extend(table! {
        DependencyError::Missing(_) => DependencyError::Missing(key()), false;
        DependencyError::NotReady(_) => DependencyError::NotReady(key()), false;
        DependencyError::Outdated(_) => DependencyError::Outdated(key()), false;
        DependencyError::Suspended(_) => DependencyError::Suspended(key()), false;
        DependencyError::Cycle(_) => DependencyError::Cycle(Vec::new()), true;
        DependencyError::CrossNamespace(_) => DependencyError::CrossNamespace(key()), true;
        DependencyError::Secret(_) => DependencyError::Secret("a".into()), true;
        DependencyError::NoKind(_) => DependencyError::NoKind(Box::default()), false;
        DependencyError::NoObject(_) => DependencyError::NoObject(Box::new(id())), false;
        DependencyError::Unhealthy { .. } => DependencyError::Unhealthy { id: Box::new(id()), why: "a".into() }, false;
        DependencyError::Failed { .. } => DependencyError::Failed { id: Box::new(id()), why: "a".into() }, false;
        DependencyError::Forbidden { .. } => DependencyError::Forbidden { id: Box::new(id()), source: Box::new(ApiError::Busy) }, false;
        DependencyError::NotRead { .. } => DependencyError::NotRead { id: Box::new(id()), source: Box::new(ApiError::Busy) }, false;
    });
    all.extend(table! {
        ExpressionError::Wrong(_) => ExpressionError::Wrong("a".into()), true;
        ExpressionError::NotChecked(_) => ExpressionError::NotChecked("a".into()), false;
    });
    all.extend(table! {
        RenderError::Files(SnapshotError::NotStored(_)) => RenderError::Files(SnapshotError::NotStored("a".into())), false;
        RenderError::Files(SnapshotError::Corrupt(_)) => RenderError::Files(SnapshotError::Corrupt("a".into())), false;
        RenderError::Files(_) => RenderError::Files(SnapshotError::Symlink("a".into())), true;
        RenderError::Parse(_) => RenderError::Parse(not_manifests()), true;
        RenderError::NotRendered { why: NotRendered { is_terminal: true, .. }, .. } => not_rendered(true), true;
        RenderError::NotRendered { .. } => not_rendered(false), false;
        RenderError::TooMuchMemory { .. } => RenderError::TooMuchMemory { path: "a".into(), most: 1 }, true;
        RenderError::NoMemoryNow => RenderError::NoMemoryNow, false;
        RenderError::Died { .. } => RenderError::Died { revision: "a".into(), times: 1 }, false;
        RenderError::Nothing { .. } => RenderError::Nothing { path: "a".into(), inventory: 1 }, true;
        RenderError::Interrupted(_) => RenderError::Interrupted("a".into()), false;
        RenderError::Capabilities(_) => RenderError::Capabilities(ApiError::Transport("a".into())), false;
    });
    all.extend(table! { NotAllowed { .. } => plaintext(), true; });
    all.extend(table! {
        KindError::Discovery { .. } => KindError::Discovery { origin: origin(), id: id(), source: unknown_kind() }, false;
        KindError::Watch(_) => KindError::Watch(not_started()), false;
        KindError::NotRead { .. } => KindError::NotRead { origin: origin(), id: id(), source: ApiError::Transport("a".into()) }, false;
    });
    let unknown = || PlanError::UnknownKind {
        origin: origin(),
        id: Box::new(id()),
        api_version: "v1".into(),
        instead: Vec::new(),
    };
    let too_late = || TooLate { origin: origin(), id: id(), number: 1, needed: id(), needed_origin: origin(), late: 2 };
    all.extend(table! {
        PlanError::UnknownKind { .. } => unknown(), false;
        PlanError::TooLate(_) => PlanError::TooLate(Box::new(too_late())), true;
    });
    all.extend(table! { AllowError(_) => AllowError(refused_with(403)), false; });
    all.extend(table! {
        WidenError::NotStored(_) => WidenError::NotStored(refused_with(500)), false;
        WidenError::TooLarge { .. } => WidenError::TooLarge { objects: 2, left: 1, bytes: 2, most: 1 }, true;
    });
    let refused =
        |because| ApplyError::Refused { refused: vec![Refused { origin: origin(), id: id(), because }], later: 0 };
    all.extend(table! {
        ApplyError::Refused { .. } => refused(Because::Api(refused_with(422))), false;
        ApplyError::Watch(_) => ApplyError::Watch(not_started()), false;
        ApplyError::Discovery(_) => ApplyError::Discovery(unknown_kind()), false;
        ApplyError::Overtaken(_) => ApplyError::Overtaken(Overtaken), false;
    });
    let failed = || PruneError::Failed { id: id(), source: refused_with(403), more: 0, transient: false };
    all.extend(table! {
        PruneError::Failed { .. } => failed(), false;
        PruneError::Waits(_) => PruneError::Waits(id()), false;
    });
    all.extend(table! { GoesWithError(_) => GoesWithError(refused_with(403)), false; });
    let timed_out = || HealthError::TimedOut {
        origin: None,
        id: id(),
        why: "a".into(),
        after: "5m".into(),
        more: 0,
        is_test: false,
    };
    all.extend(table! {
        HealthError::Failed { .. } => HealthError::Failed { origin: None, id: id(), why: "a".into(), more: 0, is_test: false }, true;
        HealthError::TimedOut { .. } => timed_out(), true;
    });
    for (said, failure, terminal) in all {
        is_reported(&said, &failure, terminal);
    }
}

/// The causes that hold a single object back, and for each whether the Sync is Stalled if there is no other cause.
fn causes() -> Vec<(Because, bool)> {
    let all = vec![
        (Because::Api(refused_with(422)), false),
        (Because::Unmanaged(Unmanaged::of(&id())), false),
        (Because::NotAllowed("a".into()), false),
        (Because::ControllersOwn, false),
        (Because::NotAccepted, false),
        (Because::Altered("a".into()), false),
        (Because::from(UnsealError::TwoForms), true),
        (Because::from(UnsealError::Interrupted), false),
        (Because::NotTakenOver(refused_with(403)), false),
        (Because::NotReplaceable(NotReplaced::NotAllowed("a".into())), false),
        (Because::NotReplaced("a".into(), refused_with(422)), false),
        (Because::NotDeleted("a".into(), refused_with(403)), false),
        (Because::Going(Vec::new()), false),
        (Because::Terminating(Vec::new()), false),
        (Because::TerminatingNamespace("a".into()), false),
        (Because::NamespaceGoes("a".into()), false),
        (Because::NoNamespace("a".into()), false),
        (Because::NotEstablished, false),
        (Because::Unasked(refused_with(403)), false),
        (Because::Overtaken(Overtaken), false),
    ];
    for (because, _) in &all {
        // This match does not compile if a new cause is missing here. A new cause belongs into the table above.
        match because {
            Because::Api(_)
            | Because::Unmanaged(_)
            | Because::NotAllowed(_)
            | Because::ControllersOwn
            | Because::NotAccepted
            | Because::Altered(_)
            | Because::Unseal { .. }
            | Because::NotTakenOver(_)
            | Because::NotReplaceable(_)
            | Because::NotReplaced(..)
            | Because::NotDeleted(..)
            | Because::Going(_)
            | Because::Terminating(_)
            | Because::TerminatingNamespace(_)
            | Because::NamespaceGoes(_)
            | Because::NoNamespace(_)
            | Because::NotEstablished
            | Because::Unasked(_)
            | Because::Overtaken(_) => {}
        }
    }
    all
}

#[test]
fn one_object_that_may_be_tried_again_is_enough() {
    let held = |because: &Because| Held {
        id: id(),
        origin: origin(),
        because: because.to_string(),
        cause: Some(because.cause()),
    };
    let of = |held: &[Held]| held_failure(held, None).expect("something is held back");
    let all = causes();
    for (because, terminal) in &all {
        is_reported(&format!("{because:?}"), &of(&[held(because)]), *terminal);
        for (other, also) in &all {
            let said = format!("{because:?} and {other:?}");
            is_reported(&said, &of(&[held(because), held(other)]), *terminal && *also);
        }
    }
}
