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
    /// Folder of the bundle; nothing may be there
    #[arg(long)]
    pub out: PathBuf,
    /// Precision of the bundle's weights and of its products
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Texts, as `kiln predict --file` reads them, on which int8 is calibrated (SmoothQuant); 256 of the file at most
    #[arg(long, value_name = "FILE")]
    pub calibrate: Option<PathBuf>,
    /// With --calibrate: fix the scale of what each layer reads by those texts, instead of row by row
    #[arg(long, requires = "calibrate")]
    pub static_scales: bool,
    /// Labelled file on which the bundle is compared with the model in f32
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
    /// Most points, hundredths of the metric, that the bundle may lose; with a larger loss nothing is written
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
