use std::path::Path;

use polars::prelude::PolarsResult;

use crate::Error;

/// Runs polars on a file. The decoders of polars panic on some damaged files; this converts a panic into an error that
/// names the file, and prints nothing.
pub(crate) fn guarded<T>(path: &Path, decode: impl FnOnce() -> PolarsResult<T>) -> Result<T, Error> {
    match kiln_files::guarded(decode) {
        Ok(decoded) => decoded.map_err(|source| Error::Columnar { path: path.to_owned(), source }),
        Err(reason) => {
            Err(Error::Damaged { path: path.to_owned(), problem: format!("it cannot be decoded: {reason}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_names_the_file() {
        let path = Path::new("a.parquet");
        assert_eq!(guarded(path, || Ok(3)).expect("nothing panics"), 3);
        let message = guarded(path, || -> PolarsResult<()> { panic!("no {}", 7) }).expect_err("it panics").to_string();
        assert_eq!(message, "a.parquet: the file is damaged: it cannot be decoded: no 7");
    }
}
