//! Changes to lines of text: line endings, byte order marks, encodings, delimiters, numbers and huge lines.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Change, pick};

/// Size in bytes of a line that is far longer than any real text.
const HUGE: usize = 1 << 20;

/// Replacements for a cell or a word.
const CELLS: [&str; 22] = [
    "",
    "0",
    "-1",
    "2147483648",
    "9223372036854775808",
    "1e308",
    "1e999",
    "NaN",
    "inf",
    "-0",
    "\"",
    "\"\"",
    "'",
    ",",
    "\u{0}",
    "\u{feff}",
    "\u{2028}",
    "\u{200b}",
    "👨‍👩‍👧",
    "e\u{301}",
    "null",
    "O",
];

/// Changes a text file. Sets `invalid_utf8` if the change makes it invalid UTF-8.
pub fn mutate(bytes: &[u8], rng: &mut StdRng) -> Change {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return super::bytes::mutate(bytes, rng);
    };
    match rng.random_range(0..14) {
        0 => endings(text, rng),
        1 => mark(text, rng),
        2 => invalid(text, rng),
        3..=5 => lines(text, rng),
        6..=7 => delimiter(text, rng),
        8..=9 => cell(text, rng),
        10 => huge(text, rng),
        11 => encoding(text, rng),
        _ => super::bytes::mutate(bytes, rng),
    }
}

fn endings(text: &str, rng: &mut StdRng) -> Change {
    let ending = *pick(rng, &["\r\n", "\r", "\n\r", "\n\n", "\u{2028}"]);
    if rng.random_bool(0.5) {
        return Change::new(text.replace('\n', ending), format!("line ends {ending:?}"));
    }
    let mixed: String = text.split_inclusive('\n').enumerate().fold(String::new(), |mixed, (at, line)| {
        mixed + &if at % 2 == 0 { line.replace('\n', ending) } else { line.to_owned() }
    });
    Change::new(mixed, format!("every other line ends {ending:?}"))
}

fn mark(text: &str, rng: &mut StdRng) -> Change {
    let at = if rng.random_bool(0.5) { 0 } else { place(text, rng) };
    let changed = format!("{}\u{feff}{}", &text[..at], &text[at..]);
    Change::new(changed, format!("a byte order mark at {at}"))
}

fn invalid(text: &str, rng: &mut StdRng) -> Change {
    let at = place(text, rng);
    let junks: [&[u8]; 5] = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe5\xa5", b"\xf4\x90\x80\x80"];
    let junk = *pick(rng, &junks);
    let changed = [&text.as_bytes()[..at], junk, &text.as_bytes()[at..]].concat();
    Change { invalid_utf8: true, ..Change::new(changed, format!("{junk:02x?} at {at}")) }
}

fn lines(text: &str, rng: &mut StdRng) -> Change {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.is_empty() {
        return Change::new("\n", "a blank line");
    }
    let at = rng.random_range(0..lines.len());
    let what = match rng.random_range(0..5) {
        0 => {
            lines.remove(at);
            "removed"
        }
        1 => {
            lines.insert(at, lines[at]);
            "repeated"
        }
        2 => {
            lines.insert(at, "\n");
            "behind a blank one"
        }
        3 => {
            lines.insert(at, " \t \u{3000}\n");
            "behind one of white space"
        }
        _ => {
            let other = rng.random_range(0..lines.len());
            lines.swap(at, other);
            "swapped with another"
        }
    };
    Change::new(lines.concat(), format!("line {} {what}", at + 1))
}

fn delimiter(text: &str, rng: &mut StdRng) -> Change {
    let places: Vec<usize> = text.match_indices(['\t', ',', ' ', '"', '=', '-']).map(|(at, _)| at).collect();
    let at = if places.is_empty() { place(text, rng) } else { *pick(rng, &places) };
    let new = *pick(rng, &["", "\t", "\t\t", ",", ";", " ", "\"", "\"\"", "\n", "_"]);
    let rest = text[at..].chars().next().map_or(at, |char| at + char.len_utf8());
    Change::new([&text[..at], new, &text[rest..]].concat(), format!("the delimiter at {at} is {new:?}"))
}

fn cell(text: &str, rng: &mut StdRng) -> Change {
    let is_delimiter = |char: char| matches!(char, '\t' | ',' | '\n' | '\r' | ' ');
    let mut start = 0;
    let cells: Vec<(usize, &str)> = text
        .split(is_delimiter)
        .map(|cell| {
            let at = start;
            start += cell.len() + 1;
            (at, cell)
        })
        .collect();
    let (at, old) = *pick(rng, &cells);
    let new = *pick(rng, &CELLS);
    Change::new([&text[..at], new, &text[at + old.len()..]].concat(), format!("the cell at {at} is {new:?}"))
}

fn huge(text: &str, rng: &mut StdRng) -> Change {
    let at = place(text, rng);
    let unit = *pick(rng, &["a", "好", " ", "a ", "\t", ",", "\"", "👨‍👩‍👧", "e\u{301}", "\u{200d}", "\n", "a\tb\n"]);
    let filler = unit.repeat(HUGE / unit.len());
    Change::new([&text[..at], &filler, &text[at..]].concat(), format!("{HUGE} bytes of {unit:?} at {at}"))
}

fn encoding(text: &str, rng: &mut StdRng) -> Change {
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    match rng.random_range(0..3) {
        0 => Change::new([&b"\xff\xfe"[..], &utf_16(u16::to_le_bytes)].concat(), "UTF-16, little-endian"),
        1 => Change::new([&b"\xfe\xff"[..], &utf_16(u16::to_be_bytes)].concat(), "UTF-16, big-endian"),
        _ => Change::new(text.chars().map(|char| char as u32 as u8).collect::<Vec<u8>>(), "Latin-1"),
    }
}

/// A random byte offset between two characters.
fn place(text: &str, rng: &mut StdRng) -> usize {
    let at = rng.random_range(0..=text.len());
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}
