//! Remote bases: folders of other Git repositories that kustomizations name by URLs.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use crds::Repository;
use harness::{
    Plane, Scene, eventually,
    faults::{Fault, FaultProxy, Which},
    git::{GitServer, ServerOptions, WorkTree},
    kubernetes,
    programs::{Controller, ControllerOptions},
    web::{Access, FullPort},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{
    objects::{config_map, is_value},
    traces::{event, events, handled},
};

/// The entry of a kustomization for a folder of the repository `lib` of a server.
fn entry(server: &GitServer, folder: &str, reference: &str) -> String {
    format!("{}//{folder}?ref={reference}", server.url("lib"))
}

/// The repository `lib` with a ConfigMap in `base`, and the tag `v1`.
fn library(server: &GitServer) -> Result<WorkTree> {
    let tree = server.create("lib")?;
    tree.write("base/kustomization.yaml", "resources: [../shared]\n")?;
    tree.write("shared/kustomization.yaml", "resources: [map.yaml]\n")?;
    tree.write("shared/map.yaml", config_map("map", "one"))?;
    tree.publish("a base")?;
    tag(&tree, "v1")?;
    Ok(tree)
}

/// Sets or moves a tag.
fn tag(tree: &WorkTree, name: &str) -> Result<()> {
    tree.git(["tag", "--force", name])?;
    tree.git(["push", "--force", "origin", &format!("refs/tags/{name}")]).map(drop)
}

/// Adds folders `part-1` and so on to the repository `lib`, each with a ConfigMap and a tag of the same name.
fn parts(library: &WorkTree, numbers: Range<usize>) -> Result<()> {
    let names = numbers.map(|number| format!("part-{number}"));
    for part in names.clone() {
        library.write(&format!("{part}/kustomization.yaml"), "resources: [map.yaml]\n")?;
        library.write(&format!("{part}/map.yaml"), config_map(&part, "one"))?;
    }
    library.publish("parts")?;
    for part in names {
        tag(library, &part)?;
    }
    Ok(())
}

/// The entries of a kustomization for these parts.
fn of_parts(server: &GitServer, numbers: Range<usize>) -> String {
    let entries = numbers.map(|number| format!("part-{number}")).map(|part| entry(server, &part, &part));
    entries.collect::<Vec<_>>().join("\n- ")
}

fn overlay(scene: &Scene, prefix: &str, resource: &str) -> Result<()> {
    overlay_at(scene, "app", prefix, resource)
}

fn overlay_at(scene: &Scene, folder: &str, prefix: &str, resource: &str) -> Result<()> {
    let kustomization = format!("namePrefix: {prefix}-\nresources:\n- {resource}\n");
    scene.tree.write(&format!("{folder}/kustomization.yaml"), kustomization)
}

/// How many remote bases of the Repository `name` are on disk.
fn on_disk(plane: &Plane, scene: &Scene, name: &str) -> usize {
    let folder = plane.folder().join("git").join(&scene.namespace).join(format!("{name}@"));
    std::fs::read_dir(folder).into_iter().flatten().count()
}

/// The files in a folder and below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What the status records of remote bases: each reference with its revision.
async fn recorded(scene: &Scene) -> Result<Vec<(String, String)>> {
    let repository = scene.api::<Repository>().get("repo").await?;
    let remotes = repository.status.unwrap_or_default().remotes;
    Ok(remotes.into_iter().map(|remote| (remote.reference, remote.revision)).collect())
}

#[tokio::test]
async fn a_remote_base_is_fetched_if_the_repository_allows_it_and_its_tag_stays() -> Result<()> {
    let scene = Scene::new("remote-base").await?;
    let library = library(&scene.server)?;
    let url = scene.server.url("lib");
    overlay(&scene, "a", &entry(&scene.server, "base", "v1"))?;
    scene.publish("an overlay").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "BuildFailed").await?;
    for text in ["app/kustomization.yaml:3: ", &format!("{url}@v1"), "spec.remotes of the Repository"] {
        ensure!(message.contains(text), "no {text:?} in: {message}");
    }
    ensure!(scene.server.requests().iter().all(|request| !request.target.contains("lib.git")), "it was fetched");

    scene.repository(json!({"remotes": [{"url": url}]})).await?;
    is_value(&scene, "a-map", "one").await?;
    let first = library.head()?;
    eventually("the commit in the status", || async {
        let recorded = recorded(&scene).await?;
        ensure!(recorded == [("v1".to_owned(), format!("sha1:{first}"))], "{recorded:?}");
        Ok(())
    })
    .await?;

    // Somebody moves the tag. The base stays what it is, also for new commits.
    library.write("shared/map.yaml", config_map("map", "two"))?;
    let second = library.publish("another base")?;
    tag(&library, "v1")?;
    overlay(&scene, "b", &entry(&scene.server, "base", "v1"))?;
    let revision = scene.publish("another prefix").await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "b-map", "one").await?;

    overlay(&scene, "b", &entry(&scene.server, "base", &second))?;
    let revision = scene.publish("the new commit").await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "b-map", "two").await?;

    // A branch, and a tag that does not exist.
    for reference in ["main", "v9"] {
        overlay(&scene, "b", &entry(&scene.server, "base", reference))?;
        scene.publish("no tag").await?;
        let wanted = format!("tag \"{reference}\" was not found");
        let found = scene.sync_when("app", "the missing tag to be told", |_, ready| {
            ready.reason == "RemoteNotFetched" && ready.message.contains(&wanted)
        });
        let status = found.await?.status.unwrap_or_default();
        let told = format!("{:?}", status.conditions);
        ensure!(told.contains("the tags are: v1") && told.contains("a branch is not used"), "{told}");
    }
    is_value(&scene, "b-map", "two").await?;

    // It is no longer allowed: what was applied stays.
    overlay(&scene, "c", &entry(&scene.server, "base", "v1"))?;
    let revision = scene.publish("the tag again").await?;
    scene.is_applied("app", &revision).await?;
    scene.repository(json!({"remotes": [{"url": scene.server.url("library")}]})).await?;
    let message = scene.is_not_ready("app", "BuildFailed").await?;
    ensure!(message.contains("does not allow"), "{message}");
    is_value(&scene, "c-map", "one").await
}

#[tokio::test]
async fn a_tag_that_was_moved_is_told_and_used_when_somebody_accepts_that() -> Result<()> {
    let scene = Scene::new("remote-moved").await?;
    let library = library(&scene.server)?;
    let (url, first) = (scene.server.url("lib"), format!("sha1:{}", library.head()?));
    scene.repository(json!({"remotes": [{"url": url}]})).await?;
    overlay(&scene, "a", &entry(&scene.server, "base", "v1"))?;
    let revision = scene.publish("an overlay").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    let records = async |revision: &str, moved: Option<&str>| {
        eventually("the record", || async {
            let remotes = scene.api::<Repository>().get("repo").await?.status.unwrap_or_default().remotes;
            let [one] = &remotes[..] else { bail!("{remotes:?}") };
            ensure!(one.revision == revision && one.moved.as_deref() == moved, "{one:?}");
            Ok(())
        })
        .await
    };
    let asked = || scene.server.requests().iter().filter(|request| request.target.contains("lib.git")).count();
    library.write("shared/map.yaml", config_map("map", "two"))?;
    let second = format!("sha1:{}", library.publish("another base")?);
    tag(&library, "v1")?;
    // Its server is asked only when the Repository is fetched.
    let before = asked();
    handled(&scene, "app").await?;
    ensure!(asked() == before);
    scene.fetch().await?;
    records(&first, Some(&second)).await?;
    let told = [
        &format!("{url}@v1 leads to {second} now, and {first} is still used"),
        &format!(
            "kubectl annotate repository -n {} repo --overwrite gitseal.dev/accept-moved={second}",
            scene.namespace
        ),
    ];
    event(&scene, "repo", "RemoteMoved", &told.map(String::as_str)).await?;
    is_value(&scene, "a-map", "one").await?;
    scene.fetch().await?;
    let status = scene.api::<Repository>().get("repo").await?.status.unwrap_or_default();
    let ready = crds::find_condition(&status.conditions, "Ready").context("Ready")?;
    ensure!(ready.reason == "Fetched" && ready.message.contains("v1 leads to something else now"), "{ready:?}");

    // It is used.
    scene.annotate::<Repository>("repo", crds::names::ACCEPT_MOVED, &second).await?;
    is_value(&scene, "a-map", "two").await?;
    records(&second, None).await?;
    ensure!(events(&scene, "repo", "RemoteMoved").await?.len() == 1);

    // The tag is moved again. What was accepted before does not count for that.
    library.write("shared/map.yaml", config_map("map", "three"))?;
    let third = format!("sha1:{}", library.publish("a third base")?);
    tag(&library, "v1")?;
    scene.fetch().await?;
    records(&second, Some(&third)).await?;
    handled(&scene, "app").await?;
    is_value(&scene, "a-map", "two").await
}

#[tokio::test]
async fn a_server_that_is_away_delays_only_the_syncs_that_need_it() -> Result<()> {
    let scene = Scene::new("remote-away").await?;
    let other = GitServer::new(ServerOptions::default())?;
    let library = library(&other)?;
    scene.repository(json!({"remotes": [{"url": format!("{}/", other.base())}]})).await?;
    overlay(&scene, "a", &entry(&other, "base", "v1"))?;
    scene.tree.write("plain/map.yaml", config_map("plain", "1"))?;
    let first = scene.publish("an overlay, and a plain folder").await?;
    for (name, path) in [("app", "./app"), ("plain", "./plain")] {
        scene.sync(name, path, json!({})).await?;
        scene.is_applied(name, &first).await?;
    }
    library.write("shared/map.yaml", config_map("map", "two"))?;
    library.publish("another base")?;
    tag(&library, "v2")?;
    other.stop();

    overlay(&scene, "a", &entry(&other, "base", "v2"))?;
    scene.tree.write("plain/map.yaml", config_map("plain", "2"))?;
    let second = scene.publish("the next version").await?;
    scene.is_applied("plain", &second).await?;
    let found = scene.sync_when("app", "the failure to be told", |_, ready| {
        ready.reason == "RemoteNotFetched" && ready.message.contains("cannot fetch from 127.0.0.1:")
    });
    found.await?;
    let repository = scene.api::<Repository>().get("repo").await?.status.unwrap_or_default();
    ensure!(repository.conditions.iter().any(|one| one.reason == "Fetched"), "{:?}", repository.conditions);
    // The last good revision is put back.
    scene.api::<ConfigMap>().delete("a-map", &DeleteParams::default()).await?;
    is_value(&scene, "a-map", "one").await?;

    // Nobody asks for a fetch: it is tried again.
    other.start()?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "a-map", "two").await
}

#[tokio::test]
async fn a_remote_base_that_arrives_does_not_have_its_repository_fetched() -> Result<()> {
    let scene = Scene::new("remote-arrives").await?;
    let other = GitServer::new(ServerOptions::default())?;
    let library = library(&other)?;
    tag(&library, "v2")?;
    scene.repository(json!({"remotes": [{"url": other.url("lib")}]})).await?;
    overlay(&scene, "a", &entry(&other, "base", "v1"))?;
    overlay_at(&scene, "later", "b", &entry(&other, "base", "v2"))?;
    let revision = scene.publish("two overlays").await?;
    // The Repository waits for its next fetch, which is due in an hour.
    let asked = scene.server.request_count();
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    handled(&scene, "app").await?;
    ensure!(scene.server.request_count() == asked, "{:?}", scene.server.requests());

    // Its server asks for a pause.
    scene.server.be_busy(Some(3600));
    scene.fetch().await?;
    scene.repository_fails("TooManyRequests").await?;
    let asked = scene.server.request_count();
    scene.sync("later", "./later", json!({})).await?;
    scene.is_applied("later", &revision).await?;
    is_value(&scene, "b-map", "one").await?;
    handled(&scene, "later").await?;
    ensure!(recorded(&scene).await?.len() == 2 && scene.server.request_count() == asked);
    scene.repository_fails("TooManyRequests").await?;
    // A request does not wait.
    scene.server.be_busy(None);
    scene.publish("after the pause").await.map(drop)
}

#[tokio::test]
async fn credentials_go_only_to_the_repositories_that_they_are_for() -> Result<()> {
    const OWN: &str = "own-password-93fd";
    const OTHER: &str = "other-password-71ab";
    let access = |password: &str| Access::Basic { username: "reader".into(), password: password.into() };
    let options = |password| ServerOptions { access: access(password), tls: true, ..ServerOptions::default() };
    let plane = Plane::shared().await?;
    let scene = Scene::on(plane, "remote-private", options(OWN)).await?;
    let private = GitServer::new(options(OTHER))?;
    let open = GitServer::new(ServerOptions { tls: true, ..ServerOptions::default() })?;
    library(&private)?;
    library(&open)?;
    let secret = async |name: &str, password: Option<&str>, server: &GitServer| -> Result<()> {
        let mut data = json!({"ca.crt": server.certificate_authority().context("an authority")?});
        if let Some(password) = password {
            data["username"] = json!("reader");
            data["password"] = json!(password);
        }
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        kubernetes::apply(&scene.client, &scene.namespace, secret).await.map(drop)
    };
    secret("own", Some(OWN), &scene.server).await?;
    secret("private", None, &private).await?;
    secret("open", None, &open).await?;
    scene
        .repository(json!({"secretRef": {"name": "own"}, "remotes": [
            {"url": private.url("lib"), "secretRef": {"name": "private"}},
            {"url": open.url("lib"), "secretRef": {"name": "open"}},
        ]}))
        .await?;
    overlay(&scene, "a", &entry(&private, "base", "v1"))?;
    scene.publish("a private base").await?;
    scene.sync("app", "./app", json!({})).await?;
    let found = scene.sync_when("app", "credentials to be asked for", |_, ready| {
        ready.reason == "RemoteNotFetched" && ready.message.contains("secretRef in spec.remotes")
    });
    found.await?;
    ensure!(private.requests().iter().all(|request| !request.with_credentials), "it got other credentials");

    secret("private", Some(OTHER), &private).await?;
    is_value(&scene, "a-map", "one").await?;
    overlay(&scene, "b", &entry(&open, "base", "v1"))?;
    let revision = scene.publish("an open base").await?;
    scene.is_applied("app", &revision).await?;
    ensure!(open.requests().iter().all(|request| !request.with_credentials), "it got credentials");
    let log = plane.log().await;
    ensure!(!log.contains(OWN) && !log.contains(OTHER), "a password is in the log");
    Ok(())
}

#[tokio::test]
async fn a_redirect_takes_no_credentials_to_another_host_or_path() -> Result<()> {
    const PASSWORD: &str = "password-of-bases-77c1";
    let access = || Access::Basic { username: "reader".into(), password: PASSWORD.into() };
    let options = |access| ServerOptions { access, tls: true, ..ServerOptions::default() };
    let scene = Scene::new("remote-redirect").await?;
    let (server, other) = (GitServer::new(options(access()))?, GitServer::new(options(access()))?);
    let open = GitServer::new(options(Access::Anonymous))?;
    library(&server)?;
    library(&other)?;
    library(&open)?;
    // The same credentials would open this, too.
    server.create("private")?.publish("private")?;
    let authorities: Vec<_> = [&server, &other, &open].iter().filter_map(|one| one.certificate_authority()).collect();
    let data = json!({"ca.crt": authorities.concat(), "username": "reader", "password": PASSWORD});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bases"}, "stringData": data});
    kubernetes::apply(&scene.client, &scene.namespace, secret).await?;
    let allowed = json!([{"url": server.url("lib"), "secretRef": {"name": "bases"}}]);
    scene.repository(json!({"remotes": allowed})).await?;
    scene.sync("app", "./app", json!({})).await?;
    let host = |server: &GitServer| server.base().trim_start_matches("https://").to_owned();
    let told = async |reference: &str, to: &GitServer| -> Result<()> {
        overlay(&scene, "a", &entry(&server, "base", reference))?;
        let revision = scene.publish(reference).await?;
        let texts = [
            &format!("cannot fetch from {}: the server answers with status 401", host(to)),
            &format!("the credentials of secretRef in spec.remotes are sent only to {}/lib/", host(&server)),
            reference,
        ];
        let found = scene.sync_when("app", "the redirect to be told", |sync, ready| {
            let attempted = sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_ref());
            attempted == Some(&revision)
                && ready.reason == "RemoteNotFetched"
                && texts.iter().all(|text| ready.message.contains(*text))
        });
        found.await.map(drop)
    };
    for status in [301, 302, 307] {
        server.move_with(status, "lib.git", &other.url("lib"));
        told(&format!("host-{status}"), &other).await?;
        server.move_with(status, "lib.git", &server.url("private"));
        told(&format!("path-{status}"), &server).await?;
    }
    let asked = other.requests();
    ensure!(!asked.is_empty() && asked.iter().all(|request| !request.with_credentials), "{asked:?}");
    let asked: Vec<_> =
        server.requests().into_iter().filter(|request| request.target.starts_with("/private.git/")).collect();
    ensure!(!asked.is_empty() && asked.iter().all(|request| !request.with_credentials), "{asked:?}");

    // What everybody may read is read, without the credentials.
    server.move_with(301, "lib.git", &open.url("lib"));
    overlay(&scene, "a", &entry(&server, "base", "v1"))?;
    let revision = scene.publish("an open base").await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "a-map", "one").await?;
    let asked = open.requests();
    ensure!(!asked.is_empty() && asked.iter().all(|request| !request.with_credentials), "{asked:?}");
    let log = Plane::shared().await?.log().await;
    ensure!(!log.contains(PASSWORD), "a password is in the log");
    Ok(())
}

#[tokio::test]
async fn a_deleted_repository_does_not_wait_for_the_fetch_of_a_remote_base() -> Result<()> {
    let plane = Plane::shared().await?;
    let scene = Scene::new("remote-deleted").await?;
    let full = FullPort::new()?;
    library(&scene.server)?;
    scene.repository(json!({"timeout": "10m", "remotes": [{"url": format!("{}/", full.base()?)}]})).await?;
    overlay(&scene, "a", &format!("{}/lib.git//base?ref=v1", full.base()?))?;
    scene.publish("a base that does not come").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_not_ready("app", "RemoteNotFetched").await?;
    eventually("the fetch to hang", || async {
        ensure!(full.is_tried()? && on_disk(plane, &scene, "repo") == 1, "nobody connects");
        Ok(())
    })
    .await?;
    scene.api::<Repository>().delete("repo", &DeleteParams::default()).await?;
    scene.is_not_ready("app", "RepositoryNotFound").await?;
    eventually("its files to be gone", || async {
        let left = files(&plane.folder().join("git").join(&scene.namespace));
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    // A new one of the same name does not wait, either.
    scene.repository(json!({"remotes": [{"url": scene.server.url("lib")}]})).await?;
    overlay(&scene, "a", &entry(&scene.server, "base", "v1"))?;
    let revision = scene.publish("a base that comes").await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "a-map", "one").await
}

#[tokio::test]
async fn a_kill_between_a_fetch_and_its_record_leaves_nothing() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "remote-kill", ServerOptions::default()).await?;
    let proxy = FaultProxy::start(plane.cluster.kubeconfig()).await?;
    let folder = plane.folder();
    let start = async || -> Result<Controller> {
        let mut controller = Controller::start(&ControllerOptions::new(proxy.kubeconfig(), &folder))?;
        controller.ready().await?;
        Ok(controller)
    };
    let library = library(&scene.server)?;
    tag(&library, "v2")?;
    let controller = start().await?;
    scene.repository(json!({"remotes": [{"url": scene.server.url("lib")}]})).await?;
    overlay(&scene, "a", &entry(&scene.server, "base", "v1"))?;
    scene.publish("an overlay").await?;
    let status = || Which::method(http::Method::PATCH).path("/repositories/repo/status");
    let interrupted = async |controller: Controller, held: &harness::faults::Injected, count: usize| -> Result<()> {
        eventually("a record that is not written", || async {
            ensure!(held.hits() > 0 && on_disk(&plane, &scene, "repo") == count, "nothing was fetched");
            Ok(())
        })
        .await?;
        controller.kill()
    };

    // The fetch has ended, and its record is not written.
    let held = proxy.inject(status(), Fault::Hold);
    scene.sync("app", "./app", json!({})).await?;
    interrupted(controller, &held, 1).await?;
    ensure!(recorded(&scene).await?.is_empty(), "it is recorded");
    ensure!(scene.get("v1", "ConfigMap", "a-map").await?.is_none(), "it was used before it was recorded");
    held.lift();
    // Meanwhile, somebody moves the tag: whatever is used now is what is recorded.
    library.write("shared/map.yaml", config_map("map", "two"))?;
    let second = library.publish("another base")?;
    tag(&library, "v1")?;
    let controller = start().await?;
    is_value(&scene, "a-map", "two").await?;
    ensure!(recorded(&scene).await? == [("v1".to_owned(), format!("sha1:{second}"))]);
    ensure!(on_disk(&plane, &scene, "repo") == 1);

    // The same for a base that nobody wants any more after the restart.
    let held = proxy.inject(status(), Fault::Hold);
    overlay(&scene, "a", &entry(&scene.server, "base", "v2"))?;
    scene.tree.publish("another tag")?;
    scene.request::<Repository>("repo").await?;
    interrupted(controller, &held, 2).await?;
    held.lift();
    scene.tree.write("app/kustomization.yaml", "resources: [map.yaml]\n")?;
    scene.tree.write("app/map.yaml", config_map("own", "1"))?;
    scene.tree.publish("no base")?;
    let _controller = start().await?;
    is_value(&scene, "own", "1").await?;
    // If the commit with that base was rendered once more before the next commit arrived, the base is recorded.
    let pins = recorded(&scene).await?;
    ensure!(pins.contains(&("v1".to_owned(), format!("sha1:{second}"))), "{pins:?}");
    ensure!(on_disk(&plane, &scene, "repo") == pins.len(), "something is on disk that is not recorded: {pins:?}");
    Ok(())
}

#[tokio::test]
async fn a_remote_base_reads_only_its_own_repository_and_other_bases_that_are_allowed() -> Result<()> {
    let scene = Scene::new("remote-inside").await?;
    let library = library(&scene.server)?;
    let further = scene.server.create("further")?;
    further.write("deep/kustomization.yaml", "resources: [map.yaml]\n")?;
    further.write("deep/map.yaml", config_map("deep", "further"))?;
    further.publish("a further base")?;
    tag(&further, "v1")?;
    scene.tree.write("private.txt", "of the tenant")?;
    scene.repository(json!({"remotes": [{"url": scene.server.url("lib")}]})).await?;
    scene.sync("app", "./app", json!({})).await?;
    let up = "../".repeat(12);
    let deep = format!("{}//deep?ref=v1", scene.server.url("further"));
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: plain}\nstringData: {a: b}\n";
    library.write("base/secret.yaml", secret)?;
    for (number, (kustomization, reason, text)) in [
        (format!("configMapGenerator: [{{name: a, files: [{up}private.txt]}}]\n"), "BuildFailed", "private.txt"),
        (
            format!("configMapGenerator: [{{name: a, files: [{up}app/kustomization.yaml]}}]\n"),
            "BuildFailed",
            "app/kustomization.yaml",
        ),
        (format!("resources: [{up}app]\n"), "BuildFailed", "app"),
        (format!("resources: ['{deep}']\n"), "BuildFailed", "does not allow"),
        ("resources: [missing.yaml]\n".to_owned(), "BuildFailed", "lib.git@t"),
        ("resources: [secret.yaml]\n".to_owned(), "PlaintextSecret", "//base/secret.yaml:1"),
    ]
    .into_iter()
    .enumerate()
    {
        library.write("base/kustomization.yaml", &kustomization)?;
        library.publish("an attempt")?;
        tag(&library, &format!("t{number}"))?;
        overlay(&scene, "a", &entry(&scene.server, "base", &format!("t{number}")))?;
        let revision = scene.publish("the next attempt").await?;
        let what = format!("{reason} for {kustomization}");
        let found = scene.sync_when("app", &what, |sync, ready| {
            let attempted = sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_ref());
            attempted == Some(&revision) && ready.reason == reason
        });
        let status = found.await?.status.unwrap_or_default();
        let message = status.conditions.iter().find(|one| one.type_ == "Ready").context("Ready")?.message.clone();
        ensure!(message.contains(text), "no {text:?} in: {message}");
        ensure!(!message.contains(".gitseal-"), "{message}");
    }

    // The further base is allowed now.
    library.write("base/kustomization.yaml", format!("resources: [../shared, '{deep}']\n"))?;
    library.publish("a base with a base")?;
    tag(&library, "v2")?;
    overlay(&scene, "a", &entry(&scene.server, "base", "v2"))?;
    let revision = scene.publish("a base with a base").await?;
    scene
        .repository(json!({"remotes": [{"url": scene.server.url("lib")}, {"url": scene.server.url("further")}]}))
        .await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "a-deep", "further").await?;
    is_value(&scene, "a-map", "one").await
}

#[tokio::test]
async fn a_repository_with_the_longest_name_uses_remote_bases() -> Result<()> {
    let plane = Plane::shared().await?;
    let scene = Scene::new("remote-long").await?;
    let name = "n".repeat(253);
    library(&scene.server)?;
    overlay(&scene, "a", &entry(&scene.server, "base", "v1"))?;
    scene.tree.publish("an overlay")?;
    let repository = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": name},
        "spec": {"url": scene.server.url("repo"), "remotes": [{"url": scene.server.url("lib")}]},
    });
    kubernetes::apply(&scene.client, &scene.namespace, repository).await?;
    scene.sync("app", "./app", json!({"repository": {"name": name}})).await?;
    is_value(&scene, "a-map", "one").await?;
    ensure!(on_disk(plane, &scene, &name) == 1);
    scene.api::<Repository>().delete(&name, &DeleteParams::default()).await?;
    eventually("its files to be gone", || async {
        ensure!(on_disk(plane, &scene, &name) == 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_commit_can_exchange_all_remote_bases_of_a_folder() -> Result<()> {
    let scene = Scene::new("remote-exchange").await?;
    let library = library(&scene.server)?;
    parts(&library, 0..49)?;
    scene.repository(json!({"remotes": [{"url": scene.server.url("lib")}]})).await?;
    scene.sync("app", "./app", json!({"pruneLimit": "100%"})).await?;
    let applied = async |entries: String, number: usize| -> Result<()> {
        overlay(&scene, "a", &entries)?;
        let revision = scene.publish("other parts").await?;
        scene.is_applied("app", &revision).await?;
        is_value(&scene, &format!("a-part-{number}"), "one").await
    };
    let of = |numbers| of_parts(&scene.server, numbers);
    applied(of(0..16), 15).await?;
    // Another one in the place of one of them: the last of the list, and the first.
    applied(of(1..17), 16).await?;
    applied([of(17..18), of(2..17)].join("\n- "), 17).await?;
    scene.is_gone("v1", "ConfigMap", "a-part-0").await?;
    // All others, again and again.
    applied(of(32..48), 32).await?;
    applied(of(0..16), 0).await?;
    applied(of(16..32), 31).await?;
    let kept = recorded(&scene).await?.len();
    ensure!(kept <= 32, "{kept}");

    // More than a folder may use.
    overlay(&scene, "a", &of(32..49))?;
    scene.publish("too many").await?;
    let message = scene.is_not_ready("app", "BuildFailed").await?;
    ensure!(
        message.contains("lib.git@part-48: the folder uses more than 16 other repositories and charts"),
        "{message}"
    );
    is_value(&scene, "a-part-31", "one").await
}

#[tokio::test]
async fn a_restart_without_the_other_server_renders_from_the_disk() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "remote-restart", ServerOptions::default()).await?;
    let other = GitServer::new(ServerOptions::default())?;
    let library = library(&other)?;
    // As many tags as a folder may use.
    parts(&library, 1..16)?;
    let resources = [entry(&other, "base", "v1"), of_parts(&other, 1..16)].join("\n- ");
    scene.repository(json!({"remotes": [{"url": other.url("lib")}]})).await?;
    overlay(&scene, "a", &resources)?;
    let first = scene.publish("an overlay").await?;
    scene.sync("app", "./app", json!({"pruneLimit": "100%"})).await?;
    scene.is_applied("app", &first).await?;
    // They are recorded before they are used.
    let before = recorded(&scene).await?;
    ensure!(before.len() == 16, "{before:?}");

    plane.controller.lock().await.take().context("a controller")?.kill()?;
    other.stop();
    scene.api::<ConfigMap>().delete("a-map", &DeleteParams::default()).await?;
    let folder = plane.folder();
    let options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    is_value(&scene, "a-map", "one").await?;
    // Another commit, whose render is not on disk.
    overlay(&scene, "b", &resources)?;
    let second = scene.publish("another prefix").await?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "b-map", "one").await?;
    controller.kill()?;

    // Another replica without the disk: the tags were moved meanwhile, and the recorded commits are fetched.
    library.write("shared/map.yaml", config_map("map", "two"))?;
    library.write("part-9/map.yaml", config_map("part-9", "two"))?;
    library.publish("another base")?;
    for name in ["v1", "part-9"] {
        tag(&library, name)?;
    }
    other.start()?;
    let folder = tempfile::tempdir()?;
    let options = ControllerOptions::new(plane.cluster.kubeconfig(), folder.path());
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    overlay(&scene, "c", &resources)?;
    let third = scene.publish("a third prefix").await?;
    scene.is_applied("app", &third).await?;
    is_value(&scene, "c-map", "one").await?;
    is_value(&scene, "c-part-9", "one").await?;
    let after = recorded(&scene).await?;
    ensure!(after == before, "{before:?} {after:?}");
    Ok(())
}

#[tokio::test]
async fn entries_that_could_not_be_used_are_refused_by_the_api() -> Result<()> {
    let scene = Scene::new("remote-entries").await?;
    let api: Api<Repository> = scene.api();
    let refused = async |remotes: Value| -> Result<String> {
        let patch = json!({"spec": {"remotes": remotes}});
        let result = api.patch("repo", &PatchParams::default(), &Patch::Merge(&patch)).await;
        Ok(result.err().context("it is accepted")?.to_string())
    };
    for url in [
        "git@git.example:app",
        "ssh://git.example/app",
        "https://me:x@git.example/app",
        "https://git.example/app?ref=v1",
        "https://git.example/%2e%2e/app",
        "",
    ] {
        let told = refused(json!([{"url": url}])).await?;
        ensure!(told.contains("spec.remotes[0].url"), "{url}: {told}");
    }
    let told = refused(json!([{"url": "http://git.example/app", "secretRef": {"name": "a"}}])).await?;
    ensure!(told.contains("plain http"), "{told}");
    Ok(())
}
