use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// A text or a pair. A pair is two texts, or a question and its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    pub text_pair: Option<String>,
}

/// The texts of a request. If they came as a list, the response is a list too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    pub texts: Vec<Text>,
    pub is_list: bool,
}

const TOKEN_IDS: &str = "there are token ids instead of text. Ids of another vocabulary would give wrong vectors: send the \
                         text itself (langchain's OpenAIEmbeddings: check_embedding_ctx_length=False)";

/// Parses `inputs` of Hugging Face's routes: a text, a pair as an object, or a list of these.
pub fn hugging_face(inputs: &Value) -> Result<Inputs, Refusal> {
    match inputs {
        Value::Array(items) => {
            let texts = (0..).zip(items).map(|(at, item)| one(item, &format!("inputs[{at}]")));
            Ok(Inputs { texts: texts.collect::<Result<_, _>>()?, is_list: true })
        }
        input => Ok(Inputs { texts: vec![one(input, "inputs")?], is_list: false }),
    }
}

/// Parses `inputs` of TEI's `/predict`: a text, a list of one or two texts, or a list of such lists.
pub fn predict(inputs: &Value) -> Result<Inputs, Refusal> {
    match inputs {
        Value::Array(items) if items.iter().any(Value::is_array) => {
            let texts = (0..).zip(items).map(|(at, item)| listed(item, &format!("inputs[{at}]")));
            Ok(Inputs { texts: texts.collect::<Result<_, _>>()?, is_list: true })
        }
        Value::Array(_) => Ok(Inputs { texts: vec![listed(inputs, "inputs")?], is_list: false }),
        input => Ok(Inputs { texts: vec![one(input, "inputs")?], is_list: false }),
    }
}

/// Parses a text or a list of texts. `field` is the name of the field, for errors.
pub fn plain(inputs: &Value, field: &str) -> Result<Vec<Text>, Refusal> {
    match inputs {
        Value::Array(items) => (0..).zip(items).map(|(at, item)| single(item, &format!("{field}[{at}]"))).collect(),
        input => Ok(vec![single(input, field)?]),
    }
}

/// Parses a single text. `field` is the name of the field, for errors.
pub fn single(value: &Value, field: &str) -> Result<Text, Refusal> {
    Ok(Text { text: string(value, field)?, text_pair: None })
}

/// Parses a text, or a list of one or two texts.
fn listed(value: &Value, field: &str) -> Result<Text, Refusal> {
    match value.as_array().map(Vec::as_slice) {
        Some([text]) => single(text, &format!("{field}[0]")),
        Some([text, pair]) => Ok(Text {
            text: string(text, &format!("{field}[0]"))?,
            text_pair: Some(string(pair, &format!("{field}[1]"))?),
        }),
        Some(other) if other.is_empty() || !other.iter().all(Value::is_number) => Err(Refusal::unprocessable(format!(
            "{field}: found {} texts, expected one, or the two of a pair",
            other.len()
        ))),
        Some(_) => Err(Refusal::bad_request(format!("{field}: {TOKEN_IDS}"))),
        None => single(value, field),
    }
}

fn one(value: &Value, field: &str) -> Result<Text, Refusal> {
    let Value::Object(object) = value else {
        return single(value, field);
    };
    for [first, second] in [["text", "text_pair"], ["question", "context"]] {
        if let Some(text) = object.get(first) {
            let pair = object.get(second).filter(|pair| !pair.is_null());
            let text_pair = pair.map(|pair| string(pair, &format!("{field}.{second}"))).transpose()?;
            return Ok(Text { text: string(text, &format!("{field}.{first}"))?, text_pair });
        }
    }
    Err(Refusal::unprocessable(format!(
        "{field}: found an object with the keys {}, expected `text` and `text_pair`, or `question` and `context`",
        keys(object)
    )))
}

fn keys(object: &Map<String, Value>) -> String {
    // The keys are user input, so only their beginning is shown.
    let mut names: Vec<String> =
        object.keys().take(4).map(|key| format!("`{}`", key.chars().take(20).collect::<String>())).collect();
    if object.len() > 4 {
        names.push("…".to_owned());
    }
    names.join(", ")
}

fn string(value: &Value, field: &str) -> Result<String, Refusal> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) => Err(Refusal::bad_request(format!("{field}: {TOKEN_IDS}"))),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_number) => {
            Err(Refusal::bad_request(format!("{field}: {TOKEN_IDS}")))
        }
        other => Err(Refusal::unprocessable(format!("{field}: found {}, expected a text", kind(other)))),
    }
}

/// What a value is, for errors.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(text: &str, text_pair: Option<&str>) -> Text {
        Text { text: text.to_owned(), text_pair: text_pair.map(str::to_owned) }
    }

    #[test]
    fn inputs_of_hugging_face() {
        let pair = json!({ "text": "a", "text_pair": "b" });
        let question = json!({ "question": "a", "context": "b" });
        for (value, expected, is_list) in [
            (json!("a"), vec![text("a", None)], false),
            (json!(["a", "b"]), vec![text("a", None), text("b", None)], true),
            (pair.clone(), vec![text("a", Some("b"))], false),
            (question.clone(), vec![text("a", Some("b"))], false),
            (json!([pair, question, "c"]), vec![text("a", Some("b")), text("a", Some("b")), text("c", None)], true),
            (json!([]), vec![], true),
        ] {
            assert_eq!(hugging_face(&value), Ok(Inputs { texts: expected, is_list }), "{value}");
        }
    }

    #[test]
    fn inputs_of_predict() {
        for (value, expected, is_list) in [
            (json!("a"), vec![text("a", None)], false),
            (json!(["a"]), vec![text("a", None)], false),
            (json!(["a", "b"]), vec![text("a", Some("b"))], false),
            (json!([["a"], ["a", "b"]]), vec![text("a", None), text("a", Some("b"))], true),
        ] {
            assert_eq!(predict(&value), Ok(Inputs { texts: expected, is_list }), "{value}");
        }
        for (value, expected) in [
            (json!([]), "inputs: found 0 texts, expected one, or the two of a pair"),
            (json!([[]]), "inputs[0]: found 0 texts, expected one, or the two of a pair"),
            (json!(["a", "b", "c"]), "inputs: found 3 texts, expected one, or the two of a pair"),
        ] {
            let refusal = predict(&value).expect_err("it is neither one text nor a pair");
            assert_eq!((refusal.status.as_u16(), refusal.message.as_str()), (422, expected));
        }
    }

    #[test]
    fn token_ids_are_refused_and_the_flag_is_named() {
        for value in [json!([1, 2]), json!([[1, 2], [3]]), json!(["a", 3]), json!(7)] {
            let refusals = [plain(&value, "input").expect_err("ids"), hugging_face(&value).expect_err("ids")];
            for refusal in refusals {
                assert_eq!(refusal.status.as_u16(), 400, "{value}");
                assert!(refusal.message.contains("check_embedding_ctx_length=False"), "{}", refusal.message);
            }
        }
    }

    #[test]
    fn a_wrong_type_is_named_with_its_field() {
        for (value, expected) in [
            (json!(null), "inputs: found null, expected a text"),
            (json!(["a", true]), "inputs[1]: found true or false"),
            (json!([{ "question": "a", "context": [] }]), "inputs[0].context: found a list"),
            (json!({ "x": 1 }), "found an object with the keys `x`"),
        ] {
            let refusal = hugging_face(&value).expect_err("a wrong type");
            assert!(refusal.status.as_u16() == 422 && refusal.message.contains(expected), "{}", refusal.message);
        }
    }
}
