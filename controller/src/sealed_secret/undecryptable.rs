//! Reports values in the cluster that no sealing key unseals, while their Secrets still exist.
//!
//! | when | what is checked |
//! | --- | --- |
//! | this replica begins to lead | every value, a few per second, except those for which the status of the SealedSecret shows the key. A value that no key unseals is reported as soon as it is found |
//! | the sealing keys change | every value whose key is not known, at once |
//! | a reconcile could not unseal a value, or unsealed a value that could not be unsealed before | nothing is decrypted: only the known results are reported again |

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use crds::{ObjectKey, SealedSecret};
use tokio::time::{sleep, timeout};
use unsealing::old_digest;

use super::{digest, input, mark, secret_id};
use crate::{
    context::Context,
    events::EventType,
    keys::{Effort, KeyMark, KeyMarks, Undecryptable},
    status::reference,
};

/// How long the controller waits after a value could not be unsealed before it counts such values. Often many values
/// fail at the same time, so they are counted together.
const GATHER: Duration = Duration::from_secs(1);
/// The time after which values are counted again if nothing new is found. Until then, values of SealedSecrets that were
/// deleted in the meantime are still counted.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Counts and reports the values that no sealing key unseals, whenever the sealing keys change or something new becomes
/// known about a value. Never ends.
pub(crate) async fn follow(ctx: Arc<Context>) {
    let mut changes = ctx.keyring.changes();
    let mut told = HashMap::new();
    let mut effort = Effort::AllSlowly;
    let looking = Arc::clone(&ctx);
    let marks: Arc<KeyMarks> = Arc::new(move |sealed| key_mark(&looking, sealed));
    'looking: loop {
        let mut found = pin!(ctx.keyring.undecryptable(ctx.sealed_secrets.state(), &marks, effort));
        loop {
            tokio::select! {
                undecryptable = &mut found => break tell(&ctx, &mut told, undecryptable),
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    effort = Effort::All;
                    continue 'looking;
                }
                // Trying to unseal many values takes minutes, so what is found is reported in the meantime.
                () = ctx.keyring.undecryptable_changed() => {
                    let known = ctx.keyring.undecryptable(ctx.sealed_secrets.state(), &marks, Effort::Known).await;
                    tell(&ctx, &mut told, known);
                }
            }
        }
        effort = tokio::select! {
            _ = changes.changed() => Effort::All,
            // After [`LOOK_AGAIN`], values are counted even if nothing is new.
            _ = timeout(LOOK_AGAIN, ctx.keyring.undecryptable_changed()) => {
                sleep(GATHER).await;
                Effort::Known
            }
        };
    }
}

/// The record of the sealing key that unsealed the values, if the Secret was made from this SealedSecret.
fn key_mark(ctx: &Context, sealed: &SealedSecret) -> Option<KeyMark> {
    let key = ObjectKey::of(sealed);
    let live = ctx.cluster.live.get(&secret_id(&key))?;
    let digest = digest(ctx, sealed, &key);
    if let Some(key) = mark::of_secret(ctx, &key, &live).and_then(|mark| mark.key) {
        return Some(KeyMark { digest, key });
    }
    let old = live.secret.as_ref()?.old_mark()?;
    let digest = old_digest(&input(ctx, sealed, &key));
    let key = old.key.filter(|_| old.digest == digest)?.to_owned();
    Some(KeyMark { digest, key })
}

/// Counts all values that no key unseals, and reports new ones with an event about their SealedSecret.
fn tell(ctx: &Context, told: &mut HashMap<ObjectKey, Vec<String>>, undecryptable: Vec<Undecryptable>) {
    ctx.metrics.undecryptable_values(undecryptable.iter().map(|undecryptable| undecryptable.fields.len()).sum());
    let mut now = HashMap::with_capacity(undecryptable.len());
    for Undecryptable { sealed_secret, fields } in undecryptable {
        let key = ObjectKey::of(&*sealed_secret);
        // If the Secret could not be made because of such a value, there is already an event about it.
        let is_told = told.get(&key) == Some(&fields) || ctx.failing_secrets.is_failing(&key);
        if !is_told {
            let note = note(&fields);
            tracing::warn!(sealed_secret = %key, "{note}");
            ctx.events.publish(&reference(&*sealed_secret), EventType::Warning, "SealingKeyMissing", note);
        }
        now.insert(key, fields);
    }
    *told = now;
}

fn note(fields: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut names = fields.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if fields.len() > SHOWN {
        names.push_str(&format!(" and {} more", fields.len() - SHOWN));
    }
    format!(
        "no sealing key unseals {names}; the Secret stays as it is for now: restore the key from a backup, or seal the \
         values again with the certificate that `gitseal cert` prints"
    )
}
