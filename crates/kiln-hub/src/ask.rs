use std::fmt;

use hf_hub::{Repo, RepoType};

use crate::{Hub, PullConfig, Repository, dataset};

/// A request for files of a repository on a hub.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) hub: Hub,
    pub(crate) repository: &'a Repository,
    pub(crate) wanted: Wanted<'a>,
    /// The command that fetches a source, without the source itself.
    pub(crate) command: &'a str,
}

/// The files requested from a repository.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// The files needed to load a model.
    Checkpoint,
    /// One file of a data set.
    File(&'a str),
}

impl<'a> Ask<'a> {
    pub(crate) fn new(hub: Hub, repository: &'a Repository, wanted: Wanted<'a>, config: &'a PullConfig) -> Self {
        Self { hub, repository, wanted, command: config.command.as_deref().unwrap_or("kiln pull") }
    }

    /// The shell command that fetches this source.
    pub(crate) fn command(&self) -> String {
        let source = self.to_string();
        let is_plain = |letter: char| letter.is_alphanumeric() || "@%+=:,./_-".contains(letter);
        match source.chars().all(is_plain) {
            true => format!("{} {source}", self.command),
            false => format!("{} '{}'", self.command, source.replace('\'', r"'\''")),
        }
    }

    /// A file that exists in every repository that can satisfy the request.
    pub(crate) fn first_file(&self) -> &str {
        match self.wanted {
            Wanted::Checkpoint => "config.json",
            Wanted::File(file) => file,
        }
    }

    /// `model` or `dataset`, as both hubs call it. Addresses and cache folders use the plural.
    pub(crate) fn kind(&self) -> &'static str {
        match self.wanted {
            Wanted::Checkpoint => "model",
            Wanted::File(_) => "dataset",
        }
    }

    /// The branch, tag or commit; the hub's default branch if none is given.
    pub(crate) fn revision(&self) -> &str {
        self.repository.revision().unwrap_or(self.hub.default_branch())
    }

    /// The repository as a value of `hf-hub`.
    pub(crate) fn repo(&self) -> Repo {
        let kind = match self.wanted {
            Wanted::Checkpoint => RepoType::Model,
            Wanted::File(_) => RepoType::Dataset,
        };
        Repo::with_revision(self.repository.id().to_owned(), kind, self.revision().to_owned())
    }
}

/// Writes the source in its text form.
impl fmt::Display for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            Wanted::Checkpoint => write!(f, "{}:{}", self.hub, self.repository),
            Wanted::File(path) => dataset::fmt(self.hub, self.repository, path, f),
        }
    }
}
