//! Answers one HTTP request by running `git http-backend` as a CGI program (RFC 3875).

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio_util::io::ReaderStream;

use super::work_tree::environment;

/// The largest request body, in bytes. Tests push less.
const REQUEST_BYTES: usize = 256 << 20;

/// Runs `git http-backend` on the repositories in `root`. The process ends when the request ends, at the latest when
/// the Tokio runtime ends.
pub(super) async fn answer(root: &Path, request: Request<Body>) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, REQUEST_BYTES).await.context("read the request")?;
    let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .envs(environment(root))
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header(header::CONTENT_TYPE))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header(header::CONTENT_ENCODING))
        .env("HTTP_GIT_PROTOCOL", header(HeaderName::from_static("git-protocol")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("run git http-backend")?;
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    tokio::spawn(async move {
        // If Git does not read the whole request, the pipe breaks. This is ignored here, because Git's answer says why.
        let _ = stdin.write_all(&body).await;
        drop(stdin);
        let _ = child.wait().await;
    });
    respond(BufReader::new(stdout)).await
}

/// Turns the output of the CGI program into a response: first the headers, then the body as it arrives.
async fn respond(mut output: BufReader<ChildStdout>) -> Result<Response<Body>> {
    let mut response = Response::builder();
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(output.read_line(&mut line).await? > 0, "git http-backend ended before its headers did");
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split_whitespace().next().unwrap_or_default();
            response = response.status(StatusCode::from_bytes(code.as_bytes())?);
        } else {
            response = response.header(HeaderName::try_from(name)?, HeaderValue::try_from(value.trim())?);
        }
    }
    Ok(response.body(Body::from_stream(ReaderStream::new(output)))?)
}
