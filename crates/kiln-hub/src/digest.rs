use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::Error;

/// The hash that a hub declares for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digest {
    /// SHA-256 of the content; used for large files.
    Sha256([u8; 32]),
    /// Git's blob hash, used for small files: SHA-1 of `blob`, the length, a zero byte and the content.
    GitBlob([u8; 20]),
}

/// A hash in progress.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Digest {
    /// Parses 64 (SHA-256) or 40 (git) hexadecimal digits.
    pub(crate) fn parse(hex: &str) -> Option<Self> {
        match hex.len() {
            64 => decode(hex).map(Self::Sha256),
            40 => decode(hex).map(Self::GitBlob),
            _ => None,
        }
    }

    /// Whether both digests use the same hash function, so that they can be compared.
    pub(crate) fn is_of_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Starts a digest of the same kind for a file of `size` bytes.
    pub(crate) fn hasher(self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::GitBlob(_) => Hasher::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }

    /// Computes the digest of a file, of the same kind; none if the file does not exist.
    pub(crate) fn of_file(self, path: &Path) -> Result<Option<Self>, Error> {
        let mut file = match kiln_files::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io(path))?,
        };
        let size = file.metadata().map_err(Error::io(path))?.len();
        let mut hasher = self.hasher(size);
        hasher.read(&mut file).map_err(Error::io(path))?;
        Ok(Some(hasher.finish()))
    }
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sha256) => sha256.update(bytes),
            Self::GitBlob(sha1) => sha1.update(bytes),
        }
    }

    /// Reads until the end of `reader`.
    pub(crate) fn read(&mut self, reader: &mut impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(()),
                read => self.update(&buffer[..read]),
            }
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Sha256(sha256) => Digest::Sha256(sha256.finalize().into()),
            Self::GitBlob(sha1) => Digest::GitBlob(sha1.finalize().into()),
        }
    }
}

fn decode<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        // The standard parser also accepts a sign.
        let digits = std::str::from_utf8(pair).ok().filter(|digits| !digits.starts_with('+'))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

/// Writes only the digits, which are the name of the blob in Hugging Face's cache.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Sha256(bytes) => bytes,
            Self::GitBlob(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(kind: Digest, content: &[u8]) -> Digest {
        let mut hasher = kind.hasher(content.len() as u64);
        hasher.read(&mut &content[..]).expect("a slice can be read");
        hasher.finish()
    }

    #[test]
    fn published_values() {
        // `git hash-object` of an empty file and of "hello\n", and the SHA-256 of "abc" from FIPS 180-2.
        for (hex, content) in [
            ("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", &b""[..]),
            ("ce013625030ba8dba906f756967f9e9ca394464a", b"hello\n"),
            ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", b"abc"),
        ] {
            let digest = Digest::parse(hex).expect("hexadecimal digits");
            assert_eq!(digest_of(digest, content), digest);
            assert_eq!(digest.to_string(), hex);
        }
    }

    #[test]
    fn other_texts_are_no_digest() {
        let long = "0".repeat(64);
        for text in ["", "abc", &long[1..], &format!("+{}", &long[1..]), &"g".repeat(40), &"é".repeat(20)] {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
    }
}
