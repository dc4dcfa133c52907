use std::fs;
use std::net::TcpListener;
use std::path::Path;

use kiln_hub::{Error, Hub as Name, Location, Progress, PullConfig, pull};
use kiln_loopback::{Fault, Host, Hub};

use crate::client::{config, pull_with};

const BOTH: [Name; 2] = [Name::HuggingFace, Name::ModelScope];

/// An address where nothing listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("its address"))
}

/// Two different hubs for Hugging Face and ModelScope.
fn two(hugging_face: &str, model_scope: &Hub, root: &Path) -> PullConfig {
    let mut config = PullConfig { fallback: BOTH.to_vec(), ..config(model_scope, root) };
    config.hugging_face.endpoint = Some(hugging_face.to_owned());
    config
}

#[test]
fn the_next_hub_stands_in_for_one_that_cannot_be_reached() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let config = two(&nowhere(), &hub, cache.path());
    let location: Location = "hf:owner/name".parse().expect("a location");
    let mut said = Vec::new();
    let snapshot = pull(&location, &config, &mut |progress| match progress {
        Progress::Asking { address } => said.push(address.to_owned()),
        Progress::Unreachable { error, next } => said.push(format!("{error}; {next}")),
        _ => {}
    })
    .expect("ModelScope's");
    assert_eq!(snapshot.folder, cache.path().join("models/owner--name/snapshots/master"));
    assert!(snapshot.pinned.expect("a hub's").to_string().starts_with("modelscope:owner/name@"));
    assert_eq!(snapshot.address, Some(hub.server.address.clone()));
    assert_eq!((said.len(), &said[2]), (3, &hub.server.address));
    assert!(said[1].contains("cannot be reached") && said[1].ends_with("; modelscope"), "{said:?}");

    // The hubs' default branches have different names.
    assert_eq!(pull_with(&config, "hf:owner/name@main").expect("ModelScope's").folder, snapshot.folder);
    let error = pull_with(&config, "hf:owner/name@v1").expect_err("ModelScope has none of that name");
    assert!(matches!(error, Error::NotFound { .. }), "{error}");

    // Offline it is found too, but only in the cache of the hub that it came from.
    let offline = PullConfig { offline: true, ..config };
    assert_eq!(pull_with(&offline, "hf:owner/name").expect("ModelScope's").folder, snapshot.folder);
    let error = pull_with(&PullConfig { fallback: Vec::new(), ..offline }, "hf:owner/name").expect_err("not there");
    assert!(matches!(error, Error::NotInCache { .. }), "{error}");
}

#[test]
fn without_leave_or_where_the_answer_is_no_none_stands_in() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let mut config = two(&nowhere(), &hub, cache.path());
    config.fallback.clear();
    let error = pull_with(&config, "hf:owner/name").expect_err("no answer");
    assert!(matches!(error, Error::Request { .. }), "{error}");
    // There is no fallback when the hub can be reached but has no such model.
    let config = PullConfig { fallback: BOTH.to_vec(), ..crate::client::config(&hub, cache.path()) };
    let error = pull_with(&config, "hf:owner/other").expect_err("no such model");
    assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains("hf:owner/other"), "{error}");
}

#[test]
fn each_hub_is_tried_once_and_named_in_the_end() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.faults = vec![Fault { host: Host::Hub, status: 503, retry_after: None }; 4]);
    let first = nowhere();
    let error = pull_with(&two(&first, &hub, cache.path()), "hf:owner/name").expect_err("no answer").to_string();
    assert!(error.contains(&first) && error.contains(&hub.server.address) && error.contains("503"), "{error}");
    assert_eq!(hub.requests()[0].len(), 4);
}

#[test]
fn what_stands_in_must_be_the_same() {
    // The hashes of the weights can be compared before the download, because both hubs declare SHA-256. Those of a
    // small file can only be compared after it.
    for (changed, is_downloaded) in [("model.safetensors", false), ("config.json", true)] {
        let (first, second) = (Hub::start(), Hub::start());
        let cache = tempfile::tempdir().expect("a folder");
        let broken = vec![Fault { host: Host::Content, status: 500, retry_after: None }; 4];
        first.change(|state| state.faults = broken.clone());
        second.change(|state| state.files.get_mut(changed).expect("a file").push(b' '));
        let config = two(&first.server.address, &second, cache.path());
        let error = pull_with(&config, "hf:owner/name").expect_err("two files of one name");
        assert!(matches!(&error, Error::Contradiction { file, .. } if file == changed), "{error}");
        assert_eq!(!second.requests()[0].iter().all(|request| request.contains("/repo/files")), is_downloaded);

        // When both hubs agree, the second one is used.
        second.change(|state| state.files = first.change(|state| state.files.clone()));
        first.change(|state| state.faults = broken);
        let folder = pull_with(&config, "hf:owner/name").expect("the second's").folder;
        assert!(folder.starts_with(cache.path().join("models")));
        assert_eq!(fs::read(folder.join(changed)).expect("a file"), second.file(changed));
    }
}
