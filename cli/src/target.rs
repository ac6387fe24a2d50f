//! A Repository or Sync, as it is named on the command line.

use std::str::FromStr;

/// `sync/web`, `repository/fleet`, or `web`, which may be either.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    Repository(String),
    Sync(String),
    Either(String),
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
        // As `--output name` writes it.
        match kind.strip_suffix(".gitseal.dev").unwrap_or(&kind) {
            "" if text == name => Ok(Self::Either(name)),
            "repository" | "repositories" | "repo" => Ok(Self::Repository(name)),
            "sync" | "syncs" => Ok(Self::Sync(name)),
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
        for wrong in ["", "sync/", "/web", "sync/a/b", "deployment/web"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong} was read");
        }
    }
}
