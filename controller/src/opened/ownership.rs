//! Whose a Secret is that is there already.

use crate::cluster::SecretFacts;

/// Whether a SealedSecret may write the Secret of its name, and whether it owns it then. `facts` are those of the Secret
/// in the cluster; none when there is no such Secret. Answers nothing when the Secret is somebody else's.
///
/// As in Sealed Secrets, the annotation `managed` hands a Secret over, and `patch` lets values be merged into it while
/// it stays whose it is. A Secret that was made for a template with `skip-set-owner-references` has no owner and is known
/// by the digest on it.
pub fn may_write(facts: Option<&SecretFacts>, sealed_secret_uid: &str) -> Option<bool> {
    let Some(facts) = facts else {
        return Some(true);
    };
    let is_ours = facts.sealed_secret.as_deref() == Some(sealed_secret_uid);
    let was_made_without_owner = facts.sealed_secret.is_none() && facts.sealed_digest.is_some();
    if is_ours || facts.managed {
        Some(true)
    } else if facts.patch {
        Some(false)
    } else {
        was_made_without_owner.then_some(true)
    }
}
