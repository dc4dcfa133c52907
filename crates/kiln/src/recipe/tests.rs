use kiln_dataset::{Column, Encoding, Format};

use kiln_train::{LrScheduler, Metric};

use super::*;

mod columns;
mod refused;

/// A recipe without any key that has a default.
const SHORT: &str = r#"task = "sequence-classification"
[model]
source = "sample"
[data]
train = "train.tsv"
validation = "dev.tsv"
"#;

/// A recipe that sets every key, to a value other than its default.
const LONG: &str = r#"task = "sequence-classification"

[model]
source = "dir:models/tiny"
initialize = "random"
encoder = "frozen"
problem_type = "multi_label_classification"
pooling = "mean"
hidden_layers = [13, 7]

[data]
files = ["a.csv", "/elsewhere/b.csv"]
format = "csv"
encoding = "gb18030"
header = true
text = "first"
text_pair = "second"
label = "same"
labels = ["no", "yes"]
label_separator = ";"
drop_leaks = true

[data.split]
train = 0.7
validation = 0.2
test = 0.1
stratify = false
seed = 7

[train]
epochs = 5
batch_size = 8
gradient_accumulation_steps = 4
learning_rate = 1e-4
head_learning_rate = 1e-3
lr_scheduler = "cosine"
warmup_ratio = 0
weight_decay = 0.0
max_grad_norm = 2.5
layerwise_lr_decay = 0.9
max_length = 64
precision = "f32"
gradient_checkpointing = true
label_all_tokens = false
early_stopping_patience = 2
save_steps = 100
save_minutes = 2.5
max_hours = 12
metric = "macro_f1"
seed = 18446744073709551615

[hub]
fallback = ["modelscope", "hf"]
"#;

/// A recipe for raw text.
const CORPUS: &str = r#"task = "masked-lm"
next_sentence = false

[model]
source = "dir:vocabulary"
size = "small"

[data]
files = ["a.txt", "b.parquet"]
validation = "c.txt"

[masking]
share = 0.2
unit = "word"
words = "words.txt"
"#;

/// A recipe with a teacher.
const DISTILLED: &str = r#"task = "sequence-classification"

[model]
source = "dir:teacher/model"

[distill]
teacher = "dir:teacher"
temperature = 4
alpha = 0.25
hidden = true
unlabelled = ["raw.txt", "hf-dataset:owner/name/raw.parquet"]

[student]
layers = [0, 5, 11]

[data]
train = "train.tsv"
validation = "dev.tsv"
"#;

fn parse(text: &str, overrides: &[&str]) -> Result<Recipe, RecipeError> {
    let overrides: Vec<String> = overrides.iter().map(|setting| (*setting).to_owned()).collect();
    Recipe::from_toml(text, Path::new("/recipes/recipe.toml"), &overrides)
}

fn local(path: impl AsRef<Path>) -> DataPath {
    DataPath::Local(path.as_ref().to_owned())
}

/// A path relative to the working folder.
fn here(path: &str) -> PathBuf {
    std::path::absolute(path).expect("there is a working folder")
}

fn good(text: &str, overrides: &[&str]) -> Recipe {
    parse(text, overrides).expect("the recipe is good")
}

#[test]
fn defaults_are_filled_in() {
    let recipe = good(SHORT, &[]);
    assert_eq!(recipe.model.encoder, Encoder::Full);
    assert_eq!(recipe.model.pooling, Pooling::Cls);
    assert_eq!(recipe.model.initialize, Start::Pretrained);
    assert_eq!(recipe.train, Train::default());
    assert_eq!(recipe.data.labels, None);
    assert_eq!(recipe.hub.fallback, []);
    assert!(!recipe.data.drop_leaks);
    let Files::Splits(splits) = recipe.data.files else { panic!("each split has its file") };
    assert_eq!(splits.train, local("/recipes/train.tsv"));
    assert_eq!(splits.validation, local("/recipes/dev.tsv"));
    assert_eq!(splits.test, None);
}

#[test]
fn every_key_is_read_and_paths_are_the_recipes_own() {
    let recipe = good(LONG, &[]);
    assert_eq!(recipe.model.source.to_string(), "dir:/recipes/models/tiny");
    assert_eq!(recipe.model.hidden_layers, [13, 7]);
    assert_eq!(recipe.data.format, Some(Format::Csv));
    assert_eq!(recipe.data.encoding, Some(Encoding::Gb18030));
    assert_eq!(recipe.data.columns.text_pair, Some("second".into()));
    assert_eq!(recipe.data.labels.expect("given").names(), ["no", "yes"]);
    let Files::Divided { files, split } = recipe.data.files else { panic!("the files are divided") };
    assert_eq!(files, [local("/recipes/a.csv"), local("/elsewhere/b.csv")]);
    assert_eq!((split.train, split.stratify, split.seed), (0.7, false, 7));
    assert_eq!((recipe.train.warmup_ratio, recipe.train.seed), (0.0, u64::MAX));
    assert_eq!((recipe.train.metric, recipe.train.lr_scheduler), (Some(Metric::MacroF1), LrScheduler::Cosine));
    assert_eq!(recipe.hub.fallback, [Hub::ModelScope, Hub::HuggingFace]);
}

#[test]
fn raw_text_is_files_and_what_validates() {
    let recipe = good(CORPUS, &[]);
    let Files::Corpus { files, validation } = &recipe.data.files else { panic!("the text is a corpus") };
    assert_eq!(files, &[local("/recipes/a.txt"), local("/recipes/b.parquet")]);
    assert_eq!(validation, &Some(local("/recipes/c.txt")));
    assert_eq!(recipe.masking.words.as_deref(), Some(Path::new("/recipes/words.txt")));
    assert!(!recipe.next_sentence && recipe.metric() == Metric::Loss);
    let test = parse(CORPUS, &["data.test=x.txt"]).expect_err("nothing is tested").to_string();
    assert!(test.contains("`data.test`"), "{test}");
    let elsewhere = parse(SHORT, &["masking.share=0.3"]).expect_err("nothing is masked").to_string();
    assert!(elsewhere.contains("`masking` needs `task = \"masked-lm\"`"), "{elsewhere}");
}

#[test]
fn a_teacher_and_a_student_are_read() {
    let recipe = good(DISTILLED, &[]);
    let distill = recipe.distill.expect("it is given");
    assert_eq!(distill.teacher.to_string(), "dir:/recipes/teacher");
    assert_eq!((distill.temperature, distill.alpha, distill.hidden), (4.0, 0.25, true));
    let data_set = "hf-dataset:owner/name/raw.parquet".parse().expect("a data set's file");
    assert_eq!(distill.unlabelled, [local("/recipes/raw.txt"), DataPath::Hub(data_set)]);
    assert_eq!(recipe.student.expect("it is given").layers, [0, 5, 11]);

    let short = good(SHORT, &["distill.teacher=dir:runs/1", "distill.unlabelled=[\"raw.txt\"]"]);
    let distill = short.distill.expect("it is given");
    assert_eq!((distill.temperature, distill.alpha, distill.hidden), (2.0, 0.5, false));
    assert_eq!(distill.teacher.to_string(), format!("dir:{}", here("runs/1").display()));
    assert_eq!(distill.unlabelled, [local(here("raw.txt"))]);
}

#[test]
fn messages_name_the_task_and_the_problem_type() {
    let kind = |setting: &str| good(SHORT, &[setting]).kind();
    let expected = "sequence-classification with `model.problem_type = \"regression\"`";
    assert_eq!(kind("model.problem_type=regression"), expected);
    assert_eq!(kind("task=token-classification"), "token-classification");
}

#[test]
fn the_tag_scheme_decides_the_metric() {
    let tags = "task=token-classification";
    assert_eq!(good(SHORT, &[tags]).metric(), Metric::EntityF1);
    let plain = good(SHORT, &[tags, "data.tag_scheme=plain"]);
    assert_eq!((plain.metric(), plain.data.tag_scheme), (Metric::Accuracy, Some(TagScheme::Plain)));
    assert!(plain.to_toml().contains("tag_scheme = \"plain\""));
    let answers = good(SHORT, &["task=question-answering", "data.answer_language=chinese"]);
    assert!(answers.to_toml().contains("answer_language = \"chinese\""));
}

#[test]
fn data_may_be_files_of_data_sets() {
    let train = "hf-dataset:seamew/ChnSentiCorp@refs/convert/parquet/default/train/0000.parquet";
    let test = "modelscope-dataset:owner/name@v1.0/测试集.parquet";
    let recipe =
        good(SHORT, &[&format!("data.train={train}"), "data.validation=dev.parquet", &format!("data.test={test}")]);
    let Files::Splits(splits) = &recipe.data.files else { panic!("each split has its file") };
    assert_eq!(splits.train, DataPath::Hub(train.parse().expect("a data set's file")));
    assert_eq!(splits.test, Some(DataPath::Hub(test.parse().expect("a data set's file"))));
    assert_eq!(splits.validation, local(here("dev.parquet")));
    // The format is inferred from the file in the data set.
    assert!(recipe.data.header);
    let written = recipe.to_toml();
    assert!(written.contains(train) && written.contains(test), "{written}");
    assert_eq!(Recipe::from_toml(&written, Path::new("runs/1/run.toml"), &[]).expect("Kiln wrote it"), recipe);
}

#[test]
fn what_is_written_reads_back_the_same() {
    for text in [SHORT, LONG, CORPUS, DISTILLED] {
        let recipe = good(text, &[]);
        let written = recipe.to_toml();
        let elsewhere = Recipe::from_toml(&written, Path::new("runs/1/run.toml"), &[]).expect("Kiln wrote it");
        assert_eq!(elsewhere, recipe, "{written}");
        assert_eq!(elsewhere.to_toml(), written);
    }
    let flags = good(LONG, &["data.label=[\"yes\", \"no\"]"]);
    assert_eq!((flags.data.columns.label.as_ref(), flags.data.columns.flags.len()), (None, 2));
    assert_eq!(Recipe::from_toml(&flags.to_toml(), Path::new("run.toml"), &[]).expect("Kiln wrote it"), flags);
    let written = good(SHORT, &[]).to_toml();
    for line in
        ["epochs = 3", "learning_rate = 0.00005", "header = false", "text = 0", "label = 1", "pooling = \"cls\""]
    {
        assert!(written.lines().any(|written| written == line), "`{line}` in\n{written}");
    }
}

#[test]
fn columns_follow_the_header_and_the_format() {
    let columns = |data: &str| {
        let head = "task = \"sequence-classification\"\nmodel.source = \"sample\"\n[data]\n";
        let Data { header, columns, .. } = good(&format!("{head}{data}"), &[]).data;
        (header, columns.text, columns.label.expect("a recipe's data has labels"))
    };
    let name = Column::from;
    let by_index = (false, Column::Index(0), Column::Index(1));
    let by_name = (true, name("text"), name("label"));
    assert_eq!(columns("files = [\"a.csv\"]"), by_index);
    assert_eq!(columns("files = [\"a.csv\"]\nheader = true"), by_name);
    assert_eq!(columns("files = [\"a.csv\"]\nlabel = \"y\""), (true, name("text"), name("y")));
    assert_eq!(columns("files = [\"a.csv\"]\nlabel = 4"), (false, Column::Index(0), Column::Index(4)));
    assert_eq!(columns("files = [\"a.csv\"]\ntext_pair = 1"), (false, Column::Index(0), Column::Index(2)));
    assert_eq!(columns("files = [\"a.parquet\"]"), by_name);
    assert_eq!(columns("files = [\"a.data\"]\nformat = \"tsv\""), by_index);
}

#[test]
fn overrides_are_as_strong_as_the_file() {
    let recipe = good(
        SHORT,
        &[
            "train.epochs=7",
            "train.metric=loss",
            "train.learning_rate = 1e-3",
            "data.test=test set.tsv",
            "data.labels=[\"no\", \"yes\"]",
            "model.source=hf:google-bert/bert-base-chinese@main",
            "train.epochs=8",
        ],
    );
    assert_eq!((recipe.train.epochs, recipe.train.metric, recipe.train.learning_rate), (8, Some(Metric::Loss), 1e-3));
    assert_eq!(recipe.model.source.to_string(), "hf:google-bert/bert-base-chinese@main");
    assert_eq!(recipe.data.labels.expect("given").names(), ["no", "yes"]);
    let Files::Splits(splits) = recipe.data.files else { panic!("each split has its file") };
    assert_eq!(splits.test.expect("given"), local(here("test set.tsv")));
    assert_eq!(splits.train, local("/recipes/train.tsv"));
    assert_eq!(recipe.train.batch_size, Train::default().batch_size);

    let many = ["train.seed=1"; 100];
    assert_eq!(good(SHORT, &many).train.seed, 1);
}

#[test]
fn paths_of_overrides_are_relative_to_the_working_folder() {
    let recipe = good(SHORT, &["data.train=../x.tsv", "data.validation=/y.tsv", "model.source=dir:models/tiny"]);
    let Files::Splits(splits) = recipe.data.files else { panic!("each split has its file") };
    assert_eq!(splits.train, local(here("../x.tsv")));
    assert_eq!(splits.validation, local("/y.tsv"));
    assert_eq!(recipe.model.source.to_string(), format!("dir:{}", here("models/tiny").display()));
    let corpus = good(CORPUS, &["data.files=[\"a.txt\", \"hf-dataset:owner/name/b.txt\"]", "masking.words=w.txt"]);
    let Files::Corpus { files, validation } = corpus.data.files else { panic!("the text is a corpus") };
    let data_set = "hf-dataset:owner/name/b.txt".parse().expect("a data set's file");
    assert_eq!(files, [local(here("a.txt")), DataPath::Hub(data_set)]);
    assert_eq!(validation, Some(local("/recipes/c.txt")));
    assert_eq!(corpus.masking.words, Some(here("w.txt")));
}

#[test]
fn a_recipe_is_loaded_from_its_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, SHORT).expect("a small file");
    let recipe = Recipe::load(&path, &["train.epochs=1".to_owned()]).expect("the recipe is good");
    assert_eq!(recipe.train.epochs, 1);
    let Files::Splits(splits) = recipe.data.files else { panic!("each split has its file") };
    assert_eq!(splits.train, local(folder.path().join("train.tsv")));

    let missing = Recipe::load(&folder.path().join("nowhere.toml"), &[]).expect_err("there is no such file");
    assert!(missing.to_string().contains("nowhere.toml"), "{missing}");
    assert!(std::error::Error::source(&missing).is_some());
}
