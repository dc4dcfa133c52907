//! The routes of Hugging Face's inference clients: `POST /` and `POST /models/{name}`.

use axum::response::Response;
use kiln_predict::{Computed, FilledPrediction, Prediction, TokenPrediction};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::labels::{Function, answers, labels};
use super::schemas::{TaskResponse, hugging_face_inputs};
use super::unsupported;
use super::vectors::{VectorConfig, embedding_model};
use crate::app::Question;
use crate::call::{Call, json as json_response, or_default};
use crate::inputs::{self, Inputs};
use crate::model::{Ability, Kind, Model};
use crate::refusal::Refusal;

/// A request of Hugging Face's clients.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": "房间很干净"}))]
pub struct HuggingFaceRequest {
    #[schema(schema_with = hugging_face_inputs)]
    inputs: Value,
    /// Parameters of the task.
    #[serde(default, deserialize_with = "or_default")]
    parameters: Parameters,
    /// Whether texts that are too long are truncated. Clients for feature extraction send it here.
    truncate: Option<bool>,
    /// Whether vectors are normalized to length 1. The default is that of the model: true if its `modules.json` of
    /// sentence-transformers, or the manifest of its bundle, says so.
    normalize: Option<bool>,
    /// The number of dimensions of a vector to keep.
    dimensions: Option<usize>,
    /// Only `right`, the default: a text that is too long is cut off at its end.
    #[schema(value_type = Option<String>)]
    truncation_direction: Option<Value>,
    /// Not supported: put the prompt before the text.
    #[schema(value_type = Option<String>)]
    prompt_name: Option<Value>,
}

/// The parameters of all tasks. Parameters that are not supported and would change the results are refused, and unknown
/// ones are ignored.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct Parameters {
    /// The number of labels, or of tokens for each mask.
    top_k: Option<usize>,
    /// The function for a classifier's logits.
    function_to_apply: Option<Function>,
    /// Whether texts that are too long are truncated.
    truncate: Option<bool>,
    /// Whether vectors are normalized to length 1. The default is that of the model.
    normalize: Option<bool>,
    /// Only `right`, the default: a text that is too long is cut off at its end.
    #[schema(value_type = Option<String>)]
    truncation_direction: Option<Value>,
    /// Not supported: put the prompt before the text.
    #[schema(value_type = Option<String>)]
    prompt_name: Option<Value>,
    /// The number of dimensions of a vector to keep.
    dimensions: Option<usize>,
    #[serde(flatten)]
    #[schema(ignore)]
    others: Map<String, Value>,
}

impl HuggingFaceRequest {
    /// Refuses parameters that are not supported and would change the results.
    fn check(&self) -> Result<(), Refusal> {
        let parameters = &self.parameters;
        unsupported::check(self.truncation_direction.as_ref(), self.prompt_name.as_ref(), "")?;
        let (direction, prompt) = (parameters.truncation_direction.as_ref(), parameters.prompt_name.as_ref());
        unsupported::check(direction, prompt, "parameters.")?;
        unsupported::check_others(&parameters.others)
    }
}

/// The largest `top_k`.
const MOST_TOP: usize = 1_000;

#[utoipa::path(
    post, path = "/", tag = "Hugging Face", request_body = HuggingFaceRequest,
    responses(
        (status = 200, description = "As the task's client expects: labels, entities, an answer, tokens for a mask, vectors, or similarities", body = TaskResponse),
        (status = 400, description = "The body is not JSON, or has token ids"), (status = 404, description = "No such model"),
        (status = 422, description = "Another shape than expected, or a text that is too long"),
        (status = 429, description = "The queue is full: `retry-after` says when to try again"),
        (status = 504, description = "No answer within the server's deadline"),
    )
)]
pub async fn answer(call: Call<HuggingFaceRequest>) -> Result<Response, Refusal> {
    let HuggingFaceRequest { inputs, parameters, truncate, normalize, dimensions, .. } = &call.body;
    call.body.check()?;
    let top = parameters.top_k.map(|top| match top {
        1..=MOST_TOP => Ok(top),
        _ => Err(Refusal::unprocessable(format!("parameters.top_k: found {top}, expected 1 to {MOST_TOP}"))),
    });
    let top = top.transpose()?;
    let truncate = truncate.or(parameters.truncate);
    if inputs.get("source_sentence").is_some() {
        return similarities(&call, truncate).await;
    }
    let model = call.app.model(call.model.as_deref(), |_| true, "answers")?;
    let Inputs { texts, is_list } = inputs::hugging_face(inputs)?;
    if model.ability() == Ability::Vectors {
        let normalize = normalize.or(parameters.normalize).unwrap_or(model.details.vectors.normalize);
        let config = VectorConfig { normalize, dimensions: dimensions.or(parameters.dimensions) };
        config.check(model.width())?;
        let question = Question { kind: Kind::Vector, truncate, top: None };
        let answered = call.answer(&model, texts, question).await?;
        return json_response(&config.vectors(answered.outcomes)?);
    }
    if model.ability() == Ability::Answers && top.is_some_and(|top| top > 1) {
        let message = "found more than 1; there is one answer to a question";
        return Err(Refusal::unprocessable(format!("parameters.top_k: {message}")));
    }
    let answered = call.answer(&model, texts, Question { kind: Kind::Answer, truncate, top }).await?;
    let shape = Shape { model: &model, top, function: parameters.function_to_apply };
    let values: Vec<Value> = answers(answered.outcomes)?.into_iter().map(|computed| shape.of(computed)).collect();
    // Clients expect a list of lists from a classifier, even for one text.
    let is_list = is_list || matches!(model.ability(), Ability::Labels | Ability::Number);
    match values.as_slice() {
        [only] if !is_list => json_response(only),
        all => json_response(&all),
    }
}

/// The cosine similarity of the source sentence with each sentence.
async fn similarities(call: &Call<HuggingFaceRequest>, truncate: Option<bool>) -> Result<Response, Refusal> {
    let model = embedding_model(&call.app, call.model.as_deref())?;
    let inputs = &call.body.inputs;
    let mut texts = vec![inputs::single(&inputs["source_sentence"], "inputs.source_sentence")?];
    texts.extend(inputs::plain(&inputs["sentences"], "inputs.sentences")?);
    let answered = call.answer(&model, texts, Question { kind: Kind::Vector, truncate, top: None }).await?;
    let vectors = VectorConfig { normalize: true, dimensions: None }.vectors(answered.outcomes)?;
    let Some((source, others)) = vectors.split_first() else { return json_response(&json!([])) };
    json_response(&others.iter().map(|other| kiln_predict::cosine(source, other)).collect::<Vec<f64>>())
}

/// Converts the predictions of a request to JSON.
struct Shape<'a> {
    model: &'a Model,
    top: Option<usize>,
    function: Option<Function>,
}

impl Shape<'_> {
    fn of(&self, computed: Computed) -> Value {
        match computed.prediction {
            Prediction::Entities(prediction) => {
                let entity = |entity: kiln_predict::EntityPrediction| {
                    json!({
                        "entity_group": entity.label, "score": entity.score, "word": entity.text,
                        "start": entity.start, "end": entity.end,
                    })
                };
                prediction.entities.into_iter().map(entity).collect()
            }
            Prediction::Tags(prediction) => {
                let tag = |tag: kiln_predict::TagPrediction| {
                    json!({
                        "entity": tag.tag, "score": tag.score, "word": tag.text, "start": tag.start, "end": tag.end,
                    })
                };
                prediction.tags.into_iter().map(tag).collect()
            }
            Prediction::Answer(answer) => json!({
                "answer": answer.answer, "score": answer.score, "start": answer.start, "end": answer.end,
            }),
            Prediction::Filled(filled) => self.candidates(&filled),
            _ => {
                let mut labels = labels(self.model, &computed, self.function);
                labels.truncate(self.top.unwrap_or(usize::MAX));
                json!(labels)
            }
        }
    }

    /// The tokens for a mask, or a list of tokens for each mask if there are several.
    fn candidates(&self, filled: &FilledPrediction) -> Value {
        let mask = self.model.mask_token().unwrap_or_default();
        let masks_of_text = if mask.is_empty() { 0 } else { filled.text.matches(&mask).count() };
        let candidates = |(at, found): (usize, &kiln_predict::MaskPrediction)| -> Value {
            // The masks of the second text of a pair come after those of the first.
            let (text, at) = match &filled.text_pair {
                Some(pair) if at >= masks_of_text => (pair, at - masks_of_text),
                _ => (&filled.text, at),
            };
            let candidate = |token: &TokenPrediction| {
                let sequence = with_mask_filled(text, &mask, at, token);
                json!({ "score": token.score, "token": token.id, "token_str": decoded(token), "sequence": sequence })
            };
            found.tokens.iter().map(candidate).collect()
        };
        let mut masks: Vec<Value> = filled.masks.iter().enumerate().map(candidates).collect();
        if masks.len() == 1 { masks.swap_remove(0) } else { Value::Array(masks) }
    }
}

/// The characters that begin a word in byte-level and SentencePiece vocabularies.
const WORD_STARTS: [char; 2] = ['Ġ', '▁'];

/// A token alone, as transformers' `decode` shows it: a continuation keeps its `##`, and a byte-level token its space.
fn decoded(token: &TokenPrediction) -> String {
    let TokenPrediction { token, text, .. } = token;
    match token.starts_with('Ġ') {
        true => format!(" {text}"),
        false if token.starts_with("##") => token.clone(),
        false => text.clone(),
    }
}

/// The text with a token in place of its mask number `at`. A continuation joins the word before it, and a word is separated
/// from it.
fn with_mask_filled(text: &str, mask: &str, at: usize, token: &TokenPrediction) -> String {
    let Some((start, _)) = text.match_indices(mask).nth(at).filter(|_| !mask.is_empty()) else {
        return text.to_owned();
    };
    let (before, after) = (&text[..start], &text[start + mask.len()..]);
    let (before, space) = match &token.token {
        token if token.starts_with("##") => (before.trim_end(), ""),
        token if token.starts_with(WORD_STARTS) && !before.is_empty() && !before.ends_with(' ') => (before, " "),
        _ => (before, ""),
    };
    format!("{before}{space}{}{after}", token.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mask_of_several_is_filled() {
        let filled = |text: &str, at, token: &str| {
            let shown = token.trim_start_matches("##").trim_start_matches(WORD_STARTS).to_owned();
            let token = TokenPrediction { id: 0, token: token.to_owned(), text: shown, score: 1.0 };
            (with_mask_filled(text, "[M]", at, &token), decoded(&token))
        };
        for (text, at, token, sequence, alone) in [
            ("a[M]b[M]", 0, "x", "axb[M]", "x"),
            ("a[M]b[M]", 1, "x", "a[M]bx", "x"),
            ("a", 0, "x", "a", "x"),
            ("do [M] now", 0, "##or", "door now", "##or"),
            ("the[M] [M]", 0, "Ġfox", "the fox [M]", " fox"),
            ("the [M]", 0, "Ġfox", "the fox", " fox"),
            ("the[M]", 0, "▁fox", "the fox", "fox"),
            ("[M]", 0, "Ġfox", "fox", " fox"),
        ] {
            assert_eq!(filled(text, at, token), (sequence.to_owned(), alone.to_owned()), "{text} {token}");
        }
    }
}
