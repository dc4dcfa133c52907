//! The teacher of a distillation: its folder, its model, and its outputs for the training split.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use kiln_bert::{BertConfig, LayerOutputs};
use kiln_heads::{Network, TaskModel, load_model};
use kiln_hub::{Location, PullConfig, Source};
use kiln_schema::{LabelSet, ProblemType, Splits, Task};
use kiln_tokenize::{Encoding, Tokenizer};
use kiln_train::{Distillation, LogitSet, Matching, Objective, TeacherConfig, TeacherOutputs};

use super::settle::{Plan, fitted_tokenizer};
use crate::fetch::{fetch, model_in};
use crate::fingerprint::TEACHER;
use crate::{Observer, Recipe, UsageError};

/// Maximum bytes of a teacher's outputs on disk.
pub(crate) const OUTPUTS_LIMIT: u64 = 32 << 30;

/// Rows in a batch of a teacher.
pub(crate) const BATCH_SIZE: usize = 32;

/// A teacher on disk, checked against the recipe.
pub(crate) struct TeacherFolder {
    /// The source, pinned to the fetched commit if it has commits.
    pub source: Source,
    pub folder: PathBuf,
    pub config: BertConfig,
    pub tokenizer: Tokenizer,
}

/// A teacher's model.
pub(crate) struct Teacher<M> {
    pub model: M,
    /// For each label of the data, the index of the teacher's logit; `None` if the order of the labels is the same.
    pub columns: Option<Vec<usize>>,
}

/// A teacher and its input.
pub(crate) struct Lessons<S: LogitSet> {
    pub teacher: Teacher<S::Model>,
    /// The training split encoded by the teacher's own tokenizer; `None` if the student's encoding is used.
    pub set: Option<S>,
}

/// The splits, with the teacher's outputs added to the training split.
pub(crate) struct Taught<S> {
    pub sets: Splits<Objective<S>>,
    /// Seconds that the teacher took; 0 if everything was cached.
    pub seconds: f64,
}

/// Fetches and checks the recipe's teacher, if there is one. `student` is the config of the encoder that is trained.
pub(crate) fn settle_teacher(
    recipe: &Recipe,
    student: &BertConfig,
    config: &PullConfig,
    observer: &mut dyn Observer,
) -> anyhow::Result<Option<TeacherFolder>> {
    let Some(distill) = &recipe.distill else { return Ok(None) };
    let source = match &distill.teacher {
        Source::Location(Location::Directory(folder)) => Source::Location(Location::Directory(model_in(folder))),
        source => source.clone(),
    };
    let key = || format!("distill.teacher = \"{}\"", distill.teacher);
    let snapshot = fetch(&source, config, observer).with_context(key)?;
    let config = BertConfig::from_folder(&snapshot.folder).with_context(key)?;
    let tokenizer = fitted_tokenizer(&snapshot.folder, &config, recipe.train.max_length).with_context(key)?;
    let (layers, needed) = (config.num_hidden_layers, student.num_hidden_layers);
    if distill.hidden && layers < needed {
        let message =
            format!("distill.hidden: the teacher has {layers} layers, expected at least the student's {needed}");
        bail!(UsageError(message));
    }
    observer.stage("", "kiln-hub", &format_args!("teacher {} → {}", distill.teacher, snapshot.folder.display()));
    let source = snapshot.pinned.map_or(source, Source::from);
    Ok(Some(TeacherFolder { source, folder: snapshot.folder, config, tokenizer }))
}

/// How layers are compared, if they are.
pub(crate) fn matching(plan: &Plan<'_>) -> Option<Matching> {
    let is_wanted = plan.recipe.distill.as_ref().is_some_and(|distill| distill.hidden);
    let teacher = plan.teacher.as_ref().filter(|_| is_wanted)?;
    Some(Matching::of(&plan.checkpoint.config, &teacher.config))
}

/// The teacher's model, if there is a teacher.
pub(crate) fn load(plan: &Plan<'_>) -> anyhow::Result<Option<Network>> {
    let Some(teacher) = &plan.teacher else { return Ok(None) };
    let TaskModel { mut network, .. } = load_model(&teacher.folder, plan.device)?.module;
    let bert = network.bert_mut();
    bert.products.precision = plan.precision;
    bert.layer_outputs = matching(plan).map(|_| LayerOutputs::of_every_pass());
    Ok(Some(network))
}

/// The error for a teacher of another task than the recipe's.
pub(crate) fn wrong_task(plan: &Plan<'_>, teacher: &Network) -> UsageError {
    let name = |task: Task, problem_type: ProblemType| match task {
        Task::SequenceClassification => format!("{task} ({})", problem_type.name()),
        _ => task.to_string(),
    };
    let problem_type = match teacher {
        Network::SequenceClassification { problem_type, .. } => *problem_type,
        _ => ProblemType::default(),
    };
    let (found, recipe) = (name(teacher.task(), problem_type), plan.recipe);
    let expected = name(recipe.task, recipe.model.problem_type);
    UsageError(format!("distill.teacher is a model for {found}, expected one for {expected}"))
}

/// The index of the teacher's logit for each label of the data; `None` if the order is the same.
pub(crate) fn columns(teacher: &LabelSet, data: &LabelSet) -> Result<Option<Vec<usize>>, UsageError> {
    let of_teacher = |name: &String| teacher.names().iter().position(|other| other == name);
    let columns: Option<Vec<usize>> = data.names().iter().map(of_teacher).collect();
    match columns.filter(|columns| columns.len() == teacher.len()) {
        Some(columns) => Ok(Some(columns).filter(|columns| !columns.is_sorted())),
        None => Err(UsageError(format!(
            "distill.teacher has the labels {}, and the data has {}; expected the same labels",
            teacher.names().join(", "),
            data.names().join(", ")
        ))),
    }
}

/// Refuses a teacher whose tokens differ from the student's. Tags, answers and layers are compared token by token.
pub(crate) fn check_tokens<'a>(
    student: impl IntoIterator<Item = &'a Encoding>,
    teacher: impl IntoIterator<Item = &'a Encoding>,
) -> Result<(), UsageError> {
    let (mut student, mut teacher) = (student.into_iter(), teacher.into_iter());
    let mut row = 0;
    loop {
        row += 1;
        let (ours, theirs) = match (student.next(), teacher.next()) {
            (None, None) => return Ok(()),
            (Some(ours), Some(theirs)) if ours.input_ids == theirs.input_ids => continue,
            (ours, theirs) => (ours, theirs),
        };
        let ids = |encoding: Option<&Encoding>| {
            let ids: &[u32] = encoding.map_or(&[], |encoding| &encoding.input_ids);
            format!("{} tokens beginning with {:?}", ids.len(), &ids[..ids.len().min(6)])
        };
        return Err(UsageError(format!(
            "distill.teacher: its tokenizer is not model.source's, and tags, answers and `distill.hidden` are compared token \
             by token: training row {row} has {}, and with model.source {}",
            ids(theirs),
            ids(ours)
        )));
    }
}

/// The folder of a teacher's outputs.
pub(crate) fn outputs_folder(plan: &Plan<'_>) -> PathBuf {
    let folder = if plan.keeps_features { &plan.cache } else { &plan.folder.path };
    folder.join("teacher")
}

/// The hashes of the teacher's files, joined by spaces.
pub(crate) fn teacher_hash(plan: &Plan<'_>) -> String {
    let contents = plan.fingerprint.contents.iter().filter(|(name, _)| name.starts_with(TEACHER));
    contents.map(|(_, hash)| hash.as_str()).collect::<Vec<_>>().join(" ")
}

/// Computes the teacher's outputs for the training split, or reads them from the cache, and adds them to the split.
pub(crate) fn taught<S: LogitSet>(
    plan: &Plan<'_>,
    sets: Splits<S>,
    lessons: Option<Lessons<S>>,
    observer: &mut dyn Observer,
) -> anyhow::Result<Taught<S>> {
    let sets = sets.map(|_, set| Objective::new(set));
    let sets = Splits { train: sets.train.with_r_drop(plan.recipe.train.r_drop), ..sets };
    let (Some(Lessons { teacher, set }), Some(distill)) = (lessons, &plan.recipe.distill) else {
        return Ok(Taught { sets, seconds: 0.0 });
    };
    let config = TeacherConfig {
        batch_size: BATCH_SIZE,
        folder: outputs_folder(plan),
        hash: teacher_hash(plan),
        columns: teacher.columns,
        matching: matching(plan),
        max_bytes: OUTPUTS_LIMIT,
    };
    let started = Instant::now();
    let set = set.as_ref().unwrap_or(sets.train.set());
    let rows = set.rows();
    let mut progress = |done| observer.rows("teacher", done, rows);
    let (outputs, is_cached) = TeacherOutputs::compute(&teacher.model, set, &config, plan.device, &mut progress)?;
    let seconds = started.elapsed().as_secs_f64();
    let origin = super::features::origin(is_cached, seconds);
    observer.stage("teacher", "kiln-train", &format_args!("outputs for {rows} rows {origin}"));
    let distillation = Distillation { outputs, temperature: distill.temperature, alpha: distill.alpha };
    let sets = Splits { train: sets.train.with_distillation(distillation), ..sets };
    Ok(Taught { sets, seconds: if is_cached { 0.0 } else { seconds } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_may_have_another_order_but_no_others() {
        let set = |names: &[&str]| LabelSet::new(names.iter().copied()).expect("different names");
        assert_eq!(columns(&set(&["a", "b"]), &set(&["a", "b"])).expect("the same"), None);
        assert_eq!(columns(&set(&["c", "a", "b"]), &set(&["a", "b", "c"])).expect("the same"), Some(vec![1, 2, 0]));
        for (teacher, data) in
            [(&["a", "b"][..], &["a", "c"][..]), (&["a", "b", "c"], &["a", "b"]), (&["a"], &["a", "b"])]
        {
            let message = columns(&set(teacher), &set(data)).expect_err("other labels").to_string();
            assert!(message.contains(&teacher.join(", ")) && message.contains(&data.join(", ")), "{message}");
        }
    }

    #[test]
    fn other_tokens_are_named() {
        let row = |ids: &[u32]| Encoding {
            input_ids: ids.to_vec(),
            token_type_ids: vec![0; ids.len()],
            full_length: ids.len(),
            full_length_is_exact: true,
        };
        let ours = [row(&[2, 7, 3]), row(&[2, 8, 9, 3])];
        check_tokens(&ours, &ours.clone()).expect("they are the same");
        let message =
            check_tokens(&ours, &[row(&[2, 7, 3]), row(&[2, 5, 3])]).expect_err("the second differs").to_string();
        assert!(message.contains("training row 2 has 3 tokens beginning with [2, 5, 3]"), "{message}");
        assert!(message.contains("4 tokens beginning with [2, 8, 9, 3]"), "{message}");
        assert!(check_tokens(&ours, &ours[..1]).is_err());
    }
}
