use sealing::{PublicKey, Scope};
use serde_json::{Map, Value, json};

use super::Sealed;
use super::secret::PlainSecret;
use crate::output::Hint;

/// Seals Secrets with a key and the choices of the command line.
pub struct Sealer<'k> {
    pub key: &'k PublicKey,
    /// The scope that a flag sets. It is used instead of the scope in the Secret's annotations.
    pub scope: Option<Scope>,
    /// Namespace for Secrets without one.
    pub namespace: Option<String>,
    /// Whether the user named the namespace. Then a Secret with another namespace is a mistake.
    pub is_namespace_asked_for: bool,
    /// Whether a Secret without values is sealed.
    pub allow_empty: bool,
}

impl Sealer<'_> {
    /// The SealedSecret for a Secret, and its entry in the summary.
    pub fn seal(&self, secret: &PlainSecret) -> anyhow::Result<(Map<String, Value>, Sealed)> {
        if secret.data.is_empty() && !self.allow_empty {
            return Err(Hint::error(
                format!("{}: it has no data", secret.place()),
                "add values under data or stringData, or seal the Secret without values with --allow-empty-data",
            ));
        }
        super::typed::check(secret)?;
        let scope = self.scope.unwrap_or_else(|| own_scope(&secret.metadata));
        let is_other = self.is_namespace_asked_for && secret.namespace.is_some();
        if is_other && secret.namespace != self.namespace && scope != Scope::ClusterWide {
            return Err(Hint::error(
                format!(
                    "{}: its namespace is not that of --namespace ({})",
                    secret.place(),
                    self.namespace.as_deref().unwrap_or_default()
                ),
                "leave --namespace out, or correct metadata.namespace",
            ));
        }
        let namespace = secret.namespace.clone().or_else(|| self.namespace.clone());
        if namespace.is_none() && scope != Scope::ClusterWide {
            return Err(Hint::error(
                format!("{}: it has no namespace, and no kubeconfig names one", secret.place()),
                "a sealed value is bound to its namespace: set metadata.namespace, or pass --namespace",
            ));
        }
        let namespace = if scope == Scope::ClusterWide { secret.namespace.clone() } else { namespace };
        let body = sealed_secret(secret, namespace.as_deref(), scope, self.key)?;
        let entry = Sealed {
            file: secret.origin.as_ref().map(|origin| origin.file.to_string()).unwrap_or_default(),
            line: secret.origin.as_ref().map_or(0, |origin| origin.line),
            namespace_of_kubeconfig: namespace.is_some() && secret.namespace.is_none() && !self.is_namespace_asked_for,
            namespace,
            name: secret.name.clone(),
            scope: scope.to_string(),
            keys: secret.data.keys().cloned().collect(),
            comments_left_out: 0,
        };
        Ok((body, entry))
    }
}

/// A `bitnami.com/v1alpha1` SealedSecret, laid out as kubeseal does.
fn sealed_secret(
    secret: &PlainSecret,
    namespace: Option<&str>,
    scope: Scope,
    key: &PublicKey,
) -> anyhow::Result<Map<String, Value>> {
    let mut encrypted = Map::new();
    for (name, value) in &secret.data {
        let binding = scope.binding(namespace.unwrap_or_default(), &secret.name, name);
        let value = sealing::seal(key, binding, value.expose())
            .map_err(|error| anyhow::Error::new(error).context(format!("{}: cannot seal {name}", secret.place())))?;
        encrypted.insert(name.clone(), value.into());
    }
    let mut metadata = Map::from_iter([("name".to_owned(), Value::from(secret.name.as_str()))]);
    if let Some(namespace) = namespace {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let mut template_metadata = metadata.clone();
    template_metadata.extend(secret.metadata.clone());
    set_scope(&mut metadata, scope);
    set_scope(&mut template_metadata, scope);
    let mut template = Map::from_iter([("metadata".to_owned(), Value::Object(template_metadata))]);
    if let Some(secret_type) = &secret.secret_type {
        template.insert("type".to_owned(), secret_type.as_str().into());
    }
    if let Some(immutable) = secret.immutable {
        template.insert("immutable".to_owned(), immutable.into());
    }
    Ok(Map::from_iter([
        ("apiVersion".to_owned(), "bitnami.com/v1alpha1".into()),
        ("kind".to_owned(), "SealedSecret".into()),
        ("metadata".to_owned(), Value::Object(metadata)),
        ("spec".to_owned(), json!({ "encryptedData": encrypted, "template": template })),
    ]))
}

/// The scope that an object's annotations ask for.
pub fn own_scope(metadata: &Map<String, Value>) -> Scope {
    let annotations = metadata.get("annotations").and_then(Value::as_object);
    Scope::from_annotations(|key| annotations?.get(key)?.as_str())
}

/// Sets the annotations for this scope, and removes those for other scopes.
fn set_scope(metadata: &mut Map<String, Value>, scope: Scope) {
    if own_scope(metadata) == scope {
        return;
    }
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(annotations) = annotations {
        for other in [Scope::NamespaceWide, Scope::ClusterWide] {
            other.annotation().map(|key| annotations.shift_remove(key));
        }
        if let Some(key) = scope.annotation() {
            annotations.insert(key.to_owned(), "true".into());
        } else if annotations.is_empty() {
            metadata.shift_remove("annotations");
        }
    }
}
