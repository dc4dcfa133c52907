use std::fmt;

use hf_hub::{Repo, RepoType};

use crate::{Hub, PullConfig, Repository, dataset};

/// What is asked of a hub.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) hub: Hub,
    pub(crate) repository: &'a Repository,
    pub(crate) wanted: Wanted<'a>,
    /// What a user types before the source to have it fetched.
    pub(crate) command: &'a str,
}

/// The files wanted of a repository.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// Those of a model that it is read from.
    Checkpoint,
    /// One of a data set.
    File(&'a str),
}

impl<'a> Ask<'a> {
    pub(crate) fn new(hub: Hub, repository: &'a Repository, wanted: Wanted<'a>, config: &'a PullConfig) -> Self {
        Self { hub, repository, wanted, command: config.command.as_deref().unwrap_or("kiln pull") }
    }

    /// What fetches it, as one types it in a shell.
    pub(crate) fn command(&self) -> String {
        let source = self.to_string();
        let is_plain = |letter: char| letter.is_alphanumeric() || "@%+=:,./_-".contains(letter);
        match source.chars().all(is_plain) {
            true => format!("{} {source}", self.command),
            false => format!("{} '{}'", self.command, source.replace('\'', r"'\''")),
        }
    }

    /// A file that is there wherever what is asked for is there.
    pub(crate) fn first_file(&self) -> &str {
        match self.wanted {
            Wanted::Checkpoint => "config.json",
            Wanted::File(file) => file,
        }
    }

    /// `model` or `dataset`: both hubs' word for it, of which addresses and folders have the plural.
    pub(crate) fn kind(&self) -> &'static str {
        match self.wanted {
            Wanted::Checkpoint => "model",
            Wanted::File(_) => "dataset",
        }
    }

    /// The branch, tag or commit; the default branch if none is given.
    pub(crate) fn revision(&self) -> &str {
        self.repository.revision().unwrap_or(self.hub.default_branch())
    }

    /// The repository as `hf-hub` names it.
    pub(crate) fn repo(&self) -> Repo {
        let kind = match self.wanted {
            Wanted::Checkpoint => RepoType::Model,
            Wanted::File(_) => RepoType::Dataset,
        };
        Repo::with_revision(self.repository.id().to_owned(), kind, self.revision().to_owned())
    }
}

/// The source, as one writes it.
impl fmt::Display for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            Wanted::Checkpoint => write!(f, "{}:{}", self.hub, self.repository),
            Wanted::File(path) => dataset::fmt(self.hub, self.repository, path, f),
        }
    }
}
