//! Signatures of OpenPGP: which keys are trusted, and whether one of them made a signature.
//!
//! A key counts only while it is valid: it is bound to itself by a signature, may sign, has not expired, and is not revoked. What counts
//! is the time of the check, because whoever has an old key can give a signature any time.

use std::time::{SystemTime, UNIX_EPOCH};

use pgp::composed::{CleartextSignedMessage, Deserializable as _, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, PublicParams, Tag, Timestamp, VerifyingKey};
use rsa::traits::PublicKeyParts as _;

/// The most keys in one entry of a Secret.
const KEYS: usize = 100;
/// The most signatures of one message.
const SIGNATURES: usize = 10;
/// The fewest bits of a key of RSA.
const RSA_BITS: usize = 2048;

/// Why a message is not trusted.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Distrust {
    /// It has no signature that can be read.
    Unsigned,
    /// It has signatures, but none is valid and by a trusted key. The text says why, if a trusted key is named.
    Untrusted(Option<String>),
}

/// Public keys in a text, or in the binary form of a keyring.
pub(crate) fn keys(bytes: &[u8]) -> Result<Vec<SignedPublicKey>, String> {
    let not_keys = |_| "is not a public key of OpenPGP (gpg --export, with or without --armor)".to_owned();
    let is_text = bytes.trim_ascii_start().starts_with(b"-----BEGIN");
    let all: Vec<_> = if is_text {
        SignedPublicKey::from_armor_many(bytes).map_err(not_keys)?.0.take(KEYS).collect::<Result<_, _>>()
    } else {
        SignedPublicKey::from_bytes_many(bytes).map_err(not_keys)?.take(KEYS).collect::<Result<_, _>>()
    }
    .map_err(not_keys)?;
    if all.is_empty() {
        return Err("has no public key of OpenPGP".to_owned());
    }
    Ok(all)
}

/// The text of a clear-signed message, if one of the keys signed it.
pub(crate) fn text(message: &[u8], keys: &[SignedPublicKey], now: SystemTime) -> Result<String, Distrust> {
    let message = str::from_utf8(message).map_err(|_| Distrust::Unsigned)?;
    let (message, _) = CleartextSignedMessage::from_string(message).map_err(|_| Distrust::Unsigned)?;
    let text = message.signed_text();
    trusted(message.signatures(), text.as_bytes(), keys, now)?;
    Ok(text)
}

/// Whether one of the signatures of `signed` is valid and by one of the keys.
pub(crate) fn trusted(
    signatures: &[Signature],
    signed: &[u8],
    keys: &[SignedPublicKey],
    now: SystemTime,
) -> Result<(), Distrust> {
    if signatures.is_empty() {
        return Err(Distrust::Unsigned);
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut why = None;
    for signature in signatures.iter().take(SIGNATURES) {
        for key in keys {
            match is_by(signature, signed, key, now) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(because) => why = Some(format!("the key {} {because}", key.fingerprint())),
            }
        }
    }
    Err(Distrust::Untrusted(why))
}

/// Whether the signature is valid and by this key. The error says why the key, which made the signature, does not count.
fn is_by(signature: &Signature, signed: &[u8], key: &SignedPublicKey, now: u64) -> Result<bool, String> {
    let is_primary = signature.verify(&key.primary_key, signed).is_ok();
    let mut subkeys = key.public_subkeys.iter();
    let subkey = if is_primary { None } else { subkeys.find(|subkey| signature.verify(&subkey.key, signed).is_ok()) };
    if !is_primary && subkey.is_none() {
        return Ok(false);
    }
    is_usable(signature, now)?;
    let own = of_primary(key, now)?;
    match subkey {
        None if !own.key_flags().sign() => Err("may not sign".to_owned()),
        None => is_strong(&key.primary_key),
        Some(subkey) => of_subkey(subkey, key, now),
    }
    .map(|()| true)
}

/// Whether this kind of signature proves what it signs.
fn is_usable(signature: &Signature, now: u64) -> Result<(), String> {
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Err("signed, but not as a signature of a text".to_owned());
    }
    has_strong_hash(signature)?;
    let has_unknown = signature.config().is_none_or(|config| {
        let mut critical = config.hashed_subpackets().filter(|packet| packet.is_critical);
        critical.any(|packet| matches!(packet.data, SubpacketData::Other(..) | SubpacketData::Experimental(..)))
    });
    if has_unknown {
        return Err("signed with a condition that is not known here".to_owned());
    }
    let made = signature.created().map_or(u64::MAX, |at| at.as_secs().into());
    if made > now.saturating_add(CLOCKS) {
        return Err("signed at a time that is in the future".to_owned());
    }
    match signature.signature_expiration_time().map(|time| u64::from(time.as_secs())) {
        Some(time) if time > 0 && made.saturating_add(time) < now => {
            Err("signed, but the signature has expired".to_owned())
        }
        _ => Ok(()),
    }
}

/// How many seconds the clocks of two machines may differ.
const CLOCKS: u64 = 300;

fn has_strong_hash(signature: &Signature) -> Result<(), String> {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha224, Sha256, Sha384, Sha512};
    match signature.hash_alg() {
        Some(Sha224 | Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512) => Ok(()),
        _ => Err("signed with a hash that is no longer secure".to_owned()),
    }
}

/// The newest valid signature by which the primary key describes itself, if it is valid now.
fn of_primary(key: &SignedPublicKey, now: u64) -> Result<&Signature, String> {
    let primary = &key.primary_key;
    let is_revoked = |signature: &&Signature| signature.verify_key(primary).is_ok();
    if key.details.revocation_signatures.iter().any(|signature| is_revoked(&signature)) {
        return Err("is revoked".to_owned());
    }
    let direct = key.details.direct_signatures.iter().filter(|signature| signature.verify_key(primary).is_ok());
    let direct = direct.filter(|signature| signature.typ() == Some(SignatureType::Key));
    let of_users = key.details.users.iter().filter_map(|user| {
        let valid =
            user.signatures.iter().filter(|one| one.verify_certification(primary, Tag::UserId, &user.id).is_ok());
        let newest = valid.max_by_key(|one| (one.created().map(Timestamp::as_secs), !one.is_certification()))?;
        newest.is_certification().then_some(newest)
    });
    let newest = direct.chain(of_users).max_by_key(|one| one.created().map(Timestamp::as_secs));
    let newest = newest.ok_or("has no valid signature of its own")?;
    is_in_time(primary, newest, now)?;
    Ok(newest)
}

fn of_subkey(subkey: &SignedPublicSubKey, key: &SignedPublicKey, now: u64) -> Result<(), String> {
    let primary = &key.primary_key;
    let valid = subkey.signatures.iter().filter(|one| one.verify_subkey_binding(primary, &subkey.key).is_ok());
    let valid: Vec<_> = valid.collect();
    if valid.iter().any(|one| one.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Err("has revoked the subkey that signed".to_owned());
    }
    let newest = valid.into_iter().max_by_key(|one| one.created().map(Timestamp::as_secs));
    let newest = newest.ok_or("does not have the subkey that signed")?;
    let is_bound_back =
        newest.embedded_signature().is_some_and(|one| one.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if !newest.key_flags().sign() || !is_bound_back {
        return Err("has a subkey that signed, but may not sign".to_owned());
    }
    is_in_time(&subkey.key, newest, now)?;
    is_strong(&subkey.key)
}

/// Whether a key has not expired. `own` is the signature that says when it expires.
fn is_in_time(key: &impl KeyDetails, own: &Signature, now: u64) -> Result<(), String> {
    let expires = own.key_expiration_time().map(|time| u64::from(time.as_secs())).filter(|time| *time > 0);
    let made = u64::from(key.created_at().as_secs());
    if expires.is_some_and(|time| made.saturating_add(time) < now) {
        return Err("has expired: put its newer form, or another key, into the Secret".to_owned());
    }
    let is_over = |time: u64| own.created().map_or(0, |at| u64::from(at.as_secs())).saturating_add(time) < now;
    let of_signature = own.signature_expiration_time().map(|time| u64::from(time.as_secs())).filter(|time| *time > 0);
    if of_signature.is_some_and(is_over) { Err("has expired".to_owned()) } else { Ok(()) }
}

/// Whether a signature of this key can be forged with little effort.
fn is_strong(key: &impl VerifyingKey) -> Result<(), String> {
    match key.public_params() {
        PublicParams::RSA(rsa) if rsa.key.n().bits() < RSA_BITS => Err(format!("has fewer than {RSA_BITS} bits")),
        PublicParams::RSA(_) => Ok(()),
        PublicParams::ECDSA(_) | PublicParams::EdDSALegacy(_) | PublicParams::Ed25519(_) | PublicParams::Ed448(_) => {
            Ok(())
        }
        _ => Err("is of a kind that is not supported: use RSA, Ed25519, or ECDSA".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// The real `gpg` with a home of its own.
    struct Gpg(tempfile::TempDir);

    impl Gpg {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
            let mut command = Command::new("gpg");
            command.env_clear().env("PATH", "/usr/bin:/bin").env("GNUPGHOME", self.0.path());
            command
                .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""])
                .args(arguments);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        }

        fn make(&self, who: &str, kind: &str, expires: &str) {
            self.run(&["--quick-generate-key", who, kind, "cert,sign", expires], b"");
        }

        fn sign(&self, who: &str, text: &str) -> Vec<u8> {
            self.run(&["--local-user", who, "--clear-sign"], text.as_bytes())
        }

        fn export(&self, who: &str) -> Vec<SignedPublicKey> {
            keys(&self.run(&["--armor", "--export", who], b"")).unwrap()
        }

        fn fingerprint(&self, who: &str) -> String {
            let told = String::from_utf8(self.run(&["--with-colons", "--list-keys", who], b"")).unwrap();
            told.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap().trim_end_matches(':').to_owned()
        }
    }

    impl Drop for Gpg {
        fn drop(&mut self) {
            let _ = Command::new("gpgconf").env("GNUPGHOME", self.0.path()).args(["--kill", "all"]).status();
        }
    }

    /// Whether the real program is there. If everything is required, it must be.
    fn has_gpg() -> bool {
        let is_there = Command::new("gpg").arg("--version").output().is_ok();
        assert!(is_there || std::env::var_os("GITSEAL_REQUIRE_ALL").is_none_or(|all| all != "1"), "there is no gpg");
        if !is_there {
            eprintln!("skipped: there is no gpg");
        }
        is_there
    }

    fn now() -> SystemTime {
        SystemTime::now()
    }

    fn why(result: Result<String, Distrust>) -> String {
        match result {
            Err(Distrust::Untrusted(Some(why))) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_gpg_signed_is_trusted_if_its_key_is() {
        if !has_gpg() {
            return;
        }
        let gpg = Gpg::new();
        for (who, kind) in [("rsa@example", "rsa3072"), ("ed@example", "ed25519"), ("ec@example", "nistp256")] {
            gpg.make(who, kind, "0");
            let said = format!("- dashes\nfrom {who} \n");
            let signed = gpg.sign(who, &said);
            let key = gpg.export(who);
            let found = text(&signed, &key, now()).unwrap();
            assert!(found.contains("- dashes") && found.contains(who), "{found:?}");
            let changed = String::from_utf8(signed.clone()).unwrap().replace("from", "form");
            assert_eq!(text(changed.as_bytes(), &key, now()), Err(Distrust::Untrusted(None)));
            assert_eq!(text(b"no message", &key, now()), Err(Distrust::Unsigned));
        }
        let (one, other) = (gpg.sign("rsa@example", "a\n"), gpg.export("ed@example"));
        assert_eq!(text(&one, &other, now()), Err(Distrust::Untrusted(None)));
        let both = keys(&gpg.run(&["--export"], b"")).unwrap();
        assert!(both.len() == 3 && text(&one, &both, now()).is_ok());
        assert!(keys(b"x").is_err() && keys(b"").is_err());
        let hash = gpg.run(&["--local-user", "rsa@example", "--digest-algo", "SHA1", "--clear-sign"], b"a\n");
        assert!(text(&hash, &both, now()).is_err());
    }

    #[test]
    fn keys_that_are_not_valid_do_not_count() {
        if !has_gpg() {
            return;
        }
        let gpg = Gpg::new();
        gpg.make("short@example", "ed25519", "1d");
        let signed = gpg.sign("short@example", "a\n");
        let later = now() + std::time::Duration::from_secs(2 * 86_400);
        let key = gpg.export("short@example");
        assert!(text(&signed, &key, now()).is_ok());
        assert!(why(text(&signed, &key, later)).contains("has expired"));
        // A newer form of the key, which expires later.
        gpg.run(&["--quick-set-expire", &gpg.fingerprint("short@example"), "1y"], b"");
        assert!(text(&signed, &gpg.export("short@example"), later).is_ok());

        // Subkeys: one that may sign, and one that may not.
        gpg.make("sub@example", "rsa2048", "0");
        let of = gpg.fingerprint("sub@example");
        gpg.run(&["--quick-add-key", &of, "ed25519", "sign", "1d"], b"");
        let signed = gpg.sign("sub@example", "a\n");
        let key = gpg.export("sub@example");
        assert_eq!(key[0].public_subkeys.len(), 1);
        assert!(text(&signed, &key, now()).is_ok());
        assert!(why(text(&signed, &key, later)).contains("has expired"));
        let mut unbound = key.clone();
        unbound[0].public_subkeys[0].signatures.clear();
        assert!(text(&signed, &unbound, now()).is_err());
        let mut moved = gpg.export("short@example");
        moved[0].public_subkeys = key[0].public_subkeys.clone();
        assert!(why(text(&signed, &moved, now())).contains("does not have the subkey"));

        // Revoked.
        let certificate = gpg.0.path().join("openpgp-revocs.d").join(format!("{of}.rev"));
        let certificate = std::fs::read_to_string(certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
        gpg.run(&["--import"], certificate.as_bytes());
        assert!(why(text(&signed, &gpg.export("sub@example"), now())).contains("is revoked"));
    }

    #[test]
    fn weak_keys_do_not_count() {
        if !has_gpg() {
            return;
        }
        let gpg = Gpg::new();
        gpg.make("weak@example", "rsa1024", "0");
        let signed = gpg.sign("weak@example", "a\n");
        assert!(text(&signed, &gpg.export("weak@example"), now()).is_err());
    }
}
