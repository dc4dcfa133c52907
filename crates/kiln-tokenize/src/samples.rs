//! Random texts of mixed scripts, and the tokenizers on which the property tests run them.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Value;

use crate::Tokenizer;

/// Parts of random texts: some that normalizers and pre-tokenizers treat specially, and some plain ones.
const PARTS: [&str; 48] = [
    "房",
    "间",
    "房间",
    "干净",
    "clean",
    "Cleaners",
    "unable",
    "cafe",
    "café",
    "cafe\u{301}",
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "\u{3000}",
    "\u{a0}",
    "\u{85}",
    "!",
    "，",
    "。",
    ",",
    ".",
    "-",
    "[SEP]",
    "[SE",
    "P]",
    "[MASK]",
    "<mask>",
    "<s>",
    "</s",
    "\u{1}",
    "\u{fffd}",
    "\u{200b}",
    "\u{200d}",
    "👩\u{200d}🔬",
    "🏽",
    "𠮷",
    "ｃｌｅａｎ",
    "ﬁ",
    "가",
    "か",
    "\u{600}",
    "\u{338}",
    "▁",
    "ㄅ",
    "İ",
    "12",
];

pub(crate) fn text(parts: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PARTS[..]), parts).prop_map(|parts| parts.concat())
}

/// The tokenizer of a folder with one file of a fixture and the given `tokenizer_config.json`.
pub(crate) fn with_config(fixture: &str, file: &str, config: &str) -> Tokenizer {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(fixture).join(file);
    fs::copy(source, folder.path().join(file)).expect("the fixture is readable");
    fs::write(folder.path().join("tokenizer_config.json"), config).expect("it is writable");
    Tokenizer::from_folder(folder.path()).expect("the fixture is whole")
}

/// The byte-level fixture as `vocab.json` and `merges.txt` of a RoBERTa, with additional files.
pub(crate) fn byte_level_files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiny-bpe/tokenizer.json");
    let json: Value = serde_json::from_slice(&fs::read(fixture).expect("it is there")).expect("it is JSON");
    let merge =
        |merge: &Value| format!("{} {}\n", merge[0].as_str().expect("a token"), merge[1].as_str().expect("one"));
    let merges: String = json["model"]["merges"].as_array().expect("a list").iter().map(merge).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it is writable");
    write("config.json", r#"{"model_type": "roberta"}"#);
    write("vocab.json", &json["model"]["vocab"].to_string());
    write("merges.txt", &format!("#version: 0.2\n{merges}"));
    files.iter().for_each(|(name, text)| write(name, text));
    folder
}

/// WordPiece in three configurations; Unigram from its file and as XLM-RoBERTa's class builds it; byte-level BPE from its
/// file and as RoBERTa's class builds it, with a space before each text.
pub(crate) static TOKENIZERS: LazyLock<Vec<(&str, Tokenizer)>> = LazyLock::new(|| {
    let wordpiece = |config| with_config("tiny", "vocab.txt", config);
    let unigram = |config| with_config("tiny-unigram", "tokenizer.json", config);
    let roberta = byte_level_files(&[("tokenizer_config.json", r#"{"add_prefix_space": true}"#)]);
    vec![
        ("WordPiece", wordpiece("{}")),
        ("cased WordPiece", wordpiece(r#"{"do_lower_case": false, "strip_accents": false}"#)),
        ("WordPiece that joins Chinese", wordpiece(r#"{"tokenize_chinese_chars": false}"#)),
        ("Unigram", unigram("{}")),
        ("XLM-RoBERTa", unigram(r#"{"tokenizer_class": "XLMRobertaTokenizer"}"#)),
        ("BPE", with_config("tiny-bpe", "tokenizer.json", r#"{"pad_token": "<pad>"}"#)),
        ("RoBERTa", Tokenizer::from_folder(roberta.path()).expect("the files are whole")),
    ]
});
