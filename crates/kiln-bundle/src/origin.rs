//! The origin of a model, from its run and its model card.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;
use crate::manifest::Base;

/// The folder of a model, and the files of its run.
#[derive(Debug, Default)]
pub struct Origin {
    /// The folder of the model itself.
    pub model: PathBuf,
    /// The run's report, if there is one.
    pub report: Option<Vec<u8>>,
    /// The recipe that the run saved, if there is one.
    pub recipe: Option<Vec<u8>>,
    /// The base checkpoint of the model.
    pub base: Base,
}

impl Origin {
    /// Reads the origin. `folder` is a model folder, or a run folder with the model in `model/`.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let in_run = folder.join("model");
        let is_run = !folder.join("config.json").exists() && in_run.join("config.json").exists();
        let (run, model) = match is_run {
            true => (folder.to_owned(), in_run),
            false => (folder.join(".."), folder.to_owned()),
        };
        let recipe = read_if_present(&run.join("run.toml"))?;
        // Without a recipe, the parent folder is not a run, and its report does not belong to the model.
        let report = if recipe.is_some() { read_if_present(&run.join("report.json"))? } else { None };
        let source = recipe.as_deref().and_then(source_of);
        let license = license_of(&model)?;
        let license = match (&license, source.as_deref().and_then(|source| source.strip_prefix("dir:"))) {
            (None, Some(checkpoint)) => license_of(Path::new(checkpoint))?,
            _ => license,
        };
        Ok(Self { model, report, recipe, base: Base { source, license } })
    }
}

fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    kiln_files::read_if_present(path).map_err(Error::read(path))
}

/// The value of `model.source` in a recipe.
fn source_of(recipe: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Recipe {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        source: String,
    }
    let recipe: Recipe = toml::from_str(std::str::from_utf8(recipe).ok()?).ok()?;
    Some(recipe.model.source)
}

/// The value of `license` in the front matter of a checkpoint's model card.
fn license_of(folder: &Path) -> Result<Option<String>, Error> {
    let Some(card) = read_if_present(&folder.join("README.md"))? else { return Ok(None) };
    Ok(std::str::from_utf8(&card).ok().and_then(license_in).map(str::to_owned))
}

/// The value of `license:` between the `---` lines at the start of a model card. Only a YAML scalar is read.
fn license_in(card: &str) -> Option<&str> {
    let mut lines = card.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let mut front_matter = lines.take_while(|line| line.trim_end() != "---");
    let license = front_matter.find_map(|line| line.strip_prefix("license:"))?;
    Some(license.trim().trim_matches(['"', '\''])).filter(|license| !license.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_declares_its_licence_in_its_front_matter() {
        assert_eq!(license_in("---\nlanguage: zh\nlicense: apache-2.0\n---\n# BERT\n"), Some("apache-2.0"));
        assert_eq!(license_in("---\nlicense: \"mit\"\n---\n"), Some("mit"));
        for without in ["", "# BERT\nlicense: mit\n", "---\nlicense:\n- mit\n---\n", "---\n---\nlicense: mit\n"] {
            assert_eq!(license_in(without), None, "{without:?}");
        }
    }

    #[test]
    fn a_recipe_names_its_source() {
        let recipe = b"# kiln 0.1.0\ntask = \"masked-lm\"\n[model]\nsource = \"hf:a/b@c\"\n";
        assert_eq!(source_of(recipe).as_deref(), Some("hf:a/b@c"));
        assert_eq!(source_of(b"[model]\n"), None);
    }
}
