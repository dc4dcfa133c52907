//! The routes of OpenAI's clients.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::running::{MODELS, Running, load, shared};

#[test]
fn embeddings_as_numbers_and_as_base64() {
    let ask = |format: &str| {
        let body = json!({ "input": ["房间", "酒店"], "model": "vectors", "encoding_format": format });
        shared().ask("/v1/embeddings", &body)
    };
    let (numbers, encoded) = (ask("float"), ask("base64"));
    assert_eq!((&numbers["object"], &numbers["model"]), (&json!("list"), &json!("vectors")));
    // Each text has two characters and two special tokens.
    assert_eq!(numbers["usage"], json!({ "prompt_tokens": 8, "total_tokens": 8 }));
    for at in 0..2 {
        let item = &encoded["data"][at];
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(at)));
        let bytes = BASE64_STANDARD.decode(item["embedding"].as_str().expect("base64")).expect("base64");
        let decoded: Vec<f32> =
            bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four"))).collect();
        let plain: Vec<f32> = serde_json::from_value(numbers["data"][at]["embedding"].clone()).expect("numbers");
        assert_eq!(decoded, plain);
    }
}

#[test]
fn errors_are_nested_and_token_ids_are_refused() {
    let refused = |body: serde_json::Value| {
        let answer = shared().post("/v1/embeddings", &body);
        (answer.status, answer.json()["error"].clone())
    };
    let (status, error) = refused(json!({ "input": [[1, 2], [3]], "model": "vectors" }));
    assert_eq!(status, 400);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("check_embedding_ctx_length=False")), "{error}");
    assert_eq!(error["type"], "invalid_request_error");
    let (status, error) = refused(json!({ "input": "房间", "model": "text-embedding-3-small" }));
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
    let (status, error) = refused(json!({ "input": "房".repeat(100), "model": "vectors" }));
    assert!(status == 400 && error["message"].as_str().is_some_and(|text| text.contains("takes 64")), "{error}");
    // The message advises `truncate`.
    shared().ask("/v1/embeddings", &json!({ "input": "房".repeat(100), "model": "vectors", "truncate": true }));
    let null = json!({ "input": "房间", "model": "vectors", "encoding_format": null, "dimensions": null });
    assert!(shared().ask("/v1/embeddings", &null)["data"][0]["embedding"].is_array());
}

/// Clients must send a name, and clients for another service send the name of its model.
#[test]
fn a_single_model_answers_to_any_name() {
    let server = Running::with(|_| {}, || load(&MODELS.1[..1]));
    let answer = server.ask("/v1/embeddings", &json!({ "input": "房间", "model": "text-embedding-3-small" }));
    assert_eq!(answer["model"], MODELS.1[0].0.as_str());
}

#[test]
fn models_are_listed() {
    let list = shared().get("/v1/models").json();
    assert_eq!(list["data"].as_array().map(Vec::len), Some(7));
    assert_eq!(list["data"][0]["id"], "reviews");
    assert_eq!(shared().get("/v1/models/vectors").json()["id"], "vectors");
    assert_eq!(shared().get("/v1/models/none").status, 404);
}
