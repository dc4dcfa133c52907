use serde_json::{Map, Value};

/// BERT's keys that hold integers.
const WHOLE: [&str; 9] = [
    "vocab_size",
    "hidden_size",
    "embedding_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "pad_token_id",
];

/// BERT's keys that hold real numbers.
const REAL: [&str; 5] = [
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "initializer_range",
    "layer_norm_eps",
];

/// A key, its value, and what was expected.
type Unfit = (&'static str, String, &'static str);

/// Removes numeric keys with the value `null`, which means that the key is absent.
pub(crate) fn remove_nulls(json: &mut Map<String, Value>) {
    let is_number = |key: &str| WHOLE.contains(&key) || REAL.contains(&key);
    json.retain(|key, value| !(value.is_null() && is_number(key)));
}

/// Checks the numeric keys. The error is the first one without a valid number.
pub(crate) fn check_numbers(json: &Map<String, Value>) -> Result<(), Unfit> {
    let is_id = |value: &Value| value.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
    for key in WHOLE {
        let fits = |value: &Value| if key == "pad_token_id" { is_id(value) } else { value.is_u64() };
        if let Some(value) = json.get(key).filter(|value| !fits(value)) {
            return Err((key, value.to_string(), "a whole number of at least 0"));
        }
    }
    for key in REAL {
        if let Some(value) = json.get(key).filter(|value| !value.is_number()) {
            return Err((key, value.to_string(), "a number"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::BertConfig;

    fn read(model_type: &str, key: &str, value: serde_json::Value) -> Result<BertConfig, crate::Error> {
        let mut config = json!({
            "model_type": model_type, "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 32, "pad_token_id": 3
        });
        config[key] = value;
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("it is writable");
        BertConfig::from_folder(folder.path())
    }

    #[test]
    fn what_is_no_number_is_named_by_the_family_s_key() {
        for (model_type, key, value) in [
            ("bert", "hidden_size", json!("32")),
            ("bert", "vocab_size", json!(-1)),
            ("albert", "embedding_size", json!([24])),
            ("albert", "classifier_dropout_prob", json!("0.1")),
            ("distilbert", "n_layers", json!(2.5)),
            ("roberta", "pad_token_id", json!(1_u64 << 40)),
            ("modernbert", "norm_eps", json!({})),
            ("electra", "layer_norm_eps", json!(true)),
        ] {
            let message = read(model_type, key, value.clone()).expect_err(key).to_string();
            assert!(message.contains(&format!("config.json: `{key}` is {value}; expected a")), "{message}");
        }
    }

    #[test]
    fn null_is_the_family_s_default() {
        let read = |model_type, key| read(model_type, key, json!(null)).expect(key);
        assert_eq!(read("roberta", "pad_token_id").pad_token_id, 1);
        assert_eq!(read("albert", "embedding_size").embedding_size(), 128);
        assert_eq!(read("bert", "classifier_dropout").classifier_dropout(), 0.1);
    }

    /// In transformers, DistilBERT has no segments and a fixed ε, whatever its config says.
    #[test]
    fn keys_that_a_family_does_not_have_count_for_nothing() {
        let config = read("distilbert", "layer_norm_eps", json!(0.5)).expect("it is ignored");
        assert_eq!(config.layer_norm_eps, 1e-12);
        assert_eq!(read("modernbert", "type_vocab_size", json!(0)).expect("it is ignored").type_vocab_size, 2);
    }
}
