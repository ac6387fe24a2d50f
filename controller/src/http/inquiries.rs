//! The endpoints `/v1/verify`, `/v1/rotate`, `/v1/which` and `/v1/keys`, which answer anybody's questions about sealed
//! values.
//!
//! # Guarantees
//! - No answer and no log line contains a plaintext or a part of one.
//! - The scope of a value is the one in the SealedSecret's own metadata. The template of the SealedSecret is neither
//!   read nor rendered. So annotations in the template cannot change the scope (CVE-2026-22728), and nobody learns
//!   anything about a value from what a template makes of it.
//! - Each request has a limit of bytes, values and time; all requests together have a limit of memory. At most half of
//!   the decryptions that may run at the same time are for requests, so that decryptions for Secrets always go on.

use std::{sync::OnceLock, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest as _, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use crds::{
    SealedSecret,
    endpoints::{Which, WhichItem},
};
use kube::runtime::reflector::Store;
use manifests::in_lines;
use sealing::Scope;
use serde::Serialize;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{
    HttpState,
    limits::Limits,
    places::Place,
    request::{self, Form, MAX_BYTES, RequestError, SentSecret},
};
use crate::keys::{InquiryError, InquiryFailure, Keyring};
use unsealing::UnsealValueError;

/// How many bytes of request bodies may be in memory at the same time.
const BODIES: usize = 4 * MAX_BYTES;
/// How long a body may take to arrive, unless `--read-timeout` is shorter.
const ARRIVAL: Duration = Duration::from_secs(30);
/// How long the work for one answer may take.
const WORK: Duration = Duration::from_secs(60);
const BYTES_A_PERMIT: usize = 1024;

/// What the endpoints for inquiries share. An inquiry is a request with a question about sealed values or keys.
pub struct Inquiries {
    pub(super) limits: Limits,
    accept_deprecated_v1_data: bool,
    sealed_secrets: OnceLock<Store<SealedSecret>>,
    bodies: Semaphore,
}

impl Inquiries {
    /// Allows `rate` requests per second for each client and path, and `burst` more at once.
    /// `accept_deprecated_v1_data` (`--accept-deprecated-v1-data`) says whether `spec.data` is unsealed.
    pub fn new(rate: u32, burst: u32, accept_deprecated_v1_data: bool) -> Self {
        Self {
            limits: Limits::new(rate, burst),
            accept_deprecated_v1_data,
            sealed_secrets: OnceLock::new(),
            bodies: Semaphore::new(BODIES / BYTES_A_PERMIT),
        }
    }

    /// Sets the SealedSecrets whose values `/v1/keys` counts.
    pub fn count(&self, sealed_secrets: Store<SealedSecret>) {
        let _ = self.sealed_secrets.set(sealed_secrets);
    }
}

/// An answer that is an error: its status code and its message.
pub(super) struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        tracing::debug!(%status, message, "an inquiry is refused");
        let mut response = (status, format!("{}\n", in_lines(&message))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
        }
        response
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let status = match &error {
            RequestError::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

/// Answers 200 if every value can be unsealed for the SealedSecret's own name, namespace and scope; otherwise 409.
pub(super) async fn verify(State(state): State<HttpState>, request: Request) -> Result<StatusCode, Refusal> {
    let keyring = state.keys()?;
    let (sent, _room) = state.read(request, request::one).await?;
    let conflict = |message: String| Refusal(StatusCode::CONFLICT, message);
    state.check_form(&sent).map_err(conflict)?;
    match in_time(keyring.verify(sent.sealed())).await? {
        Ok(()) => Ok(StatusCode::OK),
        Err(error) => Err(failed(&error, StatusCode::CONFLICT)),
    }
}

/// The status code that Sealed Secrets uses for every failure of a rotation.
const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

/// Answers with the SealedSecret of the request, its values sealed again with the newest key.
pub(super) async fn rotate(State(state): State<HttpState>, request: Request) -> Result<Response, Refusal> {
    let keyring = state.keys()?;
    let (sent, _room) = state.read(request, request::one).await?;
    state.check_form(&sent).map_err(|message| Refusal(FAILED, message))?;
    if sent.namespace.is_empty() && sent.scope != Scope::ClusterWide {
        return Err(Refusal(FAILED, "metadata.namespace is needed in every scope but cluster-wide".into()));
    }
    match in_time(keyring.reseal(sent.sealed())).await? {
        Ok(values) => Ok(json(&sent.with_values(values))),
        Err(error) => Err(failed(&error, FAILED)),
    }
}

/// Answers which key each value was sealed with.
pub(super) async fn which(State(state): State<HttpState>, request: Request) -> Result<Response, Refusal> {
    let keyring = state.keys()?;
    let (sent, _room) = state.read(request, request::all).await?;
    let found = in_time(keyring.which(sent.iter().map(SentSecret::sealed).collect())).await?;
    let items = sent.into_iter().zip(found.fingerprints).map(|(sent, fingerprints)| WhichItem {
        namespace: sent.namespace,
        name: sent.name,
        values: sent.values.into_keys().zip(fingerprints).collect(),
    });
    Ok(json(&Which { newest: found.newest, items: items.collect() }))
}

/// Answers which sealing keys there are, and how many values in the cluster need each of them.
pub(super) async fn keys(State(state): State<HttpState>) -> Result<Response, Refusal> {
    let keyring = state.keys()?;
    let store = state.inquiries.sealed_secrets.get();
    let store = store.ok_or_else(|| unavailable("the SealedSecrets are not loaded yet"))?;
    Ok(json(&in_time(keyring.report(store.state())).await?))
}

impl HttpState {
    fn keys(&self) -> Result<&Keyring, Refusal> {
        let keyring = self.keyring.get().filter(|keyring| keyring.certificate().is_some());
        keyring.ok_or_else(|| unavailable("there is no sealing key yet"))
    }

    /// Reads the body of a request. Returns the result of `parse`, and the permit for the memory that the body takes.
    async fn read<T: Send + 'static>(
        &self,
        request: Request,
        parse: fn(&[u8]) -> Result<T, RequestError>,
    ) -> Result<(T, SemaphorePermit<'_>), Refusal> {
        let too_large =
            || Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("the request has more than {MAX_BYTES} bytes"));
        let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let bytes = declared.and_then(|length| length.parse().ok()).unwrap_or(MAX_BYTES);
        if bytes > MAX_BYTES {
            return Err(too_large());
        }
        let place = request.extensions().get::<Place>().cloned();
        let permits = u32::try_from(bytes.div_ceil(BYTES_A_PERMIT)).map_err(|_| too_large())?;
        let arrive = async {
            let room = self.inquiries.bodies.acquire_many(permits).await.expect("the semaphore is never closed");
            (room, Bytes::from_request(request, &()).await)
        };
        let arrival = if self.timeouts.read.is_zero() { ARRIVAL } else { ARRIVAL.min(self.timeouts.read) };
        let Ok((room, body)) = timeout(arrival, arrive).await else {
            return Err(Refusal(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive".into()));
        };
        let body = body.map_err(|error| Refusal(error.status(), error.body_text()))?;
        if let Some(place) = place {
            place.answers();
        }
        // Parsing megabytes would block an async thread. A panic in `parse` ends only this task.
        let parsed = tokio::task::spawn_blocking(move || parse(&body)).await;
        let parsed =
            parsed.map_err(|_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "reading the request failed".into()))?;
        Ok((parsed?, room))
    }

    fn check_form(&self, sent: &SentSecret) -> Result<(), String> {
        match sent.form {
            Form::EncryptedData => Ok(()),
            Form::Data if self.inquiries.accept_deprecated_v1_data => Ok(()),
            Form::Data => Err(
                "spec.data, the deprecated first form of a SealedSecret, is not accepted here: seal the values again"
                    .into(),
            ),
            Form::Both => Err("spec.encryptedData and the deprecated spec.data are both set: remove spec.data".into()),
        }
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, Refusal> {
    timeout(WORK, work)
        .await
        .map_err(|_| unavailable("the work takes too long: send the request again, or send fewer values at a time"))
}

fn failed(error: &InquiryError, status: StatusCode) -> Refusal {
    let status = match error.reason {
        InquiryFailure::NoKey | InquiryFailure::Unseal(UnsealValueError::Interrupted) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => status,
    };
    Refusal(status, error.to_string())
}

fn json(answer: &impl Serialize) -> Response {
    let text = serde_json::to_vec(answer).expect("an answer can be written as JSON");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn unavailable(message: &str) -> Refusal {
    Refusal(StatusCode::SERVICE_UNAVAILABLE, message.into())
}
