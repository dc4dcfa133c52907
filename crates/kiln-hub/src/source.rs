use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The source of a checkpoint, as given in a command line or a recipe.
///
/// The text form is `hf:owner/name[@revision]`, `modelscope:owner/name[@revision]`, `dir:PATH` or `sample`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// The checkpoint compiled into the program. There is nothing to pull, so [`pull`](crate::pull) takes only a
    /// [`Location`].
    Sample,
    /// A hub or a folder.
    Location(Location),
}

/// A location that [`pull`](crate::pull) can get a checkpoint from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `hf:owner/name[@revision]`: Hugging Face, or a mirror of it.
    HuggingFace(Repository),
    /// `modelscope:owner/name[@revision]`.
    ModelScope(Repository),
    /// `dir:PATH`: a folder in Hugging Face's layout.
    Directory(PathBuf),
}

/// A hub, with its name in sources and recipes.
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

/// `owner/name[@revision]`. Both parts are validated, so they are safe in paths and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    id: String,
    revision: Option<String>,
}

impl Repository {
    /// Checks `id` (`owner/name`) and `revision` (a branch, a tag or a commit).
    ///
    /// # Errors
    /// [`Error::Source`] when either contains an invalid character, or an invalid part such as `..`.
    pub fn new(id: impl Into<String>, revision: Option<String>) -> Result<Self, Error> {
        let id = id.into();
        let refuse = |expected| Err(Error::Source { found: id.clone(), expected });
        match id.split_once('/') {
            Some((owner, name)) if is_plain(owner) && is_plain(name) => {}
            _ => return refuse("`owner/name`, each of letters, digits, `.`, `-` and `_`"),
        }
        // Hugging Face joins owner and name with `--` in its cache, and therefore does not allow it in names.
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

    /// The requested branch, tag or commit; none for the hub's default branch.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The repository on another hub. The name of `hub`'s default branch is removed, because it differs between hubs.
    pub(crate) fn elsewhere(&self, hub: Hub) -> Self {
        let revision = self.revision.clone().filter(|revision| revision != hub.default_branch());
        Self { id: self.id.clone(), revision }
    }

    /// The same repository at a commit, if it is a full hash. Otherwise the requested revision is kept.
    pub(crate) fn pinned(&self, commit: Option<&str>) -> Self {
        let revision = commit.filter(|commit| is_commit(commit)).map(str::to_owned).or_else(|| self.revision.clone());
        Self { id: self.id.clone(), revision }
    }
}

/// Whether a revision is a full commit hash, whose content never changes.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a file name of a repository stays inside its folder, on every system. Non-ASCII characters are allowed,
/// because data sets have file names in every language.
pub(crate) fn stays_inside(name: &str) -> bool {
    let stays = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']);
    name.split('/').all(stays) && !name.contains(char::is_control)
}

/// Whether a part of a path or an address has no special meaning.
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
    /// The location of a repository on a hub.
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
