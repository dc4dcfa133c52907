use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};

use crate::config::parse;
use crate::file::read_if_present;
use crate::{Error, Tokenizer};

/// The names of sentence-transformers' file, in the order in which it tries them.
const FILES: [&str; 6] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
];

/// sentence-transformers' settings of a checkpoint, which have precedence over those of its tokenizer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    /// Whether texts are lower-cased before they are tokenized.
    do_lower_case: bool,
}

/// sentence-transformers' file with the prompts of a checkpoint.
pub const PROMPTS_FILE: &str = "config_sentence_transformers.json";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PromptConfig {
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

/// The text that sentence-transformers puts before each text of which it computes an embedding: the prompt named by
/// `default_prompt_name` in `config_sentence_transformers.json`. It is empty if the folder has no such file or name.
///
/// # Errors
/// When the file cannot be read or parsed, or has no prompt of that name.
pub fn default_prompt(folder: &Path) -> Result<String, Error> {
    let path = folder.join(PROMPTS_FILE);
    let Some(json) = read_if_present(&path)? else { return Ok(String::new()) };
    let PromptConfig { mut prompts, default_prompt_name } = parse(&path, &json)?;
    let Some(name) = default_prompt_name else { return Ok(String::new()) };
    match prompts.remove(&name) {
        Some(prompt) => Ok(prompt),
        None => {
            Err(Error::Broken { path, reason: format!("`default_prompt_name` is `{name}`, which `prompts` lacks") })
        }
    }
}

impl SentenceConfig {
    /// The settings with their file, or the default without a file.
    fn read(folder: &Path) -> Result<(Self, PathBuf), Error> {
        for path in FILES.map(|name| folder.join(name)) {
            if let Some(json) = read_if_present(&path)? {
                return Ok((parse(&path, &json)?, path));
            }
        }
        Ok((Self::default(), folder.join(FILES[0])))
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint that computes text embeddings: [`Tokenizer::from_folder`] with the
    /// `max_seq_length` and `do_lower_case` of sentence-transformers' `sentence_bert_config.json`, if the folder has one.
    ///
    /// # Errors
    /// As [`Tokenizer::from_folder`], and when that file cannot be read or parsed.
    pub fn from_sentence_folder(folder: &Path) -> Result<Self, Error> {
        let (SentenceConfig { max_seq_length, do_lower_case }, path) = SentenceConfig::read(folder)?;
        let lowercase = |pipeline: &mut _| if do_lower_case { lowercase(pipeline) } else { Ok(()) };
        let tokenizer = Self::read_folder(folder, lowercase)?;
        let Some(max_length) = max_seq_length else { return Ok(tokenizer) };
        tokenizer
            .with_max_length(max_length)
            .map_err(|error| Error::Broken { path, reason: format!("max_seq_length: {error}") })
    }
}

/// Makes a pipeline lower-case its texts first, unless it does so already.
fn lowercase(pipeline: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
    let normalizer = match pipeline.get_normalizer() {
        Some(NormalizerWrapper::BertNormalizer(bert)) if bert.lowercase => return Ok(()),
        Some(normalizer) => Sequence::new(vec![NormalizerWrapper::Lowercase(Lowercase), normalizer.clone()]).into(),
        None => NormalizerWrapper::Lowercase(Lowercase),
    };
    pipeline.with_normalizer(Some(normalizer))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
    }

    /// As sentence-transformers reads the files.
    #[test]
    fn the_settings_for_sentences_come_first() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, json: &str| fs::write(folder.path().join(name), json).expect("it is writable");
        fs::copy(fixture("tiny").join("vocab.txt"), folder.path().join("vocab.txt")).expect("it is readable");
        write("tokenizer_config.json", r#"{"model_max_length": 9, "do_lower_case": false}"#);
        let read = || Tokenizer::from_sentence_folder(folder.path());
        let ids = |tokenizer: &Tokenizer| tokenizer.encode("房 CLEAN Café clean", None).expect("it encodes").input_ids;
        let as_it_is = read().expect("there is no file for sentences");
        assert_eq!((as_it_is.max_length(), ids(&as_it_is)), (9, vec![2, 5, 1, 1, 7, 3]));

        write("sentence_roberta_config.json", r#"{"max_seq_length": 5, "do_lower_case": true}"#);
        assert_eq!(Tokenizer::from_folder(folder.path()).expect("it is whole").max_length(), 9, "for other models");
        let shorter = read().expect("both files are well-formed");
        assert_eq!((shorter.max_length(), ids(&shorter)), (5, vec![2, 5, 7, 1, 3]), "accents are kept");
        let saved = tempfile::tempdir().expect("a temporary folder");
        shorter.save(saved.path()).expect("the folder is writable");
        let again = Tokenizer::from_folder(saved.path()).expect("what was saved is whole");
        assert_eq!((again.max_length(), ids(&again)), (5, vec![2, 5, 7, 1, 3]));

        write("sentence_bert_config.json", r#"{"max_seq_length": 77, "do_lower_case": false}"#);
        assert_eq!(read().expect("the first file counts").max_length(), 77);
        write("sentence_bert_config.json", r#"{"max_seq_length": null}"#);
        assert_eq!(read().expect("no maximum").max_length(), 9);
        for wrong in [r#"{"max_seq_length": 1}"#, r#"{"max_seq_length": -1}"#, "["] {
            write("sentence_bert_config.json", wrong);
            let message = read().expect_err(wrong).to_string();
            assert!(message.contains("sentence_bert_config.json"), "{wrong}: {message}");
        }
    }

    #[test]
    fn the_default_prompt_is_the_named_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let with = |json: &str| {
            fs::write(folder.path().join(PROMPTS_FILE), json).expect("it is writable");
            default_prompt(folder.path())
        };
        assert_eq!(default_prompt(folder.path()).expect("no file"), "");
        let prompts = r#""prompts": {"query": "query: ", "document": ""}"#;
        for (name, expected) in [("null", ""), (r#""query""#, "query: "), (r#""document""#, "")] {
            let json = format!(r#"{{{prompts}, "default_prompt_name": {name}, "similarity_fn_name": "cosine"}}"#);
            assert_eq!(with(&json).expect("it is there"), expected, "{name}");
        }
        for (json, named) in [(r#"{"default_prompt_name": "query"}"#, "`query`"), (r#"{"prompts": 1}"#, PROMPTS_FILE)] {
            let message = with(json).expect_err(json).to_string();
            assert!(message.contains(named) && message.contains(PROMPTS_FILE), "{message}");
        }
    }

    /// The text is longer than a piece, so it is also cut as the changed pipeline allows.
    #[test]
    fn a_lower_cased_text_is_the_text_in_lower_case() {
        for name in ["tiny", "tiny-unigram"] {
            let text = "Clean 房间 CAFE! ".repeat(5_000);
            let plain = Tokenizer::from_folder(&fixture(name)).expect("the fixture is whole");
            let folder = tempfile::tempdir().expect("a temporary folder");
            plain.save(folder.path()).expect("the folder is writable");
            fs::write(folder.path().join(FILES[0]), r#"{"do_lower_case": true}"#).expect("it is writable");
            let lower = Tokenizer::from_sentence_folder(folder.path()).expect("the folder is whole");
            let all = |tokenizer: &Tokenizer, text: String| tokenizer.pieces(&[text]).expect("it encodes");
            assert_eq!(all(&lower, text.clone()), all(&plain, text.to_lowercase()), "{name}");
        }
    }
}
