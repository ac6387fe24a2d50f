//! Marks. A mark is a text in the status of a SealedSecret that records what the Secret was made from. Because of its
//! mark, an unchanged Secret costs nothing after a restart: no key is tried, and nothing is written.
//!
//! A mark is `[merged-]WHOSE.OF.[KEY].AS`, four digests made with the cluster's key for digests:
//!
//! | part | digest of | shows |
//! | --- | --- | --- |
//! | `WHOSE` | the Secret's UID, the time of our last write to it, and whether values were merged into it | the controller wrote this Secret last, and how |
//! | `OF` | the sealed input, and the fields that we owned after our last write, with its time | the Secret is still as it was made from this input |
//! | `KEY` | the sealed input and the sealing key | which key unsealed all values; empty if several were needed |
//! | `AS` | the sealed input, and the Secret's UID and resource version | nobody has written the Secret since, not even in the same second |
//!
//! Nobody else can make a mark, and a copied mark says nothing about another Secret, another input or another key.
//! Anybody who may write the status can remove the mark, or replace it by an older mark of the same Secret, which has
//! the same effect. Without a valid mark, the metadata of the Secret show to whom the Secret belongs. If it belongs to
//! the SealedSecret, the Secret is made once more.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::{ObjectKey, SealedSecret};
use pipeline::{FieldsDigest, Made, SecretFacts};
use tokio::time::sleep;

use super::{Standing, standing};
use crate::{
    cluster::{LiveObject, Written},
    context::{Context, InStore as _},
    keys::Keyring,
};

/// A valid mark: the controller made it for exactly the Secret for which it was read.
pub(crate) struct Mark {
    /// How the Secret was written.
    pub(crate) made: Made,
    of: String,
    /// The digest that identifies the sealing key.
    pub(crate) key: Option<String>,
    /// The digest `AS`; `None` in marks of older versions.
    written_as: Option<String>,
}

impl Mark {
    /// Reads a mark for the Secret `secret`. `None` if the mark is of another Secret, was made by somebody else, or is
    /// from before the last write of the Secret.
    fn read(keyring: &Keyring, text: &str, secret: &LiveObject) -> Option<Self> {
        let (made, rest) = Made::read(text);
        let mut parts = rest.splitn(4, '.');
        let (told, of, key, written_as) = (parts.next()?, parts.next()?, parts.next(), parts.next());
        let is_ours = told == whose(keyring, &secret.uid, secret.secret.as_deref(), made);
        let key = key.filter(|key| !key.is_empty()).map(str::to_owned);
        is_ours.then(|| Self { made, of: of.to_owned(), key, written_as: written_as.map(str::to_owned) })
    }

    /// Whether the Secret is unchanged since it was made from the input with this digest.
    pub(super) fn is_of(&self, keyring: &Keyring, digest: &str, live: &LiveObject) -> bool {
        self.of == of(keyring, digest, &live.uid, live.fields, live.secret.as_deref())
    }

    /// Whether the Secret has the version that was written from the input with this digest.
    fn is_exactly_of(&self, keyring: &Keyring, digest: &str, live: &LiveObject) -> bool {
        self.written_as.as_ref() == Some(&written_as(keyring, digest, &live.uid, live.version))
    }
}

fn whose(keyring: &Keyring, uid: &str, facts: Option<&SecretFacts>, made: Made) -> String {
    let time = written_at(facts);
    keyring.digest("whose Secret", [uid.as_bytes(), bytes(time.as_ref()), made.prefix().as_bytes()])
}

fn written_at(facts: Option<&SecretFacts>) -> Option<[u8; 8]> {
    facts?.applied_at.map(i64::to_be_bytes)
}

fn bytes(time: Option<&[u8; 8]>) -> &[u8] {
    time.map_or(&[], |time| &time[..])
}

fn of(keyring: &Keyring, digest: &str, uid: &str, fields: Option<FieldsDigest>, facts: Option<&SecretFacts>) -> String {
    let fields = fields.map(|fields| fields.to_string()).unwrap_or_default();
    let time = written_at(facts);
    let parts = [digest.as_bytes(), uid.as_bytes(), fields.as_bytes(), bytes(time.as_ref())];
    keyring.digest("made from", parts)
}

fn written_as(keyring: &Keyring, digest: &str, uid: &str, version: u64) -> String {
    keyring.digest("written as", [digest.as_bytes(), uid.as_bytes(), &version.to_be_bytes()[..]])
}

/// Marks, of which some are perhaps not in the statuses yet, and Secrets that are to be made once more.
#[derive(Default)]
pub(crate) struct Marks(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// The marks that this process made, and the marks that others removed from a status. They are kept even after they
    /// were written, because others may change a status at any time.
    known: HashMap<ObjectKey, Known>,
    to_renew: HashSet<ObjectKey>,
}

struct Known {
    mark: Arc<str>,
    is_told: bool,
    /// Whether the mark was in a status, so that another process may have made it.
    is_seen: bool,
}

impl Marks {
    /// Makes the mark for the Secret of `key`, which was just written from the input with this digest. `sealing_key`
    /// identifies the key that unsealed the values.
    pub(crate) fn wrote(
        &self,
        keyring: &Keyring,
        key: ObjectKey,
        written: &Written,
        (made, digest, sealing_key): (Made, &str, Option<&str>),
    ) {
        let whose = whose(keyring, &written.uid, written.secret.as_deref(), made);
        let of = of(keyring, digest, &written.uid, written.fields, written.secret.as_deref());
        let written_as = written_as(keyring, digest, &written.uid, written.resource_version);
        let text = format!("{}{whose}.{of}.{}.{written_as}", made.prefix(), sealing_key.unwrap_or_default());
        self.lock().known.insert(key, Known { mark: text.into(), is_told: false, is_seen: false });
    }

    /// Remembers the mark `before`, which the status of `key` had until somebody else changed it. If this process has
    /// written the Secret itself, its own mark is kept instead.
    pub(crate) fn was_told(&self, key: ObjectKey, before: &str) {
        self.lock().known.entry(key).or_insert_with(|| Known { mark: before.into(), is_told: true, is_seen: true });
    }

    /// The mark that the status of `key` should have; `now` is the mark that it has. A mark is written once, and again
    /// only if the status `is_written` for another reason. Otherwise, two controllers that work on the same
    /// SealedSecret would replace each other's marks for ever.
    pub(super) fn to_tell(&self, key: &ObjectKey, now: Option<&str>, is_written: bool) -> Option<String> {
        let inner = self.lock();
        let known = inner.known.get(key).filter(|known| is_written || !known.is_told);
        known.map(|known| &*known.mark).or(now).map(str::to_owned)
    }

    /// Notes that the status of `key` was written with this mark.
    pub(super) fn is_told(&self, key: &ObjectKey, mark: Option<&str>) {
        if let Some(known) = self.lock().known.get_mut(key).filter(|known| Some(&*known.mark) == mark) {
            known.is_told = true;
        }
    }

    /// Forgets a SealedSecret that no longer exists.
    pub(super) fn forget(&self, key: &ObjectKey) {
        let mut inner = self.lock();
        inner.known.remove(key);
        inner.to_renew.remove(key);
    }

    /// Whether the Secret of `key` is to be made once more. The next call for the same Secret returns false.
    pub(super) fn take_renewal(&self, key: &ObjectKey) -> bool {
        self.lock().to_renew.remove(key)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The valid mark of the Secret `secret`, if there is one.
pub(crate) fn of_secret(ctx: &Context, key: &ObjectKey, secret: &LiveObject) -> Option<Mark> {
    let known = ctx.marks.lock().known.get(key).map(|known| Arc::clone(&known.mark));
    let read = |text: &str| Mark::read(&ctx.keyring, text, secret);
    if let Some(mark) = known.and_then(|known| read(&known)) {
        return Some(mark);
    }
    read(ctx.sealed_secrets.get(&key.to_ref())?.status.as_ref()?.made_from.as_deref()?)
}

/// Whether this Secret certainly has the values of the input with this digest. If this process did not write the
/// Secret, the Secret must still have the version for which the mark was made. Its time of write is not enough: it is
/// in whole seconds, and before a crash the Secret may have been written twice in one second, with the second mark
/// lost.
pub(super) fn is_certainly_of(ctx: &Context, key: &ObjectKey, secret: &LiveObject, digest: &str) -> bool {
    let is_known = ctx.marks.lock().known.get(key).is_some_and(|known| !known.is_seen);
    let is_certain = |mark: Mark| is_known || mark.is_exactly_of(&ctx.keyring, digest, secret);
    of_secret(ctx, key, secret).is_some_and(|mark| mark.is_of(&ctx.keyring, digest, secret) && is_certain(mark))
}

/// Whether there is any mark for this SealedSecret, valid or not.
pub(super) fn is_any(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey) -> bool {
    sealed.status.as_ref().is_some_and(|status| status.made_from.is_some()) || ctx.marks.lock().known.contains_key(key)
}

/// How many Secrets are made once more at the same time, and the pause after them. The pause does no harm, because
/// nobody waits for these Secrets.
const AT_ONCE: usize = 16;
const PAUSE: Duration = Duration::from_secs(1);

/// Writes all Secrets again that have the annotation of older versions, so that the annotation is removed. After that,
/// this function waits for ever, because none of the controller's tasks may end. Secrets of Syncs are not written here,
/// but by the next complete pass of the Sync.
pub(crate) async fn renew_old(ctx: Arc<Context>) {
    let is_old = |sealed: &Arc<SealedSecret>| {
        let key = ObjectKey::of(&**sealed);
        ctx.cluster.live.get(&super::secret_id(&key)).is_some() && standing(&ctx, sealed, &key) == Standing::Old
    };
    let mut all = ctx.sealed_secrets.state();
    all.retain(is_old);
    for some in all.chunks(AT_ONCE) {
        for sealed in some {
            let key = ObjectKey::of(&**sealed);
            ctx.marks.lock().to_renew.insert(key.clone());
            ctx.queues.sealed_secrets.add(key);
        }
        sleep(PAUSE).await;
    }
    std::future::pending::<()>().await;
}
