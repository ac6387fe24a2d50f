//! To whom an existing Secret belongs.

use manifests::ObjectId;

use crate::SecretFacts;

/// How a Secret was last written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Made {
    /// The whole Secret was written, and it belongs to its SealedSecret.
    Whole,
    /// Values were merged into an existing Secret. The Secret still belongs to the owner that it had before, even if
    /// the annotation `patch` was removed later.
    Merged,
}

impl Made {
    /// The beginning of the mark of a Secret that was last written in this way. A mark is a text that records what a
    /// Secret was made from.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Merged => MERGED,
        }
    }

    /// Returns how the Secret was written, which the beginning of a mark says, and the rest of the mark. The mark may
    /// have any form, because everybody who may write the Secret can have written it.
    pub fn read(mark: &str) -> (Self, &str) {
        mark.strip_prefix(MERGED).map_or((Self::Whole, mark), |rest| (Self::Merged, rest))
    }
}

const MERGED: &str = "merged-";

/// The annotation `gitseal.dev/sealed-digest` that older versions left on a Secret: `[merged-]DIGEST[.KEY]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OldMark<'a> {
    /// How the Secret was written.
    pub made: Made,
    /// [`unsealing::old_digest`] of the SealedSecret that the Secret was made from.
    pub digest: &'a str,
    /// A keyed digest by which the controller recognises the sealing key that unsealed the values; `None` if several
    /// keys were needed.
    pub key: Option<&'a str>,
}

impl<'a> OldMark<'a> {
    /// Reads the annotation.
    pub fn read(annotation: &'a str) -> Self {
        let (made, rest) = Made::read(annotation);
        let (digest, key) = rest.split_once('.').map_or((rest, None), |(digest, key)| (digest, Some(key)));
        Self { made, digest, key }
    }
}

/// Whether a SealedSecret becomes the owner of the Secret of the same name when the controller writes this Secret for
/// it. `None` if the Secret must not be written, because it belongs to somebody else. `facts` are the facts about the
/// Secret in the cluster; `None` if there is no such Secret.
///
/// As in Sealed Secrets, a Secret with the annotation `managed` may be taken over. Into a Secret with the annotation
/// `patch`, values may be merged, and the Secret still belongs to its owner. A Secret that was made from a template
/// with `skip-set-owner-references` has no owner; for such a Secret, `made` says how it was last written, see
/// [`SecretFacts::made`].
pub fn may_write(facts: Option<&SecretFacts>, made: Option<Made>, sealed_secret_uid: &str) -> Option<bool> {
    let Some(facts) = facts else {
        return Some(true);
    };
    // A SealedSecret must not change a sealing key, whatever annotations the Secret of the key has.
    if facts.is_sealing_key {
        return None;
    }
    let is_ours = facts.sealed_secret.as_deref() == Some(sealed_secret_uid);
    let was_made_without_owner = facts.sealed_secret.is_none() && made == Some(Made::Whole);
    if is_ours || facts.managed {
        Some(true)
    } else if facts.patch {
        Some(false)
    } else {
        was_made_without_owner.then_some(true)
    }
}

/// The message about a Secret that a SealedSecret may not write.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    r#"Resource "{name}" already exists and is not managed by SealedSecret; to let this SealedSecret take it over: kubectl annotate secret -n {namespace} {name} {MANAGED}=true"#
, MANAGED = crds::names::MANAGED)]
pub struct Unmanaged {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
}

impl Unmanaged {
    /// The message about the Secret `id`.
    pub fn of(id: &ObjectId) -> Self {
        Self { namespace: id.namespace.clone().unwrap_or_default(), name: id.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_mark_is_read() {
        for (made, key, text) in [
            (Made::Whole, None, "d1"),
            (Made::Whole, Some("k1"), "d1.k1"),
            (Made::Merged, None, "merged-d1"),
            (Made::Merged, Some("k1"), "merged-d1.k1"),
        ] {
            assert_eq!(OldMark::read(text), OldMark { made, digest: "d1", key });
            assert!(text.starts_with(made.prefix()));
        }
    }

    #[test]
    fn somebody_elses_secret_is_left_alone() {
        let facts = |sealed_secret: Option<&str>, managed, patch| SecretFacts {
            sealed_secret: sealed_secret.map(Into::into),
            managed,
            patch,
            ..SecretFacts::default()
        };
        let (whole, merged) = (Some(Made::Whole), Some(Made::Merged));
        let cases = [
            (None, None, Some(true), "no Secret yet"),
            (Some(facts(Some("1"), false, false)), None, Some(true), "ours"),
            (Some(facts(Some("1"), false, true)), None, Some(true), "ours, to be merged into"),
            (Some(facts(None, false, false)), None, None, "somebody made it by hand"),
            (Some(facts(Some("2"), false, false)), whole, None, "of a SealedSecret that was deleted"),
            (Some(facts(None, true, false)), None, Some(true), "handed over"),
            (Some(facts(None, false, true)), None, Some(false), "merged into"),
            (Some(facts(None, true, true)), None, Some(true), "merged into and handed over"),
            (Some(facts(None, false, false)), whole, Some(true), "made without an owner"),
            (Some(facts(None, false, false)), merged, None, "merged into once, no longer allowed"),
        ];
        for (facts, made, expected, case) in cases {
            assert_eq!(may_write(facts.as_ref(), made, "1"), expected, "{case}");
            let key = facts.map(|facts| SecretFacts { is_sealing_key: true, ..facts });
            let expected = key.is_none().then_some(true);
            assert_eq!(may_write(key.as_ref(), made, "1"), expected, "a sealing key; {case}");
        }
    }
}
