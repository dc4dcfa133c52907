//! Start, reload, overload and shutdown.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_serve::{Error, Event, ServeConfig, Server};
use serde_json::json;

use crate::client::{connect, request, send};
use crate::running::{JSON, MODELS, Running, config, load};

/// Waits until a condition holds that another thread makes true.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn metric(server: &Running, line: &str) -> f64 {
    let metrics = server.get("/metrics").body;
    let value = metrics.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{line} is not in {metrics}"))
}

#[test]
fn a_server_does_not_start_with_what_is_wrong() {
    let all = || Box::new(|| load(&MODELS.1));
    let fails = |config: ServeConfig| Server::bind(config, all()).expect_err("it cannot start").to_string();
    let open = ServeConfig { address: ([0, 0, 0, 0], 0).into(), ..config() };
    assert!(fails(open.clone()).contains("can be reached from other machines"));
    assert!(Server::bind(ServeConfig { without_keys: true, ..open }, all()).is_ok());
    assert!(fails(ServeConfig { key_file: Some("/no/such/file".into()), ..config() }).contains("/no/such/file"));
    let taken = Server::bind(config(), all()).expect("a port is free");
    assert!(fails(ServeConfig { address: taken.address(), ..config() }).contains("cannot listen"));
    let twice = Server::bind(config(), Box::new(|| load(&[&MODELS.1[..1], &MODELS.1[..1]].concat())));
    assert!(matches!(twice, Err(Error::SameName { .. })));
    assert!(matches!(Server::bind(config(), Box::new(|| Ok(vec![]))), Err(Error::NoModel)));
    let damaged = tempfile::tempdir().expect("a temporary folder");
    let folder = [("x".to_owned(), damaged.path().to_owned())];
    assert!(matches!(Server::bind(config(), Box::new(move || load(&folder))), Err(Error::Model { .. })));
}

#[test]
fn a_reload_swaps_the_models_or_leaves_them() {
    static LOADS: AtomicUsize = AtomicUsize::new(0);
    let server = Running::with(
        |_| {},
        || match LOADS.fetch_add(1, Ordering::SeqCst) {
            0 => load(&MODELS.1[..1]),
            1 => Err(Error::NoModel),
            _ => load(&MODELS.1[1..2]),
        },
    );
    let body = json!({ "inputs": "房间" });
    let answer = server.ask("/", &body);
    server.handle.reload();
    eventually("a reload fails", || metric(&server, "kiln_reloads_total{outcome=\"failed\"}") == 1.0);
    assert_eq!(server.ask("/", &body), answer, "the models stay");
    server.handle.reload();
    eventually("a reload is done", || metric(&server, "kiln_reloads_total{outcome=\"done\"}") == 1.0);
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], MODELS.1[1].0);
    let events = server.events.lock().expect("no test panics with it").clone();
    assert!(events.iter().any(|event| matches!(event, Event::ReloadFailed { reason } if reason.contains("no model"))));
    assert!(
        events.iter().any(|event| matches!(event, Event::Reloaded { models } if *models == [MODELS.1[1].0.clone()]))
    );
}

#[test]
fn accepted_requests_are_answered_before_the_end() {
    let server = Running::new(|config| config.limits.batch_tokens = 1);
    let texts: Vec<String> = (0..200).map(|at| "房间很干净".repeat(1 + at % 10)).collect();
    let (address, handle) = (server.address, server.handle.clone());
    let answered = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (texts, answered) = (&texts, answered.clone());
            scope.spawn(move || {
                let answer = send(address, "POST", "/models/reviews", &[JSON], &json!({ "inputs": texts }).to_string());
                answered.lock().expect("no thread panics with it").push((answer.status, answer.json()));
            });
        }
        eventually("the requests are in the queue", || metric(&server, "kiln_batches_total") > 0.0);
        handle.shut_down();
    });
    let answered = answered.lock().expect("no thread panics with it");
    assert_eq!(answered.len(), 4);
    for (status, answer) in answered.iter() {
        assert_eq!((*status, answer.as_array().map(Vec::len)), (200, Some(200)));
        assert_eq!(answer, &answered[0].1);
    }
    server.join();
    assert!(std::net::TcpStream::connect(address).is_err(), "it does not listen any more");
}

#[test]
fn a_full_queue_refuses_and_health_does_not_wait() {
    let server = Running::new(|config| config.limits.queue_tokens = 600);
    let texts = vec!["房间很干净".repeat(11); 10];
    let statuses: Vec<(u16, Option<String>)> = std::thread::scope(|scope| {
        let ask = || {
            let answer = send(
                server.address,
                "POST",
                "/predict",
                &[JSON],
                &json!({ "inputs": texts.iter().map(|text| [text]).collect::<Vec<_>>() }).to_string(),
            );
            (answer.status, answer.headers.get("retry-after").cloned())
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        for _ in 0..20 {
            assert_eq!(server.get("/health").status, 200);
        }
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    assert!(statuses.iter().any(|(status, _)| *status == 200), "{statuses:?}");
    for (status, retry_after) in statuses {
        let seconds = retry_after.and_then(|seconds| seconds.parse::<u64>().ok());
        assert!(status == 200 || status == 429 && seconds.is_some_and(|seconds| seconds >= 1), "{status} {seconds:?}");
    }
    let large = server.post("/embed", &json!({ "inputs": vec!["房间很干净".repeat(11); 20] }));
    assert!(large.status == 413 && large.body.contains("several requests"), "{}", large.body);
    eventually("the queue is empty", || metric(&server, "kiln_queued_tokens") == 0.0);
}

#[test]
fn a_deadline_ends_a_request_and_takes_it_out() {
    let server = Running::new(|config| {
        config.limits.deadline = Duration::ZERO;
        config.limits.batch_tokens = 1;
    });
    let texts: Vec<[&str; 1]> = vec![["房间很干净"]; 2_000];
    let answer = server.post("/predict", &json!({ "inputs": texts }));
    assert!(answer.status == 504 && answer.json()["error_type"] == "Backend", "{}", answer.body);
    eventually("nothing waits", || metric(&server, "kiln_queued_tokens") == 0.0);
    assert_eq!(metric(&server, "kiln_refusals_total{reason=\"deadline\"}"), 1.0);
}

#[test]
fn a_client_that_leaves_is_taken_out_of_the_queue() {
    // One batch per text, so that there is time to disconnect.
    let server = Running::new(|config| config.limits.batch_tokens = 1);
    let texts = vec!["房间很干净".repeat(11); 2_000];
    let ask = request("POST", "/embed", &[JSON], &json!({ "inputs": texts }).to_string());
    for _ in 0..2 {
        let mut stream = connect(server.address);
        stream.write_all(ask.as_bytes()).expect("the server reads");
        eventually("it is in the queue", || metric(&server, "kiln_queued_tokens") > 1_000.0);
        drop(stream);
        eventually("it is taken out", || metric(&server, "kiln_queued_tokens") == 0.0);
    }
    assert_eq!(metric(&server, "kiln_vanished_total"), 2.0);
    assert!(metric(&server, "kiln_texts_total") < 4_000.0, "most of it was never computed");
}
