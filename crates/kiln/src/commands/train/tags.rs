//! Training on tagged texts: named entities, words, parts of speech.

use std::fmt::Write as _;

use burn::module::Module;
use kiln_eval::TagSet;
use kiln_heads::{Network, Pretrained, TaskModel, TokenClassifier, Units};
use kiln_predict::Tags;
use kiln_schema::{LabelSet, Splits, TagScheme, TagSchemeError, TaggedText};
use kiln_tokenize::{Encoding, UnitWindow};
use kiln_train::{Metric, TaggedSet};

use super::job::Trained;
use super::{MISTAKES, Outcome, Run};
use crate::cli::UsageError;
use crate::console::stage;
use crate::recipe::{Data, Recipe};

impl Run<'_> {
    pub fn tags(self) -> anyhow::Result<Outcome> {
        let (texts, labels) = self.read::<TaggedText>()?;
        let tag_scheme = tag_scheme(self.recipe, &labels)?;
        stage("", "kiln-schema", format_args!("tag scheme {tag_scheme}"));
        let data = Data { tag_scheme: Some(tag_scheme), ..self.recipe.data.clone() };
        let recipe = Recipe { data, ..self.recipe.clone() };
        Run { recipe: &recipe, ..self }.tags_of_scheme(texts, labels, tag_scheme)
    }

    fn tags_of_scheme(
        &self,
        texts: Splits<Vec<TaggedText>>,
        labels: LabelSet,
        tag_scheme: TagScheme,
    ) -> anyhow::Result<Outcome> {
        let windows = texts.as_ref().try_map(|_, texts| {
            self.tokenizer().encode_units_all(texts.iter().map(|text| (text.text.as_str(), text.units.as_slice())))
        })?;
        let lengths: Vec<usize> =
            windows.train.iter().flatten().map(|window| window.encoding.input_ids.len()).collect();
        self.show_shape(lengths.len(), &lengths);
        let whole = |windows: &Vec<UnitWindow>| windows.first().map_or(0, |window| window.encoding.full_length);
        self.audit(&texts, &labels, windows.as_ref().map(|_, texts| texts.iter().map(whole).collect()))?;

        let crf = self.recipe.model.crf;
        let config = self.pretrained(labels.len());
        let mut pretrained = config.token_classifier(&self.checkpoint.folder, crf, self.device)?;
        self.prepare(&mut pretrained.model.bert);
        let Pretrained { model: TokenClassifier { bert, head, crf }, .. } = &pretrained;
        let crf = if crf.is_some() { ", with a CRF" } else { "" };
        let head = format!("{} parameters{crf}; each unit → logits [{}]", head.num_params(), labels.len());
        self.describe(&pretrained, bert, lengths.iter().max().copied().unwrap_or(0), &head);
        self.begin()?;
        let rows: Vec<&Encoding> =
            windows.iter().flat_map(|(_, rows)| rows.iter().flatten().map(|window| &window.encoding)).collect();
        let encoder_seconds = self.cache_tokens(&mut pretrained.model.bert, &rows)?;

        let pad_token_id = self.tokenizer().pad_token_id();
        let tags = texts.as_ref().map(|_, texts| texts.iter().map(|text| text.tags.clone()).collect());
        let tag_set = TagSet { labels: &labels, scheme: tag_scheme };
        let sets = windows.zip(tags).map(|_, (windows, tags)| TaggedSet::new(windows, tags, tag_set, pad_token_id));
        let sets = self.weighted(sets, &texts.train, &labels)?;
        let Trained { model, train, splits, judged } = self.job().fit(&sets, pretrained.model, encoder_seconds)?;
        let errors = errors(&judged, texts.test.as_ref().unwrap_or(&texts.validation), &labels);
        let single = texts.train.iter().all(|text| text.words().all(|word| word.chars().nth(1).is_none()));
        let units = if single { Units::Characters } else { Units::Words };
        let network = Network::TokenClassification { model, labels, units, tag_scheme };
        self.finish(&TaskModel { network, config: pretrained.config }, train, splits, &errors)
    }
}

impl Run<'_> {
    /// The training split with the recipe's weights, smoothing and tokens.
    fn weighted(
        &self,
        sets: Splits<TaggedSet>,
        train: &[TaggedText],
        labels: &LabelSet,
    ) -> anyhow::Result<Splits<TaggedSet>> {
        let mut set = sets.train;
        let targets = train.iter().flat_map(|text| text.tags.iter().copied());
        if let Some(loss) = self.recipe.train.label_loss(targets, labels)? {
            set = set.with_label_loss(loss);
        }
        if self.recipe.train.label_all_tokens {
            set = set.with_all_tokens();
        }
        Ok(Splits { train: set, ..sets })
    }
}

/// The recipe's tag scheme, or the only one that the tags can have. It also has to have the recipe's metric.
fn tag_scheme(recipe: &Recipe, labels: &LabelSet) -> Result<TagScheme, UsageError> {
    let tags = || labels.names().iter().map(String::as_str);
    let usage = |error: TagSchemeError| UsageError(error.to_string());
    let scheme = match recipe.data.tag_scheme {
        Some(scheme) => scheme.check(tags()).map(|()| scheme).map_err(usage)?,
        None => TagScheme::infer(tags()).map_err(usage)?,
    };
    if scheme == TagScheme::Plain && recipe.train.metric == Some(Metric::EntityF1) {
        let message = "train.metric = \"entity_f1\": the tags are plain and make no entities; \
                       expected accuracy, macro_f1 or loss, or another data.tag_scheme";
        return Err(UsageError(message.to_owned()));
    }
    Ok(scheme)
}

/// The units with a wrong tag, the most confident first: row (from 1), probability, predicted and true tag, unit, text.
pub fn errors(output: &Tags, texts: &[TaggedText], labels: &LabelSet) -> String {
    let mut wrong = Vec::new();
    for (row, text) in texts.iter().enumerate() {
        let predicted = output.tags[row].iter().zip(&output.scores[row]);
        for ((unit, (&tag, &score)), &target) in predicted.enumerate().zip(&text.tags) {
            if tag != target {
                wrong.push((score, row, unit, tag, target));
            }
        }
    }
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut table = String::from("row\tprobability\tprediction\ttarget\tunit\ttext\n");
    for (score, row, unit, tag, target) in wrong.into_iter().take(MISTAKES) {
        let text = &texts[row];
        let (unit, whole) = (&text.text[text.units[unit].clone()], text.text.replace(['\t', '\n', '\r'], " "));
        let (tag, target) = (labels.name(tag), labels.name(target));
        writeln!(table, "{}\t{score:.4}\t{tag}\t{target}\t{unit}\t{whole}", row + 1).expect("a string takes any text");
    }
    table
}
