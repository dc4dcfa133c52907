use std::collections::HashMap;
use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};

use crate::Error;

/// Reads a byte-level BPE vocabulary in GPT-2's format: `vocab.json` maps tokens to ids, and each line of `merges.txt` has
/// two tokens that are merged. Earlier merges have priority.
pub(crate) fn from_files(folder: &Path, vocab: &[u8], merges: &[u8]) -> Result<BPE, Error> {
    let path = folder.join("vocab.json");
    let invalid = |source| Error::Pipeline { path: path.clone(), source };
    let vocab: HashMap<String, u32> = serde_json::from_slice(vocab).map_err(|error| invalid(error.into()))?;
    let merges = read_merges(&folder.join("merges.txt"), merges, &vocab)?;
    let vocab: Vocab = vocab.into_iter().collect();
    BPE::builder().vocab_and_merges(vocab, merges).build().map_err(invalid)
}

fn read_merges(path: &Path, merges: &[u8], vocab: &HashMap<String, u32>) -> Result<Vec<(String, String)>, Error> {
    let broken = |line: usize, reason: String| {
        Err(Error::Broken { path: path.to_owned(), reason: format!("line {line}: {reason}") })
    };
    let shown = |text: &str| text.chars().take(40).collect::<String>();
    let text =
        str::from_utf8(merges).map_err(|error| Error::Pipeline { path: path.to_owned(), source: error.into() })?;
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let Some((first, second)) = line.split_once(' ').filter(|(_, second)| !second.contains(' ')) else {
            return broken(number, format!("found `{}`, expected two tokens with a space between them", shown(line)));
        };
        let joined = [first, second].concat();
        if let Some(missing) = [first, second, &joined].into_iter().find(|token| !vocab.contains_key(*token)) {
            return broken(number, format!("`{}` is not in vocab.json", shown(missing)));
        }
        pairs.push((first.to_owned(), second.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use crate::Tokenizer;
    use crate::samples::byte_level_files;

    /// Written by `tests/tiny-bpe/generate.py`.
    const EXPECTED: &str = include_str!("../tests/tiny-bpe/roberta.json");

    #[test]
    fn files_without_tokenizer_json_are_auto_tokenizer_s() {
        let cases: Vec<Value> = serde_json::from_str(EXPECTED).expect("it is JSON");
        for case in cases {
            let files = case["files"].as_object().expect("files");
            let texts: Vec<(&str, String)> =
                files.iter().map(|(name, json)| (name.as_str(), json.to_string())).collect();
            let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let folder = byte_level_files(&texts);
            let tokenizer = Tokenizer::from_folder(folder.path()).unwrap_or_else(|error| panic!("{files:?}: {error}"));
            let saved = tempfile::tempdir().expect("a temporary folder");
            tokenizer.save(saved.path()).expect("it is writable");
            let again = Tokenizer::from_folder(saved.path()).expect("what was saved is whole");
            for row in case["rows"].as_array().expect("rows") {
                let (text, pair) = (row["text"].as_str().expect("a text"), row["pair"].as_str());
                for tokenizer in [&tokenizer, &again] {
                    let list = tokenizer.list(text, pair).expect("every byte is known");
                    assert_eq!(json!(list.input_ids), row["ids"], "{files:?} {text:?}: {:?}", list.tokens);
                    assert_eq!(json!(list.offsets), row["offsets"], "{files:?} {text:?}: {:?}", list.tokens);
                }
            }
        }
    }

    #[test]
    fn what_is_damaged_or_missing_is_named() {
        let refused = |name: &str, content: Option<&str>| {
            let folder = byte_level_files(&[]);
            match content {
                Some(content) => fs::write(folder.path().join(name), content).expect("it is writable"),
                None => fs::remove_file(folder.path().join(name)).expect("it is there"),
            }
            let error = Tokenizer::from_folder(folder.path()).expect_err("it is not whole");
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{source}")
        };
        for (name, content, expected) in [
            ("merges.txt", None, "merges.txt` is missing"),
            (
                "merges.txt",
                Some("#version: 0.2\nl e\nl  e\n"),
                "merges.txt` describes a tokenizer that does not work: line 3",
            ),
            ("merges.txt", Some("l q\n"), "line 1: `lq` is not in vocab.json"),
            ("merges.txt", Some("\u{fffd} q\n"), "line 1: `\u{fffd}` is not in vocab.json"),
            ("vocab.json", Some("[1]"), "expected a map"),
            (
                "vocab.json",
                Some(r#"{"a": "b"}"#),
                "vocab.json` is not a tokenizer: invalid type: string \"b\", expected u32",
            ),
            ("vocab.json", Some(r#"{"a": 0}"#), "merges.txt` describes"),
            ("added_tokens.json", Some(r#"{"<new>": 300}"#), "`<new>` has the id 300, expected 288"),
            ("added_tokens.json", Some(r#"{"": 288}"#), "expected a token that is not empty"),
            ("tokenizer_config.json", Some(r#"{"sep_token": "absent"}"#), "no sep_token: looked for `absent`"),
            ("config.json", Some(r#"{"model_type": "modernbert"}"#), "`tokenizer_class` in `tokenizer_config.json`"),
        ] {
            let message = refused(name, content);
            assert!(message.contains(expected), "{name} {content:?}: {message}");
        }
    }

    #[test]
    fn a_sentencepiece_model_alone_is_refused_with_advice() {
        for name in ["sentencepiece.bpe.model", "spiece.model"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::write(folder.path().join(name), "x").expect("it is writable");
            let message = Tokenizer::from_folder(folder.path()).expect_err("it is not read").to_string();
            assert!(message.contains(name) && message.contains("save_pretrained"), "{message}");
        }
    }
}
