//! `gitseal keys` without a cluster: errors before any request, and the content that a backup may have.

use std::io::Write;

use age::secrecy::SecretString;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sealing::PrivateKey;
use serde_json::{Value, json};

use crate::workplace::{Workplace, certificate, key};
use crate::{stderr, stdout};

/// A kubeconfig for an address at which nothing listens.
const NO_CLUSTER: &str = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n";

fn workplace() -> Workplace {
    let here = Workplace::new();
    here.write("kubeconfig", NO_CLUSTER);
    here
}

fn keys(here: &Workplace, arguments: &[&str]) -> std::process::Output {
    here.run(&[&["keys", "--kubeconfig", "kubeconfig"], arguments].concat())
}

/// Runs a command of `gitseal keys`, which must fail with `message` and a hint before it sends a request.
fn refused(here: &Workplace, arguments: &[&str], message: &str) -> String {
    refused_with(1, here, arguments, message)
}

fn refused_with(code: i32, here: &Workplace, arguments: &[&str], message: &str) -> String {
    let output = keys(here, arguments);
    let said = stderr(&output);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{said}");
    assert!(said.starts_with("error: ") && said.contains(message) && said.contains("hint: "), "{message}: {said}");
    assert!(!said.contains("no connection"), "a cluster was asked: {said}");
    assert!(!said.contains("hunter2") && !said.contains("MII"), "a secret is shown: {said}");
    said
}

/// Writes an identity file, and returns its recipient.
fn identity(here: &Workplace, name: &str) -> String {
    use age::secrecy::ExposeSecret as _;
    let identity = age::x25519::Identity::generate();
    here.write(name, &format!("# made for a test\n{}\n", identity.to_string().expose_secret()));
    identity.to_public().to_string()
}

fn encrypt(here: &Workplace, name: &str, recipient: &str, plaintext: &str) {
    let recipient: age::x25519::Recipient = recipient.parse().unwrap();
    std::fs::write(here.path(name), age::encrypt(&recipient, plaintext.as_bytes()).unwrap()).unwrap();
}

/// A key Secret in the form of a backup.
fn key_secret(name: &str, key: &str, certificate: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"sealedsecrets.bitnami.com/sealed-secrets-key": "active"}},
        "data": {"tls.key": STANDARD.encode(key), "tls.crt": STANDARD.encode(certificate)},
    })
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

#[test]
fn a_backup_that_nobody_could_open_or_that_replaces_another_is_refused() {
    let here = workplace();
    here.write("old.age", "an older backup");
    let recipient = identity(&here, "me.txt");
    here.write("team.txt", &format!("# team\n\n{recipient}\nage1nobody\n"));
    let secret = here.read("me.txt").lines().last().unwrap().to_owned();
    refused_with(2, &here, &["backup", "new.age"], "nobody would be able to decrypt this backup");
    for arguments in [&["rotate", "-o", "name"][..], &["backup", "new.age", "-r", &recipient, "-o", "name"]] {
        refused_with(2, &here, arguments, "this command has no names of objects to print");
    }
    refused(&here, &["backup", "old.age", "-r", &recipient], "old.age exists");
    refused(&here, &["backup", "missing/new.age", "-r", &recipient], "there is no folder missing");
    refused(&here, &["backup", "new.age", "--passphrase"], "there is no terminal to ask for the passphrase");
    refused(&here, &["backup", "new.age", "-R", "team.txt"], "team.txt:4 cannot be used");
    here.write("empty", "\n");
    refused(&here, &["backup", "new.age", "--passphrase-file", "empty"], "empty holds no passphrase");
    let said = refused(&here, &["backup", "new.age", "-r", &secret], "it is an identity, which is secret");
    assert!(!said.contains(&secret), "the identity is shown: {said}");
    refused_with(2, &here, &["rotate", "-r", &recipient], "no file is named for the backup");
    let said = refused(&here, &["rotate", "--backup", "old.age", "-r", &recipient], "old.age exists");
    assert!(said.contains("--force"), "{said}");
    // With the flag `--force`, which the message named, the command gets further and fails with another error.
    let output = keys(&here, &["rotate", "--backup", "old.age", "-r", &recipient, "--force", "--key-size", "2048"]);
    assert!(stderr(&output).contains("cannot find the controller"), "{}", stderr(&output));
    assert_eq!((here.read("old.age"), here.path("new.age").exists()), ("an older backup".to_owned(), false));
}

#[test]
fn without_a_cluster_a_backup_leaves_nothing_behind() {
    let here = workplace();
    let recipient = identity(&here, "me.txt");
    let before = here.list("");
    let output = keys(&here, &["backup", "new.age", "-r", &recipient]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot list the sealing keys in namespace kube-system"), "{}", stderr(&output));
    let output = keys(&here, &["rotate", "--backup", "new.age", "-r", &recipient, "--key-size", "2048"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot find the controller"), "{}", stderr(&output));
    assert_eq!(here.list(""), before);
}

#[test]
fn only_a_list_of_whole_sealing_keys_is_restored() {
    let here = workplace();
    let recipient = identity(&here, "me.txt");
    let (pem, other) = (key().to_pem().unwrap(), PrivateKey::generate(2048).unwrap().to_pem().unwrap());
    let good = key_secret("sealed-secrets-keyabcde", &pem, &certificate(-1, 24));
    let with = |pointer: &str, value: Value| {
        let mut secret = good.clone();
        *secret.pointer_mut(pointer).unwrap() = value;
        secret
    };
    let cases = [
        ("not a sealing key", with("/metadata/labels", json!({"a": "b"}))),
        ("certificate of another key", with("/data/tls.key", STANDARD.encode(&*other).into())),
        ("data['tls.key'] cannot be used", with("/data/tls.key", STANDARD.encode("hunter2").into())),
        ("data['tls.key'] is not base64", with("/data/tls.key", "hunter2!".into())),
        ("data['tls.crt'] cannot be used", with("/data/tls.crt", "".into())),
        ("there is no data['tls.key']", with("/data", json!({}))),
        ("a Secret's name has small letters", with("/metadata/name", "A?b".into())),
        (
            "is not a Secret",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "hunter2"}}),
        ),
    ];
    for (message, bad) in cases {
        encrypt(&here, "keys.age", &recipient, &list(&[good.clone(), bad]));
        let said = refused(&here, &["restore", "keys.age", "-i", "me.txt"], message);
        assert!(said.contains("nothing was restored") && said.contains("keys.age:1"), "{said}");
    }
    let twice = [
        good.clone(),
        key_secret("sealed-secrets-keyabcde", &other, &{
            let key = PrivateKey::from_pem(other.as_bytes()).unwrap();
            let from = jiff::Timestamp::now();
            sealing::self_signed(&key, "", from, jiff::SignedDuration::from_hours(1)).unwrap().to_pem()
        }),
    ];
    encrypt(&here, "keys.age", &recipient, &list(&twice));
    refused(&here, &["restore", "keys.age", "-i", "me.txt"], "the backup has two different keys of this name");
    for nothing in ["", "# hunter2\n", "hunter2: [", &list(&[])] {
        encrypt(&here, "keys.age", &recipient, nothing);
        refused(&here, &["restore", "keys.age", "-i", "me.txt"], "keys.age holds no");
    }
    encrypt(&here, "keys.age", &recipient, &list(std::slice::from_ref(&good)));
    // A file with one good key is accepted: the command fails only because there is no cluster. The same holds for a
    // list that is not encrypted, and for a list of objects without a kind, as some programs write it.
    here.write("list.json", &list(std::slice::from_ref(&good)));
    let mut bare = good;
    bare.as_object_mut().unwrap().retain(|field, _| !["kind", "apiVersion"].contains(&field.as_str()));
    here.write("bare.json", &bare.to_string());
    for arguments in [&["keys.age", "-i", "me.txt"][..], &["list.json"], &["bare.json"]] {
        let output = keys(&here, &[&["restore"], arguments].concat());
        assert!(stderr(&output).contains("cannot read the Secret sealed-secrets-keyabcde"), "{}", stderr(&output));
    }
}

#[test]
fn a_backup_is_checked_without_a_cluster() {
    let here = workplace();
    let recipient = identity(&here, "me.txt");
    let good = key_secret("sealed-secrets-keyabcde", &key().to_pem().unwrap(), &certificate(-1, 24));
    let mut bad = good.clone();
    bad["data"]["tls.key"] = STANDARD.encode("hunter2").into();
    encrypt(&here, "keys.age", &recipient, &list(std::slice::from_ref(&good)));
    let check = |file: &str| keys(&here, &["backup", "--check", file, "-i", "me.txt"]);
    let output = check("keys.age");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let fingerprint = key().public_key().fingerprint();
    let shown = stdout(&output);
    let row = shown.lines().nth(1).unwrap_or_default();
    assert!(row.starts_with("sealed-secrets-keyabcde  active  "), "{shown}");
    assert!(row.ends_with(&format!("  sha256:{}", &fingerprint[..16])), "{shown}");
    assert!(said.contains("it is not known whether a key of the cluster is missing from the backup"), "{said}");
    encrypt(&here, "bad.age", &recipient, &list(&[good, bad]));
    let output = check("bad.age");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("bad.age is not a usable backup") && said.contains("data['tls.key'] cannot be used"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_backup_opens_for_its_recipient_or_its_passphrase_only() {
    let here = workplace();
    let recipient = identity(&here, "me.txt");
    identity(&here, "other.txt");
    encrypt(&here, "keys.age", &recipient, &list(&[]));
    refused(&here, &["restore", "keys.age", "-i", "other.txt"], "none of the identities can decrypt it");
    refused(&here, &["restore", "keys.age"], "keys.age is encrypted to age recipients");
    refused(&here, &["restore", "keys.age", "-i", "cert.pem"], "cert.pem holds no age identity");
    refused(&here, &["restore", "cert.pem", "-i", "me.txt"], "cannot decrypt cert.pem");
    let mut altered = std::fs::read(here.path("keys.age")).unwrap();
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(here.path("altered.age"), &altered).unwrap();
    let output = keys(&here, &["restore", "altered.age", "-i", "me.txt"]);
    assert!(stderr(&output).contains("altered.age is cut off, or it was altered"), "{}", stderr(&output));

    let mut encryptor = age::scrypt::Recipient::new(SecretString::from("correct horse".to_owned()));
    encryptor.set_work_factor(2);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&encryptor as &dyn age::Recipient)).unwrap();
    let armored = age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor).unwrap();
    let mut writer = encryptor.wrap_output(armored).unwrap();
    writer.write_all(list(&[]).as_bytes()).unwrap();
    std::fs::write(here.path("pass.age"), writer.finish().unwrap().finish().unwrap()).unwrap();
    here.write("right", "correct horse\n");
    here.write("wrong", "battery staple\n");
    refused(&here, &["restore", "pass.age", "--passphrase-file", "wrong"], "is it the right passphrase?");
    refused(&here, &["restore", "pass.age", "-i", "me.txt"], "pass.age is encrypted with a passphrase");
    refused(&here, &["restore", "pass.age", "--passphrase"], "there is no terminal");
    refused(&here, &["restore", "pass.age", "--passphrase-file", "right"], "pass.age holds no keys");
}

#[test]
fn a_key_is_not_retired_when_nobody_can_count() {
    let here = workplace();
    for force in [&[][..], &["--force"]] {
        let arguments =
            [&["retire", "sealed-secrets-keyabcde", "--controller-url", "http://127.0.0.1:1"], force].concat();
        let output = keys(&here, &arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1));
        assert!(said.starts_with("error: it is not known whether the key is needed"), "{said}");
    }
    let output = keys(&here, &["retire", "../x"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}
