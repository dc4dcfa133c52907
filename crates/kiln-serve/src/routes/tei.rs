//! The routes of text-embeddings-inference: `/predict`, `/embed`, `/rerank`, `/tokenize` and `/info`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use kiln_heads::Pooling;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::labels::{Function, Label, answers, labels, sigmoid};
use super::schemas::{texts, texts_to_predict};
use super::unsupported;
use super::vectors::{VectorConfig, embedding_model};
use crate::app::{App, Question};
use crate::call::{Call, json, or_default};
use crate::inputs::{self, Inputs, Text};
use crate::model::{Ability, Kind, Model};
use crate::refusal::{Reason, Refusal};

/// Texts to classify.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": "房间很干净"}))]
pub struct PredictRequest {
    #[schema(schema_with = texts_to_predict)]
    inputs: Value,
    /// Whether texts that are too long are truncated.
    truncate: Option<bool>,
    /// Whether scores are logits instead of probabilities.
    #[serde(default, deserialize_with = "or_default")]
    raw_scores: bool,
    /// Only `right`, the default: a text that is too long is cut off at its end.
    #[schema(value_type = Option<String>)]
    truncation_direction: Option<Value>,
    /// The model's name. The default is the first model that classifies.
    model: Option<String>,
}

#[utoipa::path(
    post, path = "/predict", tag = "text-embeddings-inference", request_body = PredictRequest,
    responses(
        (status = 200, description = "The labels of the text, the best first; a list of these for a list", body = Predictions),
        (status = 404, description = "No model classifies"), (status = 413, description = "The body is too long"),
        (status = 422, description = "Another shape than expected, or a text that is too long"),
        (status = 429, description = "The queue is full"),
    )
)]
pub async fn predict(call: Call<PredictRequest>) -> Result<Response, Refusal> {
    let classifies = |model: &Model| matches!(model.ability(), Ability::Labels | Ability::Number);
    let PredictRequest { inputs, truncate, raw_scores, truncation_direction, model } = &call.body;
    unsupported::check(truncation_direction.as_ref(), None, "")?;
    let model = call.app.model(model.as_deref(), classifies, "labels")?;
    let Inputs { texts, is_list } = inputs::predict(inputs)?;
    let question = Question { kind: Kind::Answer, truncate: *truncate, top: None };
    let computed = answers(call.answer(&model, texts, question).await?.outcomes)?;
    let function = raw_scores.then_some(Function::None);
    let mut predictions: Vec<_> = computed.iter().map(|computed| labels(&model, computed, function)).collect();
    json(&match predictions.pop() {
        Some(only) if !is_list => Predictions::One(only),
        last => Predictions::Several(predictions.into_iter().chain(last).collect()),
    })
}

/// The labels of one text or of several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Predictions {
    /// The labels of a text, the best first.
    One(Vec<Label>),
    /// The labels of each text of a list of lists.
    Several(Vec<Vec<Label>>),
}

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": "房间很干净"}))]
pub struct EmbedRequest {
    #[schema(schema_with = texts)]
    inputs: Value,
    /// Whether texts that are too long are truncated.
    truncate: Option<bool>,
    /// Whether vectors are normalized to length 1. The default is true.
    normalize: Option<bool>,
    /// The number of dimensions to keep.
    dimensions: Option<usize>,
    /// Only `right`, the default: a text that is too long is cut off at its end.
    #[schema(value_type = Option<String>)]
    truncation_direction: Option<Value>,
    /// Not supported: put the prompt before the text.
    #[schema(value_type = Option<String>)]
    prompt_name: Option<Value>,
    /// The model's name. The default is the first model that computes only vectors, or else the first model.
    model: Option<String>,
}

#[utoipa::path(
    post, path = "/embed", tag = "text-embeddings-inference", request_body = EmbedRequest,
    responses(
        (status = 200, description = "A vector for each text", body = Vec<Vec<f32>>),
        (status = 400, description = "Token ids"), (status = 413, description = "The body is too long"),
        (status = 422, description = "Another shape than expected, or a text that is too long"),
        (status = 429, description = "The queue is full"),
    )
)]
pub async fn embed(call: Call<EmbedRequest>) -> Result<Response, Refusal> {
    let EmbedRequest { inputs, truncate, normalize, dimensions, truncation_direction, prompt_name, model } = &call.body;
    unsupported::check(truncation_direction.as_ref(), prompt_name.as_ref(), "")?;
    let model = embedding_model(&call.app, model.as_deref())?;
    let config = VectorConfig { normalize: normalize.unwrap_or(true), dimensions: *dimensions };
    config.check(model.width())?;
    let texts = inputs::plain(inputs, "inputs")?;
    let question = Question { kind: Kind::Vector, truncate: *truncate, top: None };
    json(&config.vectors(call.answer(&model, texts, question).await?.outcomes)?)
}

/// A query and texts to rank by relevance.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"query": "房间很干净", "texts": ["干净", "太暗"]}))]
pub struct RerankRequest {
    /// The first text of each pair.
    query: String,
    /// The second text of each pair.
    texts: Vec<String>,
    /// Whether pairs that are too long are truncated.
    truncate: Option<bool>,
    /// Whether scores are the model's raw output. By default a sigmoid maps them to values between 0 and 1.
    #[serde(default, deserialize_with = "or_default")]
    raw_scores: bool,
    /// Whether the response has the texts.
    #[serde(default, deserialize_with = "or_default")]
    return_text: bool,
    /// Only `right`, the default: a text that is too long is cut off at its end.
    #[schema(value_type = Option<String>)]
    truncation_direction: Option<Value>,
    /// The model's name. The default is the first model that predicts a number.
    model: Option<String>,
}

/// The index of a text and its score.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rank {
    /// The index of the text in the request.
    index: usize,
    /// The text, with `return_text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The score. Higher is better.
    score: f64,
}

/// The query is repeated for each text, up to this many times the limit of a body in all.
const REPEATED_BODIES: usize = 8;

#[utoipa::path(
    post, path = "/rerank", tag = "text-embeddings-inference", request_body = RerankRequest,
    responses(
        (status = 200, description = "The best first", body = Vec<Rank>), (status = 404, description = "No model gives a number"),
        (status = 422, description = "Another shape than expected, or a pair that is too long"),
    )
)]
pub async fn rerank(call: Call<RerankRequest>) -> Result<Response, Refusal> {
    let RerankRequest { query, texts, truncate, raw_scores, return_text, truncation_direction, model } = &call.body;
    unsupported::check(truncation_direction.as_ref(), None, "")?;
    let model = call.app.model(model.as_deref(), |model| model.ability() == Ability::Number, "a number for a pair")?;
    call.app.check_count(texts.len())?;
    let most = REPEATED_BODIES.saturating_mul(call.app.config.limits.body_bytes);
    if query.len().saturating_mul(texts.len()) > most {
        let message = format!("a query of {} bytes is too long for {} texts", query.len(), texts.len());
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, Reason::TooLarge, message));
    }
    let pair = |text: &String| Text { text: query.clone(), text_pair: Some(text.clone()) };
    let question = Question { kind: Kind::Answer, truncate: *truncate, top: None };
    let computed = answers(call.answer(&model, texts.iter().map(pair).collect(), question).await?.outcomes)?;
    let rank = |(index, computed): (usize, &kiln_predict::Computed)| {
        let number = computed.logits.first().map_or(0.0, |&logit| f64::from(logit));
        let score = if *raw_scores { number } else { sigmoid(number) };
        Rank { index, text: return_text.then(|| texts[index].clone()), score }
    };
    let mut ranks: Vec<Rank> = computed.iter().enumerate().map(rank).collect();
    ranks.sort_by(|a, b| b.score.total_cmp(&a.score));
    json(&ranks)
}

/// Texts to tokenize.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": "房间很干净"}))]
pub struct TokenizeRequest {
    #[schema(schema_with = texts)]
    inputs: Value,
    /// Whether special tokens are listed. The default is true.
    add_special_tokens: Option<bool>,
    /// Not supported: put the prompt before the text.
    #[schema(value_type = Option<String>)]
    prompt_name: Option<Value>,
    /// The model's name. The default is the first model.
    model: Option<String>,
}

/// A token of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    /// The token id.
    id: u32,
    /// The token in the vocabulary.
    text: String,
    /// Whether it is a special token.
    special: bool,
    /// The position of its first character in the text.
    start: Option<usize>,
    /// The position after its last character.
    stop: Option<usize>,
}

#[utoipa::path(
    post, path = "/tokenize", tag = "text-embeddings-inference", request_body = TokenizeRequest,
    responses((status = 200, description = "The tokens of each text", body = Vec<Vec<Token>>))
)]
pub async fn tokenize(call: Call<TokenizeRequest>) -> Result<Response, Refusal> {
    let TokenizeRequest { inputs, add_special_tokens, prompt_name, model } = &call.body;
    unsupported::check(None, prompt_name.as_ref(), "")?;
    let model = call.app.model(model.as_deref(), |_| true, "tokens")?;
    let texts = inputs::plain(inputs, "inputs")?;
    let (with_special, most) = (add_special_tokens.unwrap_or(true), call.app.config.limits.texts);
    if texts.len() > most {
        return Err(Refusal::unprocessable(format!("found {} texts, expected at most {most}", texts.len())));
    }
    let list = move || texts.iter().map(|text| tokens(&model, &text.text, with_special)).collect::<Result<Vec<_>, _>>();
    let listed = tokio::task::spawn_blocking(list).await.map_err(|_| Refusal::internal())?;
    json(&listed?)
}

fn tokens(model: &Model, text: &str, with_special: bool) -> Result<Vec<Token>, Refusal> {
    let list = model.tokenizer().list(text, None).map_err(|error| Refusal::unprocessable(error.to_string()))?;
    let token = |at: usize| {
        let special = list.special_tokens_mask[at] == 1;
        let [start, stop] = list.offsets[at].map(|offset| (!special).then_some(offset));
        Token { id: list.input_ids[at], text: list.tokens[at].clone(), special, start, stop }
    };
    Ok((0..list.tokens.len()).map(token).filter(|token| with_special || !token.special).collect())
}

/// Metadata of the server. The first fields describe the first model, as in text-embeddings-inference.
#[derive(Debug, Serialize, ToSchema)]
pub struct Info {
    /// The first model's name.
    model_id: String,
    /// SHA-256 of the files of a bundle.
    model_sha: Option<String>,
    /// The precision of its matrix products.
    model_dtype: &'static str,
    model_type: ModelType,
    /// The most tokens in a text.
    max_input_length: usize,
    /// The most tokens in a batch.
    max_batch_tokens: usize,
    /// The most texts in a request.
    max_client_batch_size: usize,
    /// Whether texts that are too long are truncated when a request does not set `truncate`.
    auto_truncate: bool,
    /// The version of Kiln.
    version: &'static str,
    /// All served models.
    models: Vec<ModelInfo>,
}

/// The type of a model in text-embeddings-inference.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    /// Predicts labels.
    Classifier(Labels),
    /// Predicts a number for a pair.
    Reranker(Labels),
    /// Computes vectors.
    Embedding {
        /// How hidden states are pooled into a vector.
        pooling: &'static str,
    },
}

/// Labels by index, and indices by label.
#[derive(Debug, Serialize, ToSchema)]
pub struct Labels {
    id2label: BTreeMap<String, String>,
    label2id: BTreeMap<String, usize>,
}

/// A model that is served.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelInfo {
    name: String,
    /// The name of its task in transformers.
    task: &'static str,
    /// Whether it predicts a number.
    is_regression: bool,
    is_multi_label: bool,
    labels: Vec<String>,
    /// The mask token, for a masked language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_token: Option<String>,
    /// The number of dimensions of its vectors.
    width: usize,
    max_input_length: usize,
    /// Whether longer texts are read in windows.
    has_windows: bool,
    precision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// The source of the base model.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
}

#[utoipa::path(
    get, path = "/info", tag = "text-embeddings-inference",
    responses((status = 200, description = "The server and its models", body = Info))
)]
pub async fn info(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let models = app.models();
    let first = models.first().ok_or_else(Refusal::internal)?;
    let limits = app.config.limits;
    json(&Info {
        model_id: first.name.clone(),
        model_sha: first.details.sha256.clone(),
        model_dtype: first.details.precision,
        model_type: model_type(first),
        max_input_length: first.tokenizer().max_length(),
        max_batch_tokens: limits.batch_tokens,
        max_client_batch_size: limits.texts,
        auto_truncate: app.config.truncate,
        version: env!("CARGO_PKG_VERSION"),
        models: models.iter().map(|model| model_info(model)).collect(),
    })
}

fn model_type(model: &Model) -> ModelType {
    let labels = || Labels {
        id2label: (0..).zip(model.labels()).map(|(id, label): (usize, _)| (id.to_string(), label.clone())).collect(),
        label2id: (0..).zip(model.labels()).map(|(id, label)| (label.clone(), id)).collect(),
    };
    match model.ability() {
        Ability::Number => ModelType::Reranker(labels()),
        Ability::Labels | Ability::Tags => ModelType::Classifier(labels()),
        Ability::Answers | Ability::Masks | Ability::Vectors => ModelType::Embedding {
            pooling: match model.details.vectors.pooling {
                Pooling::Cls => "cls",
                Pooling::Mean => "mean",
                Pooling::Pooler => "pooler",
            },
        },
    }
}

fn model_info(model: &Model) -> ModelInfo {
    let details = &model.details;
    ModelInfo {
        name: model.name.clone(),
        task: model.ability().task(),
        is_regression: model.ability() == Ability::Number,
        is_multi_label: model.is_multi_label(),
        labels: model.labels().to_vec(),
        mask_token: model.mask_token().filter(|_| model.ability() == Ability::Masks),
        width: model.width(),
        max_input_length: model.tokenizer().max_length(),
        has_windows: model.has_windows(),
        precision: details.precision,
        sha256: details.sha256.clone(),
        source: details.source.clone(),
        license: details.license.clone(),
    }
}
