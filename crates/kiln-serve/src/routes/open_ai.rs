//! OpenAI's routes: `/v1/embeddings` and `/v1/models`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::vectors::VectorConfig;
use crate::app::{App, Question};
use crate::call::{Call, Name, json};
use crate::inputs;
use crate::model::{Kind, Model};
use crate::refusal::{Reason, Refusal};

/// A request of OpenAI's clients for vectors.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"input": "房间很干净"}))]
pub struct EmbeddingsRequest {
    /// A text or a list of texts. Token ids are refused.
    #[schema(value_type = Object)]
    input: Value,
    /// The name of a model that `/v1/models` lists. If only one model is served, any name selects it, because OpenAI's
    /// clients must send a name and often send that of another service.
    model: Option<String>,
    /// `float`, or `base64` for little-endian f32 numbers in base64.
    #[serde(default)]
    encoding_format: EncodingFormat,
    /// The number of dimensions to keep.
    dimensions: Option<usize>,
}

/// The encoding of a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// A list of numbers.
    #[default]
    Float,
    /// Little-endian f32 numbers in base64.
    Base64,
}

/// Vectors of texts.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingsResponse {
    /// `list`.
    object: &'static str,
    /// One vector per text, in their order.
    data: Vec<EmbeddingItem>,
    /// The model's name.
    model: String,
    usage: Usage,
}

/// The vector of one text.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingItem {
    /// `embedding`.
    object: &'static str,
    /// The index of its text.
    index: usize,
    embedding: Numbers,
}

/// A vector.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Numbers {
    /// A list of numbers.
    Float(Vec<f32>),
    /// Little-endian f32 numbers in base64.
    Base64(String),
}

/// The token counts of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Usage {
    /// The number of tokens, including special tokens.
    prompt_tokens: usize,
    /// The same as `prompt_tokens`.
    total_tokens: usize,
}

#[utoipa::path(
    post, path = "/v1/embeddings", tag = "OpenAI", request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "Vectors of length 1", body = EmbeddingsResponse),
        (status = 400, description = "Token ids, a text that is too long, or another shape than expected"),
        (status = 404, description = "No such model"), (status = 429, description = "The queue is full"),
    )
)]
pub async fn embeddings(call: Call<EmbeddingsRequest>) -> Result<Response, Refusal> {
    embed(&call).await.map_err(as_bad_request)
}

async fn embed(call: &Call<EmbeddingsRequest>) -> Result<Response, Refusal> {
    let EmbeddingsRequest { input, model, encoding_format, dimensions } = &call.body;
    let name = model.as_deref().filter(|_| call.app.models().len() > 1);
    let model = call.app.model(name, |_| true, "vectors")?;
    let config = VectorConfig { normalize: true, dimensions: *dimensions };
    config.check(model.width())?;
    let texts = inputs::plain(input, "input")?;
    let answered = call.answer(&model, texts, Question { kind: Kind::Vector, truncate: None, top: None }).await?;
    let tokens = answered.tokens;
    let item = |(index, vector): (usize, Vec<f32>)| EmbeddingItem {
        object: "embedding",
        index,
        embedding: match encoding_format {
            EncodingFormat::Float => Numbers::Float(vector),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                Numbers::Base64(BASE64_STANDARD.encode(bytes))
            }
        },
    };
    json(&EmbeddingsResponse {
        object: "list",
        data: config.vectors(answered.outcomes)?.into_iter().enumerate().map(item).collect(),
        model: model.name.clone(),
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    })
}

/// Replaces 422 with 400, which OpenAI's clients expect for an invalid request.
fn as_bad_request(refusal: Refusal) -> Refusal {
    match refusal.status {
        StatusCode::UNPROCESSABLE_ENTITY => Refusal { status: StatusCode::BAD_REQUEST, ..refusal },
        _ => refusal,
    }
}

/// The models that are served.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<ModelItem>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelItem {
    /// Its name.
    id: String,
    /// `model`.
    object: &'static str,
    /// Always 0: the time is not known.
    created: u64,
    /// `kiln`.
    owned_by: &'static str,
}

impl ModelItem {
    fn new(model: &Model) -> Self {
        Self { id: model.name.clone(), object: "model", created: 0, owned_by: "kiln" }
    }
}

#[utoipa::path(get, path = "/v1/models", tag = "OpenAI", responses((status = 200, body = ModelList)))]
pub async fn models(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let data = app.models().iter().map(|model| ModelItem::new(model)).collect();
    json(&ModelList { object: "list", data })
}

#[utoipa::path(
    get, path = "/v1/models/{name}", tag = "OpenAI", params(("name" = String, Path, description = "The model's name")),
    responses((status = 200, body = ModelItem), (status = 404, description = "No such model"))
)]
pub async fn model(State(app): State<Arc<App>>, Name(name): Name) -> Result<Response, Refusal> {
    let models = app.models();
    let model = models.iter().find(|model| model.name == name);
    let not_found = || Refusal::new(StatusCode::NOT_FOUND, Reason::NoModel, "no model of that name is served");
    json(&ModelItem::new(model.ok_or_else(not_found)?))
}
