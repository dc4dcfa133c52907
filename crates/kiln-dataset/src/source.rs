use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// One labelled file, or one folder that Python's `datasets.save_to_disk` wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file or folder.
    pub path: PathBuf,
    /// The format; [`Format::from_path`] if none.
    #[serde(default)]
    pub format: Option<Format>,
    /// Whether the first line of a CSV or TSV file has the column names. The other formats always have names.
    #[serde(default)]
    pub header: bool,
    /// The encoding of a text file; detected from its bytes if none.
    #[serde(default)]
    pub encoding: Option<Encoding>,
    /// The columns to read.
    pub columns: Columns,
    /// The split to read of a folder with a `dataset_dict.json`.
    #[serde(default)]
    pub split: Option<String>,
    /// The separator between the labels of a cell with several.
    #[serde(default = "comma")]
    pub label_separator: char,
    /// Whether texts are kept as in the file instead of trimmed, so that character offsets refer to the original text.
    #[serde(default)]
    pub keeps_white_space: bool,
}

fn comma() -> char {
    ','
}

impl Source {
    /// A source without a header, whose format and encoding are detected.
    pub fn new(path: impl Into<PathBuf>, columns: Columns) -> Self {
        Self {
            path: path.into(),
            format: None,
            header: false,
            encoding: None,
            columns,
            split: None,
            label_separator: ',',
            keeps_white_space: false,
        }
    }

    /// The given format, or the format inferred from the path.
    ///
    /// # Errors
    /// Returns the errors of [`Format::from_path`].
    pub fn format(&self) -> Result<Format, Error> {
        self.format.map_or_else(|| Format::from_path(&self.path), Ok)
    }
}

/// The columns for the text and the label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// The text, or the first text of a pair.
    pub text: Column,
    /// The second text of a pair.
    #[serde(default)]
    pub text_pair: Option<Column>,
    /// The label; none for rows without labels, as in prediction.
    #[serde(default)]
    pub label: Option<Column>,
    /// Names of columns that replace the label column: one per label, with 1 or true in each row that has the label.
    #[serde(default)]
    pub flags: Vec<String>,
}

impl Columns {
    /// The same text columns, without labels.
    pub fn unlabelled(&self) -> Self {
        Self { label: None, flags: Vec::new(), ..self.clone() }
    }

    /// The names of the flags that are set in a row.
    pub(crate) fn flagged<E>(
        &self,
        mut cell: impl FnMut(usize, &Column) -> Result<Option<String>, E>,
        bad: impl Fn(&Column, String) -> E,
    ) -> Result<Vec<String>, E> {
        let mut set = Vec::new();
        for (at, name) in self.flags.iter().enumerate() {
            let column = Column::Name(name.clone());
            match cell(at, &column)?.as_deref().map(str::trim) {
                None | Some("" | "0" | "0.0" | "false" | "False") => {}
                Some("1" | "1.0" | "true" | "True") => set.push(name.clone()),
                Some(other) => {
                    return Err(bad(&column, other.to_owned()));
                }
            }
        }
        Ok(set)
    }
}

/// A column, by index or by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a column's name, or its index from 0")]
pub enum Column {
    /// An index, from 0.
    Index(usize),
    /// The name in the header, the JSON keys or the schema.
    Name(String),
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

impl From<usize> for Column {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Digits are an index; everything else is a name. clap prefers this conversion to [`FromStr`], so both must agree. For
/// a name of digits, use [`Column::Name`].
impl From<&str> for Column {
    fn from(word: &str) -> Self {
        word.parse().map_or_else(|_| Self::Name(word.to_owned()), Self::Index)
    }
}

/// The same as `From<&str>`.
impl FromStr for Column {
    type Err = std::convert::Infallible;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(word.into())
    }
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated, quoted as in RFC 4180.
    Csv,
    /// Tab-separated; a quote is a character like any other.
    Tsv,
    /// JSON Lines: one object per line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
    /// An Arrow IPC stream or file, or a folder of them.
    Arrow,
    /// Tagged texts: one unit or one text per line; see [`Record`](crate::Record).
    Conll,
    /// SQuAD's JSON.
    Squad,
    /// Plain text; see [`corpus`](crate::corpus()).
    Text,
}

impl Format {
    /// The format of a file of questions: JSON Lines (`.jsonl`), Parquet or Arrow, or else SQuAD's JSON.
    pub fn of_questions(path: &Path) -> Self {
        let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        match Self::from_path(path) {
            Ok(format @ (Self::Parquet | Self::Arrow)) => format,
            Ok(Self::Jsonl) if !is_json => Self::Jsonl,
            _ => Self::Squad,
        }
    }

    /// Infers the format from the ending of the file name, or from the content of a folder written by `save_to_disk`.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] when the format cannot be inferred; [`Error::Read`] when the path does not exist.
    pub fn from_path(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            let saved = path.join("dataset_dict.json").is_file() || path.join("state.json").is_file();
            return if saved { Ok(Self::Arrow) } else { Err(Error::UnknownFormat { path: path.to_owned() }) };
        }
        let ending = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        match ending.as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("tsv" | "txt") => Ok(Self::Tsv),
            Some("jsonl" | "json") => Ok(Self::Jsonl),
            Some("parquet") => Ok(Self::Parquet),
            Some("arrow") => Ok(Self::Arrow),
            Some("conll" | "bmes" | "bio" | "iob") => Ok(Self::Conll),
            _ => {
                // For a mistyped folder, report that the path does not exist, not that it has no known ending.
                std::fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
                Err(Error::UnknownFormat { path: path.to_owned() })
            }
        }
    }
}

/// The encoding of a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    #[serde(rename = "utf-8")]
    Utf8,
    /// GBK, the most common encoding of Chinese files that are not UTF-8.
    #[serde(rename = "gbk")]
    Gbk,
    /// GB 18030: GBK extended with four-byte sequences for the rest of Unicode.
    #[serde(rename = "gb18030")]
    Gb18030,
    /// UTF-16, little-endian, which Windows calls "Unicode"; with or without a byte order mark.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, big-endian.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// Windows-1252: Western European languages, one byte per character; a superset of Latin-1.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

impl Encoding {
    /// The name of the encoding in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Gbk => "gbk",
            Self::Gb18030 => "gb18030",
            Self::Utf16Le => "utf-16le",
            Self::Utf16Be => "utf-16be",
            Self::Windows1252 => "windows-1252",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Utf8 => "UTF-8",
            Self::Gbk => "GBK",
            Self::Gb18030 => "GB18030",
            Self::Utf16Le | Self::Utf16Be => "UTF-16",
            Self::Windows1252 => "Windows-1252",
        })
    }
}

/// One row of a file. Texts are trimmed unless the source keeps white space; the label is not yet converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The text; empty if the cell is empty.
    pub text: String,
    /// The second text, if there is a column for it.
    pub text_pair: Option<String>,
    /// The label; none if the cell is empty or there is no label column.
    pub label: Option<String>,
    /// The labels of a cell with a list, or of the flag columns that are set. `label` is none then.
    pub labels: Option<Vec<String>>,
    /// The first line of the row in a text file, or the number of the row in a columnar file; from 1.
    pub line: u64,
}

impl Row {
    /// Creates a row; an empty label becomes none.
    pub(crate) fn new(text: String, text_pair: Option<String>, label: Option<String>, line: u64) -> Self {
        let label = label.map(trimmed).filter(|label| !label.is_empty());
        Self { text, text_pair, label, labels: None, line }
    }

    /// The row with several labels.
    pub(crate) fn with_labels(self, labels: Option<Vec<String>>) -> Self {
        Self { labels, ..self }
    }

    /// Trims the texts, including full-width spaces.
    pub(crate) fn trimmed(self) -> Self {
        Self { text: trimmed(self.text), text_pair: self.text_pair.map(trimmed), ..self }
    }
}

/// Trims in place, because a text may be large.
fn trimmed(mut text: String) -> String {
    text.truncate(text.trim_end().len());
    let start = text.len() - text.trim_start().len();
    text.drain(..start);
    text
}

/// A JSON string, number or boolean as text; none for other values.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(value) if value.is_f64() => value.as_f64().map(number),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The texts of a list; the first value that [`scalar`] does not convert if there is one.
pub(crate) fn scalars(values: &[Value]) -> Result<Vec<String>, &Value> {
    values.iter().map(|value| scalar(value).ok_or(value)).collect()
}

/// A number as text. A whole number has no fraction, so that `1` and `1.0` are the same label.
pub(crate) fn number(value: f64) -> String {
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_tell_the_format() {
        let formats = [
            ("a/train.csv", Format::Csv),
            ("train.TSV", Format::Tsv),
            ("train.txt", Format::Tsv),
            ("train.jsonl", Format::Jsonl),
            ("train.v2.json", Format::Jsonl),
            ("train.parquet", Format::Parquet),
            ("data-00000-of-00001.arrow", Format::Arrow),
        ];
        for (path, format) in formats {
            assert_eq!(Format::from_path(Path::new(path)).expect("a known ending"), format, "{path}");
        }
    }

    #[test]
    fn folders_and_missing_files_are_told_apart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(Format::from_path(folder.path()), Err(Error::UnknownFormat { .. })));
        std::fs::write(folder.path().join("state.json"), "{}").expect("a small file");
        assert_eq!(Format::from_path(folder.path()).expect("a saved data set"), Format::Arrow);
        assert!(matches!(Format::from_path(&folder.path().join("absent")), Err(Error::Read { .. })));
    }

    #[test]
    fn serde_names_are_the_recipes() {
        let columns: Columns = serde_json::from_str(r#"{"text": 0, "label": "stars"}"#).expect("a valid recipe");
        assert_eq!(columns, Columns { text: 0.into(), text_pair: None, label: Some("stars".into()), flags: vec![] });
        assert_eq!(serde_json::to_string(&Encoding::Gb18030).expect("a name"), r#""gb18030""#);
        assert_eq!(serde_json::from_str::<Format>(r#""jsonl""#).expect("a name"), Format::Jsonl);
        assert_eq!("12".parse(), Ok(Column::Index(12)));
        assert_eq!("text".parse(), Ok(Column::Name("text".to_owned())));
        for encoding in ["utf-8", "gbk", "gb18030", "utf-16le", "utf-16be", "windows-1252"] {
            let read: Encoding = serde_json::from_str(&format!("\"{encoding}\"")).expect("a name");
            assert_eq!(read.name(), encoding);
        }
    }

    #[test]
    fn every_way_to_a_column_takes_digits_as_an_index() {
        assert_eq!(Column::from("0"), Column::Index(0));
        assert_eq!(Column::from("0").to_string(), "0");
        assert_eq!(Column::from("text"), Column::Name("text".to_owned()));
    }
}
