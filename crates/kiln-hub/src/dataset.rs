use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::source::stays_inside;
use crate::{Error, Hub, Repository};

const EXPECTED: &str = "`hf-dataset:owner/name[@revision]/path` or `modelscope-dataset:owner/name[@revision]/path`";

/// A file of a data set on a hub.
///
/// The text form is `hf-dataset:owner/name[@revision]/path` or `modelscope-dataset:owner/name[@revision]/path`. A
/// revision ends at the first `/`, except for Hugging Face's `refs/convert/NAME` and `refs/pr/NUMBER`. In other
/// revisions, `/` is written `%2F`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetFile {
    hub: Hub,
    repository: Repository,
    path: String,
}

impl DatasetFile {
    /// Whether a text has the prefix of a data set file. It may still be invalid.
    pub fn is_meant(text: &str) -> bool {
        hub_of(text).is_some()
    }

    /// The hub of the data set.
    pub fn hub(&self) -> Hub {
        self.hub
    }

    /// The data set.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The path of the file in the data set, with `/` as separator.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn on(&self, hub: Hub, repository: Repository) -> Self {
        Self { hub, repository, path: self.path.clone() }
    }
}

/// Splits a text into the hub named by its prefix, and the rest.
fn hub_of(text: &str) -> Option<(Hub, &str)> {
    let (prefix, rest) = text.split_once(':')?;
    match prefix {
        "hf-dataset" => Some((Hub::HuggingFace, rest)),
        "modelscope-dataset" => Some((Hub::ModelScope, rest)),
        _ => None,
    }
}

impl FromStr for DatasetFile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |expected| Error::Source { found: text.to_owned(), expected };
        let (hub, rest) = hub_of(text).ok_or_else(|| refuse(EXPECTED))?;
        let (owner, rest) = rest.split_once('/').ok_or_else(|| refuse(EXPECTED))?;
        // An `@` after this position is part of the file name.
        let end = rest.find(['/', '@']).ok_or_else(|| refuse(EXPECTED))?;
        let (name, rest) = rest.split_at(end);
        let (revision, path) = match rest.strip_prefix('@') {
            None => (None, &rest[1..]),
            Some(rest) => {
                let (revision, path) = rest.split_at(revision_len(rest));
                let path = path.strip_prefix('/').ok_or_else(|| refuse(EXPECTED))?;
                (Some(revision.replace("%2F", "/").replace("%2f", "/")), path)
            }
        };
        if !stays_inside(path) {
            return Err(refuse(
                "a file's path that stays in the data set: without `..`, `\\`, `:` and control characters",
            ));
        }
        let repository = Repository::new(format!("{owner}/{name}"), revision)?;
        Ok(Self { hub, repository, path: path.to_owned() })
    }
}

/// The length of the revision at the start of a text.
fn revision_len(text: &str) -> usize {
    let parts = if text.starts_with("refs/convert/") || text.starts_with("refs/pr/") { 3 } else { 1 };
    text.match_indices('/').nth(parts - 1).map_or(text.len(), |(at, _)| at)
}

/// Writes the text form that [`DatasetFile`] parses.
pub(crate) fn fmt(hub: Hub, repository: &Repository, path: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{hub}-dataset:{}", repository.id())?;
    if let Some(revision) = repository.revision() {
        let is_whole = revision_len(&format!("{revision}/")) == revision.len();
        let revision = if is_whole { revision.to_owned() } else { revision.replace('/', "%2F") };
        write!(f, "@{revision}")?;
    }
    write!(f, "/{path}")
}

impl fmt::Display for DatasetFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt(self.hub, &self.repository, &self.path, f)
    }
}

impl TryFrom<String> for DatasetFile {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<DatasetFile> for String {
    fn from(file: DatasetFile) -> Self {
        file.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (text, revision, path) in [
            ("hf-dataset:seamew/ChnSentiCorp/train.tsv", None, "train.tsv"),
            ("hf-dataset:a/b@main/data/train 1.parquet", Some("main"), "data/train 1.parquet"),
            (
                "hf-dataset:a/b@refs/convert/parquet/default/train/0.parquet",
                Some("refs/convert/parquet"),
                "default/train/0.parquet",
            ),
            ("hf-dataset:a/b@refs/pr/3/x.csv", Some("refs/pr/3"), "x.csv"),
            ("hf-dataset:a/b@feature%2Fone/x.csv", Some("feature/one"), "x.csv"),
            ("modelscope-dataset:a/b/年份=2020/训练@1.jsonl", None, "年份=2020/训练@1.jsonl"),
        ] {
            let file: DatasetFile = text.parse().expect(text);
            assert_eq!((file.repository().revision(), file.path()), (revision, path), "{text}");
            assert_eq!(file.to_string(), text);
            assert!(DatasetFile::is_meant(text));
        }
    }

    #[test]
    fn what_could_climb_or_is_not_whole_is_refused() {
        for text in [
            "hf-dataset:a/b",
            "hf-dataset:a/b/",
            "hf-dataset:a/b@main",
            "hf-dataset:a/b@/x",
            "hf-dataset:a/b@refs/pr/3",
            "hf-dataset:a/b/../x",
            "hf-dataset:a/b/x/../../y",
            "hf-dataset:a/b//etc/passwd",
            "hf-dataset:a/b/c\\..\\d",
            "hf-dataset:a/b/C:x",
            "hf-dataset:a/b/x\n",
            "hf-dataset:../b/x",
            "hf-dataset:a/..@main/x",
            "hf-dataset:a/b@..%2F..%2Fc/x",
            "train.tsv",
        ] {
            let error = text.parse::<DatasetFile>().expect_err(text);
            assert!(matches!(error, Error::Source { .. }), "{text}: {error}");
        }
        assert!(!DatasetFile::is_meant("C:/data/hf-dataset/train.tsv"));
    }
}
