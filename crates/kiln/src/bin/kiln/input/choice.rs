//! Chooses the format, header and columns for reading a file.

use anyhow::bail;
use kiln::recipe::{Data, DataPath};
use kiln::{Recipe, UsageError};
use kiln_dataset::{Column, Columns, Format, Source, head};
use kiln_schema::Task;
use serde::Deserialize;
use serde::de::IntoDeserializer;

use super::Input;
use crate::cli::ColumnArgs;
use crate::console;

/// Why the second text of a pair must not be missing.
pub const TRAINED_ON_PAIRS: &str = "the model was trained on pairs of texts";

/// The usual names of a text's column, by precedence.
const TEXT_NAMES: [&str; 4] = ["text", "sentence", "review", "content"];

/// A file, and everything that determines how it is read.
pub struct Choice<'a> {
    pub input: &'a Input,
    pub recipe: Option<&'a Recipe>,
    pub arguments: &'a ColumnArgs,
    pub task: Task,
    /// Whether a model that was trained on pairs may not read single texts.
    pub needs_pairs: bool,
}

impl Choice<'_> {
    pub fn for_labels(&self, label: Option<&Column>) -> anyhow::Result<Source> {
        let format = match self.format()? {
            None if self.task == Task::MaskedLm => Some(Format::Text),
            // Files of tagged texts may have the extension `.txt` too.
            None => self.data().and_then(|data| data.format).or(Some(Format::Tsv)),
            format => format,
        };
        let mut source = self.with_format(format);
        let mut columns = self.columns();
        if let Some(label) = label {
            columns.label = Some(label.clone());
            columns.flags.clear();
        }
        if columns.flags.is_empty() && columns.label.is_none() {
            let index = Column::Index(if self.has_pairs(&columns) { 2 } else { 1 });
            let is_named = self.arguments.header || matches!(format, Some(Format::Parquet | Format::Arrow));
            columns.label = Some(if is_named { Column::from("label") } else { index });
        }
        if matches!(self.task, Task::TokenClassification | Task::QuestionAnswering) {
            self.refuse_columns(label)?;
            return Ok(Source { columns, ..source });
        }
        self.place(&mut source, columns)?;
        Ok(source)
    }

    pub fn for_texts(&self) -> anyhow::Result<Source> {
        let columns = self.columns().unlabelled();
        let format = match self.format()? {
            Some(format) => format,
            None => self.text_or_table(&columns)?,
        };
        if format == Format::Text && self.needs_pairs && columns.text_pair.is_some() {
            let file = &self.input.name;
            console::warn(format_args!("{file}: each line is a single text, but {TRAINED_ON_PAIRS}"));
        }
        let mut source = self.with_format(Some(format));
        source.keeps_white_space = matches!(self.task, Task::TokenClassification | Task::QuestionAnswering);
        self.place(&mut source, columns)?;
        Ok(source)
    }

    /// Fails if the command line selects columns.
    fn refuse_columns(&self, label: Option<&Column>) -> anyhow::Result<()> {
        let ColumnArgs { text_column, text_pair_column, header, no_header, .. } = self.arguments;
        let options = [
            ("--label", label.is_some()),
            ("--text-column", text_column.is_some()),
            ("--text-pair-column", text_pair_column.is_some()),
            ("--header", *header),
            ("--no-header", *no_header),
        ];
        match options.iter().find(|(_, is_set)| *is_set) {
            Some((option, _)) => {
                let message = format!("{option} selects columns, and labelled files for {} have fixed ones", self.task);
                bail!(UsageError(message))
            }
            None => Ok(()),
        }
    }

    fn data(&self) -> Option<&Data> {
        self.recipe.map(|recipe| &recipe.data)
    }

    /// Whether the recipe names the columns. The files of the other tasks have fixed places for texts and labels.
    fn has_columns(&self) -> bool {
        self.recipe.is_some() && matches!(self.task, Task::SequenceClassification | Task::MaskedLm)
    }

    /// The columns to look for.
    fn columns(&self) -> Columns {
        match self.data().filter(|_| self.has_columns()) {
            Some(data) => data.columns.clone(),
            None => {
                let text_pair = (self.task == Task::QuestionAnswering).then_some(Column::Index(1));
                Columns { text_pair, ..self.input.source.columns.clone() }
            }
        }
    }

    fn with_format(&self, format: Option<Format>) -> Source {
        let mut source = Source { format, ..self.input.source.clone() };
        if let Some(data) = self.data() {
            source.encoding = data.encoding;
            source.label_separator = data.label_separator;
        }
        source
    }

    /// The format; `None` for a file of lines that may be plain texts or rows of a table.
    fn format(&self) -> anyhow::Result<Option<Format>> {
        if let Some(name) = &self.arguments.format {
            let format = Format::deserialize(name.as_str().into_deserializer())
                .map_err(|error: serde::de::value::Error| UsageError(format!("--format {name}: {error}")))?;
            return Ok(Some(format));
        }
        let path = &self.input.source.path;
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase()).unwrap_or_default();
        match Format::from_path(path) {
            _ if ending == "txt" || self.input.is_copy_without_ending() => Ok(None),
            Ok(Format::Jsonl) if ending == "json" && self.task == Task::QuestionAnswering => Ok(Some(Format::Squad)),
            Ok(format) => Ok(Some(format)),
            // The extension is unknown.
            Err(error) => match self.data().and_then(|data| data.format) {
                Some(format) => Ok(Some(format)),
                None => Err(error.into()),
            },
        }
    }

    /// Whether a file of lines has one text per line, or tab-separated columns that include the expected ones.
    fn text_or_table(&self, columns: &Columns) -> anyhow::Result<Format> {
        let ColumnArgs { text_column, text_pair_column, header, no_header, .. } = self.arguments;
        if text_column.is_some() || text_pair_column.is_some() || *header || *no_header {
            return Ok(Format::Tsv);
        }
        let is_table = match self.task {
            Task::SequenceClassification => self.has_columns(),
            Task::QuestionAnswering => true,
            Task::TokenClassification | Task::MaskedLm => false,
        };
        let cells = head(&self.with_format(Some(Format::Tsv)))?.unwrap_or_default();
        let has = |column: &Column| match column {
            Column::Index(index) => cells.len() > 1 && *index < cells.len(),
            Column::Name(name) => cells.contains(name),
        };
        if !is_table || !has(&columns.text) || !columns.text_pair.as_ref().is_none_or(has) {
            return Ok(Format::Text);
        }
        if self.task == Task::SequenceClassification {
            console::log(format_args!(
                "{}: its first line has the recipe's columns, separated by tabs; `--format text` reads whole lines",
                self.input.name
            ));
        }
        Ok(Format::Tsv)
    }

    /// Sets the columns and the header of `source`, whose format is already set.
    fn place(&self, source: &mut Source, mut columns: Columns) -> anyhow::Result<()> {
        let ColumnArgs { text_column, text_pair_column, header, .. } = self.arguments;
        let first = head(source)?;
        let names = first.clone().unwrap_or_default();
        match (source.format()?, first) {
            (Format::Text, _) => columns = Columns { text: Column::Index(0), text_pair: None, ..columns },
            (Format::Jsonl, Some(keys)) => self.place_in_object(&mut columns, &keys)?,
            (Format::Csv | Format::Tsv, Some(cells)) => {
                source.header = self.has_header(&columns, &cells);
                self.place_in_table(&mut columns, &cells, source.header)?;
            }
            (Format::Parquet | Format::Arrow, Some(names)) => self.place_in_table(&mut columns, &names, true)?,
            (Format::Csv | Format::Tsv | Format::Jsonl, None) => bail!("{}: there are no rows", self.input.name),
            _ => source.header = *header,
        }
        if let Some(text) = text_column {
            columns.text = text.clone();
        }
        if text_pair_column.is_some() {
            columns.text_pair = text_pair_column.clone();
        }
        let position = |column: &Column| match column {
            Column::Index(index) => Some(*index),
            Column::Name(name) => names.iter().position(|cell| cell == name),
        };
        let [text, label] = [Some(&columns.text), columns.label.as_ref()].map(|column| column.and_then(position));
        if text.is_some() && text == label {
            let (file, column) = (&self.input.name, &columns.text);
            bail!(UsageError(format!("{file}: column {column} is the label; expected --text-column")));
        }
        source.columns = columns;
        Ok(())
    }

    /// Whether the recipe's indices were chosen for files whose columns have names, too.
    fn has_chosen_indices(&self) -> bool {
        let has_names = |path: &DataPath| match path {
            DataPath::Local(path) => matches!(Format::from_path(path), Ok(Format::Parquet | Format::Arrow)),
            DataPath::Hub(file) => file.to_string().ends_with(".parquet"),
        };
        let data = self.data().filter(|_| self.has_columns());
        data.is_some_and(|data| data.header || data.files.all().into_iter().any(has_names))
    }

    fn has_pairs(&self, columns: &Columns) -> bool {
        columns.text_pair.is_some() || self.arguments.text_pair_column.is_some()
    }

    /// Whether the first row of a table names the columns.
    fn has_header(&self, columns: &Columns, cells: &[String]) -> bool {
        let ColumnArgs { text_column, text_pair_column, header, no_header, .. } = self.arguments;
        let by_name = [text_column, text_pair_column].iter().any(|column| matches!(column, Some(Column::Name(_))));
        if *header || *no_header || by_name {
            return !no_header;
        }
        let named = named(columns);
        let headed = self.data().is_some_and(|data| self.has_columns() && data.header);
        (headed && named.is_empty()) || named.iter().any(|name| cells.contains(name))
    }

    /// Sets the columns for a table whose first row is `cells`.
    fn place_in_table(&self, columns: &mut Columns, cells: &[String], header: bool) -> anyhow::Result<()> {
        let is_there = |column: &Column| match column {
            Column::Index(index) => *index < cells.len(),
            Column::Name(name) => header && cells.contains(name),
        };
        if self.arguments.no_header {
            let by_index = |column: &mut Column, index| {
                if matches!(column, Column::Name(_)) {
                    *column = Column::Index(index);
                }
            };
            by_index(&mut columns.text, 0);
            columns.text_pair.iter_mut().for_each(|column| by_index(column, 1));
            let label = if self.has_pairs(columns) { 2 } else { 1 };
            columns.label.iter_mut().for_each(|column| by_index(column, label));
        }
        if header && self.arguments.text_column.is_none() && !self.has_chosen_indices() {
            let by_name = |column: &mut Column, names: &[&str]| {
                let name = names.iter().find(|name| cells.iter().any(|cell| cell == *name));
                if let (Column::Index(_), Some(name)) = (&*column, name) {
                    *column = Column::from(*name);
                }
            };
            match self.task {
                Task::QuestionAnswering => {
                    by_name(&mut columns.text, &["question"]);
                    columns.text_pair.iter_mut().for_each(|context| by_name(context, &["context"]));
                }
                _ => by_name(&mut columns.text, &TEXT_NAMES),
            }
        }
        // A single column is the text, whatever its name in the recipe.
        if !is_there(&columns.text) && cells.len() == 1 {
            columns.text = Column::Index(0);
        }
        if matches!(columns.text, Column::Name(_)) && self.arguments.text_column.is_none() && !is_there(&columns.text) {
            let expected = "--text-column, or --no-header where the first row is data";
            return Err(self.no_column(&columns.text, ("first row is", cells), expected));
        }
        self.keep_pair(columns, is_there, ("first row is", cells))
    }

    /// Sets the columns for rows that are JSON objects. `keys` are the keys of the first row.
    fn place_in_object(&self, columns: &mut Columns, keys: &[String]) -> anyhow::Result<()> {
        let asks = self.task == Task::QuestionAnswering;
        let place = |column: &Column, usual: &str| -> Column {
            let is_there = |name: &str| keys.iter().any(|key| key == name);
            match column {
                Column::Name(name) if is_there(name) => column.clone(),
                Column::Name(_) if !is_there(usual) => column.clone(),
                _ => Column::from(usual),
            }
        };
        columns.text = match keys {
            [only] => Column::from(only.as_str()),
            _ => place(&columns.text, if asks { "question" } else { "text" }),
        };
        columns.text_pair =
            columns.text_pair.take().map(|pair| place(&pair, if asks { "context" } else { "text_pair" }));
        columns.label = columns.label.take().map(|label| place(&label, "label"));
        let is_there = |column: &Column| matches!(column, Column::Name(name) if keys.contains(name));
        self.keep_pair(columns, is_there, ("keys of the first row are", keys))
    }

    /// Keeps the column of the second text if it is there. For rows with labels and for questions, it is kept in any case,
    /// and a missing one is an error when the rows are read.
    fn keep_pair(
        &self,
        columns: &mut Columns,
        is_there: impl Fn(&Column) -> bool,
        found: (&str, &[String]),
    ) -> anyhow::Result<()> {
        let is_labelled = columns.label.is_some() || !columns.flags.is_empty();
        let Some(pair) =
            columns.text_pair.take_if(|pair| !is_labelled && self.task != Task::QuestionAnswering && !is_there(pair))
        else {
            return Ok(());
        };
        if self.needs_pairs && self.arguments.text_pair_column.is_none() {
            return Err(self.no_column(&pair, found, &format!("--text-pair-column: {TRAINED_ON_PAIRS}")));
        }
        Ok(())
    }

    /// An error for a column that is not in the file. `found` are the words for what is there instead, and its names.
    fn no_column(&self, column: &Column, (what, names): (&str, &[String]), expected: &str) -> anyhow::Error {
        let (file, names) = (&self.input.name, names.join("`, `"));
        UsageError(format!("{file}: there is no column {column}: the {what} `{names}`; expected {expected}")).into()
    }
}

/// The columns that are given by name.
fn named(columns: &Columns) -> Vec<&String> {
    let Columns { text, text_pair, label, flags } = columns;
    fn name(column: &Column) -> Option<&String> {
        match column {
            Column::Name(name) => Some(name),
            Column::Index(_) => None,
        }
    }
    [Some(text), text_pair.as_ref(), label.as_ref()].into_iter().flatten().filter_map(name).chain(flags).collect()
}
