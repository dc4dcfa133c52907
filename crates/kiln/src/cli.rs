//! The command line: what `kiln --help` shows.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use kiln_dataset::Column;
use kiln_hub::{DatasetFile, Location, Source};

use crate::recipe::Precision;

#[derive(Debug, Parser)]
#[command(name = "kiln", version, about = "Fine-tune, test and run BERT, without Python")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Compute backend: flex, ndarray, cuda or wgpu, as far as compiled in
    #[arg(long, global = true, default_value = "flex", value_name = "NAME")]
    pub backend: String,
    /// Index of the backend's device
    #[arg(long, global = true, default_value_t = 0, value_name = "INDEX")]
    pub device: usize,
    /// Print results as one JSON object on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole way: pull, read, split, tokenize, audit, train, evaluate
    Pipeline(PipelineArgs),
    /// Fetch a checkpoint or a data set's file, and print its folder or path
    Pull(PullArgs),
    /// Look at or divide the data of a recipe
    #[command(subcommand)]
    Data(DataCommand),
    /// Train, validate after each epoch, test the best checkpoint, write the run's folder
    Train(TrainArgs),
    /// Metrics of a labelled file
    Eval(EvalArgs),
    /// Answer for a text, a file or, with neither, what one types
    Predict(PredictArgs),
    /// Tell the tokens that are masked in a text
    FillMask(FillMaskArgs),
    /// Train on raw text: masked tokens and next sentences
    Pretrain(TrainArgs),
    /// Make a WordPiece vocabulary of raw text
    Vocabulary(VocabularyArgs),
    /// Turn texts into vectors
    Embed(EmbedArgs),
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Duplicates, leaks, contradictions, balance and lengths
    Audit(AuditArgs),
    /// Write the splits as JSON Lines
    Split(SplitArgs),
}

#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// TOML file; without one, the embedded sample
    #[arg(long)]
    pub recipe: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// TOML file
    #[arg(long)]
    pub recipe: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What every training takes.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Folder of the run; without one, the next free runs/NAME-N
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Go on with the interrupted run in --out
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Fail when texts of validation or test stand in train
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub set: SetArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// Override a key of the recipe, as in --set train.epochs=5
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct HubArgs {
    /// Root of the cache of checkpoints and data sets
    #[arg(long)]
    pub cache_dir: Option<PathBuf>,
    /// Make no call to any hub
    #[arg(long)]
    pub offline: bool,
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// hf:owner/name or modelscope:owner/name, either with @revision behind it; dir:PATH; sample; or
    /// hf-dataset:owner/name/path or modelscope-dataset:owner/name/path, either with @revision behind the name
    pub source: PullSource,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// What there is to pull.
#[derive(Clone, Debug)]
pub enum PullSource {
    Checkpoint(Source),
    File(DatasetFile),
}

impl FromStr for PullSource {
    type Err = kiln_hub::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match DatasetFile::is_meant(text) {
            true => text.parse().map(Self::File),
            false => text.parse().map(Self::Checkpoint),
        }
    }
}

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// TOML file
    #[arg(long)]
    pub recipe: PathBuf,
    /// Fail when texts of validation or test stand in train
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub set: SetArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Debug, Args)]
pub struct SplitArgs {
    /// TOML file
    #[arg(long)]
    pub recipe: PathBuf,
    /// Folder for train.jsonl, validation.jsonl and test.jsonl
    #[arg(long)]
    pub out: PathBuf,
    #[command(flatten)]
    pub set: SetArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Labelled file
    #[arg(long)]
    pub data: PathBuf,
    /// Folder for report.json, report.html and errors.tsv
    #[arg(long)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub columns: ColumnArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    /// Column of the label, by name or index
    #[arg(long)]
    pub label: Option<Column>,
}

#[derive(Debug, Args)]
pub struct PredictArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub texts: TextArgs,
}

/// A model, by where it is.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Model folder, or a source as `kiln pull` takes it
    #[arg(long, value_parser = folder_or_source)]
    pub model: Source,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// What is on disk comes first, so a folder that is called `sample` is that folder.
fn folder_or_source(text: &str) -> Result<Source, String> {
    match Path::new(text).is_dir() {
        true => Ok(Source::Location(Location::Directory(text.into()))),
        false => text.parse().map_err(|error| format!("there is no such folder, and {error}")),
    }
}

/// What is asked of a model.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// One text; a hyphen may begin it
    #[arg(long, allow_hyphen_values = true, conflicts_with = "file")]
    pub text: Option<String>,
    /// Its second text
    #[arg(long, allow_hyphen_values = true, requires = "text")]
    pub text_pair: Option<String>,
    /// A file of texts, of any length
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Where the answers to --file go, as JSON Lines; without it, stdout
    #[arg(long, requires = "file")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub columns: ColumnArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
}

#[derive(Debug, Args)]
pub struct FillMaskArgs {
    /// Folder of a masked language model, or a source as `kiln pull` takes it
    #[arg(long, value_parser = folder_or_source, default_value = "sample")]
    pub model: Source,
    #[command(flatten)]
    pub hub: HubArgs,
    #[command(flatten)]
    pub texts: TextArgs,
    /// Tokens told of each mask
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub top: usize,
}

#[derive(Debug, Args)]
pub struct VocabularyArgs {
    /// Raw text: .txt, or any format of labelled files, whose text column is read; may be given several times
    #[arg(long, required = true)]
    pub file: Vec<PathBuf>,
    /// Folder for tokenizer.json, vocab.txt and tokenizer_config.json
    #[arg(long)]
    pub out: PathBuf,
    /// Tokens, at most
    #[arg(long, default_value_t = 21_128)]
    pub size: usize,
    /// How often a character or a pair of tokens must occur to become a token
    #[arg(long, default_value_t = 2)]
    pub min_count: u64,
    /// Keep upper case and accents
    #[arg(long)]
    pub cased: bool,
    /// Column of the text, by name or index
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<Column>,
}

#[derive(Debug, Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// One text, whose vector is printed as JSON; a hyphen may begin it
    #[arg(long, allow_hyphen_values = true, conflicts_with = "file")]
    pub text: Option<String>,
    /// Another, whose cosine with the first is printed instead
    #[arg(long, allow_hyphen_values = true, requires = "text")]
    pub text_pair: Option<String>,
    /// A file of texts, of any length
    #[arg(long, requires = "out")]
    pub file: Option<PathBuf>,
    /// Where its vectors go: .parquet with columns text and embedding, or .npy
    #[arg(long, requires = "file")]
    pub out: Option<PathBuf>,
    /// What of the hidden states makes the vector
    #[arg(long, value_enum, default_value_t = Pooled::Mean)]
    pub pooling: Pooled,
    /// Divide each vector by its length
    #[arg(long)]
    pub normalize: bool,
    #[command(flatten)]
    pub columns: ColumnArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
}

/// [`kiln_heads::Pooling`] on a command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Pooled {
    Cls,
    Mean,
    Pooler,
}

impl From<Pooled> for kiln_heads::Pooling {
    fn from(pooled: Pooled) -> Self {
        match pooled {
            Pooled::Cls => Self::Cls,
            Pooled::Mean => Self::Mean,
            Pooled::Pooler => Self::Pooler,
        }
    }
}

#[derive(Debug, Args)]
pub struct PrecisionArgs {
    /// What the operands of the encoder's products are rounded to; bf16 and int8 on backend flex alone
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
}

/// How a file is read where that is not as in the recipe beside the model.
#[derive(Debug, Args)]
pub struct ColumnArgs {
    /// Column of the text, by name or index
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<Column>,
    /// Column of the second text, by name or index
    #[arg(long, value_name = "COLUMN")]
    pub text_pair_column: Option<Column>,
    /// The first line of the csv or tsv file names the columns
    #[arg(long)]
    pub header: bool,
    /// csv, tsv, jsonl, parquet or arrow; from the ending when left out
    #[arg(long)]
    pub format: Option<String>,
}

/// A wrong use of the command line that clap cannot see.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
