//! Requests beyond the limits are refused, and slow or disconnected clients use no resources.

use std::io::{BufReader, Write};
use std::time::Duration;

use serde_json::json;

use crate::client::{connect, read, request, send};
use crate::running::{JSON, Running, shared};

fn short() -> Running {
    Running::new(|config| {
        config.limits.body_bytes = 2_000;
        config.limits.texts = 3;
        config.limits.text_tokens = 100;
        config.limits.header_time = Duration::from_millis(300);
        config.limits.body_time = Duration::from_millis(300);
        config.limits.connections = 4;
    })
}

#[test]
fn bodies_texts_and_tokens() {
    let server = short();
    let long_body = server.post("/embed", &json!({ "inputs": "房".repeat(1_000) }));
    assert!(long_body.status == 413 && long_body.body.contains("2000 bytes"), "{}", long_body.body);
    let texts = server.post("/embed", &json!({ "inputs": ["a", "a", "a", "a"] }));
    assert!(texts.status == 422 && texts.body.contains("found 4 texts, expected at most 3"), "{}", texts.body);

    let long = json!({ "inputs": "房".repeat(63) });
    let refused = server.post("/embed", &long);
    assert!(refused.status == 422 && refused.body.contains("takes 64"), "{}", refused.body);
    assert_eq!(server.post("/", &long).status, 422);
    let mut cut = long;
    cut["truncate"] = json!(true);
    assert_eq!(server.ask("/embed", &cut), server.ask("/embed", &json!({ "inputs": "房".repeat(62) })));
    assert_eq!(server.post("/predict", &cut).status, 200);
    let parameters = json!({ "inputs": "房".repeat(63), "parameters": { "truncate": true } });
    assert_eq!(server.post("/", &parameters).status, 200);

    // The windows have 64 tokens, and they overlap. More than 100 tokens are too many for this server.
    assert_eq!(server.post("/models/names", &json!({ "inputs": "房".repeat(98) })).status, 200);
    let windows = server.post("/models/names", &json!({ "inputs": "房".repeat(200) }));
    let expected = "the text has 202 tokens, and this server takes 100 (--max-text-tokens)";
    assert!(windows.status == 422 && windows.body.contains(expected), "{}", windows.body);
}

#[test]
fn texts_are_cut_off_where_the_server_is_told_to() {
    let server = Running::new(|config| config.truncate = true);
    let long = json!({ "inputs": "房".repeat(63) });
    assert_eq!(server.post("/", &long).status, 200);
    let refused = json!({ "inputs": "房".repeat(63), "truncate": false });
    assert_eq!(server.post("/predict", &refused).status, 422);
}

#[test]
fn slow_heads_and_bodies_are_ended() {
    let server = short();
    let mut slow = connect(server.address);
    slow.write_all(b"GET /health HTTP/1.1\r\nhost").expect("the server reads");
    assert_eq!(read(&mut BufReader::new(slow)).map_or(408, |answer| answer.status), 408, "its head has no end");

    let mut slow = connect(server.address);
    slow.write_all(b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 30\r\n\r\n{")
        .expect("the server reads");
    let answer = read(&mut BufReader::new(slow)).expect("the server answers");
    assert!(answer.status == 408 && answer.body.contains("did not arrive"), "{}", answer.body);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn too_many_connections_are_turned_away() {
    let server = short();
    let idle: Vec<_> = (0..4).map(|_| connect(server.address)).collect();
    // Connections count once they are accepted.
    std::thread::sleep(Duration::from_millis(100));
    let refused = server.get("/health");
    assert!(refused.status == 503 && refused.body.contains("too many connections"), "{}", refused.body);
    drop(idle);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn one_connection_takes_many_requests_and_a_vanished_one_nothing() {
    let mut stream = connect(shared().address);
    let ask = request("POST", "/predict", &[JSON], "{\"inputs\": \"房\"}");
    stream.write_all(ask.repeat(3).as_bytes()).expect("the server reads");
    let mut answers = BufReader::new(stream);
    let first = read(&mut answers).expect("an answer").json();
    for _ in 0..2 {
        assert_eq!(read(&mut answers).expect("an answer").json(), first);
    }
    for part in [ask.len() / 2, ask.len() - 3, ask.len()] {
        let mut stream = connect(shared().address);
        stream.write_all(&ask.as_bytes()[..part]).expect("the server reads");
        drop(stream);
    }
    assert_eq!(shared().get("/health").status, 200);
}

#[test]
fn keys_are_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("keys");
    std::fs::write(&path, "lab:0123456789abcdef\n").expect("it is writable");
    let server = Running::new(|config| config.key_file = Some(path));
    let body = json!({ "inputs": "房" }).to_string();
    let ask = |path: &str, headers: &[(&str, &str)]| send(server.address, "POST", path, headers, &body);
    let key = ("authorization", "Bearer 0123456789abcdef");
    assert_eq!(ask("/", &[JSON, key]).status, 200);
    for wrong in ["Bearer 0123456789abcdeg", "0123456789abcdef", "Bearer hf_token"] {
        let refused = ask("/v1/embeddings", &[JSON, ("authorization", wrong)]);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")), "{wrong}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
    }
    for (path, status) in
        [("/", 200), ("/docs/", 200), ("/health", 200), ("/v2/health/live", 200), ("/info", 401), ("/metrics", 401)]
    {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    let events = serde_json::to_string(&*server.events.lock().expect("no test panics with it")).expect("JSON");
    assert!(events.contains("\"key\":\"lab\"") && !events.contains("hf_token") && !events.contains("0123456789abcdef"));
}

#[test]
fn other_origins_are_allowed_only_by_name() {
    let preflight = [("origin", "https://page.test"), ("access-control-request-method", "POST")];
    let closed = send(shared().address, "OPTIONS", "/embed", &preflight, "");
    assert_eq!((closed.status, closed.headers.get("access-control-allow-origin")), (405, None));
    let server = Running::new(|config| config.cors_origin = Some("https://page.test".to_owned()));
    let asked = [&preflight[..], &[("access-control-request-headers", "content-type,x-stainless-os")]].concat();
    let open = send(server.address, "OPTIONS", "/embed", &asked, "");
    assert_eq!(open.headers["access-control-allow-headers"], "content-type,x-stainless-os");
    assert_eq!((open.status, open.headers["access-control-allow-origin"].as_str()), (204, "https://page.test"));
    let other = send(server.address, "GET", "/health", &[("origin", "https://other.test")], "");
    assert_eq!(other.headers.get("access-control-allow-origin"), None);
}
