//! The command line: what `kiln --help` shows.

mod bundle;
#[cfg(feature = "cluster")]
mod cluster;
mod data;
mod experiments;
mod shared;
#[cfg(feature = "serve")]
mod serve;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kiln::environment::number_on_machine;
use kiln_backend::Backend;
use kiln_dataset::Column;
use kiln_hub::{DatasetFile, Source};

pub use bundle::{BundleArgs, VerifyArgs};
#[cfg(feature = "cluster")]
pub use cluster::{ClusterCommand, ClusterTask, ExecutorArgs, RunArgs as ClusterRunArgs, SchedulerArgs};
pub use data::{AuditArgs, DataCommand, SplitArgs, SuspectsArgs};
pub use experiments::{CompareArgs, ForecastArgs, SweepArgs};
#[cfg(feature = "serve")]
pub use serve::{LimitArgs, ServeArgs};
pub use shared::adapter_folder;
pub use shared::{AdapterArgs, ColumnArgs, HubArgs, ModelArgs, PrecisionArgs, TextArgs};
use shared::{at_least_one, folder_or_source, probability};

#[derive(Debug, Parser)]
#[command(name = "kiln", version, about = "Fine-tune, evaluate and run BERT models, without Python")]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 101 internal error, 141 the reader of stdout \
                        is gone; 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP, once a training is saved."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Compute backend: flex (CPU), or one enabled by a build feature: ndarray (CPU), cuda, wgpu (GPU)
    #[arg(long, global = true, default_value = "flex", value_name = "NAME", help_heading = GLOBAL)]
    pub backend: String,
    /// Index of the backend's device; a CPU has only 0 [default: 0; MPI processes use the devices of a machine in turn]
    #[arg(long, global = true, value_name = "INDEX", help_heading = GLOBAL)]
    device: Option<usize>,
    /// Print results as JSON on stdout
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
}

impl Cli {
    /// The index of the device to compute on. By default, processes that were started together on a machine use its devices
    /// in turn.
    pub fn device<B: Backend>(&self) -> usize {
        self.device.unwrap_or_else(|| number_on_machine() % B::device_count().max(1))
    }
}

/// The heading of the options that every command has.
const GLOBAL: &str = "Options of every command";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run every stage: pull, read, split, tokenize, audit, train, evaluate
    Pipeline(PipelineArgs),
    /// Download a checkpoint or a data set file and print its path
    Pull(PullArgs),
    /// Check or split the data of a recipe, or look for wrong labels in it
    #[command(subcommand)]
    Data(DataCommand),
    /// Train a model, validate it after each epoch, and test the best checkpoint
    Train(TrainArgs),
    /// Compute the metrics of a model on a labelled file
    Eval(EvalArgs),
    /// Predict for a text, a file, or interactively
    Predict(PredictArgs),
    /// Pre-train a masked language model on raw text
    Pretrain(TrainArgs),
    /// Merge an adapter into its base, and write a plain model
    Merge(MergeArgs),
    /// Compute vectors of texts
    Embed(EmbedArgs),
    /// Predict the masked tokens of a text
    FillMask(FillMaskArgs),
    /// Show the tokens of a text: ids, pieces and their characters
    Tokenize(TokenizeArgs),
    /// Build a WordPiece vocabulary from raw text
    Vocabulary(VocabularyArgs),
    /// Bundle a model for serving: one folder with compact weights and a manifest of file hashes
    Bundle(BundleArgs),
    /// Check the files of a bundle against the hashes in its manifest
    Verify(VerifyArgs),
    /// Serve bundles over HTTP, with a page to try them
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Predict or embed any number of Parquet files, on one machine or several
    #[cfg(feature = "cluster")]
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Estimate the time, memory and disk space of a training before running it
    Forecast(ForecastArgs),
    /// Test whether one model is better than another on the same rows
    Compare(CompareArgs),
    /// Train with every combination of the values in a recipe's [sweep], and rank them
    Sweep(SweepArgs),
}

#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// Recipe (TOML); without it, the recipe of the bundled sample
    #[arg(long)]
    pub recipe: Option<PathBuf>,
    /// Which of the bundled sample's tasks to run
    #[arg(long, conflicts_with = "recipe", value_enum, default_value_t)]
    pub task: SampleTask,
    #[command(flatten)]
    pub run: RunArgs,
}

/// A task of the bundled sample.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum SampleTask {
    /// Reviews, negative or positive
    #[default]
    SequenceClassification,
    /// Words in reviews: the rated targets, and the opinions on them
    TokenClassification,
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Recipe (TOML)
    #[arg(long)]
    pub recipe: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
}

/// The options of every training.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Folder for the run; by default the first free runs/NAME-N
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Continue the interrupted run in --out
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Fail if a validation or test text is also in an earlier split
    #[arg(long)]
    pub strict: bool,
    /// Draw the curves of the training in the terminal while it runs
    #[arg(long)]
    pub dashboard: bool,
    /// Serve a page on this machine that shows the training while it runs
    #[cfg(feature = "serve")]
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub set: SetArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// Override a key of the recipe, for example --set train.epochs=5; paths are relative to the working folder
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct PullArgs {
    // In an attribute, because rustdoc would read the brackets as links.
    #[arg(
        help = "hf:owner/name[@revision], modelscope:owner/name[@revision], dir:PATH or sample; or a file of a data set: \
                hf-dataset:owner/name[@revision]/path or modelscope-dataset:owner/name[@revision]/path"
    )]
    pub source: PullSource,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// A source to pull.
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
pub struct EvalArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Labelled file, or - for stdin
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Folder for report.json, report.html and errors.tsv
    #[arg(long)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub columns: ColumnArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    /// Column of the label, by name or index (from 0)
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<Column>,
}

#[derive(Debug, Args)]
pub struct PredictArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub texts: TextArgs,
    /// Keep only the COUNT best labels, or candidates for a mask; by default all labels and 5 candidates
    #[arg(long, value_name = "COUNT", value_parser = at_least_one)]
    pub top_k: Option<usize>,
    /// Return probabilities without the model's calibration
    #[arg(long)]
    pub raw: bool,
    /// Predict no label (null in JSON) if its probability is below SCORE
    #[arg(long, value_name = "SCORE", value_parser = probability)]
    pub min_score: Option<f64>,
}

#[derive(Debug, Args)]
pub struct FillMaskArgs {
    /// Folder of a masked language model or of its run, or a source as in `kiln pull`
    #[arg(long, value_parser = folder_or_source, default_value = "sample")]
    pub model: Source,
    #[command(flatten)]
    pub adapter: AdapterArgs,
    #[command(flatten)]
    pub hub: HubArgs,
    #[command(flatten)]
    pub texts: TextArgs,
    /// Number of candidates for each mask
    #[arg(long, visible_alias = "top-k", value_name = "COUNT", value_parser = at_least_one, default_value_t = 5)]
    pub top: usize,
}

#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Folder of the base, or a source as in `kiln pull`
    #[arg(long, value_parser = folder_or_source)]
    pub model: Source,
    /// Folder of the adapter, from Kiln or peft, or of a run that has one
    #[arg(long, value_name = "FOLDER")]
    pub adapter: PathBuf,
    /// Folder for the model
    #[arg(long)]
    pub out: PathBuf,
    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Debug, Args)]
pub struct VocabularyArgs {
    /// Raw text: a .txt file, or the text column of any other format; may be repeated
    #[arg(long, required = true)]
    pub file: Vec<PathBuf>,
    /// Folder for tokenizer.json, vocab.txt and tokenizer_config.json
    #[arg(long)]
    pub out: PathBuf,
    /// Maximum number of tokens
    #[arg(long, default_value_t = 21_128)]
    pub size: usize,
    /// Minimum number of occurrences of a character or a pair of tokens to become a token
    #[arg(long, default_value_t = 2)]
    pub min_count: u64,
    /// Keep upper case and accents
    #[arg(long)]
    pub cased: bool,
    /// Column of the text, by name or index (from 0)
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<Column>,
}

#[derive(Debug, Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A text, which may start with a hyphen; its vector is printed as JSON
    #[arg(long, allow_hyphen_values = true, conflicts_with = "file")]
    pub text: Option<String>,
    /// A second text: print the cosine similarity of both vectors instead
    #[arg(long, allow_hyphen_values = true, requires = "text", conflicts_with = "file")]
    pub text_pair: Option<String>,
    /// A file of any length, or - for stdin; a .txt file has one text per line; blank lines are skipped
    #[arg(long, requires = "out")]
    pub file: Option<PathBuf>,
    /// File for the vectors: .parquet with the columns text and embedding, or .npy
    #[arg(long, requires = "file", conflicts_with = "text")]
    pub out: Option<PathBuf>,
    /// How the hidden states of a text are pooled into one vector; by default as the checkpoint's sentence-transformers
    /// files or the bundle say, otherwise mean
    #[arg(long, value_enum)]
    pub pooling: Option<Pooled>,
    /// Scale each vector to length 1, also where the model's files do not say so
    #[arg(long)]
    pub normalize: bool,
    #[command(flatten)]
    pub columns: ColumnArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
}

#[derive(Debug, Args)]
pub struct TokenizeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A text, which may start with a hyphen
    #[arg(long, allow_hyphen_values = true, conflicts_with = "file")]
    pub text: Option<String>,
    /// The second text of a pair
    #[arg(long, allow_hyphen_values = true, requires = "text", conflicts_with = "file")]
    pub text_pair: Option<String>,
    /// A file of any length, or - for stdin; with --json, one object per text
    #[arg(long)]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub columns: ColumnArgs,
}

/// [`kiln_heads::Pooling`] on a command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Pooled {
    /// The first token's hidden state
    Cls,
    /// The mean over all tokens
    Mean,
    /// The checkpoint's pooler on the first token
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn columns_are_names_or_indices() {
        let columns = |arguments: &[&str]| {
            let given = ["kiln", "predict", "--model", "sample", "--file", "x"].iter().chain(arguments);
            match Cli::try_parse_from(given).expect("a good command line").command {
                Command::Predict(PredictArgs { texts, .. }) => texts.columns.text_column,
                _ => panic!("it says predict"),
            }
        };
        assert_eq!(columns(&["--text-column", "0"]), Some(Column::Index(0)));
        assert_eq!(columns(&["--text-column", "review"]), Some(Column::Name("review".to_owned())));
    }
}
