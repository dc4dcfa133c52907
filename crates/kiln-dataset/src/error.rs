use std::fmt;
use std::io;
use std::path::PathBuf;

use kiln_schema::{LabelSetError, Split};

use crate::{Column, Encoding, Format};

/// Why data could not be read, split or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Neither the ending nor the folder's content says what the format is.
    #[error(
        "{}: the format is not known from the name: expected .csv, .tsv, .txt, .jsonl, .json, .parquet, .arrow, \
         or a folder that holds dataset_dict.json or state.json; else name the format",
        path.display()
    )]
    UnknownFormat {
        /// The file or folder.
        path: PathBuf,
    },
    /// Vectors are written in two formats, and the file's ending names neither.
    #[error("{}: vectors are written as .parquet or .npy; expected a file with one of these endings", path.display())]
    VectorFormat {
        /// The file.
        path: PathBuf,
    },
    /// A Parquet or Arrow file contradicts itself.
    #[error("{}: the file is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        problem: String,
    },
    /// A Parquet or Arrow file is damaged, or of a kind that is not supported.
    #[error("cannot decode {}", path.display())]
    Columnar {
        /// The file.
        path: PathBuf,
        /// The decoder's error.
        source: polars::error::PolarsError,
    },
    /// One of the JSON files that describe an Arrow folder is not what it should be.
    #[error("cannot understand {}", path.display())]
    Manifest {
        /// The JSON file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An Arrow folder's rows are seen through a list of indices, which this reader does not follow.
    #[error("{}: the data set was saved with an indices mapping: call `flatten_indices()` before `save_to_disk`", path.display())]
    Indices {
        /// The folder's `state.json`.
        path: PathBuf,
    },
    /// An Arrow folder has no such split.
    #[error("{}: {}: the folder has {}", path.display(), asked(split.as_deref()), list(splits))]
    NoSplit {
        /// The folder.
        path: PathBuf,
        /// The split asked for.
        split: Option<String>,
        /// The splits it has.
        splits: Vec<String>,
    },
    /// A column is named, and there is none of that name.
    #[error("{place}: there is no column `{name}`{}: the columns are {}", hint(name, columns), list(columns))]
    NoColumn {
        /// The header, or the row of a JSON Lines file.
        place: Place,
        /// The name asked for.
        name: String,
        /// The names there are.
        columns: Vec<String>,
    },
    /// A column is named, and several have that name.
    #[error(
        "{place}: columns {first} and {second} (counted from 0) are both called `{name}`; \
         give the column's index, or rename one of them"
    )]
    DuplicateColumn {
        /// The header.
        place: Place,
        /// The name asked for.
        name: String,
        /// The first column of that name, from 0.
        first: usize,
        /// The second.
        second: usize,
    },
    /// A row has too few fields.
    #[error("{place}: there is no column {index}: the row has {fields} field{} (columns count from 0)", plural(*fields))]
    FewFields {
        /// The row.
        place: Place,
        /// The column asked for, from 0.
        index: usize,
        /// How many fields the row has.
        fields: usize,
    },
    /// A column is named where there are no names, or numbered where there is no order.
    #[error("{}: column {column}: {why}", path.display())]
    BadColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: Column,
        /// What this format expects.
        why: &'static str,
    },
    /// A line is not a JSON object.
    #[error("{place}: expected one JSON object a line")]
    Json {
        /// The line.
        place: Place,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A cell holds neither text nor a number nor a boolean.
    #[error("{place}: column {column} holds {found}: expected text, a number or a boolean")]
    Cell {
        /// The row.
        place: Place,
        /// The column.
        column: Column,
        /// The type found.
        found: String,
    },
    /// A line that is no tagged text.
    #[error("{place}: found `{found}`, expected {expected}")]
    Tagged {
        /// Where.
        place: Place,
        /// What was found.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A file of questions that is not laid out as SQuAD's.
    #[error("{}: not a file of questions as SQuAD has them", path.display())]
    Questions {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// A file that has no rows of columns.
    #[error("{}: a {format:?} file has tagged texts or questions, not rows of columns", path.display())]
    NoColumns {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
    },
    /// A cell that should hold a number.
    #[error("{place}: found `{found}`, expected a number")]
    Number {
        /// Where.
        place: Place,
        /// What was found.
        found: String,
    },
    /// A quoted field of a CSV file has no end.
    #[error("{place}: a quote that opens in this record is never closed")]
    OpenQuote {
        /// Where the record starts.
        place: Place,
    },
    /// Bytes are no text in the encoding.
    #[error("{place}: the bytes {} are not {encoding}; {}", hex(bytes), encoding_hint(*likely))]
    Encoding {
        /// The line of the first such bytes.
        place: Place,
        /// The bytes, a few of them.
        bytes: Vec<u8>,
        /// The encoding expected.
        encoding: Encoding,
        /// The encoding that the file seems to have.
        likely: Option<Encoding>,
    },
    /// A text file without a byte order mark that seems to be UTF-16.
    #[error(
        "{}: the file looks like UTF-16 without a byte order mark; set `encoding = \"{}\"`, or save it as UTF-8",
        path.display(), encoding.name()
    )]
    Utf16 {
        /// The file.
        path: PathBuf,
        /// The encoding that it seems to have.
        encoding: Encoding,
    },
    /// A row that needs a label has none.
    #[error("{place}: the row has no label")]
    NoLabel {
        /// The row.
        place: Place,
    },
    /// No column holds the labels, and labels are needed.
    #[error("{}: no column is named for the labels", path.display())]
    NoLabelColumn {
        /// The file.
        path: PathBuf,
    },
    /// A label that is not in the list.
    #[error("{place}: label `{found}` is not in the list{}: the labels are {}", hint(found, labels), list(labels))]
    UnknownLabel {
        /// The row.
        place: Place,
        /// The label found.
        found: String,
        /// The labels there may be.
        labels: Vec<String>,
    },
    /// The labels of the data are no label set.
    #[error("the labels of the data are no label set")]
    Labels(#[from] LabelSetError),
    /// Files that hold no row.
    #[error("there are no rows in {}", paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoRows {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// A split's share is out of range.
    #[error("split.{field} is {found}: expected {expected}")]
    SplitConfig {
        /// The field, or `train + validation + test`.
        field: &'static str,
        /// Its value.
        found: f64,
        /// What it should be.
        expected: &'static str,
    },
    /// Too few rows for a share.
    #[error("{rows} rows are too few: no row is left for {split}")]
    TooFewRows {
        /// How many rows there are.
        rows: usize,
        /// The split that would be empty.
        split: Split,
    },
    /// No folds, or more than there are texts.
    #[error("{folds} folds of {texts} distinct texts; expected at least 2 folds, and a text for each")]
    Folds {
        /// How many were asked for.
        folds: usize,
        /// How many distinct texts there are.
        texts: usize,
    },
}

/// A line of a text file, or a row of a Parquet or Arrow one; both count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or an Arrow folder.
    pub path: PathBuf,
    /// The line or the row.
    pub line: u64,
    /// What `line` counts.
    pub unit: Unit,
}

/// What a [`Place`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Lines of a text file.
    Line,
    /// Rows of columns.
    Row,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Line => "line",
            Unit::Row => "row",
        };
        write!(f, "{}, {unit} {}", self.path.display(), self.line)
    }
}

/// The nearest of the names, where it is near enough for a slip of the hand.
fn nearest<'a>(word: &str, names: &'a [String]) -> Option<&'a str> {
    let word = word.trim().to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&word, &name.trim().to_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.as_str())
}

fn hint(word: &str, names: &[String]) -> String {
    nearest(word, names).map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// The first twenty names; a data set can have thousands of labels.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &rest
}

fn asked(split: Option<&str>) -> String {
    match split {
        Some(split) => format!("there is no split `{split}`"),
        None => "which split is meant is not said".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn encoding_hint(likely: Option<Encoding>) -> String {
    match likely {
        Some(likely) => format!("the file looks like {likely}: set `encoding = \"{}\"`", likely.name()),
        None => "the file is damaged, or in an encoding to be named: `gbk`, `windows-1252`, `utf-16le`".to_owned(),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { path: "train.tsv".into(), line: 3, unit: Unit::Line }
    }

    #[test]
    fn messages_name_the_place_what_was_found_and_what_is_near() {
        let few = Error::FewFields { place: place(), index: 7, fields: 2 };
        assert_eq!(
            few.to_string(),
            "train.tsv, line 3: there is no column 7: the row has 2 fields (columns count from 0)"
        );
        let columns = vec!["text".to_owned(), "label".to_owned()];
        let none = Error::NoColumn { place: place(), name: "lable".to_owned(), columns: columns.clone() };
        assert_eq!(
            none.to_string(),
            "train.tsv, line 3: there is no column `lable` (did you mean `label`?): the columns are `text`, `label`"
        );
        let far = Error::NoColumn { place: place(), name: "sentence".to_owned(), columns };
        assert!(!far.to_string().contains("did you mean"), "{far}");
    }

    #[test]
    fn a_long_list_of_labels_is_cut() {
        let labels: Vec<_> = (0..1_000).map(|label| label.to_string()).collect();
        let message = Error::UnknownLabel { place: place(), found: "好".to_owned(), labels }.to_string();
        assert!(message.ends_with("`19` and 980 more"), "{message}");
    }
}
