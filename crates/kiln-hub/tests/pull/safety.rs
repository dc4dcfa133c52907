use std::fs;

use kiln_hub::{Error, HubConfig, Secret};
use kiln_loopback::{Hub, Reply, Server};

use crate::client::{TOKEN, config, pull_from, pull_offline, pull_with, shown, tree};

const SOURCES: [&str; 2] = ["hf:owner/name", "modelscope:owner/name"];

#[test]
fn a_size_that_no_such_file_has_is_refused_before_a_byte_comes() {
    for source in SOURCES {
        for (name, size) in [("config.json", 1 << 40), ("model.safetensors", u64::MAX)] {
            let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
            hub.change(|state| state.sizes.insert(name.to_owned(), size));
            let error = pull_from(&hub, source, cache.path()).expect_err("an absurd size");
            assert!(matches!(&error, Error::TooLarge { file, .. } if file == name), "{error}");
            assert_eq!(hub.content.requests().len(), 0);
            assert!(!tree(cache.path()).iter().any(|path| path.ends_with("incomplete")));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_a_byte_comes() {
    // 100 TiB of shards fit on no disk.
    let shards: Vec<String> = (0..100).map(|at| format!("{at}.safetensors")).collect();
    let names: Vec<String> = shards.iter().map(|name| format!("\"{name}\": \"{name}\"")).collect();
    let index = format!(r#"{{"weight_map": {{{}}}}}"#, names.join(","));
    for source in SOURCES {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| {
            state.files.remove("model.safetensors");
            state.files.insert("model.safetensors.index.json".to_owned(), index.clone().into_bytes());
            state.files.extend(shards.iter().map(|name| (name.clone(), vec![0; 2000])));
            state.sizes.extend(shards.iter().map(|name| (name.clone(), 1 << 40)));
        });
        let error = pull_from(&hub, source, cache.path()).expect_err("100 TiB");
        assert!(matches!(&error, Error::NoSpace { needed, .. } if *needed == 100 << 40), "{error}");
        let content: Vec<String> = hub.content.requests().into_iter().map(|request| request.target).collect();
        assert!(content.iter().all(|target| target.contains("index.json")), "{content:?}");
    }
}

#[test]
fn a_pickle_with_code_in_it_is_refused_and_deleted() {
    // `os.system("id")` when unpickled.
    let code = b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.".to_vec();
    for source in SOURCES {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| {
            state.files.remove("model.safetensors");
            state.files.insert("pytorch_model.bin".to_owned(), code.clone());
        });
        let error = pull_from(&hub, source, cache.path()).expect_err("code");
        assert!(matches!(&error, Error::Pickle { found, .. } if found == "`posix.system`"), "{error}");
        let left = tree(cache.path());
        assert!(
            !left.iter().any(|path| path.ends_with("pytorch_model.bin") || path.ends_with("incomplete")),
            "{left:?}"
        );

        // A file with only data is accepted. Code that another program puts in its place is detected offline.
        hub.change(|state| state.files.insert("pytorch_model.bin".to_owned(), b"\x80\x02}.".repeat(400)));
        let pickle =
            pull_from(&hub, source, cache.path()).expect("a whole checkpoint").folder.join("pytorch_model.bin");
        if source == SOURCES[1] {
            // Without the record, the declared hash is unknown.
            fs::remove_dir_all(cache.path().join("models/owner--name/.kiln")).expect("a folder");
        } else {
            // A regular file instead of a link has no hash.
            fs::remove_file(&pickle).expect("a link");
        }
        fs::write(&pickle, &code).expect("a file");
        let error = pull_offline(&hub, source, cache.path()).expect_err("code");
        assert!(matches!(error, Error::Pickle { .. }), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn links_out_of_the_cache_are_refused() {
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("secret.json"), "{}").expect("a file");
    for source in SOURCES {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        let folder = pull_from(&hub, source, cache.path()).expect("a whole checkpoint").folder;
        let up = "../".repeat(folder.components().count());
        for target in [outside.path().join("secret.json"), format!("{up}etc/passwd").into()] {
            let link = folder.join("config.json");
            fs::remove_file(&link).expect("what was there");
            std::os::unix::fs::symlink(&target, &link).expect("a link");
            for pull in [pull_from, pull_offline] {
                let error = pull(&hub, source, cache.path()).expect_err("a link out of the cache");
                assert!(matches!(&error, Error::UnsafeLink { target: found, .. } if *found == target), "{error}");
            }
        }
        fs::remove_file(folder.join("config.json")).expect("a link");
        pull_from(&hub, source, cache.path()).expect("a whole checkpoint");

        // Nothing is written through a link either.
        hub.change(|state| state.cuts = vec![70_001, 0, 0, 0, 0]);
        let weights = folder.join("model.safetensors");
        fs::write(&weights, "damaged").expect("a file");
        pull_from(&hub, source, cache.path()).expect_err("four answers in a row without a byte");
        let part = tree(cache.path()).into_iter().find(|path| path.ends_with(".incomplete")).expect("a part");
        let part = cache.path().join(part);
        fs::remove_file(&part).expect("a part");
        std::os::unix::fs::symlink(outside.path().join("secret.json"), &part).expect("a link");
        let error = pull_from(&hub, source, cache.path()).expect_err("a link out of the cache");
        assert!(matches!(&error, Error::UnsafeLink { path, .. } if *path == part), "{error}");
        assert_eq!(fs::read(outside.path().join("secret.json")).expect("a file"), b"{}");
    }
}

#[cfg(unix)]
#[test]
fn a_folder_in_place_of_a_file_is_refused() {
    for source in SOURCES {
        for name in ["model.safetensors", "tokenizer.json"] {
            let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
            let folder = pull_from(&hub, source, cache.path()).expect("a whole checkpoint").folder;
            if source == SOURCES[1] {
                // As when another program filled the cache.
                fs::remove_dir_all(cache.path().join("models/owner--name/.kiln")).expect("a folder");
            }
            let path = folder.join(name);
            let _ = fs::remove_file(&path);
            let up =
                "../".repeat(path.strip_prefix(cache.path()).expect("it is in the cache").components().count() - 1);
            fs::create_dir(cache.path().join("elsewhere")).expect("a folder");
            std::os::unix::fs::symlink(format!("{up}elsewhere"), &path).expect("a link");
            for pull in [pull_offline, pull_from] {
                let error = pull(&hub, source, cache.path()).expect_err("a folder is no file");
                assert!(
                    matches!(&error, Error::NotAFile { path: found } if *found == path),
                    "{source} {name}: {error}"
                );
            }
            // A folder is refused too.
            fs::remove_file(&path).expect("a link");
            fs::create_dir(&path).expect("a folder");
            let error = pull_offline(&hub, source, cache.path()).expect_err("a folder is no file");
            assert!(matches!(&error, Error::NotAFile { .. }), "{source} {name}: {error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn content_that_repositories_share_is_found_through_two_links() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let weights = pull_from(&hub, SOURCES[0], cache.path()).expect("a checkpoint").folder.join("model.safetensors");
    let blob = weights.parent().expect("a folder").join(fs::read_link(&weights).expect("a link"));
    fs::create_dir_all(cache.path().join("blobs/aa")).expect("a folder");
    fs::rename(&blob, cache.path().join("blobs/aa/shared")).expect("a file");
    std::os::unix::fs::symlink("../../blobs/aa/shared", &blob).expect("a link");
    hub.requests();
    assert!(pull_offline(&hub, SOURCES[0], cache.path()).expect("what is cached").verified);
    pull_from(&hub, SOURCES[0], cache.path()).expect("what is cached");
    assert_eq!(hub.requests()[1].len(), 0);
}

#[test]
fn a_redirect_to_another_host_does_not_take_the_token_along() {
    // The hub redirects to another host, as a wrongly configured mirror might.
    let other = Server::start(|_| Reply::status(404));
    let address = other.address.clone();
    let hub = Server::start(move |request| Reply::status(302).with("Location", format!("{address}{}", request.target)));
    for source in SOURCES {
        let cache = tempfile::tempdir().expect("a folder");
        let mut config = config(&Hub::start(), cache.path());
        let token = Some(Secret::from(TOKEN.to_owned()));
        let each = HubConfig { endpoint: Some(hub.address.clone()), cache_dir: Some(cache.path().to_owned()), token };
        (config.hugging_face, config.model_scope) = (each.clone(), each);
        let error = pull_with(&config, source).expect_err("nothing there");
        assert!(!shown(&error).contains(TOKEN), "{}", shown(&error));
        let (asked, led_to) = (hub.requests(), other.requests());
        assert!(!asked.is_empty() && asked.iter().all(|request| request.headers["authorization"].contains(TOKEN)));
        assert!(!led_to.is_empty() && !format!("{led_to:?}").contains(TOKEN), "{led_to:?}");
    }
}

#[test]
fn a_private_repository_opens_to_its_token_which_no_error_tells() {
    for source in SOURCES {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        hub.change(|state| state.token = Some(TOKEN.to_owned()));
        pull_from(&hub, source, cache.path()).expect("a whole checkpoint");

        let mut config = config(&hub, cache.path());
        for token in ["hf_other", "hf_line\nbreak"] {
            let token = Some(Secret::from(token.to_owned()));
            (config.hugging_face.token, config.model_scope.token) = (token.clone(), token);
            let error = pull_with(&config, source).expect_err("another token");
            assert!(!shown(&error).contains("hf_"), "{}", shown(&error));
        }
    }
}
