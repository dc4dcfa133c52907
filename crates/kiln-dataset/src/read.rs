use std::collections::HashMap;
use std::path::PathBuf;

use kiln_schema::{Example, LabelId, LabelSet, Split, Splits};

use crate::error::Unit;
use crate::{Error, Format, Place, Row, Source, arrow, rows};

/// Reads the files of each split, and the labels where they are not given.
///
/// Where an Arrow folder has a `dataset_dict.json` and the source names no split, each split takes its own:
/// `train`, `validation` (or `valid`, `val`, `dev`), `test`.
///
/// # Errors
/// As [`read`].
pub fn read_splits(
    sources: &Splits<Vec<Source>>,
    labels: Option<LabelSet>,
) -> Result<(Splits<Vec<Example>>, LabelSet), Error> {
    let mut names = Names::new(labels);
    let splits = sources.clone().try_map(|split, mut sources| {
        for source in &mut sources {
            choose_split(source, split)?;
        }
        read_all(&sources, &mut names)
    })?;
    let (labels, ids) = names.finish()?;
    let splits = splits.try_map(|_, mut examples| {
        renumber(&mut examples, &ids);
        Ok::<_, Error>(examples)
    })?;
    Ok((splits, labels))
}

/// Reads labelled files one after another, and the labels where they are not given: then all names found, sorted,
/// as numbers where all of them are whole numbers.
///
/// # Errors
/// As [`rows`]; and when a row has no label, when a label is not in `labels`, or when there is no row at all.
pub fn read(sources: &[Source], labels: Option<LabelSet>) -> Result<(Vec<Example>, LabelSet), Error> {
    let mut names = Names::new(labels);
    let mut examples = read_all(sources, &mut names)?;
    let (labels, ids) = names.finish()?;
    renumber(&mut examples, &ids);
    Ok((examples, labels))
}

fn read_all(sources: &[Source], names: &mut Names) -> Result<Vec<Example>, Error> {
    let mut examples = Vec::new();
    for source in sources {
        let path = &source.path;
        if source.columns.label.is_none() {
            return Err(Error::NoLabelColumn { path: path.clone() });
        }
        let unit = match source.format()? {
            Format::Csv | Format::Tsv | Format::Jsonl => Unit::Line,
            Format::Parquet | Format::Arrow => Unit::Row,
        };
        for row in rows(source)? {
            let Row { text, text_pair, label, line } = row?;
            let place = || Place { path: path.clone(), line, unit };
            let label = label.ok_or_else(|| Error::NoLabel { place: place() })?;
            let target =
                names.id(label).map_err(|(found, labels)| Error::UnknownLabel { place: place(), found, labels })?;
            examples.push(Example { text, text_pair, target });
        }
    }
    if examples.is_empty() {
        let paths: Vec<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
        return Err(Error::NoRows { paths });
    }
    Ok(examples)
}

/// Names the split of a folder that has some, when the source does not: to take the only one there is for all three
/// would be to validate on the training rows.
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

/// The labels given, or those met so far.
enum Names {
    Given(LabelSet),
    /// Numbered as they are met.
    Met(HashMap<String, LabelId>),
}

impl Names {
    fn new(labels: Option<LabelSet>) -> Self {
        labels.map_or_else(|| Self::Met(HashMap::new()), Self::Given)
    }

    /// The label's number, for now; `Err` holds it with the labels given when it is none of them.
    fn id(&mut self, label: String) -> Result<LabelId, (String, Vec<String>)> {
        match self {
            Self::Given(labels) => labels.id(&label).ok_or_else(|| (label, labels.names().to_vec())),
            Self::Met(ids) => {
                let next = ids.len();
                Ok(*ids.entry(label).or_insert(next))
            }
        }
    }

    /// The label set, and the final number of each number given so far.
    fn finish(self) -> Result<(LabelSet, Vec<LabelId>), Error> {
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

/// As numbers where all are whole numbers, else by character.
fn sort_names(names: &mut [(String, LabelId)]) {
    let numbers: Option<HashMap<String, i128>> =
        names.iter().map(|(name, _)| Some((name.clone(), name.parse().ok()?))).collect();
    match numbers {
        // Names as different as `1` and `01` have one value, so the name decides then.
        Some(numbers) => names.sort_by(|(a, _), (b, _)| (numbers[a], a).cmp(&(numbers[b], b))),
        None => names.sort(),
    }
}

fn renumber(examples: &mut [Example], ids: &[LabelId]) {
    for example in examples {
        example.target = ids[example.target];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::file;

    #[test]
    fn collected_labels_are_sorted_as_numbers_if_all_are() {
        let labels_of = |labels: &[&str]| {
            let file = file("a.tsv", labels.iter().map(|label| format!("text\t{label}\n")).collect::<String>());
            let (examples, set) = read(std::slice::from_ref(&file.source), None).expect("rows with labels");
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
        let (splits, labels) = read_splits(&sources, None).expect("rows with labels");
        assert_eq!(labels.names(), ["a", "b", "c"]);
        let targets = |examples: &[Example]| examples.iter().map(|example| example.target).collect::<Vec<_>>();
        assert_eq!(targets(&splits.train), [1, 2]);
        assert_eq!(targets(&splits.validation), [2]);
        assert_eq!(splits.test.as_deref().map(targets), Some(vec![0]));
    }

    #[test]
    fn labels_given_keep_their_order_and_admit_no_other() {
        let labels = LabelSet::new(["positive", "negative"]).expect("two names");
        let file = file("a.tsv", "a\tnegative\n\nb\tpositve\n");
        let error = read(std::slice::from_ref(&file.source), Some(labels)).expect_err("a slip of the hand");
        let message = error.to_string();
        let expected = "a.tsv, line 3: label `positve` is not in the list (did you mean `positive`?): \
                        the labels are `positive`, `negative`";
        assert!(message.ends_with(expected), "{message}");
    }

    #[test]
    fn rows_without_a_label_empty_and_missing_files_are_faults() {
        let unlabelled = file("a.tsv", "a\tx\nb\t \n");
        let message = read(std::slice::from_ref(&unlabelled.source), None).expect_err("no label").to_string();
        assert!(message.ends_with("a.tsv, line 2: the row has no label"), "{message}");

        let empty = file("a.tsv", "\n\n");
        assert!(matches!(read(std::slice::from_ref(&empty.source), None), Err(Error::NoRows { .. })));

        let mut missing = empty.source.clone();
        missing.path.set_file_name("absent.tsv");
        let message = read(&[missing], None).expect_err("no such file").to_string();
        assert!(message.starts_with("cannot read ") && message.ends_with("absent.tsv"), "{message}");
    }
}
