use std::fmt;
use std::io;
use std::path::PathBuf;

use kiln_schema::{LabelSetError, Split};

use crate::wording::{asked, encoding_hint, hex, hint, list, plural, separator_hint};
use crate::{Column, Encoding, Format};

/// An error that occurs when data is read, split or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The format cannot be inferred from the file ending or from the content of the folder.
    #[error(
        "{}: the format is not known from the name: expected .csv, .tsv, .txt, .jsonl, .json, .parquet, .arrow, \
         .conll, .bio, .iob, .bmes, or a folder that holds dataset_dict.json or state.json; else name the format",
        path.display()
    )]
    UnknownFormat {
        /// The file or folder.
        path: PathBuf,
    },
    /// The file ending is neither `.parquet` nor `.npy`, the two formats for vectors.
    #[error("{}: vectors are written as .parquet or .npy; expected a file with one of these endings", path.display())]
    VectorFormat {
        /// The file.
        path: PathBuf,
    },
    /// A Parquet or Arrow file is inconsistent.
    #[error("{}: the file is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        problem: String,
    },
    /// A Parquet or Arrow file is damaged, or uses an unsupported feature.
    #[error("cannot decode {}", path.display())]
    Columnar {
        /// The file.
        path: PathBuf,
        /// The decoder's error.
        source: polars::error::PolarsError,
    },
    /// A JSON file that describes an Arrow folder is not valid.
    #[error("cannot parse {}", path.display())]
    Manifest {
        /// The JSON file.
        path: PathBuf,
        /// The JSON error.
        source: serde_json::Error,
    },
    /// An Arrow folder was saved with an indices mapping, which is not supported.
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
        /// The requested split.
        split: Option<String>,
        /// The splits of the folder.
        splits: Vec<String>,
    },
    /// No column has the requested name.
    #[error("{place}: there is no column `{name}`{}: the columns are {}", hint(name, columns), list(columns))]
    NoColumn {
        /// The header, or the row of a JSON Lines file.
        place: Place,
        /// The requested name.
        name: String,
        /// The existing column names.
        columns: Vec<String>,
    },
    /// Several columns have the requested name.
    #[error(
        "{place}: columns {first} and {second} (counted from 0) are both called `{name}`; \
         give the column's index, or rename one of them"
    )]
    DuplicateColumn {
        /// The header.
        place: Place,
        /// The requested name.
        name: String,
        /// The index of the first column of that name, from 0.
        first: usize,
        /// The index of the second column.
        second: usize,
    },
    /// The first row of a file that is read without a header holds column names.
    #[error(
        "{place}: found {}, which are column names: set `header = true` or `--header`, or remove the line",
        list(cells)
    )]
    HeaderAsRow {
        /// The row.
        place: Place,
        /// The cells that are usual column names.
        cells: Vec<String>,
    },
    /// A row has too few fields.
    #[error("{place}: there is no column {index}: the row has {fields} field{} (columns count from 0)", plural(*fields))]
    FewFields {
        /// The row.
        place: Place,
        /// The index of the requested column, from 0.
        index: usize,
        /// The number of fields in the row.
        fields: usize,
    },
    /// A row has more fields than the first row of the file.
    #[error("{place}: found {fields} fields, expected {expected} as in the first row: {}", separator_hint(*separator))]
    ManyFields {
        /// The row.
        place: Place,
        /// The number of fields in the row.
        fields: usize,
        /// The number of fields in the first row, which may be the header.
        expected: usize,
        /// The separator of the fields.
        separator: char,
    },
    /// A column name was given for a file without names, or an index for a format whose columns have no order.
    #[error("{}: column {column}: {why}", path.display())]
    BadColumn {
        /// The file.
        path: PathBuf,
        /// The requested column.
        column: Column,
        /// How columns are given in this format.
        why: &'static str,
    },
    /// A line is not a JSON object.
    #[error("{place}: expected one JSON object per line")]
    Json {
        /// The line.
        place: Place,
        /// The JSON error.
        source: serde_json::Error,
    },
    /// The type of a cell is not text, a number or a boolean.
    #[error("{place}: column {column} holds {found}: expected text, a number or a boolean")]
    Cell {
        /// The row.
        place: Place,
        /// The column.
        column: Column,
        /// The type found.
        found: String,
    },
    /// Tagged texts cannot be in this format.
    #[error("{}: tagged texts are not read as {format:?}; expected conll, jsonl, parquet or arrow", path.display())]
    NoTags {
        /// The file.
        path: PathBuf,
        /// The given format, or the format inferred from the file ending.
        format: Format,
    },
    /// Questions cannot be in this format.
    #[error("{}: questions are not read as {format:?}; expected squad, jsonl, parquet or arrow", path.display())]
    NoQuestions {
        /// The file.
        path: PathBuf,
        /// The given format.
        format: Format,
    },
    /// A question has no answers, and is not declared unanswerable.
    #[error("{}: the question `{id}` has no key `answers`; expected a list, which is empty if nothing answers it", path.display())]
    NoAnswers {
        /// The file.
        path: PathBuf,
        /// The question's id.
        id: String,
    },
    /// A cell of a column that says whether a row has a label is neither 0 nor 1.
    #[error("{place}: column {column} holds `{found}`: expected 0 or 1, which says whether the row has this label")]
    Flag {
        /// The row.
        place: Place,
        /// The column.
        column: Column,
        /// The cell.
        found: String,
    },
    /// A line of tagged text is not valid.
    #[error("{place}: found `{found}`, expected {expected}")]
    Tagged {
        /// The line.
        place: Place,
        /// The text found.
        found: String,
        /// The expected text.
        expected: &'static str,
    },
    /// The layout of a question file is not that of SQuAD.
    #[error("{}: not a SQuAD file", path.display())]
    Questions {
        /// The file.
        path: PathBuf,
        /// The JSON error, with line and column.
        source: serde_json::Error,
    },
    /// The format has no columns: tagged texts or questions.
    #[error("{}: a {format:?} file has tagged texts or questions, not rows of columns", path.display())]
    NoColumns {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
    },
    /// A cell is not a finite number.
    #[error("{place}: found `{found}`, expected a number")]
    Number {
        /// The row.
        place: Place,
        /// The text of the cell.
        found: String,
    },
    /// A quoted field of a CSV file is not closed.
    #[error("{place}: a quote that opens in this record is never closed")]
    OpenQuote {
        /// The start of the record.
        place: Place,
    },
    /// Some bytes are not valid in the encoding.
    #[error("{place}: the bytes {} are not {encoding}; {}", hex(bytes), encoding_hint(*likely))]
    Encoding {
        /// The line of the first invalid bytes.
        place: Place,
        /// The first few invalid bytes.
        bytes: Vec<u8>,
        /// The expected encoding.
        encoding: Encoding,
        /// The encoding that the file probably has.
        likely: Option<Encoding>,
    },
    /// A text file without a byte order mark is probably UTF-16.
    #[error(
        "{}: the file looks like UTF-16 without a byte order mark; set `encoding = \"{}\"`, or save it as UTF-8",
        path.display(), encoding.name()
    )]
    Utf16 {
        /// The file.
        path: PathBuf,
        /// The encoding that the file probably has.
        encoding: Encoding,
    },
    /// A row that needs a label has none.
    #[error("{place}: the row has no label")]
    NoLabel {
        /// The row.
        place: Place,
    },
    /// No label column is given, but labels are needed.
    #[error("{}: no label column is given", path.display())]
    NoLabelColumn {
        /// The file.
        path: PathBuf,
    },
    /// A label is not in the label set.
    #[error("{place}: label `{found}` is not in the list{}: the labels are {}", hint(found, labels), list(labels))]
    UnknownLabel {
        /// The row.
        place: Place,
        /// The label found.
        found: String,
        /// The valid labels.
        labels: Vec<String>,
    },
    /// The labels of the data do not form a valid label set.
    #[error("invalid label set in the data")]
    Labels(#[from] LabelSetError),
    /// The files have no rows.
    #[error("there are no rows in {}", paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoRows {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// A share of the split configuration is out of range.
    #[error("split.{field} is {found}: expected {expected}")]
    SplitConfig {
        /// The field, or `train + validation + test`.
        field: &'static str,
        /// Its value.
        found: f64,
        /// The valid range.
        expected: &'static str,
    },
    /// There are too few rows for a split to get one.
    #[error("found {rows} row{}, expected more: no row is left for {split}", plural(*rows))]
    TooFewRows {
        /// The number of rows.
        rows: usize,
        /// The split that would be empty.
        split: Split,
    },
    /// There are fewer than two folds, or more folds than distinct texts.
    #[error("{folds} folds of {texts} distinct texts; expected at least 2 folds, and at least one text per fold")]
    Folds {
        /// The number of folds requested.
        folds: usize,
        /// The number of distinct texts.
        texts: usize,
    },
}

/// A line of a text file, or a row of a Parquet or Arrow file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file or the Arrow folder.
    pub path: PathBuf,
    /// The number of the line or row, from 1.
    pub line: u64,
    /// The unit of `line`.
    pub unit: Unit,
}

/// The unit that a [`Place`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Lines of a text file.
    Line,
    /// Rows of a Parquet or Arrow file.
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
