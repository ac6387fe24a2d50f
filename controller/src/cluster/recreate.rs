//! An object deleted and made anew, because what Git changes of it cannot be changed in place.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pipeline::replacement::under_another_name;
use zeroize::Zeroizing;

use super::{
    AsInGit,
    api::{Api, ApiError, MetadataOnly},
};

/// How long an object that is deleted may take to go: finalizers are done first.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// How deleting an object for its replacement ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// It is on its way and waits for these finalizers.
    Going(Vec<String>),
}

impl Api {
    /// Whether the API server would make the object if it were not there: a dry run of its creation, under another name
    /// because the object is there.
    pub async fn would_make(&self, object: AsInGit<'_>) -> Result<(), ApiError> {
        let path = format!(
            "{}?dryRun=All&fieldManager={}&fieldValidation=Strict",
            object.resource.path(object.id.namespace.as_deref(), None),
            crds::FIELD_MANAGER
        );
        let body = serde_json::to_vec(&under_another_name(object.id, object.body)).expect("JSON serialises");
        self.send_json::<MetadataOnly>(http::Method::POST, &path, Zeroizing::new(body)).await.map(|_| ())
    }

    /// Deletes the object, with its dependents in the background, and waits until it is gone. What is not there is gone.
    pub async fn delete_for_replacement(&self, object: AsInGit<'_>) -> Result<Deleted, ApiError> {
        let (namespace, name) = (object.id.namespace.as_deref(), object.id.name.as_str());
        let deadline = tokio::time::Instant::now() + GONE_WITHIN;
        let mut pause = Duration::from_millis(20);
        let mut deleted: Option<String> = None;
        loop {
            let meta = match self.get_metadata(object.resource, namespace, name).await {
                Err(error) if error.is_not_found() => return Ok(Deleted::Gone),
                found => found?,
            };
            let uid = meta.uid.clone().unwrap_or_default();
            match &deleted {
                // Somebody else made it again meanwhile: what is there now is not what was refused.
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
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}
