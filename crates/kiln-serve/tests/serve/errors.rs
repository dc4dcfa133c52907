//! Errors have the form of their route.

use serde_json::json;

use crate::client::send;
use crate::running::{JSON, shared};

#[test]
fn bodies_that_are_no_json_or_of_a_wrong_shape() {
    let address = shared().address;
    for (path, headers, body, status, expected) in [
        ("/", &[JSON][..], "{\"inputs\": ", 400, "not JSON"),
        ("/", &[JSON], "{\"inputs\": \"\\ud800\"}", 400, "not JSON"),
        ("/embed", &[JSON], "", 400, "not JSON"),
        ("/embed", &[JSON], "[]", 422, "unexpected body"),
        ("/embed", &[JSON], "{}", 422, "missing field `inputs`"),
        ("/embed", &[JSON], "{\"inputs\": {\"a\": 1}}", 422, "inputs: found an object, expected a text"),
        ("/predict", &[JSON], "{\"inputs\": [[\"a\", \"b\", \"c\"]]}", 422, "inputs[0]: found 3 texts"),
        ("/rerank", &[JSON], "{\"query\": \"a\", \"texts\": 3}", 422, "invalid type: integer `3`, expected a list"),
        ("/", &[JSON], "{\"inputs\": \"a\", \"parameters\": {\"top_k\": 0}}", 422, "top_k: found 0"),
        ("/", &[JSON], "{\"inputs\": \"a\", \"parameters\": {\"top_k\": -1}}", 422, "unexpected body"),
        ("/v1/embeddings", &[JSON], "{\"input\": null}", 400, "input: found null"),
        ("/v1/embeddings", &[JSON], "{}", 400, "missing field `input`"),
        ("/v1/embeddings", &[JSON], "{\"input\": []}", 400, "input: found an empty list"),
        (
            "/v1/embeddings",
            &[JSON],
            "{\"input\": \"a\", \"dimensions\": -1}",
            400,
            "expected a whole number, 0 or more",
        ),
        ("/v1/embeddings", &[JSON], "{\"input\": \"a\", \"encoding_format\": \"hex\"}", 400, "unknown variant `hex`"),
        ("/v1/embeddings", &[JSON], "{\"input\": \"a\", \"encoding_format\": 5}", 400, "unexpected body: invalid type"),
        (
            "/",
            &[JSON],
            "{\"inputs\": \"a\", \"parameters\": {\"function_to_apply\": 5}}",
            422,
            "unexpected body: invalid",
        ),
        ("/", &[JSON], "{\"inputs\": \"a\", \"parameters\": 5}", 422, "expected an object"),
        ("/", &[JSON], "[\"a\", {}, true, false]", 422, "unexpected body: found a list, expected an object"),
        ("/predict", &[JSON], "{\"inputs\": []}", 422, "inputs: found 0 texts, expected one, or the two of a pair"),
        (
            "/predict",
            &[JSON],
            "{\"inputs\": [[]]}",
            422,
            "inputs[0]: found 0 texts, expected one, or the two of a pair",
        ),
        ("/", &[], "{\"inputs\": \"a\"}", 415, "content-type: application/json"),
        ("/", &[("content-type", "application/x-www-form-urlencoded")], "a=b", 415, "application/json"),
        ("/", &[JSON, ("content-encoding", "gzip")], "{\"inputs\": \"a\"}", 415, "content-encoding"),
    ] {
        let answer = send(address, "POST", path, headers, body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        assert!(answer.body.contains(expected), "{path} {body}: {}", answer.body);
        let error = &answer.json()["error"];
        match path {
            "/v1/embeddings" => assert!(error["message"].is_string()),
            "/" => assert!(error.is_string()),
            _ => assert!(error.is_string() && answer.json()["error_type"] == "Validation"),
        }
    }
    for body in [
        "{\"inputs\": \"a\", \"parameters\": null}",
        "{\"inputs\": \"a\", \"parameters\": {\"function_to_apply\": null}}",
    ] {
        assert_eq!(send(address, "POST", "/", &[JSON], body).status, 200, "{body}");
    }
    let nested = format!("{{\"inputs\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(send(address, "POST", "/embed", &[JSON], &nested).status, 400);
}

#[test]
fn routes_methods_and_models_that_are_not_there() {
    let address = shared().address;
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/embed", 405),
        ("DELETE", "/", 405),
        ("POST", "/models/nothing", 404),
        ("POST", "/models/a/b", 404),
        ("GET", "/v2/models/nothing", 404),
        ("POST", "/models/%ff", 400),
        ("GET", "/v2/models/%ff", 400),
    ] {
        let answer = send(address, method, path, &[JSON], "{\"inputs\": \"a\"}");
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.json()["error"].is_string(), "{method} {path}: {}", answer.body);
    }
    let methods = |path| send(address, "DELETE", path, &[], "").headers["allow"].clone();
    assert_eq!((methods("/"), methods("/embed")), ("GET,HEAD,POST".to_owned(), "POST".to_owned()));
    for (method, path, code) in [
        ("GET", "/v1/embeddings", json!(null)),
        ("GET", "/v1/nothing", json!(null)),
        ("GET", "/v1/models/nothing", json!("model_not_found")),
    ] {
        let error = send(address, method, path, &[], "").json()["error"].clone();
        assert_eq!((&error["type"], &error["code"]), (&json!("invalid_request_error"), &code), "{path}: {error}");
    }
    let unknown = shared().post("/embed", &json!({ "inputs": "a", "model": "nothing" }));
    assert!(unknown.status == 404 && unknown.body.contains("reviews"), "it names those there are: {}", unknown.body);
    let other_task = shared().post("/rerank", &json!({ "query": "a", "texts": ["b"], "model": "names" }));
    let expected = "the model `names` does not give a number for a pair: its task is token-classification";
    assert!(other_task.status == 404 && other_task.body.contains(expected), "{}", other_task.body);
}

#[test]
fn health_routes_and_pages() {
    for (path, expected) in [
        ("/health", "{\"ready\":true}"),
        ("/v2/health/live", "{\"live\":true}"),
        ("/v2/health/ready", "{\"ready\":true}"),
        ("/v2/models/names/ready", "{\"ready\":true}"),
    ] {
        let answer = shared().get(path);
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{path}");
    }
    assert_eq!(shared().get("/v2/models/vectors").json()["outputs"][0]["shape"], json!([-1, 32]));
    for (path, kind, scripts) in [
        ("/", "text/html", "script-src 'sha256-"),
        ("/docs/", "text/html", "script-src 'self';"),
        ("/docs/index.html", "text/html", "script-src 'self';"),
        ("/docs/swagger-ui-bundle.js", "text/javascript", "script-src 'self';"),
    ] {
        let page = shared().get(path);
        assert!(page.status == 200 && page.headers["content-type"].starts_with(kind), "{path}");
        let policy = &page.headers["content-security-policy"];
        assert!(policy.contains("default-src 'none'") && policy.contains(scripts), "{policy}");
    }
    assert!(shared().get("/docs/swagger-initializer.js").body.contains("\"/openapi.json\""));
    let moved = shared().get("/docs");
    assert_eq!((moved.status, moved.headers["location"].as_str()), (308, "/docs/"));
    for path in ["/docs/no-such-file", "/docs/../page.rs", "/docs/%2e%2e/page.rs"] {
        assert_eq!(shared().get(path).status, 404, "{path}");
    }
    assert!(shared().get("/openapi.json").json()["paths"]["/v1/embeddings"]["post"].is_object());
}

#[test]
fn the_metrics_count_and_the_log_has_no_text() {
    let secret = "酒店位置好";
    let id = ("x-request-id", "trace-1");
    let body = json!({ "inputs": secret }).to_string();
    let answer = send(shared().address, "POST", "/predict", &[JSON, id], &body);
    assert_eq!(answer.headers["x-request-id"], "trace-1");
    let metrics = shared().get("/metrics");
    assert!(metrics.headers["content-type"].starts_with("application/openmetrics-text"));
    let count = metrics
        .body
        .lines()
        .find_map(|line| line.strip_prefix("kiln_requests_total{route=\"/predict\",status=\"2xx\"} "));
    assert!(count.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count > 0), "{}", metrics.body);
    let events = serde_json::to_string(&*shared().events.lock().expect("no test panics with it")).expect("JSON");
    assert!(events.contains("\"request\":\"trace-1\",\"method\":\"POST\",\"route\":\"/predict\",\"status\":200"));
    assert!(events.contains("\"model\":\"reviews\",\"texts\":1,\"tokens\":7"), "{events}");
    assert!(!events.contains(secret));
}

/// Ignoring these parameters would give other results than their client expects.
#[test]
fn parameters_that_are_not_supported_are_refused() {
    for (path, parameters, expected) in [
        ("/embed", json!({ "truncation_direction": "Left" }), "truncation_direction: only `right` is supported"),
        ("/embed", json!({ "prompt_name": "query" }), "prompt_name: prompts are not supported"),
        ("/predict", json!({ "truncation_direction": "left" }), "truncation_direction: only `right` is supported"),
        ("/tokenize", json!({ "prompt_name": "query" }), "prompt_name: prompts are not supported"),
        (
            "/rerank",
            json!({ "query": "a", "texts": ["a"], "truncation_direction": "left" }),
            "only `right` is supported",
        ),
        (
            "/models/vectors",
            json!({ "truncation_direction": "left" }),
            "truncation_direction: only `right` is supported",
        ),
        ("/models/vectors", json!({ "prompt_name": "query" }), "prompt_name: prompts are not supported"),
        ("/models/vectors", json!({ "parameters": { "prompt_name": "query" } }), "parameters.prompt_name: prompts are"),
        ("/", json!({ "parameters": { "candidate_labels": ["a"] } }), "parameters.candidate_labels: zero-shot"),
        ("/models/masks", json!({ "parameters": { "targets": ["a"] } }), "parameters.targets: a choice of tokens"),
    ] {
        let mut body = parameters;
        body["inputs"] = json!("房[MASK]");
        let answer = shared().post(path, &body);
        assert_eq!(answer.status, 422, "{path} {body}: {}", answer.body);
        assert!(answer.body.contains(expected), "{path} {body}: {}", answer.body);
    }
    for (path, parameters) in [
        ("/embed", json!({ "truncation_direction": "Right", "prompt_name": null })),
        ("/models/vectors", json!({ "truncation_direction": "right", "parameters": { "prompt_name": null } })),
        ("/models/masks", json!({ "parameters": { "targets": null, "candidate_labels": null } })),
    ] {
        let mut body = parameters;
        body["inputs"] = json!("房[MASK]");
        shared().ask(path, &body);
    }
}

#[test]
fn messages_have_only_the_beginning_of_a_text() {
    let long = "房".repeat(10_000);
    for path in ["/models/masks", "/models/answers"] {
        let answer = shared().post(path, &json!({ "inputs": long }));
        assert!(answer.status == 422 && answer.body.chars().count() < 200, "{path}: {}", answer.body);
        assert!(answer.body.contains(&format!("`{}…`", "房".repeat(40))), "{path}: {}", answer.body);
    }
}
