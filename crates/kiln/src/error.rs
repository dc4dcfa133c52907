//! The errors of a run: wrong usage, an interruption, or another failure.

use std::fmt;

use crate::RecipeError;

/// Why a run failed. [`source`](std::error::Error::source) returns the cause.
pub struct Error {
    kind: ErrorKind,
    inner: anyhow::Error,
}

/// The kind of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The recipe or an option is wrong and has to be corrected.
    Usage,
    /// The observer stopped the work. If it can be resumed, its state is saved.
    Interrupted,
    /// A file, a hub or the training failed.
    Failed,
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether a training diverged: its numbers were no longer finite.
    pub fn is_divergence(&self) -> bool {
        use kiln_train::Error::{Diverged, DivergedInValidation};
        let is_divergence = |error: &kiln_train::Error| matches!(error, Diverged { .. } | DivergedInValidation { .. });
        self.inner.chain().any(|cause| cause.downcast_ref().is_some_and(is_divergence))
    }
}

impl From<anyhow::Error> for Error {
    fn from(inner: anyhow::Error) -> Self {
        let is_usage = inner.chain().any(|cause| cause.is::<RecipeError>() || cause.is::<UsageError>());
        let kind = match () {
            () if inner.is::<Self>() => inner.downcast_ref().map_or(ErrorKind::Failed, Self::kind),
            () if inner.is::<Interrupted>() => ErrorKind::Interrupted,
            () if is_usage => ErrorKind::Usage,
            () => ErrorKind::Failed,
        };
        Self { kind, inner }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source()
    }
}

/// Settings that contradict each other, or do not fit the data or the model.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The observer stopped the work. The text says what is saved.
#[derive(Debug)]
pub struct Interrupted(pub String);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted; {}", self.0)
    }
}

impl std::error::Error for Interrupted {}
