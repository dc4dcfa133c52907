use std::fs;
use std::time::Duration;

use kiln_hub::{Error, Patience};
use kiln_loopback::{Fault, Host, Hub};

use crate::client::{config, pull_from, pull_with, tree};

const SOURCES: [&str; 2] = ["hf:owner/name", "modelscope:owner/name"];

fn faults(host: Host, status: u16, retry_after: Option<&str>, times: usize) -> Vec<Fault> {
    vec![Fault { host, status, retry_after: retry_after.map(str::to_owned) }; times]
}

#[test]
fn connections_cut_at_random_bytes_are_mended_and_no_byte_comes_twice() {
    // A generator with Knuth's multiplier, so that the cuts are the same in each run.
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) % below) as usize
    };
    for round in 0..20 {
        for source in SOURCES {
            let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
            // At least one byte per response, so that there are never four in a row without data.
            hub.change(|state| state.cuts = (0..12).map(|_| 1 + random(20_000)).collect());
            let folder = pull_from(&hub, source, cache.path()).expect("a whole checkpoint").folder;
            let weights = fs::read(folder.join("model.safetensors")).expect("a file");
            assert!(weights == hub.file("model.safetensors"), "round {round} of {source}");
            assert_eq!(hub.content.bytes_sent(), weights.len() as u64, "round {round} of {source}");
        }
    }
}

#[test]
fn a_busy_or_broken_host_is_asked_again() {
    for source in SOURCES {
        for host in [Host::Hub, Host::Content] {
            for (status, retry_after) in [(429, Some("0")), (429, None), (500, None), (503, Some("1"))] {
                let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
                hub.change(|state| state.faults = faults(host, status, retry_after, 1));
                pull_from(&hub, source, cache.path()).expect("a whole checkpoint, at the second try");
            }
        }
    }
}

#[test]
fn a_host_that_stays_broken_is_given_up_and_what_came_is_kept() {
    for source in SOURCES {
        for status in [429, 500, 503] {
            let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
            hub.change(|state| state.cuts = vec![30_000]);
            // The first response is cut, then there are as many faults as attempts.
            let config = config(&hub, cache.path());
            let faults = faults(Host::Content, status, None, config.patience.attempts as usize);
            let location = source.parse().expect("a location");
            let error = kiln_hub::pull(&location, &config, &mut |progress| {
                if matches!(
                    progress,
                    kiln_hub::Progress::Downloading { file: "model.safetensors", received: 30_000, .. }
                ) {
                    hub.change(|state| state.faults = faults.clone());
                }
            })
            .expect_err("nothing but faults");
            assert!(matches!(&error, Error::Unavailable { status: told, .. } if *told == status), "{error}");
            hub.content.requests();
            pull_from(&hub, source, cache.path()).expect("the rest");
            let requests = hub.content.requests();
            assert_eq!((requests.len(), &*requests[0].headers["range"]), (1, "bytes=30000-"));
        }
    }
}

#[test]
fn a_hub_that_asks_for_a_long_pause_is_given_up_at_once() {
    for host in [Host::Hub, Host::Content] {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| state.faults = faults(host, 429, Some("3600"), 1));
        let error = pull_from(&hub, SOURCES[0], cache.path()).expect_err("an hour's pause");
        assert!(
            matches!(error, Error::Unavailable { status: 429, .. }) && error.to_string().contains("3600 s"),
            "{error}"
        );
        assert!(hub.change(|state| state.faults.is_empty()), "asked once");
    }
}

#[test]
fn a_refusal_is_told_at_once_and_without_the_token() {
    for source in SOURCES {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| state.faults = faults(Host::Hub, 403, None, 1));
        let error = pull_from(&hub, source, cache.path()).expect_err("a refusal");
        assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains("token"), "{error}");
        assert_eq!(hub.requests()[0].len(), 1, "{source}");

        hub.change(|state| state.faults = faults(Host::Content, 403, None, 1));
        let error = pull_from(&hub, source, cache.path()).expect_err("a refusal");
        assert!(matches!(&error, Error::Answer { found, .. } if found.contains("403")), "{error}");
        assert!(!tree(cache.path()).iter().any(|path| path.ends_with("model.safetensors")));
    }
}

#[test]
fn a_peer_that_falls_silent_is_left_and_the_download_goes_on() {
    for source in SOURCES {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| state.stalls = vec![40_000]);
        let mut config = config(&hub, cache.path());
        config.patience = Patience { silence: Duration::from_secs(1), ..config.patience };
        let folder = pull_with(&config, source).expect("a whole checkpoint").folder;
        assert!(fs::read(folder.join("model.safetensors")).expect("a file") == hub.file("model.safetensors"));
        let last = hub.content.requests().pop().expect("a request");
        assert_eq!(last.headers["range"], "bytes=40000-");
    }
}

#[test]
fn what_another_program_began_wrongly_is_begun_anew() {
    for source in SOURCES {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| state.cuts = vec![70_001, 0, 0, 0, 0]);
        pull_from(&hub, source, cache.path()).expect_err("four answers in a row without a byte");
        let part = tree(cache.path()).into_iter().find(|path| path.ends_with(".incomplete")).expect("a part");
        // As after a power failure: the length is right, but the bytes are not.
        fs::write(cache.path().join(&part), [0; 70_001]).expect("a file");
        let folder = pull_from(&hub, source, cache.path()).expect("a whole checkpoint").folder;
        assert!(fs::read(folder.join("model.safetensors")).expect("a file") == hub.file("model.safetensors"));
        assert!(!cache.path().join(part).exists());
    }
}

#[test]
fn a_page_instead_of_the_file_does_not_cost_what_is_there() {
    for source in SOURCES {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| state.cuts = vec![70_001, 0, 0, 0, 0]);
        pull_from(&hub, source, cache.path()).expect_err("four answers in a row without a byte");
        // As in a network that requires a login.
        hub.change(|state| state.faults = faults(Host::Content, 200, None, 1));
        let error = pull_from(&hub, source, cache.path()).expect_err("an empty page");
        assert!(matches!(&error, Error::Mismatch { found, .. } if found.starts_with("0 bytes")), "{error}");
        hub.content.requests();
        pull_from(&hub, source, cache.path()).expect("the rest");
        assert_eq!(hub.content.requests()[0].headers["range"], "bytes=70001-");
    }
}
