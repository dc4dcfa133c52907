//! The options of `kiln forecast`, `kiln compare` and `kiln sweep`.

use std::path::PathBuf;

use clap::Args;
use kiln_dataset::Column;
use kiln_hub::Source;

use super::shared::folder_or_source;
use super::{ColumnArgs, HubArgs, PrecisionArgs, SetArgs};

#[derive(Debug, Args)]
pub struct ForecastArgs {
    /// Recipe (TOML)
    #[arg(long)]
    pub recipe: PathBuf,
    #[command(flatten)]
    pub set: SetArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folder of a model or of a run, or a source as in `kiln pull`
    #[arg(value_parser = folder_or_source)]
    pub a: Source,
    /// The model to compare it with
    #[arg(value_parser = folder_or_source)]
    pub b: Source,
    #[command(flatten)]
    pub hub: HubArgs,
    /// Labelled file, or - for stdin; without it, the test file of A's recipe
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// TSV file for the rows that only one of the models has right
    #[arg(long, value_name = "FILE")]
    pub changed: Option<PathBuf>,
    #[command(flatten)]
    pub columns: ColumnArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    /// Column of the label, by name or index (from 0)
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<Column>,
}

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Recipe (TOML) with a [sweep]
    #[arg(long)]
    pub recipe: PathBuf,
    /// Folder for the tables, the HTML page and the runs
    #[arg(long)]
    pub out: PathBuf,
    /// Continue the interrupted sweep in --out
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub set: SetArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}
