//! Reads the rows from the files of a recipe, and reports problems with them.

use std::path::{Path, PathBuf};

use anyhow::bail;
use kiln_dataset::{
    Audit, Format, Item, Lengths, Record, Row, Source, audit, drop_leaks, folds, read, read_splits, rows as texts,
    split as divide,
};
use kiln_schema::{Example, LabelSet, Splits, Task};
use kiln_tokenize::{Encoding, Tokenizer};

use super::settle::Plan;
use crate::recipe::{Files, Recipe};
use crate::{Fold, Observer, UsageError};

/// The rows of all splits and their labels.
pub(crate) struct Rows<T> {
    pub items: Splits<Vec<T>>,
    pub labels: LabelSet,
}

impl<T: Clone> Rows<T> {
    /// The rows with these indices.
    pub fn pick(&self, picked: &Splits<Vec<usize>>) -> Self {
        let items = self.items.as_ref().zip(picked.as_ref());
        let items = items.map(|_, (items, picked)| picked.iter().map(|&row| items[row].clone()).collect());
        Self { items, labels: self.labels.clone() }
    }
}

/// The seed for the division into folds. It does not depend on the seed of the training.
const FOLD_SEED: u64 = 42;

impl<T: Item> Rows<T> {
    /// Holds out one fold of the training split as the validation split, in the rows and in their encodings.
    pub fn hold_out<E>(
        self,
        encoded: Splits<Vec<E>>,
        Fold { index, count }: Fold,
    ) -> anyhow::Result<(Self, Splits<Vec<E>>)> {
        let parts = folds(&self.items.train, count, FOLD_SEED)?;
        let is_held = |row: usize| parts[row] == index;
        let items = held_out(self.items, is_held);
        Ok((Self { items, labels: self.labels }, held_out(encoded, is_held)))
    }
}

/// Moves the held-out rows of the training split into the validation split, and drops the old validation split.
fn held_out<T>(splits: Splits<Vec<T>>, is_held: impl Fn(usize) -> bool) -> Splits<Vec<T>> {
    let (held, train): (Vec<_>, Vec<_>) = splits.train.into_iter().enumerate().partition(|(row, _)| is_held(*row));
    let items = |rows: Vec<(usize, T)>| rows.into_iter().map(|(_, item)| item).collect();
    Splits { train: items(train), validation: items(held), test: splits.test }
}

/// Reads the splits of a recipe from its files on disk, or divides the rows of its files into splits.
pub(crate) fn splits<T: Record>(
    recipe: &Recipe,
    files: &Files<PathBuf>,
    observer: &mut dyn Observer,
) -> anyhow::Result<Rows<T>> {
    let data = &recipe.data;
    let questions = recipe.task == Task::QuestionAnswering;
    let source = |path: &Path| Source {
        format: data.format.or_else(|| questions.then(|| Format::of_questions(path))),
        header: data.header,
        encoding: data.encoding,
        label_separator: data.label_separator,
        ..Source::new(path, data.columns.clone())
    };
    let (items, labels) = match files {
        Files::Splits(files) => {
            let sources = files.as_ref().map(|_, path| vec![source(path)]);
            read_splits(&sources, data.labels.clone())?
        }
        Files::Divided { files, split } => {
            let sources: Vec<Source> = files.iter().map(|path| source(path)).collect();
            let (items, labels) = read(&sources, data.labels.clone())?;
            (divide(items, split)?, labels)
        }
        Files::Corpus { .. } => unreachable!("a corpus has no labelled rows"),
    };
    if !data.drop_leaks {
        return Ok(Rows { items, labels });
    }
    let (items, dropped) = drop_leaks(items);
    observer.note(&format_args!("{dropped} training examples are also in validation or test and were dropped"));
    if items.train.is_empty() {
        bail!("all {dropped} training examples are also in validation or test, so `data.drop_leaks` leaves none");
    }
    Ok(Rows { items, labels })
}

/// Reads the rows of a training. With `needs_choice`, fewer than two labels are an error.
pub(crate) fn rows<T: Record>(
    plan: &Plan<'_>,
    needs_choice: bool,
    observer: &mut dyn Observer,
) -> anyhow::Result<Rows<T>> {
    let rows = splits::<T>(plan.recipe, &plan.files, observer)?;
    let sizes: Vec<String> = rows.items.iter().map(|(split, rows)| format!("{split} [{}]", rows.len())).collect();
    let labelled = match names::<T>(&rows.labels) {
        [] => String::new(),
        names => format!("; labels {}", names.join(", ")),
    };
    observer.stage("read", "kiln-dataset", &format_args!("{}{labelled}", sizes.join(", ")));
    if needs_choice && rows.labels.len() < 2 {
        bail!(single_label(plan.recipe, &rows.labels));
    }
    Ok(rows)
}

/// Reads the recipe's texts without labels, for a teacher. A `.txt` file without a given format is plain text, unless the
/// texts are pairs.
pub(crate) fn unlabelled(plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<Vec<Example<()>>> {
    let data = &plan.recipe.data;
    let is_pair = data.columns.text_pair.is_some();
    let mut examples = Vec::new();
    for path in &plan.unlabelled {
        let is_text = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt")) && !is_pair;
        let source = Source {
            format: data.format.or(is_text.then_some(Format::Text)),
            header: data.header,
            encoding: data.encoding,
            ..Source::new(path, data.columns.unlabelled())
        };
        for row in texts(&source)? {
            let Row { text, text_pair, line, .. } = row?;
            if is_pair && text_pair.is_none() {
                let place = path.display();
                bail!(UsageError(format!("{place}, line {line}: found no second text, expected pairs as in the data")));
            }
            examples.push(Example { text, text_pair, target: () });
        }
    }
    if !plan.unlabelled.is_empty() {
        observer.stage("", "kiln-dataset", &format_args!("unlabelled [{}]", examples.len()));
    }
    Ok(examples)
}

fn single_label(recipe: &Recipe, labels: &LabelSet) -> UsageError {
    let key = if recipe.data.labels.is_some() { "data.labels" } else { "data.label" };
    let names = labels.names().join(", ");
    let hint = match recipe.task {
        Task::SequenceClassification => "; for numbers, set `model.problem_type = \"regression\"`",
        _ => "",
    };
    UsageError(format!("`{key}`: found the single label `{names}`, expected at least two{hint}"))
}

/// The names of the labels; empty for records without labels, such as numbers and questions.
pub(crate) fn names<T: Record>(labels: &LabelSet) -> &[String] {
    if T::LABEL.is_some() { &[] } else { labels.names() }
}

/// Lengths of encoded rows, in tokens.
pub(crate) struct RowLengths {
    /// For each training row, as the model reads it.
    pub train: Vec<usize>,
    /// For each item, without truncation or windows.
    pub whole: Splits<Vec<usize>>,
}

/// Reports the shape of the encoder's input and audits the rows. Returns the number of tokens of the longest training row,
/// and the findings.
pub(crate) fn audit_rows<T: Record>(
    plan: &Plan<'_>,
    rows: &Rows<T>,
    lengths: RowLengths,
    observer: &mut dyn Observer,
) -> anyhow::Result<(usize, String)> {
    let longest = lengths.train.iter().max().copied().unwrap_or(0);
    let shape = format!("train input_ids [{}, ≤ {longest}]", lengths.train.len());
    let vocab_size = plan.tokenizer().vocab_size();
    observer.stage("tokenize", "kiln-tokenize", &format_args!("{shape}, vocabulary {vocab_size}"));
    let lengths = Lengths { tokens: lengths.whole, max_length: plan.recipe.train.max_length };
    let audit = audit(&rows.items, names::<T>(&rows.labels), Some(lengths));
    let summary = audit.summary();
    observer.stage("audit", "kiln-dataset", &summary.trim_end());
    report_leaks(&audit, plan.strict, plan.recipe.data.drop_leaks, observer)?;
    Ok((longest, summary))
}

/// Warns of texts that are in two splits; with `strict`, it is an error. `drop_leaks` says whether copies have been removed
/// from the training split.
pub(crate) fn report_leaks(
    audit: &Audit,
    strict: bool,
    drop_leaks: bool,
    observer: &mut dyn Observer,
) -> anyhow::Result<()> {
    let rows = match audit.leaks() {
        0 => return Ok(()),
        1 => "1 row of validation or test is".to_owned(),
        leaks => format!("{leaks} rows of validation or test are"),
    };
    if strict {
        bail!("{rows} also in an earlier split, and --strict forbids it");
    }
    match drop_leaks {
        false => observer.warning(&format_args!(
            "{rows} also in an earlier split, so every score below is too high; \
             `data.drop_leaks = true` removes their copies from the training split"
        )),
        true => observer.warning(&format_args!("{rows} also in an earlier split: remove them from test")),
    }
    Ok(())
}

/// Rows tokenized at a time when only their lengths are kept.
const CHUNK: usize = 16_384;

/// Counts tokens in chunks and does not keep the encodings, so that a million rows fit into memory.
pub(crate) fn count_tokens<T: Item>(
    tokenizer: &Tokenizer,
    items: &Splits<Vec<T>>,
    observer: &mut dyn Observer,
) -> anyhow::Result<Lengths> {
    let mut uncounted = 0;
    let tokens = items.as_ref().try_map(|_, examples| {
        let mut lengths = Vec::with_capacity(examples.len());
        for chunk in examples.chunks(CHUNK) {
            let encodings = tokenizer.encode_all_counted(chunk.iter().map(Item::texts))?;
            uncounted += count_inexact(&encodings);
            lengths.extend(encodings.iter().map(|encoding| encoding.full_length));
        }
        anyhow::Ok(lengths)
    })?;
    warn_of_inexact(uncounted, observer);
    Ok(Lengths { tokens, max_length: tokenizer.max_length() })
}

/// How many lengths do not count all of the text.
pub(crate) fn count_inexact(encodings: &[Encoding]) -> usize {
    encodings.iter().filter(|encoding| !encoding.full_length_is_exact).count()
}

/// Warns of lengths that do not count all of the text.
pub(crate) fn warn_of_inexact(texts: usize, observer: &mut dyn Observer) {
    if texts > 0 {
        observer.warning(&format_args!(
            "{texts} {} without a place to cut for more than 256 KiB: the rest is not in the lengths in tokens, which are \
             larger than reported",
            if texts == 1 { "text goes on" } else { "texts go on" }
        ));
    }
}
