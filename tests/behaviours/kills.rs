//! Kills the controller at random moments, up to a thousand times, while objects move between Syncs. No object may be
//! created again or lost, and each must be in an inventory. In every second round, the test also changes and deletes objects,
//! so that the controller is killed during heals: an object that was changed keeps its uid, and one that was deleted is
//! created again.
//!
//! Run it with `GITSEAL_KILLS=1000 cargo test --test behaviours kills:: -- --ignored`. The same seed (`GITSEAL_SEED`) gives
//! the same moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use kube::api::{DeleteParams, Patch, PatchParams};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{crashes::nothing_is_orphaned, objects::config_map};

const SYNCS: [&str; 3] = ["one", "two", "three"];
const OBJECTS: usize = 12;
/// After how many kills all objects are checked.
const ROUND: usize = 20;

/// A small random number generator with a seed. It decides which object moves where, and when the controller is killed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// Every third object is a SealedSecret without a sealed value.
fn manifest(object: usize) -> String {
    if !object.is_multiple_of(3) {
        return format!("---\n{}", config_map(&format!("object-{object}"), "1"));
    }
    format!(
        "---\napiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: object-{object}}}\nspec:\n  \
         encryptedData: {{}}\n  template: {{data: {{value: '1'}}}}\n"
    )
}

fn kind(object: usize) -> &'static str {
    if object.is_multiple_of(3) { "Secret" } else { "ConfigMap" }
}

/// Writes the folder of every Sync. Each folder also has an object that always stays there.
fn arrange(scene: &Scene, places: &[usize]) -> Result<()> {
    for (index, sync) in SYNCS.iter().enumerate() {
        let mut text = format!("---\n{}", config_map(&format!("stays-{sync}"), "1"));
        for (object, _) in places.iter().enumerate().filter(|(_, place)| **place == index) {
            text.push_str(&manifest(object));
        }
        scene.tree.write(&format!("{sync}/all.yaml"), text)?;
    }
    Ok(())
}

/// Waits until each object belongs to the right Sync, and returns the UIDs.
async fn settled(scene: &Scene, places: &[usize]) -> Result<BTreeMap<usize, String>> {
    eventually("every object to be its Sync's", || async {
        let mut uids = BTreeMap::new();
        for (object, place) in places.iter().enumerate() {
            let name = format!("object-{object}");
            let found = scene.get("v1", kind(object), &name).await?.with_context(|| format!("{name} is gone"))?;
            // A Secret has no labels that name a Sync. It belongs to the Sync that its SealedSecret's labels name.
            let labelled = match kind(object) {
                "Secret" => scene.get("bitnami.com/v1alpha1", "SealedSecret", &name).await?.unwrap_or_default(),
                _ => found.clone(),
            };
            ensure!(is_as_in_git(&found), "{name} is not as in Git: {found}");
            let owner = &labelled["metadata"]["labels"][crds::names::SYNC_NAME];
            ensure!(owner == SYNCS[*place], "{name} is {owner}'s, not {}'s", SYNCS[*place]);
            uids.insert(object, found["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
        }
        Ok(uids)
    })
    .await
}

/// Whether an object has the value that every object has in Git, `1`: a ConfigMap as text, a Secret in base64.
fn is_as_in_git(object: &Value) -> bool {
    object["data"] == json!({"value": "1"}) || object["data"] == json!({"value": STANDARD.encode("1")})
}

/// Changes some objects and deletes others, as somebody might do by hand. Some of them may not exist at the moment.
/// Adds to `deleted` the objects that it deleted.
async fn drift(scene: &Scene, dice: &mut Dice, deleted: &mut BTreeSet<usize>) -> Result<()> {
    for object in 0..OBJECTS {
        let (api, name) =
            (kubernetes::objects(&scene.client, &scene.namespace, "v1", kind(object)), format!("object-{object}"));
        let edited = json!({"data": {"value": STANDARD.encode("edited")}});
        let done = match dice.below(6) {
            0 => api.patch(&name, &PatchParams::default(), &Patch::Merge(&edited)).await.map(drop),
            1 => {
                deleted.insert(object);
                api.delete(&name, &DeleteParams::default()).await.map(drop)
            }
            _ => Ok(()),
        };
        match done {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            done => done?,
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "takes about an hour with its thousand kills: for the night"]
async fn a_thousand_kills_lose_nothing_and_make_nothing_anew() -> Result<()> {
    let (kills, seed) = (number("GITSEAL_KILLS", 1000), number("GITSEAL_SEED", 7));
    let mut dice = Dice(seed);
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "kills", ServerOptions::default()).await?;
    scene.repository(json!({"interval": "1s"})).await?;
    let start = || -> Result<Controller> {
        Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &plane.folder()))
    };
    let mut places: Vec<usize> = (0..OBJECTS).map(|object| object % SYNCS.len()).collect();
    arrange(&scene, &places)?;
    let mut controller = start()?;
    controller.ready().await?;
    scene.publish("the beginning").await?;
    for sync in SYNCS {
        scene.sync(sync, sync, json!({"pruneLimit": "0"})).await?;
    }
    let mut first = settled(&scene, &places).await?;
    let mut deleted = BTreeSet::new();
    for kill in 0..kills {
        for place in &mut places {
            if dice.below(3) == 0 {
                *place = usize::try_from(dice.below(SYNCS.len() as u64))?;
            }
        }
        arrange(&scene, &places)?;
        scene.tree.publish(&format!("moves before kill {kill}"))?;
        controller.ready().await?;
        if (kill / ROUND as u64) % 2 == 1 {
            drift(&scene, &mut dice, &mut deleted).await?;
        }
        // This sleep is on purpose: the controller is killed at a random moment.
        tokio::time::sleep(Duration::from_millis(dice.below(1500))).await;
        controller.kill()?;
        controller = start()?;
        if (kill + 1) % ROUND as u64 == 0 || kill + 1 == kills {
            controller.ready().await?;
            let now = settled(&scene, &places).await?;
            for object in std::mem::take(&mut deleted) {
                first.insert(object, now[&object].clone());
            }
            ensure!(now == first, "after {kill} kills of seed {seed}: {first:?} became {now:?}");
            nothing_is_orphaned(&scene).await?;
            eprintln!("{} of {kills} kills", kill + 1);
        }
    }
    controller.kill()
}
