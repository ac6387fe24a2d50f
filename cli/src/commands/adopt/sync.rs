//! Makes the Sync for a release.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, anyhow, ensure};
use crds::{Repository, Sync};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use manifests::{Manifest, ObjectId, in_one_line};
use pipeline::{guard, namespace_for};
use sealing::Scope;
use serde_json::{Map, Value, json};

use super::{
    HelmArgs,
    release::{self, Release},
    secrets::{self, SecretValue},
    sync_of,
};
use crate::{
    certificate,
    chart_inputs::Surroundings,
    commands::capabilities,
    edit::{self, PlainSecret, Sealer},
    folder,
    global::Global,
    output::{self, Hint, OutputFormat, counted},
};

pub(super) async fn run(args: &HelmArgs, global: &Global) -> anyhow::Result<()> {
    let (name, namespace) = (&args.release, global.default_namespace());
    let path = args.path.as_deref().context("--path is required")?;
    let (root, inside) = folder::place(path)?;
    if !path.join("Chart.yaml").is_file() {
        return Err(Hint::error(
            format!("{} is not a chart: it has no Chart.yaml", path.display()),
            "put the chart of the release there, with the same version, for example with `helm pull … --untar`; `helm list` shows \
             the version",
        ));
    }
    let client = global.client().await?;
    let revisions = release::revisions(&client, &namespace, name).await?;
    let release = release::deployed(&revisions, name)?;
    drop(revisions);
    let finish = format!("gitseal adopt helm {name} -n {namespace} --finish");
    if let Some(sync) = sync_of(&client, &namespace, name).await? {
        return Err(Hint::error(
            format!("Sync {namespace}/{} renders this release already, so no other Sync is made", sync.name_any()),
            format!(
                "when it is Ready, let Helm forget the release: {finish}; to begin again, delete this Sync with `prune: false` in it"
            ),
        ));
    }
    other_version(path, &release);
    let repository = match &args.repository {
        Some(repository) => repository.clone(),
        None => only_repository(&client, &namespace).await?,
    };
    let is_whole = is_chart(&client, &namespace, &repository).await?;
    let split = secrets::split(&release.values, &release.objects);
    if !split.in_lists.is_empty() {
        return Err(Hint::error(
            format!("a value in a list cannot be sealed: {}", split.in_lists.join(", ")),
            "put these values into a Secret that you seal yourself, let the chart read this Secret, upgrade the release, \
             and run this command again",
        ));
    }
    let mut values_from = Vec::new();
    if is_whole && !split.secret.is_empty() {
        let paths: Vec<_> = split.secret.iter().map(|value| value.path.as_str()).collect();
        return Err(Hint::error(
            format!(
                "these values are in Secrets of the release, and Repository {repository} has nothing but a chart, so no file for \
                 them: {}",
                paths.join(", ")
            ),
            "put the chart into a Git repository, and name that Repository with --repository; or let the chart read these values \
             from a Secret that you seal yourself; in this case, first upgrade the release so that it uses this Secret",
        ));
    }
    let (mut sealed_file, values_sealed) = (None, split.secret.len());
    if !split.secret.is_empty() {
        let file = seal(args, global, &root, &namespace, split.secret).await?;
        values_from =
            file.1.iter().map(|(key, path)| json!({"sealedSecret": file.0, "key": key, "path": path})).collect();
        sealed_file = args.seal.as_deref();
    }
    let mut helm = Map::new();
    helm.insert("releaseName".to_owned(), name.clone().into());
    if !values_from.is_empty() {
        helm.insert("valuesFrom".to_owned(), values_from.into());
    }
    if !split.plain.is_empty() {
        helm.insert("values".to_owned(), split.plain.into());
    }
    let body = json!({
        "apiVersion": "gitseal.dev/v1alpha1",
        "kind": "Sync",
        "metadata": {
            "name": name, "namespace": namespace,
            "annotations": {(crds::names::INSTALLED): crds::names::INSTALLED_TRUE},
        },
        "spec": {
            "repository": {"name": repository},
            "path": if is_whole { "./".to_owned() } else { format!("./{inside}") },
            "helm": helm,
        },
    });
    let text = OutputFormat::Yaml.text(&body)?;
    let sync: Sync = serde_json::from_value(body)?;
    let rendered = match render(&client, path, &sync).await {
        Ok(rendered) => rendered,
        Err(error) => {
            // Without the Sync, the sealed values are of no use, and the next try would refuse to write over them.
            sealed_file.map(fs::remove_file).transpose().context("cannot remove the sealed values again")?;
            let chart_made = secrets::not_given(&release.values, &release.objects);
            let hint = if chart_made.is_empty() {
                "correct the chart in --path, and run the command again".to_owned()
            } else {
                format!(
                    "no value of the release sets {}: give the chart these values with `helm upgrade {name} … --reuse-values \
                     -f FILE`, and run the command again; it seals them",
                    chart_made.join(", ")
                )
            };
            return Err(error.context(Hint::new("the Sync cannot render the chart, so nothing is printed", hint)));
        }
    };
    if let Some(file) = sealed_file {
        output::note(format_args!("sealed {} into {}", counted(values_sealed, "value"), file.display()));
    }
    output::print_raw(text.as_bytes())?;
    for (value, object) in split.in_both {
        output::warn(format_args!("the value {value} is in a Secret and in {object}, so it is not sealed"));
    }
    for value in split.suspicious {
        output::warn(format_args!(
            "the value {value}, whose name sounds secret, is in no Secret of the release, so it is not sealed; look \
             at it before you commit the Sync"
        ));
    }
    let refused = guard(&sync, &rendered).err();
    if let Some(error) = &refused {
        output::warn(format_args!("the controller would refuse this Sync: {}", in_one_line(&error.to_string())));
    }
    compare(&sync, &release, &rendered);
    if refused.is_some() {
        let chart_made = secrets::not_given(&release.values, &release.objects);
        if !chart_made.is_empty() {
            output::note(format_args!(
                "next: the chart itself made up {}; choose these yourself with `helm upgrade {name} … --reuse-values -f FILE`, and run \
                 this command again: it seals what you chose",
                chart_made.join(", ")
            ));
        }
        return Ok(());
    }
    let files = sealed_file.map(|file| format!(" and {}", file.display())).unwrap_or_default();
    output::note(format_args!("next: commit the Sync{files}, and apply the Sync; when it is Ready: {finish}"));
    Ok(())
}

/// The objects that the Sync would apply.
async fn render(client: &Client, path: &Path, sync: &Sync) -> anyhow::Result<Vec<Manifest>> {
    let capabilities = capabilities(client).await.context("cannot ask the API server which kinds it serves")?;
    Ok(folder::read_for(path, sync, Surroundings { capabilities, ..Surroundings::default() })?.manifests)
}

/// Warns if the chart in the folder has another name or version than that of the release.
fn other_version(path: &Path, release: &Release) {
    #[derive(serde::Deserialize)]
    struct Chart {
        name: String,
        version: String,
    }
    let text = fs::read_to_string(path.join("Chart.yaml")).unwrap_or_default();
    // Helm says what is wrong with a file that cannot be read.
    let Ok(Chart { name, version }) = serde_saphyr::from_str(&text) else { return };
    let found = format!("{name}-{version}");
    if found != release.chart {
        output::warn(format_args!(
            "the chart in {} is {found}, but the release has {}: the Sync would change the release to {found}",
            path.display(),
            release.chart
        ));
    }
}

/// Whether the whole Repository is a chart, so that it has no other folders. A Repository that does not exist yet
/// counts as a Git repository.
async fn is_chart(client: &Client, namespace: &str, name: &str) -> anyhow::Result<bool> {
    let api: Api<Repository> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await.with_context(|| format!("cannot read the Repository {namespace}/{name}"))?;
    Ok(found.is_some_and(|found| found.spec.chart.is_some() || found.spec.url.starts_with("oci://")))
}

async fn only_repository(client: &Client, namespace: &str) -> anyhow::Result<String> {
    let api: Api<Repository> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await;
    let found = list.with_context(|| format!("cannot list the Repositories in the namespace {namespace}"))?.items;
    match found.as_slice() {
        [only] => Ok(only.name_any()),
        [] => Err(Hint::wrong_usage(
            format!("the namespace {namespace} has no Repository for the Sync"),
            "make a Repository for the repository with the chart, or name with --repository the one that you will make",
        )),
        several => {
            let names: Vec<_> = several.iter().map(kube::ResourceExt::name_any).collect();
            Err(Hint::wrong_usage(
                format!("the namespace {namespace} has several Repositories: {}", names.join(", ")),
                "name the Repository of the Sync with --repository",
            ))
        }
    }
}

/// Seals the secret values into a new file. Returns the path of the file in the repository, and for each value its key
/// in the Secret and its path in the values of the chart.
async fn seal(
    args: &HelmArgs,
    global: &Global,
    root: &Path,
    namespace: &str,
    values: Vec<SecretValue>,
) -> anyhow::Result<(String, Vec<(String, String)>)> {
    let paths: Vec<_> = values.iter().map(|value| value.path.clone()).collect();
    let Some(file) = &args.seal else {
        return Err(Hint::error(
            format!("these values are in Secrets of the release: {}", paths.join(", ")),
            "name a new file of the repository for the sealed values with --seal, for example --seal secrets/shop.yaml",
        ));
    };
    ensure!(!file.exists(), "{} exists already; name a new file with --seal", file.display());
    let certificate = certificate::fetch(global, args.cert.as_deref(), &args.trust).await?;
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let place = folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))?;
    let place = place
        .strip_prefix(root)
        .map_err(|_| anyhow!("{} is not in the repository {}", file.display(), root.display()))?;
    let name = file.file_name().with_context(|| format!("{} is not a file", file.display()))?;
    let inside = place.join(name).display().to_string();
    let sealer = Sealer {
        key: certificate.public_key(),
        scope: Some(Scope::NamespaceWide),
        namespace: Some(namespace.to_owned()),
        is_namespace_asked_for: true,
        allow_empty: false,
    };
    let keys = values.iter().map(|value| (value.key.clone(), value.path.clone())).collect();
    let secret = PlainSecret {
        name: args.release.clone(),
        namespace: Some(namespace.to_owned()),
        metadata: Map::new(),
        secret_type: None,
        immutable: None,
        data: values.into_iter().map(|SecretValue { key, value, .. }| (key, value)).collect(),
        origin: None,
    };
    let (body, _) = sealer.seal(&secret)?;
    edit::create(file, edit::new_document(&body)?.as_bytes())?;
    Ok((inside, keys))
}

/// Prints the differences between the objects that the Sync applies and those of the release.
fn compare(sync: &Sync, release: &Release, rendered: &[Manifest]) {
    let is_hook = |object: &&Manifest| {
        object.body.get("metadata").is_some_and(|metadata| !metadata["annotations"]["helm.sh/hook"].is_null())
    };
    let (hooks, rendered): (Vec<_>, Vec<_>) = rendered.iter().partition(is_hook);
    let id = |object: &Manifest| {
        let mut id = if object.id.is_sealed_secret() { object.id.secret() } else { object.id.clone() };
        id.namespace = Some(namespace_for(sync, id.namespace.as_deref()).to_owned());
        id
    };
    let by_id = |objects: &[&'_ Manifest]| -> BTreeMap<ObjectId, Map<String, Value>> {
        objects.iter().map(|object| (id(object), object.body.clone())).collect()
    };
    let mut before = by_id(&release.objects.iter().collect::<Vec<_>>());
    let after = by_id(&rendered);
    let all: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let (mut equal, mut lines, mut replaced) = (0, Vec::new(), Vec::new());
    for id in all {
        match (before.get(&id), after.get(&id)) {
            (Some(_), Some(_)) if id.is_secret() => {
                equal += 1;
                replaced.push(id);
            }
            (Some(old), Some(new)) if old == new => equal += 1,
            (Some(_), Some(_)) => lines.push(format!("{id} differs from the release; the Sync changes it")),
            (None, _) => lines.push(format!("{id} is not in the release; the Sync creates it")),
            (Some(_), None) => lines.push(format!("{id} is not in the chart; the Sync leaves it in the cluster")),
        }
    }
    for body in before.values_mut() {
        body.values_mut().for_each(edit::wipe);
    }
    let Release { revision, chart, .. } = release;
    output::note(format_args!(
        "revision {revision} of the release (chart {chart}) has {}; the Sync applies {equal} of them as they are",
        counted(release.objects.len(), "object")
    ));
    lines.iter().for_each(output::note);
    if !lines.is_empty() {
        output::note("`gitseal diff --sync FILE`, with the file of the Sync, shows each difference");
    }
    let runs_now = |hook: &&Manifest| {
        pipeline::plan::times(hook).is_ok_and(|times| times.usual) && !pipeline::plan::is_only_for_installation(hook)
    };
    for hook in hooks.into_iter().filter(runs_now) {
        output::note(format_args!("{}: the hook {} runs again when the Sync is applied", hook.origin, hook.id));
    }
    // People copy the command into a shell, so it contains no name that a shell would have to quote.
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    for id in { replaced }.into_iter().filter(|id| is_plain(&id.name) && id.namespace.as_deref().is_none_or(is_plain)) {
        let namespace = id.namespace.as_deref().unwrap_or_default();
        output::note(format_args!(
            "let the sealed values replace {id}: kubectl annotate secret -n {namespace} {} sealedsecrets.bitnami.com/managed=true",
            id.name
        ));
    }
}
