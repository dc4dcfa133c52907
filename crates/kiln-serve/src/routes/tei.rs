//! The routes of text-embeddings-inference: `/predict`, `/embed`, `/rerank`, `/tokenize` and `/info`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use kiln_heads::Pooling;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::labels::{Function, answers, labels, sigmoid};
use super::vectors::VectorConfig;
use crate::app::{App, Question};
use crate::call::{Call, json};
use crate::inputs::{self, Inputs, Text};
use crate::model::{Ability, Kind, Model};
use crate::refusal::Refusal;

/// Texts to classify.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": "房间很干净"}))]
pub struct PredictRequest {
    /// A text; a pair `["a", "b"]`; or a list of lists with one or two texts.
    #[schema(value_type = Object)]
    inputs: Value,
    /// Whether a text that is too long is cut off.
    truncate: Option<bool>,
    /// Whether scores are logits instead of probabilities.
    #[serde(default)]
    raw_scores: bool,
    /// The model's name; without it, the first that classifies.
    model: Option<String>,
}

#[utoipa::path(
    post, path = "/predict", tag = "text-embeddings-inference", request_body = PredictRequest,
    responses(
        (status = 200, description = "The labels of the text, the best first; a list of these for a list", body = Vec<super::labels::Label>),
        (status = 404, description = "No model classifies"), (status = 413, description = "The body is too long"),
        (status = 422, description = "Another shape than expected, or a text that is too long"),
        (status = 429, description = "The queue is full"),
    )
)]
pub async fn predict(call: Call<PredictRequest>) -> Result<Response, Refusal> {
    let classifies = |model: &Model| matches!(model.ability(), Ability::Labels | Ability::Number);
    let PredictRequest { inputs, truncate, raw_scores, model } = &call.body;
    let model = call.app.model(model.as_deref(), classifies, "labels")?;
    let Inputs { texts, is_list } = inputs::predict(inputs)?;
    let question = Question { kind: Kind::Answer, truncate: *truncate, top: None };
    let computed = answers(call.answer(&model, texts, question).await?.outcomes)?;
    let function = raw_scores.then_some(Function::None);
    let predictions: Vec<_> = computed.iter().map(|computed| labels(&model, computed, function)).collect();
    match predictions.as_slice() {
        [only] if !is_list => json(only),
        all => json(&all),
    }
}

/// Texts whose vectors are asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": "房间很干净"}))]
pub struct EmbedRequest {
    /// A text or a list of texts.
    #[schema(value_type = Object)]
    inputs: Value,
    /// Whether a text that is too long is cut off.
    truncate: Option<bool>,
    /// Whether vectors get the length 1; they do unless this is false.
    normalize: Option<bool>,
    /// How many numbers of each vector are kept.
    dimensions: Option<usize>,
    /// The model's name; without it, the first.
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
    let EmbedRequest { inputs, truncate, normalize, dimensions, model } = &call.body;
    let model = embedding_model(&call.app, model.as_deref())?;
    let config = VectorConfig { normalize: normalize.unwrap_or(true), dimensions: *dimensions };
    config.check(model.width())?;
    let texts = inputs::plain(inputs, "inputs")?;
    let question = Question { kind: Kind::Vector, truncate: *truncate, top: None };
    json(&config.vectors(call.answer(&model, texts, question).await?.outcomes)?)
}

/// The model of that name; without a name the first that gives nothing but vectors, else the first.
fn embedding_model(app: &App, name: Option<&str>) -> Result<Arc<Model>, Refusal> {
    let is_embedder = |model: &Model| model.ability() == Ability::Vectors;
    match name {
        None => app.model(None, is_embedder, "vectors").or_else(|_| app.model(None, |_| true, "vectors")),
        name => app.model(name, |_| true, "vectors"),
    }
}

/// Texts to order by how well they answer a query.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"query": "房间很干净", "texts": ["干净", "太暗"]}))]
pub struct RerankRequest {
    /// The first text of each pair.
    query: String,
    /// The second.
    texts: Vec<String>,
    /// Whether a pair that is too long is cut off.
    truncate: Option<bool>,
    /// Whether scores stay as the model gives them; else they are between 0 and 1.
    #[serde(default)]
    raw_scores: bool,
    /// Whether the texts come back.
    #[serde(default)]
    return_text: bool,
    /// The model's name; without it, the first that gives a number.
    model: Option<String>,
}

/// A text's place and its score.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rank {
    /// The place of the text in the request.
    index: usize,
    /// The text, where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The higher, the better.
    score: f64,
}

#[utoipa::path(
    post, path = "/rerank", tag = "text-embeddings-inference", request_body = RerankRequest,
    responses(
        (status = 200, description = "The best first", body = Vec<Rank>), (status = 404, description = "No model gives a number"),
        (status = 422, description = "Another shape than expected, or a pair that is too long"),
    )
)]
pub async fn rerank(call: Call<RerankRequest>) -> Result<Response, Refusal> {
    let RerankRequest { query, texts, truncate, raw_scores, return_text, model } = &call.body;
    let model = call.app.model(model.as_deref(), |model| model.ability() == Ability::Number, "a number for a pair")?;
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

/// Texts whose tokens are asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": "房间很干净"}))]
pub struct TokenizeRequest {
    /// A text or a list of texts.
    #[schema(value_type = Object)]
    inputs: Value,
    /// Whether special tokens are listed; they are unless this is false.
    add_special_tokens: Option<bool>,
    /// The model's name; without it, the first.
    model: Option<String>,
}

/// A token of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    /// Its index into the vocabulary.
    id: u32,
    /// As the vocabulary has it.
    text: String,
    /// Whether it stands for no text.
    special: bool,
    /// Its first character in the text.
    start: Option<usize>,
    /// The one behind its last.
    stop: Option<usize>,
}

#[utoipa::path(
    post, path = "/tokenize", tag = "text-embeddings-inference", request_body = TokenizeRequest,
    responses((status = 200, description = "The tokens of each text", body = Vec<Vec<Token>>))
)]
pub async fn tokenize(call: Call<TokenizeRequest>) -> Result<Response, Refusal> {
    let TokenizeRequest { inputs, add_special_tokens, model } = &call.body;
    let model = call.app.model(model.as_deref(), |_| true, "tokens")?;
    let texts = inputs::plain(inputs, "inputs")?;
    let (with_special, most) = (add_special_tokens.unwrap_or(true), call.app.config.limits.texts);
    if texts.len() > most {
        return Err(Refusal::unprocessable(format!("found {} texts, expected {most} at most", texts.len())));
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

/// What the server is and serves; the first fields as text-embeddings-inference has them, of the first model.
#[derive(Debug, Serialize, ToSchema)]
pub struct Info {
    /// The first model's name.
    model_id: String,
    /// A hash of what was loaded, where there is one.
    model_sha: Option<String>,
    /// The precision of its products.
    model_dtype: &'static str,
    model_type: ModelType,
    /// Tokens of its longest text.
    max_input_length: usize,
    /// Tokens of a batch.
    max_batch_tokens: usize,
    /// Texts of a request.
    max_client_batch_size: usize,
    /// Whether texts that are too long are cut off where a request does not say it.
    auto_truncate: bool,
    /// Kiln's.
    version: &'static str,
    /// All that are served.
    models: Vec<ModelInfo>,
}

/// What a model gives, as text-embeddings-inference says it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    /// Labels.
    Classifier(Labels),
    /// A number for a pair.
    Reranker(Labels),
    /// Vectors.
    Embedding {
        /// How they are made of the hidden states.
        pooling: &'static str,
    },
}

/// Labels by number, and numbers by label.
#[derive(Debug, Serialize, ToSchema)]
pub struct Labels {
    id2label: BTreeMap<String, String>,
    label2id: BTreeMap<String, usize>,
}

/// A model that is served.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelInfo {
    name: String,
    /// transformers' name of its task.
    task: &'static str,
    /// Whether its answer is a number.
    is_regression: bool,
    is_multi_label: bool,
    labels: Vec<String>,
    /// What stands for a token that is to be predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_token: Option<String>,
    /// How many numbers its vectors have.
    width: usize,
    max_input_length: usize,
    /// Whether longer texts are read in windows.
    has_windows: bool,
    precision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Where the base model came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
}

#[utoipa::path(get, path = "/info", tag = "text-embeddings-inference", responses((status = 200, body = Info)))]
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
            pooling: match model.details.pooling {
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
