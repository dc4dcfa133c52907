//! The bundled sample, shortened so that a training takes a second.

use std::fs;
use std::path::{Path, PathBuf};

const TRAIN: usize = 320;
const VALIDATION: usize = 100;

/// Writes the sample's recipe and the first of its reviews into an existing folder, and returns the recipe's path. The test
/// split is complete.
pub fn small_sample(folder: &Path) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut recipe = fs::read_to_string(here.join("../../datasets/sample/recipe.toml")).expect("the sample's recipe");
    let files = "../../crates/kiln-sample/files";
    for (name, rows) in [("train.tsv", TRAIN), ("validation.tsv", VALIDATION)] {
        let reviews = fs::read_to_string(here.join("../kiln-sample/files").join(name)).expect("the sample's reviews");
        let first: Vec<&str> = reviews.lines().take(1 + rows).collect();
        fs::write(folder.join(name), first.join("\n")).expect("a small file");
        recipe = recipe.replace(&format!("{files}/{name}"), name);
    }
    let test = here.join("../kiln-sample/files/test.tsv");
    recipe = recipe.replace(&format!("\"{files}/test.tsv\""), &format!("{test:?}"));
    assert!(!recipe.contains(files), "{recipe}");
    let path = folder.join("recipe.toml");
    fs::write(&path, recipe).expect("a small file");
    path
}
