use std::io;

use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a folder or an address is not as expected.
    #[error("{place}: {reason}")]
    Place {
        /// The file or address.
        place: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// An operation of an object store failed.
    #[error("{place}: cannot be reached")]
    Store {
        /// The file or address.
        place: String,
        /// The error of the store.
        #[source]
        source: object_store::Error,
    },
    /// The model cannot be opened.
    #[error("the model cannot be opened: {0}")]
    Model(String),
    /// Not all shards were computed.
    #[error("{finished} of {total} shards are finished; run the same command to continue: {reason}")]
    Unfinished {
        /// The number of finished shards, in this run or before.
        finished: usize,
        /// The number of shards of the job.
        total: usize,
        /// The engine's error.
        reason: String,
    },
    /// A part of the engine could not be started, or failed.
    #[error("{0}")]
    Engine(String),
}

impl Error {
    pub(crate) fn place(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Place { place: place.into(), reason: reason.into() }
    }

    pub(crate) fn store(place: impl Into<String>) -> impl FnOnce(object_store::Error) -> Self {
        let place = place.into();
        |source| Self::Store { place, source }
    }

    /// Converts an error of the Parquet reader or writer. It may contain an error of the store.
    pub(crate) fn parquet(place: &str, error: ParquetError) -> Self {
        match error {
            ParquetError::External(source) => match source.downcast::<object_store::Error>() {
                Ok(source) => Self::Store { place: place.to_owned(), source: *source },
                Err(other) => Self::place(place, other.to_string()),
            },
            other => Self::place(place, other.to_string()),
        }
    }

    /// Whether a retry may succeed. The engine retries these errors.
    fn is_passing(&self) -> bool {
        use object_store::Error as Store;
        match self {
            Self::Store { source, .. } => !matches!(
                source,
                Store::NotFound { .. } | Store::PermissionDenied { .. } | Store::Unauthenticated { .. }
            ),
            _ => false,
        }
    }

    /// The error with its causes, in one line.
    pub(crate) fn in_words(&self) -> String {
        let mut words = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            words.push_str(": ");
            words.push_str(&error.to_string());
            cause = error.source();
        }
        words
    }
}

/// Marks around an executor's message. The engine wraps that message several times in its own.
const MARKS: [&str; 2] = ["<<kiln: ", " :kiln>>"];

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        let words = format!("{}{}{}", MARKS[0], error.in_words(), MARKS[1]);
        match error.is_passing() {
            true => Self::IoError(io::Error::other(words)),
            false => Self::Execution(words),
        }
    }
}

/// The executor's part of the engine's message, or the whole message if it has no such part.
pub(crate) fn reason(message: &str) -> String {
    let inner = message.split_once(MARKS[0]).and_then(|(_, rest)| rest.split_once(MARKS[1]));
    inner.map_or(message, |(inner, _)| inner).replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executors_words_are_found_in_the_engines() {
        let error = DataFusionError::from(Error::place("a.parquet", "found \"x\""));
        assert_eq!(reason(&format!("Job failed: {error}, stage 1")), "a.parquet: found \"x\"");
        assert_eq!(reason("no executor"), "no executor");
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let source = || object_store::Error::Generic { store: "S3", source: "503".into() };
        let passing = Error::store("s3://a/b")(source());
        assert!(matches!(DataFusionError::from(passing), DataFusionError::IoError(_)));
        let missing = object_store::Error::NotFound { path: "b".to_owned(), source: "404".into() };
        assert!(matches!(DataFusionError::from(Error::store("s3://a/b")(missing)), DataFusionError::Execution(_)));
        let carried = Error::parquet("a", ParquetError::External(Box::new(source())));
        assert!(matches!(carried, Error::Store { .. }), "{carried}");
    }
}
