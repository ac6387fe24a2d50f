//! Whether a controller works: a controller that works renews its lease every two seconds.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use crate::{global::Global, output, time};

/// The name of the lease, unless the controller runs with another `--leader-elect-lease-name`.
const NAME: &str = "gitseal-controller";
/// After how long without a renewal the user is warned. Another replica takes the lease over after some seconds; the
/// rest of the time allows for clocks that differ.
const LONGEST: SignedDuration = SignedDuration::from_mins(2);

/// Warns if no controller works, because statuses may then be old. Prints nothing if the user may not read the lease,
/// or if there is no lease.
pub async fn warn_if_silent(client: &Client, global: &Global) {
    let namespace = global.controller_namespace();
    let Ok(lease) = Api::<Lease>::namespaced(client.clone(), namespace).get(NAME).await else { return };
    let Some(silent) = silent(&lease, Timestamp::now()) else { return };
    output::warn(format_args!(
        "no controller has renewed its lease {namespace}/{NAME} for {}: nothing is fetched, applied or put back \
        until a controller runs, and statuses may be old. See `kubectl get pods -n {namespace} -l \
        app.kubernetes.io/name=gitseal`",
        time::short(silent)
    ));
}

/// How long the lease has not been renewed, if that is too long.
fn silent(lease: &Lease, now: Timestamp) -> Option<SignedDuration> {
    let renewed = lease.spec.as_ref()?.renew_time.as_ref()?.0;
    Some(now.duration_since(renewed)).filter(|silent| *silent > LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_is_silent_when_others_would_have_taken_it_long_ago() {
        let silent = |spec, now: &str| {
            let lease: Lease = serde_json::from_value(json!({"metadata": {"name": NAME}, "spec": spec})).unwrap();
            silent(&lease, now.parse().unwrap()).map(time::short)
        };
        let held = json!({"holderIdentity": "a", "renewTime": "2026-01-01T00:00:00.000000Z"});
        assert_eq!(silent(held.clone(), "2026-01-01T00:01:50Z"), None);
        assert_eq!(silent(held.clone(), "2026-01-01T00:05:00Z").as_deref(), Some("5m"));
        // The local clock is slow.
        assert_eq!(silent(held, "2025-12-31T23:00:00Z"), None);
        assert_eq!(silent(json!({}), "2026-01-01T00:05:00Z"), None);
    }
}
