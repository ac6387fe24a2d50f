//! A real OCI registry on a loopback address, with a self-signed certificate, and the token service that it may send
//! clients to.

pub mod cosign;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use localcluster::{ChildGuard, Output, ReservedPort, spawn_supervised};
use rcgen::SigningKey as _;
use serde_json::{Value, json};

use crate::charts::Helm;
use crate::eventually;
use crate::web::{Access, LoggedRequest, Tls, WebServer, plain};

/// The user name of everybody who may log in.
pub const USERNAME: &str = "reader";
/// The registry's name in the tokens that it accepts.
const SERVICE: &str = "registry-of-a-test";
/// Who makes the tokens.
const ISSUER: &str = "token-service-of-a-test";

/// The media types of an index and of a manifest.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Who may read and push.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Login {
    /// Everybody.
    #[default]
    Anonymous,
    /// Whoever sends [`USERNAME`] with this password.
    Password(&'static str),
    /// Whoever has a token of the token service, which gives one to [`USERNAME`] with this password.
    Token(&'static str),
}

/// A registry. Its content is deleted when this is dropped.
pub struct Registry {
    // Dropped first.
    running: Option<ChildGuard>,
    login: Login,
    port: ReservedPort,
    tls: Tls,
    tokens: Option<WebServer>,
    folder: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry on a free port.
    pub async fn start(login: Login) -> Result<Self> {
        let (folder, port, tls) = (tempfile::tempdir()?, ReservedPort::new()?, Tls::new()?);
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("tls.crt"), &tls.authority)?;
        fs::write(path("tls.key"), &tls.key)?;
        let mut config = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": path("content")}, "delete": {"enabled": true}},
            "http": {
                "addr": format!("127.0.0.1:{}", port.number()),
                "tls": {"certificate": path("tls.crt"), "key": path("tls.key")},
            },
        });
        let mut tokens = None;
        match login {
            Login::Anonymous => {}
            Login::Password(password) => {
                let hash = bcrypt::hash_with_salt(password, 4, [7; 16]).map_err(|error| anyhow!("{error}"))?;
                fs::write(path("htpasswd"), format!("{USERNAME}:{hash}\n"))?;
                config["auth"] = json!({"htpasswd": {"realm": SERVICE, "path": path("htpasswd")}});
            }
            Login::Token(password) => {
                let (service, certificate) = token_service(password)?;
                fs::write(path("tokens.crt"), certificate)?;
                config["auth"] = json!({"token": {
                    "realm": format!("{}/token", service.base()), "service": SERVICE, "issuer": ISSUER,
                    "rootcertbundle": path("tokens.crt"),
                }});
                tokens = Some(service);
            }
        }
        // JSON is YAML.
        fs::write(path("config.yml"), config.to_string())?;
        let mut registry = Self { running: None, login, port, tls, tokens, folder };
        registry.resume().await?;
        Ok(registry)
    }

    /// Ends the program. What was pushed stays.
    pub fn stop(&mut self) -> Result<()> {
        self.running.take().map(ChildGuard::kill).transpose()?;
        Ok(())
    }

    /// Starts the program again, on the same port.
    pub async fn resume(&mut self) -> Result<()> {
        let program = tokio::task::spawn_blocking(localcluster::parts::registry).await??;
        let mut command = std::process::Command::new(program);
        command.arg("serve").arg(self.folder.path().join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        self.running = Some(spawn_supervised(&command, Output::Log(self.log_file()))?);
        let address = ("127.0.0.1", self.port.number());
        eventually("the registry to listen", || async {
            tokio::net::TcpStream::connect(address).await.map(drop).with_context(|| self.log())
        })
        .await
    }

    /// Host and port.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port.number())
    }

    /// The URL of a repository of artifacts, for `spec.url`.
    pub fn url(&self, name: &str) -> String {
        format!("oci://{}/{name}", self.host())
    }

    /// The certificates (PEM) that a client must trust.
    pub fn certificate_authority(&self) -> String {
        let service = self.tokens.as_ref().and_then(WebServer::certificate_authority).unwrap_or_default();
        format!("{}{service}", self.tls.authority)
    }

    /// The password of a user of the registry; `None` if everybody may use it.
    pub fn password(&self) -> Option<&'static str> {
        match self.login {
            Login::Anonymous => None,
            Login::Password(password) | Login::Token(password) => Some(password),
        }
    }

    /// The requests to its token service so far.
    pub fn token_requests(&self) -> Vec<LoggedRequest> {
        self.tokens.as_ref().map(WebServer::requests).unwrap_or_default()
    }

    /// The log of the registry, with a line for each request.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Pushes the archive of a chart with `helm push`, below the path `folder` of the registry. Returns the digest of
    /// its manifest.
    pub fn push(&self, archive: &Path, folder: &str) -> Result<String> {
        let authority = self.folder.path().join("authority.pem");
        fs::write(&authority, self.certificate_authority())?;
        let mut arguments = vec!["push".into(), archive.display().to_string(), self.url(folder)];
        arguments.extend(["--ca-file".into(), authority.display().to_string()]);
        if let Some(password) = self.password() {
            arguments.extend(["--username".into(), USERNAME.into(), "--password".into(), password.into()]);
        }
        let told = Helm::new()?.run(&arguments)?;
        let digest = told.lines().find_map(|line| line.strip_prefix("Digest: ")).map(str::trim);
        Ok(digest.with_context(|| told.clone())?.to_owned())
    }

    /// Pushes an artifact with one layer, without a client program. Only for a registry without a login. Returns the
    /// digest of its manifest.
    pub async fn push_artifact(&self, name: &str, tag: &str, kind: &str, layer: &[u8]) -> Result<String> {
        self.push_manifest(name, tag, json!({}), &[(kind, layer, json!({}))]).await
    }

    /// Pushes a manifest with these layers: type, content, annotations. `more` are more fields of the manifest. Only for a
    /// registry without a login. Returns the digest of the manifest.
    pub async fn push_manifest(
        &self,
        name: &str,
        tag: &str,
        more: Value,
        layers: &[(&str, &[u8], Value)],
    ) -> Result<String> {
        let mut described = Vec::new();
        let config: (&str, &[u8], Value) = ("application/vnd.oci.empty.v1+json", b"{}", json!({}));
        for (kind, content, annotations) in std::iter::once(&config).chain(layers) {
            let digest = digest_of(content);
            let (status, begun, headers) = self.request("POST", &format!("{name}/blobs/uploads/"), "", &[]).await?;
            ensure!(status == StatusCode::ACCEPTED, "{status}: {}", String::from_utf8_lossy(&begun));
            let upload = headers.get("location").context("no place for the upload")?;
            let upload = upload.split_once("/v2/").context("no path")?.1;
            let (status, told, _) =
                self.request("PUT", &format!("{upload}&digest={digest}"), "application/octet-stream", content).await?;
            ensure!(status == StatusCode::CREATED, "{status}: {}", String::from_utf8_lossy(&told));
            let size = content.len();
            described.push(json!({"mediaType": kind, "digest": digest, "size": size, "annotations": annotations}));
        }
        let config = described.remove(0);
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described});
        for (field, value) in more.as_object().into_iter().flatten() {
            manifest[field] = value.clone();
        }
        self.put_manifest(name, tag, MANIFEST, &manifest).await
    }

    /// The bytes of a manifest.
    async fn manifest(&self, name: &str, reference: &str) -> Result<Vec<u8>> {
        let (status, manifest, _) =
            self.request("GET", &format!("{name}/manifests/{reference}"), MANIFEST, &[]).await?;
        ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&manifest));
        Ok(manifest)
    }

    async fn put_manifest(&self, name: &str, tag: &str, kind: &str, manifest: &Value) -> Result<String> {
        let manifest = manifest.to_string();
        let (status, told, _) =
            self.request("PUT", &format!("{name}/manifests/{tag}"), kind, manifest.as_bytes()).await?;
        ensure!(status == StatusCode::CREATED, "{status}: {}", String::from_utf8_lossy(&told));
        Ok(digest_of(manifest.as_bytes()))
    }

    /// Deletes a tag. If `reference` is a digest, deletes the manifest and all its tags. Only for a registry without a
    /// login.
    pub async fn delete(&self, name: &str, reference: &str) -> Result<()> {
        let (status, told, _) = self.request("DELETE", &format!("{name}/manifests/{reference}"), "", &[]).await?;
        ensure!(status == StatusCode::ACCEPTED, "{status}: {}", String::from_utf8_lossy(&told));
        Ok(())
    }

    /// Deletes everything that no manifest names, as an administrator does. The registry must be stopped.
    pub fn collect_garbage(&self) -> Result<()> {
        let mut command = std::process::Command::new(localcluster::parts::registry()?);
        command.args(["garbage-collect", "--delete-untagged"]).arg(self.folder.path().join("config.yml"));
        crate::programs::run(&mut command).map(drop)
    }

    /// One request below `/v2/`: status, body and headers of the answer.
    async fn request(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<(StatusCode, Vec<u8>, HashMap<String, String>)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v2/{path}"))
            .header(header::HOST, self.host())
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, kind)
            .body(Body::from(body.to_vec()))?;
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port.number())).await?;
        let stream = self.tls.connector()?.connect("localhost".try_into()?, stream).await?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let headers = answer
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
        let headers = headers.collect();
        let body = axum::body::to_bytes(Body::new(answer.into_body()), 1 << 20).await?;
        Ok((status, body.to_vec(), headers))
    }
}

/// `sha256:` and hex digits.
pub fn digest_of(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A token service that grants every scope that a client requests, and the certificate (PEM) of the key with which it
/// signs tokens.
fn token_service(password: &'static str) -> Result<(WebServer, String)> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let certificate = rcgen::CertificateParams::new(vec!["tokens".to_owned()])?.self_signed(&key)?;
    let chain = STANDARD.encode(certificate.der());
    let handler = Arc::new(move |request: Request<Body>| {
        let answer = token(&key, &chain, &request)
            .unwrap_or_else(|error| plain(Response::builder().status(StatusCode::BAD_REQUEST), &format!("{error:#}")));
        Box::pin(std::future::ready(answer)) as crate::web::Answer
    });
    let access = Access::Basic { username: USERNAME.to_owned(), password: password.to_owned() };
    Ok((WebServer::new(access, true, handler)?, certificate.pem()))
}

/// A JSON Web Token, signed with Ed25519.
fn token(key: &rcgen::KeyPair, chain: &str, request: &Request<Body>) -> Result<Response<Body>> {
    let query = request.uri().query().unwrap_or_default();
    let scope = query.split('&').find_map(|part| part.strip_prefix("scope=")).context("no scope")?;
    let scope = scope.replace("%2C", ",").replace("%2F", "/").replace("%3A", ":");
    let [kind, name, actions] = scope.split(':').collect::<Vec<_>>().try_into().ok().context("no usable scope")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": USERNAME, "jti": "1", "iat": now.as_secs(),
        "nbf": now.saturating_sub(Duration::from_secs(60)).as_secs(), "exp": (now + Duration::from_secs(300)).as_secs(),
        "access": [{"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}],
    });
    let head = json!({"typ": "JWT", "alg": "EdDSA", "x5c": [chain]});
    let signed = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())?);
    let body = json!({"token": format!("{signed}.{signature}")}).to_string();
    Ok(Response::builder().header(header::CONTENT_TYPE, "application/json").body(Body::from(body))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
