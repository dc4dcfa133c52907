//! The routes of text-embeddings-inference.

use serde_json::{Value, json};

use crate::running::shared;

#[test]
fn predict_tells_pairs_from_lists() {
    let single = shared().ask("/predict", &json!({ "inputs": "房间" }));
    assert!(single[0]["label"].is_string() && single[0]["score"].is_number(), "{single}");
    let pair = shared().ask("/predict", &json!({ "inputs": ["房间", "干净"] }));
    assert!(pair[0]["label"].is_string(), "a list of two texts is one pair");
    let batch = shared().ask("/predict", &json!({ "inputs": [["房间"], ["房间", "干净"]] }));
    assert_eq!(batch, json!([single, pair]));
    let raw = shared().ask("/predict", &json!({ "inputs": "房间", "raw_scores": true }));
    assert_ne!(raw, single);
    let other = shared().ask("/predict", &json!({ "inputs": "房间", "model": "topics" }));
    assert_eq!(other.as_array().expect("a list").len(), 3);
}

#[test]
fn embed_normalizes_and_shortens() {
    let numbers = |vector: &Value| -> Vec<f64> {
        vector.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
    };
    let length = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let one = shared().ask("/embed", &json!({ "inputs": "房间" }));
    assert!((length(&numbers(&one[0])) - 1.0).abs() < 1e-5);
    let raw = shared().ask("/embed", &json!({ "inputs": ["房间", "酒店"], "normalize": false }));
    assert!((length(&numbers(&raw[0])) - 1.0).abs() > 1e-3);
    let short = shared().ask("/embed", &json!({ "inputs": "房间", "dimensions": 4 }));
    assert!(numbers(&short[0]).len() == 4 && (length(&numbers(&short[0])) - 1.0).abs() < 1e-5);
    assert_eq!(shared().post("/embed", &json!({ "inputs": "房间", "dimensions": 33 })).status, 422);
    // A model with a head computes vectors too, if it is named.
    assert_eq!(
        shared().ask("/embed", &json!({ "inputs": "房间", "model": "reviews" }))[0].as_array().map(Vec::len),
        Some(32)
    );
}

#[test]
fn rerank_orders_by_score() {
    let texts = ["房间很干净", "屏幕太暗", "酒店"];
    let body = json!({ "query": "房间", "texts": texts, "return_text": true, "raw_scores": true });
    let ranks = shared().ask("/rerank", &body);
    let ranks = ranks.as_array().expect("a list");
    assert_eq!(ranks.len(), 3);
    for pair in ranks.windows(2) {
        assert!(pair[0]["score"].as_f64() >= pair[1]["score"].as_f64());
    }
    for rank in ranks {
        let index = rank["index"].as_u64().expect("an index") as usize;
        assert_eq!(rank["text"], texts[index]);
        let inputs = json!({ "text": "房间", "text_pair": texts[index] });
        assert_eq!(shared().ask("/models/ranks", &json!({ "inputs": inputs }))[0][0]["score"], rank["score"]);
    }
    let shares = shared().ask("/rerank", &json!({ "query": "房间", "texts": texts }));
    assert!(shares[0]["score"].as_f64() < Some(1.0) && shares[0]["text"].is_null());
    // Each text would get a copy of the query.
    let large = json!({ "query": "房".repeat(1 << 20), "texts": vec![""; 2_000], "truncate": true });
    let refused = shared().post("/rerank", &large);
    assert!(refused.status == 422 && refused.body.contains("too long for 2000 texts"), "{}", refused.body);
}

#[test]
fn tokens_and_their_places() {
    let tokens = shared().ask("/tokenize", &json!({ "inputs": "房 a" }));
    let token = |id: u64, text: &str, place: Option<[u64; 2]>| {
        let [start, stop] = place.map_or([None, None], |[start, stop]| [Some(start), Some(stop)]);
        json!({ "id": id, "text": text, "special": place.is_none(), "start": start, "stop": stop })
    };
    let expected =
        [token(2, "[CLS]", None), token(6, "房", Some([0, 1])), token(5, "a", Some([2, 3])), token(3, "[SEP]", None)];
    assert_eq!(tokens, json!([expected]));
    let bare = shared().ask("/tokenize", &json!({ "inputs": ["房"], "add_special_tokens": false }));
    assert_eq!(bare[0].as_array().map(Vec::len), Some(1));
}

#[test]
fn info_describes_every_model() {
    let info = shared().get("/info").json();
    assert_eq!(info["model_id"], "reviews");
    assert_eq!(info["model_type"]["classifier"]["id2label"], json!({ "0": "negative", "1": "positive" }));
    assert_eq!(info["max_input_length"], 64);
    let tasks: Vec<&str> =
        info["models"].as_array().expect("a list").iter().filter_map(|model| model["task"].as_str()).collect();
    let classification = "text-classification";
    let others = ["token-classification", "question-answering", "fill-mask", "feature-extraction"];
    assert_eq!(tasks, [[classification; 3].as_slice(), &others].concat());
    assert_eq!(info["models"][5]["mask_token"], "[MASK]");
}
