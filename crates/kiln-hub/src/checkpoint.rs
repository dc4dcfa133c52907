use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::gather::Gatherer;
use crate::{Error, source};

const INDEX: &str = "model.safetensors.index.json";
/// The modules of sentence-transformers.
const MODULES: &str = "modules.json";
const PICKLE_INDEX: &str = "pytorch_model.bin.index.json";

/// Finds exactly the files that are needed to load a checkpoint, small ones first.
pub(crate) fn find(files: &mut Gatherer<'_>) -> Result<(), Error> {
    require(files, "config.json")?;
    find_vocabulary(files)?;
    files.find("tokenizer_config.json")?;
    files.find("special_tokens_map.json")?;
    find_sentence_files(files)?;

    for (single, index) in [("model.safetensors", INDEX), ("pytorch_model.bin", PICKLE_INDEX)] {
        if files.find(single)? {
            return Ok(());
        }
        if files.find(index)? {
            // The index names the weight files, so it is needed now.
            files.fetch()?;
            for shard in shards(&files.folder().join(index))? {
                require(files, &shard)?;
            }
            return Ok(());
        }
    }
    Err(files.missing("model.safetensors or pytorch_model.bin, or the .index.json of one of them"))
}

/// Finds a `tokenizer.json`, or else a plain vocabulary with its added tokens.
fn find_vocabulary(files: &mut Gatherer<'_>) -> Result<(), Error> {
    if files.find("tokenizer.json")? {
        return Ok(());
    }
    if !(files.find("vocab.txt")? || files.find("vocab.json")? && files.find("merges.txt")?) {
        for model in ["sentencepiece.bpe.model", "spiece.model"] {
            if files.find(model)? {
                return Err(files.missing(&format!("tokenizer.json, which transformers makes of its {model},")));
            }
        }
        return Err(files.missing("tokenizer.json, vocab.txt, or vocab.json and merges.txt"));
    }
    files.find("added_tokens.json")?;
    Ok(())
}

/// Finds the files of sentence-transformers that say how vectors of texts are computed.
fn find_sentence_files(files: &mut Gatherer<'_>) -> Result<(), Error> {
    if !files.find(MODULES)? {
        return Ok(());
    }
    files.find("sentence_bert_config.json")?;
    files.find("config_sentence_transformers.json")?;
    // It names the folders of the modules, so it is needed now.
    files.fetch()?;
    for folder in module_folders(&files.folder().join(MODULES))? {
        files.find(&format!("{folder}/config.json"))?;
    }
    Ok(())
}

fn require(files: &mut Gatherer<'_>, name: &str) -> Result<(), Error> {
    if files.find(name)? { Ok(()) } else { Err(files.missing(name)) }
}

#[derive(Deserialize)]
struct Index {
    /// Tensor name → name of the file that holds it.
    weight_map: BTreeMap<String, String>,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    /// Its folder; empty for the encoder.
    #[serde(default)]
    path: String,
}

/// The folders of the modules after the encoder.
fn module_folders(modules: &Path) -> Result<Vec<String>, Error> {
    let parsed: Vec<Module> = parse(modules, "a list of modules with their `path`s")?;
    let folders = parsed.into_iter().map(|module| module.path).filter(|folder| !folder.is_empty()).collect();
    check_names(modules, folders)
}

/// The files named by an index of weights, without duplicates.
fn shards(index: &Path) -> Result<Vec<String>, Error> {
    let parsed: Index = parse(index, "a `weight_map` of tensor names to file names")?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    check_names(index, shards.into_iter().collect())
}

fn parse<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, Error> {
    let text = kiln_files::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), expected, source })
}

/// Fails if a name from a file of the repository is not a plain path inside it.
fn check_names(origin: &Path, names: Vec<String>) -> Result<Vec<String>, Error> {
    match names.iter().find(|name| !name.split('/').all(source::is_plain)) {
        Some(name) => Err(Error::UnsafeName { origin: origin.to_owned(), name: name.clone() }),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ask::{Ask, Wanted};
    use crate::gather::{Declared, Files, Found, OnHub, gather};
    use crate::{Hub, PullConfig, Repository};

    /// A repository whose files are all on disk.
    struct Folder<'a> {
        folder: &'a Path,
        has: &'a [&'a str],
        asked: Vec<String>,
    }

    impl Files for Folder<'_> {
        fn folder(&self) -> &Path {
            self.folder
        }

        fn find(&mut self, name: &str) -> Result<Option<Found>, Error> {
            self.asked.push(name.to_owned());
            Ok(self.has.contains(&name).then_some(Found::OnDisk { digest: None }))
        }

        fn fetch(&mut self, name: &str, _: &OnHub, _: &mut dyn FnMut(u64)) -> Result<(), Error> {
            panic!("{name} is on disk")
        }

        fn missing(&self, name: &str) -> Error {
            Error::Directory { folder: name.into(), problem: "missing" }
        }

        fn address(&self) -> Option<String> {
            None
        }
    }

    /// The files requested from a repository with the files `has`, in order.
    fn asked(folder: &Path, has: &[&str]) -> Result<Vec<String>, Error> {
        let mut files = Folder { folder, has, asked: Vec::new() };
        let repository = Repository::new("owner/name", None)?;
        let config = PullConfig::default();
        let ask = Ask::new(Hub::HuggingFace, &repository, Wanted::Checkpoint, &config);
        gather(&mut files, ask, &mut Declared::default(), &mut |_| ())?;
        Ok(files.asked)
    }

    fn folder_with_index(weight_map: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(INDEX), format!("{{\"weight_map\": {weight_map}}}")).expect("a small file");
        fs::write(folder.path().join("pytorch_model.bin"), b"\x80\x02}.".repeat(5)).expect("a small file");
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
    fn sharded_pickles_are_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let json = r#"{"weight_map": {"a": "2.bin", "b": "1.bin"}}"#;
        fs::write(folder.path().join(PICKLE_INDEX), json).expect("a small file");
        for shard in ["1.bin", "2.bin"] {
            fs::write(folder.path().join(shard), b"\x80\x02}.".repeat(5)).expect("a small file");
        }
        let has = ["config.json", "vocab.txt", PICKLE_INDEX, "1.bin", "2.bin"];
        let names = asked(folder.path(), &has).expect("a whole checkpoint");
        assert!(names.ends_with(&["1.bin", "2.bin"].map(str::to_owned)), "{names:?}");
        let error = asked(folder.path(), &has[..4]).expect_err("a shard is missing").to_string();
        assert!(error.contains("2.bin"), "{error}");
    }

    #[test]
    fn a_vocabulary_alone_comes_with_its_added_tokens() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for vocabulary in [&["vocab.txt"][..], &["vocab.json", "merges.txt"]] {
            let has = [&["config.json", "added_tokens.json", "model.safetensors"][..], vocabulary].concat();
            let names = asked(folder.path(), &has).expect("a whole checkpoint");
            assert!(vocabulary.iter().chain(&["added_tokens.json"]).all(|name| names.iter().any(|own| own == name)));
        }
        let names = asked(folder.path(), &["config.json", "tokenizer.json", "model.safetensors"]).expect("a whole one");
        assert!(!names.iter().any(|name| name == "added_tokens.json"), "{names:?}");
    }

    #[test]
    fn the_files_of_sentence_transformers_are_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let has = ["config.json", "vocab.txt", MODULES, "sentence_bert_config.json", "1_Pooling/config.json"];
        let has = [&has[..], &["model.safetensors"]].concat();
        let write = |json: &str| fs::write(folder.path().join(MODULES), json).expect("a small file");
        write(r#"[{"path": ""}, {"path": "1_Pooling", "type": "Pooling"}, {"path": "2_Normalize"}, {}]"#);
        let names = asked(folder.path(), &has).expect("a whole checkpoint");
        let is_asked = |name: &str| names.iter().any(|asked| asked == name);
        assert!(has.iter().all(|name| is_asked(name)) && is_asked("2_Normalize/config.json"), "{names:?}");
        write(r#"[{"path": "../secret"}]"#);
        assert!(matches!(asked(folder.path(), &has), Err(Error::UnsafeName { .. })));
        write("{}");
        assert!(asked(folder.path(), &has).expect_err("no list").to_string().contains(MODULES));
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = folder_with_index(r#"{"a": "1.safetensors"}"#);
        for (has, named) in [
            (&["vocab.txt"][..], "config.json"),
            (&["config.json"], "tokenizer.json, vocab.txt, or vocab.json and merges.txt"),
            (&["config.json", "vocab.json"], "tokenizer.json, vocab.txt, or vocab.json and merges.txt"),
            (&["config.json", "spiece.model"], "tokenizer.json, which transformers makes of its spiece.model"),
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
