//! Reads Secrets of the cluster that Syncs put values of into other Secrets.

use std::{collections::BTreeMap, sync::Arc};

use crds::names::KEY_LABELS;
use manifests::ObjectId;
use pipeline::InputMap;
use renderer::{WrappedValue, wrapped_values};

use super::{InputError, MOST_BYTES, not_read};
use crate::{
    cluster::{ApiError, Named, Sight},
    fair::Asker,
    inputs::{Content, OneInput},
    keys::StoredSecret,
    sync::Pass,
};

impl Pass<'_> {
    /// Reads a Secret. Its values are wrapped at once.
    pub(super) async fn read_secret(&self, map: InputMap<'_>, bytes: &mut usize) -> Result<OneInput, InputError> {
        let (live, keyring) = (&self.ctx.cluster.live, &self.ctx.keyring);
        let InputMap { entry, namespace, name, key, is_optional, .. } = map;
        let resource = Arc::new(map.resource());
        let (field, of) = (entry.to_string(), map.map());
        let stop = || live.stop_looking_out_for_inputs(self.key, |other| other != entry);
        let id = ObjectId {
            group: String::new(),
            kind: resource.kind.clone(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        };
        if keyring.has_as_its_own(&id, false) {
            stop();
            return Err(InputError::OwnSecret { secret: of, field });
        }
        let named = Named { resource: resource.clone(), namespace: Some(namespace.to_owned()), name: name.to_owned() };
        let _place = self.ctx.health_reads.take(Asker::Namespace(&self.key.namespace)).await;
        let api = self.input_api();
        // The metadata come first, so that a sealing key is not even read.
        let read = match api.get_metadata(&resource, Some(namespace), name).await {
            Ok(metadata) if is_sealing_key(metadata.labels.as_ref()) => Ok(None),
            Ok(_) => api.read::<StoredSecret>(&resource.path(Some(namespace), Some(name))).await.map(Some),
            Err(error) => Err(error),
        };
        let secret = match read {
            Ok(Some(secret)) if !is_sealing_key(secret.metadata().labels.as_ref()) => secret,
            Ok(_) => {
                stop();
                return Err(InputError::OwnSecret { secret: of, field });
            }
            Err(error) if error.is_gone() => {
                live.look_out_for_input(self.key, entry, named, Sight::Missing);
                return if is_optional {
                    self.kept_secret(map, &BTreeMap::new())
                } else {
                    Err(InputError::NoMap { map: of, field })
                };
            }
            Err(source) => {
                stop();
                return Err(not_read(source, of, field, "get"));
            }
        };
        live.look_out_for_input(self.key, entry, named, Sight::of_metadata(secret.metadata()));
        if let Some(type_) = secret.token_type() {
            return Err(InputError::TokenSecret { secret: of, field, type_: type_.to_owned() });
        }
        if let Some(key) = key.filter(|key| secret.value(key).is_none()) {
            let place = format!("{of}: {key}");
            // Everybody with the role `view` reads the message, and may not know the keys of a Secret.
            return Err(InputError::NoKey { place, there_is: "the Secret has other keys".to_owned(), field });
        }
        let mut values = BTreeMap::new();
        for of in secret.keys().filter(|of| key.is_none_or(|key| key == *of)) {
            let value = secret.value(of).ok_or_else(|| InputError::NotRead {
                what: map.map(),
                field: field.clone(),
                source: ApiError::Answer(format!("data.{of} is not base64")),
            })?;
            values.insert(of.to_owned(), keyring.wrap([namespace, name, of], &value));
        }
        *bytes += values.values().map(|value| value.wrapped.len()).sum::<usize>();
        if *bytes > MOST_BYTES {
            return Err(InputError::TooLarge(map.place()));
        }
        self.kept_secret(map, &values)
    }

    /// Keeps what was read.
    fn kept_secret(&self, map: InputMap<'_>, values: &BTreeMap<String, WrappedValue>) -> Result<OneInput, InputError> {
        let (keyring, texts) = (&self.ctx.keyring, &self.ctx.input_texts);
        // The wrapped texts are different each time.
        let parts = values.iter().flat_map(|(key, value)| [key.as_bytes(), value.digest.as_bytes()]);
        let digest = keyring.digest("values of a Secret", parts);
        match texts.keep(&self.key.namespace, digest, &wrapped_values(values)) {
            Some(Content::Text { text, digest }) => {
                let content = Content::Secret { text, digest, keyring: keyring.clone() };
                Ok(OneInput { entry: map.entry, name: map.map(), content })
            }
            _ => Err(InputError::NoRoom { what: map.map(), most: texts.most() }),
        }
    }
}

fn is_sealing_key(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.is_some_and(|labels| KEY_LABELS.iter().any(|label| labels.contains_key(*label)))
}
