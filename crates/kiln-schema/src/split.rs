use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of the data, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What the weights are fitted to.
    Train,
    /// What picks the best checkpoint.
    Validation,
    /// What is looked at once, at the end.
    Test,
}

impl Split {
    /// `train`, `validation` or `test`: its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something for each split; a test split may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits<T> {
    /// For [`Split::Train`].
    pub train: T,
    /// For [`Split::Validation`].
    pub validation: T,
    /// For [`Split::Test`].
    pub test: Option<T>,
}

impl<T> Splits<T> {
    /// The splits that there are, in the order train, validation, test.
    pub fn iter(&self) -> impl Iterator<Item = (Split, &T)> {
        [(Split::Train, &self.train), (Split::Validation, &self.validation)]
            .into_iter()
            .chain(self.test.as_ref().map(|test| (Split::Test, test)))
    }

    /// The same splits, borrowed.
    pub fn as_ref(&self) -> Splits<&T> {
        Splits { train: &self.train, validation: &self.validation, test: self.test.as_ref() }
    }

    /// Splits of pairs; a test split where both have one.
    pub fn zip<U>(self, other: Splits<U>) -> Splits<(T, U)> {
        Splits {
            train: (self.train, other.train),
            validation: (self.validation, other.validation),
            test: self.test.zip(other.test),
        }
    }

    /// The same splits of something else.
    pub fn map<U>(self, mut f: impl FnMut(Split, T) -> U) -> Splits<U> {
        Splits {
            train: f(Split::Train, self.train),
            validation: f(Split::Validation, self.validation),
            test: self.test.map(|test| f(Split::Test, test)),
        }
    }

    /// The same splits of something else, if it can be had for all.
    ///
    /// # Errors
    /// The first that `f` returns.
    pub fn try_map<U, E>(self, mut f: impl FnMut(Split, T) -> Result<U, E>) -> Result<Splits<U>, E> {
        Ok(Splits {
            train: f(Split::Train, self.train)?,
            validation: f(Split::Validation, self.validation)?,
            test: self.test.map(|test| f(Split::Test, test)).transpose()?,
        })
    }
}
