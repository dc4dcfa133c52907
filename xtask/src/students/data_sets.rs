//! The data sets on which students are measured: recipes, settings and how the rows are divided.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The settings that all recipes share. `{test}` is a placeholder for the test file.
const RECIPE: &str = r#"
model.source = "dir:{assets}/models/multilingual-e5-small-zh"
model.encoder = "full"
train.precision = "bf16"
data.test = "{assets}/{test}"
"#;

/// The settings of a data set whose rows are divided.
const DIVIDED: &str = r#"
data.train = "{folder}/train.tsv"
data.validation = "{folder}/validation.tsv"
data.header = false
"#;

pub struct DataSet {
    pub name: &'static str,
    /// Its folder in `data`.
    pub key: &'static str,
    /// The name of the score in `report.json`.
    pub score: &'static str,
    /// The rest of its recipe, with `{assets}` and `{folder}` as placeholders for folders.
    recipe: &'static str,
    /// The test file, in the folder of assets.
    pub test: &'static str,
    /// The file whose rows are divided, and how.
    division: Option<(&'static str, Division)>,
    pub teacher: &'static [&'static str],
    /// The settings of students of six layers, and of three.
    pub students: [&'static [&'static str]; 2],
    pub seeds: &'static [u64],
}

/// How many rows of a file keep their labels; the remaining rows become texts without labels.
#[derive(Clone, Copy)]
struct Division {
    labelled: usize,
    validation: usize,
}

pub static DATA_SETS: [DataSet; 3] = [
    DataSet {
        name: "ChnSentiCorp",
        key: "chnsenticorp",
        score: "accuracy",
        recipe: r#"
task = "sequence-classification"
model.pooling = "mean"
data.text = 0
data.label = 1
train.metric = "accuracy"
train.batch_size = 16
"#,
        test: "data/chnsenticorp/dev.tsv",
        division: Some(("data/chnsenticorp/train.tsv", Division { labelled: 4_000, validation: 600 })),
        teacher: &["train.epochs=2", "train.learning_rate=5e-5"],
        students: [&["train.epochs=3", "train.learning_rate=1e-4"]; 2],
        seeds: &[1, 2, 3],
    },
    DataSet {
        name: "résumés",
        key: "resume-ner",
        score: "entity_f1",
        recipe: r#"
task = "token-classification"
data.train = "{assets}/data/resume-ner/train.char.bmes"
data.validation = "{assets}/data/resume-ner/dev.char.bmes"
data.format = "conll"
train.metric = "entity_f1"
train.batch_size = 16
train.max_length = 192
"#,
        test: "data/resume-ner/test.char.bmes",
        division: None,
        teacher: &["train.epochs=3", "train.learning_rate=2e-4"],
        students: [&["train.epochs=10", "train.learning_rate=4e-4"]; 2],
        seeds: &[1, 2, 3],
    },
    DataSet {
        name: "AFQMC",
        key: "afqmc",
        score: "macro_f1",
        recipe: r#"
task = "sequence-classification"
model.pooling = "mean"
data.format = "tsv"
data.text = 0
data.text_pair = 1
data.label = 2
train.metric = "macro_f1"
train.batch_size = 32
"#,
        test: "data/afqmc/dev.txt",
        division: Some(("data/afqmc/train.txt", Division { labelled: 33_334, validation: 1_000 })),
        teacher: &["train.epochs=4", "train.learning_rate=5e-5"],
        students: [&["train.epochs=3", "train.learning_rate=1e-4"], &["train.epochs=6", "train.learning_rate=2e-4"]],
        seeds: &[1, 2, 3],
    },
];

impl DataSet {
    /// Writes `recipe.toml` and the divided data. Returns whether there are texts without labels, in `raw.txt`.
    pub fn prepare(&self, assets: &Path, folder: &Path) -> Result<bool> {
        let divided = if self.division.is_some() { DIVIDED } else { "" };
        let recipe = [self.recipe, divided, RECIPE].concat().replace("{test}", self.test);
        let recipe = recipe.replace("{assets}", &assets.display().to_string());
        fs::write(folder.join("recipe.toml"), recipe.replace("{folder}", &folder.display().to_string()))?;
        let Some((train, division)) = self.division else { return Ok(false) };
        Ok(divide(&assets.join(train), &assets.join(self.test), division, folder)? > 0)
    }
}

/// Writes `train.tsv`, `validation.tsv` and the remaining texts without labels, `raw.txt`. No text occurs twice, and none is in the test
/// file. Returns the number of texts without labels.
fn divide(train: &Path, test: &Path, division: Division, folder: &Path) -> Result<usize> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    fn text(row: &str) -> &str {
        row.rsplit_once('\t').map_or(row, |(text, _)| text).trim()
    }
    let (test, train) = (read(test)?, read(train)?);
    let mut seen: HashSet<&str> = test.lines().map(text).collect();
    let rows: Vec<&str> = train.lines().filter(|row| seen.insert(text(row))).collect();
    let Division { labelled, validation } = division;
    ensure!(rows.len() >= labelled + validation, "{} rows, expected {labelled} and {validation}", rows.len());
    // A fixed permutation: a step that shares no factor with the number of rows visits each row once.
    const STEP: usize = 7_919;
    ensure!(!rows.len().is_multiple_of(STEP), "{} rows cannot be mixed with the prime step {STEP}", rows.len());
    let mut mixed: Vec<&str> = (0..rows.len()).map(|at| rows[at * STEP % rows.len()]).collect();
    let raw: Vec<&str> = mixed.split_off(labelled + validation).into_iter().map(text).collect();
    let validation = mixed.split_off(labelled);
    let write = |name: &str, rows: &[&str]| fs::write(folder.join(name), format!("{}\n", rows.join("\n")));
    write("train.tsv", &mixed)?;
    write("validation.tsv", &validation)?;
    write("raw.txt", &raw)?;
    Ok(raw.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_in_two_files() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("reviews-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let (train, test) = (folder.join("all.tsv"), folder.join("dev.tsv"));
        let rows: Vec<String> = (0..170).map(|at| format!("review {at}\tpositive")).collect();
        fs::write(&test, format!("{}\nanother\tnegative\n", rows[..10].join("\n")))?;
        fs::write(&train, [&rows[..], &rows[..5]].concat().join("\n"))?;
        assert_eq!(divide(&train, &test, Division { labelled: 100, validation: 20 }, &folder)?, 40);
        let counted = |name: &str| fs::read_to_string(folder.join(name)).map(|text| text.lines().count());
        assert_eq!([counted("train.tsv")?, counted("validation.tsv")?, counted("raw.txt")?], [100, 20, 40]);
        let all = ["train.tsv", "validation.tsv", "raw.txt"].map(|name| fs::read_to_string(folder.join(name)));
        let all = all.into_iter().collect::<std::io::Result<Vec<String>>>()?.concat();
        let texts: HashSet<&str> = all.lines().map(|row| row.split('\t').next().unwrap_or(row)).collect();
        assert_eq!((texts.len(), texts.contains("review 3")), (160, false));
        assert!(divide(&train, &test, Division { labelled: 150, validation: 20 }, &folder).is_err());
        Ok(fs::remove_dir_all(folder)?)
    }
}
