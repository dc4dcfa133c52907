use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::Unit;
use crate::{Encoding, Error, Place};

/// The encoding that all bytes of a file are valid in: UTF-8, else GB18030 where the file looks like Chinese.
///
/// The whole file is read, in constant memory: a sample could miss the one line that decides.
///
/// # Errors
/// [`Error::Encoding`] names the first line that is not UTF-8 when the file is neither.
pub(crate) fn detect(path: &Path) -> Result<Encoding, Error> {
    let mut first_bad = None;
    for_each_line(path, |line, bytes| {
        first_bad = invalid_utf8(bytes).map(|bytes| (line, bytes.to_vec()));
        first_bad.is_none()
    })?;
    let Some((line, bytes)) = first_bad else {
        return Ok(Encoding::Utf8);
    };

    let mut census = Census::default();
    for_each_line(path, |_, bytes| census.add(bytes))?;
    if census.looks_chinese() {
        return Ok(Encoding::Gb18030);
    }
    let place = Place { path: path.to_owned(), line, unit: Unit::Line };
    Err(Error::Encoding { place, bytes, encoding: Encoding::Utf8 })
}

/// Decodes a whole line or field; `Err` holds the first invalid bytes.
///
/// A line feed, a tab, a comma and a quote are never part of a longer character in any of the three encodings,
/// so a file can be cut at them before it is decoded.
pub(crate) fn decode(bytes: Vec<u8>, encoding: Encoding) -> Result<String, Vec<u8>> {
    let codec = match encoding {
        Encoding::Utf8 => {
            return String::from_utf8(bytes)
                .map_err(|error| invalid_utf8(error.as_bytes()).unwrap_or_default().to_vec());
        }
        Encoding::Gbk => encoding_rs::GBK,
        Encoding::Gb18030 => encoding_rs::GB18030,
    };
    match codec.decode_without_bom_handling_and_without_replacement(&bytes) {
        Some(text) => Ok(text.into_owned()),
        None => Err(invalid_gb(&bytes).unwrap_or(&bytes).iter().take(SHOWN).copied().collect()),
    }
}

/// How many bytes an error shows.
const SHOWN: usize = 4;

fn invalid_utf8(bytes: &[u8]) -> Option<&[u8]> {
    let start = std::str::from_utf8(bytes).err()?.valid_up_to();
    Some(&bytes[start..bytes.len().min(start + SHOWN)])
}

fn invalid_gb(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match next_gb(rest) {
            Some((_, length)) => rest = &rest[length..],
            None => return Some(rest),
        }
    }
    None
}

/// Counts what a file's characters would be if it were GB18030.
#[derive(Default)]
struct Census {
    common: u64,
    rare: u64,
    invalid: bool,
}

impl Census {
    /// Returns whether to go on.
    fn add(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let Some((kind, length)) = next_gb(rest) else {
                self.invalid = true;
                return false;
            };
            match kind {
                // A control byte is no text in any encoding.
                Kind::Ascii if byte < 0x20 && !byte.is_ascii_whitespace() => self.invalid = true,
                Kind::Ascii => {}
                Kind::Common => self.common += 1,
                Kind::Rare => self.rare += 1,
            }
            rest = &rest[length..];
        }
        !self.invalid
    }

    /// Chinese prose is nearly all of GB 2312's first level and its punctuation; bytes of another encoding that
    /// happen to be valid fall all over the table.
    fn looks_chinese(&self) -> bool {
        !self.invalid && self.common >= 3 * self.rare && self.common > 0
    }
}

enum Kind {
    Ascii,
    /// A symbol or letter of rows 1 to 3 of GB 2312, or one of the 3,755 characters of its first level (rows 16 to 55).
    Common,
    Rare,
}

/// The kind and length in bytes of the first character, by the structure of GB18030: one, two or four bytes.
fn next_gb(bytes: &[u8]) -> Option<(Kind, usize)> {
    match *bytes {
        [0x00..=0x7f, ..] => Some((Kind::Ascii, 1)),
        [0xa1..=0xa3 | 0xb0..=0xd7, 0xa1..=0xfe, ..] => Some((Kind::Common, 2)),
        [0x81..=0xfe, 0x40..=0x7e | 0x80..=0xfe, ..] => Some((Kind::Rare, 2)),
        [0x81..=0xfe, 0x30..=0x39, 0x81..=0xfe, 0x30..=0x39, ..] => Some((Kind::Rare, 4)),
        _ => None,
    }
}

/// Calls `f` with each line's number, from 1, and its bytes, until it returns false.
fn for_each_line(path: &Path, mut f: impl FnMut(u64, &[u8]) -> bool) -> Result<(), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path).map_err(read)?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(read)? == 0 || !f(line, &bytes) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect_bytes(bytes: &[u8]) -> Result<Encoding, Error> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), bytes).expect("a small file");
        detect(file.path())
    }

    const PROSE: &str = "酒店的房间很大，早餐也不错。\tpositive\n服务员态度太差了！\tnegative\n";

    #[test]
    fn chinese_in_either_encoding_is_told() {
        assert_eq!(detect_bytes(PROSE.as_bytes()).expect("UTF-8"), Encoding::Utf8);
        let (gbk, _, _) = encoding_rs::GBK.encode(PROSE);
        assert_eq!(detect_bytes(&gbk).expect("GBK"), Encoding::Gb18030);
        let (gb18030, _, _) = encoding_rs::GB18030.encode("房间很大，早餐不错😀𠮷\n");
        assert_eq!(detect_bytes(&gb18030).expect("GB18030"), Encoding::Gb18030);
        assert_eq!(decode(gb18030.into_owned(), Encoding::Gb18030).expect("valid"), "房间很大，早餐不错😀𠮷\n");
    }

    #[test]
    fn damaged_text_is_an_error_that_names_the_line() {
        let error = detect_bytes(b"\xe5\xa5\xbd\tpositive\n\xff\xfe\xfa\xfb\x00bad\tnegative\n").expect_err("no text");
        let message = error.to_string();
        assert!(message.contains(", line 2: the bytes ff fe fa fb are not UTF-8"), "{message}");
        assert!(message.contains("encoding = \"gbk\""), "{message}");
        // One broken byte in a long UTF-8 file does not make it Chinese of another kind.
        let mut broken = PROSE.repeat(50).into_bytes();
        broken[1000] = 0xff;
        assert!(detect_bytes(&broken).is_err());
        assert!(detect_bytes(b"na\xefve caf\xe9s\n").is_err(), "Latin-1");
    }

    #[test]
    fn decoding_errors_show_the_first_bad_bytes() {
        assert_eq!(decode(b"ab\xff\xfe".to_vec(), Encoding::Utf8), Err(vec![0xff, 0xfe]));
        assert_eq!(decode(b"\xc4\xe3\x81\tx".to_vec(), Encoding::Gbk), Err(b"\x81\tx".to_vec()));
    }
}
