//! How the file given on a command line is read: its format, its header and its columns.
//!
//! The command line takes precedence. Then the file's own format decides. From the recipe next to the model, only columns
//! that the file has are used.

mod choice;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kiln::{Recipe, UsageError, recipe_beside};
use kiln_dataset::{Column, Columns, Format, Row, Source, UNIT_COLUMNS, head, read, rows};
use kiln_schema::{Question, TaggedText, Task};
use tempfile::TempDir;

use crate::cli::ColumnArgs;
use crate::console;
use choice::{Choice, TRAINED_ON_PAIRS};

/// A file to read.
#[derive(Debug)]
pub struct Input {
    pub source: Source,
    /// The file's name in messages.
    name: String,
    /// The temporary folder of a copy, for an input that can be read only once.
    copied: Option<TempDir>,
}

/// Rows without labels.
type Texts = Box<dyn Iterator<Item = anyhow::Result<Row>>>;

impl Input {
    /// Texts or pairs of texts. `model` is the model's folder. `task` is the task of the head that reads the texts; without
    /// one, for vectors and tokens, single texts are as good as pairs.
    pub fn texts(model: &Path, file: &Path, arguments: &ColumnArgs, task: Option<Task>) -> anyhow::Result<Self> {
        let input = Self::open(file)?;
        let recipe = recipe_beside(model)?;
        let needs_pairs = task == Some(Task::SequenceClassification);
        let task = task.unwrap_or(Task::SequenceClassification);
        let choice = Choice { input: &input, recipe: recipe.as_ref(), arguments, task, needs_pairs };
        let source = choice.for_texts()?;
        Ok(Self { source, ..input })
    }

    /// Rows with labels, which are in the column `label` if it is given.
    pub fn labelled(model: &Path, file: &Path, arguments: &ColumnArgs, label: Option<&Column>) -> anyhow::Result<Self> {
        let input = Self::open(file)?;
        let recipe = recipe_beside(model)?;
        let task = recipe.as_ref().map_or(Task::SequenceClassification, |recipe| recipe.task);
        let choice = Choice { input: &input, recipe: recipe.as_ref(), arguments, task, needs_pairs: true };
        let source = choice.for_labels(label)?;
        Ok(Self { source, ..input })
    }

    /// Opens the file. Standard input (`-`) and pipes are copied, because a reader may open a file more than once.
    fn open(file: &Path) -> anyhow::Result<Self> {
        let columns = Columns { text: Column::Index(0), text_pair: None, label: None, flags: vec![] };
        let is_stdin = file == Path::new("-");
        let is_special = |metadata: fs::Metadata| !metadata.is_file() && !metadata.is_dir();
        // `/dev/stdin` may refer to a file, but can still be read only once.
        let is_descriptor = ["/dev/stdin", "/dev/fd", "/proc/self/fd"].iter().any(|path| file.starts_with(path));
        let is_pipe = is_descriptor || fs::metadata(file).is_ok_and(is_special);
        if !is_stdin && !is_pipe {
            let name = file.display().to_string();
            return Ok(Self { source: Source::new(file, columns), name, copied: None });
        }
        let (name, copy) = if is_stdin {
            ("standard input".to_owned(), copy(&mut io::stdin().lock(), Path::new("standard-input")))
        } else {
            let reader = fs::File::open(file).with_context(|| format!("{}: cannot be opened", file.display()))?;
            (file.display().to_string(), copy(&mut { reader }, file))
        };
        let (folder, path) = copy.with_context(|| format!("{name} cannot be read"))?;
        Ok(Self { source: Source::new(path, columns), name, copied: Some(folder) })
    }

    fn is_copy_without_ending(&self) -> bool {
        self.copied.is_some() && self.source.path.extension().is_none()
    }

    /// Iterates over the texts.
    pub fn rows(&self) -> anyhow::Result<Texts> {
        let sources = std::slice::from_ref(&self.source);
        Ok(match self.source.format()? {
            Format::Conll => {
                let texts = self.tagged()?.unwrap_or_default();
                let row = |(at, text): (usize, TaggedText)| Ok(row_of(text.text, None, at));
                Box::new(texts.into_iter().enumerate().map(row))
            }
            Format::Squad => {
                let (questions, _) = read::<Question>(sources, None)?;
                let row = |(at, asked): (usize, Question)| Ok(row_of(asked.question, Some(asked.context), at));
                Box::new(questions.into_iter().enumerate().map(row))
            }
            _ => Box::new(rows(&self.source)?.map(|row| Ok(row?))),
        })
    }

    /// The texts of a file that divides them into units to tag; none for other files.
    pub fn tagged(&self) -> anyhow::Result<Option<Vec<TaggedText>>> {
        let has_units = match self.source.format()? {
            Format::Conll => true,
            Format::Jsonl | Format::Parquet | Format::Arrow => {
                let names = head(&self.source)?.unwrap_or_default();
                let is_of_units = |name: &String| UNIT_COLUMNS.contains(&name.as_str());
                let has_text =
                    |text: &Column| matches!(text, Column::Name(name) if names.contains(name) && !is_of_units(name));
                names.iter().any(is_of_units) && !has_text(&self.source.columns.text)
            }
            _ => false,
        };
        if !has_units {
            return Ok(None);
        }
        let (texts, _) = read::<TaggedText>(std::slice::from_ref(&self.source), None)?;
        Ok(Some(texts))
    }

    /// Whether each row is one line, so that the other lines are blank. Rows of CSV may have several lines.
    fn has_a_line_for_each_row(&self) -> anyhow::Result<bool> {
        Ok(matches!(self.source.format()?, Format::Text | Format::Tsv | Format::Jsonl))
    }

    /// Passes all rows to `each`, up to `rows_at_a_time` at once, and returns their number. Blank
    /// lines are skipped.
    pub fn for_each_chunk(
        &self,
        rows_at_a_time: usize,
        mut each: impl FnMut(&[(&str, Option<&str>)]) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let mut rows = self.rows()?;
        let (mut count, mut last_line) = (0, 0);
        loop {
            let chunk: Vec<Row> = rows.by_ref().take(rows_at_a_time).collect::<Result<_, _>>()?;
            let Some(last) = chunk.last() else { break };
            last_line = last.line as usize;
            let texts: Vec<(&str, Option<&str>)> =
                chunk.iter().map(|row| (row.text.as_str(), row.text_pair.as_deref())).collect();
            each(&texts)?;
            count += chunk.len();
        }
        if count == 0 {
            bail!("{}: there are no rows", self.name);
        }
        if self.has_a_line_for_each_row()? {
            let skipped = last_line.saturating_sub(count + usize::from(self.source.header));
            if skipped > 0 {
                console::log(format_args!("{}: skipped {}", self.name, console::counted(skipped, "blank line")));
            }
        }
        Ok(count)
    }
}

/// Warns of a single text for a model that was trained on pairs, as its recipe shows. Without a recipe, there is no warning.
pub fn warn_of_single_text(model: &Path) {
    let recipe = recipe_beside(model).ok().flatten();
    let is_pair =
        |recipe: &Recipe| recipe.task == Task::SequenceClassification && recipe.data.columns.text_pair.is_some();
    if recipe.as_ref().is_some_and(is_pair) {
        console::warn(format_args!("there is no --text-pair, but {TRAINED_ON_PAIRS}"));
    }
}

/// Refuses an output that is the same file as an input, also through links. Called before either is opened.
pub fn refuse_to_overwrite(out: &Path, inputs: &[PathBuf]) -> anyhow::Result<()> {
    match inputs.iter().find(|input| kiln_files::is_same_file(input, out)) {
        Some(input) => bail!(UsageError(format!(
            "{}: the output is the same file as the input {}; choose another --out",
            out.display(),
            input.display()
        ))),
        None => Ok(()),
    }
}

fn row_of(text: String, text_pair: Option<String>, at: usize) -> Row {
    Row { text, text_pair, label: None, labels: None, line: at as u64 + 1 }
}

/// Copies the input to a file with the name of `file`, in a temporary folder that is deleted when dropped.
fn copy(reader: &mut dyn Read, file: &Path) -> io::Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(file.file_name().unwrap_or("input".as_ref()));
    io::copy(reader, &mut fs::File::create(&path)?)?;
    Ok((folder, path))
}
