//! Upper bounds for the sizes that a file claims.

use std::io;

/// The highest compression ratio accepted. [`FREE_BYTES`] are always allowed in addition.
const LARGEST_RATIO: u64 = 1000;
const FREE_BYTES: u64 = 16 << 20;

/// The maximum decompressed size of a compressed buffer of this length.
pub(crate) fn most_decompressed(length: u64) -> u64 {
    length.saturating_mul(LARGEST_RATIO).saturating_add(FREE_BYTES)
}

/// Returns the claimed length if it is between 0 and `most`.
///
/// # Errors
/// An error of kind `InvalidData` if it is not.
pub(crate) fn within(claimed: i64, most: u64, what: &str) -> io::Result<u64> {
    match u64::try_from(claimed) {
        Ok(length) if length <= most => Ok(length),
        _ => Err(invalid(format!("{what} declares {claimed} bytes, expected at most {most}"))),
    }
}

/// The error for content that is out of bounds.
pub(crate) fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
