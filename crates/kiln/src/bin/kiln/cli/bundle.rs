//! The options of `kiln bundle` and `kiln verify`.

use std::path::PathBuf;

use clap::Args;
use kiln::recipe::Precision;
use kiln_dataset::Column;

use super::{ColumnArgs, ModelArgs};

#[derive(Debug, Args)]
pub struct BundleArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Folder of the bundle; must not exist, or be empty
    #[arg(long)]
    pub out: PathBuf,
    /// Precision of the bundle's weights and matrix products
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// File of texts, as for `kiln predict --file`, to calibrate int8 on (SmoothQuant); at most 256 of them are used
    #[arg(long, value_name = "FILE")]
    pub calibrate: Option<PathBuf>,
    /// With --calibrate: use a fixed activation scale for each layer, measured on those texts, instead of one per row
    #[arg(long, requires = "calibrate")]
    pub static_scales: bool,
    /// Labelled file to compare the bundle with the model in f32
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
    /// Maximum loss of the metric in points (hundredths); with a larger loss, nothing is written
    #[arg(long, value_name = "POINTS", requires = "check", value_parser = points, default_value_t = 0.5)]
    pub max_loss: f64,
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// Column of the label in --check, by name or index (from 0)
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<Column>,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Folder of a bundle
    pub bundle: PathBuf,
}

fn points(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(points) if points.is_finite() && points >= 0.0 => Ok(points),
        _ => Err("expected a number of at least 0".to_owned()),
    }
}
