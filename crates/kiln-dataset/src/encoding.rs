use std::io::Read;
use std::path::Path;

use crate::content::ByteLines;
use crate::error::Unit;
use crate::{Encoding, Error, Place};

/// Detects the encoding in which all bytes of a file are valid: UTF-16 if there is a byte order mark, otherwise UTF-8,
/// otherwise GB18030 if the text looks Chinese.
///
/// The whole file is read, line by line, because a sample could miss the one line that decides.
///
/// # Errors
/// [`Error::Encoding`] with the first line that is not UTF-8 when the file has none of these encodings;
/// [`Error::Utf16`] when it looks like UTF-16 without a byte order mark.
pub(crate) fn detect(path: &Path) -> Result<Encoding, Error> {
    let sample = sample(path)?;
    if let Some(encoding) = marked(&sample) {
        return Ok(encoding);
    }
    if let Some(encoding) = looks_utf16(&sample) {
        return Err(Error::Utf16 { path: path.to_owned(), encoding });
    }
    let mut first_bad = None;
    for_each_line(path, |line, bytes| {
        first_bad = invalid_utf8(bytes).map(|bytes| (line, bytes.to_vec()));
        first_bad.is_none()
    })?;
    let Some((line, bytes)) = first_bad else {
        return Ok(Encoding::Utf8);
    };

    let (mut census, mut western) = (Census::default(), Western::default());
    for_each_line(path, |_, bytes| western.add(bytes))?;
    for_each_line(path, |_, bytes| census.add(bytes))?;
    if census.looks_chinese() && !western.is_damaged_utf8() {
        return Ok(Encoding::Gb18030);
    }
    let likely = western.looks_western().then_some(Encoding::Windows1252);
    let place = Place { path: path.to_owned(), line, unit: Unit::Line };
    Err(Error::Encoding { place, bytes, encoding: Encoding::Utf8, likely })
}

/// UTF-16, if there is a byte order mark.
pub(crate) fn marked(bytes: &[u8]) -> Option<Encoding> {
    match bytes {
        [0xff, 0xfe, ..] => Some(Encoding::Utf16Le),
        [0xfe, 0xff, ..] => Some(Encoding::Utf16Be),
        _ => None,
    }
}

/// The first 64 KiB of a file.
fn sample(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = kiln_files::open(path).and_then(|file| file.take(1 << 16).read_to_end(&mut bytes));
    read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// Detects UTF-16 without a byte order mark. The high bytes of ASCII characters, such as line feeds and tabs, are
/// zeros, and all of them are at odd or all at even positions. Text in the other encodings has no zeros.
fn looks_utf16(sample: &[u8]) -> Option<Encoding> {
    let (pairs, _) = sample.as_chunks::<2>();
    let zeros = |at: usize| pairs.iter().filter(|pair| pair[at] == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let many = |count: usize, other: usize| count > 1 && count > 20 * other && count * 200 >= pairs.len();
    match (many(odd, even), many(even, odd)) {
        (true, _) => Some(Encoding::Utf16Le),
        (_, true) => Some(Encoding::Utf16Be),
        _ => None,
    }
}

/// Decodes a whole line or field. `Err` holds the first invalid bytes.
///
/// In these encodings, the bytes of a line end, tab, comma or quote are never part of a longer character, so a file can
/// be divided at them before it is decoded. UTF-16 has already been converted to UTF-8.
pub(crate) fn decode(bytes: Vec<u8>, encoding: Encoding) -> Result<String, Vec<u8>> {
    let codec = match encoding {
        Encoding::Utf8 | Encoding::Utf16Le | Encoding::Utf16Be => {
            return String::from_utf8(bytes)
                .map_err(|error| invalid_utf8(error.as_bytes()).unwrap_or_default().to_vec());
        }
        Encoding::Gbk => encoding_rs::GBK,
        Encoding::Gb18030 => encoding_rs::GB18030,
        Encoding::Windows1252 => encoding_rs::WINDOWS_1252,
    };
    match codec.decode_without_bom_handling_and_without_replacement(&bytes) {
        Some(text) => Ok(text.into_owned()),
        None => Err(invalid_gb(&bytes).unwrap_or(&bytes).iter().take(SHOWN).copied().collect()),
    }
}

/// The number of bytes shown in an error.
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

/// Counts the kinds of characters that a file would have in GB18030.
#[derive(Default)]
struct Census {
    common: u64,
    rare: u64,
    invalid: bool,
}

impl Census {
    /// Returns whether to continue.
    fn add(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let Some((kind, length)) = next_gb(rest) else {
                self.invalid = true;
                return false;
            };
            match kind {
                // Text has no control bytes in any encoding.
                Kind::Ascii if byte < 0x20 && !byte.is_ascii_whitespace() => self.invalid = true,
                Kind::Ascii => {}
                Kind::Common => self.common += 1,
                Kind::Rare => self.rare += 1,
            }
            rest = &rest[length..];
        }
        !self.invalid
    }

    /// Almost all characters of Chinese prose are in the first level of GB 2312 or are its punctuation. In other
    /// encodings, bytes that happen to be valid are spread over the whole table.
    fn looks_chinese(&self) -> bool {
        !self.invalid && self.common >= 3 * self.rare && self.common > 0
    }
}

/// Counts used to distinguish Latin-1 and Windows-1252 from damaged UTF-8 and from other encodings.
#[derive(Default)]
struct Western {
    /// Valid UTF-8 characters beyond ASCII.
    utf8: u64,
    /// Byte sequences that are not UTF-8.
    invalid: u64,
    /// Runs of one or two bytes beyond ASCII next to an ASCII letter.
    in_words: u64,
    /// All runs of bytes beyond ASCII.
    runs: u64,
}

impl Western {
    fn add(&mut self, bytes: &[u8]) -> bool {
        for chunk in bytes.utf8_chunks() {
            self.utf8 += chunk.valid().chars().filter(|char| !char.is_ascii()).count() as u64;
            self.invalid += u64::from(!chunk.invalid().is_empty());
        }
        let runs: Vec<&[u8]> = bytes.chunk_by(|a, b| a.is_ascii() == b.is_ascii()).collect();
        for (at, run) in runs.iter().enumerate().filter(|(_, run)| !run[0].is_ascii()) {
            let left = at.checked_sub(1).and_then(|left| runs[left].last());
            let right = runs.get(at + 1).map(|right| &right[0]);
            let in_word = [left, right].into_iter().flatten().any(u8::is_ascii_alphabetic);
            self.in_words += u64::from(in_word && run.len() <= 2);
            self.runs += 1;
        }
        true
    }

    /// Text in another encoding has few sequences that happen to be valid UTF-8.
    fn is_damaged_utf8(&self) -> bool {
        self.utf8 > 4 * self.invalid
    }

    fn looks_western(&self) -> bool {
        self.invalid > 4 * self.utf8 && 10 * self.in_words >= 8 * self.runs && self.runs > 0
    }
}

enum Kind {
    Ascii,
    /// A symbol or letter of rows 1 to 3 of GB 2312, or one of the 3,755 characters of its first level (rows 16 to 55).
    Common,
    Rare,
}

/// The kind and the byte length of the first character. In GB18030, a character is one, two or four bytes.
fn next_gb(bytes: &[u8]) -> Option<(Kind, usize)> {
    match *bytes {
        [0x00..=0x7f, ..] => Some((Kind::Ascii, 1)),
        [0xa1..=0xa3 | 0xb0..=0xd7, 0xa1..=0xfe, ..] => Some((Kind::Common, 2)),
        [0x81..=0xfe, 0x40..=0x7e | 0x80..=0xfe, ..] => Some((Kind::Rare, 2)),
        [0x81..=0xfe, 0x30..=0x39, 0x81..=0xfe, 0x30..=0x39, ..] => Some((Kind::Rare, 4)),
        _ => None,
    }
}

/// Calls `f` with the number of each line, from 1, and its bytes, until `f` returns false.
fn for_each_line(path: &Path, mut f: impl FnMut(u64, &[u8]) -> bool) -> Result<(), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut lines = ByteLines::open(path, None).map_err(read)?;
    let mut bytes = Vec::new();
    for line in 1.. {
        if !lines.read(&mut bytes).map_err(read)? || !f(line, &bytes) {
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
        assert!(message.contains("`gbk`"), "{message}");
        // A broken byte in a long Chinese UTF-8 file does not make it look like GB18030.
        let mut broken = PROSE.repeat(50).into_bytes();
        broken[1000] = 0xff;
        assert!(detect_bytes(&broken).is_err());
    }

    /// Encodes a text as UTF-16 with the byte order of `to_bytes`.
    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn a_byte_order_mark_tells_utf16_and_without_one_the_error_says_what_to_set() {
        type Case = (fn(u16) -> [u8; 2], Encoding, &'static str);
        let cases: [Case; 2] =
            [(u16::to_le_bytes, Encoding::Utf16Le, "utf-16le"), (u16::to_be_bytes, Encoding::Utf16Be, "utf-16be")];
        for (to_bytes, encoding, name) in cases {
            let marked = utf16(&format!("\u{feff}{PROSE}"), to_bytes);
            assert_eq!(detect_bytes(&marked).expect("it has a mark"), encoding);
            for text in [PROSE, "plain words\t1\n"] {
                let message = detect_bytes(&utf16(text, to_bytes)).expect_err("it has no mark").to_string();
                let expected = format!("UTF-16 without a byte order mark; set `encoding = \"{name}\"`");
                assert!(message.contains(&expected), "{message}");
            }
        }
    }

    #[test]
    fn western_text_is_advised_its_encoding_and_broken_utf8_is_not() {
        for text in [&b"na\xefve caf\xe9s\n"[..], b"plain\nF\xfcr die Gr\xf6\xdfe\t1\n"] {
            let message = detect_bytes(text).expect_err("it is not UTF-8").to_string();
            let advice = "the file looks like Windows-1252: set `encoding = \"windows-1252\"`";
            assert!(message.ends_with(advice), "{message}");
        }
        let mut broken = "Für die Größe, naïve cafés\n".repeat(20).into_bytes();
        broken[1] = b'x';
        let message = detect_bytes(&broken).expect_err("it is broken").to_string();
        assert!(message.contains("line 1: the bytes bc") && !message.contains("looks like"), "{message}");
        assert_eq!(decode(b"caf\xe9".to_vec(), Encoding::Windows1252).expect("every byte is a character"), "café");
    }

    #[test]
    fn decoding_errors_show_the_first_bad_bytes() {
        assert_eq!(decode(b"ab\xff\xfe".to_vec(), Encoding::Utf8), Err(vec![0xff, 0xfe]));
        assert_eq!(decode(b"\xc4\xe3\x81\tx".to_vec(), Encoding::Gbk), Err(b"\x81\tx".to_vec()));
    }
}
