use std::path::Path;

use serde::Deserialize;

use crate::Error;
use crate::config::{SpecialTokens, TokenizerConfig};
use crate::file::read_if_present;

/// The tokenizer class that `AutoTokenizer` of transformers 5 uses for a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// `BertTokenizer`: builds BERT's pipeline from the vocabulary, the added tokens and the keys of
    /// `tokenizer_config.json`, and ignores the pipeline of `tokenizer.json`.
    Bert,
    /// `RobertaTokenizer`: builds RoBERTa's byte-level pipeline from the vocabulary, the merges, the added tokens and the
    /// keys of `tokenizer_config.json`.
    Roberta,
    /// `XLMRobertaTokenizer` and `CamembertTokenizer`: build XLM-RoBERTa's pipeline from the vocabulary and the character
    /// map.
    XlmRoberta,
    /// `AlbertTokenizer`: builds ALBERT's pipeline from the vocabulary, the character map and the keys of
    /// `tokenizer_config.json`.
    Albert,
    /// `TokenizersBackend`, formerly `PreTrainedTokenizerFast`: uses `tokenizer.json` unchanged.
    Backend,
}

/// The subclasses and aliases of `BertTokenizer` in transformers, each with or without the suffix `Fast`.
const BERT_CLASSES: [&str; 9] = [
    "BertTokenizer",
    "ConvBertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
    "DPRQuestionEncoderTokenizer",
];

/// Classes with a `vocab.txt` that they read in another way.
const OTHER_CLASSES: [&str; 4] = ["BertJapaneseTokenizer", "BertweetTokenizer", "PhobertTokenizer", "KoBertTokenizer"];

/// Model types whose default tokenizer class is `BertTokenizer`.
const BERT_MODELS: [&str; 9] =
    ["bert", "convbert", "distilbert", "electra", "ernie", "layoutlm", "megatron-bert", "mobilebert", "nezha"];

fn model_config(folder: &Path) -> Result<ModelConfig, Error> {
    Ok(match read_if_present(&folder.join("config.json"))? {
        // The code that reads the model reports a damaged `config.json`.
        Some(json) => serde_json::from_slice(&json).unwrap_or_default(),
        None => ModelConfig::default(),
    })
}

impl Class {
    /// The named class, if it is known not to read `vocab.txt` as `BertTokenizer` does.
    pub fn other_than_bert(folder: &Path, config: &TokenizerConfig) -> Result<Option<String>, Error> {
        let named = config.settings.tokenizer_class.clone().or(model_config(folder)?.tokenizer_class);
        Ok(named.filter(|class| OTHER_CLASSES.contains(&class.strip_suffix("Fast").unwrap_or(class))))
    }

    /// The class named in `tokenizer_config.json` or in `config.json`, otherwise the default of the model type.
    pub fn of(folder: &Path, config: &TokenizerConfig) -> Result<Self, Error> {
        let model = model_config(folder)?;
        let named = config.settings.tokenizer_class.as_deref().or(model.tokenizer_class.as_deref());
        Ok(match (named, model.model_type.as_deref()) {
            // The class in the files is ignored.
            (_, Some("modernbert")) => Self::Backend,
            (Some(class), _) => Self::named(class),
            (None, Some("roberta")) => Self::Roberta,
            (None, Some("xlm-roberta" | "camembert")) => Self::XlmRoberta,
            (None, Some("albert")) => Self::Albert,
            (None, Some(model)) if BERT_MODELS.contains(&model) => Self::Bert,
            (None, _) => Self::Backend,
        })
    }

    /// The class with this name in transformers.
    pub fn named(class: &str) -> Self {
        match class.strip_suffix("Fast").unwrap_or(class) {
            "RobertaTokenizer" | "BartTokenizer" => Self::Roberta,
            "XLMRobertaTokenizer" | "CamembertTokenizer" => Self::XlmRoberta,
            "AlbertTokenizer" => Self::Albert,
            class if BERT_CLASSES.contains(&class) => Self::Bert,
            _ => Self::Backend,
        }
    }

    /// The special tokens of the configuration, with the defaults of the class for those that it does not declare.
    pub fn special_tokens(self, config: &TokenizerConfig) -> SpecialTokens {
        let own = match self {
            Self::Bert => BERT_TOKENS,
            Self::Roberta | Self::XlmRoberta => ROBERTA_TOKENS,
            Self::Albert => ALBERT_TOKENS,
            Self::Backend => "{}",
        };
        let mut tokens = config.special_tokens.clone();
        tokens.fill_in(serde_json::from_str(own).expect("a class's tokens are JSON"));
        tokens
    }
}

const BERT_TOKENS: &str = r#"{"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
    "mask_token": "[MASK]"}"#;

const ROBERTA_TOKENS: &str = r#"{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>",
    "pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<mask>"}"#;

const ALBERT_TOKENS: &str = r#"{"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "sep_token": "[SEP]",
    "pad_token": "<pad>", "cls_token": "[CLS]", "mask_token": "[MASK]"}"#;

#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelConfig {
    tokenizer_class: Option<String>,
    model_type: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;
    use crate::Tokenizer;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
    }

    /// A `tokenizer.json` of the tiny vocabulary that keeps case, accents and Chinese words.
    fn cased() -> Value {
        let tokenizer = Tokenizer::from_folder(&fixture("tiny")).expect("the fixture is whole");
        let json = tokenizer.pipeline.to_string(false).expect("a pipeline is JSON");
        let mut json: Value = serde_json::from_str(&json).expect("a pipeline is JSON");
        json["normalizer"] = json!({
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": false, "strip_accents": false,
            "lowercase": false
        });
        json
    }

    fn ids(tokenizer: &Tokenizer) -> Vec<u32> {
        let ids = tokenizer.encode("Café 房", None).expect("there is an unknown token").input_ids;
        ids[1..ids.len() - 1].to_vec()
    }

    /// Each row is what `AutoTokenizer` of transformers 5.23.0 gives for such a folder.
    #[test]
    fn the_class_decides_whether_the_configuration_or_the_file_counts() {
        let (uncased, as_file, unknown) = (vec![8, 5], vec![1, 5], vec![1, 5]);
        let bert = Some(r#"{"model_type": "bert"}"#);
        let cases = [
            ("{}", None, &as_file),
            (r#"{"do_lower_case": true}"#, None, &as_file),
            ("{}", bert, &uncased),
            (r#"{"do_lower_case": false}"#, bert, &unknown),
            (r#"{"tokenizer_class": "BertTokenizer"}"#, None, &uncased),
            (r#"{"tokenizer_class": "BertTokenizerFast", "do_lower_case": true}"#, None, &uncased),
            (r#"{"tokenizer_class": "ElectraTokenizer"}"#, bert, &uncased),
            (r#"{"tokenizer_class": "BertTokenizer", "strip_accents": false}"#, bert, &unknown),
            (r#"{"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": true}"#, bert, &as_file),
            (r#"{"tokenizer_class": "Unheard", "do_lower_case": true}"#, bert, &as_file),
            ("{}", Some(r#"{"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}"#), &as_file),
        ];
        for (config, model, expected) in cases {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let write = |name: &str, json: &str| fs::write(folder.path().join(name), json).expect("it is writable");
            write("tokenizer.json", &cased().to_string());
            write("tokenizer_config.json", config);
            model.into_iter().for_each(|model| write("config.json", model));
            let tokenizer = Tokenizer::from_folder(folder.path()).expect("the folder is whole");
            assert_eq!(&ids(&tokenizer), expected, "{config} {model:?}");

            // The saved tokenizer gives the same ids in a folder with the `config.json` of a BERT.
            let saved = tempfile::tempdir().expect("a temporary folder");
            tokenizer.save(saved.path()).expect("it is writable");
            fs::write(saved.path().join("config.json"), r#"{"model_type": "bert"}"#).expect("it is writable");
            let again = Tokenizer::from_folder(saved.path()).expect("what was saved is whole");
            assert_eq!(&ids(&again), expected, "{config} {model:?}, saved");
            let json = fs::read(saved.path().join("tokenizer.json")).expect("it was saved");
            let json: Value = serde_json::from_slice(&json).expect("it is JSON");
            let config = fs::read(saved.path().join("tokenizer_config.json")).expect("it was saved");
            let config: Value = serde_json::from_slice(&config).expect("it is JSON");
            assert_eq!(json["normalizer"]["lowercase"], config["do_lower_case"]);
        }
    }

    #[test]
    fn a_pipeline_that_bert_s_class_cannot_have_is_saved_for_the_class_that_runs_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut json = cased();
        json["normalizer"]["clean_text"] = false.into();
        fs::write(folder.path().join("tokenizer.json"), json.to_string()).expect("it is writable");
        let tokenizer = Tokenizer::from_folder(folder.path()).expect("the folder is whole");
        let saved = tempfile::tempdir().expect("a temporary folder");
        tokenizer.save(saved.path()).expect("it is writable");
        let config = fs::read_to_string(saved.path().join("tokenizer_config.json")).expect("it was saved");
        assert!(config.contains("PreTrainedTokenizerFast"), "{config}");
    }

    /// As in `AutoTokenizer`, white space around a text or before a special token gives no token.
    #[test]
    fn xlm_roberta_ignores_white_space_around_words() {
        let tokenizer = |class: &str| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::copy(fixture("tiny-unigram").join("tokenizer.json"), folder.path().join("tokenizer.json"))
                .expect("it is readable");
            fs::write(folder.path().join("tokenizer_config.json"), json!({ "tokenizer_class": class }).to_string())
                .expect("it is writable");
            Tokenizer::from_folder(folder.path()).expect("the folder is whole")
        };
        let ids = |class, text| tokenizer(class).encode(text, Some("间")).expect("it encodes").input_ids;
        assert_eq!(ids("XLMRobertaTokenizer", " clean <pad> 房间 "), [0, 8, 1, 5, 2, 2, 4, 7, 2]);
        assert_eq!(ids("PreTrainedTokenizerFast", " clean <pad> 房间 "), [0, 8, 4, 1, 5, 4, 2, 2, 4, 7, 2]);
    }

    /// Each row is what `AutoTokenizer` of transformers 5.23.0 gives for such a folder. It ignores the normalizer of the
    /// file.
    #[test]
    fn albert_s_keys_decide_on_case_and_accents() {
        let pieces = ["<pad>", "<unk>", "[CLS]", "[SEP]", "▁", "▁cafe", "▁Café", "▁Cafe", "▁café", "\"", "▁\""];
        let vocab: Vec<Value> = pieces.iter().map(|piece| json!([piece, -1.0])).collect();
        let file = json!({"version": "1.0", "model": {"type": "Unigram", "unk_id": 1, "vocab": vocab}});
        for (keys, word) in [
            (json!({}), 5),
            (json!({"do_lower_case": false}), 7),
            (json!({"keep_accents": true}), 8),
            (json!({"do_lower_case": false, "keep_accents": true}), 6),
        ] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let write = |name: &str, json: String| fs::write(folder.path().join(name), json).expect("it is writable");
            write("tokenizer.json", file.to_string());
            write("tokenizer_config.json", keys.to_string());
            write("config.json", json!({"model_type": "albert"}).to_string());
            let tokenizer = Tokenizer::from_folder(folder.path()).expect("the folder is whole");
            let encoding = tokenizer.encode("Café  ``", Some("Café")).expect("it encodes");
            assert_eq!(encoding.input_ids, [2, word, 10, 3, word, 3], "{keys}");
            assert_eq!(encoding.token_type_ids, [0, 0, 0, 0, 1, 1]);
        }
    }

    #[test]
    fn a_special_token_that_only_the_configuration_names_stays_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut json = cased();
        json["added_tokens"] = json!([]);
        fs::write(folder.path().join("tokenizer.json"), json.to_string()).expect("it is writable");
        let config = r#"{"tokenizer_class": "BertTokenizer", "mask_token": "[MASK]"}"#;
        fs::write(folder.path().join("tokenizer_config.json"), config).expect("it is writable");
        let tokenizer = Tokenizer::from_folder(folder.path()).expect("the folder is whole");
        assert_eq!(tokenizer.encode("房[MASK]", None).expect("it encodes").input_ids, [2, 5, 4, 3]);
    }
}
