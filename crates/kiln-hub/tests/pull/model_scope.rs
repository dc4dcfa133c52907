use std::fs;

use kiln_hub::Error;
use kiln_loopback::{COMMIT, Hub, NO_REQUESTS};

use crate::client::{TOKEN, pull_from, pull_offline};

const SOURCE: &str = "modelscope:owner/name";

#[test]
fn files_land_verified_and_are_not_fetched_twice() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let first = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint");
    assert_eq!(first.folder, cache.path().join("models/owner--name/snapshots/master"));
    assert_eq!((first.revision.as_deref(), first.verified), (Some(COMMIT), true));

    let entries = fs::read_dir(&first.folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().expect("ASCII")).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    for name in names {
        assert_eq!(fs::read(first.folder.join(&name)).expect("a file"), hub.file(&name), "{name}");
    }

    hub.requests();
    assert_eq!(pull_from(&hub, SOURCE, cache.path()).expect("what is cached"), first);
    let asked = vec!["GET /api/v1/models/owner/name/repo/files?Revision=master&Recursive=False".to_owned()];
    assert_eq!(hub.requests(), [asked, vec![]]);

    let offline = pull_offline(&hub, SOURCE, cache.path()).expect("what is cached");
    assert_eq!((offline.folder, offline.revision, offline.verified), (first.folder, first.revision, true));
    assert_eq!(hub.requests(), NO_REQUESTS);
}

#[test]
fn a_listing_that_breaks_off_is_requested_again() {
    for (cuts, is_whole) in [(3, true), (4, false)] {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| state.cut_listings = cuts);
        assert_eq!(pull_from(&hub, SOURCE, cache.path()).is_ok(), is_whole, "{cuts} of 4");
    }
}

#[test]
fn a_moved_branch_brings_what_changed() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint");
    hub.requests();
    hub.change(|state| state.files.insert("config.json".to_owned(), b"{}".to_vec()).map_or((), drop));
    let folder = pull_from(&hub, SOURCE, cache.path()).expect("the new configuration").folder;
    assert_eq!(fs::read(folder.join("config.json")).expect("a file"), b"{}");
    let [to_hub, to_content] = hub.requests();
    assert_eq!((to_hub.len(), to_content.len()), (2, 0));
}

#[test]
fn offline_names_what_is_missing_or_damaged() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let error = pull_offline(&hub, SOURCE, cache.path()).expect_err("an empty cache").to_string();
    assert!(error.contains("config.json") && error.contains("`kiln pull modelscope:owner/name`"), "{error}");

    let folder = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint").folder;
    fs::write(folder.join("model.safetensors"), b"half").expect("a file");
    let error = pull_offline(&hub, SOURCE, cache.path()).expect_err("a damaged file");
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn one_wrong_bit_is_refused_and_a_cut_is_mended() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    hub.change(|state| state.flipped.push("model.safetensors".to_owned()));
    let error = pull_from(&hub, SOURCE, cache.path()).expect_err("a wrong bit");
    assert!(matches!(&error, Error::Mismatch { file, .. } if file == "model.safetensors"), "{error}");
    let folder = cache.path().join("models/owner--name/snapshots/master");
    assert!(!folder.join("model.safetensors").exists() && !folder.join("model.safetensors.incomplete").exists());

    hub.change(|state| (state.flipped, state.cuts) = (Vec::new(), vec![70_001]));
    hub.content.requests();
    pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint, in two parts");
    assert_eq!(hub.content.requests()[1].headers["range"], "bytes=70001-");
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint");
    for request in hub.server.requests() {
        assert_eq!(request.headers["cookie"], format!("m_session_id={TOKEN}"));
        assert_eq!(request.headers["authorization"], format!("Bearer {TOKEN}"));
    }
    let to_content = hub.content.requests();
    assert_eq!(to_content.len(), 1);
    assert!(!format!("{to_content:?}").contains(TOKEN), "{to_content:?}");
}

#[test]
fn what_is_not_there_is_named() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let error = pull_from(&hub, "modelscope:owner/other", cache.path()).expect_err("no such repository");
    assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains("owner/other"), "{error}");
}

#[test]
fn a_commit_is_found_offline_where_a_branch_has_brought_it() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let first = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint");
    let pinned = first.pinned.expect("a hub's").to_string();
    assert_eq!(pinned, format!("{SOURCE}@{COMMIT}"));
    hub.requests();
    let again = pull_offline(&hub, &pinned, cache.path()).expect("what is cached");
    assert_eq!((again.folder, again.verified), (first.folder.clone(), true));
    assert_eq!(hub.requests(), NO_REQUESTS);

    // Once the branch has another commit, the pinned one is not available any more.
    hub.change(|state| state.commit = COMMIT.replace('8', "9"));
    pull_from(&hub, SOURCE, cache.path()).expect("the branch's new commit");
    let error = pull_offline(&hub, &pinned, cache.path()).expect_err("not there any more");
    assert!(matches!(error, Error::NotInCache { .. }), "{error}");
}

#[test]
fn what_older_versions_of_pythons_client_left_is_found() {
    for older in ["models/owner/name", "hub/models/owner/name"] {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        let older = cache.path().join(older);
        fs::create_dir_all(&older).expect("a folder");
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::write(older.join(name), hub.file(name)).expect("a file");
        }
        let offline = pull_offline(&hub, SOURCE, cache.path()).expect("what is there");
        assert_eq!((&offline.folder, offline.verified), (&older, false));
        pull_offline(&hub, "modelscope:owner/name@v1", cache.path()).expect_err("nobody knows which revision it is");

        // Online the older folder is used if the file has the right hash.
        fs::write(older.join("config.json"), "{}").expect("a file");
        let folder = pull_from(&hub, SOURCE, cache.path()).expect("a whole checkpoint").folder;
        assert_eq!(fs::read(folder.join("config.json")).expect("a file"), hub.file("config.json"));
        assert_eq!(hub.requests()[1].len(), 0);
    }
}
