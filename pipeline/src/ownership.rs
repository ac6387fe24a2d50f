//! Whose a Secret is that is there already.

use std::fmt;

use manifests::ObjectId;

use crate::SecretFacts;

/// Before the digest on a Secret that was merged into: it stays somebody else's when it no longer says `patch`.
const MERGED: &str = "merged-";

/// What the annotation `gitseal.dev/sealed-digest` says of what a Secret was made of: `[merged-]DIGEST[.KEY]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark<'a> {
    /// Whether the values were merged into a Secret of somebody else's.
    pub is_merged: bool,
    /// Digest of the sealed input.
    pub digest: &'a str,
    /// Keyed digest that tells the controller which sealing key unsealed the values; none where it took several keys.
    pub key: Option<&'a str>,
}

impl<'a> Mark<'a> {
    /// Reads the annotation.
    pub fn read(annotation: &'a str) -> Self {
        let (is_merged, rest) = annotation.strip_prefix(MERGED).map_or((false, annotation), |digest| (true, digest));
        let (digest, key) = rest.split_once('.').map_or((rest, None), |(digest, key)| (digest, Some(key)));
        Self { is_merged, digest, key }
    }
}

impl fmt::Display for Mark<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let merged = if self.is_merged { MERGED } else { "" };
        write!(f, "{merged}{}", self.digest)?;
        self.key.map_or(Ok(()), |key| write!(f, ".{key}"))
    }
}

/// Whether the Secret was merged into when it was last written.
pub fn was_merged(facts: &SecretFacts) -> bool {
    facts.mark().is_some_and(|mark| mark.is_merged)
}

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
    // Whatever it is annotated with: what is in a sealing key is not for a SealedSecret to say.
    if facts.is_sealing_key {
        return None;
    }
    let is_ours = facts.sealed_secret.as_deref() == Some(sealed_secret_uid);
    let was_made_by_us = facts.mark().is_some_and(|mark| !mark.is_merged);
    let was_made_without_owner = facts.sealed_secret.is_none() && was_made_by_us;
    if is_ours || facts.managed {
        Some(true)
    } else if facts.patch {
        Some(false)
    } else {
        was_made_without_owner.then_some(true)
    }
}

/// What is said of a Secret that a SealedSecret may not write.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "Secret '{name}' exists and no SealedSecret manages it; to let this one take it over: kubectl annotate secret -n {namespace} {name} {MANAGED}=true"
, MANAGED = crds::names::MANAGED)]
pub struct Unmanaged {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Unmanaged {
    /// The Secret `id`.
    pub fn of(id: &ObjectId) -> Self {
        Self { namespace: id.namespace.clone().unwrap_or_default(), name: id.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for (is_merged, key, text) in [
            (false, None, "d1"),
            (false, Some("k1"), "d1.k1"),
            (true, None, "merged-d1"),
            (true, Some("k1"), "merged-d1.k1"),
        ] {
            let mark = Mark { is_merged, digest: "d1", key };
            assert_eq!((mark.to_string().as_str(), Mark::read(text)), (text, mark));
        }
    }

    #[test]
    fn somebody_elses_secret_is_left_alone() {
        let facts = |sealed_secret: Option<&str>, managed, patch, mark: Option<&str>| SecretFacts {
            sealed_secret: sealed_secret.map(Into::into),
            managed,
            patch,
            mark: mark.map(Into::into),
            ..SecretFacts::default()
        };
        let cases = [
            (None, Some(true), "no Secret yet"),
            (Some(facts(Some("1"), false, false, None)), Some(true), "ours"),
            (Some(facts(Some("1"), false, true, None)), Some(true), "ours, to be merged into"),
            (Some(facts(None, false, false, None)), None, "somebody made it by hand"),
            (Some(facts(Some("2"), false, false, Some("d"))), None, "of a SealedSecret that was deleted"),
            (Some(facts(None, true, false, None)), Some(true), "handed over"),
            (Some(facts(None, false, true, None)), Some(false), "merged into"),
            (Some(facts(None, true, true, None)), Some(true), "merged into and handed over"),
            (Some(facts(None, false, false, Some("d"))), Some(true), "made without an owner"),
            (
                Some(facts(None, false, false, Some(&Mark { is_merged: true, digest: "d", key: None }.to_string()))),
                None,
                "merged into once, no longer allowed",
            ),
        ];
        for (facts, expected, case) in cases {
            assert_eq!(may_write(facts.as_ref(), "1"), expected, "{case}");
            let key = facts.map(|facts| SecretFacts { is_sealing_key: true, ..facts });
            assert_eq!(may_write(key.as_ref(), "1"), key.is_none().then_some(true), "a sealing key; {case}");
        }
    }
}
