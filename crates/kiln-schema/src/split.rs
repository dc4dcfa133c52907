use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of the data, by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Used to fit the weights.
    Train,
    /// Used to select the best checkpoint.
    Validation,
    /// Used once, at the end, to report the result.
    Test,
}

impl Split {
    /// The name in files and reports: `train`, `validation` or `test`.
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

/// A value for each split. The test split may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits<T> {
    /// The value for [`Split::Train`].
    pub train: T,
    /// The value for [`Split::Validation`].
    pub validation: T,
    /// The value for [`Split::Test`], if there is a test split.
    pub test: Option<T>,
}

impl<T> Splits<T> {
    /// Iterates over the existing splits, in the order train, validation, test.
    pub fn iter(&self) -> impl Iterator<Item = (Split, &T)> {
        [(Split::Train, &self.train), (Split::Validation, &self.validation)]
            .into_iter()
            .chain(self.test.as_ref().map(|test| (Split::Test, test)))
    }

    /// Borrows each value.
    pub fn as_ref(&self) -> Splits<&T> {
        Splits { train: &self.train, validation: &self.validation, test: self.test.as_ref() }
    }

    /// Combines two sets of splits into pairs. There is a test split if both have one.
    pub fn zip<U>(self, other: Splits<U>) -> Splits<(T, U)> {
        Splits {
            train: (self.train, other.train),
            validation: (self.validation, other.validation),
            test: self.test.zip(other.test),
        }
    }

    /// Applies `f` to each value.
    pub fn map<U>(self, mut f: impl FnMut(Split, T) -> U) -> Splits<U> {
        Splits {
            train: f(Split::Train, self.train),
            validation: f(Split::Validation, self.validation),
            test: self.test.map(|test| f(Split::Test, test)),
        }
    }

    /// Applies `f` to each value, and stops at the first error.
    ///
    /// # Errors
    /// Returns the first error of `f`.
    pub fn try_map<U, E>(self, mut f: impl FnMut(Split, T) -> Result<U, E>) -> Result<Splits<U>, E> {
        Ok(Splits {
            train: f(Split::Train, self.train)?,
            validation: f(Split::Validation, self.validation)?,
            test: self.test.map(|test| f(Split::Test, test)).transpose()?,
        })
    }
}
