use kiln_dataset::Column;
use kiln_schema::{ProblemType, Task};

use super::super::{Model, RecipeFile, Rule, is_of};
use super::Labelled;

/// Conditions of `[data]` keys on other keys.
pub fn rules(file: &RecipeFile, model: &Model) -> Vec<Rule> {
    const HAS_COLUMNS: &str = "`task = \"sequence-classification\"` or `\"masked-lm\"`: \
                               data for the other tasks has columns and keys with fixed names";
    const HAS_LABELS: &str = "`task = \"sequence-classification\"`: raw text has one column";
    let (data, task) = (&file.data, file.task);
    let asks = task == Task::QuestionAnswering;
    let has_labels_in_columns = task == Task::SequenceClassification;
    let has_columns = has_labels_in_columns || task == Task::MaskedLm;
    let is_other = |column: &Column, index: usize, name: &str| *column != index.into() && *column != name.into();
    let label_is_other = match &data.label {
        Some(Labelled::InColumn(label)) => is_other(label, 1, "label"),
        Some(Labelled::InColumns(_)) => true,
        None => false,
    };
    // The `run.toml` of every task lists the defaults of `text`, `label` and `header`, so these are accepted. The header is
    // true beside the name `text`.
    let of_columns = [
        ("data.text", data.text.as_ref().is_some_and(|text| is_other(text, 0, "text"))),
        ("data.text_pair", data.text_pair.is_some()),
        ("data.label", label_is_other),
        ("data.header", data.header == Some(true) && data.text != Some("text".into())),
        ("data.label_separator", data.label_separator.is_some()),
    ];
    let of_columns = of_columns.map(|(key, is_set)| Rule { key, is_set, is_allowed: has_columns, needs: HAS_COLUMNS });
    let of_labels = [
        ("data.text_pair", data.text_pair.is_some()),
        ("data.label", label_is_other),
        ("data.label_separator", data.label_separator.is_some()),
    ];
    let is_allowed = has_labels_in_columns || !has_columns;
    let of_labels = of_labels.map(|(key, is_set)| Rule { key, is_set, is_allowed, needs: HAS_LABELS });
    let has_several_labels = is_of(task, model, ProblemType::MultiLabelClassification);
    let others = [
        Rule {
            key: "data.label_separator",
            is_set: data.label_separator.is_some() && has_labels_in_columns,
            is_allowed: has_several_labels,
            needs: "`model.problem_type = \"multi_label_classification\"`: other texts have one label",
        },
        Rule {
            key: "data.label",
            is_set: matches!(&data.label, Some(Labelled::InColumns(names)) if names.is_empty()),
            is_allowed: false,
            needs: "a column, or a list of at least one column",
        },
        Rule {
            key: "data.label",
            is_set: matches!(&data.label, Some(Labelled::InColumns(names)) if !names.is_empty()),
            is_allowed: has_several_labels,
            needs: "`model.problem_type = \"multi_label_classification\"` when it lists several columns",
        },
        Rule {
            key: "data.labels",
            is_set: data.labels.is_some(),
            is_allowed: !asks && task != Task::MaskedLm && !is_of(task, model, ProblemType::Regression),
            needs: "a `task` with labels; `question-answering`, `masked-lm` and a regression have none",
        },
        Rule {
            key: "data.tag_scheme",
            is_set: data.tag_scheme.is_some(),
            is_allowed: task == Task::TokenClassification,
            needs: "`task = \"token-classification\"`",
        },
        Rule {
            key: "data.answer_language",
            is_set: data.answer_language.is_some(),
            is_allowed: asks,
            needs: "`task = \"question-answering\"`",
        },
    ];
    of_columns.into_iter().chain(of_labels).chain(others).collect()
}
