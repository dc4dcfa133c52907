use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::app::{App, Question};
use crate::inputs::{Text, kind};
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
    // serde would also accept a list of the fields in their order.
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    let error = match serde_json::from_slice(bytes) {
        Ok(body) if is_object => return Ok(body),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    // Some values of a wrong type are syntax errors for serde_json, so the body is parsed again without the types.
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::bad_request(format!("the body is not JSON: {error}")))?;
    let Some(error) = error.filter(|_| is_object) else {
        let message = format!("unexpected body: found {}, expected an object", kind(&value));
        return Err(Refusal::unprocessable(message));
    };
    let (line, column) = (error.line(), error.column());
    let reason = T::deserialize(value).err().unwrap_or(error).to_string();
    let message = format!("unexpected body: {} (line {line}, column {column})", in_words(&reason));
    Err(Refusal::unprocessable(message))
}

/// A message of serde without the names of Rust's types, and with only the beginning of the client's value.
fn in_words(message: &str) -> String {
    /// The longest part of a message that is not shortened, in characters.
    const MOST: usize = 80;
    let (found, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let found = match found.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &found[..end]),
        None => found.to_owned(),
    };
    let expected = match expected {
        "" => return found,
        "usize" => "a whole number, 0 or more",
        "a string" | "string or map" => "a text",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        name if name.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{found}, expected {expected}")
}

/// Deserializes a field for which `null` means the same as leaving it out.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Body {
        texts: Vec<String>,
        most: Option<usize>,
        #[serde(default, deserialize_with = "or_default")]
        format: Format,
        #[serde(default, deserialize_with = "or_default")]
        is_raw: bool,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Format {
        #[default]
        Float,
        Base64,
    }

    #[test]
    fn null_counts_as_absent() {
        let body = r#" {"texts": ["a"], "most": null, "format": null, "is_raw": null}"#;
        let expected = Body { texts: vec!["a".to_owned()], most: None, format: Format::Float, is_raw: false };
        assert_eq!(parse(body.as_bytes()), Ok(expected));
    }

    #[test]
    fn a_wrong_type_is_not_called_a_syntax_error() {
        let long = format!("{{\"texts\": \"{}\"}}", "房".repeat(1_000));
        let shortened = format!("unexpected body: invalid type: string \"{}…, expected a list", "房".repeat(58));
        for (body, status, expected) in [
            (r#"{"texts": []"#, 400, "the body is not JSON: EOF"),
            ("", 400, "the body is not JSON: EOF"),
            (r#"[["a"], 3, "float", true]"#, 422, "unexpected body: found a list, expected an object"),
            ("3", 422, "unexpected body: found a number, expected an object"),
            ("{}", 422, "unexpected body: missing field `texts` (line 1, column 2)"),
            (r#"{"texts": [], "format": 5}"#, 422, "expected a text (line 1, column"),
            (r#"{"texts": [], "format": "hex"}"#, 422, "unknown variant `hex`, expected `float` or `base64`"),
            (r#"{"texts": [], "most": -1}"#, 422, "invalid value: integer `-1`, expected a whole number, 0 or more"),
            (r#"{"texts": [], "is_raw": "yes"}"#, 422, "invalid type: string \"yes\", expected true or false"),
            (long.as_str(), 422, shortened.as_str()),
        ] {
            let refusal = parse::<Body>(body.as_bytes()).expect_err(body);
            assert_eq!(refusal.status.as_u16(), status, "{body}: {}", refusal.message);
            assert!(refusal.message.contains(expected), "{body}: {}", refusal.message);
        }
    }
}
