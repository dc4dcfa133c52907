//! Training on tagged texts: named entities, words.

use std::fmt::Write as _;

use burn::module::Module;
use kiln_heads::{Network, Pretrained, TaskModel, TokenClassifier, Units};
use kiln_predict::Tags;
use kiln_schema::{LabelSet, Splits, TaggedText};
use kiln_tokenize::UnitWindow;
use kiln_train::TaggedSet;

use super::job::Trained;
use super::{MISTAKES, Outcome, Run};
use crate::recipe::Encoder;

impl Run<'_> {
    pub fn tags(&self) -> anyhow::Result<Outcome> {
        let (texts, labels) = self.read::<TaggedText>()?;
        let windows = texts.as_ref().try_map(|_, texts| {
            self.tokenizer().encode_units_all(texts.iter().map(|text| (text.text.as_str(), text.units.as_slice())))
        })?;
        let lengths: Vec<usize> =
            windows.train.iter().flatten().map(|window| window.encoding.input_ids.len()).collect();
        self.tell_shape(lengths.len(), &lengths);
        let whole = |windows: &Vec<UnitWindow>| windows.first().map_or(0, |window| window.encoding.full_length);
        self.audit(&texts, &labels, windows.as_ref().map(|_, texts| texts.iter().map(whole).collect()))?;

        let crf = self.recipe.model.crf;
        let config = self.pretrained(labels.len());
        let mut pretrained = config.token_classifier(&self.checkpoint.folder, crf, self.device)?;
        self.prepare(&mut pretrained.model.bert);
        let Pretrained { model: TokenClassifier { bert, head, crf }, .. } = &pretrained;
        let field = if crf.is_some() { ", a conditional random field on top" } else { "" };
        let head = format!("{} parameters{field}; each unit → logits [{}]", head.num_params(), labels.len());
        self.describe(&pretrained, bert, lengths.iter().max().copied().unwrap_or(0), &head);
        let (folder, _) = self.begin()?;

        let pad_token_id = self.tokenizer().pad_token_id();
        let tags = texts.as_ref().map(|_, texts| texts.iter().map(|text| text.tags.clone()).collect());
        let sets =
            windows.zip(tags).map(|_, (windows, tags)| TaggedSet::new(windows, tags, labels.clone(), pad_token_id));
        let sets = self.marked(sets, &texts.train, &labels)?;
        let mut model = pretrained.model;
        if self.recipe.model.encoder == Encoder::Frozen {
            model.bert = model.bert.freeze();
        }
        let Trained { model, train, splits, judged } = self.job(&folder).fit(&sets, model, 0.0)?;
        let errors = errors(&judged, texts.test.as_ref().unwrap_or(&texts.validation), &labels);
        let narrow = texts.train.iter().all(|text| text.words().all(|word| word.chars().nth(1).is_none()));
        let units = if narrow { Units::Characters } else { Units::Words };
        let network = Network::TokenClassification { model, labels, units };
        self.finish(folder, &TaskModel { network, config: pretrained.config }, train, splits, &errors)
    }
}

impl Run<'_> {
    /// The training split with the recipe's weights and tokens.
    fn marked(
        &self,
        sets: Splits<TaggedSet>,
        train: &[TaggedText],
        labels: &LabelSet,
    ) -> anyhow::Result<Splits<TaggedSet>> {
        let mut set = sets.train;
        if let Some(weights) = &self.recipe.train.class_weights {
            set = set.with_class_weights(weights.of(train.iter().flat_map(|text| text.tags.iter().copied()), labels)?);
        }
        if self.recipe.train.label_all_tokens {
            set = set.with_all_tokens();
        }
        Ok(Splits { train: set, ..sets })
    }
}

/// The units with a wrong tag, the most confident first: row (from 1), probability, predicted and true tag, unit, text.
pub fn errors(output: &Tags, texts: &[TaggedText], labels: &LabelSet) -> String {
    let mut wrong = Vec::new();
    for (row, text) in texts.iter().enumerate() {
        let said = output.tags[row].iter().zip(&output.scores[row]);
        for ((unit, (&tag, &score)), &target) in said.enumerate().zip(&text.tags) {
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
