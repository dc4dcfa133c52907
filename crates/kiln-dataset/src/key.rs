use std::hash::{DefaultHasher, Hash, Hasher};

/// A 128-bit hash of a text or of a pair. Two of a million texts have the same key once in 10²⁶ data sets.
pub(crate) type Key = u128;

/// A key that is equal for texts that are equal after trimming.
pub(crate) fn exact((text, text_pair): (&str, Option<&str>)) -> Key {
    key(&(text.trim(), text_pair.map(str::trim)))
}

/// A key that is equal for texts that differ only in case, width, spaces and punctuation.
pub(crate) fn loose((text, text_pair): (&str, Option<&str>)) -> Key {
    key(&(normalize(text), text_pair.map(normalize)))
}

fn key(texts: &impl Hash) -> Key {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        texts.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Lower case, half width, without spaces and punctuation. A text that has nothing else is only trimmed.
pub(crate) fn normalize(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    for char in text.chars().map(half_width) {
        match char {
            // Fast path for ideographs, which are most characters of a Chinese text.
            '\u{3400}'..='\u{9fff}' => normal.push(char),
            _ if char.is_whitespace() || is_punctuation(char) => {}
            _ => normal.extend(char.to_lowercase()),
        }
    }
    if normal.is_empty() { text.trim().to_owned() } else { normal }
}

/// Converts a full-width character (U+FF01 to U+FF5E) to its ASCII form.
fn half_width(char: char) -> char {
    match char {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(char) - 0xfee0).unwrap_or(char),
        _ => char,
    }
}

/// Chinese and English punctuation, and invisible format characters. Emoji and symbols carry meaning, so they are not
/// included.
fn is_punctuation(char: char) -> bool {
    match char {
        '\0'..='\u{7f}' => char.is_ascii_punctuation() || char.is_ascii_control(),
        '\u{a1}' | '\u{a7}' | '\u{ab}' | '\u{ad}' | '\u{b6}' | '\u{b7}' | '\u{bb}' | '\u{bf}' => true,
        // General punctuation with the zero-width marks, CJK punctuation, vertical and small forms, half-width CJK marks.
        '\u{2000}'..='\u{206f}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' => true,
        '\u{30fb}' | '\u{fe10}'..='\u{fe6f}' | '\u{feff}' | '\u{ff5f}'..='\u{ff65}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loose_keys_ignore_case_width_spaces_and_punctuation_alone() {
        let normal = normalize("很好，Very good");
        for same in ["很好,very GOOD!!", " 很 好 ｖｅｒｙ　ｇｏｏｄ……", "“很好”——（Very·good）"]
        {
            assert_eq!(normalize(same), normal, "{same}");
        }
        assert_ne!(normalize("很好😀"), normalize("很好😡"));
        assert_ne!(normalize("好3"), normalize("好4"));
        assert_ne!(normalize("!!!"), normalize("???"), "texts of punctuation alone stay apart");
    }

    #[test]
    fn a_pair_is_two_texts() {
        let keys = [exact(("ab", None)), exact(("ab", Some(""))), exact(("a", Some("b"))), exact(("b", Some("a")))];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b), "key {i}");
        }
        assert_eq!(exact((" ab\u{3000}", None)), keys[0]);
    }
}
