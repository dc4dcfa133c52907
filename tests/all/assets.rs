//! The folder of reference models, data and numbers: `KILN_ASSETS`, by default `../shared` next to the checkout.
//! Without it, a test that needs it prints a message and passes, unless `KILN_REQUIRE_ASSETS=1`.

use std::path::{Path, PathBuf};

#[allow(clippy::print_stderr, reason = "a test that does not run says so")]
pub fn assets() -> Option<PathBuf> {
    let mut parents = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let workspace = parents.find(|folder| folder.join("Cargo.lock").is_file()).expect("a test runs in the checkout");
    let folder = std::env::var_os("KILN_ASSETS").map_or_else(|| workspace.join("../shared"), PathBuf::from);
    if folder.join("reference").is_dir() {
        return Some(folder);
    }
    let required = std::env::var_os("KILN_REQUIRE_ASSETS").is_some_and(|value| value == "1");
    assert!(!required, "KILN_REQUIRE_ASSETS=1, and {} is not there", folder.display());
    eprintln!("skipped: {} is not there; KILN_ASSETS names the folder", folder.display());
    None
}

/// The models with reference numbers.
pub const MODELS: [&str; 2] = ["all-MiniLM-L6-v2", "multilingual-e5-small-zh"];
