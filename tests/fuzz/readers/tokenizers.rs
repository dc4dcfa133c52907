//! Tokenizers: `vocab.txt`, `vocab.json` with `merges.txt`, `tokenizer.json` of WordPiece, Unigram and BPE, and
//! `tokenizer_config.json`.

use kiln_tokenize::{ContextConfig, Tokenizer, characters, words};
use serde_json::{Value, json};

use super::{Answer, Context, Input, Reader, fingerprint, judge_nothing, workspace_file};
use crate::seed::Seed;

pub const TOKENIZERS: Reader =
    Reader { name: "tokenizers", share: 16, seeds, read: read_tokenizer, judge: judge_nothing, repeated: true };

const TEXTS: [&str; 9] = [
    "",
    "房间 Cleaners unable!",
    "cafe\u{301} ÀÉ ﬁ ① 가",
    "\u{200b}\u{feff}\u{0}\t\r\n\u{a0}\u{3000}",
    "😀👨‍👩‍👧\u{1F1E8}\u{1F1F3}",
    "[CLS] [MASK] <s> </s> <unk> ##able ▁",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "한국어 ภาษาไทย العربية हिन्दी",
    "low lower lowest 12 3.4",
];

fn seeds(_: &Context) -> anyhow::Result<Vec<Seed>> {
    let fixture = |path: &str| std::fs::read(workspace_file("crates/kiln-tokenize/tests").join(path));
    let settings = json!({"do_lower_case": true, "model_max_length": 24, "tokenize_chinese_chars": true,
        "strip_accents": null, "unk_token": "[UNK]", "pad_token": "[PAD]",
        "cls_token": {"content": "[CLS]", "special": true}, "sep_token": "[SEP]", "mask_token": "[MASK]"});
    let unigram = json!({"model_max_length": 24, "pad_token": "<pad>", "mask_token": "<mask>"});
    Ok(vec![
        Seed::new("vocab")
            .with("vocab.txt", fixture("tiny/vocab.txt")?)
            .with("tokenizer_config.json", settings.to_string()),
        Seed::new("unigram")
            .with("tokenizer.json", fixture("tiny-unigram/tokenizer.json")?)
            .with("tokenizer_config.json", unigram.to_string()),
        Seed::new("wordpiece")
            .with("tokenizer.json", wordpiece().to_string())
            .with("tokenizer_config.json", settings.to_string()),
        Seed::new("bpe").with("tokenizer.json", bpe().to_string()),
        roberta(),
        Seed::new("parts").with("tokenizer.json", parts().to_string()),
    ])
}

fn special(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

fn wordpiece() -> Value {
    let tokens =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "房", "间", "clean", "##er", "##s", "un", "##able", "!"];
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]"), special(4, "[MASK]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

fn bpe() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [special(0, "<pad>"), special(1, "<unk>"), special(2, "<s>"), special(3, "</s>")],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 3], "cls": ["<s>", 2], "trim_offsets": true, "add_prefix_space": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "l": 4, "o": 5, "w": 6, "e": 7, "r": 8, "Ġ": 9, "lo": 10, "low": 11, "Ġlow": 12, "er": 13},
            "merges": [["l", "o"], ["lo", "w"], ["Ġ", "low"], ["e", "r"]]},
    })
}

/// The same vocabulary in RoBERTa's file format.
fn roberta() -> Seed {
    let merge = |merge: &Value| format!("{} {}\n", merge[0].as_str().unwrap_or(""), merge[1].as_str().unwrap_or(""));
    let model = &bpe()["model"];
    let merges: String = model["merges"].as_array().into_iter().flatten().map(merge).collect();
    let settings = json!({"model_max_length": 24, "add_prefix_space": true, "trim_offsets": true,
        "mask_token": {"content": "<mask>", "lstrip": true}, "additional_special_tokens": ["low"]});
    Seed::new("roberta")
        .beside("config.json", r#"{"model_type": "roberta"}"#)
        .with("vocab.json", model["vocab"].to_string())
        .with("merges.txt", format!("#version: 0.2\n{merges}"))
        .with("tokenizer_config.json", settings.to_string())
        .with("added_tokens.json", r#"{"<mask>": 14, "<new>": 15}"#)
}

/// Normalizers, pre-tokenizers and decoders of every kind, in sequences.
fn parts() -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [special(0, "<pad>"), special(1, "<unk>"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Strip", "strip_left": true, "strip_right": true},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, {"type": "Replace", "pattern": {"String": "``"}, "content": "\""},
            {"type": "Prepend", "prepend": "▁"}, {"type": "Nmt"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Digits", "individual_digits": true},
            {"type": "Split", "pattern": {"Regex": "\\d+"}, "behavior": "MergedWithPrevious", "invert": false},
            {"type": "CharDelimiterSplit", "delimiter": "-"}, {"type": "UnicodeScripts"}, {"type": "FixedLength", "length": 3}]},
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "BPEDecoder", "suffix": "</w>"},
            {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true}]},
        "model": {"type": "WordLevel", "vocab": {"<pad>": 0, "<unk>": 1, "[CLS]": 2, "[SEP]": 3, "low": 4, "cle": 5, "an": 6, "▁": 7}, "unk_token": "<unk>"},
    })
}

/// Uses every function of a tokenizer, and checks that a saved tokenizer gives the same results.
fn read_tokenizer(input: &Input<'_>) -> anyhow::Result<Answer> {
    let tokenizer = Tokenizer::from_folder(input.folder)?;
    let encoded = encode(&tokenizer)?;
    let folder = input.context.scratch.join("saved");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    tokenizer.save(&folder)?;
    // Any error is a problem, because the tokenizer wrote the file itself.
    let saved = Tokenizer::from_folder(&folder).map_err(anyhow::Error::from).and_then(|saved| encode(&saved));
    let problem = match saved {
        Ok(saved) if saved == encoded => None,
        Ok(_) => Some("the tokenizer that was saved encodes otherwise".to_owned()),
        Err(error) => Some(format!("the tokenizer that was saved cannot be used: {error:#}")),
    };
    Ok(Answer { fingerprint: encoded, rows: TEXTS.len(), problem })
}

fn encode(tokenizer: &Tokenizer) -> anyhow::Result<u64> {
    let texts = TEXTS.iter().map(|text| (*text, None)).chain(TEXTS.iter().map(|text| (*text, Some("clean low"))));
    let encodings = tokenizer.encode_all(texts)?;
    let mut windows = Vec::new();
    for text in TEXTS {
        windows.push(tokenizer.encode_units(text, &characters(text))?);
        windows.push(tokenizer.encode_units(text, &words(text))?);
    }
    let contexts =
        tokenizer.encode_contexts(TEXTS.iter().map(|text| ("who is low?", *text)), ContextConfig::default())?;
    let pieces = tokenizer.pieces(&TEXTS)?;
    let rows = pieces.iter().map(|pieces| tokenizer.assemble(pieces, Some(&pieces[..pieces.len().min(3)])));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    // Decoded text is only for display, and a decoder may have no text for an id.
    let decoded: Vec<Option<String>> = pieces.iter().map(|ids| tokenizer.decode(ids).ok()).collect();
    let tokens: Vec<_> = (0..20).map(|id| (tokenizer.token(id), tokenizer.is_special(id))).collect();
    Ok(fingerprint(&(encodings, windows, contexts, pieces, rows, decoded, tokens, tokenizer.mask_token_id())))
}
