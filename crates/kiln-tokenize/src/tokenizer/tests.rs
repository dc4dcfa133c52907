use std::fs;

use tokenizers::TruncationParams;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn tiny(name: &str) -> Tokenizer {
    Tokenizer::from_folder(&fixture(name)).expect("the fixture is whole")
}

fn ids(tokenizer: &Tokenizer, text: &str, text_pair: Option<&str>) -> Vec<u32> {
    tokenizer.encode(text, text_pair).expect("there is an unknown token").input_ids
}

#[test]
fn a_vocabulary_alone_makes_bert_encodings() {
    let tokenizer = tiny("tiny");
    assert_eq!((tokenizer.max_length(), tokenizer.pad_token_id(), tokenizer.vocab_size()), (512, 0, 14));
    let encoding = tokenizer.encode("房间 Cleaners", Some("un-able!")).expect("there is an unknown token");
    assert_eq!(encoding.input_ids, [2, 5, 6, 7, 9, 10, 3, 12, 1, 1, 11, 3]);
    assert_eq!(encoding.token_type_ids, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    assert_eq!(encoding.full_length, 12);
    assert!(!encoding.is_truncated());
}

/// The tiny tokenizer as a changed `tokenizer.json` without a tokenizer class.
fn changed(change: impl Fn(&mut Value)) -> (tempfile::TempDir, Result<Tokenizer, Error>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tiny("tiny").save(folder.path()).expect("the folder is writable");
    let path = folder.path().join("tokenizer.json");
    let json = fs::read_to_string(&path).expect("it was saved");
    let mut json: Value = serde_json::from_str(&json).expect("it is JSON");
    change(&mut json);
    fs::write(path, json.to_string()).expect("it is writable");
    fs::write(folder.path().join("tokenizer_config.json"), "{}").expect("it is writable");
    let tokenizer = Tokenizer::from_folder(folder.path());
    (folder, tokenizer)
}

#[test]
fn two_tokens_of_one_id_are_refused() {
    let (_folder, tokenizer) = changed(|json| json["model"]["vocab"]["房"] = json["model"]["vocab"]["间"].clone());
    let message = tokenizer.expect_err("saving would lose one of them").to_string();
    assert!(message.contains("tokenizer.json") && message.contains("`房`") && message.contains("`间`"), "{message}");
}

#[test]
fn a_text_that_cannot_be_encoded_names_the_tokenizer() {
    let (_folder, tokenizer) = changed(|json| json["model"]["unk_token"] = "absent".into());
    let message = tokenizer.expect("unknown words alone need it").encode("zzz", None).expect_err("unknown").to_string();
    assert!(message.contains("tokenizer.json") && message.contains("`zzz`"), "{message}");
}

#[test]
fn an_empty_text_has_its_special_tokens() {
    assert_eq!(ids(&tiny("tiny"), "", None), [2, 3]);
    assert_eq!(ids(&tiny("tiny"), " \u{200b}", Some("")), [2, 3, 3]);
    assert_eq!(ids(&tiny("tiny-unigram"), "", None), [0, 2]);
}

#[test]
fn unigram_comes_without_the_truncation_and_padding_of_its_file() {
    let tokenizer = tiny("tiny-unigram");
    assert_eq!((tokenizer.pad_token_id(), tokenizer.vocab_size()), (1, 10));
    let encoding = tokenizer.encode("房间 ｃｌｅａｎ 干净房", Some("间")).expect("there is an unknown token");
    assert_eq!(encoding.input_ids, [0, 5, 8, 4, 9, 6, 2, 2, 4, 7, 2]);
    assert_eq!(encoding.token_type_ids, [0; 11]);
}

/// 3 special tokens leave room for 6 tokens. "Longest first" is defined as in tokenizers and transformers' fast classes.
#[test]
fn pairs_are_truncated_longest_first() {
    let tokenizer = tiny("tiny").with_max_length(9).expect("9 is enough");
    let cases = [
        ((2, 9), (2, 4)),
        ((9, 2), (4, 2)),
        ((9, 9), (3, 3)),
        ((3, 9), (3, 3)),
        ((0, 9), (0, 6)),
        ((9, 0), (6, 0)),
        ((4, 2), (4, 2)),
    ];
    for ((first, second), (kept_first, kept_second)) in cases {
        let (text, text_pair) = ("房".repeat(first), "间".repeat(second));
        let encoding = tokenizer.encode(&text, Some(&text_pair)).expect("there is an unknown token");
        let kept = |id| encoding.input_ids.iter().filter(|&&input_id| input_id == id).count();
        assert_eq!((kept(5), kept(6)), (kept_first, kept_second), "of {first} and {second}");
        assert_eq!(encoding.input_ids.len(), kept_first + kept_second + 3);
        assert_eq!(encoding.full_length, first + second + 3);
        assert_eq!(encoding.is_truncated(), first + second > 6);
    }
    let odd = tokenizer.with_max_length(8).expect("8 is enough");
    assert_eq!(ids(&odd, "房房房房", Some("间间间间")), [2, 5, 5, 3, 6, 6, 6, 3]);
    assert_eq!(ids(&odd, &"房".repeat(90), Some(&"间".repeat(80))), [2, 5, 5, 5, 3, 6, 6, 3]);
}

/// As `AutoTokenizer` of transformers 5.23.0 truncates.
#[test]
fn the_configuration_can_truncate_at_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::copy(fixture("tiny").join("vocab.txt"), folder.path().join("vocab.txt")).expect("it is readable");
    let config = r#"{"truncation_side": "left", "model_max_length": 6}"#;
    fs::write(folder.path().join("tokenizer_config.json"), config).expect("it is writable");
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("the folder is whole");
    assert_eq!(ids(&tokenizer, "房房间clean cafe!", None), [2, 6, 7, 8, 11, 3]);
    assert_eq!(ids(&tokenizer, "房房间clean cafe", Some("!")), [2, 7, 8, 3, 11, 3]);
    let long = format!("{}房间", "clean ".repeat(20_000));
    let encoding = tokenizer.encode(&long, Some("!")).expect("it encodes");
    assert_eq!((encoding.input_ids, encoding.full_length), (vec![2, 5, 6, 3, 11, 3], 20_006));
}

/// The truncation of the tokenizers library stops reading a text at the maximum length, so it cannot compare two texts that
/// are both longer. Such pairs are skipped.
#[test]
fn truncation_is_that_of_the_pipeline_itself() {
    let words = ["房间", "clean", "cafe unable", "! ! !", "房", ""];
    for name in ["tiny", "tiny-unigram"] {
        for max_length in 4..14 {
            let tokenizer = tiny(name).with_max_length(max_length).expect("4 is enough");
            let mut reference = tokenizer.pipeline.clone();
            let truncation = TruncationParams { max_length, ..Default::default() };
            reference.with_truncation(Some(truncation)).expect("there is no stride");
            for (index, first) in words.iter().enumerate() {
                let text = first.repeat(index + 1);
                let single = reference.encode(text.as_str(), true).expect("there is an unknown token");
                assert_eq!(ids(&tokenizer, &text, None), single.get_ids());
                for second in words {
                    let text_pair = second.repeat(3);
                    let both = [text.as_str(), &text_pair];
                    if both.iter().all(|text| ids(&tokenizer, text, None).len() == max_length) {
                        continue;
                    }
                    let pair = (text.as_str(), text_pair.as_str());
                    let expected = reference.encode(pair, true).expect("there is an unknown token");
                    let encoding = tokenizer.encode(&text, Some(&text_pair)).expect("there is an unknown token");
                    assert_eq!(encoding.input_ids, expected.get_ids());
                    assert_eq!(encoding.token_type_ids, expected.get_type_ids());
                }
            }
        }
    }
}

#[test]
fn special_tokens_must_fit() {
    let tokenizer = tiny("tiny").with_max_length(3).expect("3 special tokens fit");
    assert_eq!(ids(&tokenizer, "房间", Some("间")), [2, 3, 3]);
    assert_eq!(ids(&tokenizer, "房间", None), [2, 5, 3]);
    let message = tokenizer.with_max_length(2).expect_err("a pair has 3").to_string();
    assert_eq!(message, "max_length is 2; expected at least 3, the number of special tokens of a pair of texts");
}

#[test]
fn many_texts_keep_their_order() {
    let tokenizer = tiny("tiny");
    let texts: Vec<String> = (0..211).map(|row| "房".repeat(row % 37)).collect();
    let encodings = tokenizer.encode_all(texts.iter().map(|text| (text.as_str(), None))).expect("all are known");
    assert_eq!(encodings.len(), 211);
    for (row, encoding) in encodings.iter().enumerate() {
        assert_eq!(encoding.full_length, row % 37 + 2);
    }
}

#[test]
fn errors_name_the_folder_and_what_was_looked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path().display().to_string();
    let refused = || Tokenizer::from_folder(folder.path()).expect_err("there is no tokenizer");
    let missing = format!(
        "no tokenizer in `{here}`: looked for `tokenizer.json`, then `vocab.txt`, \
         then `vocab.json` and `merges.txt`"
    );
    assert_eq!(refused().to_string(), missing);
    assert!(matches!(Tokenizer::from_folder(&folder.path().join("no")), Err(Error::Missing { .. })));

    fs::write(folder.path().join("tokenizer.json"), r#"{"version": "1.0"}"#).expect("it is writable");
    assert_eq!(refused().to_string(), format!("`{here}/tokenizer.json` is not a tokenizer"));
    fs::copy(fixture("tiny-unigram").join("tokenizer.json"), folder.path().join("tokenizer.json"))
        .expect("it is readable");
    let config = |json: &str| fs::write(folder.path().join("tokenizer_config.json"), json).expect("it is writable");
    config(r#"{"pad_token": "[PAD]"}"#);
    assert_eq!(refused().to_string(), format!("the vocabulary in `{here}` has no pad_token: looked for `[PAD]`"));
    config("{\n\"do_lower_case\": \"no\"}");
    let error = refused();
    let source = std::error::Error::source(&error).expect("the source is kept").to_string();
    assert_eq!(source, "invalid type: string \"no\", expected a boolean at line 2 column 21");
}

/// Writes the Unigram fixture with one key replaced, and loads it.
fn damaged(key: &str, value: serde_json::Value) -> (String, Result<Tokenizer, Error>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer.json");
    let json = fs::read(fixture("tiny-unigram").join("tokenizer.json")).expect("the fixture is there");
    let mut json: serde_json::Value = serde_json::from_slice(&json).expect("the fixture is JSON");
    json[key] = value;
    fs::write(&path, json.to_string()).expect("it is writable");
    (path.display().to_string(), Tokenizer::from_folder(folder.path()))
}

/// Each of these files makes the tokenizers library panic or allocate gigabytes.
#[test]
fn a_file_that_the_library_cannot_take_is_an_error_that_names_it() {
    let charsmap = "8P///wAAAAAAAAAAAAAAAAAAAAA=";
    let special = serde_json::json!({"x": {"id": "x", "ids": [3], "tokens": ["x"]}});
    let piece = |name: &str| serde_json::json!({"Sequence": {"id": name, "type_id": 0}});
    let cases = [
        ("normalizer", serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("normalizer", serde_json::json!({"type": "Precompiled", "precompiled_charsmap": charsmap})),
        ("normalizer", serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAAA"})),
        ("pre_tokenizer", serde_json::json!({"type": "FixedLength", "length": 0})),
        (
            "post_processor",
            serde_json::json!({
                "type": "TemplateProcessing", "single": [piece("B")], "pair": [piece("A"), piece("B")],
                "special_tokens": special
            }),
        ),
        (
            "model",
            serde_json::json!({
                "type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<pad>": 3}, "merges": [["a", "b"]],
                "continuing_subword_prefix": "######"
            }),
        ),
        (
            "model",
            serde_json::json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"a": 0, "<pad>": 4_000_000_000_u32}}),
        ),
    ];
    for (key, value) in cases {
        let (path, loaded) = damaged(key, value.clone());
        let failed =
            loaded.and_then(|tokenizer| tokenizer.encode("房间 clean 干净", None)).expect_err("it cannot work");
        assert!(failed.to_string().contains(&path), "{value}: {failed}");
    }
}

#[test]
fn a_file_that_ends_too_early_is_an_error_that_names_it() {
    let json = fs::read_to_string(fixture("tiny-unigram").join("tokenizer.json")).expect("the fixture is there");
    for end in (0..json.len()).filter(|end| json.is_char_boundary(*end)).step_by(23) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("tokenizer.json"), &json[..end]).expect("it is writable");
        let failed = Tokenizer::from_folder(folder.path()).expect_err("it is not whole").to_string();
        assert!(failed.contains("tokenizer.json"), "{end}: {failed}");
    }
}

#[test]
fn which_of_a_folder_s_files_counts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = |from: &str, name: &str| {
        fs::copy(fixture(from).join(name), folder.path().join(name)).expect("the fixture is readable")
    };
    copy("tiny", "vocab.txt");
    let vocab_size = || Tokenizer::from_folder(folder.path()).expect("the folder is whole").vocab_size();
    assert_eq!(vocab_size(), 14, "vocab.txt alone");
    copy("tiny-unigram", "tokenizer.json");
    assert_eq!(vocab_size(), 10, "tokenizer.json wins");
    fs::remove_file(folder.path().join("vocab.txt")).expect("it is there");
    assert_eq!(vocab_size(), 10, "tokenizer.json alone");
    fs::remove_file(folder.path().join("tokenizer.json")).expect("it is there");
    fs::write(folder.path().join("vocab.txt"), [0xff, 0xfe, b'\n']).expect("it is writable");
    let failed = Tokenizer::from_folder(folder.path()).expect_err("it is not UTF-8").to_string();
    assert!(failed.contains("vocab.txt"), "{failed}");
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"model_max_length": 2}"#).expect("it is writable");
    copy("tiny", "vocab.txt");
    let failed = Tokenizer::from_folder(folder.path()).expect_err("a pair has 3 special tokens").to_string();
    assert!(failed.contains("tokenizer_config.json") && failed.contains("model_max_length"), "{failed}");
    let class = r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#;
    fs::write(folder.path().join("tokenizer_config.json"), class).expect("it is writable");
    let failed = Tokenizer::from_folder(folder.path()).expect_err("characters are divided").to_string();
    assert!(failed.contains("`tokenizer_class` is `BertJapaneseTokenizer`"), "{failed}");
}

#[test]
fn long_pairs_are_truncated_as_if_all_of_them_were_read() {
    let tokenizer = tiny("tiny");
    let sizes = [0, 3, 40, 20_000, 20_001, 40_000];
    for max_length in [8, 9, 33, 64] {
        let tokenizer = tokenizer.clone().with_max_length(max_length).expect("8 is enough");
        for (first, second) in sizes.into_iter().flat_map(|first| sizes.map(|second| (first, second))) {
            let (text, text_pair) = ("房".repeat(first), "间".repeat(second));
            let encoding = tokenizer.encode(&text, Some(&text_pair)).expect("there is an unknown token");
            let counted = tokenizer.encode_counted(&text, Some(&text_pair)).expect("there is an unknown token");
            let (kept_first, kept_second) = longest_first((first, second), max_length - 3);
            let ids = [vec![2], vec![5; kept_first], vec![3], vec![6; kept_second], vec![3]].concat();
            assert_eq!((&encoding.input_ids, &counted.input_ids), (&ids, &ids), "{first} {second}");
            assert_eq!(counted.full_length, first + second + 3);
            assert!(encoding.full_length <= counted.full_length);
            assert_eq!(encoding.is_truncated(), counted.is_truncated());
        }
    }
}
