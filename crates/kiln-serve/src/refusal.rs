use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// The reason, for the metrics and the log.
    pub reason: Reason,
    pub message: String,
    /// Seconds after which the client should try again.
    pub retry_after: Option<u64>,
}

/// Why a request was refused. The metrics count refusals by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The body is not JSON, or does not have the expected form.
    Invalid,
    /// Too many bytes, texts or tokens.
    TooLarge,
    /// No such route or method.
    NotFound,
    /// No such model, or a model for another task.
    NoModel,
    /// No key, or an unknown key.
    Unauthorized,
    /// The queue is full.
    Overloaded,
    /// There was no result within the deadline.
    Deadline,
    /// The client sent its request too slowly.
    Slow,
    /// The server is shutting down.
    Closing,
    /// Computing a text panicked, or the model's output was not finite.
    Internal,
}

impl Reason {
    pub const ALL: [Self; 10] = [
        Self::Invalid,
        Self::TooLarge,
        Self::NotFound,
        Self::NoModel,
        Self::Unauthorized,
        Self::Overloaded,
        Self::Deadline,
        Self::Slow,
        Self::Closing,
        Self::Internal,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::NoModel => "no_model",
            Self::Unauthorized => "unauthorized",
            Self::Overloaded => "overloaded",
            Self::Deadline => "deadline",
            Self::Slow => "slow",
            Self::Closing => "closing",
            Self::Internal => "internal",
        }
    }
}

impl Refusal {
    pub fn new(status: StatusCode, reason: Reason, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into(), retry_after: None }
    }

    /// The body is JSON, but not what the route expects.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Reason::Invalid, message)
    }

    /// The body cannot be read, or the results would be silently wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Reason::Invalid, message)
    }

    pub fn internal() -> Self {
        let message = "the server failed to compute an answer; it is counted and logged under this request's id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::Internal, message)
    }

    /// The refusal with the status that the clients of a route expect. OpenAI's clients expect 400 for any invalid request.
    pub fn of_family(self, family: Family) -> Self {
        let is_invalid = family == Family::OpenAi && self.status == StatusCode::UNPROCESSABLE_ENTITY;
        if is_invalid { Self { status: StatusCode::BAD_REQUEST, ..self } } else { self }
    }

    /// The response, in the form that the clients of a route expect.
    pub fn response(&self, family: Family) -> Response<Body> {
        let mut response = Response::new(Body::from(family.body(self).to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self.reason);
        response
    }
}

/// The family of clients that a route is for. It decides the form of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Hugging Face's inference clients. Unknown paths also belong here.
    HuggingFace,
    /// Clients of text-embeddings-inference.
    Tei,
    /// OpenAI's clients.
    OpenAi,
    /// KServe's probes.
    KServe,
}

impl Family {
    /// The family for the path of a request.
    pub fn of(path: &str) -> Self {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match first {
            "v1" => Self::OpenAi,
            "v2" => Self::KServe,
            "predict" | "embed" | "rerank" | "tokenize" | "info" => Self::Tei,
            _ => Self::HuggingFace,
        }
    }

    fn body(self, refusal: &Refusal) -> Value {
        let Refusal { status, reason, message, .. } = refusal;
        match self {
            Self::HuggingFace | Self::KServe => json!({ "error": message }),
            Self::Tei => {
                let error_type = match reason {
                    Reason::Overloaded => "Overloaded",
                    Reason::Closing => "Unhealthy",
                    Reason::Internal | Reason::Deadline => "Backend",
                    _ => "Validation",
                };
                json!({ "error": message, "error_type": error_type })
            }
            Self::OpenAi => {
                let (kind, code) = match reason {
                    Reason::Overloaded => ("rate_limit_error", Some("rate_limit_exceeded")),
                    Reason::Unauthorized => ("authentication_error", Some("invalid_api_key")),
                    Reason::NoModel => ("invalid_request_error", Some("model_not_found")),
                    _ if status.is_server_error() => ("server_error", None),
                    _ => ("invalid_request_error", None),
                };
                json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_shape_of_their_route() {
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, Reason::Overloaded, "full");
        for (path, expected) in [
            ("/", json!({ "error": "full" })),
            ("/models/a", json!({ "error": "full" })),
            ("/embed", json!({ "error": "full", "error_type": "Overloaded" })),
            ("/v2/health/ready", json!({ "error": "full" })),
            (
                "/v1/embeddings",
                json!({ "error": {
                    "message": "full", "type": "rate_limit_error", "param": null, "code": "rate_limit_exceeded"
                } }),
            ),
        ] {
            assert_eq!(Family::of(path).body(&refusal), expected, "{path}");
        }
    }

    #[test]
    fn an_invalid_request_has_status_400_for_openai() {
        let status = |family| Refusal::unprocessable("wrong").of_family(family).status.as_u16();
        assert_eq!([Family::OpenAi, Family::Tei, Family::HuggingFace].map(status), [400, 422, 422]);
        assert_eq!(Refusal::internal().of_family(Family::OpenAi), Refusal::internal());
    }

    #[test]
    fn names_of_reasons_differ() {
        let names: std::collections::BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
