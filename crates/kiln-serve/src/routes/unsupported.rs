//! Parameters of other servers that would change the results. They are refused, because ignoring them would give other
//! results than the client expects.

use serde_json::Value;

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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
