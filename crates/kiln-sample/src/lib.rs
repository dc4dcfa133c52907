//! A small BERT in Hugging Face's layout and 2,063 Chinese reviews, 421 of them with tagged words, compiled into the
//! program. With them the whole pipeline runs offline from an empty checkout. Their data card is
//! `datasets/sample/README.md`.
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

/// The files, by their paths in the sample's folder.
pub const FILES: [(&str, &[u8]); 12] = [
    ("recipe.toml", include_bytes!("../files/recipe.toml")),
    ("train.tsv", include_bytes!("../files/train.tsv")),
    ("validation.tsv", include_bytes!("../files/validation.tsv")),
    ("test.tsv", include_bytes!("../files/test.tsv")),
    ("tags.toml", include_bytes!("../files/tags.toml")),
    ("train.conll", include_bytes!("../files/train.conll")),
    ("validation.conll", include_bytes!("../files/validation.conll")),
    ("test.conll", include_bytes!("../files/test.conll")),
    ("model/config.json", include_bytes!("../files/model/config.json")),
    ("model/model.safetensors", include_bytes!("../files/model/model.safetensors")),
    ("model/tokenizer_config.json", include_bytes!("../files/model/tokenizer_config.json")),
    ("model/vocab.txt", include_bytes!("../files/model/vocab.txt")),
];

/// The sample on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The folder of the checkpoint.
    pub model: PathBuf,
    /// The recipe for the review labels. Its data files are in the same folder.
    pub recipe: PathBuf,
    /// The recipe for the tagged words. Its data files are in the same folder.
    pub tags: PathBuf,
}

/// Writes the sample's files to a folder, each atomically. An existing file with the same bytes is not written.
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
    Ok(Sample { model: folder.join("model"), recipe: folder.join("recipe.toml"), tags: folder.join("tags.toml") })
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("every file lies in the sample's folder");
    std::fs::create_dir_all(folder)?;
    kiln_files::write(path, bytes)
}

/// The error of [`unpack`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const SPLITS: [&str; 3] = ["train", "validation", "test"];

    fn text_of(name: &str) -> &'static str {
        let (_, bytes) = FILES.iter().find(|(path, _)| *path == name).expect("it is one of the files");
        std::str::from_utf8(bytes).expect("the reviews are UTF-8")
    }

    fn rows(split: &str) -> Vec<[&'static str; 4]> {
        let mut lines = text_of(&format!("{split}.tsv")).lines();
        assert_eq!(lines.next(), Some("text\tlabel\taspect\tdomain"));
        lines.map(|line| line.split('\t').collect::<Vec<_>>().try_into().expect("four columns")).collect()
    }

    #[test]
    fn every_split_holds_every_domain_and_label_in_balance() {
        for (split, count) in [("train", 135), ("validation", 30), ("test", 30)] {
            let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
            for [_, label, _, domain] in rows(split) {
                *counts.entry((label, domain)).or_default() += 1;
            }
            for label in ["negative", "positive"] {
                for domain in ["hotel", "book", "computer", "food", "film"] {
                    let found = counts.remove(&(label, domain)).unwrap_or_default();
                    let is_balanced =
                        if split == "train" { (count..=count + 20).contains(&found) } else { found == count };
                    assert!(is_balanced, "{split}: {found} of {label} {domain}");
                }
            }
            assert!(counts.is_empty(), "{counts:?}");
        }
    }

    #[test]
    fn every_aspect_is_in_every_split() {
        for split in SPLITS {
            let rows = rows(split);
            for aspect in ["quality", "price", "service", "logistics", "appearance"] {
                let share = rows.iter().filter(|[_, _, found, _]| *found == aspect).count() as f64 / rows.len() as f64;
                assert!((0.15..0.26).contains(&share), "{split}: {share} of {aspect}");
            }
        }
    }

    #[test]
    fn no_two_reviews_share_a_run_of_eight_characters() {
        let mut seen = HashSet::new();
        for [text, ..] in SPLITS.into_iter().flat_map(rows) {
            let characters: Vec<char> = text.chars().collect();
            assert!((6..=140).contains(&characters.len()), "{text}");
            let runs: HashSet<&[char]> = characters.windows(8).collect();
            for run in runs {
                assert!(seen.insert(run.to_vec()), "{text}: {}", run.iter().collect::<String>());
            }
        }
    }

    /// Otherwise a model could be tested on a review that it saw in training for the other task.
    #[test]
    fn tagged_reviews_are_those_of_the_same_split() {
        for (split, count) in [("train", 301), ("validation", 60), ("test", 60)] {
            let reviews: HashSet<&str> = rows(split).into_iter().map(|[text, ..]| text).collect();
            let mut tagged = 0;
            for sentence in text_of(&format!("{split}.conll")).split_terminator("\n\n") {
                let units = sentence.lines().map(|line| line.split_once('\t').expect("a character and its tag"));
                let (characters, tags): (Vec<&str>, Vec<&str>) = units.unzip();
                assert!(reviews.contains(characters.concat().as_str()), "{split}: {}", characters.concat());
                assert!(["B-target", "B-opinion"].iter().all(|tag| tags.contains(tag)), "{}", characters.concat());
                tagged += 1;
            }
            assert_eq!(tagged, count, "{split}");
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
