//! A Repository or Sync, as it is named on the command line.

use std::str::FromStr;

/// `sync/web`, `repository/fleet`, or `web`, which may be either.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    Repository(String),
    Sync(String),
    Either(String),
}

const REPOSITORY: [&str; 3] = ["repository", "repositories", "repo"];
const SYNC: [&str; 2] = ["sync", "syncs"];

/// Whether the text is only the name of a kind, without the name of an object.
pub fn is_kind(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    REPOSITORY.iter().chain(&SYNC).any(|kind| *kind == name)
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').map_or(("", text), |(kind, name)| (kind, name));
        if name.is_empty() || name.contains('/') {
            return Err("expected NAME, sync/NAME or repository/NAME".into());
        }
        let name = name.to_owned();
        let kind = kind.to_ascii_lowercase();
        // `--output name` writes `sync.gitseal.dev`.
        match kind.strip_suffix(".gitseal.dev").unwrap_or(&kind) {
            "" if text == name => Ok(Self::Either(name)),
            kind if REPOSITORY.contains(&kind) => Ok(Self::Repository(name)),
            kind if SYNC.contains(&kind) => Ok(Self::Sync(name)),
            _ => Err(format!("`{kind}` is neither `sync` nor `repository`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_kubectl_writes_them() {
        assert_eq!("web".parse(), Ok(Target::Either("web".into())));
        assert_eq!("sync/web".parse(), Ok(Target::Sync("web".into())));
        assert_eq!("Repo/fleet".parse(), Ok(Target::Repository("fleet".into())));
        assert_eq!("sync.gitseal.dev/web".parse(), Ok(Target::Sync("web".into())));
        assert_eq!("syncs/web".parse(), Ok(Target::Sync("web".into())));
        assert_eq!("Repositories.gitseal.dev/fleet".parse(), Ok(Target::Repository("fleet".into())));
        // A Sync may be named `syncs`.
        assert_eq!("syncs".parse(), Ok(Target::Either("syncs".into())));
        assert!(is_kind("Syncs") && is_kind("repo") && !is_kind("web"));
        for wrong in ["", "sync/", "/web", "sync/a/b", "deployment/web"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong} was read");
        }
    }
}
