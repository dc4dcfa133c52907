//! Token classification: named entities, word segmentation, parts of speech.

use anyhow::bail;
use burn::module::Module;
use burn::tensor::Device;
use kiln_dataset::{Source, read};
use kiln_eval::{Judged, TagSet, in_context, tsv};
use kiln_heads::{Calibration, Network, Tags, TokenClassifier, Units};
use kiln_predict::Predictor;
use kiln_schema::{LabelId, LabelSet, Splits, TagScheme, TagSchemeError, TaggedText};
use kiln_tokenize::{Encoding, Tokenizer, UnitWindow};
use kiln_train::{EvaluationSet, Metric, TaggedSet};

use super::{BATCH_SIZE, Judgement, MISTAKES, Scored};
use crate::recipe::Recipe;
use crate::stages::features::cache_tokens;
use crate::stages::fit::{FitOptions, Fitted, fit};
use crate::stages::model::{prepare, pretrained, scope};
use crate::stages::read::{RowLengths, Rows, audit_rows, rows};
use crate::stages::settle::Plan;
use crate::stages::teacher::{self, Lessons, Teacher, check_tokens, taught};
use crate::stages::{Described, Learner, Stages, Tokens};
use crate::{Fold, Observer, UsageError};

/// The stages of token classification.
pub(crate) struct TagTask;

/// Tagged texts and their tag scheme.
pub(crate) struct TaggedRows {
    rows: Rows<TaggedText>,
    scheme: TagScheme,
}

/// The windows of each text.
type Windows = Vec<Vec<UnitWindow>>;

fn encode(tokenizer: &Tokenizer, texts: &[TaggedText]) -> Result<Windows, kiln_tokenize::Error> {
    tokenizer.encode_units_all(texts.iter().map(|text| (text.text.as_str(), text.units.as_slice())))
}

/// The encodings of all windows.
fn encodings(texts: &Windows) -> impl Iterator<Item = &Encoding> {
    texts.iter().flatten().map(|window| &window.encoding)
}

impl Stages for TagTask {
    type Rows = TaggedRows;
    type Encoded = Splits<Windows>;
    type Model = TokenClassifier;

    fn read(&self, plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<TaggedRows> {
        let rows = rows::<TaggedText>(plan, true, observer)?;
        let scheme = tag_scheme(plan.recipe, &rows.labels)?;
        observer.stage("", "kiln-schema", &format_args!("tag scheme {scheme}"));
        Ok(TaggedRows { rows, scheme })
    }

    fn encode(
        &self,
        plan: &Plan<'_>,
        rows: &TaggedRows,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Tokens<Self::Encoded>> {
        let rows = &rows.rows;
        let encoded = rows.items.as_ref().try_map(|_, texts| encode(plan.tokenizer(), texts))?;
        if let Some(teacher) = &plan.teacher {
            let theirs = encode(&teacher.tokenizer, &rows.items.train)?;
            check_tokens(encodings(&encoded.train), encodings(&theirs))?;
        }
        let whole = |windows: &Vec<UnitWindow>| windows.first().map_or(0, |window| window.encoding.full_length);
        let lengths = RowLengths {
            train: encoded.train.iter().flatten().map(|window| window.encoding.input_ids.len()).collect(),
            whole: encoded.as_ref().map(|_, texts| texts.iter().map(whole).collect()),
        };
        let (longest, audit) = audit_rows(plan, rows, lengths, observer)?;
        let sum = |windows: &Vec<UnitWindow>| windows.iter().map(|window| window.encoding.input_ids.len()).sum();
        let tokens: Splits<Vec<usize>> = encoded.as_ref().map(|_, items| items.iter().map(sum).collect());
        Ok(Tokens { encoded, num_rows: tokens.train.len(), longest, audit, tokens })
    }

    fn pick(&self, rows: &TaggedRows, picked: &Splits<Vec<usize>>) -> TaggedRows {
        TaggedRows { rows: rows.rows.pick(picked), scheme: rows.scheme }
    }

    fn hold_out(
        &self,
        rows: Self::Rows,
        encoded: Self::Encoded,
        fold: Fold,
    ) -> anyhow::Result<(Self::Rows, Self::Encoded)> {
        let TaggedRows { rows, scheme } = rows;
        let (rows, encoded) = rows.hold_out(encoded, fold)?;
        Ok((TaggedRows { rows, scheme }, encoded))
    }

    fn model(&self, plan: &Plan<'_>, rows: &TaggedRows) -> anyhow::Result<Described<TokenClassifier>> {
        let (crf, num_labels) = (plan.recipe.model.crf, rows.rows.labels.len());
        let config = pretrained(plan, num_labels);
        let mut pretrained = config.token_classifier(&plan.checkpoint.folder, crf, plan.device)?;
        prepare(plan, &mut pretrained.model.bert)?;
        let TokenClassifier { bert, head, crf } = &pretrained.model;
        let crf = if crf.is_some() { ", with a CRF" } else { "" };
        let head = format!("{} parameters{crf}; each unit → logits [{num_labels}]", head.num_params());
        let teacher = match teacher::load(plan)? {
            None => None,
            Some(Network::TokenClassification { model, labels, .. }) => {
                Some(Teacher { model, columns: teacher::columns(&labels, &rows.rows.labels)? })
            }
            Some(other) => bail!(teacher::wrong_task(plan, &other)),
        };
        Ok(Described { encoder_parameters: bert.parameter_count(), head, pretrained, teacher })
    }

    fn fit(
        &self,
        plan: &Plan<'_>,
        rows: &TaggedRows,
        encoded: Self::Encoded,
        learner: Learner<TokenClassifier>,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Fitted<TokenClassifier>> {
        let Learner { mut model, teacher } = learner;
        let TaggedRows { rows: Rows { items, labels }, scheme } = rows;
        let windows: Vec<&Encoding> = encoded.iter().flat_map(|(_, texts)| encodings(texts)).collect();
        let encoder_seconds = cache_tokens(plan, &mut model.bert, &windows, observer)?;
        let pad_token_id = plan.tokenizer().pad_token_id();
        let tags = items.as_ref().map(|_, texts| targets(texts));
        let tag_set = TagSet { labels, scheme: *scheme };
        let sets = encoded.zip(tags).map(|_, (windows, tags)| TaggedSet::new(windows, tags, tag_set, pad_token_id));
        let sets = weighted(plan.recipe, sets, &items.train, labels)?;
        let lessons = teacher.map(|teacher| Lessons { teacher, set: None });
        let taught = taught(plan, sets, lessons, observer)?;
        let judged = items.test.as_ref().unwrap_or(&items.validation);
        let options = FitOptions {
            metric: plan.recipe.metric_of(Some(*scheme)),
            scope: scope(plan, &model.bert),
            encoder_seconds,
            teacher_seconds: taught.seconds,
            judge: |output: &Tags, _: &_, _: Option<&Calibration>| judge(output, judged, tag_set),
        };
        fit(plan, &taught.sets, model, options, observer)
    }

    fn network(&self, rows: TaggedRows, model: TokenClassifier) -> Network {
        let TaggedRows { rows: Rows { items, labels }, scheme } = rows;
        let single = items.train.iter().all(|text| text.words().all(|word| word.chars().nth(1).is_none()));
        let units = if single { Units::Characters } else { Units::Words };
        Network::TokenClassification { model, labels, units, tag_scheme: scheme }
    }
}

/// Applies the recipe's class weights, label smoothing, focal loss and `label_all_tokens` to the training split.
fn weighted(
    recipe: &Recipe,
    sets: Splits<TaggedSet>,
    train: &[TaggedText],
    labels: &LabelSet,
) -> anyhow::Result<Splits<TaggedSet>> {
    let mut set = sets.train;
    let targets = train.iter().flat_map(|text| text.tags.iter().copied());
    if let Some(loss) = recipe.train.label_loss(targets, labels)? {
        set = set.with_label_loss(loss);
    }
    if recipe.train.label_all_tokens {
        set = set.with_all_tokens();
    }
    Ok(Splits { train: set, ..sets })
}

/// The scores of a trained model on a labelled file.
pub(crate) fn score(
    predictor: &Predictor,
    model: &TokenClassifier,
    tags: TagSet<'_>,
    source: Source,
    device: &Device,
) -> anyhow::Result<Scored> {
    let (texts, labels) = read::<TaggedText>(&[source], Some(tags.labels.clone()))?;
    let windows = encode(predictor.tokenizer(), &texts)?;
    let tag_set = TagSet { labels: &labels, scheme: tags.scheme };
    let set = TaggedSet::new(windows, targets(&texts), tag_set, predictor.tokenizer().pad_token_id());
    let output = set.output(model, BATCH_SIZE, device);
    Ok(Scored::new(set.report(&output)?, judge(&output, &texts, tag_set)))
}

fn targets(texts: &[TaggedText]) -> Vec<Vec<LabelId>> {
    texts.iter().map(|text| text.tags.clone()).collect()
}

fn judge(output: &Tags, texts: &[TaggedText], tag_set: TagSet<'_>) -> Judgement {
    let judged = Judged::tags(&output.tags, &targets(texts), tag_set);
    Judgement::new(errors(output, texts, tag_set.labels), judged, texts)
}

/// The recipe's tag scheme, or the one inferred from the tags. It must support the recipe's metric.
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

/// The units with a wrong tag, the most confident first: row (from 1), probability, predicted and true tag, unit, and the
/// unit in context.
fn errors(output: &Tags, texts: &[TaggedText], labels: &LabelSet) -> String {
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
    let cells = |(score, row, unit, tag, target): (f64, usize, usize, LabelId, LabelId)| {
        let text = &texts[row];
        let place = text.units[unit].clone();
        let (unit, context) = (text.text[place.clone()].to_owned(), in_context(&text.text, place));
        let [tag, target] = [tag, target].map(|tag| labels.name(tag).to_owned());
        [(row + 1).to_string(), format!("{score:.4}"), tag, target, unit, context]
    };
    let columns = ["row", "probability", "prediction", "target", "unit", "context"];
    tsv(columns, wrong.into_iter().take(MISTAKES).map(cells))
}
