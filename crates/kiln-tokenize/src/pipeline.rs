use std::path::Path;

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{
    BertNormalizer, Lowercase, NFKD, NormalizerWrapper, Replace, Sequence as Normalizers, StripAccents,
};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Model, ModelWrapper, decoders};

use crate::Error;
use crate::class::Class;
use crate::config::{SpecialToken, SpecialTokens, TokenizerConfig};
use crate::declared::check_length;

/// Builds the pipeline of a tokenizer class around a vocabulary, and adds the special tokens. `path` is the vocabulary's
/// file.
///
/// BERT's pipeline cleans a text, puts spaces around Chinese characters, lower-cases, strips accents, and splits at spaces
/// and punctuation: `BasicTokenizer` of google-research/bert, `tokenization.py`. RoBERTa's pipeline is that of GPT-2: it
/// splits a text into words, each with the space before it, and encodes them as bytes.
pub(crate) fn apply(
    pipeline: &mut tokenizers::Tokenizer,
    class: Class,
    path: &Path,
    config: &TokenizerConfig,
) -> Result<(), Error> {
    let invalid = |source| Error::Pipeline { path: path.to_owned(), source };
    let tokens = class.special_tokens(config);
    let special = |pipeline: &tokenizers::Tokenizer, role, token: &Option<SpecialToken>| {
        let token = name(token);
        match pipeline.token_to_id(token) {
            Some(id) => Ok((token.to_owned(), id)),
            None => {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                Err(Error::NoSpecialToken { folder, role, tried: format!("`{token}`") })
            }
        }
    };
    match (class, pipeline.get_model()) {
        (Class::Bert, ModelWrapper::WordPiece(_)) => {
            bert(pipeline, config, name(&tokens.unk_token)).map_err(invalid)?;
            let cls = special(pipeline, "cls_token", &tokens.cls_token)?;
            let sep = special(pipeline, "sep_token", &tokens.sep_token)?;
            pipeline.with_post_processor(Some(BertProcessing::new(sep, cls)));
        }
        (Class::Roberta, ModelWrapper::BPE(_)) => {
            roberta(pipeline, config).map_err(invalid)?;
            let cls = special(pipeline, "cls_token", &tokens.cls_token)?;
            let sep = special(pipeline, "sep_token", &tokens.sep_token)?;
            let template = RobertaProcessing::new(sep, cls)
                .trim_offsets(config.settings.trim_offsets.unwrap_or(true))
                .add_prefix_space(config.settings.add_prefix_space.unwrap_or(false));
            pipeline.with_post_processor(Some(template));
        }
        (Class::XlmRoberta, ModelWrapper::Unigram(_)) => {
            xlm_roberta(pipeline, config).map_err(invalid)?;
            let bos = special(pipeline, "bos_token", &tokens.bos_token)?;
            let eos = special(pipeline, "eos_token", &tokens.eos_token)?;
            // `<s> A </s> </s> B </s>` with type ids of 0. The offsets are not trimmed.
            pipeline.with_post_processor(Some(RobertaProcessing::new(eos, bos).trim_offsets(false)));
        }
        (Class::Albert, ModelWrapper::Unigram(_)) => {
            albert(pipeline, config).map_err(invalid)?;
            // Unlike the other classes, this one keeps the template in `tokenizer.json`.
            if pipeline.get_post_processor().is_none() {
                let cls = special(pipeline, "cls_token", &tokens.cls_token)?;
                let sep = special(pipeline, "sep_token", &tokens.sep_token)?;
                pipeline.with_post_processor(Some(BertProcessing::new(sep, cls)));
            }
        }
        _ => {}
    }
    let longest = tokens.stated().map(|token| token.name().len()).max();
    check_length(path, "the vocabulary", longest.unwrap_or(0))?;
    add_special(pipeline, &tokens).map_err(invalid)
}

/// BERT's normalizer with the settings of a configuration.
fn bert_normalizer(config: &TokenizerConfig) -> BertNormalizer {
    let settings = &config.settings;
    BertNormalizer::new(
        true,
        settings.tokenize_chinese_chars.unwrap_or(true),
        settings.strip_accents,
        settings.do_lower_case.unwrap_or(true),
    )
}

fn bert(pipeline: &mut tokenizers::Tokenizer, config: &TokenizerConfig, unk: &str) -> tokenizers::Result<()> {
    if let ModelWrapper::WordPiece(model) = pipeline.get_model() {
        let plain = WordPiece::default();
        let same = model.unk_token == unk
            && model.continuing_subword_prefix == plain.continuing_subword_prefix
            && model.max_input_chars_per_word == plain.max_input_chars_per_word;
        if !same {
            let mut model = model.clone();
            model.unk_token = unk.to_owned();
            model.continuing_subword_prefix = plain.continuing_subword_prefix;
            model.max_input_chars_per_word = plain.max_input_chars_per_word;
            pipeline.with_model(model);
        }
    }
    pipeline
        .with_normalizer(Some(bert_normalizer(config)))?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    Ok(())
}

fn roberta(pipeline: &mut tokenizers::Tokenizer, config: &TokenizerConfig) -> tokenizers::Result<()> {
    if let ModelWrapper::BPE(model) = pipeline.get_model() {
        let is_plain = model.dropout.is_none()
            && model.unk_token.is_none()
            && [&model.continuing_subword_prefix, &model.end_of_word_suffix]
                .into_iter()
                .flatten()
                .all(String::is_empty)
            && !(model.fuse_unk || model.byte_fallback || model.ignore_merges);
        if !is_plain {
            let mut model = model.clone();
            (model.dropout, model.unk_token) = (None, None);
            (model.continuing_subword_prefix, model.end_of_word_suffix) = (None, None);
            (model.fuse_unk, model.byte_fallback, model.ignore_merges) = (false, false, false);
            pipeline.with_model(model);
        }
    }
    let has_prefix = config.settings.add_prefix_space.unwrap_or(false);
    pipeline
        .with_normalizer(None::<NormalizerWrapper>)?
        .with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(has_prefix)))
        .with_decoder(Some(ByteLevel::default()));
    Ok(())
}

fn xlm_roberta(pipeline: &mut tokenizers::Tokenizer, config: &TokenizerConfig) -> tokenizers::Result<()> {
    let charsmap = pipeline.get_normalizer().and_then(precompiled);
    pipeline.with_normalizer(charsmap)?;
    divide_at_spaces(pipeline, config);
    Ok(())
}

fn albert(pipeline: &mut tokenizers::Tokenizer, config: &TokenizerConfig) -> tokenizers::Result<()> {
    let settings = &config.settings;
    let mut normalizers: Vec<NormalizerWrapper> =
        vec![Replace::new("``", "\"")?.into(), Replace::new("''", "\"")?.into()];
    if !settings.keep_accents.unwrap_or(false) {
        normalizers.extend([NFKD.into(), StripAccents.into()]);
    }
    if settings.do_lower_case.unwrap_or(true) {
        normalizers.push(Lowercase.into());
    }
    normalizers.extend(pipeline.get_normalizer().and_then(precompiled));
    pipeline.with_normalizer(Some(Normalizers::new(normalizers)))?;
    divide_at_spaces(pipeline, config);
    Ok(())
}

/// Splits at white space. In each word, SentencePiece's `▁` replaces the space before it.
fn divide_at_spaces(pipeline: &mut tokenizers::Tokenizer, config: &TokenizerConfig) {
    let has_prefix = config.settings.add_prefix_space.unwrap_or(true);
    let prepend = if has_prefix { PrependScheme::Always } else { PrependScheme::Never };
    let metaspace = Metaspace::new('▁', prepend, true);
    let split = Sequence::new(vec![
        PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
        PreTokenizerWrapper::Metaspace(metaspace.clone()),
    ]);
    pipeline.with_pre_tokenizer(Some(split)).with_decoder(Some(metaspace));
}

/// The first precompiled character map in a normalizer.
fn precompiled(normalizer: &NormalizerWrapper) -> Option<NormalizerWrapper> {
    match normalizer {
        NormalizerWrapper::Precompiled(_) => Some(normalizer.clone()),
        NormalizerWrapper::Sequence(parts) => parts.as_ref().iter().find_map(precompiled),
        _ => None,
    }
}

/// Adds the special tokens that `tokenizer.json` does not list as added, so that they are never split.
fn add_special(pipeline: &mut tokenizers::Tokenizer, tokens: &SpecialTokens) -> tokenizers::Result<()> {
    let model = pipeline.get_model();
    let added = pipeline.get_added_vocabulary().get_vocab();
    let is_missing =
        |token: &&SpecialToken| !added.contains_key(token.name()) && model.token_to_id(token.name()).is_some();
    let missing: Vec<AddedToken> = tokens.stated().filter(is_missing).map(SpecialToken::added).collect();
    pipeline.add_special_tokens(missing).map(|_| ())
}

/// The name of a special token; empty for `None`.
fn name(token: &Option<SpecialToken>) -> &str {
    token.as_ref().map(SpecialToken::name).unwrap_or_default()
}
