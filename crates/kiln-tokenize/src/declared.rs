use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::Error;

/// The largest id that a token may have. The largest vocabularies in use have about a million entries, and the time to save
/// a tokenizer is proportional to the largest id.
pub(crate) const LARGEST_ID: u32 = (1 << 24) - 1;

/// The maximum number of steps of a normalizer, pre-tokenizer or decoder. Those in use have a few dozen, and each step may
/// hold a compiled pattern.
const MOST_STEPS: usize = 1_000;

/// The maximum number of bytes of a pattern or another string in a step. Those in use have some hundreds, and a compiled
/// pattern takes hundreds of times as much memory.
const LONGEST_PATTERN: usize = 16_384;

/// The maximum number of bytes of a token that is searched in whole texts: an added token or a Unigram piece. The search
/// takes 200 bytes of memory and one level of recursion for each byte.
const LONGEST_TOKEN: usize = 1_024;

/// The parts of `tokenizer.json` whose sizes are checked.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    #[serde(default)]
    content: String,
}

#[derive(Default, Deserialize)]
struct Model {
    #[serde(default)]
    vocab: LongestPiece,
}

/// The number of bytes of the longest piece of a Unigram vocabulary, a list of pairs of piece and score. 0 for any other
/// vocabulary.
#[derive(Default)]
struct LongestPiece(usize);

impl<'de> Deserialize<'de> for LongestPiece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pieces;

        impl<'de> Visitor<'de> for Pieces {
            type Value = LongestPiece;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pieces: A) -> Result<LongestPiece, A::Error> {
                let mut longest = 0;
                while let Some((piece, _)) = pieces.next_element::<(String, IgnoredAny)>()? {
                    longest = longest.max(piece.len());
                }
                Ok(LongestPiece(longest))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut tokens: A) -> Result<LongestPiece, A::Error> {
                while tokens.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(LongestPiece(0))
            }
        }

        deserializer.deserialize_any(Pieces)
    }
}

/// Checks the length of a token in bytes. `place` is the part of the file that has it.
pub(crate) fn check_length(path: &Path, place: &str, bytes: usize) -> Result<(), Error> {
    if bytes <= LONGEST_TOKEN {
        return Ok(());
    }
    let reason = format!("{place} has a token of {bytes} bytes, expected at most {LONGEST_TOKEN}");
    Err(Error::Broken { path: path.to_owned(), reason })
}

/// Checks the sizes declared in `tokenizer.json`, before anything is allocated for them.
///
/// Invalid JSON and wrong types are not reported here: the parser has better messages.
pub(crate) fn check(path: &Path, json: &[u8]) -> Result<(), Error> {
    let Ok(outline) = serde_json::from_slice::<Outline>(json) else { return Ok(()) };
    let refuse = |reason: String| Err(Error::Broken { path: path.to_owned(), reason });
    if let Some(Added { id, .. }) = outline.added_tokens.iter().find(|token| token.id > LARGEST_ID) {
        return refuse(format!("added_tokens has the id {id}, expected at most {LARGEST_ID}"));
    }
    let longest = outline.added_tokens.iter().map(|token| token.content.len()).max();
    check_length(path, "added_tokens", longest.unwrap_or(0))?;
    check_length(path, "model.vocab", outline.model.vocab.0)?;
    let parts =
        [("normalizer", &outline.normalizer), ("pre_tokenizer", &outline.pre_tokenizer), ("decoder", &outline.decoder)];
    for (name, part) in parts {
        let steps = steps(part);
        if steps > MOST_STEPS {
            return refuse(format!("{name} has {steps} steps, expected at most {MOST_STEPS}"));
        }
        let longest = longest_pattern(part);
        if longest > LONGEST_PATTERN {
            return refuse(format!("{name} has a pattern of {longest} bytes, expected at most {LONGEST_PATTERN}"));
        }
    }
    match charsmap(&outline.normalizer).map(undersized) {
        Some(Some(reason)) => refuse(format!("normalizer: {reason}")),
        _ => Ok(()),
    }
}

/// The number of steps of a part, including those of nested sequences.
fn steps(part: &Value) -> usize {
    let lists = ["normalizers", "pretokenizers", "decoders"].map(|name| part[name].as_array());
    lists.into_iter().flatten().map(|list| list.len() + list.iter().map(steps).sum::<usize>()).sum()
}

/// The number of bytes of the longest string in a part, except character maps.
fn longest_pattern(part: &Value) -> usize {
    match part {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(longest_pattern).max().unwrap_or(0),
        Value::Object(keys) => {
            let patterns = keys.iter().filter(|(key, _)| *key != CHARSMAP);
            patterns.map(|(_, value)| longest_pattern(value)).max().unwrap_or(0)
        }
        _ => 0,
    }
}

/// The key of a character map.
const CHARSMAP: &str = "precompiled_charsmap";

/// The first `precompiled_charsmap` in a normalizer or in a sequence of normalizers.
fn charsmap(normalizer: &Value) -> Option<&str> {
    match normalizer {
        Value::Object(keys) => {
            let own = keys.get(CHARSMAP).and_then(Value::as_str);
            own.or_else(|| keys.values().find_map(charsmap))
        }
        Value::Array(values) => values.iter().find_map(charsmap),
        _ => None,
    }
}

/// Why a character map of SentencePiece cannot be read, if it cannot: its first four bytes declare the length of the table
/// that follows.
fn undersized(charsmap: &str) -> Option<String> {
    let head = charsmap.get(..8).and_then(|head| STANDARD.decode(head).ok());
    let Some(&[a, b, c, d, ..]) = head.as_deref() else {
        return Some("precompiled_charsmap is not base64 of 6 bytes or more".to_owned());
    };
    let declared = u32::from_le_bytes([a, b, c, d]) as usize;
    let present = (charsmap.len() / 4 * 3).saturating_sub(4);
    (declared > present)
        .then(|| format!("precompiled_charsmap declares a table of {declared} bytes and holds {present} at most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charsmap_of(declared: u32, bytes: usize) -> String {
        let mut blob = declared.to_le_bytes().to_vec();
        blob.resize(4 + bytes, 0);
        STANDARD.encode(blob)
    }

    #[test]
    fn a_table_larger_than_its_file_is_refused() {
        assert_eq!(undersized(&charsmap_of(1024, 1024)), None);
        assert!(undersized(&charsmap_of(0xffff_fff0, 1024)).expect("4 GB are declared").contains("4294967280"));
        assert!(undersized("AA").is_some() && undersized("*_*_*_*_").is_some());
        let json = format!(
            r#"{{"normalizer": {{"type": "Sequence", "normalizers": [{{"type": "NFC"}}, {{"type": "Precompiled", "precompiled_charsmap": "{}"}}]}}}}"#,
            charsmap_of(0xffff_fff0, 64)
        );
        let refused = check(Path::new("here/tokenizer.json"), json.as_bytes()).expect_err("it declares too much");
        assert!(refused.to_string().starts_with("`here/tokenizer.json`"), "{refused}");
    }

    #[test]
    fn absurdly_many_steps_are_refused() {
        let json = |count: usize| {
            let inner = vec![r#"{"type": "NFC"}"#; count].join(", ");
            let sequence = format!(r#"{{"type": "Sequence", "normalizers": [{inner}]}}"#);
            format!(r#"{{"normalizer": {{"type": "Sequence", "normalizers": [{sequence}]}}, "decoder": null}}"#)
        };
        assert!(check(Path::new("x"), json(999).as_bytes()).is_ok());
        let refused = check(Path::new("x"), json(1_000).as_bytes()).expect_err("one step too many").to_string();
        assert!(refused.contains("normalizer has 1001 steps, expected at most 1000"), "{refused}");
    }

    #[test]
    fn an_absurdly_long_pattern_is_refused_and_a_character_map_is_none() {
        let json = |key: &str, value: &str| {
            format!(r#"{{"decoder": {{"decoders": [{{"type": "x", "pattern": {{"{key}": "{value}"}}}}]}}}}"#)
        };
        let long = "a".repeat(16_385);
        assert!(check(Path::new("x"), json("Regex", &long[1..]).as_bytes()).is_ok());
        assert!(check(Path::new("x"), json(CHARSMAP, &long).as_bytes()).is_ok());
        let refused = check(Path::new("x"), json("Regex", &long).as_bytes()).expect_err("too long").to_string();
        assert!(refused.contains("decoder has a pattern of 16385 bytes"), "{refused}");
    }

    #[test]
    fn absurdly_long_tokens_are_refused() {
        let refused = |json: String| check(Path::new("x"), json.as_bytes()).map_err(|error| error.to_string());
        for (bytes, expected) in [(1_024, None), (1_025, Some("a token of 1025 bytes, expected at most 1024"))] {
            let token = "a".repeat(bytes);
            for (place, json) in [
                ("added_tokens", format!(r#"{{"added_tokens": [{{"id": 3, "content": "{token}"}}]}}"#)),
                (
                    "model.vocab",
                    format!(r#"{{"model": {{"type": "Unigram", "vocab": [["b", 0], ["{token}", -1.5]]}}}}"#),
                ),
            ] {
                let message = refused(json).err();
                assert_eq!(message.is_some(), expected.is_some(), "{place}: {message:?}");
                assert!(
                    message.iter().all(|text| text.contains(place) && text.contains(expected.unwrap_or(""))),
                    "{message:?}"
                );
            }
        }
        // The tokens of other vocabularies may be longer, because they are looked up word by word.
        let token = "a".repeat(5_000);
        assert_eq!(refused(format!(r#"{{"model": {{"type": "WordPiece", "vocab": {{"{token}": 1}}}}}}"#)), Ok(()));
    }

    #[test]
    fn an_added_token_with_an_absurd_id_is_refused() {
        let json = |id: u64| format!(r#"{{"added_tokens": [{{"id": 3}}, {{"id": {id}}}]}}"#);
        assert!(check(Path::new("x"), json(4).as_bytes()).is_ok());
        assert!(check(Path::new("x"), json(4_000_000_000).as_bytes()).is_err());
    }
}
