//! A small BERT in Hugging Face's layout and 792 Chinese reviews of hotels, books and computers, compiled in.
//! They let the whole pipeline run offline from an empty checkout; their card is `datasets/sample/README.md`.
//!
//! ```
//! let folder = std::env::temp_dir().join("kiln-sample-doctest");
//! let sample = kiln_sample::unpack(&folder)?;
//! assert!(sample.model.join("config.json").is_file());
//! assert!(sample.recipe.is_file());
//! # std::fs::remove_dir_all(&folder).ok();
//! # Ok::<(), kiln_sample::Error>(())
//! ```
//!
//! See `examples/reviews.rs`.
#![deny(missing_docs)]

use std::io;
use std::path::{Path, PathBuf};

/// The files by their paths within the sample's folder.
pub const FILES: [(&str, &[u8]); 8] = [
    ("recipe.toml", include_bytes!("../files/recipe.toml")),
    ("train.tsv", include_bytes!("../files/train.tsv")),
    ("validation.tsv", include_bytes!("../files/validation.tsv")),
    ("test.tsv", include_bytes!("../files/test.tsv")),
    ("model/config.json", include_bytes!("../files/model/config.json")),
    ("model/model.safetensors", include_bytes!("../files/model/model.safetensors")),
    ("model/tokenizer_config.json", include_bytes!("../files/model/tokenizer_config.json")),
    ("model/vocab.txt", include_bytes!("../files/model/vocab.txt")),
];

/// The sample on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The checkpoint's folder.
    pub model: PathBuf,
    /// The recipe; its data files lie beside it.
    pub recipe: PathBuf,
}

/// Writes the sample's files into a folder, each whole or not at all; a file that is there with the same bytes is left alone.
///
/// # Errors
/// When a file cannot be written.
pub fn unpack(folder: &Path) -> Result<Sample, Error> {
    for (name, bytes) in FILES {
        let path = folder.join(name);
        if kiln_files::read(&path).is_ok_and(|content| content == bytes) {
            continue;
        }
        write(&path, bytes).map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    Ok(Sample { model: folder.join("model"), recipe: folder.join("recipe.toml") })
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("every file lies in the sample's folder");
    std::fs::create_dir_all(folder)?;
    kiln_files::write(path, bytes)
}

/// Why the sample could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn rows(name: &str) -> Vec<[&'static str; 3]> {
        let (_, bytes) = FILES.iter().find(|(path, _)| *path == name).expect("it is one of the files");
        let text = std::str::from_utf8(bytes).expect("the reviews are UTF-8");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("text\tlabel\tdomain"));
        lines.map(|line| line.split('\t').collect::<Vec<_>>().try_into().expect("three columns")).collect()
    }

    #[test]
    fn every_split_holds_every_domain_in_balance() {
        for (name, of_each) in [("train.tsv", 100), ("validation.tsv", 16), ("test.tsv", 16)] {
            let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
            for [_, label, domain] in rows(name) {
                *counts.entry((label, domain)).or_default() += 1;
            }
            for label in ["negative", "positive"] {
                for domain in ["hotel", "book", "computer"] {
                    assert_eq!(counts.get(&(label, domain)), Some(&of_each), "{name}: {label} {domain}");
                }
            }
        }
    }

    #[test]
    fn no_two_reviews_share_a_run_of_eight_characters() {
        let mut seen = HashSet::new();
        for name in ["train.tsv", "validation.tsv", "test.tsv"] {
            for [text, ..] in rows(name) {
                let characters: Vec<char> = text.chars().collect();
                assert!((6..=62).contains(&characters.len()), "{text}");
                let runs: HashSet<&[char]> = characters.windows(8).collect();
                for run in runs {
                    assert!(seen.insert(run.to_vec()), "{text}: {}", run.iter().collect::<String>());
                }
            }
        }
    }

    #[test]
    fn unpacking_twice_writes_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sample = unpack(folder.path()).expect("it is writable");
        let written = || std::fs::metadata(sample.model.join("vocab.txt")).and_then(|file| file.modified()).ok();
        let before = written();
        assert_eq!(unpack(folder.path()).expect("it is there"), sample);
        assert!(before.is_some() && written() == before);
    }
}
