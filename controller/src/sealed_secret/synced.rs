//! Writes the status of a SealedSecret, whose only condition is `Synced`. At every moment, this condition must agree
//! with the Secret.
//!
//! | the Secret | `Synced` |
//! | --- | --- |
//! | was made from this input, and nobody changed it | True |
//! | could not be made, or belongs to somebody else | False, with the reason |
//! | was changed or deleted after it was Synced, and is not put back yet | Unknown |

use std::sync::{Arc, PoisonError};

use crds::{ConditionStatus, ObjectKey, SealedSecret, SealedSecretCondition, SealedSecretStatus, conditions};
use manifests::{ObjectId, in_one_line};

use super::{FIRST_RETRY, digest, instance, is_current, secret_id};
use crate::{
    context::{Context, InStore as _},
    events::EventType,
    metrics::UnsealFailure,
    status::{self, reference},
    sync::Applied,
};

/// How long, at most, the write of a status is put off while other SealedSecrets are unsealed.
const SECRETS_FIRST: std::time::Duration = std::time::Duration::from_secs(5);

/// Updates the condition `Synced` of the SealedSecret `key`.
pub(crate) async fn report(ctx: Arc<Context>, key: ObjectKey) {
    // Workloads wait for Secrets, and nobody waits for a status. So while many SealedSecrets have to be unsealed,
    // statuses are written later.
    let is_late = tokio::time::timeout(SECRETS_FIRST, ctx.queues.sealed_secrets.drained()).await.is_err();
    let Some(sealed) = ctx.sealed_secrets.get(&key.to_ref()) else {
        return;
    };
    if sealed.metadata.deletion_timestamp.is_some() {
        return;
    }
    let Some((status, message)) = synced(&ctx, &sealed, &key, is_late) else { return };
    if ctx.unsealed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key) {
        ctx.events.publish(&reference(&*sealed), EventType::Normal, "Unsealed", "SealedSecret unsealed successfully");
    }
    if !ctx.unsealing.metrics_omit_secret_labels {
        let of = instance(&sealed);
        ctx.metrics.sealed_secret_condition(&key.namespace, &key.name, of, conditions::SYNCED, status);
        // The watch may have shown in the meantime that the SealedSecret is gone or has another label. It could not
        // remove this metric, which was set only now, so the metric is removed here.
        if ctx.sealed_secrets.get(&key.to_ref()).is_none_or(|now| instance(&now) != of) {
            ctx.metrics.forget_sealed_secret(&key.namespace, &key.name, of, conditions::SYNCED);
        }
    }
    if !ctx.unsealing.update_status {
        return;
    }
    let old = sealed.status.clone().unwrap_or_default();
    let mut new = with_synced(&old, sealed.metadata.generation, status, message);
    new.made_from = ctx.marks.to_tell(&key, old.made_from.as_deref(), new != old);
    let Err(error) = status::replace(&ctx.api, &sealed, &key, &new).await else {
        return ctx.marks.is_told(&key, new.made_from.as_deref());
    };
    // After a conflict, the watch will show the changed SealedSecret in a moment, so this is not a failure.
    if !error.is_conflict() {
        tracing::warn!(sealed_secret = %key, %error, "the status could not be written");
        ctx.metrics.unseal_error(UnsealFailure::Status, &key.namespace);
    }
    ctx.queues.sealed_statuses.add_after(key, FIRST_RETRY);
}

/// Puts each SealedSecret that a Sync applied into the queue for statuses, so that its status says what became of its
/// Secret. Failures are counted for `namespace`, the Sync's own, because the namespace of a SealedSecret comes from Git
/// and may not even exist.
pub(crate) fn tell(ctx: &Context, applied: &Applied, namespace: &str) {
    let key_of = |secret: &ObjectId| ObjectKey::new(secret.namespace.as_deref().unwrap_or_default(), &secret.name);
    for (secret, _) in &applied.secrets {
        let key = key_of(secret);
        ctx.failing_secrets.forget(&key);
        ctx.queues.sealed_statuses.add(key);
    }
    for (secret, digest, because) in &applied.refused_secrets {
        let key = key_of(secret);
        let failure = because.metric();
        ctx.metrics.unseal_error(failure, namespace);
        if let Some(sealed) = ctx.sealed_secrets.get(&key.to_ref()) {
            let note = failure.event_note(because);
            ctx.events.publish(&reference(&*sealed), EventType::Warning, failure.event_reason(), note);
        }
        ctx.failing_secrets.note(&key, digest, because.to_string());
        ctx.queues.sealed_statuses.add(key);
    }
}

/// Whether the status says that the current generation of the SealedSecret was unsealed, now or earlier: its Secret may
/// have been changed or deleted since.
pub(super) fn was_synced(sealed: &SealedSecret) -> bool {
    told(sealed).is_some_and(|status| status != ConditionStatus::False)
}

/// Whether the status says that the current generation of the SealedSecret has its Secret.
pub(super) fn is_synced(sealed: &SealedSecret) -> bool {
    told(sealed) == Some(ConditionStatus::True)
}

/// The status of the condition `Synced`, if the condition is about the current generation of the SealedSecret.
fn told(sealed: &SealedSecret) -> Option<ConditionStatus> {
    let status = sealed.status.as_ref()?;
    let is_observed = status.observed_generation == sealed.metadata.generation;
    status.condition(conditions::SYNCED).filter(|_| is_observed).map(|synced| synced.status)
}

/// What the status should say. `None` if this is not known yet: before the first try to make the Secret, during a
/// write, or while a Sync holds the SealedSecret back and says why itself. `is_late` means that the new status has
/// waited for so long that the stored one may be wrong.
fn synced(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey, is_late: bool) -> Option<(ConditionStatus, String)> {
    if let Some(message) = ctx.failing_secrets.message(key, &digest(ctx, sealed, key)) {
        Some((ConditionStatus::False, message))
    } else if is_current(ctx, sealed, key) {
        Some((ConditionStatus::True, String::new()))
    } else if !is_late && ctx.cluster.live.is_being_written(&secret_id(key)) {
        None
    } else if was_synced(sealed) {
        let message = "the Secret was changed or deleted by somebody else; the controller puts it back in a moment";
        Some((ConditionStatus::Unknown, message.into()))
    } else {
        None
    }
}

/// `old` with this condition `Synced`, whose message is made one line. If `old` already says the same, the result is
/// `old`.
fn with_synced(
    old: &SealedSecretStatus,
    generation: Option<i64>,
    status: ConditionStatus,
    message: String,
) -> SealedSecretStatus {
    let message = in_one_line(&message).into_owned();
    let before = old.condition(conditions::SYNCED);
    if old.observed_generation == generation
        && before.is_some_and(|before| before.status == status && before.message == message)
    {
        return old.clone();
    }
    let now = status::now();
    let since = before.filter(|before| before.status == status).and_then(|before| before.last_transition_time.clone());
    let condition = SealedSecretCondition {
        type_: conditions::SYNCED.into(),
        status,
        last_update_time: Some(now.clone()),
        last_transition_time: Some(since.unwrap_or(now)),
        reason: String::new(),
        message,
    };
    let mut new = SealedSecretStatus { observed_generation: generation, ..old.clone() };
    match new.conditions.iter_mut().find(|condition| condition.type_ == conditions::SYNCED) {
        Some(old) => *old = condition,
        None => new.conditions.push(condition),
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mut status: SealedSecretStatus, time: &str) -> SealedSecretStatus {
        for condition in &mut status.conditions {
            condition.last_update_time = Some(time.into());
            condition.last_transition_time = Some(time.into());
        }
        status
    }

    #[test]
    fn a_status_that_says_nothing_new_is_not_written() {
        const THEN: &str = "2026-01-01T00:00:00Z";
        let nothing = SealedSecretStatus::default();
        let refused = at(with_synced(&nothing, Some(1), ConditionStatus::False, "why".into()), THEN);
        assert_eq!(with_synced(&refused, Some(1), ConditionStatus::False, "why".into()), refused);

        let other = with_synced(&refused, Some(1), ConditionStatus::False, "another".into());
        let condition = other.condition(conditions::SYNCED).unwrap();
        assert_eq!(condition.message, "another");
        assert_eq!(condition.last_transition_time.as_deref(), Some(THEN));
        assert_ne!(condition.last_update_time.as_deref(), Some(THEN));

        let synced = with_synced(&refused, Some(2), ConditionStatus::True, String::new());
        assert_eq!((synced.observed_generation, synced.conditions.len()), (Some(2), 1));
        assert_ne!(synced.conditions[0].last_transition_time.as_deref(), Some(THEN));
    }

    #[test]
    fn a_message_is_one_line_that_no_terminal_obeys() {
        let nothing = SealedSecretStatus::default();
        let told = |old: &SealedSecretStatus| with_synced(old, Some(1), ConditionStatus::False, "a\u{1b}[2J\nb".into());
        let status = told(&nothing);
        assert_eq!(status.condition(conditions::SYNCED).unwrap().message, "a\\u{1b}[2J\\nb");
        assert_eq!(told(&status), status, "and it is told once");
    }
}
