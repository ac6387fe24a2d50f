use std::fmt;

use crate::text::in_one_line;

/// Identifies an object in a cluster, in any version of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind, as in the manifest.
    pub kind: String,
    /// Namespace; `None` for cluster-scoped objects, and for manifests without a namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// The API group of SealedSecrets.
const SEALED_SECRETS: &str = "bitnami.com";

impl ObjectId {
    /// Whether it is a core Secret, in any version.
    pub fn is_secret(&self) -> bool {
        self.group.is_empty() && self.kind == "Secret"
    }

    /// Whether it is a SealedSecret, in any version.
    pub fn is_sealed_secret(&self) -> bool {
        self.group == SEALED_SECRETS && self.kind == "SealedSecret"
    }

    /// The Secret of the same namespace and name, which is made from this SealedSecret.
    #[must_use]
    pub fn secret(&self) -> Self {
        Self { group: String::new(), kind: "Secret".into(), ..self.clone() }
    }

    /// The SealedSecret of the same namespace and name, from which this Secret may be made.
    #[must_use]
    pub fn sealed_secret(&self) -> Self {
        Self { group: SEALED_SECRETS.into(), kind: "SealedSecret".into(), ..self.clone() }
    }

    /// `namespace_name_group_kind`, the form in a Sync's inventory. Namespace and group may be empty.
    ///
    /// A name may contain `_` and `:` (RBAC) and is not escaped, except for `%`. In the other parts, `_` is escaped,
    /// too, although no valid part contains it. So every id has one form, which [`ObjectId::from_inventory`] reads
    /// back.
    pub fn to_inventory(&self) -> String {
        let namespace = escape(self.namespace.as_deref().unwrap_or_default(), true);
        let (group, kind) = (escape(&self.group, true), escape(&self.kind, true));
        format!("{namespace}_{}_{group}_{kind}", escape(&self.name, false))
    }

    /// Reads the form that [`ObjectId::to_inventory`] writes; `None` for anything else.
    pub fn from_inventory(entry: &str) -> Option<Self> {
        let (namespace, rest) = entry.split_once('_')?;
        let (rest, kind) = rest.rsplit_once('_')?;
        let (name, group) = rest.rsplit_once('_')?;
        let namespace = unescape(namespace)?;
        let id = Self {
            group: unescape(group)?,
            kind: unescape(kind)?,
            namespace: (!namespace.is_empty()).then_some(namespace),
            name: unescape(name)?,
        };
        (!id.name.is_empty() && !id.kind.is_empty()).then_some(id)
    }
}

/// `Kind namespace/name`, or `Kind.group namespace/name` for groups that are not Kubernetes' own. Always one line, even if
/// names in a manifest have line breaks.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_one_line(&self.kind))?;
        if self.group.contains('.') && !self.group.ends_with(".k8s.io") {
            write!(f, ".{}", in_one_line(&self.group))?;
        }
        let name = in_one_line(&self.name);
        match &self.namespace {
            Some(namespace) => write!(f, " {}/{name}", in_one_line(namespace)),
            None => write!(f, " {name}"),
        }
    }
}

fn escape(part: &str, underscore: bool) -> String {
    let part = part.replace('%', "%25");
    if underscore { part.replace('_', "%5F") } else { part }
}

fn unescape(part: &str) -> Option<String> {
    let mut pieces = part.split('%');
    let mut text = pieces.next()?.to_owned();
    for piece in pieces {
        let (escaped, rest) = piece.split_at_checked(2)?;
        text.push(match escaped {
            "25" => '%',
            "5F" => '_',
            _ => return None,
        });
        text.push_str(rest);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(namespace: &str, name: &str, group: &str, kind: &str) -> ObjectId {
        ObjectId {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    #[test]
    fn inventory_form() {
        for (id, entry) in [
            (id("shop", "web", "apps", "Deployment"), "shop_web_apps_Deployment"),
            (id("", "shop", "", "Namespace"), "_shop__Namespace"),
            (
                id("", "system:a_b", "rbac.authorization.k8s.io", "ClusterRole"),
                "_system:a_b_rbac.authorization.k8s.io_ClusterRole",
            ),
            (id("a_b", "c%_", "", "K"), "a%5Fb_c%25___K"),
        ] {
            assert_eq!(id.to_inventory(), entry);
            assert_eq!(ObjectId::from_inventory(entry), Some(id));
        }
        for entry in ["", "a", "a_b", "a_b_c", "a__b_c", "a_b_c_", "%_b_c_d", "a_b%4_c_d", "a_%é_c_d"] {
            assert_eq!(ObjectId::from_inventory(entry), None, "{entry}");
        }
    }

    #[test]
    fn display_names_foreign_groups() {
        assert_eq!(id("shop", "web", "apps", "Deployment").to_string(), "Deployment shop/web");
        assert_eq!(id("", "x", "networking.k8s.io", "IngressClass").to_string(), "IngressClass x");
        assert_eq!(id("shop", "web", "gitseal.dev", "Sync").to_string(), "Sync.gitseal.dev shop/web");
        let hostile = id("a\n", "b\u{1b}[2J", "c.\u{202e}", "D\r").to_string();
        assert_eq!(hostile, "D\\r.c.\\u{202e} a\\n/b\\u{1b}[2J");
    }

    proptest! {
        #[test]
        fn every_id_comes_back(namespace in "[a-z_%:]{0,4}", name in "\\PC{1,6}", group in "[a-z._%]{0,4}", kind in "[A-Za-z_%]{1,4}") {
            let id = id(&namespace, &name, &group, &kind);
            prop_assert_eq!(ObjectId::from_inventory(&id.to_inventory()), Some(id));
        }
    }
}
