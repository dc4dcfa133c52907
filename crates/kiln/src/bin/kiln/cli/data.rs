use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{HubArgs, SetArgs};

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Report duplicates, leaks between splits, contradictory labels, label balance and text lengths
    Audit(AuditArgs),
    /// Write the splits of rows with one label each as JSON Lines
    Split(SplitArgs),
    /// Find labels that are likely wrong: cross-validate, and check each row with a model that was not trained on it
    Suspects(SuspectsArgs),
}

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Recipe (TOML)
    #[arg(long)]
    pub recipe: PathBuf,
    /// Fail if a validation or test text is also in an earlier split
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub set: SetArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Debug, Args)]
pub struct SplitArgs {
    /// Recipe (TOML)
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
pub struct SuspectsArgs {
    /// Recipe (TOML)
    #[arg(long)]
    pub recipe: PathBuf,
    /// TSV file for the training rows, the suspect ones first; after corrections, use it as the recipe's data.train
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Number of folds; one training is run for each
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = super::shared::at_least_two)]
    pub folds: usize,
    #[command(flatten)]
    pub set: SetArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}
