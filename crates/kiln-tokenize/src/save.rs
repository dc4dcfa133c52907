use std::path::Path;

use kiln_files::guarded;
use serde_json::{Map, Value};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

use crate::class::Class;
use crate::config::TokenizerConfig;
use crate::file::write;
use crate::reading::from_ids;
use crate::{Error, Tokenizer, pipeline};

/// The class that uses `tokenizer.json` unchanged. Others build the pipeline anew.
const AS_IT_IS: &str = "PreTrainedTokenizerFast";

impl Tokenizer {
    /// Writes `tokenizer.json` and `tokenizer_config.json` for transformers, and also `vocab.txt` and
    /// `special_tokens_map.json` if the tokenizer was read with them. The folder must exist.
    ///
    /// The configuration keeps its other keys: only `model_max_length`, `pad_token` and `model_input_names` if they are
    /// absent, `tokenizer_class` and the keys from which transformers builds BERT's normalizer are set.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join("tokenizer.json");
        let pipeline = self.guard(|| {
            self.pipeline.to_string(false).map_err(|source| Error::Pipeline { path: path.clone(), source })
        })?;
        write(&path, pipeline.as_bytes())?;
        for (name, bytes) in &self.companions {
            write(&folder.join(name), bytes)?;
        }
        let config = serde_json::to_vec_pretty(&self.saved_config()).expect("a map with string keys is JSON");
        write(&folder.join("tokenizer_config.json"), &config)
    }

    fn saved_config(&self) -> Map<String, Value> {
        let mut config = self.bert_config();
        // In transformers 5, this class has no token types unless the configuration says so.
        let is_stated = !self.has_token_types || config["tokenizer_class"] == AS_IT_IS && self.distinguishes_texts();
        if is_stated {
            let inputs = ["input_ids", "attention_mask", "token_type_ids"];
            let inputs = &inputs[..if self.has_token_types { 3 } else { 2 }];
            config.entry("model_input_names").or_insert_with(|| inputs.into());
        }
        config
    }

    /// Whether the template gives the second text of a pair a token type of its own.
    fn distinguishes_texts(&self) -> bool {
        let pair = self.pipeline.post_process(from_ids(&[0], 0), Some(from_ids(&[0], 1)), true);
        pair.is_ok_and(|pair| pair.get_type_ids().iter().any(|type_id| *type_id > 0))
    }

    fn bert_config(&self) -> Map<String, Value> {
        let mut config = self.config.clone();
        config.insert("model_max_length".to_owned(), self.max_length.into());
        config.entry("pad_token").or_insert_with(|| self.pipeline.id_to_token(self.pad_token_id).into());
        let Some(normalizer) = self.bert_normalizer() else {
            config.insert("tokenizer_class".to_owned(), AS_IT_IS.into());
            return config;
        };
        // transformers 5 builds BERT's normalizer from these keys and ignores that of `tokenizer.json`.
        config.insert("do_lower_case".to_owned(), normalizer.lowercase.into());
        config.insert("tokenize_chinese_chars".to_owned(), normalizer.handle_chinese_chars.into());
        config.insert("strip_accents".to_owned(), normalizer.strip_accents.into());
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        if !self.is_rebuilt_by_bert(&config) {
            config.insert("tokenizer_class".to_owned(), AS_IT_IS.into());
        } else if class.is_none_or(|class| Class::named(class) != Class::Bert) {
            config.insert("tokenizer_class".to_owned(), "BertTokenizer".into());
        }
        config
    }

    /// Whether `BertTokenizer` would build exactly this pipeline from the vocabulary and the configuration.
    fn is_rebuilt_by_bert(&self, config: &Map<String, Value>) -> bool {
        let map = self.companions.iter().find(|(name, _)| *name == "special_tokens_map.json");
        let Some(config) = TokenizerConfig::from_parts(config, map.map(|(_, bytes)| bytes.as_slice())) else {
            return false;
        };
        let same = guarded(|| {
            let mut rebuilt = self.pipeline.clone();
            pipeline::apply(&mut rebuilt, Class::Bert, Path::new("tokenizer.json"), &config).ok()?;
            Some(rebuilt.to_string(false).ok()? == self.pipeline.to_string(false).ok()?)
        });
        same.ok().flatten().unwrap_or(false)
    }

    /// BERT's normalizer, if the normalizer, the pre-tokenizer and the model are of the kind that `BertTokenizer` builds.
    fn bert_normalizer(&self) -> Option<&BertNormalizer> {
        let Some(NormalizerWrapper::BertNormalizer(normalizer)) = self.pipeline.get_normalizer() else { return None };
        let ModelWrapper::WordPiece(model) = self.pipeline.get_model() else { return None };
        let plain = WordPiece::default();
        let same = normalizer.clean_text
            && matches!(self.pipeline.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
            && model.max_input_chars_per_word == plain.max_input_chars_per_word
            && model.continuing_subword_prefix == plain.continuing_subword_prefix;
        same.then_some(normalizer)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
    }

    fn ids(tokenizer: &Tokenizer, text: &str, text_pair: Option<&str>) -> Vec<u32> {
        tokenizer.encode(text, text_pair).expect("there is an unknown token").input_ids
    }

    #[test]
    fn what_is_saved_is_read_back() {
        for name in ["tiny", "tiny-unigram"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let tokenizer = Tokenizer::from_folder(&fixture(name)).expect("the fixture is whole");
            let tokenizer = tokenizer.with_max_length(11).expect("11 is enough");
            tokenizer.save(folder.path()).expect("the folder is writable");
            let again = Tokenizer::from_folder(folder.path()).expect("what was saved is whole");
            assert_eq!(again.max_length(), 11);
            assert_eq!(again.pad_token_id(), tokenizer.pad_token_id());
            for (text, text_pair) in [("房间 Clean!", None), ("un 干净", Some("able 房".repeat(9)))] {
                assert_eq!(ids(&again, text, text_pair.as_deref()), ids(&tokenizer, text, text_pair.as_deref()));
            }
            let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("it was saved");
            let pipeline: Value = serde_json::from_str(&read("tokenizer.json")).expect("it is JSON");
            assert!(pipeline["truncation"].is_null() && pipeline["padding"].is_null());
            let config: Value = serde_json::from_str(&read("tokenizer_config.json")).expect("it is JSON");
            let class = if name == "tiny" { "BertTokenizer" } else { "PreTrainedTokenizerFast" };
            assert_eq!((&config["tokenizer_class"], &config["model_max_length"]), (&class.into(), &11.into()));
            assert_eq!(folder.path().join("vocab.txt").exists(), name == "tiny");
            assert!(fs::read_dir(folder.path()).expect("it is a folder").count() == if name == "tiny" { 3 } else { 2 });
        }
    }

    #[test]
    fn a_pipeline_that_bert_tokenizer_would_not_build_is_not_called_one() {
        let (source, target) = (tempfile::tempdir(), tempfile::tempdir());
        let (source, target) = (source.expect("a temporary folder"), target.expect("a temporary folder"));
        Tokenizer::from_folder(&fixture("tiny")).expect("it is whole").save(source.path()).expect("it is writable");
        let json = fs::read_to_string(source.path().join("tokenizer.json")).expect("it was saved");
        let mut json: Value = serde_json::from_str(&json).expect("it is JSON");
        assert_eq!(json["post_processor"]["type"], "BertProcessing");
        json["post_processor"]["sep"][1] = 0.into();
        fs::write(source.path().join("tokenizer.json"), json.to_string()).expect("it is writable");
        fs::write(source.path().join("tokenizer_config.json"), "{}").expect("it is writable");

        let tokenizer = Tokenizer::from_folder(source.path()).expect("it is whole");
        tokenizer.save(target.path()).expect("the folder is writable");
        let again = Tokenizer::from_folder(target.path()).expect("what was saved is whole");
        assert_eq!(ids(&again, "房", None), ids(&tokenizer, "房", None));
        assert_eq!(ids(&again, "房", None).last(), Some(&0));
    }

    #[test]
    fn a_padding_token_that_nothing_declares_is_special_before_and_after() {
        let (source, target) = (tempfile::tempdir(), tempfile::tempdir());
        let (source, target) = (source.expect("a temporary folder"), target.expect("a temporary folder"));
        let json = fs::read_to_string(fixture("tiny-unigram").join("tokenizer.json")).expect("the fixture is there");
        let mut json: Value = serde_json::from_str(&json).expect("it is JSON");
        json["added_tokens"] = json!([]);
        fs::write(source.path().join("tokenizer.json"), json.to_string()).expect("it is writable");

        let tokenizer = Tokenizer::from_folder(source.path()).expect("the vocabulary has `<pad>`");
        tokenizer.save(target.path()).expect("the folder is writable");
        let again = Tokenizer::from_folder(target.path()).expect("what was saved is whole");
        assert!(tokenizer.is_special(tokenizer.pad_token_id()) && again.is_special(again.pad_token_id()));
        assert_eq!(ids(&again, "房间<pad>clean", None), ids(&tokenizer, "房间<pad>clean", None));
    }

    /// transformers 5 gives a saved tokenizer of this class no token types without `model_input_names`.
    #[test]
    fn the_inputs_of_the_model_are_saved() {
        let saved_inputs = |fixture_name: &str, config: Value| {
            let (source, target) = (tempfile::tempdir(), tempfile::tempdir());
            let (source, target) = (source.expect("a temporary folder"), target.expect("a temporary folder"));
            let whole = Tokenizer::from_folder(&fixture(fixture_name)).expect("the fixture is whole");
            whole.save(source.path()).expect("the folder is writable");
            let path = source.path().join("tokenizer.json");
            let file = fs::read_to_string(&path).expect("it was saved");
            // A text is not cleaned, which `BertTokenizer` cannot do.
            fs::write(path, file.replace(r#""clean_text":true"#, r#""clean_text":false"#)).expect("it is writable");
            fs::write(source.path().join("tokenizer_config.json"), config.to_string()).expect("it is writable");
            let tokenizer = Tokenizer::from_folder(source.path()).expect("the folder is whole");
            tokenizer.save(target.path()).expect("the folder is writable");
            let json = fs::read(target.path().join("tokenizer_config.json")).expect("it was saved");
            let saved: Value = serde_json::from_slice(&json).expect("it is JSON");
            let again = Tokenizer::from_folder(target.path()).expect("what was saved is whole");
            let types = |tokenizer: &Tokenizer| tokenizer.encode("房", Some("间")).expect("it encodes").token_type_ids;
            assert_eq!(types(&tokenizer), types(&again), "{config}");
            (saved["tokenizer_class"] == AS_IT_IS, saved["model_input_names"].clone(), types(&again))
        };
        let (with, without) =
            (json!(["input_ids", "attention_mask", "token_type_ids"]), json!(["input_ids", "attention_mask"]));
        let (pair, zero) = (vec![0, 0, 0, 1, 1], vec![0; 5]);
        assert_eq!(saved_inputs("tiny", json!({})), (true, with, pair.clone()));
        let bert = json!({"tokenizer_class": "BertTokenizer"});
        assert_eq!(saved_inputs("tiny", bert), (false, Value::Null, pair));
        let one = json!({"tokenizer_class": "BertTokenizer", "model_input_names": &without});
        assert_eq!(saved_inputs("tiny", one), (false, without.clone(), zero.clone()));
        let distilled = json!({"tokenizer_class": "DistilBertTokenizerFast"});
        assert_eq!(saved_inputs("tiny", distilled), (false, without, zero));
        assert_eq!(saved_inputs("tiny-unigram", json!({})).1, Value::Null, "its template gives every token type 0");
    }

    #[test]
    fn the_configuration_keeps_its_keys() {
        let (source, target) = (tempfile::tempdir(), tempfile::tempdir());
        let (source, target) = (source.expect("a temporary folder"), target.expect("a temporary folder"));
        fs::copy(fixture("tiny").join("vocab.txt"), source.path().join("vocab.txt")).expect("it is readable");
        let config =
            r#"{"do_lower_case": false, "model_max_length": 1e30, "cls_token": {"content": "[CLS]"}, "x": [1]}"#;
        fs::write(source.path().join("tokenizer_config.json"), config).expect("it is writable");
        fs::write(source.path().join("special_tokens_map.json"), r#"{"pad_token": "!"}"#).expect("it is writable");

        let tokenizer = Tokenizer::from_folder(source.path()).expect("the folder is whole");
        assert_eq!((tokenizer.max_length(), tokenizer.pad_token_id()), (512, 11));
        tokenizer.save(target.path()).expect("the folder is writable");
        let read = |name: &str| fs::read_to_string(target.path().join(name)).expect("it was saved");
        let saved: Value = serde_json::from_str(&read("tokenizer_config.json")).expect("it is JSON");
        let expected = json!({
            "do_lower_case": false, "model_max_length": 512, "cls_token": {"content": "[CLS]"}, "x": [1],
            "tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": true, "strip_accents": null, "pad_token": "!"
        });
        assert_eq!(saved, expected);
        assert_eq!(read("special_tokens_map.json"), r#"{"pad_token": "!"}"#);
    }
}
