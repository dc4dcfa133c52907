//! The routes of Hugging Face's clients.

use kiln_backend::{Backend, Flex};
use kiln_bundle::SealConfig;
use kiln_heads::Pooling;
use kiln_kernels::Precision;
use kiln_serve::{Model, ModelConfig};
use serde_json::{Value, json};

use crate::running::{Running, copy_of, load, shared};

fn sum(labels: &Value) -> f64 {
    labels.as_array().expect("a list").iter().map(|label| label["score"].as_f64().expect("a number")).sum()
}

#[test]
fn labels_of_one_text_are_a_list_in_a_list() {
    let answer = shared().ask("/", &json!({ "inputs": "房间很干净" }));
    assert_eq!((answer.as_array().expect("a list").len(), answer[0].as_array().expect("a list").len()), (1, 2));
    assert!((sum(&answer[0]) - 1.0).abs() < 1e-9 && answer[0][0]["score"].as_f64() >= answer[0][1]["score"].as_f64());
    let both = shared().ask("/models/reviews", &json!({ "inputs": ["房间很干净", "屏幕太暗"] }));
    assert_eq!(both[0], answer[0]);
    assert_ne!(both[1], answer[0]);
    let best = shared().ask("/models/reviews", &json!({ "inputs": "房间很干净", "parameters": { "top_k": 1 } }));
    assert_eq!(best, json!([[answer[0][0]]]));
    let pair = shared().ask("/models/reviews", &json!({ "inputs": { "text": "房间", "text_pair": "很干净" } }));
    assert_ne!(pair, answer);
}

#[test]
fn functions_are_applied_to_the_logits() {
    let ask = |function: &str| {
        let parameters = json!({ "function_to_apply": function });
        shared().ask("/models/reviews", &json!({ "inputs": "房间", "parameters": parameters }))[0].clone()
    };
    assert!((sum(&ask("softmax")) - 1.0).abs() < 1e-9);
    let default = shared().ask("/models/reviews", &json!({ "inputs": "房间" }));
    assert_eq!(ask("softmax"), default[0]);
    for (raw, sigmoid) in ask("none").as_array().expect("a list").iter().zip(ask("sigmoid").as_array().expect("one")) {
        let (raw, sigmoid) = (raw["score"].as_f64().expect("a logit"), sigmoid["score"].as_f64().expect("a share"));
        assert!((1.0 / (1.0 + (-raw).exp()) - sigmoid).abs() < 1e-9);
    }
}

/// The model's own function gives the calibrated probabilities, named or not. The other one is calibrated too.
#[test]
fn functions_are_calibrated() {
    const TEMPERATURE: f64 = 2.5;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let of = |name: &str| {
        let copy = folder.path().join(name);
        copy_of(name, &copy);
        std::fs::write(copy.join("calibration.json"), json!({ "temperature": TEMPERATURE }).to_string())
            .expect("it is writable");
        (name.to_owned(), copy)
    };
    let models = ["reviews", "topics"].map(of);
    let server = Running::with(|_| {}, move || load(&models));
    for (name, own, other) in [("reviews", "softmax", "sigmoid"), ("topics", "sigmoid", "softmax")] {
        let path = format!("/models/{name}");
        let ask = |function: Value| {
            let parameters = json!({ "function_to_apply": function });
            server.ask(&path, &json!({ "inputs": "房间", "parameters": parameters }))[0].clone()
        };
        assert_eq!(ask(json!(own)), ask(json!(null)), "{name}");
        let uncalibrated =
            shared().ask(&path, &json!({ "inputs": "房间", "parameters": { "function_to_apply": own } }));
        assert_ne!(ask(json!(own)), uncalibrated[0], "{name}");
        let scores = |labels: &Value| -> Vec<f64> {
            labels.as_array().expect("a list").iter().map(|label| label["score"].as_f64().expect("a number")).collect()
        };
        let logits: Vec<f64> = scores(&ask(json!("none"))).iter().map(|logit| logit / TEMPERATURE).collect();
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        for (function, scores) in [(own, scores(&ask(json!(own)))), (other, scores(&ask(json!(other))))] {
            for (score, logit) in scores.iter().zip(&logits) {
                let expected = if function == "softmax" { logit.exp() / sum } else { 1.0 / (1.0 + (-logit).exp()) };
                assert!((score - expected).abs() < 1e-6, "{name} {function}: {score}, expected {expected}");
            }
        }
    }
}

#[test]
fn several_labels_and_numbers() {
    let labels = shared().ask("/models/topics", &json!({ "inputs": "酒店位置好" }));
    let names: std::collections::BTreeSet<&str> =
        labels[0].as_array().expect("a list").iter().filter_map(|label| label["label"].as_str()).collect();
    assert_eq!(names, ["food", "place", "room"].into());
    assert!((sum(&labels[0]) - 1.0).abs() > 1e-6, "each is a probability by itself");
    let number = shared().ask("/models/ranks", &json!({ "inputs": "酒店位置好" }));
    assert_eq!(number[0][0]["label"], "score");
    assert!(number[0][0]["score"].is_number());
}

#[test]
fn entities_have_the_offsets_of_characters() {
    let text = " \n😀酒店位置好房间很干净屏幕太暗";
    let characters: Vec<char> = text.chars().collect();
    let answer = shared().ask("/models/names", &json!({ "inputs": text }));
    let entities = answer.as_array().expect("a list");
    assert!(!entities.is_empty(), "with these weights there is one");
    for entity in entities {
        let at = |key: &str| entity[key].as_u64().expect("an offset") as usize;
        let word: String = characters[at("start")..at("end")].iter().collect();
        assert_eq!(entity["word"], word);
        assert!(entity["entity_group"].is_string() && entity["score"].is_number());
    }
    // A long text is read in windows.
    let long = shared().ask("/models/names", &json!({ "inputs": text.repeat(30) }));
    assert!(long.as_array().expect("a list").last().expect("some")["end"].as_u64() > Some(64));
    let two = shared().ask("/models/names", &json!({ "inputs": [text, ""] }));
    assert_eq!(two, json!([answer, []]));
}

#[test]
fn an_answer_is_an_object_with_its_place() {
    let context = format!("\u{3000} {}", "酒店位置好房间很干净屏幕太暗".repeat(20));
    let inputs = json!({ "question": "酒店", "context": context });
    let answer = shared().ask("/models/answers", &json!({ "inputs": inputs }));
    let at = |key: &str| answer[key].as_u64().expect("an offset") as usize;
    let passage: String = context.chars().skip(at("start")).take(at("end") - at("start")).collect();
    assert_eq!(answer["answer"], passage);
    assert!(answer["score"].as_f64().is_some_and(|score| score > 0.0));
    assert_eq!(shared().post("/models/answers", &json!({ "inputs": "酒店" })).status, 422, "there is no context");
}

#[test]
fn masks_get_candidates() {
    let one = shared().ask("/models/masks", &json!({ "inputs": "房[MASK]很好", "parameters": { "top_k": 3 } }));
    assert_eq!(one.as_array().expect("a list").len(), 3);
    for candidate in one.as_array().expect("a list") {
        let token = candidate["token_str"].as_str().expect("a token");
        assert_eq!(candidate["sequence"], format!("房{token}很好"));
        assert!(candidate["token"].is_u64() && candidate["score"].is_number());
    }
    let two = shared().ask("/models/masks", &json!({ "inputs": "[MASK]间[MASK]好" }));
    assert_eq!((two.as_array().expect("a list").len(), two[1].as_array().expect("a list").len()), (2, 5));
    let pair = json!({ "text": "[MASK]间", "text_pair": "很[MASK]好" });
    let filled = shared().ask("/models/masks", &json!({ "inputs": pair, "parameters": { "top_k": 2 } }));
    for (mask, [before, after]) in [(0, ["", "间"]), (1, ["很", "好"])] {
        for candidate in filled[mask].as_array().expect("two tokens") {
            let token = candidate["token_str"].as_str().expect("a token");
            assert_eq!(candidate["sequence"], format!("{before}{token}{after}"));
        }
    }
    let none = shared().post("/models/masks", &json!({ "inputs": "房间" }));
    assert!(none.status == 422 && none.body.contains("[MASK]"), "{}", none.body);
}

#[test]
fn vectors_and_similarities() {
    let vectors = shared().ask("/models/vectors", &json!({ "inputs": ["房间", "酒店"], "normalize": true }));
    let length = |vector: &Value| {
        vector.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number").powi(2)).sum::<f64>().sqrt()
    };
    assert!(vectors[0].as_array().expect("a list").len() == 32 && (length(&vectors[1]) - 1.0).abs() < 1e-5);
    let inputs = json!({ "source_sentence": "房间", "sentences": ["房间", "酒店"] });
    let cosines = shared().ask("/models/vectors", &json!({ "inputs": inputs }));
    assert!((cosines[0].as_f64().expect("a number") - 1.0).abs() < 1e-5 && cosines[1].as_f64() < Some(1.0));
    // Without a name, the model for vectors is chosen, as on the other routes for vectors.
    assert_eq!(shared().ask("/", &json!({ "inputs": inputs })), cosines);
    let (openai, tei) = (json!({ "input": "房间" }), json!({ "inputs": "房间" }));
    let embedded = shared().ask("/v1/embeddings", &openai);
    assert_eq!(
        (&embedded["model"], &embedded["data"][0]["embedding"]),
        (&json!("vectors"), &shared().ask("/embed", &tei)[0])
    );
}

#[test]
fn a_vector_is_shortened_to_the_requested_dimensions() {
    let whole = shared().ask("/models/vectors", &json!({ "inputs": "房间" }));
    for body in [json!({ "dimensions": 5 }), json!({ "parameters": { "dimensions": 5 } })] {
        let mut body = body;
        body["inputs"] = "房间".into();
        let short = shared().ask("/models/vectors", &body);
        assert_eq!(short[0].as_array().expect("a list"), &whole[0].as_array().expect("a list")[..5]);
    }
    assert_eq!(shared().post("/models/vectors", &json!({ "inputs": "房间", "dimensions": 33 })).status, 422);
}

/// Ignoring a parameter would give another answer than the client expects.
#[test]
fn parameters_that_would_change_an_answer_are_refused() {
    let question = json!({ "question": "谁", "context": "张三在房间里" });
    for (model, inputs, parameters, named) in [
        ("answers", question.clone(), json!({ "max_answer_len": 1 }), "max_answer_len"),
        ("answers", question.clone(), json!({ "handle_impossible_answer": true }), "handle_impossible_answer"),
        ("answers", question.clone(), json!({ "top_k": 3 }), "top_k"),
        ("answers", json!({ "question": "谁", "context": "" }), json!({}), "has no context"),
        ("names", json!("张三"), json!({ "aggregation_strategy": "none" }), "aggregation_strategy"),
        ("names", json!("张三"), json!({ "ignore_labels": ["PER"] }), "ignore_labels"),
    ] {
        let body = json!({ "inputs": inputs, "parameters": parameters });
        let answer = shared().post(&format!("/models/{model}"), &body);
        assert!(answer.status == 422 && answer.body.contains(named), "{body}: {}", answer.body);
    }
    let same = json!({ "max_answer_len": 15, "handle_impossible_answer": false, "top_k": 1, "doc_stride": null });
    let plain = shared().ask("/models/answers", &json!({ "inputs": question }));
    assert_eq!(shared().ask("/models/answers", &json!({ "inputs": question, "parameters": same })), plain);
}

/// transformers' pipeline applies a sigmoid to a single logit, unless the config says that it is a regression.
#[test]
fn the_score_of_a_cross_encoder_is_a_share() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("ranks");
    copy_of("ranks", &model);
    let path = model.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("a config")).expect("JSON");
    config.as_object_mut().expect("an object").remove("problem_type").expect("Kiln names it");
    std::fs::write(&path, config.to_string()).expect("it is writable");
    let models = [("ranks".to_owned(), model)];
    let server = Running::with(|_| {}, move || load(&models));
    let body = json!({ "inputs": { "text": "房间", "text_pair": "很干净" } });
    let score = |server: &Running| server.ask("/models/ranks", &body)[0][0]["score"].as_f64().expect("a number");
    assert!((score(&server) - 1.0 / (1.0 + (-score(shared())).exp())).abs() < 1e-12);
}

#[test]
fn the_source_of_similarities_is_one_text() {
    for source in [json!(["房间", "酒店"]), json!([]), json!(null), json!({ "text": "房间" })] {
        let inputs = json!({ "source_sentence": source, "sentences": ["房间", "酒店"] });
        let answer = shared().post("/models/vectors", &json!({ "inputs": inputs }));
        assert_eq!(answer.status, 422, "{source}: {}", answer.body);
        assert!(answer.body.contains("inputs.source_sentence: found"), "{source}: {}", answer.body);
    }
}

/// `normalize` has the default of the model, which is in the checkpoint's files or in the manifest of a bundle.
#[test]
fn vectors_are_normalized_as_the_model_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (model, bundle) = (folder.path().join("model"), folder.path().join("bundle"));
    copy_of("vectors", &model);
    let modules = json!([{ "type": "sentence_transformers.models.Normalize" }]).to_string();
    std::fs::write(model.join("modules.json"), modules).expect("it is writable");
    SealConfig::default().seal(&model, &bundle, &Flex::device(0)).expect("it is whole");
    let models = [("model".to_owned(), model.clone()), ("bundle".to_owned(), bundle)];
    let server = Running::with(|_| {}, move || load(&models));
    let plain = shared().ask("/models/vectors", &json!({ "inputs": "房间" }));
    let normalized = shared().ask("/models/vectors", &json!({ "inputs": "房间", "normalize": true }));
    assert_ne!(plain, normalized);
    for path in ["/models/model", "/models/bundle"] {
        assert_eq!(server.ask(path, &json!({ "inputs": "房间" })), normalized, "{path}");
        assert_eq!(server.ask(path, &json!({ "inputs": "房间", "normalize": false })), plain, "{path}");
    }

    std::fs::create_dir(model.join("1_Pooling")).expect("a folder");
    let pooling = json!({ "pooling_mode_mean_tokens": false, "pooling_mode_lasttoken": true }).to_string();
    std::fs::write(model.join("1_Pooling/config.json"), pooling).expect("it is writable");
    let message = load(&[("model".to_owned(), model.clone())]).expect_err("its pooling is not supported").to_string();
    assert!(message.contains("1_Pooling/config.json: the pooling mode `lasttoken`"), "{message}");
    assert!(message.contains("--pooling"), "{message}");
    let config = ModelConfig { precision: Some(Precision::F32), pooling: Some(Pooling::Cls) };
    Model::from_folder("model".to_owned(), &model, config, &Flex::device(0)).expect("the pooling is given");
}

/// The prediction for a text is the same alone and with other texts.
#[test]
fn companions_change_nothing() {
    let texts = ["房间很干净", "暗", "酒店位置好房间很干净屏幕太暗", "屏幕太暗a"];
    for model in ["reviews", "topics", "ranks", "names"] {
        let together = shared().ask(&format!("/models/{model}"), &json!({ "inputs": texts }));
        for (at, text) in texts.iter().enumerate() {
            let alone = shared().ask(&format!("/models/{model}"), &json!({ "inputs": [text] }));
            assert_eq!(together[at], alone[0], "{model}: {text}");
        }
    }
}
