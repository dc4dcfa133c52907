use std::fs;
use std::path::Path;
use std::thread;

use kiln_hub::{Error, Progress, pull};
use kiln_loopback::{COMMIT, Hub, NO_REQUESTS, git_blob, sha256};

use crate::client::{TOKEN, config, pull_from, pull_offline, tree};

const SOURCE: &str = "hf:owner/name";
const FOLDER: &str = "models--owner--name";

#[test]
fn the_cache_has_the_standard_layout_and_only_what_is_needed() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let snapshot = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint");

    let root = cache.path().join(FOLDER);
    assert_eq!(snapshot.folder, root.join("snapshots").join(COMMIT));
    assert_eq!((snapshot.revision.as_deref(), snapshot.verified), (Some(COMMIT), true));
    assert_eq!(snapshot.address, Some(hub.server.address.clone()));
    assert_eq!(fs::read_to_string(root.join("refs/main")).expect("a branch"), COMMIT);

    let names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
    let absent = ["special_tokens_map.json", "modules.json"].map(|name| format!(".no_exist/{COMMIT}/{name}"));
    let mut expected = [&["refs/main".to_owned()][..], &absent].concat();
    for name in names {
        let content = hub.file(name);
        let blob = if content.len() > 1000 { sha256(&content) } else { git_blob(&content) };
        assert_eq!(fs::read(snapshot.folder.join(name)).expect("a file"), content, "{name}");
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(snapshot.folder.join(name)).expect("a link"),
            Path::new("../../blobs").join(&blob),
            "{name}"
        );
        expected.push(format!("snapshots/{COMMIT}/{name}"));
        expected.push(format!("blobs/{blob}"));
    }
    expected.sort();
    assert_eq!(tree(&root), expected);
}

/// Without these files, vectors would be pooled in another way than the model was trained for.
#[test]
fn the_files_of_sentence_transformers_are_pulled_from_both_hubs() {
    let files = [
        ("modules.json", r#"[{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Normalize"}]"#),
        ("sentence_bert_config.json", r#"{"max_seq_length": 256}"#),
        ("config_sentence_transformers.json", "{}"),
        ("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#),
        ("1_Pooling/README.md", "not needed"),
    ];
    let hub = Hub::start();
    hub.change(|state| state.files.extend(files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))));
    for source in [SOURCE, "modelscope:owner/name"] {
        let cache = tempfile::tempdir().expect("a folder");
        let folder = pull_from(&hub, source, cache.path()).expect("a whole checkpoint").folder;
        for (name, text) in &files[..4] {
            assert_eq!(&fs::read_to_string(folder.join(name)).expect(name), text, "{source}: {name}");
        }
        assert!(!folder.join(files[4].0).exists(), "{source}");
        hub.requests();
        assert_eq!(pull_offline(&hub, source, cache.path()).expect("what is cached").folder, folder);
        assert_eq!(hub.requests(), NO_REQUESTS);
    }
}

/// A cache may be read-only. A file in place of a folder refuses writes to all users.
#[test]
fn a_cache_that_cannot_note_what_is_absent_is_read() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let first = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint");
    let root = cache.path().join(FOLDER);
    fs::remove_dir_all(root.join(".no_exist")).expect("a folder");
    fs::write(root.join(".no_exist"), "").expect("it is writable");
    assert_eq!(pull_from(&hub, SOURCE, cache.path()).expect("what is cached"), first);
}

#[test]
fn a_second_pull_asks_for_the_commit_alone_and_an_offline_one_for_nothing() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let first = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint");
    hub.requests();

    let second = pull_from(&hub, SOURCE, cache.path()).expect("what is cached");
    assert_eq!(second, first);
    let asked = vec!["HEAD /owner/name/resolve/main/config.json".to_owned()];
    assert_eq!(hub.requests(), [asked, vec![]]);

    let offline = pull_offline(&hub, SOURCE, cache.path()).expect("what is cached");
    assert_eq!((&offline.folder, offline.address, offline.verified), (&first.folder, None, true));
    // A commit never changes, so no request is needed.
    pull_from(&hub, &format!("{SOURCE}@{COMMIT}"), cache.path()).expect("what is cached");
    assert_eq!(hub.requests(), NO_REQUESTS);
}

#[test]
fn offline_without_a_cache_names_the_file_and_the_command() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let error = pull_offline(&hub, SOURCE, cache.path()).expect_err("an empty cache").to_string();
    assert!(error.contains("config.json") && error.contains("`kiln pull hf:owner/name`"), "{error}");

    let folder = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint").folder;
    hub.requests();
    fs::remove_file(folder.join("model.safetensors")).expect("a file");
    let error = pull_offline(&hub, SOURCE, cache.path()).expect_err("no weights").to_string();
    assert!(error.contains("model.safetensors") && error.contains("`kiln pull hf:owner/name`"), "{error}");
    assert_eq!(hub.requests(), NO_REQUESTS);
}

#[test]
fn one_wrong_bit_is_refused_and_nothing_gets_the_files_name() {
    for name in ["model.safetensors", "config.json"] {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| state.flipped.push(name.to_owned()));
        let error = pull_from(&hub, SOURCE, cache.path()).expect_err("a wrong bit");
        assert!(matches!(&error, Error::Mismatch { file, .. } if file == name), "{error}");
        let left = tree(&cache.path().join(FOLDER));
        let content = hub.file(name);
        let traces = [name, "incomplete", "refs", &sha256(&content), &git_blob(&content)];
        assert!(!left.iter().any(|path| traces.iter().any(|trace| path.contains(trace))), "{left:?}");

        hub.change(|state| state.flipped.clear());
        pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint, once the hub is");
    }
}

#[test]
fn another_length_is_refused() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.shortened.push("model.safetensors".to_owned()));
    let error = pull_from(&hub, SOURCE, cache.path()).expect_err("a byte too few");
    assert!(matches!(&error, Error::Mismatch { found, .. } if found.contains("100002 bytes")), "{error}");

    // The same when a download resumes: the partial file is deleted too.
    hub.change(|state| (state.shortened, state.cuts) = (Vec::new(), vec![70_001, 0, 0, 0, 0]));
    pull_from(&hub, SOURCE, cache.path()).expect_err("four answers in a row without a byte");
    hub.change(|state| state.shortened.push("model.safetensors".to_owned()));
    let error = pull_from(&hub, SOURCE, cache.path()).expect_err("a byte too few");
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    let left = tree(&cache.path().join(FOLDER));
    assert!(!left.iter().any(|path| path.contains("incomplete")), "{left:?}");
}

#[test]
fn pulls_at_the_same_time_share_one_download() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint"));
        }
    });
    assert_eq!(hub.requests()[1], ["GET /model.safetensors?signature=secret"]);
}

#[cfg(unix)]
#[test]
fn a_damaged_blob_is_refused_offline_and_fetched_again_online() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let weights = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint").folder.join("model.safetensors");
    let mut content = hub.file("model.safetensors");
    content[7] ^= 1;
    fs::write(&weights, &content).expect("a file");

    let error = pull_offline(&hub, SOURCE, cache.path()).expect_err("a damaged file");
    assert!(matches!(&error, Error::Damaged { path, .. } if *path == weights), "{error}");
    pull_from(&hub, SOURCE, cache.path()).expect("a new copy");
    assert_eq!(fs::read(&weights).expect("a file"), hub.file("model.safetensors"));
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.cuts = vec![70_001, 20_002]);
    pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint, in three parts");
    let ranges: Vec<_> = hub.content.requests().iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=70001-".to_owned()), Some("bytes=90003-".to_owned())]);
}

#[test]
fn the_next_pull_goes_on_where_a_failed_one_stopped() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.cuts = vec![70_001, 0, 0, 0, 0]);
    let error = pull_from(&hub, SOURCE, cache.path()).expect_err("four answers in a row without a byte");
    assert!(matches!(error, Error::Interrupted { received: 70_001, size: 100_003, .. }), "{error}");
    hub.content.requests();
    pull_from(&hub, SOURCE, cache.path()).expect("the rest");
    let ranges: Vec<_> = hub.content.requests().iter().map(|request| request.headers["range"].clone()).collect();
    assert_eq!(ranges, ["bytes=70001-"]);
}

#[test]
fn a_hub_without_ranges_is_read_from_the_start() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| (state.cuts, state.no_ranges) = (vec![70_001, 20_002], true));
    let folder = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint").folder;
    assert_eq!(fs::read(folder.join("model.safetensors")).expect("a file"), hub.file("model.safetensors"));
}

#[test]
fn the_token_goes_to_the_hub_alone_and_into_no_message() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.flipped.push("model.safetensors".to_owned()));
    let error = pull_from(&hub, SOURCE, cache.path()).expect_err("a wrong bit");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");

    let bearer = format!("Bearer {TOKEN}");
    let to_hub = hub.server.requests();
    assert!(!to_hub.is_empty() && to_hub.iter().all(|request| request.headers["authorization"] == bearer));
    let to_content = hub.content.requests();
    assert_eq!(to_content.len(), 1);
    assert!(!format!("{to_content:?}").contains(TOKEN), "{to_content:?}");
}

#[test]
fn shards_come_with_their_index_unless_their_names_climb() {
    let hub = |shard: &str| {
        let index = format!(r#"{{"weight_map": {{"a": "{shard}", "b": "two.safetensors"}}}}"#).into_bytes();
        let mut files = Hub::start().change(|state| state.files.clone());
        files.remove("model.safetensors");
        files.extend([
            ("model.safetensors.index.json".to_owned(), index),
            (shard.to_owned(), vec![1; 2000]),
            ("two.safetensors".to_owned(), vec![2; 2000]),
        ]);
        Hub::with(files)
    };
    let cache = tempfile::tempdir().expect("a folder");
    let folder = pull_from(&hub("parts/one.safetensors"), SOURCE, cache.path()).expect("a whole checkpoint").folder;
    assert_eq!(fs::read(folder.join("parts/one.safetensors")).expect("a file in a folder"), vec![1; 2000]);
    assert_eq!(fs::read(folder.join("two.safetensors")).expect("a file"), vec![2; 2000]);

    for name in ["../../../evil", "/tmp/evil"] {
        let cache = tempfile::tempdir().expect("a folder");
        let error = pull_from(&hub(name), SOURCE, cache.path()).expect_err("a name that climbs");
        assert!(matches!(error, Error::UnsafeName { .. }), "{error}");
        assert!(!tree(cache.path()).iter().any(|path| path.contains("evil")));
    }
}

#[test]
fn what_is_not_there_is_named() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    for source in ["hf:owner/name@v9", "hf:owner/other"] {
        let error = pull_from(&hub, source, cache.path()).expect_err(source).to_string();
        assert!(error.contains(source) && error.contains(&hub.server.address), "{error}");
    }
    hub.change(|state| state.files.retain(|name, _| !name.contains("model.")));
    hub.change(|state| state.files.retain(|name, _| !name.contains("_model.")));
    let error = pull_from(&hub, SOURCE, cache.path()).expect_err("no weights").to_string();
    assert!(error.contains("pytorch_model.bin"), "{error}");
    assert!(!cache.path().join(FOLDER).join("refs").exists(), "half a snapshot has no name");
}

#[test]
fn a_revision_with_a_slash_is_one_part_of_the_address() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    pull_from(&hub, "hf:owner/name@refs/pr/1", cache.path()).expect("a whole checkpoint");
    let reference = cache.path().join(FOLDER).join("refs/refs/pr/1");
    assert_eq!(fs::read_to_string(reference).expect("a reference"), COMMIT);
}

#[test]
fn progress_is_of_each_file_and_of_all() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let location = SOURCE.parse().expect("a location");
    let (mut said, mut last) = (Vec::new(), (0, 0));
    pull(&location, &config(&hub, cache.path()), &mut |progress| match progress {
        Progress::Planned { files, size } => said.push(format!("{files} files, {size} bytes")),
        Progress::Downloading { received, size, all_received, all_size, .. } => {
            assert!(received <= size && all_received <= all_size && last.0 <= all_received, "{progress:?}");
            last = (all_received, all_size);
        }
        Progress::Verified { file } => said.push(file.to_owned()),
        _ => {}
    })
    .expect("a whole checkpoint");
    let size: usize = [22, 3, 0, 100_003].iter().sum();
    let files = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
    assert_eq!((&said[0], &said[1..]), (&format!("4 files, {size} bytes"), &files.map(str::to_owned)[..]));
    assert_eq!(last, (size as u64, size as u64));
    // Files on disk are not planned.
    pull(&location, &config(&hub, cache.path()), &mut |progress| {
        assert!(matches!(progress, Progress::Asking { .. }), "{progress:?}");
    })
    .expect("what is cached");
}

#[test]
fn small_files_may_be_redirects_within_the_hub() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.redirects_small = true);
    let folder = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint").folder;
    assert_eq!(fs::read(folder.join("config.json")).expect("a file"), hub.file("config.json"));
    let target = format!("/api/resolve-cache/models/owner/name/{COMMIT}/config.json");
    assert!(hub.requests()[0].contains(&format!("GET {target}")), "followed");
}

#[test]
fn a_moved_branch_brings_what_changed_and_keeps_the_old_commit() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let old = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint");
    assert_eq!(old.pinned.expect("a hub's").to_string(), format!("{SOURCE}@{COMMIT}"));
    hub.requests();
    let next = COMMIT.replace('8', "9");
    hub.change(|state| {
        state.commit = next.clone();
        state.files.insert("config.json".to_owned(), b"{}".to_vec());
    });
    let new = pull_from(&hub, SOURCE, cache.path()).expect("the new configuration");
    assert_eq!((new.revision, fs::read(new.folder.join("config.json")).expect("a file")), (Some(next), b"{}".to_vec()));
    let [to_hub, to_content] = hub.requests();
    assert_eq!(to_hub.iter().filter(|request| request.starts_with("GET")).count(), 1, "{to_hub:?}");
    assert_eq!(to_content.len(), 0, "the weights have not changed");
    let pinned = pull_offline(&hub, &format!("{SOURCE}@{COMMIT}"), cache.path()).expect("what is cached");
    assert_eq!(pinned.folder, old.folder);
}
