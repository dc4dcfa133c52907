mod rules;

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use kiln_dataset::{Column, Columns, Encoding, Format, SplitConfig};
use kiln_hub::DatasetFile;
use kiln_metrics::AnswerLanguage;
use kiln_schema::{LabelSet, Splits, TagScheme};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::RecipeError;
use super::document::Places;

pub(super) use rules::rules;

/// `[data]`: the data files, and how they are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// A file for each split, files to divide into splits, or a corpus.
    pub files: Files<DataPath>,
    /// The format of the files; inferred from each file's extension when absent.
    pub format: Option<Format>,
    /// The character encoding of the files; detected from each file's bytes when absent.
    pub encoding: Option<Encoding>,
    /// Whether the first row of a csv or tsv file names its columns. When the key is absent, it is `true` if a column is
    /// given by name, and `false` if all are given by index. If no column is given either, it is `false` for csv and tsv,
    /// whose columns are then 0 and 1, and `true` for the other formats, whose columns are then `text` and `label`.
    pub header: bool,
    /// The columns of the texts and labels.
    pub columns: Columns,
    /// The label set; when absent, the sorted labels of all splits.
    pub labels: Option<LabelSet>,
    /// The separator of the labels in a cell, when a row may have several.
    pub label_separator: char,
    /// Whether to drop training rows whose text is also in another split.
    pub drop_leaks: bool,
    /// The tag scheme; inferred from the tags when absent.
    pub tag_scheme: Option<TagScheme>,
    /// The language whose rules are used to compare answers; inferred from the training split's contexts when absent.
    pub answer_language: Option<AnswerLanguage>,
}

/// The source of the splits. `F` is [`DataPath`] for files as a recipe names them, and `PathBuf` for files on disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Files<F> {
    /// One file for each split.
    Splits(Splits<F>),
    /// The rows of all files together, divided into splits.
    Divided {
        /// The files, in the order in which they are read.
        files: Vec<F>,
        /// The shares of the splits.
        split: SplitConfig,
    },
    /// Text without labels, and a file to validate on. Without one, some rows are held out.
    Corpus {
        /// The files, in the order in which they are read.
        files: Vec<F>,
        /// The file to validate on.
        validation: Option<F>,
    },
}

/// A file as a recipe names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// A file on disk.
    Local(PathBuf),
    /// A file of a data set on a hub.
    Hub(DatasetFile),
}

impl<F> Files<F> {
    /// Applies `f` to every file.
    pub fn map<G>(&self, mut f: impl FnMut(&F) -> G) -> Files<G> {
        let Ok(files) = self.try_map(|file| Ok::<_, Infallible>(f(file)));
        files
    }

    /// Applies `f` to every file, and stops at the first error.
    pub fn try_map<G, E>(&self, mut f: impl FnMut(&F) -> Result<G, E>) -> Result<Files<G>, E> {
        Ok(match self {
            Self::Splits(splits) => Files::Splits(splits.as_ref().try_map(|_, file| f(file))?),
            Self::Divided { files, split } => {
                Files::Divided { files: files.iter().map(f).collect::<Result<_, E>>()?, split: *split }
            }
            Self::Corpus { files, validation } => {
                let files = files.iter().map(&mut f).collect::<Result<_, E>>()?;
                Files::Corpus { files, validation: validation.as_ref().map(f).transpose()? }
            }
        })
    }

    /// All files, in order.
    pub fn all(&self) -> Vec<&F> {
        match self {
            Self::Splits(splits) => splits.iter().map(|(_, file)| file).collect(),
            Self::Divided { files, .. } => files.iter().collect(),
            Self::Corpus { files, validation } => files.iter().chain(validation).collect(),
        }
    }
}

impl DataPath {
    /// Makes a local path absolute; it is relative to the recipe's folder.
    pub(super) fn in_folder(self, folder: &Path) -> Self {
        match self {
            Self::Local(path) => Self::Local(folder.join(path)),
            hub => hub,
        }
    }

    /// The path whose extension gives the format.
    fn named(&self) -> &Path {
        match self {
            Self::Local(path) => path,
            Self::Hub(file) => Path::new(file.path()),
        }
    }
}

impl Serialize for DataPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Local(path) => path.serialize(serializer),
            Self::Hub(file) => file.serialize(serializer),
        }
    }
}

/// A string with the prefix of a data set source is parsed as one; any other string is a path.
impl<'de> Deserialize<'de> for DataPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        match path.to_str().filter(|text| DatasetFile::is_meant(text)) {
            Some(text) => text.parse().map(Self::Hub).map_err(D::Error::custom),
            None => Ok(Self::Local(path)),
        }
    }
}

/// `data.label`: a column, or the names of several columns that hold 0 or 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a column, or a list of column names")]
enum Labelled {
    InColumn(Column),
    InColumns(Vec<String>),
}

/// `[data]` as written in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    train: Option<DataPath>,
    validation: Option<DataPath>,
    test: Option<DataPath>,
    files: Option<Vec<DataPath>>,
    format: Option<Format>,
    encoding: Option<Encoding>,
    header: Option<bool>,
    text: Option<Column>,
    text_pair: Option<Column>,
    label: Option<Labelled>,
    labels: Option<LabelSet>,
    label_separator: Option<char>,
    #[serde(default)]
    drop_leaks: bool,
    tag_scheme: Option<TagScheme>,
    answer_language: Option<AnswerLanguage>,
    split: Option<SplitConfig>,
}

impl DataFile {
    /// Fills in the defaults, makes paths absolute, and checks conditions on several keys.
    pub fn resolve(self, folder: &Path, is_corpus: bool, places: &Places) -> Result<Data, RecipeError> {
        let delimited = self.is_delimited(folder);
        let (label, flags) = match &self.label {
            Some(Labelled::InColumn(column)) => (Some(column.clone()), Vec::new()),
            Some(Labelled::InColumns(names)) => (None, names.clone()),
            None => (None, Vec::new()),
        };
        let columns = [&self.text, &self.text_pair, &label];
        let named = !flags.is_empty() || columns.iter().any(|column| matches!(column, Some(Column::Name(_))));
        let given = named || columns.iter().any(|column| column.is_some());
        let header = self.header.unwrap_or(named || (!given && !delimited));
        let or_default = |column: Option<Column>, name: &str, index| {
            column.unwrap_or_else(|| if header { Column::Name(name.to_owned()) } else { Column::Index(index) })
        };
        let text = or_default(self.text.clone(), "text", 0);
        let index = if self.text_pair.is_some() { 2 } else { 1 };
        let label = flags.is_empty().then(|| or_default(label, "label", index));
        let labels = match &self.labels {
            None if !flags.is_empty() => {
                let invalid = |error| places.error("data.label", format!("`data.label`: {error}"));
                Some(LabelSet::new(flags.clone()).map_err(invalid)?)
            }
            labels => labels.clone(),
        };
        let data = Data {
            format: self.format,
            encoding: self.encoding,
            header,
            columns: Columns { text, text_pair: self.text_pair.clone(), label, flags },
            labels,
            label_separator: self.label_separator.unwrap_or(','),
            drop_leaks: self.drop_leaks,
            tag_scheme: self.tag_scheme,
            answer_language: self.answer_language,
            files: if is_corpus { self.corpus(folder, places)? } else { self.files(folder, places)? },
        };
        data.check_columns(delimited, places)?;
        Ok(data)
    }

    /// Whether all files are csv or tsv. Their columns have names only if there is a header.
    fn is_delimited(&self, folder: &Path) -> bool {
        let delimited = |format| matches!(format, Format::Csv | Format::Tsv);
        let named = [&self.train, &self.validation, &self.test].into_iter().flatten();
        match self.format {
            Some(format) => delimited(format),
            // A missing file is reported later, when it is read.
            None => named
                .chain(self.files.iter().flatten())
                .all(|path| Format::from_path(&folder.join(path.named())).is_ok_and(delimited)),
        }
    }

    fn corpus(self, folder: &Path, places: &Places) -> Result<Files<DataPath>, RecipeError> {
        for (key, given) in [("data.test", self.test.is_some()), ("data.split", self.split.is_some())] {
            if given {
                let what = format!(
                    "`{key}`: a corpus has no such split; expected `data.train` and, optionally, `data.validation`"
                );
                return Err(places.error(key, what));
            }
        }
        let files = match (self.files, self.train) {
            (Some(files), None) if !files.is_empty() => files,
            (None, Some(train)) => vec![train],
            _ => {
                return Err(places.error(
                    "data.train",
                    "expected `data.train`, a file, or `data.files`, a list of at least one file",
                ));
            }
        };
        let files = files.into_iter().map(|path| path.in_folder(folder)).collect();
        Ok(Files::Corpus { files, validation: self.validation.map(|path| path.in_folder(folder)) })
    }

    fn files(self, folder: &Path, places: &Places) -> Result<Files<DataPath>, RecipeError> {
        match (self.files, self.train, self.validation, self.test) {
            (Some(_), Some(_), ..) => {
                Err(places.error("data.files", "`data.files` and `data.train` are both given; expected one of them"))
            }
            (Some(_), _, Some(_), _) | (Some(_), _, _, Some(_)) => Err(places.error(
                "data.files",
                "`data.files` is divided into all splits; expected neither `data.validation` nor `data.test` beside it",
            )),
            (Some(files), None, None, None) if files.is_empty() => {
                Err(places.error("data.files", "`data.files`: found an empty list, expected at least one file"))
            }
            (Some(files), None, None, None) => {
                let split = self.split.unwrap_or_default();
                check_shares(&split, places)?;
                Ok(Files::Divided { files: files.into_iter().map(|path| path.in_folder(folder)).collect(), split })
            }
            (None, ..) if self.split.is_some() => Err(places.error(
                "data.split",
                "`data.split` divides the rows of `data.files`, which is not given; `data.train` and `data.validation` are not divided",
            )),
            (None, Some(train), Some(validation), test) => Ok(Files::Splits(Splits {
                train: train.in_folder(folder),
                validation: validation.in_folder(folder),
                test: test.map(|test| test.in_folder(folder)),
            })),
            (None, Some(_), None, _) => Err(places.error(
                "data.train",
                "`data.train` is given without `data.validation`, which picks the best checkpoint; \
                 give it, or name the file in `data.files` to have it divided",
            )),
            (None, None, ..) => Err(places.error(
                "data.train",
                "there is nothing to train on; expected `data.train` and `data.validation`, or `data.files`",
            )),
        }
    }
}

impl Data {
    fn check_columns(&self, delimited: bool, places: &Places) -> Result<(), RecipeError> {
        let Columns { text, text_pair, label, flags: _ } = &self.columns;
        let columns =
            [("data.text", Some(text)), ("data.text_pair", text_pair.as_ref()), ("data.label", label.as_ref())];
        for (at, (key, column)) in columns.iter().enumerate() {
            let Some(column) = column else { continue };
            if let (true, false, Column::Name(name)) = (delimited, self.header, column) {
                let what =
                    format!("`{key}`: found the name `{name}`, expected an index, because `data.header` is false");
                return Err(places.error(key, what));
            }
            if let Some((other, _)) = columns[..at].iter().find(|(_, earlier)| *earlier == Some(column)) {
                return Err(places.error(key, format!("`{other}` and `{key}` are the same column, {column}")));
            }
        }
        Ok(())
    }
}

fn check_shares(split: &SplitConfig, places: &Places) -> Result<(), RecipeError> {
    split.validate().map_err(|error| match error {
        kiln_dataset::Error::SplitConfig { field, found, expected } => {
            let key = format!("data.split.{field}");
            places.error(&key, format!("`{key}`: found {found}, expected {expected}"))
        }
        other => places.error("data.split", other.to_string()),
    })
}

impl From<&Data> for DataFile {
    fn from(data: &Data) -> Self {
        let (splits, files, split, held_back) = match &data.files {
            Files::Splits(splits) => (Some(splits), None, None, None),
            Files::Divided { files, split } => (None, Some(files.clone()), Some(*split), None),
            Files::Corpus { files, validation } => (None, Some(files.clone()), None, validation.clone()),
        };
        Self {
            train: splits.map(|splits| splits.train.clone()),
            validation: splits.map(|splits| splits.validation.clone()).or(held_back),
            test: splits.and_then(|splits| splits.test.clone()),
            files,
            format: data.format,
            encoding: data.encoding,
            header: Some(data.header),
            text: Some(data.columns.text.clone()),
            text_pair: data.columns.text_pair.clone(),
            label: match data.columns.label.clone() {
                Some(column) => Some(Labelled::InColumn(column)),
                None => Some(Labelled::InColumns(data.columns.flags.clone())),
            },
            labels: data.labels.clone(),
            label_separator: (data.label_separator != ',').then_some(data.label_separator),
            drop_leaks: data.drop_leaks,
            tag_scheme: data.tag_scheme,
            answer_language: data.answer_language,
            split,
        }
    }
}
