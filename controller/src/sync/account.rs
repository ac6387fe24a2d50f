//! If the service account of a Sync does not exist, the API server refuses each object of the Sync. In this case, the
//! Sync reports the missing account instead of the missing rights.

use manifests::printable;
use pipeline::{Failure, Resource};

use super::Pass;

/// The reason of a Sync whose service account does not exist.
const NOT_FOUND: &str = "ServiceAccountNotFound";
/// The reason of a Sync whose identity lacks a right.
pub(super) const FORBIDDEN: &str = "Forbidden";

impl Pass<'_> {
    /// Returns `failure`. But if its cause is that the service account does not exist, returns a failure that says
    /// this.
    pub(super) async fn for_want_of_account(&self, failure: Failure) -> Failure {
        let spec = self.sync.spec.service_account_name.as_ref();
        let account = spec.or(self.ctx.tenancy.default_service_account.as_ref());
        let Some(account) = account.filter(|_| failure.reason == FORBIDDEN) else { return failure };
        let namespace = &self.key.namespace;
        let accounts = Resource::service_accounts();
        // The controller asks with its own rights, because an account that does not exist cannot ask.
        match self.ctx.cluster.api.get_metadata(&accounts, Some(namespace), account).await {
            Err(error) if error.is_not_found() => {}
            // If the account exists or the request failed, the refusal is all that is known.
            _ => return failure,
        }
        let account = printable(account);
        let named = if spec.is_some() { "spec.serviceAccountName" } else { "--default-service-account" };
        Failure {
            may_pass: true,
            terminal: false,
            message: format!(
                "there is no service account {account} in namespace {namespace}, which {named} names, so nothing may \
                 be written: create it (kubectl create serviceaccount -n {namespace} {account}) with a RoleBinding \
                 that allows it to write the objects of the folder; the controller looks for it again within seconds"
            ),
            ..Failure::new(failure.stage, NOT_FOUND)
        }
    }
}
