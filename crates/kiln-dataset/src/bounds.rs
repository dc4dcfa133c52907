//! Bounds on the sizes that a file claims.

use std::io;

/// A compressed buffer may become this many times as long; [`FREE_BYTES`] are always allowed.
const LARGEST_RATIO: u64 = 1000;
const FREE_BYTES: u64 = 16 << 20;

/// How long a compressed buffer of this length may become.
pub(crate) fn most_decompressed(length: u64) -> u64 {
    length.saturating_mul(LARGEST_RATIO).saturating_add(FREE_BYTES)
}

/// The claimed length, where it is neither negative nor above the most.
///
/// # Errors
/// Of the kind `InvalidData`.
pub(crate) fn within(claimed: i64, most: u64, what: &str) -> io::Result<u64> {
    match u64::try_from(claimed) {
        Ok(length) if length <= most => Ok(length),
        _ => Err(invalid(format!("{what} has {claimed} bytes by its own account, expected {most} at most"))),
    }
}

/// What a reader of this crate returns for content that is out of bounds.
pub(crate) fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
