//! Parameters of other servers that would change the results. They are refused, because ignoring them would give other
//! results than the client expects.

use kiln_predict::PIPELINE_ANSWER_LENGTH;
use serde_json::{Map, Value, json};

use crate::refusal::Refusal;

/// Refuses another `truncation_direction` than `right`, in upper or lower case, and any `prompt_name`. `prefix` precedes the
/// names of the fields in errors.
pub fn check(truncation_direction: Option<&Value>, prompt_name: Option<&Value>, prefix: &str) -> Result<(), Refusal> {
    let is_right = |value: &Value| value.as_str().is_some_and(|direction| direction.eq_ignore_ascii_case("right"));
    if truncation_direction.is_some_and(|direction| !is_right(direction)) {
        let message = "only `right` is supported: a text that is too long is cut off at its end";
        return Err(Refusal::unprocessable(format!("{prefix}truncation_direction: {message}")));
    }
    match prompt_name {
        None => Ok(()),
        Some(_) => {
            let message = "prompts are not supported; put the prompt before the text";
            Err(Refusal::unprocessable(format!("{prefix}prompt_name: {message}")))
        }
    }
}

/// A parameter of the Hugging Face pipelines that is not supported.
struct Unsupported {
    name: &'static str,
    /// Whether a value asks for what is computed anyway.
    is_default: fn(&Value) -> bool,
    message: &'static str,
}

const UNSUPPORTED: [Unsupported; 10] = [
    Unsupported {
        name: "candidate_labels",
        is_default: |_| false,
        message: "zero-shot classification is not supported; the labels are those of the model",
    },
    Unsupported {
        name: "targets",
        is_default: |_| false,
        message: "a choice of tokens is not supported; leave it out, and ask for more tokens with `top_k`",
    },
    Unsupported {
        name: "aggregation_strategy",
        is_default: |value| value != "none",
        message: "tokens are always grouped; expected \"simple\", \"first\", \"average\" or \"max\"",
    },
    Unsupported {
        name: "ignore_labels",
        is_default: |value| *value == json!(["O"]),
        message: "only the label `O` is left out",
    },
    Unsupported {
        name: "max_answer_len",
        is_default: |value| *value == json!(PIPELINE_ANSWER_LENGTH),
        message: "answers always have the default maximum length",
    },
    Unsupported {
        name: "handle_impossible_answer",
        is_default: |value| *value == json!(false),
        message: "an answer is always a passage of the context, as by default",
    },
    Unsupported {
        name: "align_to_words",
        is_default: |value| *value == json!(true),
        message: "answers are always aligned to words, as by default",
    },
    Unsupported { name: "doc_stride", is_default: |_| false, message: "windows always have the default stride" },
    Unsupported { name: "max_seq_len", is_default: |_| false, message: "windows always have the default length" },
    Unsupported {
        name: "max_question_len",
        is_default: |_| false,
        message: "questions always have the default maximum length",
    },
];

/// Refuses parameters of the Hugging Face pipelines that are not supported.
pub fn check_others(parameters: &Map<String, Value>) -> Result<(), Refusal> {
    for Unsupported { name, is_default, message } in &UNSUPPORTED {
        if parameters.get(*name).is_some_and(|value| !value.is_null() && !is_default(value)) {
            return Err(Refusal::unprocessable(format!("parameters.{name}: {message}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_and_no_prompt() {
        for direction in ["right", "Right", "RIGHT"] {
            assert_eq!(check(Some(&json!(direction)), None, ""), Ok(()));
        }
        for (direction, prompt, expected) in [
            (Some(json!("left")), None, "parameters.truncation_direction: only `right`"),
            (Some(json!(3)), None, "parameters.truncation_direction: only `right`"),
            (None, Some(json!("query")), "parameters.prompt_name: prompts are not supported"),
        ] {
            let refusal = check(direction.as_ref(), prompt.as_ref(), "parameters.").expect_err("it is not supported");
            assert!(refusal.status.as_u16() == 422 && refusal.message.starts_with(expected), "{}", refusal.message);
        }
    }
}
