//! Every flag that kubeseal v0.36.6 takes.

use sealing::Scope;

/// One flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    pub(super) kind: Kind,
    /// The name of its value in the help.
    pub(super) value: &'static str,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    /// A flag of kubeseal's logging library. It is accepted on the command line only, and has no effect here.
    pub(super) is_for_logs: bool,
    /// The flag to use instead.
    pub(super) deprecated_for: Option<&'static str>,
}

/// How a flag's value is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// On or off. If the flag has no value, it is on.
    Switch,
    Text,
    /// Text, of which a prefix `namespace/` or `ns/` is dropped.
    Namespace,
    /// Values separated by commas, as a line of CSV. Each use of the flag adds values.
    List,
    /// Each use of the flag adds one value.
    Repeated,
    Scope,
    /// A level of logs.
    Integer,
    Unsigned,
    /// A log level: its name or its number.
    Severity,
}

impl Kind {
    /// The values in a text, or what is wrong with it.
    pub(super) fn read(self, text: &str) -> Result<Vec<String>, String> {
        let one = |text: &str| Ok(vec![text.to_owned()]);
        let no_number = |function: &str| format!("strconv.{function}: parsing {text:?}: invalid syntax");
        match self {
            Self::Switch => match text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => one("true"),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => one("false"),
                _ => Err(no_number("ParseBool")),
            },
            Self::Text | Self::Repeated => one(text),
            Self::Namespace => one(without_prefix(text)),
            Self::List => csv_line(text),
            Self::Scope if text.is_empty() => one("strict"),
            Self::Scope => match text.parse::<Scope>() {
                Ok(_) => one(text),
                Err(_) => Err("must be one of: strict, namespace-wide, cluster-wide".to_owned()),
            },
            Self::Integer => text.parse::<i32>().map_err(|_| no_number("ParseInt")).and_then(|_| one(text)),
            Self::Unsigned => text.parse::<u64>().map_err(|_| no_number("ParseUint")).and_then(|_| one(text)),
            Self::Severity => {
                let is_name = ["INFO", "WARNING", "ERROR", "FATAL"].contains(&text.to_ascii_uppercase().as_str());
                if is_name { one(text) } else { Self::Integer.read(text) }
            }
        }
    }
}

fn without_prefix(text: &str) -> &str {
    for prefix in ["namespaces/", "namespace/", "ns/"] {
        let start = text.get(..prefix.len());
        if text.len() > prefix.len() && start.is_some_and(|start| start.eq_ignore_ascii_case(prefix)) {
            return &text[prefix.len()..];
        }
    }
    text
}

/// The fields of one line of CSV (RFC 4180).
fn csv_line(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    if line.is_empty() {
        return Ok(fields);
    }
    let mut rest = line;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        if !rest.starts_with('"') && field.contains('"') {
            return Err("a quote inside a value without quotes".to_owned());
        }
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// Reads a quoted field, of which the opening quote is already read. Returns the field, and the text after its closing
/// quote.
fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or("a quoted value does not end")?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if rest.is_empty() || rest.starts_with(',') => return Ok((field, rest)),
            None => return Err("a value goes on after its closing quote".to_owned()),
        }
    }
}

/// The default of a flag that is in the table.
pub(super) fn default_of(name: &str) -> &'static str {
    FLAGS.iter().find(|flag| flag.name == name).map(|flag| flag.default).unwrap_or_default()
}

const fn flag(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    let value = match kind {
        Kind::Switch => "",
        Kind::Text | Kind::Namespace | Kind::Scope => "string",
        Kind::List => "strings",
        Kind::Repeated => "stringArray",
        Kind::Integer => "Level",
        Kind::Unsigned => "uint",
        Kind::Severity => "severity",
    };
    Flag { name, short: None, kind, value, default: "", help, is_for_logs: false, deprecated_for: None }
}

const fn log(name: &'static str, kind: Kind) -> Flag {
    Flag {
        is_for_logs: true,
        ..flag(name, kind, "Accepted for compatibility with kubeseal; no effect, because gitseal writes no log")
    }
}

impl Flag {
    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }
}

/// All flags, in the order of the help.
pub(super) static FLAGS: &[Flag] = &[
    log("add_dir_header", Kind::Switch),
    flag("allow-empty-data", Kind::Switch, "Seal a Secret even if it has no values"),
    log("alsologtostderr", Kind::Switch),
    log("alsologtostderrthreshold", Kind::Severity),
    flag("as", Kind::Text, "User to impersonate in requests to the cluster"),
    flag("as-group", Kind::Repeated, "Group to impersonate in requests to the cluster; can be given several times"),
    flag("as-uid", Kind::Text, "UID to impersonate in requests to the cluster"),
    flag("cert", Kind::Text, "Certificate to seal with, a file or a URL, instead of the controller's"),
    flag("certificate-authority", Kind::Text, "File with the certificate authority of the API server"),
    flag("client-certificate", Kind::Text, "File with the client certificate for the API server"),
    flag("client-key", Kind::Text, "File with the client certificate's key"),
    flag("cluster", Kind::Text, "Cluster of the kubeconfig"),
    flag("context", Kind::Text, "Context of the kubeconfig"),
    flag("controller-name", Kind::Text, "Name of the controller's Service").default("sealed-secrets-controller"),
    flag("controller-namespace", Kind::Text, "Namespace of the controller's Service").default("kube-system"),
    flag("disable-compression", Kind::Switch, "Ask for answers without compression (answers are never compressed \
        anyway)"),
    flag("fetch-cert", Kind::Switch, "Print the certificate to seal with, for later use with --cert"),
    flag("format", Kind::Text, "Format of the output, json or yaml").short('o').default("json"),
    flag("from-file", Kind::List, "With --raw: the file whose content is sealed, FILE or KEY=FILE, instead of standard input"),
    flag("help", Kind::Switch, "Print this help"),
    flag("insecure-skip-tls-verify", Kind::Switch, "Do not check the API server's certificate, which makes the connection insecure"),
    flag("kubeconfig", Kind::Text, "Kubeconfig file, instead of $KUBECONFIG or ~/.kube/config"),
    log("legacy_stderr_threshold_behavior", Kind::Switch),
    log("log_backtrace_at", Kind::Text),
    log("log_dir", Kind::Text),
    log("log_file", Kind::Text),
    log("log_file_max_size", Kind::Unsigned),
    log("logtostderr", Kind::Switch),
    flag("merge-into", Kind::Text, "Seal the Secret's values, put them into this existing SealedSecret file, and print nothing"),
    flag("name", Kind::Text, "Name of the SealedSecret; needed with --raw and the scope strict"),
    flag("namespace", Kind::Namespace, "Namespace of the Secret").short('n'),
    log("one_output", Kind::Switch),
    flag("password", Kind::Text, "Password for the API server"),
    flag("proxy-url", Kind::Text, "Proxy through which the API server is reached"),
    flag("raw", Kind::Switch, "Seal a single value instead of a Secret"),
    flag("re-encrypt", Kind::Switch, "Have the controller seal a SealedSecret again with its newest key"),
    flag("recovery-private-key", Kind::List, "With --recovery-unseal: files with private keys, PEM or the key Secrets as YAML or JSON; separated by commas or given several times"),
    flag("recovery-unseal", Kind::Switch, "Unseal a SealedSecret without the cluster, with the keys of --recovery-private-key"),
    flag("request-timeout", Kind::Text, "How long one request to the cluster may take, such as 10s or 1m; 0 for no limit").default("0"),
    Flag { deprecated_for: Some("re-encrypt"), ..flag("rotate", Kind::Switch, "Use --re-encrypt") },
    flag("scope", Kind::Scope, "Where the values can be unsealed: strict (only with the Secret's own namespace and name), namespace-wide or cluster-wide; without this flag, the Secret's own annotations decide").default("strict"),
    flag("sealed-secret-file", Kind::Text, "File to write instead of standard output; .yaml or .yml makes it YAML").short('w'),
    flag("secret-file", Kind::Text, "File to read instead of standard input").short('f'),
    flag("server", Kind::Text, "Address of the API server"),
    log("skip_headers", Kind::Switch),
    log("skip_log_headers", Kind::Switch),
    log("stderrthreshold", Kind::Severity),
    flag("tls-server-name", Kind::Text, "Name that the API server's certificate must have, by default the host in the server's address"),
    flag("token", Kind::Text, "Bearer token for the API server"),
    flag("user", Kind::Text, "User of the kubeconfig"),
    flag("username", Kind::Text, "User name for the API server"),
    log("v", Kind::Integer).short('v'),
    flag("validate", Kind::Switch, "Ask the controller whether it can unseal the SealedSecret"),
    flag("version", Kind::Switch, "Print the version"),
    log("vmodule", Kind::Text),
];
