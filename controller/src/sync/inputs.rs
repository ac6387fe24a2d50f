//! What Syncs are rendered with from the cluster: values and variables from ConfigMaps and Secrets, and the objects that templates look
//! up.
//!
//! # Guarantees
//! - An object is read with the rights of the Sync's identity. If the identity loses the right, this is noticed after `spec.interval` at
//!   the latest.
//! - Of a Secret, only wrapped values are kept ([`crate::keys`]). A sealing key is never read, and no template can look up a Secret.
//! - An object is read once, and again when a watch shows that it changed. If it cannot be watched, it is read again
//!   after `spec.interval`.
//! - If what was read changes after every render, it is read less and less often, at last after `spec.interval`.
//! - What was read for one Sync is used for no other Sync. Only the memory of equal texts is shared.

mod known;
mod rights;
mod secret;
mod unsettled;

use std::{borrow::Cow, cmp::Reverse, collections::BTreeMap, sync::Arc};

use crds::Sync;
use pipeline::{Entry, InputMap, Looked, Resource, Stage, StageError, escape_segment, input_maps, lookups};
use renderer::{MOST_LOOKED_UP, looked_up, variables_in};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

pub use self::known::ReadInputs;
use super::{Pass, Record, account::FORBIDDEN};
use crate::{
    cluster::{AllOf, Api, ApiError, DiscoveryError, Named, Sight},
    fair::Asker,
    inputs::{OneInput, Texts},
};

/// How many bytes everything that one Sync gets from the cluster may have together. It is kept in memory, like the values in
/// the spec of a Sync.
const MOST_BYTES: usize = 1 << 20;
/// How many objects of a kind are read at once. This limits how much memory they take before their size is known.
const AT_ONCE: usize = 10;
/// How many requests all objects of a kind may take. Otherwise, a server that always says that there are more could keep the
/// place of this read for ever.
const MOST_PAGES: usize = 20;
/// The longest answer. While an answer is read, it takes many times as much memory.
const ANSWER_BYTES: usize = 3 << 20;
/// How many objects are counted by namespace if a lookup in all namespaces finds too many.
const COUNTED: usize = 250;
/// How many namespaces an error lists.
const NAMESPACES_SHOWN: usize = 3;
/// How many keys of a ConfigMap an error lists.
const KEYS_SHOWN: usize = 10;

/// Why something was not read from the cluster.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// The ConfigMap does not exist.
    #[error("there is no {map}: create it, or correct {field}; nothing is applied or deleted until it can be read")]
    NoMap {
        /// The ConfigMap.
        map: String,
        /// The field of the Sync that names it.
        field: String,
    },
    /// The ConfigMap does not have the key.
    #[error(
        "{place}: there is no such key; {there_is}. Add it, or correct {field}; nothing is applied or deleted until it can be read"
    )]
    NoKey {
        /// The ConfigMap and the key.
        place: String,
        /// The keys of the ConfigMap or Secret.
        there_is: String,
        /// The field of the Sync that names it.
        field: String,
    },
    /// The Secret is one that unseals values, or another one of the controller's own.
    #[error(
        "{field} names {secret}, which is a sealing key or another Secret of the controller itself: name another Secret"
    )]
    OwnSecret {
        /// The Secret.
        secret: String,
        /// The field of the Sync that names it.
        field: String,
    },
    /// A Secret with a token of Kubernetes itself.
    #[error(
        "{secret} ({field}) holds a token of Kubernetes (type {type_}), whose value is not put into other Secrets: let the Pod use the service account itself"
    )]
    TokenSecret {
        /// The Secret.
        secret: String,
        /// The field of the Sync that names it.
        field: String,
        /// The type of the Secret.
        type_: String,
    },
    /// The inputs are too large.
    #[error("{0}: what the Sync reads from the cluster (ConfigMaps, Secrets, and what its chart looks up) has more than {most} MiB together: put values into files of a repository", most = MOST_BYTES >> 20)]
    TooLarge(String),
    /// There is no room to keep it.
    #[error(
        "there is no room for {what}: what all Syncs of a namespace read from the cluster (ConfigMaps, Secrets, and what charts look up) may have \
         {} KiB together, a part of --memory-budget. Syncs that read the same share it; put large values into files of a repository", most >> 10
    )]
    NoRoom {
        /// What was read.
        what: String,
        /// How many bytes there may be.
        most: u64,
    },
    /// A lookup of all objects of a kind finds too many.
    #[error(
        "{field} stands for {what}: there are more than {MOST_LOOKED_UP}, or they are too large together{who}: {remedy}"
    )]
    TooMany {
        /// What is looked up.
        what: String,
        /// The field of the Sync.
        field: String,
        /// Which namespaces have many of them, in parentheses. It is empty if this is not known.
        who: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The entry asks for Secrets.
    #[error(
        "{field} names {what}, and Secrets cannot be looked up, because what is rendered must not have their values: remove the entry, \
         seal the value, and give it to the chart as a sealed value (helm.valuesFrom with sealedSecret)"
    )]
    Secret {
        /// What is looked up.
        what: String,
        /// The field of the Sync.
        field: String,
    },
    /// The cluster does not serve the kind.
    #[error(
        "the cluster does not serve {what}, which {field} names: install its CustomResourceDefinition, or correct the entry"
    )]
    NoKind {
        /// The API version and the kind.
        what: String,
        /// The field of the Sync.
        field: String,
    },
    /// The Sync's identity may not read the object.
    #[error("it may not read {what}, which {field} names; give its service account the right to `{verb}` it: {source}")]
    Forbidden {
        /// The object.
        what: String,
        /// The field of the Sync that names it.
        field: String,
        /// What the identity may not do.
        verb: &'static str,
        /// The API server's refusal.
        source: ApiError,
    },
    /// The object could not be read.
    #[error("{what}, which {field} names, could not be read: {source}")]
    NotRead {
        /// The object.
        what: String,
        /// The field of the Sync that names it.
        field: String,
        /// The error of the request.
        source: ApiError,
    },
}

impl StageError for InputError {
    const STAGE: Stage = Stage::Source;

    fn reason(&self) -> &'static str {
        match self {
            Self::NoMap { .. } | Self::NoKey { .. } => "ValuesNotFound",
            Self::TooLarge(_) | Self::TooMany { .. } => "TooLarge",
            Self::Secret { .. } => renderer::NOT_REPRODUCIBLE,
            Self::Forbidden { .. } | Self::OwnSecret { .. } | Self::TokenSecret { .. } => FORBIDDEN,
            Self::NoRoom { .. } => "MemoryBusy",
            Self::NoKind { .. } | Self::NotRead { .. } => "ValuesNotRead",
        }
    }

    fn is_terminal(&self) -> bool {
        match self {
            Self::NoMap { .. }
            | Self::NoKey { .. }
            | Self::TooLarge(_)
            | Self::TooMany { .. }
            | Self::OwnSecret { .. }
            | Self::TokenSecret { .. }
            | Self::Secret { .. } => true,
            Self::NoRoom { .. } | Self::NoKind { .. } | Self::Forbidden { .. } | Self::NotRead { .. } => false,
        }
    }
}

impl InputError {
    /// Whether the cause is that the API server did not answer. The owners of the Sync cannot have this happen.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::NotRead { source, .. } if source.is_transient() && !matches!(source, ApiError::TooLong(_)))
    }
}

/// Something that a Sync gets from the cluster.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Map(InputMap<'a>),
    Looked(Looked<'a>),
}

impl Wanted<'_> {
    fn entry(&self) -> Entry {
        match self {
            Self::Map(map) => map.entry,
            Self::Looked(looked) => looked.entry,
        }
    }
}

/// What `sync` gets from the cluster.
fn wanted(sync: &Sync) -> impl Iterator<Item = Wanted<'_>> {
    input_maps(sync).map(Wanted::Map).chain(lookups(sync).map(Wanted::Looked))
}

/// Whether `sync` gets something from the cluster.
pub(super) fn reads_cluster(sync: &Sync) -> bool {
    wanted(sync).next().is_some()
}

impl Pass<'_> {
    /// Reads what the Sync gets from the cluster, if it is not certain that it is as it was read before.
    pub(super) async fn read_inputs(&self, record: &Record) {
        let (inputs, live) = (&self.ctx.inputs, &self.ctx.cluster.live);
        let all: Vec<_> = wanted(self.sync).collect();
        if all.is_empty() {
            if inputs.forget(self.key) {
                live.stop_looking_out_for_inputs(self.key, |_| false);
            }
            return;
        }
        let is_watched = || all.iter().all(|one| live.looks_out_for_input(self.key, one.entry()));
        let due = inputs.due(self.sync, self.has_request(record), is_watched(), self.interval());
        if due.is_none_or(|due| due > Instant::now()) && self.may_still_read(&all).await {
            return self.come_back(due);
        }
        inputs.begins(self.key);
        live.stop_looking_out_for_inputs(self.key, |entry| all.iter().any(|one| one.entry() == entry));
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut read = Ok(());
        for one in &all {
            let one = match one {
                Wanted::Map(map) if map.is_secret => self.read_secret(*map, &mut bytes).await,
                Wanted::Map(map) => self.read_map(*map, &mut bytes).await,
                Wanted::Looked(looked) => self.look_up(*looked, &mut bytes).await,
            };
            match one {
                Ok(input) => found.push(input),
                Err(error) => {
                    read = Err(Arc::new(error));
                    break;
                }
            }
        }
        inputs.remember(self.sync, read.map(|()| found.into()), self.interval());
        self.come_back(inputs.due(self.sync, false, is_watched(), self.interval()));
        self.come_back(inputs.rights_due(self.sync, self.interval()).filter(|_| self.identity().user().is_some()));
    }

    async fn read_map(&self, map: InputMap<'_>, bytes: &mut usize) -> Result<OneInput, InputError> {
        let live = &self.ctx.cluster.live;
        let InputMap { entry, namespace, name, key, is_optional, .. } = map;
        let resource = Arc::new(map.resource());
        let place = self.ctx.health_reads.take(Asker::Namespace(&self.key.namespace)).await;
        let read = self.input_api().get(&resource, Some(namespace), name).await;
        let named = Named { resource, namespace: Some(namespace.to_owned()), name: name.to_owned() };
        let (field, of) = (entry.to_string(), map.map());
        let object = match read {
            Ok(object) => object,
            Err(error) if error.is_gone() => {
                live.look_out_for_input(self.key, entry, named, Sight::Missing);
                return if is_optional {
                    self.kept(entry, map.place(), "")
                } else {
                    Err(InputError::NoMap { map: of, field })
                };
            }
            Err(source) => {
                live.stop_looking_out_for_inputs(self.key, |other| other != entry);
                return Err(not_read(source, of, field, "get"));
            }
        };
        live.look_out_for_input(self.key, entry, named, Sight::of(&object));
        let data = object.get("data").and_then(Value::as_object);
        let text = match key {
            Some(key) => data.and_then(|data| data.get(key)?.as_str()).map(Cow::Borrowed),
            None => Some(variables_in(&data).into()),
        };
        let Some(text) = text else {
            let there_is = there_is(data.iter().flat_map(|data| data.keys()).map(String::as_str));
            return Err(InputError::NoKey { place: map.place(), there_is, field });
        };
        *bytes += text.len();
        if *bytes > MOST_BYTES {
            return Err(InputError::TooLarge(map.place()));
        }
        let kept = self.kept(entry, map.place(), &text);
        drop(place);
        kept
    }

    /// Keeps what was read.
    fn kept(&self, entry: Entry, name: String, text: &str) -> Result<OneInput, InputError> {
        let texts: &Texts = &self.ctx.input_texts;
        let digest = self.ctx.keyring.digest("input of a chart", [text.as_bytes()]);
        match texts.keep(&self.key.namespace, digest, text) {
            Some(content) => Ok(OneInput { entry, name, content }),
            None => Err(InputError::NoRoom { what: name, most: texts.most() }),
        }
    }

    /// Reads what the templates of the chart find when they look up this entry.
    async fn look_up(&self, looked: Looked<'_>, bytes: &mut usize) -> Result<OneInput, InputError> {
        let (live, discovery) = (&self.ctx.cluster.live, &self.ctx.cluster.discovery);
        let (entry, field) = (looked.entry, looked.entry.to_string());
        let (group, version) = looked.group_and_version();
        let no_kind =
            || InputError::NoKind { what: format!("{} {}", looked.api_version, looked.kind), field: entry.to_string() };
        let resource = match discovery.find(group, version, looked.kind).await {
            Ok(resource) => resource,
            Err(DiscoveryError::UnknownKind { .. }) => return Err(no_kind()),
            Err(DiscoveryError::Request { source, .. }) => {
                return Err(InputError::NotRead { what: looked.what(true), field, source });
            }
        };
        let what = looked.what(resource.namespaced);
        // Another group may serve the Secrets of the cluster, too.
        if resource.kind == "Secret" || resource.plural == "secrets" {
            return Err(InputError::Secret { what, field });
        }
        let namespace = looked.namespace.filter(|_| resource.namespaced).map(str::to_owned);
        let place = self.ctx.health_reads.take(Asker::Namespace(&self.key.namespace)).await;
        let (read, verb) = match looked.name {
            Some(name) => match self.input_api().get(&resource, namespace.as_deref(), name).await {
                Ok(object) => (Ok(Some(vec![object])), "get"),
                Err(error) if error.is_gone() => (Ok(Some(Vec::new())), "get"),
                Err(error) => (Err(error), "get"),
            },
            None => (all_of(&self.input_api(), &resource, namespace.as_deref()).await, "list"),
        };
        let stop = || live.stop_looking_out_for_inputs(self.key, |other| other != entry);
        let objects = match read {
            Ok(Some(objects)) => objects,
            Ok(None) => {
                stop();
                let is_everywhere = resource.namespaced && namespace.is_none();
                let who = if is_everywhere { who_has_many(&self.input_api(), &resource).await } else { String::new() };
                return Err(InputError::TooMany { what, field, who, remedy: looked.fewer(resource.namespaced) });
            }
            Err(error) => {
                stop();
                // The kind is no longer served.
                if error.is_not_found() {
                    discovery.forget(group);
                    return Err(no_kind());
                }
                return Err(not_read(error, what, field, verb));
            }
        };
        if let Some(name) = looked.name {
            let sight = objects.first().map_or(Sight::Missing, Sight::of);
            let named = Named { resource: resource.clone(), namespace, name: name.to_owned() };
            live.look_out_for_input(self.key, entry, named, sight);
        } else {
            let all = AllOf { resource: resource.clone(), namespace };
            live.look_out_for_all(self.key, entry, all, Sight::of_all(&objects));
        }
        let text = looked_up(&looked, resource.namespaced, objects);
        *bytes += text.len();
        if *bytes > MOST_BYTES {
            return Err(InputError::TooLarge(what));
        }
        drop(place);
        self.kept(entry, what, &text)
    }

    /// The API for what the Sync reads from the cluster.
    fn input_api(&self) -> Api {
        self.identity().reading_at_most(ANSWER_BYTES)
    }
}

/// All objects of a kind; `None` if they are too many or too large.
async fn all_of(api: &Api, resource: &Resource, namespace: Option<&str>) -> Result<Option<Vec<Value>>, ApiError> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        metadata: PageMeta,
        items: Vec<Value>,
    }
    #[derive(Default, Deserialize)]
    struct PageMeta {
        #[serde(default, rename = "continue")]
        next: String,
    }
    let path = format!("{}?limit={AT_ONCE}", resource.path(namespace, None));
    let (mut all, mut next, mut bytes) = (Vec::new(), String::new(), 0);
    for _ in 0..MOST_PAGES {
        let after = if next.is_empty() { String::new() } else { format!("&continue={}", escape_segment(&next)) };
        let page: Page = match api.read(&format!("{path}{after}")).await {
            Err(ApiError::TooLong(_)) => return Ok(None),
            page => page?,
        };
        bytes += page.items.iter().map(|object| object.to_string().len()).sum::<usize>();
        all.extend(page.items);
        // A part of an object is left out before its size counts.
        if all.len() > MOST_LOOKED_UP || bytes > 4 * MOST_BYTES {
            return Ok(None);
        }
        if page.metadata.next.is_empty() {
            return Ok(Some(all));
        }
        next = page.metadata.next;
    }
    Ok(None)
}

/// Which namespaces have most of the objects of a kind, as the end of a part of a sentence. It is empty if the API server does not say
/// it.
async fn who_has_many(api: &Api, resource: &Resource) -> String {
    let Ok(all) = api.list_metadata(resource, COUNTED).await else { return String::new() };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for one in &all {
        *counts.entry(one.namespace.as_deref().unwrap_or_default()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    let shown: Vec<_> = counts.iter().take(NAMESPACES_SHOWN).map(|(of, count)| format!("{count} in {of}")).collect();
    if shown.is_empty() { String::new() } else { format!(" (of the first {}: {})", all.len(), shown.join(", ")) }
}

/// The keys of an object, for an error.
fn there_is<'k>(keys: impl Iterator<Item = &'k str>) -> String {
    let keys: Vec<_> = keys.collect();
    let more = keys.len().saturating_sub(KEYS_SHOWN);
    let shown = keys[..keys.len() - more].join(", ");
    match (keys.is_empty(), more) {
        (true, _) => "it has no keys".to_owned(),
        (false, 0) => format!("it has {shown}"),
        (false, more) => format!("it has {shown} and {more} more"),
    }
}

fn not_read(source: ApiError, what: String, field: String, verb: &'static str) -> InputError {
    match source.code() {
        Some(403) => InputError::Forbidden { what, field, verb, source },
        _ => InputError::NotRead { what, field, source },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sync::fake_server::FakeServer;

    #[tokio::test]
    async fn a_list_that_never_ends_is_given_up() {
        let (server, client) = FakeServer::start().await;
        let page = json!({"items": [], "metadata": {"continue": "more"}});
        server.answer("GET /api/v1/namespaces/team/configmaps", 200, page);
        let all = all_of(&client.api, &Resource::config_maps(), Some("team")).await.unwrap();
        assert!(all.is_none() && server.requests().len() == MOST_PAGES, "{all:?}");

        let long = json!({"items": [{"data": "a".repeat(100)}]});
        server.answer("GET /api/v1/namespaces/team/configmaps", 200, long);
        let all_within = async |bytes| {
            let api = client.api.clone().reading_at_most(bytes);
            all_of(&api, &Resource::config_maps(), Some("team")).await
        };
        assert!(all_within(50).await.unwrap().is_none(), "an answer that is too long says that they are too large");
        assert!(all_within(500).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_namespaces_with_most_objects_are_named() {
        let (server, client) = FakeServer::start().await;
        let maps = Resource::config_maps();
        assert_eq!(who_has_many(&client.api, &maps).await, "", "the API server does not say it");
        let items = [("team", 2), ("greedy", 90), ("other", 1), ("infra", 8)].map(|(namespace, count)| {
            (0..count).map(move |number| json!({"metadata": {"namespace": namespace, "name": number.to_string()}}))
        });
        let items: Vec<_> = items.into_iter().flatten().collect();
        server.answer("GET /api/v1/configmaps", 200, json!({"items": items}));
        let who = who_has_many(&client.api, &maps).await;
        assert_eq!(who, " (of the first 101: 90 in greedy, 8 in infra, 2 in team)");
    }
}
