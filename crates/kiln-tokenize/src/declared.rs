use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::Error;

/// The largest id that a token may have. The largest vocabulary in use has about a million entries; saving a tokenizer
/// takes time in proportion to the largest id.
pub(crate) const LARGEST_ID: u32 = (1 << 24) - 1;

/// The most steps of a normalizer, or of another part: those in use have a few dozen, and each may hold a compiled pattern.
const MOST_STEPS: usize = 1_000;

/// The parts of `tokenizer.json` that state sizes beside the vocabulary.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: Vec<AddedId>,
}

#[derive(Deserialize)]
struct AddedId {
    id: u32,
}

/// Checks the sizes that `tokenizer.json` declares, before anything is allocated for them.
///
/// What is not JSON or has other types is left to the parser, whose messages are better.
pub(crate) fn check(path: &Path, json: &[u8]) -> Result<(), Error> {
    let Ok(outline) = serde_json::from_slice::<Outline>(json) else { return Ok(()) };
    let refuse = |reason: String| Err(Error::Broken { path: path.to_owned(), reason });
    if let Some(AddedId { id }) = outline.added_tokens.iter().find(|token| token.id > LARGEST_ID) {
        return refuse(format!("added_tokens has the id {id}, expected {LARGEST_ID} at most"));
    }
    let parts =
        [("normalizer", &outline.normalizer), ("pre_tokenizer", &outline.pre_tokenizer), ("decoder", &outline.decoder)];
    for (name, part) in parts {
        let steps = steps(part);
        if steps > MOST_STEPS {
            return refuse(format!("{name} has {steps} steps, expected {MOST_STEPS} at most"));
        }
    }
    match charsmap(&outline.normalizer).map(undersized) {
        Some(Some(reason)) => refuse(format!("normalizer: {reason}")),
        _ => Ok(()),
    }
}

/// How many steps a part has, those of sequences in it among them.
fn steps(part: &Value) -> usize {
    let lists = ["normalizers", "pretokenizers", "decoders"].map(|name| part[name].as_array());
    lists.into_iter().flatten().map(|list| list.len() + list.iter().map(steps).sum::<usize>()).sum()
}

/// The first `precompiled_charsmap` of a normalizer or of a sequence of them.
fn charsmap(normalizer: &Value) -> Option<&str> {
    match normalizer {
        Value::Object(keys) => {
            let own = keys.get("precompiled_charsmap").and_then(Value::as_str);
            own.or_else(|| keys.values().find_map(charsmap))
        }
        Value::Array(values) => values.iter().find_map(charsmap),
        _ => None,
    }
}

/// Why a character map of SentencePiece cannot be read: its first four bytes declare the length of the table behind them.
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
        assert!(refused.contains("normalizer has 1001 steps, expected 1000"), "{refused}");
    }

    #[test]
    fn an_added_token_with_an_absurd_id_is_refused() {
        let json = |id: u64| format!(r#"{{"added_tokens": [{{"id": 3}}, {{"id": {id}}}]}}"#);
        assert!(check(Path::new("x"), json(4).as_bytes()).is_ok());
        assert!(check(Path::new("x"), json(4_000_000_000).as_bytes()).is_err());
    }
}
