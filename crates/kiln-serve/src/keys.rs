use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Error;

/// The keys of clients, with their names. Only hashes of the keys are kept.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    name: String,
    hash: [u8; 32],
}

/// The minimum length. Shorter keys could be guessed.
const LEAST_CHARACTERS: usize = 16;

impl Keys {
    /// Reads a file with one `NAME:KEY` per line. Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    /// When the file cannot be read, has no key, or a line is not a unique name and a key of at least 16 visible ASCII
    /// characters.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = kiln_files::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let fail = |line, reason: &str| Error::Key { path: path.to_owned(), line, reason: reason.to_owned() };
        let mut keys: Vec<Key> = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            let (name, key) = line.split_once(':').ok_or_else(|| fail(number, "expected NAME:KEY"))?;
            let (name, key) = (name.trim(), key.trim());
            if name.is_empty() || keys.iter().any(|known| known.name == name) {
                return Err(fail(number, "expected a name that no other key has"));
            }
            if key.len() < LEAST_CHARACTERS || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(fail(number, "expected a key of at least 16 visible ASCII characters"));
            }
            keys.push(Key { name: name.to_owned(), hash: Sha256::digest(key).into() });
        }
        if keys.is_empty() {
            return Err(fail(1, "the file has no key; expected lines of NAME:KEY"));
        }
        Ok(Self(keys))
    }

    /// The name of the key in an `Authorization` header.
    ///
    /// The header's key is hashed and compared with all bytes of every hash, so that the time does not depend on the keys.
    pub fn name_of(&self, authorization: &[u8]) -> Option<&str> {
        let is_bearer = authorization.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
        let hash: [u8; 32] = Sha256::digest(authorization[if is_bearer { 7 } else { 0 }..].trim_ascii()).into();
        let mut name = None;
        for key in &self.0 {
            let difference = key.hash.iter().zip(&hash).fold(0, |difference, (a, b)| difference | (a ^ b));
            if std::hint::black_box(difference) == 0 && is_bearer {
                name = Some(key.name.as_str());
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("keys");
        std::fs::write(&path, text).expect("it is writable");
        Keys::from_file(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_known_by_its_name() {
        let keys = keys("# ours\n\nlab: 0123456789abcdef\nshop:fedcba9876543210\n").expect("two good lines");
        assert_eq!(keys.name_of(b"Bearer 0123456789abcdef"), Some("lab"));
        assert_eq!(keys.name_of(b"bearer fedcba9876543210 "), Some("shop"));
        for other in ["Bearer 0123456789abcdeF", "0123456789abcdef", "Basic 0123456789abcdef", "Bearer ", "", "Bea"] {
            assert_eq!(keys.name_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_bad_line_is_named_and_its_key_is_not_shown() {
        for (text, expected) in [
            ("a:0123456789abcdef\nsecretsecretsecret\n", "line 2: expected NAME:KEY"),
            ("a:short\n", "line 1: expected a key of at least 16"),
            ("a:0123456789abcdef\na:0123456789abcdeg\n", "line 2: expected a name that no other"),
            ("a:secretsecret secret\n", "line 1: expected a key"),
            ("\n# none\n", "has no key"),
        ] {
            let message = keys(text).expect_err(text);
            assert!(message.contains(expected) && !message.contains("secret"), "{message}");
        }
    }
}
