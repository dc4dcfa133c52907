use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::app::{App, Question};
use crate::inputs::Text;
use crate::model::{Model, Outcome};
use crate::refusal::{Reason, Refusal};

/// A request with a JSON body.
#[derive(Debug)]
pub struct Call<T> {
    pub app: Arc<App>,
    pub body: T,
    /// The name of the model, if it is part of the path.
    pub model: Option<String>,
    trace: Trace,
}

/// What a request asks for, for the log. It is set once the texts are tokenized.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<OnceLock<Asked>>);

/// The model of a request, and its number of texts and tokens.
#[derive(Clone, Debug)]
pub struct Asked {
    pub model: String,
    pub texts: usize,
    pub tokens: usize,
}

impl Trace {
    pub fn asked(&self) -> Option<&Asked> {
        self.0.get()
    }
}

/// The results for the texts of a request.
#[derive(Debug)]
pub struct Answered {
    pub outcomes: Vec<Outcome>,
    pub tokens: usize,
}

impl<T> Call<T> {
    /// Computes texts, and records their number for the log.
    pub async fn answer(&self, model: &Arc<Model>, texts: Vec<Text>, question: Question) -> Result<Answered, Refusal> {
        let count = texts.len();
        let tokenized = self.app.tokenize(model, texts, question).await?;
        let tokens = tokenized.tokens;
        // Only the first call of a request is recorded. Further calls have the same model.
        let _ = self.trace.0.set(Asked { model: model.name.clone(), texts: count, tokens });
        Ok(Answered { outcomes: self.app.compute(tokenized).await?, tokens })
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Call<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        check_type(&parts.headers)?;
        let has_name = parts.extensions.get::<MatchedPath>().is_some_and(|path| path.as_str().contains("{name}"));
        let model = match has_name {
            true => Some(Name::from_request_parts(&mut parts, app).await?.0),
            false => None,
        };
        let trace = parts.extensions.remove::<Trace>().unwrap_or_default();
        let body = parse(&read(body, app).await?)?;
        Ok(Self { app: app.clone(), body, model, trace })
    }
}

/// The name of a model from the path.
#[derive(Debug)]
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| Refusal::bad_request("the model's name in the path is not UTF-8"))
    }
}

/// Refuses a body whose headers do not declare plain JSON, before it is read.
fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let refused = |message| Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Reason::Invalid, message));
    if !value(header::CONTENT_TYPE).is_some_and(is_json) {
        return refused("expected a body of JSON, and the header `content-type: application/json`");
    }
    match value(header::CONTENT_ENCODING) {
        None | Some("identity") => Ok(()),
        Some(_) => refused("expected a body without `content-encoding`: compressed bodies are not supported"),
    }
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

async fn read(body: Body, app: &App) -> Result<Vec<u8>, Refusal> {
    let limits = app.config.limits;
    let collected = tokio::time::timeout(limits.body_time, Limited::new(body, limits.body_bytes).collect()).await;
    match collected {
        Ok(Ok(bytes)) => Ok(bytes.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is longer than {} bytes", limits.body_bytes);
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::TooLarge, message))
        }
        Ok(Err(_)) => Err(Refusal::bad_request("the body is incomplete")),
        Err(_) => {
            let message = format!("the body did not arrive within {} s", limits.body_time.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, Reason::Slow, message))
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Refusal::unprocessable(format!("unexpected body: {error}")),
        _ => Refusal::bad_request(format!("the body is not JSON: {error}")),
    })
}

/// The middleware renders the body, in the form that the clients of the route expect.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// A JSON response.
pub fn json(value: &impl serde::Serialize) -> Result<Response, Refusal> {
    let bytes = serde_json::to_vec(value).map_err(|_| Refusal::internal())?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}
