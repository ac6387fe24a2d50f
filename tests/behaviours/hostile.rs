//! Hostile files that a tenant pushes. Each is refused with a message that names it, the last good revision stays
//! applied, and the neighbours are not affected.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use crds::ConditionStatus;
use harness::{Plane, Scene, eventually, kubernetes};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::objects::config_map;

/// A repository of two tenants: `./tenant`, who turns hostile, and `./neighbour`.
struct Estate {
    scene: Scene,
    /// The last good revision of the tenant.
    good: String,
    /// The tenant's object in the last good revision.
    kept: Value,
}

impl Estate {
    async fn new(name: &str) -> Result<Self> {
        let scene = Scene::new(name).await?;
        scene.tree.write("tenant/kept.yaml", config_map("kept", "good"))?;
        scene.tree.write("neighbour/map.yaml", config_map("neighbour", "quiet"))?;
        let good = scene.publish("two tenants").await?;
        for sync in ["tenant", "neighbour"] {
            scene.sync(sync, &format!("./{sync}"), json!({})).await?;
            scene.is_applied(sync, &good).await?;
        }
        let kept = scene.has("v1", "ConfigMap", "kept", json!({})).await?;
        Ok(Self { scene, good, kept })
    }

    /// Commits the files that the test wrote for the tenant, together with a change of the neighbour's file. Checks
    /// that the tenant's folder is refused with these texts in the message, and that the neighbour's change is applied.
    async fn refuses(&self, what: &str, reason: &str, texts: &[&str]) -> Result<()> {
        let scene = &self.scene;
        scene.tree.write("neighbour/map.yaml", config_map("neighbour", what))?;
        let revision = scene.publish(what).await?;
        scene.is_applied("neighbour", &revision).await?;
        scene.has("v1", "ConfigMap", "neighbour", json!({"data": {"value": what}})).await?;
        let refused = scene
            .sync_when("tenant", &format!("{what} to be refused"), |sync, ready| {
                let status = sync.status.as_ref().unwrap();
                status.last_attempted_revision.as_ref() == Some(&revision) && ready.status == ConditionStatus::False
            })
            .await?;
        let status = refused.status.unwrap();
        let ready = crds::find_condition(&status.conditions, "Ready").context("no Ready")?;
        assert_eq!(ready.reason, reason, "{what}: {}", ready.message);
        for text in texts {
            assert!(ready.message.contains(text), "{what}: no {text:?} in: {}", ready.message);
        }
        assert!(ready.message.len() < 1000, "{what}: {}", ready.message);
        assert_eq!(status.last_applied_revision.as_ref(), Some(&self.good), "{what}");
        let kept = scene.get("v1", "ConfigMap", "kept").await?;
        assert_eq!(kept.as_ref(), Some(&self.kept), "{what}");
        Ok(())
    }

    /// Checks that a good commit is applied again, and that the controller was not restarted.
    async fn recovers(&self) -> Result<()> {
        let scene = &self.scene;
        scene.tree.write("tenant/kept.yaml", config_map("kept", "better"))?;
        let revision = scene.publish("good again").await?;
        scene.is_applied("tenant", &revision).await?;
        scene.has("v1", "ConfigMap", "kept", json!({"data": {"value": "better"}})).await?;
        let controller = Plane::shared().await?.controller.lock().await;
        controller.as_ref().context("a controller")?.fetch("/readyz").await.map(drop)
    }
}

/// A case: its name, the file, the file's bytes, the reason of the refusal, and texts in its message.
type Case<'a> = (&'a str, &'a str, &'a [u8], &'a str, &'a [&'a str]);

/// Anchors, each of which contains the one before ten times. Together they expand to billions of values.
fn alias_bomb() -> String {
    let mut text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\na0: &a0 [x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    text
}

#[tokio::test]
async fn files_that_are_no_manifests_are_refused_by_name() -> Result<()> {
    let estate = Estate::new("files").await?;
    let binary: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let large = format!("{}# {}\n", config_map("large", "x"), "x".repeat(50_000_000));
    let yaml_brackets = format!("{}bad: {}\n", config_map("deep", "x"), "[".repeat(100_000));
    let json_brackets = "[".repeat(100_000);
    let aliases = alias_bomb();
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let cases: [Case<'_>; 7] = [
        ("binary", "x.yaml", &binary, "InvalidManifest", &["tenant/x.yaml:2", "not text"]),
        ("large", "x.yaml", large.as_bytes(), "TooLarge", &["tenant/x.yaml", "a file of 50000", ".gitsealignore"]),
        ("aliases", "x.yaml", aliases.as_bytes(), "InvalidManifest", &["tenant/x.yaml:", "expand to too much"]),
        ("brackets", "x.yaml", yaml_brackets.as_bytes(), "InvalidManifest", &["tenant/x.yaml:7", "nested deeper"]),
        ("json", "x.json", json_brackets.as_bytes(), "InvalidManifest", &["tenant/x.json:1", "nested deeper"]),
        ("lfs", "x.yml", lfs.as_bytes(), "LfsNotSupported", &["tenant/x.yml", "Git LFS"]),
        (
            "kustomize",
            "kustomization.yaml",
            b"resources: [../../../etc/passwd]\n",
            "BuildFailed",
            &["tenant: Kustomize: ", "etc/passwd"],
        ),
    ];
    for (what, file, bytes, reason, texts) in cases {
        let path = format!("tenant/{file}");
        estate.scene.tree.write(&path, bytes)?;
        estate.refuses(what, reason, texts).await?;
        estate.scene.tree.remove(&path)?;
    }
    estate.recovers().await
}

#[tokio::test]
async fn links_pointers_and_broken_files_are_named_at_once() -> Result<()> {
    let estate = Estate::new("at-once").await?;
    let tree = &estate.scene.tree;
    tree.symlink("tenant/a.yaml", "kept.yaml")?;
    tree.write("tenant/b.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")?;
    tree.write("tenant/c.yaml", "a: 1\na: 2\n")?;
    tree.symlink("tenant/d.json", "/etc/passwd")?;
    let texts = [
        "tenant/a.yaml is a symbolic link",
        "tenant/b.yaml is a Git LFS pointer",
        "tenant/c.yaml:2: duplicate key a",
        "tenant/d.json is a symbolic link",
    ];
    estate.refuses("all of them", "SymlinkRefused", &texts).await?;
    for path in ["a.yaml", "b.yaml", "c.yaml", "d.json"] {
        tree.remove(&format!("tenant/{path}"))?;
    }
    estate.recovers().await
}

#[tokio::test]
async fn what_leads_elsewhere_is_not_followed() -> Result<()> {
    let estate = Estate::new("links").await?;
    let tree = &estate.scene.tree;
    for (what, target) in [("file", "../neighbour/map.yaml"), ("folder", "../neighbour"), ("outside", "/etc/passwd")] {
        tree.symlink("tenant/link.yaml", target)?;
        estate.refuses(what, "SymlinkRefused", &["tenant/link.yaml is a symbolic link"]).await?;
        tree.remove("tenant/link.yaml")?;
    }
    tree.git(["init", "--quiet", "tenant/module"])?;
    tree.git(["-C", "tenant/module", "commit", "--quiet", "--allow-empty", "--message", "inner"])?;
    estate.refuses("submodule", "SubmoduleRefused", &["tenant/module is a submodule"]).await?;
    tree.remove("tenant/module")?;
    estate.recovers().await
}

#[tokio::test]
async fn names_cannot_leave_their_place_in_a_url() -> Result<()> {
    let estate = Estate::new("names").await?;
    let good = config_map("hostile", "x");
    let named = |name: &str| good.replace("name: hostile", &format!("name: '{name}'"));
    let typed = |api_version: &str| good.replace("apiVersion: v1", &format!("apiVersion: '{api_version}'"));
    let cases = [
        (named(".."), "metadata.name"),
        (named("../../../kube-system/configmaps/x"), "metadata.name"),
        (named("a%2Fb"), "metadata.name"),
        (good.replace("name: hostile", "name: hostile\n  namespace: ../kube-system"), "metadata.namespace"),
        (good.replace("kind: ConfigMap", "kind: ../ConfigMap"), "kind"),
        (typed("../hostile"), "apiVersion"),
        (typed("hostile.example.com/.."), "apiVersion"),
        (typed("hostile?x=y/v1"), "apiVersion"),
        (typed("v1#hostile"), "apiVersion"),
    ];
    for (round, (file, field)) in cases.into_iter().enumerate() {
        estate.scene.tree.write("tenant/x.yaml", format!("---\n{file}"))?;
        let expected = format!("render: tenant/x.yaml:2: {field} is not valid");
        estate.refuses(&format!("case-{round}"), "InvalidManifest", &[&expected]).await?;
    }
    // This name is allowed in a URL, but the API server refuses it.
    estate.scene.tree.write("tenant/x.yaml", named("a..b"))?;
    estate.refuses("dots", "ApplyFailed", &["tenant/x.yaml:1: ConfigMap", "a..b"]).await?;
    estate.scene.tree.remove("tenant/x.yaml")?;
    estate.recovers().await?;
    let requests = Plane::shared().await?.cluster.requests()?;
    let led_astray = requests.iter().find(|request| {
        let path = request.uri.split('?').next().unwrap_or_default();
        path.split('/').any(|part| part == "..") || request.uri.contains("x=y") || path.contains("hostile.example")
    });
    assert_eq!(led_astray, None);
    Ok(())
}

#[tokio::test]
async fn a_path_cannot_climb_out() -> Result<()> {
    let estate = Estate::new("paths").await?;
    let scene = &estate.scene;
    for (path, text) in [
        ("../..", "must stay inside the repository"),
        ("tenant/../neighbour", "must stay inside the repository"),
        ("/etc", "relative to the repository's root"),
    ] {
        let refused = scene.sync("climber", path, json!({})).await.expect_err(path);
        assert!(refused.to_string().contains(text), "{path}: {refused}");
    }
    scene.tree.symlink("link", "tenant")?;
    scene.tree.symlink("out", "/etc")?;
    scene.publish("links to folders").await?;
    for (name, path, reason, text) in [
        ("link", "./link", "NotAFolder", "symbolic link"),
        ("out", "./out/kubernetes", "NotAFolder", "symbolic link"),
        ("file", "./tenant/kept.yaml", "NotAFolder", "is a file"),
        ("typo", "./tenent", "PathNotFound", "tenant"),
        ("git", "./.git", "PathNotFound", "does not exist"),
    ] {
        scene.sync(name, path, json!({})).await?;
        let message = scene.is_not_ready(name, reason).await?;
        assert!(message.contains(text), "{path}: no {text:?} in: {message}");
    }
    estate.recovers().await
}

#[tokio::test]
async fn large_but_good_is_applied() -> Result<()> {
    const OBJECTS: usize = 2000;
    let estate = Estate::new("large").await?;
    let scene = &estate.scene;
    let long = "x".repeat(900_000);
    scene.tree.write("tenant/long.yaml", config_map("long", &long))?;
    let mut many = String::new();
    for number in 0..OBJECTS {
        write!(many, "---\n{}", config_map(&format!("many-{number}"), "x"))?;
    }
    scene.tree.write("tenant/many.yaml", many)?;
    let revision = scene.publish("large").await?;
    let sync = scene.is_applied("tenant", &revision).await?;
    assert_eq!(sync.status.unwrap().inventory.len(), OBJECTS + 2);
    scene.has("v1", "ConfigMap", "long", json!({"data": {"value": long}})).await?;
    let maps = kubernetes::objects(&scene.client, &scene.namespace, "v1", "ConfigMap");
    let ours = ListParams::default().labels("gitseal.dev/sync-name=tenant");
    eventually("all objects to be there", || async {
        let count = maps.list_metadata(&ours).await?.items.len();
        ensure!(count == OBJECTS + 2, "{count}");
        Ok(())
    })
    .await?;
    scene.tree.remove("tenant/long.yaml")?;
    estate.recovers().await?;
    scene.is_gone("v1", "ConfigMap", "long").await
}
