//! A service account that does not exist may do nothing: that is told as what it is, not as one missing right after the other.

use manifests::printable;
use pipeline::{Failure, Resource};

use super::Pass;

/// The reason of a Sync whose service account is not there.
const NOT_FOUND: &str = "ServiceAccountNotFound";
/// The reason of what an identity may not do.
pub(super) const FORBIDDEN: &str = "Forbidden";

impl Pass<'_> {
    /// `failure`, or that there is no such service account, if that is why.
    pub(super) async fn for_want_of_account(&self, failure: Failure) -> Failure {
        let spec = self.sync.spec.service_account_name.as_ref();
        let account = spec.or(self.ctx.tenancy.default_service_account.as_ref());
        let Some(account) = account.filter(|_| failure.reason == FORBIDDEN) else { return failure };
        let namespace = &self.key.namespace;
        let accounts = Resource::service_accounts();
        // As the controller itself: an account that is not there could not ask.
        match self.ctx.cluster.api.get_metadata(&accounts, Some(namespace), account).await {
            Err(error) if error.is_not_found() => {}
            // It is there, or nobody can tell: then the first refusal is all that is known.
            _ => return failure,
        }
        let account = printable(account);
        let named = if spec.is_some() { "spec.serviceAccountName" } else { "--default-service-account" };
        Failure {
            may_pass: true,
            terminal: false,
            message: format!(
                "there is no service account {account} in namespace {namespace}, which {named} names, so nothing may be \
                 written: kubectl create serviceaccount -n {namespace} {account}, and a RoleBinding that lets it write \
                 what the folder holds; it is looked for again within seconds"
            ),
            ..Failure::new(failure.stage, NOT_FOUND)
        }
    }
}
