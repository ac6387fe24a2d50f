//! Makes the Secrets of SealedSecrets that the API server has accepted.

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
};

use crds::{ObjectKey, SealedSecretSpec};
use manifests::ObjectId;
use pipeline::{
    Unmanaged, may_write,
    plan::{Sealed, Step},
};
use serde::Deserialize as _;
use serde_json::{Map, Value};
use unsealing::{Owner, SealedInput};

use super::{Applier, Because, Turn, Written};
use crate::{
    cluster::{ApiError, AsInGit},
    sealed_secret::{ToWrite, made, read_secret},
};

impl Applier<'_> {
    /// Applies a SealedSecret. If the API server has stored exactly the SealedSecret in Git, it counts as accepted.
    pub(super) async fn accept(&self, step: &Step, body: &Map<String, Value>, turn: Turn) -> Result<Written, Because> {
        let object = AsInGit::of(step, body);
        let (mut written, mut stored) = self.write_sealed(step, object).await?;
        if turn == Turn::First {
            let writing = self.live().begin(&step.id);
            let taken_over = self.api.take_over(object, written.clone()).await.map_err(Because::NotTakenOver)?;
            let is_changed = taken_over.resource_version != written.resource_version;
            writing.applied(&taken_over);
            if is_changed {
                // The SealedSecret is applied once more to read it, because fields that others had added may be gone
                // now.
                (written, stored) = self.write_sealed(step, object).await.map_err(Because::NotTakenOver)?;
            }
        }
        let sent = Sealed::deserialize(Value::Object(body.clone())).ok();
        let sent = sent.map(|sealed| unsealing::digest(&sealed.input(&step.id, true)));
        if sent.is_some() && sent == stored {
            self.accepted().insert(step.id.clone());
        } else {
            tracing::warn!(object = %step.id, "the API server stored a SealedSecret that differs from the one that was sent");
        }
        Ok(written)
    }

    /// Applies a SealedSecret. Also returns the digest of the SealedSecret that the API server stored.
    async fn write_sealed(&self, step: &Step, object: AsInGit<'_>) -> Result<(Written, Option<String>), ApiError> {
        let (namespace, name) = (step.id.namespace.as_deref(), &step.id.name);
        let writing = self.live().begin(&step.id);
        let (written, stored) =
            self.api.apply_spec::<SealedSecretSpec>(&step.resource, namespace, name, object.json()).await?;
        writing.applied(&written);
        let digest = stored.map(|(annotations, spec)| {
            unsealing::digest(&SealedInput {
                namespace: namespace.unwrap_or_default(),
                name,
                annotations: &annotations,
                spec: &spec,
                accept_deprecated_v1_data: true,
            })
        });
        Ok((written, digest))
    }

    fn accepted(&self) -> MutexGuard<'_, BTreeSet<ObjectId>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unseals a SealedSecret that was accepted, and writes its Secret.
    pub(super) async fn unsealed(&self, step: &Step, sealed: &Sealed) -> Result<Written, Because> {
        let ctx = self.pass.ctx;
        let owner = step.id.sealed_secret();
        let Some(live) = self.live().get(&owner) else { return Err(Because::NotAccepted) };
        if !self.accepted().contains(&owner) {
            return Err(Because::Altered(format!("-n {} {}", owner.namespace.unwrap_or_default(), owner.name)));
        }
        let owner = Owner { uid: &live.uid, name: &step.id.name };
        let key = ObjectKey::new(step.id.namespace.as_deref().unwrap_or_default(), &step.id.name);
        if self.live().get(&step.id).is_none() {
            // Somebody may have made a Secret with this name just now, which must not be overwritten.
            read_secret(ctx, &key).await?;
        }
        let there = self.live().get(&step.id);
        let facts = there.as_ref().and_then(|live| live.secret.as_deref());
        // The metadata show to whom the Secret belongs, so nothing is decrypted if it belongs to somebody else.
        if may_write(facts, made(ctx, &key, there.as_ref()), owner.uid).is_none() {
            return Err(Unmanaged::of(&step.id).into());
        }
        ctx.metrics.unseal_request();
        // The SealedSecrets of a Sync use the turns of the Sync's own namespace, even if they are in other namespaces.
        let keyring = ctx.keyring.acting_for(&self.pass.key.namespace);
        let input = sealed.input(&step.id, ctx.keys.accept_deprecated_v1_data);
        let _room = ctx.plaintexts.room(&self.pass.key.namespace, input.unsealed_bytes()).await;
        let unsealed = match keyring.unseal_secret(&input, &step.digest).await {
            Ok(unsealed) => unsealed,
            Err(error) => return Err(self.with_places(error, input.spec).await),
        };
        // Only a few writes run at the same time. The place for this write is taken only now, so that others could use
        // it during the wait for the turn to unseal.
        let _place = self.place().await;
        // Somebody may have created or changed the Secret in the meantime. So the write checks again to whom it
        // belongs.
        let (key, resource, digest) = (&key, &step.resource, step.digest.as_str());
        let secret = ToWrite { key, resource, owner, unsealed: &unsealed, digest };
        Ok(secret.write(ctx, self.api).await?.0)
    }
}
