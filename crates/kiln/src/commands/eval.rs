//! `kiln eval`: metrics of a labelled file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_dataset::{Format, Item, Record, Source, Unplaced, mend_answers, read};
use kiln_eval::{Report, SplitReport, TagSet};
use kiln_heads::{Network, SequenceClassifier};
use kiln_predict::Predictor;
use kiln_pretrain::{Drawing, MaskingConfig};
use kiln_schema::{Example, LabelId, LabelSet, ProblemType, Question, Split, TaggedText};
use kiln_tokenize::ContextConfig;
use kiln_train::{AskedSet, Encoded, TaggedSet, TrainingSet};

use crate::checkpoint::fetch_model;
use crate::cli::EvalArgs;
use crate::commands::train::pretraining::whole;
use crate::commands::train::sequences::Target;
use crate::commands::train::{answers, print_splits, tags};
use crate::console;
use crate::input::{Input, recipe_beside, refuse_to_overwrite};
use crate::recipe::available;
use crate::run_folder::write_report;

/// Rows computed at once.
const BATCH_SIZE: usize = 32;

/// Of the masks: the same for every model.
const SEED: u64 = 42;

pub fn run<B: Backend>(arguments: &EvalArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let folder = fetch_model(&arguments.model.model, &arguments.model.hub)?;
    let input = Input::labelled(&folder, &arguments.data, &arguments.columns, arguments.label.as_ref())?;
    if let Some(out) = &arguments.out {
        for name in ["report.json", "report.html", "errors.tsv"] {
            refuse_to_overwrite(&out.join(name), std::slice::from_ref(&arguments.data))?;
        }
    }
    let precision = available::<B>(arguments.precision.precision)?;
    let predictor = Predictor::from_folder(&folder, device)?.with_precision(precision);
    console::warn_of_layers(predictor.unused());
    let (split, errors) = evaluate(&predictor, &folder, input.source.clone(), device)?;
    let report = Report {
        task: predictor.task(),
        model: folder.display().to_string(),
        backend: B::NAME.to_owned(),
        splits: BTreeMap::from([(Split::Test, split)]),
        train: None,
    };
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out).with_context(|| format!("{}: cannot be created", out.display()))?;
        write_report(out, &report, &errors)?;
    }
    if json {
        return console::json(&report);
    }
    print_splits(&report)?;
    for label in report.splits.values().flat_map(SplitReport::labels) {
        console::result(format_args!(
            "{:<16} precision {:.4}  recall {:.4}  F1 {:.4}  support {}",
            label.label, label.precision, label.recall, label.f1, label.support
        ))?;
    }
    Ok(())
}

/// The report of a source, and the model's errors as a table.
fn evaluate(
    predictor: &Predictor,
    folder: &Path,
    mut source: Source,
    device: &Device,
) -> anyhow::Result<(SplitReport, String)> {
    let (tokenizer, pad_token_id) = (predictor.tokenizer(), predictor.tokenizer().pad_token_id());
    match predictor.network() {
        Network::SequenceClassification { model, labels, problem_type } => match problem_type {
            ProblemType::SingleLabelClassification => sequences::<LabelId>(predictor, model, labels, &source, device),
            ProblemType::MultiLabelClassification => {
                sequences::<Vec<LabelId>>(predictor, model, labels, &source, device)
            }
            ProblemType::Regression => sequences::<f64>(predictor, model, labels, &source, device),
        },
        Network::TokenClassification { model, labels, tag_scheme, .. } => {
            let (texts, labels) = read::<TaggedText>(&[source], Some(labels.clone()))?;
            let windows =
                tokenizer.encode_units_all(texts.iter().map(|text| (text.text.as_str(), text.units.as_slice())))?;
            let targets = texts.iter().map(|text| text.tags.clone()).collect();
            let tag_set = TagSet { labels: &labels, scheme: *tag_scheme };
            let set = TaggedSet::new(windows, targets, tag_set, pad_token_id);
            let output = set.output(model, BATCH_SIZE, device);
            Ok((set.report(&output)?, tags::errors(&output, &texts, &labels)))
        }
        Network::QuestionAnswering { model } => {
            source.format = Some(Format::Squad);
            let (mut questions, _) = read::<Question>(&[source], None)?;
            mend_answers(&mut questions, Unplaced::Keep);
            let pairs = questions.iter().map(|question| (question.question.as_str(), question.context.as_str()));
            let windows = tokenizer.encode_contexts(pairs, ContextConfig::default())?;
            let language = recipe_beside(folder)?.and_then(|recipe| recipe.data.answer_language);
            let set = AskedSet::new(questions, windows, pad_token_id).with_answer_language(language);
            let output = set.output(model, BATCH_SIZE, device);
            Ok((set.report(&output)?, answers::errors(&output, &set)))
        }
        Network::MaskedLm { model } => {
            let next_sentence = model.cls.seq_relationship.is_some();
            let masking = MaskingConfig::default().init(tokenizer)?;
            let drawing = Drawing { tokenizer: tokenizer.clone(), masking, next_sentence, seed: SEED };
            let set = whole(&source, drawing)?;
            let tally = set.output(model, BATCH_SIZE, device);
            Ok((set.report(&tally)?, String::new()))
        }
    }
}

fn sequences<T: Target>(
    predictor: &Predictor,
    model: &SequenceClassifier,
    labels: &LabelSet,
    source: &Source,
    device: &Device,
) -> anyhow::Result<(SplitReport, String)>
where
    Example<T>: Record,
{
    let (examples, _) = read::<Example<T>>(std::slice::from_ref(source), Some(labels.clone()))?;
    let encodings = predictor.tokenizer().encode_all(examples.iter().map(Item::texts))?;
    let targets = examples.iter().map(|example| example.target.clone()).collect();
    let set = Encoded::new(encodings, T::targets(targets, labels), predictor.tokenizer().pad_token_id());
    let logits = set.output(model, BATCH_SIZE, device);
    Ok((set.report(&logits)?, T::errors(&logits, &examples, labels)))
}
