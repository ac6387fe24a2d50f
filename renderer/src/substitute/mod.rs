//! Replaces variables in the rendered objects of a Sync, as its fields `substitute` and `substituteFrom` say.
//!
//! Texts in an object are expanded one by one ([`language`]), so a value cannot change anything beside its text. An object
//! does not remember whether a text was written in quotes. So whether `${replicas}` becomes a number is decided by the type
//! that the field has in Kubernetes ([`typed`]).

mod language;
mod object;
mod typed;
mod variables;

use manifests::Manifest;
use pipeline::{
    Room,
    render::{NotRendered, RenderError, reserve},
};
use worker::Cancel;

pub use self::variables::variables_in;
use self::{language::Budget, object::substituted_in};
pub(crate) use self::{language::is_name, variables::Variables};

/// What [`NotRendered::tool`] is if variables cannot be replaced.
pub const SUBSTITUTE: &str = "substitute";

/// How many bytes and steps the variables of one folder may take.
const BUDGET: u64 = 1 << 28;

/// How many of these one object may take. Kubernetes stores no object that is as large.
const OF_ONE_OBJECT: u64 = 1 << 23;
/// How many bytes and steps a comparison with [`Likely`] may take. The results are not kept for long, and are not counted as
/// memory of the folder.
const OF_COMPARISON: u64 = 1 << 25;

/// How many mistakes a message names, because a status cannot hold all of them.
const NAMED_AT_ONCE: usize = 20;

/// Replaces the variables in all objects of a folder.
pub(crate) fn substitute<E>(
    variables: &Variables,
    manifests: &mut [Manifest],
    folder: &str,
    room: &mut dyn Room,
    cancel: &Cancel,
) -> Result<(), RenderError<E>> {
    let mut budget = Budget::new(BUDGET);
    let (mut mistakes, mut more) = (Vec::new(), 0);
    let mut is_not_set = false;
    for manifest in manifests {
        if cancel.is_cancelled() {
            let (reason, message) = ("RenderInterrupted", "rendering was cancelled".to_owned());
            let why = NotRendered { tool: SUBSTITUTE, reason, message, is_terminal: false };
            return Err(RenderError::NotRendered { folder: folder.to_owned(), why });
        }
        let (origin, id) = (manifest.origin.clone(), manifest.id.clone());
        let mut part = budget.part(OF_ONE_OBJECT);
        let found = substituted_in(manifest, variables, &mut part, NAMED_AT_ONCE - mistakes.len());
        budget.give_back(part);
        // An object becomes longer by at most a few megabytes before its memory is taken.
        reserve(room, &origin.file, found.bytes)?;
        room.use_up(found.bytes);
        is_not_set |= found.is_not_set;
        more += found.more;
        mistakes.extend(found.mistakes.iter().map(|mistake| format!("{origin}: {id}: {mistake}")));
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let mut message = format!("{}{more}", mistakes.join("; "));
    if is_not_set {
        let names: Vec<_> = variables.names().take(NAMED_AT_ONCE).collect();
        let known =
            if names.is_empty() { "no variable is set".to_owned() } else { format!("set are {}", names.join(", ")) };
        message.push_str(&format!(
            " ({known}); set the variable in substitute or substituteFrom of the Sync, give it a default (${{name:=default}}), \
             or write $${{name}} if the text ${{name}} is meant; the annotation {}: {} keeps gitseal from replacing \
             variables in an object",
            crds::names::SUBSTITUTE,
            crds::names::SUBSTITUTE_DISABLED
        ));
    }
    Err(not_substituted(folder, message))
}

/// Replaces variables as far as possible: for a comparison of names and places. The result is not to be applied.
pub(crate) struct Likely<'v> {
    variables: &'v Variables,
    budget: Budget,
}

impl<'v> Likely<'v> {
    pub(crate) fn new(variables: &'v Variables) -> Self {
        Self { variables, budget: Budget::new(OF_COMPARISON) }
    }

    /// The object with its variables replaced. If replacing the variables of all objects so far
    /// took more memory or time than is allowed, the variables that are left stay in the text.
    pub(crate) fn object(&mut self, mut manifest: Manifest) -> Manifest {
        let mut part = self.budget.part(OF_ONE_OBJECT);
        substituted_in(&mut manifest, self.variables, &mut part, 0);
        self.budget.give_back(part);
        manifest
    }
}

/// The variables cannot be replaced. The same files give the same error again.
fn not_substituted<E>(folder: &str, message: String) -> RenderError<E> {
    let why = NotRendered { tool: SUBSTITUTE, reason: "SubstituteFailed", message, is_terminal: true };
    RenderError::NotRendered { folder: folder.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use manifests::Limits;
    use pipeline::render::Unlimited;

    use super::*;

    #[test]
    fn a_substitution_ends_when_nobody_waits_for_it() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: '${a}'}\n";
        let mut objects = manifests::parse("a.yaml", text.as_bytes(), &Limits::default()).unwrap();
        let (variables, cancel) = (Variables::of(&[("a", "b")], &[]), Cancel::new());
        cancel.cancel();
        let end = substitute::<Infallible>(&variables, &mut objects, "app", &mut Unlimited, &cancel);
        let Err(RenderError::NotRendered { why, .. }) = end else { panic!("it goes on") };
        assert_eq!((why.reason, why.is_terminal), ("RenderInterrupted", false));
        assert_eq!(objects[0].body["data"]["a"], "${a}");
        substitute::<Infallible>(&variables, &mut objects, "app", &mut Unlimited, &Cancel::new()).unwrap();
        assert_eq!(objects[0].body["data"]["a"], "b");
    }
}
