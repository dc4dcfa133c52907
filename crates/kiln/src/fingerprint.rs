//! The fingerprint of a run: the settings of its recipe, and the hashes of its files.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use kiln_heads::Start;
use kiln_train::Fingerprint;
use sha2::{Digest, Sha256};

use crate::recipe::{Files, Recipe};

/// The name of the hash of the checkpoint's weights among the contents.
pub const WEIGHTS: &str = "model.source (weights)";
pub const DESCRIPTIONS: &str = "model.source (config and tokenizer)";

/// The prefix of the names of the hashes of a teacher's files.
pub const TEACHER: &str = "distill.teacher";

/// The folders of the models of a run.
#[derive(Clone, Copy)]
pub struct Folders<'a> {
    /// The folder of `model.source`.
    pub checkpoint: &'a Path,
    /// The folder of `distill.teacher`, if there is one.
    pub teacher: Option<&'a Path>,
}

/// Keys of a recipe that do not change the result of a run. Files are identified by their contents, so their paths are here
/// too.
const WITHOUT_INFLUENCE: [&str; 13] = [
    "data.files",
    "data.test",
    "data.train",
    "data.validation",
    "distill.teacher",
    "distill.unlabelled",
    "hub.fallback",
    "masking.words",
    "model.source",
    "train.max_hours",
    "train.save_minutes",
    "train.save_steps",
    "train.tensorboard",
];

/// The fingerprint of a run of this recipe. `files` are the labelled and the unlabelled data, and `folders` the models.
pub fn fingerprint(
    recipe: &Recipe,
    files: (&Files<PathBuf>, &[PathBuf]),
    folders: Folders<'_>,
    backend: &str,
) -> anyhow::Result<Fingerprint> {
    let mut settings = recipe.settings();
    settings.insert("backend".to_owned(), backend.to_owned());
    settings.retain(|key, _| !WITHOUT_INFLUENCE.contains(&key.as_str()));
    Ok(Fingerprint { settings, contents: contents(recipe, files, folders)? })
}

/// Hashes of the files that the recipe's keys name.
fn contents(
    recipe: &Recipe,
    (files, unlabelled): (&Files<PathBuf>, &[PathBuf]),
    Folders { checkpoint, teacher }: Folders<'_>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut contents = BTreeMap::new();
    let words = recipe.masking.words.as_ref().map(|path| ("masking.words".to_owned(), path));
    for (key, path) in by_key(files).into_iter().chain(numbered("distill.unlabelled", unlabelled)).chain(words) {
        if path.is_file() {
            contents.insert(key, sha256([path])?);
        } else if path.is_dir() {
            contents.insert(key, sha256(saved_files(path)?)?);
        }
        // A missing file is reported later, when it is read.
    }
    let weights = match (recipe.model.initialize, recipe.model.size) {
        (Start::Pretrained, None) => weights_of(checkpoint)?,
        _ => Vec::new(),
    };
    contents.insert(WEIGHTS.to_owned(), sha256(weights)?);
    contents.insert(DESCRIPTIONS.to_owned(), sha256(descriptions(checkpoint)?)?);
    if let Some(teacher) = teacher {
        contents.insert(format!("{TEACHER} (weights)"), sha256(weights_of(teacher)?)?);
        contents.insert(format!("{TEACHER} (config and tokenizer)"), sha256(descriptions(teacher)?)?);
    }
    Ok(contents)
}

pub fn weights_of(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files_in(folder, |name| has_ending(name, &["safetensors", "bin"]))
}

/// The configs of a model and of its tokenizer, and the vocabulary.
pub fn descriptions(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files_in(folder, |name| has_ending(name, &["json", "txt", "model"]))
}

/// The files of a folder that `save_to_disk` of Python's `datasets` wrote, and of its splits, without its caches.
fn saved_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let is_cache = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"cache-"));
    let mut files = files_in(folder, |path| has_ending(path, &["arrow", "json"]) && !is_cache(path))?;
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    let mut splits: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    splits.retain(|path| path.join("state.json").is_file());
    splits.sort();
    for split in splits {
        files.extend(saved_files(&split)?);
    }
    Ok(files)
}

fn by_key(files: &Files<PathBuf>) -> Vec<(String, &PathBuf)> {
    match files {
        Files::Splits(splits) => splits.iter().map(|(split, file)| (format!("data.{split}"), file)).collect(),
        Files::Divided { files, .. } => numbered("data.files", files).collect(),
        Files::Corpus { files, validation } => numbered("data.files", files)
            .chain(validation.iter().map(|file| ("data.validation".to_owned(), file)))
            .collect(),
    }
}

fn numbered<'a>(key: &str, files: &'a [PathBuf]) -> impl Iterator<Item = (String, &'a PathBuf)> {
    files.iter().enumerate().map(move |(at, file)| (format!("{key}[{at}]"), file))
}

/// The files of a folder that are accepted, sorted by path.
fn files_in(folder: &Path, accept: impl Fn(&Path) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| accept(path) && path.is_file());
    files.sort();
    Ok(files)
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known))
}

/// SHA-256 of the concatenated files, in hexadecimal.
pub fn sha256<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for path in paths {
        let path = path.as_ref();
        let mut add = || -> io::Result<()> {
            let mut file = kiln_files::open(path)?;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    read => hash.update(&buffer[..read]),
                }
            }
        };
        add().with_context(|| format!("{}: cannot be read", path.display()))?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another value of any key makes another run, except for the keys without influence.
    #[test]
    fn every_key_but_those_without_influence_is_in_the_fingerprint() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name);
        for name in ["train.tsv", "dev.tsv", "config.json", "model.safetensors"] {
            std::fs::write(file(name), name).expect("it is writable");
        }
        let print_on = |backend: &str, overrides: &[&str]| {
            let text = "task = \"sequence-classification\"\nmodel.source = \"sample\"\n[data]\ntrain = \"train.tsv\"\nvalidation = \"dev.tsv\"\n";
            let overrides: Vec<String> = overrides.iter().map(|setting| (*setting).to_owned()).collect();
            let recipe = Recipe::from_toml(text, &file("recipe.toml"), &overrides).expect("the recipe is good");
            let files = Files::Splits(kiln_schema::Splits {
                train: file("train.tsv"),
                validation: file("dev.tsv"),
                test: None,
            });
            let folders = Folders { checkpoint: folder.path(), teacher: None };
            fingerprint(&recipe, (&files, &[]), folders, backend).expect("the files are there")
        };
        let print = |overrides: &[&str]| print_on("flex", overrides);
        let before = print(&[]);
        for (setting, line) in [
            ("train.max_length=16", "train.max_length: 128 before, 16 now"),
            ("train.precision=bf16", "train.precision: f32 before, bf16 now"),
            ("train.epochs=5", "train.epochs: 3 before, 5 now"),
            ("train.metric=macro_f1", "train.metric: not set before, macro_f1 now"),
            ("train.class_weights=balanced", "train.class_weights: not set before, balanced now"),
            ("model.hidden_layers=[7]", "model.hidden_layers: [] before, [7] now"),
            ("data.header=true", "data.header: false before, true now"),
        ] {
            let differences = before.differences(&print(&[setting]));
            assert!(differences.iter().any(|difference| difference == line), "{setting}: {differences:?}");
        }
        assert_eq!(before.differences(&print_on("ndarray", &[])), ["backend: flex before, ndarray now"]);
        for setting in [
            "train.save_steps=7",
            "train.save_minutes=1",
            "train.max_hours=1",
            "train.tensorboard=true",
            "hub.fallback=['hf']",
        ] {
            assert_eq!(before.differences(&print(&[setting])), Vec::<String>::new(), "{setting}");
        }
        for (name, key) in [
            ("train.tsv", "data.train"),
            ("model.safetensors", WEIGHTS),
            ("config.json", "model.source (config and tokenizer)"),
        ] {
            let before = print(&[]);
            std::fs::write(file(name), "other contents").expect("it is writable");
            let expected = format!("{key}: the file's contents have changed");
            assert_eq!(before.differences(&print(&[])), [expected]);
        }
    }

    #[test]
    fn a_folder_of_data_has_the_hash_of_its_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is writable");
            std::fs::write(path, text).expect("it is writable");
        };
        write("dataset_dict.json", "{}");
        write("train/state.json", "{}");
        write("train/data-00000-of-00001.arrow", "rows");
        let hash = || sha256(saved_files(folder.path()).expect("it is readable")).expect("they are readable");
        let before = hash();
        write("train/cache-1.arrow", "other rows");
        assert_eq!(hash(), before);
        write("train/data-00000-of-00001.arrow", "more rows");
        assert_ne!(hash(), before);
    }
}
