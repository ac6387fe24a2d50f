//! The invocations with which both programs are run.

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::pair::{Case, Like, Pair, Program, certificate, key_pem};

pub(super) const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\n\
                                 stringData: {password: hunter2, user: admin}\n";

/// A Secret with every possible field.
const FULL: &str = r#"
apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: shop
  labels: {z: b, a: "1<>&", number: 5, on: yes}
  annotations:
    note: "several\nlines"
    kubectl.kubernetes.io/last-applied-configuration: '{"data": {"a": "aGVsbG8="}}'
    kubecfg.ksonnet.io/last-applied-configuration: x
  creationTimestamp: "2020-01-01T00:00:00Z"
  deletionGracePeriodSeconds: 5
  finalizers: [a/b]
  generateName: foo-
  ownerReferences: [{apiVersion: v1, kind: Pod, name: x, uid: y}]
  managedFields:
  - {manager: kubectl, operation: Update, apiVersion: v1, time: "2020-01-01T01:00:00+01:00", fieldsType: FieldsV1, fieldsV1: {"f:data": {}}}
  uid: abc
  resourceVersion: "4"
  selfLink: /foo
  generation: 4
  unknown: {a: b}
immutable: true
type: example.com/kind
data: {a: aGVsbG8=, empty: "", none: null, binary: AP8KwygA}
stringData: {a: over, number: 5432, octal: 0644, word: yes, float: 1.25, exponent: 1e-7, big: 12345678901, nothing: null}
unknown: 1
"#;

const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: one, context: {cluster: a, user: alice, namespace: kubeconfig}}
- {name: two, context: {cluster: a, user: alice}}
clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: alice, user: {token: t}}]
";

/// The private key in the form in which `kubectl get secret -o json` prints key Secrets. The key is the second in the
/// list.
pub(super) fn key_list() -> Result<String> {
    let other = sealing::PrivateKey::generate(2048)?.to_pem()?;
    let items: Vec<_> = [other.as_str(), &key_pem()?].iter().enumerate().map(|(at, pem)| key_secret(at, pem)).collect();
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}}).to_string())
}

fn key_secret(at: usize, pem: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": format!("key{at}")},
        "data": {"tls.key": STANDARD.encode(pem), "tls.crt": ""},
    })
}

pub(super) fn invocations(pair: &Pair) -> Result<Vec<Case>> {
    let mut cases = sealing();
    cases.extend(refused()?);
    cases.extend(raw());
    cases.extend(flags());
    cases.extend(places());
    cases.extend(merging(pair)?);
    cases.extend(recovering(pair)?);
    Ok(cases)
}

fn seal(arguments: &[&str]) -> Case {
    Case::new(&[&["--cert=cert.pem"], arguments].concat())
}

fn sealing() -> Vec<Case> {
    let nowhere = SECRET.replace(", namespace: shop", "");
    let wide =
        SECRET.replace("{name: db,", "{annotations: {sealedsecrets.bitnami.com/namespace-wide: 'true'}, name: db,");
    let json = r#"{"kind": "Secret", "metadata": {"name": "db", "namespace": "shop"}, "data": {"a": "eA=="}}"#;
    let mut cases = Vec::new();
    for format in [&[][..], &["-o", "yaml"], &["-oYAML"], &["--format=json"], &["-o="]] {
        let like = if format == ["-o="] { Like::SameError } else { Like::Same };
        for secret in [SECRET, FULL, json] {
            cases.push(seal(format).stdin(secret).like(like));
        }
    }
    for scope in ["strict", "namespace-wide", "cluster-wide", ""] {
        for secret in [SECRET, FULL, &wide] {
            cases.push(seal(&["-oyaml", "--scope", scope]).stdin(secret));
        }
    }
    cases.extend([
        seal(&["-n", "shop"]).stdin(&nowhere),
        seal(&["-n", "ns/shop"]).stdin(&nowhere),
        seal(&["-n", "shop"]).stdin(SECRET),
        seal(&["--scope=cluster-wide"]).stdin(&nowhere),
        seal(&["--scope=cluster-wide", "-n", "other"]).stdin(SECRET),
        seal(&["--name", "web"]).stdin(SECRET),
        seal(&["--allow-empty-data"]).stdin("metadata: {name: db, namespace: shop}\n"),
        seal(&["--allow-empty-data"]).stdin("metadata: {name: db, namespace: shop}\ndata: {}\n"),
        // Several documents, also empty ones.
        seal(&[]).stdin(&format!("# first\n---\n---\n{SECRET}---\n# nothing\n---\n{FULL}")),
        seal(&["-oyaml"]).stdin(&format!("{SECRET}---\n{FULL}---\n")),
        seal(&[]).stdin(&format!("{json}{json}\n{json}")),
        seal(&["-oyaml"]).stdin(&format!("{json}\n---\n{SECRET}")),
        // The kind is not checked, and the case of field names does not matter.
        seal(&[]).stdin("kind: ConfigMap\nmetadata: {name: db, namespace: shop}\ndata: {a: eA==}\n"),
        seal(&[]).stdin("METADATA: {Name: db, namespace: shop}\nstringdata: {a: x}\n"),
        seal(&[]).stdin("metadata: {name: 5, namespace: shop}\nstringData: {a: x}\n"),
        seal(&[]).stdin("metadata: {name: db, namespace: shop}\ndata: {a: \"eA\\n==\\n\", b: eB==}\n"),
    ]);
    cases
}

fn refused() -> Result<Vec<Case>> {
    let expired = certificate(-48, 24)?;
    let same = |case: Case| case.like(Like::SameError);
    let other = |case: Case| case.like(Like::Error);
    let nowhere = SECRET.replace(", namespace: shop", "");
    let mut cases = vec![
        same(seal(&[])),
        same(seal(&[]).stdin("---\n# nothing\n---\n")),
        same(seal(&[]).bytes(b"\xff\xfe\x00")),
        same(seal(&[]).stdin("text")),
        same(seal(&[]).stdin("- list\n")),
        same(seal(&[]).stdin("{\"metadata\": ")),
        same(seal(&[]).stdin("kind: [\n")),
        same(seal(&[]).stdin("metadata: {name: db, namespace: shop}\n")),
        same(seal(&[]).stdin("apiVersion: v1\nkind: List\nitems: []\n")),
        same(seal(&["--allow-empty-data"]).stdin("apiVersion: v1\nkind: List\nitems: []\n")),
        same(seal(&[]).stdin(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: db, namespace: shop}\nspec: {replicas: 1}\n",
        )),
        same(seal(&[]).stdin("metadata: {namespace: shop}\nstringData: {a: x}\n")),
        same(seal(&[]).stdin(&nowhere)),
        same(seal(&["-n", "other"]).stdin(SECRET)),
        same(seal(&["-o", "xml"]).stdin(SECRET)),
        same(seal(&["-f", "missing"])),
        same(seal(&["--from-file=x"]).stdin(SECRET)),
        same(Case::new(&["--cert", "missing.pem"]).stdin(SECRET)),
        same(Case::new(&["--cert", "key.pem"]).stdin(SECRET)),
        same(Case::new(&["--cert", "empty.pem"]).file("empty.pem", "").stdin(SECRET)),
        same(Case::new(&["--cert", "old.pem"]).file("old.pem", &expired).stdin(SECRET)),
        same(Case::new(&["--cert", "old.pem", "--raw", "-n", "shop", "--name", "db"]).file("old.pem", &expired)),
        same(Case::new(&["--cert", "gopher://127.0.0.1/cert.pem"]).stdin(SECRET)),
        other(Case::new(&["--cert", "http://127.0.0.1:1/cert.pem"]).stdin(SECRET)),
        other(Case::new(&["--cert", "."]).stdin(SECRET)),
        other(seal(&["-w", "no/such/folder.yaml"]).stdin(SECRET)),
        same(Case::new(&[]).stdin(SECRET)),
    ];
    for wrong in [
        "metadata: {name: [db], namespace: shop}\nstringData: {a: x}\n",
        "metadata: {name: db, namespace: shop}\ndata: {a: '!'}\n",
        "metadata: {name: db, namespace: shop}\ndata: {a: 5}\n",
        "metadata: {name: db, namespace: shop}\ndata: [a]\n",
        "metadata: {name: db, namespace: shop}\nstringData: {a: {b: c}}\n",
        "metadata: {name: db, namespace: shop}\nimmutable: perhaps\nstringData: {a: x}\n",
        "metadata: {name: db, namespace: shop, labels: [a]}\nstringData: {a: x}\n",
        "kind: ConfigMap\nmetadata: {name: db, namespace: shop}\ndata: {a: 'two words'}\n",
    ] {
        cases.push(other(seal(&[]).stdin(wrong)));
    }
    Ok(cases)
}

fn raw() -> Vec<Case> {
    let raw = |arguments: &[&str]| Case::new(&[&["--raw", "--cert=cert.pem"], arguments].concat()).stdin("hunter2\n");
    let named =
        |arguments: &[&str]| raw(&[&["-n", "shop", "--name", "db"], arguments].concat()).file("value", "\u{1}x");
    vec![
        named(&[]),
        named(&[]).bytes(&[0, 0xff, b'\n']),
        named(&[]).stdin(""),
        named(&["--scope=strict"]),
        named(&["--from-file=value"]),
        named(&["--from-file=key=value"]),
        named(&["--from-file", "/dev/stdin"]),
        named(&["--from-file="]),
        named(&["-w", "out"]),
        named(&["-f", "value"]),
        named(&["-o", "xml"]),
        named(&["--from-file=missing"]).like(Like::SameError),
        named(&["--from-file=key=missing"]).like(Like::SameError),
        named(&["--from-file=value,value"]).like(Like::SameError),
        named(&["--from-file=value", "--from-file=value"]).like(Like::SameError),
        named(&["-f", "missing"]).like(Like::SameError),
        raw(&["-n", "shop"]).like(Like::SameError),
        raw(&["--name", "db"]).like(Like::SameError),
        raw(&["-n", "shop", "--scope=namespace-wide"]),
        raw(&["--scope=namespace-wide"]).like(Like::SameError),
        raw(&["--scope=cluster-wide"]),
        raw(&["--scope=cluster-wide", "-n", "shop", "--name", "db"]),
    ]
}

fn flags() -> Vec<Case> {
    let usage = |arguments: &[&str]| seal(arguments).stdin(SECRET).like(Like::Usage);
    vec![
        Case::new(&["--version"]),
        Case::new(&["--version", "--raw", "x"]),
        Case::new(&["--fetch-cert", "--cert=cert.pem"]),
        Case::new(&["--fetch-cert", "--cert=cert.pem", "-w", "out.pem"]),
        Case::new(&["--fetch-cert", "--cert=key.pem"]),
        Case::new(&["--fetch-cert", "--cert=missing.pem"]).like(Like::SameError),
        usage(&["--nope"]),
        usage(&["--nope=1"]),
        usage(&["-Z"]),
        usage(&["--scope=global"]),
        usage(&["--raw=maybe"]),
        usage(&["-v=high"]),
        usage(&["---"]),
        usage(&["--name"]),
        usage(&["-n"]),
        // Positional arguments are ignored. After `--`, all arguments are positional.
        seal(&["secret.yaml", "-", "-oyaml", "more"]).stdin(SECRET),
        seal(&["-o=yaml", "--", "-o", "json", "--nope"]).stdin(SECRET),
        seal(&["--allow-empty-data=false", "-v5", "--v=3", "--logtostderr=false", "--vmodule", "a=1"]).stdin(SECRET),
        seal(&["--raw", "--raw=false"]).stdin(SECRET),
        seal(&["--token=x", "--as=y", "--as-group=z", "--request-timeout=1s", "--disable-compression"]).stdin(SECRET),
        // Settings in environment variables. The command line wins over them.
        seal(&[]).stdin(SECRET).environment("SEALED_SECRETS_FORMAT", "yaml"),
        seal(&["-ojson"]).stdin(SECRET).environment("SEALED_SECRETS_FORMAT", "yaml"),
        Case::new(&[]).stdin(SECRET).environment("SEALED_SECRETS_CERT", "cert.pem"),
        Case::new(&["--cert=missing.pem"])
            .stdin(SECRET)
            .environment("SEALED_SECRETS_CERT", "cert.pem")
            .like(Like::SameError),
        seal(&[]).stdin(SECRET).environment("SEALED_SECRETS_SCOPE", "cluster-wide"),
        seal(&[]).stdin(SECRET).environment("SEALED_SECRETS_SCOPE", "nonsense"),
        seal(&[]).stdin(SECRET).environment("SEALED_SECRETS_NAMESPACE", "other").like(Like::SameError),
        seal(&[])
            .stdin("x")
            .environment("SEALED_SECRETS_RAW", "true")
            .environment("SEALED_SECRETS_SCOPE", "cluster-wide"),
        seal(&[]).environment("SEALED_SECRETS_VERSION", "1"),
        seal(&[]).environment("SEALED_SECRETS_SECRET_FILE", "in.yaml").file("in.yaml", SECRET),
        seal(&[]).stdin(SECRET).environment("SEALED_SECRETS_V", "nonsense"),
    ]
}

/// Cases with files and kubeconfigs.
fn places() -> Vec<Case> {
    let nowhere = SECRET.replace(", namespace: shop", "");
    let with = |arguments: &[&str]| seal(arguments).stdin(&nowhere).file("kubeconfig", KUBECONFIG);
    let raw = |arguments: &[&str]| with(&[&["--raw", "--name=db"], arguments].concat());
    vec![
        seal(&["-f", "in.yaml"]).file("in.yaml", SECRET),
        seal(&["-f", "in.yaml", "-w", "out.yaml"]).file("in.yaml", SECRET),
        seal(&["-w", "out.yml", "-ojson"]).stdin(SECRET),
        seal(&["-w", "out.json", "-oyaml"]).stdin(SECRET),
        seal(&["-w", "out.json"]).stdin(SECRET).file("out.json", "before"),
        with(&["--kubeconfig=kubeconfig"]),
        with(&[]).environment("KUBECONFIG", "kubeconfig"),
        with(&[]).environment("KUBECONFIG", "missing:kubeconfig"),
        with(&["--context=two"]).environment("KUBECONFIG", "kubeconfig"),
        with(&["-n", "shop"]).environment("KUBECONFIG", "kubeconfig"),
        seal(&[]).stdin(SECRET).file("kubeconfig", KUBECONFIG).environment("KUBECONFIG", "kubeconfig"),
        with(&["--context=nope"]).environment("KUBECONFIG", "kubeconfig").like(Like::SameError),
        with(&["--kubeconfig=missing"]).like(Like::SameError),
        raw(&["--kubeconfig=kubeconfig"]),
        raw(&["--context=two"]).environment("KUBECONFIG", "kubeconfig"),
        raw(&["--kubeconfig=missing"]).like(Like::SameError),
        raw(&["--context=nope"]).environment("KUBECONFIG", "kubeconfig").like(Like::Error),
        raw(&["--kubeconfig=broken"]).file("broken", "a: [").like(Like::Error),
        Case::new(&["--fetch-cert", "--context=nope", "--kubeconfig=kubeconfig"])
            .file("kubeconfig", KUBECONFIG)
            .like(Like::SameError),
        Case::new(&["--fetch-cert", "--cluster=nope", "--kubeconfig=kubeconfig"])
            .file("kubeconfig", KUBECONFIG)
            .like(Like::SameError),
        Case::new(&["--fetch-cert", "--user=nope", "--kubeconfig=kubeconfig"])
            .file("kubeconfig", KUBECONFIG)
            .like(Like::SameError),
        Case::new(&["--fetch-cert", "--request-timeout=x", "--kubeconfig=kubeconfig"])
            .file("kubeconfig", KUBECONFIG)
            .like(Like::SameError),
        Case::new(&["--fetch-cert", "--kubeconfig=kubeconfig"]).file("kubeconfig", KUBECONFIG).like(Like::Error),
        Case::new(&["--validate"]).stdin(SECRET).like(Like::SameError),
        Case::new(&["--re-encrypt"]).stdin(SECRET).like(Like::SameError),
        Case::new(&["--fetch-cert"]).like(Like::SameError),
    ]
}

fn merging(pair: &Pair) -> Result<Vec<Case>> {
    let sealed = |arguments: &[&str], secret: &str| pair.run(Program::Theirs, &seal(arguments).stdin(secret))?.text();
    let (yaml, json) = (sealed(&["-oyaml"], FULL)?, sealed(&[], FULL)?);
    let (bare, wide) = (sealed(&["-oyaml"], SECRET)?, sealed(&["--scope=cluster-wide"], SECRET)?);
    let live = format!(
        "{}extra: 1\nstatus: {{observedGeneration: 3, conditions: [{{type: Synced, status: 'True', reason: x, \
         lastUpdateTime: '2020-01-01T00:00:00Z'}}]}}\n",
        yaml.replacen(
            "metadata:\n",
            "metadata:\n  uid: u\n  generation: 2\n  creationTimestamp: '2020-01-01T00:00:00+02:00'\n",
            1
        )
    );
    let more = "metadata: {name: web, labels: {b: c}, annotations: {note: other}}\nstringData: {a: new, z: last}\n";
    let plain = "metadata: {name: web}\nstringData: {a: new, z: last}\n";
    let merge = |file: &str, arguments: &[&str]| {
        seal(&[arguments, &["-n", "shop", "--merge-into=sealed"]].concat()).file("sealed", file)
    };
    let error = |file: &str, like| merge(file, &[]).stdin(plain).like(like);
    Ok(vec![
        merge(&yaml, &["-oyaml"]).stdin(more),
        merge(&yaml, &[]).stdin(more),
        merge(&json, &[]).stdin(more),
        merge(&json, &["-oyaml"]).stdin(more),
        merge(&bare, &["-oyaml"]).stdin(plain),
        merge(&wide, &["--scope=cluster-wide"]).stdin(plain),
        merge(&live, &["-oyaml"]).stdin(more),
        merge(&live, &[]).stdin(more),
        seal(&["--merge-into=sealed.yaml", "-f", "in.yaml"]).file("sealed.yaml", &bare).file("in.yaml", SECRET),
        merge(&bare, &[]).stdin(SECRET),
        // The name and namespace are taken from the SealedSecret in the file of `--merge-into`.
        seal(&["--merge-into=sealed", "--name=web"]).stdin(&SECRET.replace("shop", "elsewhere")).file("sealed", &bare),
        seal(&["--merge-into=sealed", "-n", "other"]).stdin(SECRET).file("sealed", &bare).like(Like::SameError),
        seal(&["--merge-into=missing"]).stdin(plain).like(Like::SameError),
        merge(&bare, &[]).like(Like::SameError),
        merge(&bare, &[]).stdin("metadata: {name: db}\n").like(Like::SameError),
        merge(&bare, &["-o", "xml"]).stdin(plain).like(Like::SameError),
        merge(&bare, &[]).stdin(&format!("{plain}---\n{plain}")).like(Like::Error),
        error(SECRET, Like::Error),
        error("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n", Like::Error),
        error("kind: [", Like::Error),
        error("{\"kind\": ", Like::Error),
    ])
}

fn recovering(pair: &Pair) -> Result<Vec<Case>> {
    let sealed = |arguments: &[&str], secret: &str| pair.run(Program::Theirs, &seal(arguments).stdin(secret))?.text();
    let (yaml, json) = (sealed(&["-oyaml"], FULL)?, sealed(&[], FULL)?);
    let (bare, wide) = (sealed(&["-oyaml"], SECRET)?, sealed(&["--scope=cluster-wide", "-oyaml"], SECRET)?);
    let template = |data: &str| bare.replace("  template:\n", &format!("  template:\n    data: {data}\n"));
    let recover = |arguments: &[&str]| Case::new(&[&["--recovery-unseal"], arguments].concat());
    let with_key = |text: &str| recover(&["--recovery-private-key=key.pem"]).stdin(text);
    let (secret, list) = (key_secret(0, &key_pem()?).to_string(), key_list()?);
    let other = sealing::PrivateKey::generate(2048)?.to_pem()?;
    Ok(vec![
        with_key(&yaml),
        with_key(&json),
        with_key(&wide),
        with_key(&wide.replace("shop", "elsewhere").replace("name: db", "name: web")),
        recover(&["--recovery-private-key=key.pem", "-oyaml"]).stdin(&yaml),
        recover(&["--recovery-private-key=key.pem", "-w", "out.yaml"]).stdin(&yaml),
        recover(&["--recovery-private-key=key.pem", "-f", "in.yaml"]).file("in.yaml", &yaml),
        recover(&["--recovery-private-key=key.json"]).stdin(&yaml).file("key.json", &secret),
        recover(&["--recovery-private-key=keys.json"]).stdin(&yaml).file("keys.json", &list),
        recover(&["--recovery-private-key=keys.yaml"]).stdin(&yaml).file("keys.yaml", &format!("---\n{list}\n")),
        recover(&["--recovery-private-key=other.pem,key.pem"]).stdin(&yaml).file("other.pem", &other),
        recover(&["--recovery-private-key=other.pem", "--recovery-private-key=key.pem"])
            .stdin(&yaml)
            .file("other.pem", &other),
        recover(&["--recovery-private-key=key.pem"])
            .stdin(&yaml)
            .file("other.pem", &other)
            .environment("SEALED_SECRETS_RECOVERY_PRIVATE_KEY", "other.pem"),
        with_key(&template("{x: plain, user: over, empty: ''}")),
        with_key(&template(
            r#"{url: "https://{{ .user }}:{{ .password | b64enc }}@db/{{ .missing }}", user: "{{ upper .user }}"}"#,
        )),
        with_key(&template("{x: '{{ .user '}")).like(Like::Error),
        with_key(&template("{x: '{{ env .user }}'}")).like(Like::Error),
        with_key(&yaml.replacen(
            "      annotations:\n",
            "      annotations:\n        sealedsecrets.bitnami.com/skip-set-owner-references: 'true'\n",
            1,
        )),
        with_key(&yaml.replacen("metadata:\n", "metadata:\n  uid: u\n  creationTimestamp: null\n", 1)),
        with_key(&bare.replace("name: db", "name: web")).like(Like::Error),
        with_key(&bare.replace("  template:\n", "  data: AAAA\n  template:\n")).like(Like::SameError),
        with_key(SECRET).like(Like::Error),
        with_key("kind: [").like(Like::Error),
        recover(&["--recovery-private-key=missing.pem"]).stdin(&bare).like(Like::SameError),
        recover(&["--recovery-private-key=cert.pem"]).stdin(&bare).like(Like::Error),
        recover(&["--recovery-private-key=other.pem"]).stdin(&bare).file("other.pem", &other).like(Like::Error),
        recover(&[]).stdin(&bare).like(Like::Error),
        recover(&["--recovery-private-key=key.pem", "-o", "xml"]).stdin(&bare).like(Like::SameError),
        recover(&["--recovery-private-key=key.pem", "-f", "missing"]).like(Like::SameError),
        recover(&["--recovery-private-key=empty.json"])
            .stdin(&bare)
            .file("empty.json", r#"{"kind": "Secret", "data": {}}"#)
            .like(Like::Error),
    ])
}

/// Annotations with texts that need escapes or quotes in JSON or YAML.
pub(super) fn texts() -> Vec<Map<String, Value>> {
    let words = "word ".repeat(40);
    let long = format!("{} y  z", "x".repeat(90));
    let texts = [
        "",
        " ",
        "  ",
        "a b",
        "a: b",
        "a:b",
        "a:",
        "::",
        ":",
        ": a",
        "a #b",
        "#a",
        "a#",
        "- a",
        "-a",
        "-",
        "---",
        "--- a",
        "...",
        "?",
        "? a",
        "'",
        "'a",
        "a'b",
        "\"a\"",
        " a",
        "a ",
        "true",
        "y",
        "N",
        "off",
        "Yes",
        "null",
        "~",
        "<<",
        "=",
        "1e3",
        "0123",
        "08",
        "0x1f",
        "0b1",
        "0o7",
        "1_000",
        "1.5",
        ".5",
        "1.",
        "+1",
        "+.inf",
        ".nan",
        "1e",
        "12:30:45",
        "190:20:30",
        "1:2.5",
        "2020-01-01",
        "2020-1-1",
        "2020-13-01",
        "2020-01-01T00:00:00Z",
        "2020-01-01 00:00:00",
        "2020-01-01 00:00:00Z",
        "{a",
        "[a",
        "a]",
        "a}",
        "a,b",
        "*a",
        "&a",
        "!a",
        "|",
        "> a",
        "%a",
        "@a",
        "`a",
        "\u{e9}",
        "\u{1f600}",
        "a\u{a0}b",
        "a\tb",
        "\t",
        "a\u{1}b",
        "a\\b",
        "a\"b\n\u{1}",
        "a\nb",
        "a\nb\n",
        "a\n\n",
        "\na",
        "\n",
        " a\nb",
        "a \nb",
        "a\nb ",
        "a\r\nb",
        "a\n  b\n c",
        "<b>&",
        words.trim_end(),
        &words,
        &long,
        "two  spaces ",
        &format!("'{words}x"),
        &format!("{words}# \""),
        &format!("{words}\u{1}{words}x"),
    ];
    let as_values = texts.iter().enumerate().map(|(at, text)| (format!("k{at}"), Value::from(*text))).collect();
    let is_key = |text: &&&str| !text.is_empty() && !text.contains(['\n', '\r', '\t', '\u{1}']);
    let mut all = vec![as_values];
    // Only a few keys at a time, because with some sets of keys the order in kubeseal's output is random.
    let keys: Vec<&str> = texts.iter().filter(is_key).copied().collect();
    all.extend(keys.chunks(3).map(|keys| keys.iter().map(|key| ((*key).to_owned(), Value::from("v"))).collect()));
    let ordered = ["a", "B", "a1", "a9", "a10", "a100", "ab", "a.b", "a-b", "a_b", "b", "c0", "c00", "c1", "\u{e9}"];
    all.push(ordered.iter().map(|key| ((*key).to_owned(), Value::from("v"))).collect());
    all.push(std::iter::once(("k".repeat(129), Value::from("v"))).collect());
    all
}
