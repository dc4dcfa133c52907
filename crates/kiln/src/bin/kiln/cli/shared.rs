//! Options that several commands take.

use std::path::{Path, PathBuf};

use clap::Args;
use kiln::environment::HubOptions;
use kiln::recipe::Precision;
use kiln_dataset::Column;
use kiln_hub::{Location, Source};

#[derive(Debug, Args)]
pub struct HubArgs {
    /// Cache folder for checkpoints and data sets
    #[arg(long)]
    pub cache_dir: Option<PathBuf>,
    /// Use only what is in the cache; make no network request
    #[arg(long)]
    pub offline: bool,
}

impl HubArgs {
    pub fn options(&self) -> HubOptions {
        HubOptions { cache_dir: self.cache_dir.clone(), offline: self.offline }
    }
}

/// The location of a model.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Folder of a model or of a run, or a source as in `kiln pull`
    #[arg(long, value_parser = folder_or_source)]
    pub model: Source,
    #[command(flatten)]
    pub adapter: AdapterArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// The location of an adapter.
#[derive(Debug, Args)]
pub struct AdapterArgs {
    /// Folder of an adapter of the model, from Kiln or peft, or of a run that has one
    #[arg(long, value_name = "FOLDER")]
    pub adapter: Option<PathBuf>,
}

impl AdapterArgs {
    /// The adapter's folder, which may be inside a run's folder.
    pub fn folder(&self) -> Option<PathBuf> {
        self.adapter.as_deref().map(adapter_folder)
    }
}

/// The adapter in the folder of a run; any other folder is returned unchanged.
pub fn adapter_folder(folder: &Path) -> PathBuf {
    let in_run = folder.join("adapter");
    let is_run = !folder.join("adapter_config.json").exists() && in_run.join("adapter_config.json").exists();
    if is_run { in_run } else { folder.to_owned() }
}

/// Parses a folder or a source. Folders take precedence: an existing folder called `sample` is that folder.
pub fn folder_or_source(text: &str) -> Result<Source, String> {
    match Path::new(text).is_dir() {
        true => Ok(Source::Location(Location::Directory(text.into()))),
        false => text.parse().map_err(|error| format!("there is no such folder; {error}")),
    }
}

pub fn at_least_one(text: &str) -> Result<usize, String> {
    at_least(1, text)
}

pub fn at_least_two(text: &str) -> Result<usize, String> {
    at_least(2, text)
}

pub fn probability(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

fn at_least(least: usize, text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number >= least).ok_or(format!("expected a whole number of at least {least}"))
}

/// The texts to process, and how.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// A text, which may start with a hyphen
    #[arg(long, allow_hyphen_values = true, conflicts_with = "file")]
    pub text: Option<String>,
    /// The second text of a pair, or the context of a question
    #[arg(long, allow_hyphen_values = true, requires = "text", conflicts_with = "file")]
    pub text_pair: Option<String>,
    /// A file of any length, or - for stdin; a .txt file has one text per line; blank lines are skipped
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// File for the predictions of --file, as JSON Lines; by default, or with -, stdout
    #[arg(long, requires = "file", conflicts_with = "text")]
    pub out: Option<PathBuf>,
    /// Number of texts in a batch
    #[arg(long, value_name = "COUNT", value_parser = at_least_one, default_value_t = 32)]
    pub batch_size: usize,
    #[command(flatten)]
    pub columns: ColumnArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
}

#[derive(Debug, Args)]
pub struct PrecisionArgs {
    /// Precision of the encoder's products; by default f32, or the bundle's own; bf16 needs backend flex or cuda, int8 flex
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
}

/// How to read a file, if its format and the recipe next to the model do not determine it.
#[derive(Debug, Default, Args)]
pub struct ColumnArgs {
    /// Column of the text, by name or index (from 0)
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<Column>,
    /// Column of the second text, by name or index (from 0)
    #[arg(long, value_name = "COLUMN")]
    pub text_pair_column: Option<Column>,
    /// The first row of a csv or tsv file names the columns
    #[arg(long, conflicts_with = "no_header")]
    pub header: bool,
    /// The first row of a csv or tsv file is data
    #[arg(long)]
    pub no_header: bool,
    /// csv, tsv, jsonl, parquet, arrow, conll, squad or text (one text per line); by default from the file's extension
    #[arg(long)]
    pub format: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_at_least_one() {
        assert_eq!(at_least_one("7"), Ok(7));
        for text in ["0", "-1", "1.5", "many", ""] {
            assert!(at_least_one(text).is_err(), "{text}");
        }
        assert_eq!(
            (probability("0.5"), probability("1.5").is_err(), probability("NaN").is_err()),
            (Ok(0.5), true, true)
        );
        assert_eq!((at_least_two("2"), at_least_two("1").is_err()), (Ok(2), true));
    }
}
