//! One form for everything that goes wrong: a refusal becomes its status and its words.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use lictor_types::Refusal;

/// The answer to a request that was not served.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Refusal);

/// What a handler gives.
pub(super) type Answered = Result<Response, Failure>;

impl Failure {
    /// 400.
    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self(Refusal::bad_request(text))
    }

    /// The waist answered something that does not belong to the question: a newer server, or a fault of ours.
    pub(super) fn unexpected_answer() -> Self {
        Self(Refusal::failed("the server answered another question than was asked; are all servers of one release?"))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        text(status, self.0.text)
    }
}

/// Plain text.
pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Response {
    const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
    (status, [(header::CONTENT_TYPE, PLAIN)], body.into()).into_response()
}
