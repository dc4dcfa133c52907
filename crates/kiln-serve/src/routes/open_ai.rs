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

use super::schemas::texts;
use super::vectors::{VectorConfig, embedding_model};
use crate::app::{App, Question};
use crate::call::{Call, Name, json, or_default};
use crate::inputs;
use crate::model::{Kind, Model};
use crate::refusal::{Reason, Refusal};

/// A request of OpenAI's clients for vectors.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"input": "房间很干净"}))]
pub struct EmbeddingsRequest {
    #[schema(schema_with = texts)]
    input: Value,
    /// The name of a model that `/v1/models` lists. If only one model is served, any name selects it, because OpenAI's
    /// clients must send a name and often send that of another service. The default is the first model that computes only
    /// vectors, or else the first model.
    model: Option<String>,
    /// `float`, or `base64` for little-endian f32 numbers in base64.
    #[serde(default, deserialize_with = "or_default")]
    encoding_format: EncodingFormat,
    /// The number of dimensions to keep.
    dimensions: Option<usize>,
    /// Whether texts that are too long are truncated. OpenAI's API has no such field.
    truncate: Option<bool>,
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
    let EmbeddingsRequest { input, model, encoding_format, dimensions, truncate } = &call.body;
    let name = model.as_deref().filter(|_| call.app.models().len() > 1);
    let model = embedding_model(&call.app, name)?;
    let config = VectorConfig { normalize: true, dimensions: *dimensions };
    config.check(model.width())?;
    let texts = inputs::plain(input, "input")?;
    if texts.is_empty() {
        return Err(Refusal::bad_request("input: found an empty list, expected a text or a list of texts"));
    }
    let question = Question { kind: Kind::Vector, truncate: *truncate, top: None };
    let answered = call.answer(&model, texts, question).await?;
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

#[utoipa::path(get, path = "/v1/models", tag = "OpenAI", responses((status = 200, description = "The models that are served", body = ModelList)))]
pub async fn models(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let data = app.models().iter().map(|model| ModelItem::new(model)).collect();
    json(&ModelList { object: "list", data })
}

#[utoipa::path(
    get, path = "/v1/models/{name}", tag = "OpenAI", params(("name" = String, Path, description = "The model's name")),
    operation_id = "openai_model",
    responses((status = 200, description = "The model", body = ModelItem), (status = 404, description = "No such model"))
)]
pub async fn model(State(app): State<Arc<App>>, Name(name): Name) -> Result<Response, Refusal> {
    let models = app.models();
    let model = models.iter().find(|model| model.name == name);
    let not_found = || Refusal::new(StatusCode::NOT_FOUND, Reason::NoModel, "no model of that name is served");
    json(&ModelItem::new(model.ok_or_else(not_found)?))
}
