//! Deletes an object, so that it can be created again with a change that cannot be made to the existing object.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pipeline::replacement::under_another_name;
use zeroize::Zeroizing;

use super::{
    AsInGit,
    answer::{ApiError, MetadataOnly},
    api::Api,
};

/// How long the controller waits until a deleted object is gone. The object is gone only when its finalizers are
/// removed.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// How deleting an object for its replacement ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Deleted {
    /// The object is gone.
    Gone,
    /// The object is being deleted, which waits for these finalizers.
    Going(Vec<String>),
    /// The object is being deleted, and the caller no longer waits for that.
    NotAwaited,
}

impl Api {
    /// Whether the API server would accept the object as a new one. This is a dry run of its creation under another
    /// name, because the real name is taken.
    pub async fn would_make(&self, object: AsInGit<'_>) -> Result<(), ApiError> {
        let path = format!(
            "{}?dryRun=All&fieldManager={}&fieldValidation=Strict",
            object.resource.path(object.id.namespace.as_deref(), None),
            crds::FIELD_MANAGER
        );
        let body = serde_json::to_vec(&under_another_name(object.id, object.body)).expect("JSON serialises");
        self.send_json::<MetadataOnly>(http::Method::POST, &path, Zeroizing::new(body)).await.map(|_| ())
    }

    /// Deletes the object, and waits until it is gone. The objects that it owns are deleted in the background. If the
    /// object does not exist, nothing is done. When `gives_up` ends, the object is no longer waited for.
    pub async fn delete_for_replacement(
        &self,
        object: AsInGit<'_>,
        gives_up: impl Future<Output = ()>,
    ) -> Result<Deleted, ApiError> {
        let (namespace, name) = (object.id.namespace.as_deref(), object.id.name.as_str());
        let deadline = tokio::time::Instant::now() + GONE_WITHIN;
        let mut pause = Duration::from_millis(20);
        let mut deleted: Option<String> = None;
        let mut gives_up = std::pin::pin!(gives_up);
        loop {
            let meta = match self.get_metadata(object.resource, namespace, name).await {
                Err(error) if error.is_not_found() => return Ok(Deleted::Gone),
                found => found?,
            };
            let uid = meta.uid.clone().unwrap_or_default();
            match &deleted {
                // Another UID means that the old object is gone, and that somebody else has created a new one.
                Some(old) if *old != uid => return Ok(Deleted::Gone),
                None if meta.deletion_timestamp.is_none() => {
                    let seen = ObjectMeta { uid: meta.uid, ..ObjectMeta::default() };
                    self.delete(object.resource, namespace, name, &seen).await?;
                }
                _ => {}
            }
            deleted = Some(uid);
            if tokio::time::Instant::now() > deadline {
                return Ok(Deleted::Going(meta.finalizers.unwrap_or_default()));
            }
            // Only this wait ends early, and no request.
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                () = &mut gives_up => return Ok(Deleted::NotAwaited),
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}
