use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Where a checkpoint comes from: what a command line or a recipe says.
///
/// Written `hf:owner/name[@revision]`, `modelscope:owner/name[@revision]`, `dir:PATH` or `sample`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// The checkpoint that is compiled into the program. There is nothing to pull, so [`pull`](crate::pull) does not
    /// take it: it takes a [`Location`].
    Sample,
    /// A hub or a folder.
    Location(Location),
}

/// A place that [`pull`](crate::pull) can take a checkpoint from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `hf:owner/name[@revision]`: Hugging Face, or a mirror of it.
    HuggingFace(Repository),
    /// `modelscope:owner/name[@revision]`.
    ModelScope(Repository),
    /// `dir:PATH`: a folder in Hugging Face's layout.
    Directory(PathBuf),
}

/// A hub by the name that sources and recipes call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hub {
    /// Hugging Face, or a mirror of it.
    #[serde(rename = "hf")]
    HuggingFace,
    /// ModelScope.
    #[serde(rename = "modelscope")]
    ModelScope,
}

impl Hub {
    pub(crate) fn default_branch(self) -> &'static str {
        match self {
            Self::HuggingFace => "main",
            Self::ModelScope => "master",
        }
    }
}

/// `owner/name[@revision]`, checked: both are safe as parts of a path and of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    id: String,
    revision: Option<String>,
}

impl Repository {
    /// Checks `id` (`owner/name`) and `revision` (a branch, a tag or a commit).
    ///
    /// # Errors
    /// [`Error::Source`] when either has a character, or a part such as `..`, that a repository's cannot have.
    pub fn new(id: impl Into<String>, revision: Option<String>) -> Result<Self, Error> {
        let id = id.into();
        let refuse = |expected| Err(Error::Source { found: id.clone(), expected });
        match id.split_once('/') {
            Some((owner, name)) if is_plain(owner) && is_plain(name) => {}
            _ => return refuse("`owner/name`, each of letters, digits, `.`, `-` and `_`"),
        }
        // Hugging Face joins owner and name by `--` in its cache, and forbids it in names for that reason.
        if id.contains("--") {
            return refuse("`owner/name` without `--`");
        }
        if let Some(revision) = &revision
            && !revision.split('/').all(is_plain)
        {
            let expected = "a branch, a tag or a commit of letters, digits, `.`, `-`, `_` and `/`";
            return Err(Error::Source { found: revision.clone(), expected });
        }
        Ok(Self { id, revision })
    }

    /// `owner/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The branch, tag or commit asked for; the hub's default branch where there is none.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The repository as another hub has it: that its default branch is called otherwise says nothing.
    pub(crate) fn elsewhere(&self, hub: Hub) -> Self {
        let revision = self.revision.clone().filter(|revision| revision != hub.default_branch());
        Self { id: self.id.clone(), revision }
    }

    /// The same repository at a commit, where the hub tells a whole one; else as it was asked for.
    pub(crate) fn pinned(&self, commit: Option<&str>) -> Self {
        let revision = commit.filter(|commit| is_commit(commit)).map(str::to_owned).or_else(|| self.revision.clone());
        Self { id: self.id.clone(), revision }
    }
}

/// Whether a revision is a whole commit, which means the same for ever.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a repository's file name stays in the folder that it is joined to, on every system. What is not ASCII is
/// welcome: data sets have files in every language.
pub(crate) fn stays_inside(name: &str) -> bool {
    let stays = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']);
    name.split('/').all(stays) && !name.contains(char::is_control)
}

/// Whether a part of a path or an address means nothing but itself.
pub(crate) fn is_plain(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with('.') && part.bytes().all(plain)
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "sample" => Ok(Self::Sample),
            _ => text.parse().map(Self::Location),
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("hf", repository)) => repository.parse().map(Self::HuggingFace),
            Some(("modelscope", repository)) => repository.parse().map(Self::ModelScope),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            _ => Err(Error::Source {
                found: text.to_owned(),
                expected: "`hf:owner/name[@revision]`, `modelscope:owner/name[@revision]`, `dir:PATH` or `sample`",
            }),
        }
    }
}

impl FromStr for Repository {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('@') {
            Some((id, revision)) => Self::new(id, Some(revision.to_owned())),
            None => Self::new(text, None),
        }
    }
}

impl Location {
    /// A repository on a hub.
    pub(crate) fn on(hub: Hub, repository: Repository) -> Self {
        match hub {
            Hub::HuggingFace => Self::HuggingFace(repository),
            Hub::ModelScope => Self::ModelScope(repository),
        }
    }
}

impl fmt::Display for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HuggingFace => "hf",
            Self::ModelScope => "modelscope",
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sample => f.pad("sample"),
            Self::Location(location) => location.fmt(f),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HuggingFace(repository) => write!(f, "hf:{repository}"),
            Self::ModelScope(repository) => write!(f, "modelscope:{repository}"),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

impl TryFrom<String> for Source {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

impl From<Location> for Source {
    fn from(location: Location) -> Self {
        Self::Location(location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in [
            "sample",
            "hf:google-bert/bert-base-chinese",
            "hf:a/b@refs/pr/1",
            "modelscope:tiansz/bert-base-chinese@v1.0",
            "dir:/models/a b@c",
            "dir:../x",
        ] {
            let source: Source = text.parse().expect("a source");
            assert_eq!(source.to_string(), text);
            let json = serde_json::to_string(&source).expect("a string");
            assert_eq!(serde_json::from_str::<Source>(&json).expect("the same string"), source);
        }
    }

    #[test]
    fn what_could_climb_is_refused() {
        for text in [
            "",
            "hf:",
            "hf:bert",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/..",
            "hf:a/.b",
            "hf:/b",
            "hf:a/",
            "hf:a/b@",
            "hf:a/b@..",
            "hf:a/b@../../c",
            "hf:a/b@/c",
            "hf:a/b@c//d",
            "hf:a\\b/c",
            "hf:a/b?c",
            "hf:a/b#c",
            "hf:a/b%2f",
            "hf:a--b/c",
            "modelscope:a/b\n",
            "dir:",
            "s3:a/b",
            "google-bert/bert-base-chinese",
        ] {
            let error = text.parse::<Source>().expect_err(text);
            assert!(matches!(error, Error::Source { .. }), "{text}: {error}");
        }
    }
}
