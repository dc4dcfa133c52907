use std::path::PathBuf;
use std::{fmt, io};

/// Why a recipe cannot be used. Every variant is a usage error: the recipe or the command line has to be corrected.
#[derive(Debug)]
pub enum RecipeError {
    /// The file cannot be read.
    Read {
        /// The recipe's file, or a file that the recipe names.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// A key or value in the file or in an override is invalid.
    Invalid {
        /// The location, such as `recipe.toml, line 17` or `--set train.epochs=0`.
        place: String,
        /// What was found there, and what was expected.
        what: String,
    },
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "cannot read {}", path.display()),
            Self::Invalid { place, what } => write!(f, "{place}: {what}"),
        }
    }
}

impl std::error::Error for RecipeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Invalid { .. } => None,
        }
    }
}
