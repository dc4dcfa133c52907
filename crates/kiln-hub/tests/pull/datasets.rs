use std::fs;
use std::path::Path;

use kiln_hub::{DatasetFile, Error, PullConfig, PulledFile, pull_file};
use kiln_loopback::{COMMIT, Hub, NO_REQUESTS, sha256};

use crate::client::{config, tree};

const FILE: &str = "data/train 1.tsv";

fn pull(config: &PullConfig, source: &str) -> Result<PulledFile, Error> {
    let file: DatasetFile = source.parse().expect("a data set's file");
    pull_file(&file, config, &mut |_| ())
}

fn offline(hub: &Hub, root: &Path) -> PullConfig {
    PullConfig { offline: true, ..config(hub, root) }
}

#[test]
fn hugging_faces_land_in_the_standard_layout() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let source = format!("hf-dataset:owner/name/{FILE}");
    let pulled = pull(&config(&hub, cache.path()), &source).expect("a whole file");
    let root = cache.path().join("datasets--owner--name");
    assert_eq!(pulled.path, root.join("snapshots").join(COMMIT).join(FILE));
    assert_eq!(pulled.pinned.to_string(), format!("hf-dataset:owner/name@{COMMIT}/{FILE}"));
    assert_eq!((pulled.verified, pulled.revision.as_deref()), (true, Some(COMMIT)));
    assert_eq!(fs::read(&pulled.path).expect("a file"), hub.file(FILE));
    let blob = format!("blobs/{}", sha256(&hub.file(FILE)));
    assert_eq!(tree(&root), [blob, "refs/main".to_owned(), format!("snapshots/{COMMIT}/{FILE}")]);
    let [to_hub, to_content] = hub.requests();
    assert_eq!(to_hub[0], "HEAD /datasets/owner/name/resolve/main/data/train%201.tsv");
    assert_eq!(to_content, ["GET /data/train%201.tsv?signature=secret"]);

    // A pinned source makes no request, nor does a branch when offline.
    let pinned = pull(&config(&hub, cache.path()), &pulled.pinned.to_string()).expect("what is cached");
    assert_eq!((&pinned.path, &pinned.pinned), (&pulled.path, &pulled.pinned));
    let again = pull(&offline(&hub, cache.path()), &source).expect("what is cached");
    assert_eq!((&again.path, again.verified, &again.pinned), (&pulled.path, true, &pulled.pinned));
    assert_eq!(hub.requests(), NO_REQUESTS);
}

#[test]
fn hugging_faces_own_references_are_revisions() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let source = format!("hf-dataset:owner/name@refs/convert/parquet/{FILE}");
    let pulled = pull(&config(&hub, cache.path()), &source).expect("a whole file");
    assert_eq!(fs::read(&pulled.path).expect("a file"), hub.file(FILE));
    let asked = "HEAD /datasets/owner/name/resolve/refs%2Fconvert%2Fparquet/data/train%201.tsv";
    assert_eq!(hub.requests()[0][0], asked);
}

#[test]
fn model_scopes_are_found_page_by_page() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.files.extend((0..450).map(|at| (format!("data/a{at:03}.tsv"), vec![b'x'; 3]))));
    let source = format!("modelscope-dataset:owner/name/{FILE}");
    let pulled = pull(&config(&hub, cache.path()), &source).expect("a whole file");
    assert_eq!(pulled.path, cache.path().join("datasets/owner--name/snapshots/master").join(FILE));
    assert_eq!(fs::read(&pulled.path).expect("a file"), hub.file(FILE));
    assert_eq!(pulled.pinned.to_string(), format!("modelscope-dataset:owner/name@{COMMIT}/{FILE}"));
    let [to_hub, _] = hub.requests();
    let list = "GET /api/v1/datasets/owner/name/repo/tree?Revision=master&Recursive=True";
    let pages: Vec<String> = (1..=3).map(|page| format!("{list}&PageNumber={page}&PageSize=200&Root=data")).collect();
    assert_eq!(to_hub[..3], pages);
    assert_eq!(to_hub[3], "GET /api/v1/datasets/owner/name/repo?Revision=master&FilePath=data%2Ftrain%201.tsv");

    let again = pull(&offline(&hub, cache.path()), &source).expect("what is cached");
    assert_eq!((&again.path, again.verified, &again.pinned), (&pulled.path, true, &pulled.pinned));
    assert_eq!(hub.requests(), NO_REQUESTS);
    // What was downloaded for a branch is not downloaded again for its commit.
    let pinned = pull(&config(&hub, cache.path()), &pulled.pinned.to_string()).expect("what is there already");
    assert_eq!(fs::read(&pinned.path).expect("a file"), hub.file(FILE));
    assert_eq!(hub.requests()[1].len(), 0);
}

#[test]
fn one_wrong_bit_is_refused() {
    for hub_name in ["hf", "modelscope"] {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| state.flipped.push(FILE.to_owned()));
        let source = format!("{hub_name}-dataset:owner/name/{FILE}");
        let error = pull(&config(&hub, cache.path()), &source).expect_err("a wrong bit");
        assert!(matches!(&error, Error::Mismatch { file, .. } if file == FILE), "{error}");
        assert!(!tree(cache.path()).iter().any(|path| path.ends_with("tsv") || path.ends_with("incomplete")));
    }
}

#[test]
fn what_is_missing_is_named_with_the_command_that_fetches_it() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    for hub_name in ["hf", "modelscope"] {
        let source = format!("{hub_name}-dataset:owner/name@refs/pr/1/{FILE}");
        let error = pull(&offline(&hub, cache.path()), &source).expect_err("an empty cache").to_string();
        assert!(error.contains(FILE) && error.contains(&format!("`kiln pull '{source}'`")), "{error}");
        let command = Some("kiln pull --cache-dir /x".to_owned());
        let with_folder = PullConfig { command, ..offline(&hub, cache.path()) };
        let source = format!("{hub_name}-dataset:owner/name/no.tsv");
        let error = pull(&with_folder, &source).expect_err("an empty cache").to_string();
        assert!(error.contains(&format!("`kiln pull --cache-dir /x {source}`")), "{error}");
        let source = format!("{hub_name}-dataset:owner/name/no.tsv");
        let error = pull(&config(&hub, cache.path()), &source).expect_err("no such file");
        assert!(matches!(&error, Error::MissingFile { file, .. } if file == "no.tsv"), "{error}");
        let source = format!("{hub_name}-dataset:owner/other/no.tsv");
        let error = pull(&config(&hub, cache.path()), &source).expect_err("no such data set");
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}
