use std::ops::Range;

use kiln_heads::{Network, Units};
use kiln_tokenize::{ContextConfig, ContextWindow, Encoding, UnitWindow, characters, words};

use crate::predictor::excerpt;
use crate::{Error, PIPELINE_MAX_LENGTH, Predictor};

/// A tokenized text or pair, ready to be computed in any batch.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) text: String,
    pub(crate) text_pair: Option<String>,
    pub(crate) rows: Rows,
    pub(crate) top: Option<usize>,
}

/// The rows of a text in a batch: one for the text, or one for each of its windows.
#[derive(Clone, Debug)]
pub(crate) enum Rows {
    /// One row, possibly truncated.
    Whole(Encoding),
    /// The windows of a text to tag.
    Units { units: Vec<Range<usize>>, windows: Vec<UnitWindow> },
    /// The windows of a question and its context.
    Context(Vec<ContextWindow>),
}

pub(crate) const OTHER_TASK: &str = "a text was prepared by a model of another task";

impl Prepared {
    /// The text. Surrounding white space is removed, except for token classification, where offsets refer to the original
    /// text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The second text of a pair. Surrounding white space is removed, except for question answering, where offsets refer to
    /// the original context.
    pub fn text_pair(&self) -> Option<&str> {
        self.text_pair.as_deref()
    }

    /// The number of tokens in all rows, including special tokens: a measure of the cost.
    pub fn tokens(&self) -> usize {
        self.encodings().map(|encoding| encoding.input_ids.len()).sum()
    }

    /// The number of tokens of the text itself, including special tokens. The overlap of windows counts once, and so does a
    /// question.
    pub fn own_tokens(&self) -> usize {
        match &self.rows {
            Rows::Whole(encoding) => encoding.input_ids.len(),
            Rows::Units { windows, .. } => windows.first().map_or(0, |window| window.encoding.full_length),
            Rows::Context(windows) => windows.first().map_or(0, |window| window.encoding.full_length),
        }
    }

    /// The number of rows in a batch.
    pub fn rows(&self) -> usize {
        self.encodings().count()
    }

    /// The number of tokens of the longest row, to which a batch is padded.
    pub fn longest(&self) -> usize {
        self.encodings().map(|encoding| encoding.input_ids.len()).max().unwrap_or(0)
    }

    /// If the text was truncated, the least number of tokens that it had before.
    pub fn cut_from(&self) -> Option<usize> {
        match &self.rows {
            Rows::Whole(encoding) => encoding.is_truncated().then_some(encoding.full_length),
            Rows::Units { .. } | Rows::Context(_) => None,
        }
    }

    /// Sets how many tokens are predicted for each mask.
    pub fn with_top(self, top: usize) -> Self {
        Self { top: Some(top), ..self }
    }

    /// The only row of a text that is not divided into windows.
    pub(crate) fn whole(&self) -> &Encoding {
        match &self.rows {
            Rows::Whole(encoding) => encoding,
            Rows::Units { .. } | Rows::Context(_) => panic!("{OTHER_TASK}"),
        }
    }

    fn encodings(&self) -> impl Iterator<Item = &Encoding> {
        let (whole, units, context) = match &self.rows {
            Rows::Whole(encoding) => (Some(encoding), [].as_slice(), [].as_slice()),
            Rows::Units { windows, .. } => (None, windows.as_slice(), [].as_slice()),
            Rows::Context(windows) => (None, [].as_slice(), windows.as_slice()),
        };
        let windows = units.iter().map(|window| &window.encoding);
        whole.into_iter().chain(windows).chain(context.iter().map(|window| &window.encoding))
    }
}

impl Predictor {
    /// Tokenizes a text or a pair for the model's task. [`Predictor::compute`] takes the result.
    ///
    /// # Errors
    /// When the text cannot be tokenized, a question has no context, or there is no mask to fill.
    pub fn prepare(&self, text: &str, text_pair: Option<&str>) -> Result<Prepared, Error> {
        let given = (text, text_pair);
        let (mut text, mut text_pair) = (text.trim(), text_pair.map(str::trim));
        let tokenizer = self.tokenizer();
        let rows = match self.network() {
            Network::SequenceClassification { .. } => Rows::Whole(tokenizer.encode(text, text_pair)?),
            Network::TokenClassification { units, .. } => {
                text = given.0;
                match units {
                    Units::Characters => return self.prepare_units(text, characters(text)),
                    Units::Words => return self.prepare_units(text, words(text)),
                    Units::Tokens => {
                        let (units, windows) = tokenizer.encode_by_tokens(text)?;
                        Rows::Units { units, windows }
                    }
                }
            }
            Network::QuestionAnswering { .. } => {
                let context = text_pair.ok_or_else(|| Error::NoContext { question: excerpt(text) })?;
                // The same window length as in transformers' question-answering pipeline.
                let config = ContextConfig { max_length: PIPELINE_MAX_LENGTH, ..ContextConfig::default() };
                let windows = tokenizer.encode_context(text, context, config)?;
                let whole = given.1.unwrap_or_default();
                text_pair = Some(whole);
                let before = whole.chars().take_while(|c| c.is_whitespace()).count();
                Rows::Context(windows.into_iter().map(|window| window.behind(before)).collect())
            }
            Network::MaskedLm { .. } => {
                let encoding = tokenizer.encode(text, text_pair)?;
                let mask_token_id = tokenizer.mask_token_id().expect("`from_folder` has looked for it");
                if !encoding.input_ids.contains(&mask_token_id) {
                    let mask = tokenizer.token(mask_token_id).unwrap_or_default();
                    let is_there = [Some(text), text_pair].into_iter().flatten().any(|text| text.contains(&mask));
                    return Err(match is_there && encoding.is_truncated() {
                        true => Error::MaskCut { mask, max_length: tokenizer.max_length() },
                        false => Error::NoMask { mask, text: excerpt(text) },
                    });
                }
                Rows::Whole(encoding)
            }
        };
        Ok(Prepared { text: text.to_owned(), text_pair: text_pair.map(str::to_owned), rows, top: None })
    }

    /// Tokenizes a text to tag, whose units are given in bytes. [`Predictor::compute`] takes the result.
    ///
    /// # Errors
    /// When the text cannot be tokenized.
    ///
    /// # Panics
    /// In [`Predictor::compute`], when the model's task is another one.
    pub fn prepare_units(&self, text: &str, units: Vec<Range<usize>>) -> Result<Prepared, Error> {
        let windows = self.tokenizer().encode_units(text, &units)?;
        Ok(Prepared { text: text.to_owned(), text_pair: None, rows: Rows::Units { units, windows }, top: None })
    }
}
