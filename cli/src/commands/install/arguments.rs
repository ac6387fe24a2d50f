//! The controller's arguments: a list of flags. This command sets some of them; people may have added others.

use anyhow::bail;

use crate::output::Hint;

/// With this flag, no Sync writes with the controller's own rights, which allow access to every Secret.
pub const DEFAULT_ACCOUNT: &str = "--default-service-account=default";

/// `arguments` unchanged, followed by those of `ours` that are missing.
pub fn merge(mut arguments: Vec<String>, ours: Vec<String>) -> Vec<String> {
    let missing: Vec<_> =
        ours.into_iter().filter(|ours| !arguments.iter().any(|known| name(known) == name(ours))).collect();
    arguments.extend(missing);
    arguments
}

/// Puts each of the `wanted` arguments in the place of the argument with the same name, or at the end.
///
/// # Errors
/// One of the `wanted` arguments is not a flag, or the controller would not start with it.
pub fn set(arguments: &mut Vec<String>, wanted: &[String]) -> anyhow::Result<()> {
    for argument in wanted {
        if !name(argument).starts_with("--") || name(argument).len() < 3 {
            bail!(Hint::error(
                format!("{argument:?} is not a flag of the controller"),
                "write a flag as --name=value: gitseal install --apply -- --memory-budget=512Mi",
            ));
        }
        match arguments.iter().position(|known| name(known) == name(argument)) {
            Some(place) => {
                let has_value = arguments[place].contains('=');
                // The value of the replaced flag may be a separate argument.
                let value = place + 1;
                if !has_value && arguments.get(value).is_some_and(|value| !value.starts_with('-')) {
                    arguments.remove(value);
                }
                arguments[place].clone_from(argument);
            }
            None => arguments.push(argument.clone()),
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    // Arguments that are in the cluster already may belong to an image of another version, so they are not checked.
    let usual = super::bundle::arguments();
    flags::check(&[&usual[..], wanted].concat()).map_err(|why| {
        Hint::error(
            format!("the controller would not start: {why}"),
            "nothing was applied; docs/operations.md lists the controller's flags, and so does its --help",
        )
    })
}

/// The `arguments` that somebody chose, each as one word. The arguments in `usual` are left out, and if several teams
/// share the cluster, also the default account, which `--multi-tenant` adds anyway.
pub fn chosen(arguments: Vec<String>, usual: &[String], is_shared: bool) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for argument in arguments {
        match all.last_mut().filter(|last| !argument.starts_with('-') && !last.contains('=')) {
            Some(flag) => *flag = format!("{flag}={argument}"),
            None => all.push(argument),
        }
    }
    // Arguments that are not flags are left out, because the function `set` would refuse them.
    all.retain(|argument| name(argument).starts_with("--") && !usual.contains(argument));
    all.retain(|argument| !is_shared || argument != DEFAULT_ACCOUNT);
    all
}

/// Whether no Sync writes with the controller's own rights, because a Sync without a service account gets a default
/// one.
pub fn has_default_account(arguments: &[String]) -> bool {
    let flag = name(DEFAULT_ACCOUNT);
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
    };
    let mut given = arguments.iter().enumerate().filter(|(_, argument)| name(argument) == flag).peekable();
    given.peek().is_some()
        && given.all(|(place, argument)| match argument.split_once('=') {
            Some((_, account)) => is_name(account),
            None => arguments.get(place + 1).is_some_and(|account| is_name(account)),
        })
}

fn name(argument: &str) -> &str {
    argument.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_others_added_stays_as_it_is() {
        let merged = merge(list("--storage /data --memory-budget=1Gi -v"), list("--storage=/var --listen-addr=:8080"));
        assert_eq!(merged, list("--storage /data --memory-budget=1Gi -v --listen-addr=:8080"));
    }

    #[test]
    fn chosen_arguments_are_one_word_each() {
        let usual = list("--storage=/var --listen-addr=:8080");
        let all = || {
            list(
                "--storage=/var --log-level debug --skip-recreate -v --listen-addr=:9 --default-service-account=default",
            )
        };
        assert_eq!(chosen(all(), &usual, true), list("--log-level=debug --skip-recreate --listen-addr=:9"));
        let single = list("--log-level=debug --skip-recreate --listen-addr=:9 --default-service-account=default");
        assert_eq!(chosen(all(), &usual, false), single);
    }

    #[test]
    fn a_flag_replaces_its_own_value() {
        let mut arguments = list("--storage /data --skip-recreate --log-level=info");
        set(&mut arguments, &list("--storage=/var --log-level=debug --concurrent=2")).unwrap();
        assert_eq!(arguments, list("--storage=/var --skip-recreate --log-level=debug --concurrent=2"));
        for wrong in ["storage", "-v", "--", "", "--memory-budget=abc", "--memory-buget=1Gi"] {
            set(&mut arguments, &[wrong.to_owned()]).unwrap_err();
        }
    }
}
