use std::collections::HashMap;
use std::path::PathBuf;

use kiln_schema::{Example, LabelId, LabelSet, Question, Split, Splits, TaggedText};

use crate::error::Unit;
use crate::{Column, Error, Format, Item, Place, Row, Source, arrow, questions, rows, tagged};

/// An item that a labelled file can be read into.
///
/// [`Example`]s are read from columns. The label is one name, or a number. Several labels are a list, or names separated by
/// the source's `label_separator`. [`Question`]s are read from SQuAD's JSON, or from rows of JSON Lines, Parquet or Arrow
/// with `question`, `context`, and `answers` with `text` and `answer_start`. [`TaggedText`]s are read from one of these
/// layouts:
///
/// - one unit and its tag per line, with a blank line between texts
/// - one text per line: units separated by spaces, a tab, then the tags
/// - words separated by spaces, whose characters are tagged B, M, E and S
/// - rows of JSON Lines, Parquet or Arrow with a list of `tokens` and a list of `ner_tags` (or `tags`, `labels`,
///   `pos_tags`), or with `text` and `entities`
pub trait Record: Item + Sized {
    /// The only label of an item type without classes.
    #[doc(hidden)]
    const LABEL: Option<&'static str> = None;

    /// Reads all items of a source.
    #[doc(hidden)]
    fn read(source: &Source, names: &mut Names) -> Result<Vec<Self>, Error>;

    /// Replaces each label id `i` with `ids[i]`.
    #[doc(hidden)]
    fn renumber(&mut self, _ids: &[LabelId]) {}
}

impl Record for Example<LabelId> {
    fn read(source: &Source, names: &mut Names) -> Result<Vec<Self>, Error> {
        examples(source, |labels, place| names.required(labels.one(place)?, place))
    }

    fn renumber(&mut self, ids: &[LabelId]) {
        self.target = ids[self.target];
    }
}

impl Record for Example<Vec<LabelId>> {
    fn read(source: &Source, names: &mut Names) -> Result<Vec<Self>, Error> {
        examples(source, |labels, place| {
            let labels = labels.all(source.label_separator);
            labels.into_iter().map(|label| names.place(label, place)).collect()
        })
    }

    fn renumber(&mut self, ids: &[LabelId]) {
        for target in &mut self.target {
            *target = ids[*target];
        }
        self.target.sort_unstable();
        self.target.dedup();
    }
}

impl Record for Example<f64> {
    const LABEL: Option<&'static str> = Some("score");

    fn read(source: &Source, _: &mut Names) -> Result<Vec<Self>, Error> {
        examples(source, |number, place| {
            let found = number.one(place)?.ok_or_else(|| Error::NoLabel { place: place() })?;
            let number = found.parse().ok().filter(|number: &f64| number.is_finite());
            number.ok_or_else(|| Error::Number { place: place(), found })
        })
    }
}

impl Record for TaggedText {
    fn read(source: &Source, names: &mut Names) -> Result<Vec<Self>, Error> {
        tagged::read(source, names)
    }

    fn renumber(&mut self, ids: &[LabelId]) {
        for tag in &mut self.tags {
            *tag = ids[*tag];
        }
    }
}

impl Record for Question {
    const LABEL: Option<&'static str> = Some("answer");

    fn read(source: &Source, _: &mut Names) -> Result<Vec<Self>, Error> {
        questions::read(source)
    }
}

/// Reads the files of each split. Collects the label set from the data if `labels` is none.
///
/// For an Arrow folder with a `dataset_dict.json`, if the source names no split, each split reads the folder's split of
/// the same name: `train`, `validation` (or `valid`, `val`, `dev`), `test`.
///
/// # Errors
/// Returns the errors of [`read`].
pub fn read_splits<T: Record>(
    sources: &Splits<Vec<Source>>,
    labels: Option<LabelSet>,
) -> Result<(Splits<Vec<T>>, LabelSet), Error> {
    let mut names = Names::new(labels);
    let splits = sources.clone().try_map(|split, mut sources| {
        for source in &mut sources {
            choose_split(source, split)?;
        }
        read_all::<T>(&sources, &mut names)
    })?;
    let (labels, ids) = names.finish::<T>()?;
    let splits = splits.map(|_, mut items| {
        items.iter_mut().for_each(|item| item.renumber(&ids));
        items
    });
    Ok((splits, labels))
}

/// Reads labelled files one after another.
///
/// If `labels` is none, the label set has all names found. They are sorted as numbers if all of them are whole numbers,
/// otherwise by character with the tag `O` first.
///
/// # Errors
/// Returns the errors of [`rows`]. Also fails when a row has no label, when a label is not in `labels`, or when there
/// are no rows.
pub fn read<T: Record>(sources: &[Source], labels: Option<LabelSet>) -> Result<(Vec<T>, LabelSet), Error> {
    let mut names = Names::new(labels);
    let mut items = read_all::<T>(sources, &mut names)?;
    let (labels, ids) = names.finish::<T>()?;
    items.iter_mut().for_each(|item| item.renumber(&ids));
    Ok((items, labels))
}

fn read_all<T: Record>(sources: &[Source], names: &mut Names) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    for source in sources {
        items.extend(T::read(source, names)?);
    }
    if items.is_empty() {
        let paths: Vec<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
        return Err(Error::NoRows { paths });
    }
    Ok(items)
}

/// The label of a row, or its labels.
pub(crate) struct LabelCell {
    label: Option<String>,
    labels: Option<Vec<String>>,
    column: Option<Column>,
}

impl LabelCell {
    /// The only label, if there is one.
    pub(crate) fn one(self, place: impl Fn() -> Place) -> Result<Option<String>, Error> {
        match (self.labels, self.column) {
            (Some(_), Some(column)) => Err(Error::Cell { place: place(), column, found: "a list".to_owned() }),
            _ => Ok(self.label),
        }
    }

    /// All labels. `separator` separates those of a cell with text.
    fn all(self, separator: char) -> Vec<String> {
        let split = |labels: String| labels.split(separator).map(str::to_owned).collect();
        let labels = self.labels.or_else(|| self.label.map(split)).unwrap_or_default();
        labels.iter().map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()).collect()
    }
}

/// Reads the rows of a source; `target` converts a label cell.
fn examples<T>(
    source: &Source,
    target: impl FnMut(LabelCell, &dyn Fn() -> Place) -> Result<T, Error>,
) -> Result<Vec<Example<T>>, Error> {
    let mut examples = Vec::new();
    each_example(source, target, |example, _| examples.push(example))?;
    Ok(examples)
}

/// Reads the rows of a source and passes each example with its place to `add`.
pub(crate) fn each_example<T>(
    source: &Source,
    mut target: impl FnMut(LabelCell, &dyn Fn() -> Place) -> Result<T, Error>,
    mut add: impl FnMut(Example<T>, &dyn Fn() -> Place),
) -> Result<(), Error> {
    let path = &source.path;
    if source.columns.label.is_none() && source.columns.flags.is_empty() {
        return Err(Error::NoLabelColumn { path: path.clone() });
    }
    let unit = match source.format()? {
        Format::Parquet | Format::Arrow => Unit::Row,
        _ => Unit::Line,
    };
    for row in rows(source)? {
        let Row { text, text_pair, label, labels, line } = row?;
        let label = LabelCell { label, labels, column: source.columns.label.clone() };
        let place = || Place { path: path.clone(), line, unit };
        add(Example { text, text_pair, target: target(label, &place)? }, &place);
    }
    Ok(())
}

/// Sets the split of an Arrow folder that has splits, if the source does not name one. Using a folder's only split for
/// all three would validate on the training rows.
fn choose_split(source: &mut Source, split: Split) -> Result<(), Error> {
    if source.split.is_some() || source.format()? != Format::Arrow {
        return Ok(());
    }
    let Some(known) = arrow::splits(&source.path)? else {
        return Ok(());
    };
    let names: &[&str] = match split {
        Split::Train => &["train"],
        Split::Validation => &["validation", "valid", "val", "dev"],
        Split::Test => &["test"],
    };
    let name = names.iter().find(|name| known.iter().any(|known| known == *name)).unwrap_or(&names[0]);
    source.split = Some((*name).to_owned());
    Ok(())
}

/// The given labels, or the labels found so far.
#[derive(Debug)]
pub enum Names {
    #[doc(hidden)]
    Given(LabelSet),
    /// Label ids in the order of first occurrence.
    #[doc(hidden)]
    Met(HashMap<String, LabelId>),
}

impl Names {
    fn new(labels: Option<LabelSet>) -> Self {
        labels.map_or_else(|| Self::Met(HashMap::new()), Self::Given)
    }

    /// The provisional id of a label; an error if the row has none.
    pub(crate) fn required(&mut self, label: Option<String>, place: impl Fn() -> Place) -> Result<LabelId, Error> {
        let label = label.ok_or_else(|| Error::NoLabel { place: place() })?;
        self.place(label, place)
    }

    /// The provisional id of a label.
    pub(crate) fn place(&mut self, label: String, place: impl Fn() -> Place) -> Result<LabelId, Error> {
        self.id(label).map_err(|(found, labels)| Error::UnknownLabel { place: place(), found, labels })
    }

    /// The provisional id of a label. If the label is not in the given set, `Err` holds it and the valid labels.
    fn id(&mut self, label: String) -> Result<LabelId, (String, Vec<String>)> {
        match self {
            Self::Given(labels) => labels.id(&label).ok_or_else(|| (label, labels.names().to_vec())),
            Self::Met(ids) => {
                let next = ids.len();
                Ok(*ids.entry(label).or_insert(next))
            }
        }
    }

    /// The label set, and the final id for each provisional id.
    fn finish<T: Record>(self) -> Result<(LabelSet, Vec<LabelId>), Error> {
        if let Some(label) = T::LABEL {
            return Ok((LabelSet::new([label])?, Vec::new()));
        }
        match self {
            Self::Given(labels) => {
                let ids = (0..labels.len()).collect();
                Ok((labels, ids))
            }
            Self::Met(met) => {
                let mut names: Vec<(String, LabelId)> = met.into_iter().collect();
                sort_names(&mut names);
                let mut ids = vec![0; names.len()];
                for (id, (_, met)) in names.iter().enumerate() {
                    ids[*met] = id;
                }
                Ok((LabelSet::new(names.into_iter().map(|(name, _)| name))?, ids))
            }
        }
    }
}

/// Sorts by value if all names are whole numbers, otherwise by character.
fn sort_names(names: &mut [(String, LabelId)]) {
    let numbers: Option<HashMap<String, i128>> =
        names.iter().map(|(name, _)| Some((name.clone(), name.parse().ok()?))).collect();
    match numbers {
        // Different names such as `1` and `01` have the same value, so the name breaks the tie.
        Some(numbers) => names.sort_by(|(a, _), (b, _)| (numbers[a], a).cmp(&(numbers[b], b))),
        None => names.sort_by(|(a, _), (b, _)| (a != OUTSIDE, a).cmp(&(b != OUTSIDE, b))),
    }
}

/// The tag of a unit outside all entities.
pub(crate) const OUTSIDE: &str = "O";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::file;

    #[test]
    fn collected_labels_are_sorted_as_numbers_if_all_are() {
        let labels_of = |labels: &[&str]| {
            let file = file("a.tsv", labels.iter().map(|label| format!("text\t{label}\n")).collect::<String>());
            let (examples, set) = read::<Example>(std::slice::from_ref(&file.source), None).expect("rows with labels");
            let read: Vec<_> = examples.iter().map(|example| set.name(example.target)).collect();
            assert_eq!(read, labels, "each row keeps its own label");
            set.names().to_vec()
        };
        assert_eq!(labels_of(&["10", "9", "-1", "10"]), ["-1", "9", "10"]);
        assert_eq!(labels_of(&["10", "9", "b", "a"]), ["10", "9", "a", "b"]);
    }

    #[test]
    fn labels_are_collected_over_all_splits() {
        let (train, validation, test) = (file("a.tsv", "x\tb\n"), file("b.tsv", "y\tc\n"), file("c.tsv", "z\ta\n"));
        let sources = Splits {
            train: vec![train.source.clone(), validation.source.clone()],
            validation: vec![validation.source.clone()],
            test: Some(vec![test.source.clone()]),
        };
        let (splits, labels) = read_splits::<Example>(&sources, None).expect("rows with labels");
        assert_eq!(labels.names(), ["a", "b", "c"]);
        let targets = |examples: &[Example]| examples.iter().map(|example| example.target).collect::<Vec<_>>();
        assert_eq!(targets(&splits.train), [1, 2]);
        assert_eq!(targets(&splits.validation), [2]);
        assert_eq!(splits.test.as_deref().map(targets), Some(vec![0]));
    }

    #[test]
    fn labels_may_have_a_column_each() {
        let csv = "text,rude,sad\na,1,0\nb,0,\nc,1,1\n";
        let jsonl = "{\"text\": \"a\", \"rude\": 1, \"sad\": false}\n{\"text\": \"b\", \"rude\": null, \"sad\": 0}\n\
                     {\"text\": \"c\", \"rude\": true, \"sad\": 1.0}\n";
        let labels = LabelSet::new(["rude", "sad"]).expect("two names");
        for (name, content) in [("a.csv", csv), ("a.jsonl", jsonl)] {
            let mut file = file(name, content).with_header("text", "none");
            file.source.columns.label = None;
            file.source.columns.flags = labels.names().to_vec();
            let source = std::slice::from_ref(&file.source);
            let (examples, _) = read::<Example<Vec<LabelId>>>(source, Some(labels.clone())).expect("rows of flags");
            let targets: Vec<Vec<LabelId>> = examples.into_iter().map(|example| example.target).collect();
            assert_eq!(targets, [vec![0], vec![], vec![0, 1]], "{name}");
        }
        let mut bad = file("a.csv", "text,rude\na,2\n").with_header("text", "none");
        bad.source.columns.label = None;
        bad.source.columns.flags = vec!["rude".to_owned()];
        let message = bad.fault();
        assert!(message.contains("line 2: column `rude` holds `2`"), "{message}");
    }

    #[test]
    fn labels_given_keep_their_order_and_admit_no_other() {
        let labels = LabelSet::new(["positive", "negative"]).expect("two names");
        let file = file("a.tsv", "a\tnegative\n\nb\tpositve\n");
        let error = read::<Example>(std::slice::from_ref(&file.source), Some(labels)).expect_err("a slip of the hand");
        let message = error.to_string();
        let expected = "a.tsv, line 3: label `positve` is not in the list (did you mean `positive`?): \
                        the labels are `positive`, `negative`";
        assert!(message.ends_with(expected), "{message}");
    }

    #[test]
    fn rows_without_a_label_empty_and_missing_files_are_faults() {
        let unlabelled = file("a.tsv", "a\tx\nb\t \n");
        let message =
            read::<Example>(std::slice::from_ref(&unlabelled.source), None).expect_err("no label").to_string();
        assert!(message.ends_with("a.tsv, line 2: the row has no label"), "{message}");

        let empty = file("a.tsv", "\n\n");
        assert!(matches!(read::<Example>(std::slice::from_ref(&empty.source), None), Err(Error::NoRows { .. })));

        let mut missing = empty.source.clone();
        missing.path.set_file_name("absent.tsv");
        let message = read::<Example>(&[missing], None).expect_err("no such file").to_string();
        assert!(message.starts_with("cannot read ") && message.ends_with("absent.tsv"), "{message}");
    }

    #[test]
    fn several_labels_and_numbers() {
        let sets = file("a.tsv", "x\tb, a,b\ny\t\nz\tc\n");
        let (examples, labels) = read::<Example<Vec<LabelId>>>(std::slice::from_ref(&sets.source), None).expect("sets");
        assert_eq!(labels.names(), ["a", "b", "c"]);
        assert_eq!(
            examples.iter().map(|example| example.target.clone()).collect::<Vec<_>>(),
            [vec![0, 1], vec![], vec![2]]
        );
        let numbers = file("a.tsv", "x\t1.5\ny\t-2\n");
        let (examples, _) = read::<Example<f64>>(std::slice::from_ref(&numbers.source), None).expect("numbers");
        assert_eq!((examples[0].target, examples[1].target), (1.5, -2.0));
        for bad in ["x", "NaN", "inf"] {
            let file = file("a.tsv", format!("x\t1\ny\t{bad}\n"));
            let message = read::<Example<f64>>(std::slice::from_ref(&file.source), None).expect_err(bad).to_string();
            assert!(message.ends_with(&format!("a.tsv, line 2: found `{bad}`, expected a number")), "{message}");
        }
    }
}
