use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_bundle::is_bundle;
use kiln_dataset::Source;
use kiln_eval::{Judged, Page, Report};
use kiln_predict::Predictor;
use kiln_schema::Split;

use crate::recipe::Recipe;
use crate::stages::save::write_report;
use crate::tasks::{Scored, score};
use crate::{Error, Observer};

/// The scores of a model on a labelled file.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The scores, reported as a test split.
    pub report: Report,
    /// The model's errors, as tab-separated values with a header.
    pub errors: String,
    /// The model's result for each row, for a comparison with another model; `None` for raw text.
    pub judged: Option<Judged>,
}

impl Evaluated {
    /// Writes `report.json`, `report.html` and `errors.tsv` into a folder that exists.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let page =
            Page { report: &self.report, epochs: &[], errors: &self.errors, audit: "", settings: "", machine: "" };
        Ok(write_report(folder, page)?)
    }
}

/// Scores a model on a labelled file, or a masked language model on raw text. `folder` is the model's folder, and
/// `predictor` is the same model loaded on `device`.
///
/// # Errors
/// When the file cannot be read or has labels that the model does not have, or when a logit is not finite.
pub fn evaluate<B: Backend>(
    predictor: &Predictor,
    folder: &Path,
    source: Source,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Evaluated, Error> {
    let mut scored = || {
        let language = recipe_beside(folder)?.and_then(|recipe| recipe.data.answer_language);
        score(predictor, source.clone(), language, device, observer)
    };
    let Scored { report, judgement } = scored().map_err(Error::from)?;
    let report = Report {
        task: predictor.task(),
        model: folder.display().to_string(),
        backend: B::NAME.to_owned(),
        splits: BTreeMap::from([(Split::Test, report)]),
        train: None,
    };
    Ok(Evaluated { report, errors: judgement.errors, judged: judgement.judged })
}

/// The recipe of the run that a model's folder is part of, or the recipe inside a bundle, if there is one.
///
/// # Errors
/// When the recipe cannot be read or is not valid in this version.
pub fn recipe_beside(model: &Path) -> Result<Option<Recipe>, crate::RecipeError> {
    let recipe = model.join(if is_bundle(model) { "run.toml" } else { "../run.toml" });
    Ok(if recipe.is_file() { Some(Recipe::load(&recipe, &[])?) } else { None })
}
