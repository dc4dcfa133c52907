use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, source};

const INDEX: &str = "model.safetensors.index.json";

/// Fetches the files that a checkpoint is read from, and no other; small ones first.
///
/// `fetch` gives a file's path once it is on disk and verified, or none where the repository does not have it.
/// `missing` makes the error for a file, or a choice of files, that a checkpoint cannot do without.
pub(crate) fn fetch_all(
    mut fetch: impl FnMut(&str) -> Result<Option<PathBuf>, Error>,
    missing: impl Fn(&str) -> Error,
) -> Result<(), Error> {
    fetch("config.json")?.ok_or_else(|| missing("config.json"))?;
    if fetch("tokenizer.json")?.is_none() {
        fetch("vocab.txt")?.ok_or_else(|| missing("tokenizer.json or vocab.txt"))?;
    }
    fetch("tokenizer_config.json")?;
    fetch("special_tokens_map.json")?;

    if fetch("model.safetensors")?.is_some() {
        return Ok(());
    }
    if let Some(index) = fetch(INDEX)? {
        for shard in shards(&index)? {
            fetch(&shard)?.ok_or_else(|| missing(&shard))?;
        }
        return Ok(());
    }
    let weights = "model.safetensors, model.safetensors.index.json or pytorch_model.bin";
    fetch("pytorch_model.bin")?.ok_or_else(|| missing(weights)).map(drop)
}

#[derive(Deserialize)]
struct Index {
    /// A tensor's name → the file that holds it.
    weight_map: BTreeMap<String, String>,
}

/// The files that an index of weights names, each once.
fn shards(index: &Path) -> Result<BTreeSet<String>, Error> {
    let text = fs::read(index).map_err(Error::io(index))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|source| Error::Json {
        path: index.to_owned(),
        expected: "a `weight_map` of tensor names to file names",
        source,
    })?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match shards.iter().find(|name| !name.split('/').all(source::is_plain)) {
        Some(name) => Err(Error::UnsafeName { origin: index.to_owned(), name: name.clone() }),
        None => Ok(shards),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for, in order, of a repository that has the files `has`.
    fn asked(folder: &Path, has: &[&str]) -> Result<Vec<String>, Error> {
        let mut asked = Vec::new();
        let fetch = |name: &str| {
            asked.push(name.to_owned());
            Ok(has.contains(&name).then(|| folder.join(name)))
        };
        let missing = |file: &str| Error::Directory { folder: file.into(), problem: "missing" };
        fetch_all(fetch, missing).map(|()| asked)
    }

    fn folder_with_index(weight_map: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(INDEX), format!("{{\"weight_map\": {weight_map}}}")).expect("a small file");
        folder
    }

    #[test]
    fn safetensors_go_before_shards_and_shards_before_pickles() {
        let folder = folder_with_index(r#"{"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}"#);
        let common = ["config.json", "tokenizer.json", "pytorch_model.bin"];
        let last = |has: &[&str]| {
            let names = asked(folder.path(), &[&common[..], has].concat()).expect("a whole checkpoint");
            names.last().cloned().expect("some name")
        };
        assert_eq!(last(&["model.safetensors", INDEX]), "model.safetensors");
        assert_eq!(last(&[INDEX, "1.safetensors", "2.safetensors"]), "2.safetensors");
        assert_eq!(last(&[]), "pytorch_model.bin");
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = folder_with_index(r#"{"a": "1.safetensors"}"#);
        for (has, named) in [
            (&["vocab.txt"][..], "config.json"),
            (&["config.json"], "tokenizer.json or vocab.txt"),
            (&["config.json", "vocab.txt"], "pytorch_model.bin"),
            (&["config.json", "vocab.txt", INDEX], "1.safetensors"),
        ] {
            let error = asked(folder.path(), has).expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn shards_that_climb_are_refused() {
        for name in ["../x", "/etc/passwd", "a/../../x", "C:\\\\x", ".hidden", ""] {
            let folder = folder_with_index(&format!("{{\"a\": \"{name}\"}}"));
            let error = asked(folder.path(), &["config.json", "vocab.txt", INDEX]).expect_err(name);
            assert!(matches!(error, Error::UnsafeName { .. }), "{error}");
        }
    }
}
