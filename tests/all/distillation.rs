//! Distillation on tiny models: the cached outputs of a teacher for each head, the loss, and the gradients of layers.

use std::ops::ControlFlow;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_bert::{Bert, BertConfig, LayerInputs, LayerOutputs, Weights, load_bert, parameters, save};
use kiln_eval::TagSet;
use kiln_heads::{Pooling, QuestionAnswerer, SequenceClassifier, TokenClassifier};
use kiln_schema::{Answer, LabelSet, Question, TagScheme};
use kiln_tokenize::{ContextConfig, Tokenizer, characters};
use kiln_train::{
    Alone, AskedSet, BatchLoss, Dataset, Distillation, Encoded, Error, Fingerprint, Fit, GradientSum, LogitSet,
    Matching, Objective, TaggedSet, Targets, TeacherConfig, TeacherOutputs, TrainConfig, TrainingSet,
};

use crate::classifier::classifier;
use crate::tiny;

fn labels() -> LabelSet {
    LabelSet::new(["a", "b", "c"]).expect("three names")
}

fn encoded() -> Encoded {
    Encoded::new(tiny::encodings(), Targets::Labels(vec![0, 2, 1, 1, 0], labels()), 0)
}

fn config(folder: &Path, matching: Option<Matching>) -> TeacherConfig {
    let hash = "a teacher".to_owned();
    TeacherConfig { batch_size: 2, folder: folder.to_owned(), hash, columns: None, matching, max_bytes: 1 << 20 }
}

/// Sine waves as weights. Random weights would come from a stream that all tests share.
fn waves(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * step).sin() * 0.5).collect()
}

fn student(step: f32) -> SequenceClassifier {
    let device = Flex::device(0);
    let mut model = classifier(Pooling::Cls, &device);
    model.head.hidden_layers.clear();
    model.head.classifier.weight = Some(Param::from_data(TensorData::new(waves(72, step), [24, 3]), &device));
    model
}

/// The loss of a batch under an objective.
fn loss<S: LogitSet>(objective: &Objective<S>, model: &S::Model, rows: &[usize]) -> f64 {
    objective.loss(model, rows, &Flex::device(0)).sum.into_scalar::<f64>()
}

/// An objective with this model as the teacher, through its cached outputs.
fn taught<S: LogitSet>(teacher: &S::Model, set: (S, S), config: &TeacherConfig, alpha: f64) -> Objective<S> {
    let compute = |progress: &mut dyn FnMut(usize)| {
        TeacherOutputs::compute(teacher, &set.0, config, &Flex::device(0), progress).expect("the folder is writable")
    };
    let mut done = 0;
    let (_, is_kept) = compute(&mut |rows| done = rows);
    assert!(!is_kept && done == set.0.rows());
    let (outputs, is_kept) = compute(&mut |_| panic!("nothing is computed a second time"));
    assert!(is_kept);
    Objective::new(set.1).with_distillation(Distillation { outputs, temperature: 2.0, alpha })
}

/// If the student is its own teacher, only the labels' share of the loss remains.
fn assert_agrees_with_itself<S: LogitSet + Clone>(model: &S::Model, set: S, matching: Option<Matching>) {
    let folder = tempfile::tempdir().expect("a folder");
    let rows: Vec<usize> = (0..set.rows()).rev().collect();
    let alone = loss(&Objective::new(set.clone()), model, &rows);
    let objective = taught(model, (set.clone(), set), &config(folder.path(), matching), 0.25);
    let found = loss(&objective, model, &rows);
    assert!((found - 0.25 * alone).abs() < 1e-4 * alone, "{found}, a quarter of {alone}");
}

fn keeping(bert: &mut Bert) {
    bert.layer_outputs = Some(LayerOutputs::of_every_pass());
}

fn all_layers() -> Option<Matching> {
    Some(Matching::of(&tiny::config(), &tiny::config()))
}

#[test]
fn a_student_that_is_its_teacher_has_nothing_to_learn_of_it() {
    let mut model = student(0.9);
    keeping(&mut model.bert);
    assert_agrees_with_itself(&model, encoded(), None);
    assert_agrees_with_itself(&model, encoded(), all_layers());
    assert_agrees_with_itself(&model, encoded(), Some(Matching::ValueRelations { heads: 4 }));
    let sets = Targets::LabelSets(vec![vec![0, 2], vec![], vec![1], vec![0], vec![2]], labels());
    assert_agrees_with_itself(&model, Encoded::new(tiny::encodings(), sets, 0), all_layers());

    let device = Flex::device(0);
    let tokenizer =
        Tokenizer::from_folder(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/kiln-tokenize/tests/tiny").as_ref())
            .expect("the fixture is whole")
            .with_max_length(12)
            .expect("it is enough");
    // Windows with different numbers of own units, and one without units.
    let texts = ["房间".repeat(12), "房".to_owned(), String::new()];
    let windows = texts.iter().map(|text| tokenizer.encode_units(text, &characters(text)).expect("known")).collect();
    let tags = vec![[0, 1].repeat(12), vec![2], vec![]];
    let (names, scheme) = (labels(), TagScheme::Plain);
    let set = TaggedSet::new(windows, tags, TagSet { labels: &names, scheme }, 0);
    let SequenceClassifier { bert, head, .. } = model;
    let tagger = TokenClassifier { bert: Bert { pooler: None, ..bert.clone() }, head, crf: None };
    assert_agrees_with_itself(&tagger, set, all_layers());

    let question = Question {
        id: "1".to_owned(),
        question: "房".to_owned(),
        context: "房间".repeat(9),
        answers: vec![Answer { text: "间".to_owned(), start: 3 }],
    };
    let pairs = [(question.question.as_str(), question.context.as_str())];
    let windows = tokenizer.encode_contexts(pairs, ContextConfig { stride: 2, ..ContextConfig::default() });
    let set = AskedSet::new(vec![question.clone()], windows.expect("known"), 0);
    assert!(set.rows() > 1, "there are several windows");
    let mut answerer = QuestionAnswerer::new(Bert { pooler: None, ..bert }, &tiny::config(), &device);
    answerer.qa_outputs.weight = Some(Param::from_data(TensorData::new(waves(48, 0.7), [24, 2]), &device));
    assert_agrees_with_itself(&answerer, set, all_layers());
}

/// The loss with another teacher contains the divergence of the logits, which this test computes itself.
#[test]
fn a_teacher_s_part_is_the_divergence_of_its_logits() {
    let folder = tempfile::tempdir().expect("a folder");
    let (teacher, model) = (student(0.4), student(0.9));
    // One more row has no label.
    let more = encoded().with_unlabelled(vec![tiny::encodings()[2].clone()]);
    let objective = taught(&teacher, (more.clone(), more.clone()), &config(folder.path(), None), 0.25);
    let (rows, device) = ([5, 0, 3], Flex::device(0));
    let logits = |model| more.logits(model, &rows, &device);
    let of_teacher = kiln_heads::softmax_divergence_sum(logits(&model), logits(&teacher), 2.0).into_scalar::<f64>();
    let of_labels = loss(&Objective::new(encoded()), &model, &[0, 3]);
    let expected = 0.25 * of_labels + 0.75 * of_teacher;
    let found = loss(&objective, &model, &rows);
    assert!(of_teacher > 0.01 && (found - expected).abs() < 1e-5 * expected, "{found}, not {expected}");

    let BatchLoss { right, sum } = objective.loss(&model, &[5], &device);
    assert!(right.is_none() && sum.into_scalar::<f64>() > 0.0, "a batch may have no label at all");

    // Another order of the teacher's labels and another teacher each have their own file.
    let turned = TeacherConfig { columns: Some(vec![1, 2, 0]), ..config(folder.path(), None) };
    let objective = taught(&teacher, (more.clone(), more.clone()), &turned, 0.25);
    assert!((loss(&objective, &model, &rows) - expected).abs() > 1e-3);
    let other = TeacherConfig { hash: "another".to_owned(), ..config(folder.path(), None) };
    taught(&teacher, (more.clone(), more), &other, 0.25);
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 3);
}

#[test]
fn a_damaged_file_is_computed_anew_and_a_large_one_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = student(0.4);
    let compute = |config: &TeacherConfig| {
        TeacherOutputs::compute(&teacher, &encoded(), config, &Flex::device(0), &mut |_| {}).map(|(_, kept)| kept)
    };
    let all = config(folder.path(), None);
    assert!(!compute(&all).expect("it is writable"));
    let file = std::fs::read_dir(folder.path()).expect("it is there").next().expect("a file").expect("listed").path();
    // Three labels for each of five rows, with four bytes each.
    assert_eq!(file.metadata().expect("it is there").len(), 60);
    std::fs::write(&file, [0; 59]).expect("it is writable");
    assert!(!compute(&all).expect("it is writable"));
    assert!(compute(&all).expect("it is readable"));
    let error = compute(&TeacherConfig { max_bytes: 59, ..all }).expect_err("it takes a byte more");
    assert!(matches!(error, Error::TeacherOutputs { bytes: 60, most: 59 }), "{error}");
}

/// An encoder of another width, with sine waves as weights.
fn narrow_bert() -> Bert {
    let (device, folder) = (Flex::device(0), tempfile::tempdir().expect("a folder"));
    let config = BertConfig { hidden_size: 16, num_attention_heads: 4, num_hidden_layers: 1, ..tiny::config() };
    let mut weights = parameters(&config.init(&device));
    for (at, parameter) in weights.iter_mut().enumerate() {
        let centre = if parameter.name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        parameter.values = waves(parameter.values.len(), 0.3 + at as f32 * 0.01).iter().map(|v| centre + v).collect();
    }
    let path = folder.path().join("model.safetensors");
    save(&path, &weights, Default::default()).expect("it is writable");
    load_bert(&config, &Weights::from_file(&path).expect("it was written"), &device).expect("it is whole").module
}

/// A student with one narrow layer, whose teacher has two wide ones, and a student that keeps one layer of its teacher.
fn students() -> [(SequenceClassifier, Matching); 2] {
    let device = Flex::device(0);
    let mut narrow = student(0.9);
    narrow.bert = narrow_bert();
    narrow.bert.pooler = None;
    let weight = TensorData::new(waves(48, 0.9), [16, 3]);
    narrow.head.classifier.weight = Some(Param::from_data(weight, &device));
    let mut short = student(0.9);
    short.bert.keep_layers(&[1]);
    let config = |hidden_size, num_hidden_layers| BertConfig { hidden_size, num_hidden_layers, ..tiny::config() };
    let relations = Matching::of(&BertConfig { num_attention_heads: 4, ..config(16, 1) }, &tiny::config());
    assert_eq!(relations, Matching::ValueRelations { heads: 4 });
    [(narrow, relations), (short, Matching::of(&config(24, 1), &tiny::config()))]
}

/// The gradients of layers are the same with gradient checkpointing and with the plain graph, including those from the
/// teacher.
#[test]
fn gradients_of_layers_are_the_same_with_gradient_checkpointing() {
    for (mut model, matching) in students() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut teacher = student(0.4);
        keeping(&mut teacher.bert);
        let objective = taught(&teacher, (encoded(), encoded()), &config(folder.path(), Some(matching)), 0.0);
        model.bert.layer_outputs = Some(LayerOutputs::of_training());
        let device = Flex::device(0).autodiff();
        let gradients = |layer_inputs: Option<LayerInputs>| {
            let mut model = model.clone();
            model.bert.layer_inputs = layer_inputs;
            let model = model.train();
            let of_loss = objective.loss(&model, &[0, 1, 4], &device).sum.backward();
            let mut sum = GradientSum::default();
            model.bert.backward(&of_loss, |of_layer| sum.add(&model, of_layer));
            sum.add(&model, of_loss);
            sum.iter().map(|(name, gradient)| (name.to_owned(), tiny::numbers(gradient.clone()))).collect::<Vec<_>>()
        };
        let (graph, checkpointed) = (gradients(None), gradients(Some(LayerInputs::default())));
        assert_eq!(graph.len(), checkpointed.len());
        for ((name, expected), (other, found)) in graph.iter().zip(&checkpointed) {
            assert_eq!(name, other);
            tiny::assert_close(expected, found, 1e-5, name);
        }
    }
}

/// Training brings the student's layers nearer to the teacher's.
#[test]
fn a_student_comes_nearer_to_its_teacher() {
    for (mut model, matching) in students() {
        let (folder, checkpoints) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let mut teacher = student(0.4);
        keeping(&mut teacher.bert);
        model.bert.layer_outputs = Some(LayerOutputs::of_training());
        let objective = taught(&teacher, (encoded(), encoded()), &config(folder.path(), Some(matching)), 0.0);
        let config = TrainConfig { epochs: 12, batch_size: 2, learning_rate: 1e-2, ..TrainConfig::default() };
        let fit = Fit {
            train: &objective,
            validation: &objective,
            config: &config,
            fingerprint: &Fingerprint::default(),
            device: &Flex::device(0),
            checkpoints: checkpoints.path(),
            resume: false,
            reduction: &Alone,
        };
        let fitted = fit.run(model, &mut |_| ControlFlow::Continue(())).expect("it trains");
        let losses: Vec<f64> = fitted.epochs.iter().map(|epoch| epoch.train_loss).collect();
        assert!(losses[11] < losses[0] / 2.0, "{losses:?}");
    }
}

/// Kept layers have the weights of the checkpoint.
#[test]
fn kept_layers_are_the_checkpoint_s() {
    let device = Flex::device(0);
    let whole = tiny::bert(&device);
    let mut kept = whole.clone();
    kept.keep_layers(&[1]);
    assert_eq!(kept.encoder.layer.len(), 1);
    let names = |bert: &Bert| parameters(&bert.encoder).into_iter().map(|p| (p.name, p.values)).collect::<Vec<_>>();
    let of_last: Vec<_> = names(&whole).into_iter().filter(|(name, _)| name.starts_with("layer.1.")).collect();
    let found: Vec<_> =
        names(&kept).into_iter().map(|(name, values)| (name.replace("layer.0.", "layer.1."), values)).collect();
    assert_eq!(found, of_last);
    let states: Tensor<3> = kept.forward(tiny::inputs(&[0, 2], &device));
    assert_eq!(states.dims(), [2, 11, 24]);
}
