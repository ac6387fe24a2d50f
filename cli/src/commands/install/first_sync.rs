//! `--git-url`: a first Repository and Sync, and what these need.

use crds::{Repository, Sync};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{InstallArgs, choices::Choices};
use crate::{
    global::Global,
    output::{Hint, OutputFormat},
};

/// Which of these objects are in the cluster already.
#[derive(Default)]
pub struct Known {
    repository: Option<Value>,
    sync: Option<Value>,
    has_account: bool,
    /// Whether the namespace of the Sync exists.
    pub has_namespace: bool,
}

impl Known {
    /// Reads from the cluster which of the objects exist, if a first Sync was requested. An object whose kind is not
    /// served yet counts as missing.
    ///
    /// # Errors
    /// The cluster does not answer, or does not allow the user to read the objects.
    pub async fn read(client: &Client, args: &InstallArgs, namespace: &str) -> anyhow::Result<Self> {
        if args.git_url.is_none() {
            return Ok(Self::default());
        }
        let repositories: Api<Repository> = Api::namespaced(client.clone(), namespace);
        let syncs: Api<Sync> = Api::namespaced(client.clone(), namespace);
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let has_account = match &args.service_account {
            Some(name) => accounts.get_opt(name).await?.is_some(),
            None => false,
        };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        Ok(Self {
            repository: found(repositories.get_opt(&args.sync_name).await)?.map(serde_json::to_value).transpose()?,
            sync: found(syncs.get_opt(&args.sync_name).await)?.map(serde_json::to_value).transpose()?,
            has_account,
            has_namespace: namespaces.get_opt(namespace).await?.is_some(),
        })
    }
}

/// `None` also if the kind is not served, which the API server reports in another way than a missing object.
fn found<T>(answer: kube::Result<Option<T>>) -> kube::Result<Option<T>> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        answer => answer,
    }
}

/// The namespace of the first Sync.
pub fn namespace(global: &Global, choices: &Choices) -> String {
    global.namespace().unwrap_or_else(|| choices.namespace.clone())
}

/// Refuses at once what the controller would refuse later.
///
/// # Errors
/// The URL is not supported, or the path leads out of the repository.
pub fn check(args: &InstallArgs) -> anyhow::Result<()> {
    let Some(url) = &args.git_url else { return Ok(()) };
    let what = |why: &str| format!("--git-url cannot be used: {why}: nothing was applied");
    let instead = "use the https:// address of the repository; --secret-name names a Secret with username and \
                   password, or with a token";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split('/').next().unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "https" | "http" if host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) => {
            return Err(Hint::error(what("a password in it would be stored in plain sight"), instead));
        }
        "https" | "http" if host.is_empty() || host.ends_with('@') => {
            return Err(Hint::error(what("it has no host"), instead));
        }
        "https" | "http" if rest.contains(['?', '#']) => {
            return Err(Hint::error(what("a query or fragment has no meaning to Git"), instead));
        }
        "ssh" if host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) => {
            return Err(Hint::error(what("a password in it would be stored in plain sight"), instead));
        }
        "ssh" | "" if (scheme == "ssh" || host.contains(':')) && args.secret_name.is_none() => {
            return Err(Hint::error(
                what("Git over SSH needs a private key"),
                "name a Secret with identity and known_hosts in --secret-name",
            ));
        }
        // A file:// URL is accepted, because the controller may run with --allow-file-urls.
        "https" | "http" | "file" | "ssh" => {}
        "" if host.split_once(':').is_some_and(|(before, _)| before.contains('@')) => {}
        "" => return Err(Hint::error(what("it is no URL"), instead)),
        _ => return Err(Hint::error(what(&format!("{scheme}:// is not supported")), instead)),
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Hint::error(what("it holds white space"), instead));
    }
    let names = [
        ("--sync-name", Some(&args.sync_name)),
        ("--secret-name", args.secret_name.as_ref()),
        ("--service-account", args.service_account.as_ref()),
    ];
    for (flag, name) in names {
        if name.is_some_and(|name| !is_name(name)) {
            return Err(Hint::error(
                format!("{flag} is not a name for a Kubernetes object: nothing was applied"),
                "use up to 63 lower-case letters, digits and dashes, with a letter or digit at both ends",
            ));
        }
    }
    let leaves = |path: &String| path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..");
    if args.path.as_ref().is_some_and(leaves) {
        return Err(Hint::error(
            "--path cannot be used: it must name a folder inside of the repository: nothing was applied",
            "write the path relative to the repository's root, for example ./clusters/production",
        ));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(is_inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// The Repository, the Sync and the service account, as YAML. Settings that no flag changes stay as they are in the
/// cluster.
///
/// # Errors
/// The Sync could not work with these settings.
pub fn documents(args: &InstallArgs, global: &Global, choices: &Choices, known: &Known) -> anyhow::Result<Vec<String>> {
    let Some(url) = &args.git_url else { return Ok(Vec::new()) };
    let namespace = namespace(global, choices);
    let mut spec = json!({"url": url});
    match &args.branch {
        Some(branch) => spec["ref"] = json!({"branch": branch}),
        None => keep(&mut spec, known.repository.as_ref(), "ref"),
    }
    match &args.secret_name {
        Some(name) => spec["secretRef"] = json!({"name": name}),
        None => keep(&mut spec, known.repository.as_ref(), "secretRef"),
    }
    let of = |kind: &str, spec: Value| {
        json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": kind, "metadata": {"name": args.sync_name, "namespace": namespace},
            "spec": spec})
    };
    let repository = of("Repository", spec);
    let mut spec = json!({"repository": {"name": args.sync_name}});
    match &args.path {
        Some(path) => spec["path"] = path.as_str().into(),
        None => keep(&mut spec, known.sync.as_ref(), "path"),
    }
    match &args.service_account {
        Some(name) => spec["serviceAccountName"] = name.as_str().into(),
        None => keep(&mut spec, known.sync.as_ref(), "serviceAccountName"),
    }
    if !choices.tenancy.cluster_admin && spec.get("serviceAccountName").is_none() {
        return Err(Hint::error(
            "the first Sync would have no rights, because with --multi-tenant the controller applies nothing with its own rights: nothing was \
             applied",
            "name the service account that it writes as, and its namespace: --service-account deployer --namespace fleet",
        ));
    }
    let mut objects = Vec::new();
    if let Some(account) = args.service_account.as_ref().filter(|_| !known.has_account) {
        if namespace == choices.namespace {
            return Err(Hint::error(
                format!(
                    "there is no service account {account} in {namespace}; if it were made there, it could read the sealing \
                     keys: nothing was applied"
                ),
                "put the first Sync into a namespace of its own (--namespace fleet), or make the account yourself first",
            ));
        }
        objects.extend(account_with_rights(&namespace, account));
    }
    let mut sync = of("Sync", spec);
    // With this annotation, the objects that the Sync applied stay when the Sync is deleted, for example by
    // `kubectl delete -f` of the printed text.
    let is_kept = |sync: &Value| sync["metadata"]["annotations"].get(crds::names::PRUNE).cloned();
    if let Some(value) = known.sync.as_ref().map_or_else(|| Some("disabled".into()), is_kept) {
        sync["metadata"]["annotations"] = json!({crds::names::PRUNE: value});
    }
    objects.extend([repository, sync]);
    objects.iter().map(|object| OutputFormat::Yaml.text(object)).collect()
}

fn keep(spec: &mut Value, known: Option<&Value>, field: &str) {
    if let Some(value) = known.and_then(|known| known["spec"].get(field)) {
        spec[field] = value.clone();
    }
}

/// A service account that may do everything in its namespace, and nothing elsewhere.
fn account_with_rights(namespace: &str, name: &str) -> [Value; 4] {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let metadata = |name: &str| json!({"name": name, "namespace": namespace});
    let gitseal = format!("{name}-gitseal");
    let binding = |own: &str, kind: &str, role: &str| {
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": metadata(own),
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]})
    };
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name)}),
        binding(name, "ClusterRole", "admin"),
        // The role `admin` does not include these rights.
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": metadata(&gitseal), "rules": [
            {"apiGroups": ["bitnami.com"], "resources": ["sealedsecrets"], "verbs": verbs},
            {"apiGroups": ["gitseal.dev"], "resources": ["repositories", "syncs"], "verbs": verbs},
        ]}),
        binding(&gitseal, "Role", &gitseal),
    ]
}
