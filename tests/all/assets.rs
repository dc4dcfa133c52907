//! Where reference models, data and numbers are: `KILN_ASSETS`, by default `../shared` beside the checkout.
//! Without them a test that needs them says so and passes, unless `KILN_REQUIRE_ASSETS=1`.

use std::path::PathBuf;

#[allow(clippy::print_stderr, reason = "a test that does not run says so")]
pub fn assets() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let folder = PathBuf::from(std::env::var_os("KILN_ASSETS").unwrap_or_else(|| default.into()));
    if folder.join("reference").is_dir() {
        return Some(folder);
    }
    let required = std::env::var_os("KILN_REQUIRE_ASSETS").is_some_and(|value| value == "1");
    assert!(!required, "KILN_REQUIRE_ASSETS=1, and {} is not there", folder.display());
    eprintln!("skipped: {} is not there; KILN_ASSETS names the folder", folder.display());
    None
}

/// The models that have reference numbers.
pub const MODELS: [&str; 2] = ["all-MiniLM-L6-v2", "multilingual-e5-small-zh"];
