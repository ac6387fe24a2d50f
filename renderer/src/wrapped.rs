//! Values of Secrets of the cluster, on their way into other Secrets.
//!
//! Neither rendering nor anything that is stored has such a value. The caller gives it *wrapped*: encrypted with a key that only the
//! caller has, together with a digest. Templates and variables get a placeholder with this digest. When the placeholder is in a
//! Secret, a [`Sealer`], which also belongs to the caller, seals the value for this Secret, and the Secret becomes a SealedSecret.

use std::{collections::BTreeMap, fmt, sync::Arc};

use sealing::Binding;
use serde::{Deserialize, Serialize};

use crate::Input;

/// Seals values of Secrets of the cluster for the Secrets that they are put into.
pub trait Sealer: Send + Sync {
    /// The sealed text of the value, which can be unsealed only for `binding`. The same value of the same Secret has the same sealed
    /// text for the same binding, as long as it is sealed with the same key. Otherwise, each render would give other objects.
    ///
    /// # Errors
    /// The value cannot be sealed. The text says why, and has nothing of the value.
    fn seal(&self, value: &WrappedValue, binding: Binding<'_>) -> Result<String, String>;
}

/// A value of a Secret of the cluster in a form that shows nothing of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WrappedValue {
    /// A keyed digest of the value and its place, as 32 hexadecimal digits. It becomes a part of the placeholder.
    pub digest: String,
    /// What the [`Sealer`] makes the value of.
    pub wrapped: String,
}

/// The content of the [`Input`] of a Secret of the cluster that has these values, by their keys.
pub fn wrapped_values(values: &BTreeMap<String, WrappedValue>) -> String {
    serde_json::to_string(values).expect("texts can be written as JSON")
}

/// The values that a chart or variables get from one Secret of the cluster.
#[derive(Clone)]
pub struct ClusterSecret {
    /// The Secret in messages.
    pub(crate) name: String,
    /// The result of [`wrapped_values`]. Empty if the Secret does not exist and need not.
    pub(crate) content: Arc<[u8]>,
    pub(crate) sealer: Arc<dyn Sealer>,
    /// The key of the value; `None` for all values of the Secret.
    pub(crate) key: Option<String>,
    /// See [`SealedValues::path`](crate::SealedValues::path).
    pub(crate) path: Option<String>,
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterSecret").field(&self.name).finish()
    }
}

impl ClusterSecret {
    /// The values of the Secret that was read as `input`; `None` if it was read as something else.
    pub(crate) fn of(input: &Input, key: Option<&str>, path: Option<&str>) -> Option<Self> {
        Some(Self {
            name: input.name.clone(),
            content: input.content.clone(),
            sealer: input.sealer.clone()?,
            key: key.map(str::to_owned),
            path: path.map(str::to_owned),
        })
    }

    /// The values, by their keys.
    pub(crate) fn read(&self) -> Result<BTreeMap<String, WrappedValue>, String> {
        if self.content.is_empty() {
            return Ok(BTreeMap::new());
        }
        serde_json::from_slice(&self.content).map_err(|_| format!("{} was not understood", self.name))
    }
}
