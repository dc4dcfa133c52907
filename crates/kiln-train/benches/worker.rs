//! Kiln's worker for `cargo xtask bench`. It reads the name and precision of a task from each line, runs the task once, and
//! prints the seconds that it took. The workers of the peers use the same protocol.
//!
//! - `KILN_ASSETS` is a folder with a real model and real reviews.
//! - `KILN_BENCH_BACKEND` names a backend other than flex.
//! - `KILN_BENCH_CHECKPOINT` is a folder for the checkpoint under adapters, which the task `checkpoint` writes. Without it,
//!   adapters are trained on fresh weights.
//! - `KILN_BENCH_INSTRUCTIONS` limits the instruction sets to those of an older processor.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark speaks to its driver")]

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_adapters::{AdapterConfig, attach, quantize};
use kiln_backend::{Backend, Entry, Flex};
use kiln_bert::{BertConfig, InFile, Inputs};
use kiln_heads::{
    ClassificationHeadConfig, Network, Pooling, PretrainedConfig, SequenceClassifier, TaskModel, cross_entropy_sum,
    in_batches, inputs, save_model,
};
use kiln_kernels::slices::Simd;
use kiln_kernels::{Precision, Products};
use kiln_schema::{LabelSet, ProblemType};
use kiln_tokenize::{Encoding, Shuffle, Tokenizer, lengths, pad, shuffled};
use kiln_train::{AdamW, GradientSum, Scope, Trainable};

const VOCABULARY: usize = 21_128;
const MODEL: &str = "models/multilingual-e5-small-zh";
const REVIEWS: usize = 2_000;
const MAX_LENGTH: usize = 128;
/// Number of consecutive texts over which latency is averaged, so that the processor is not in an idle state.
const IN_A_ROW: usize = 20;

fn main() {
    if let Ok(name) = std::env::var("KILN_BENCH_INSTRUCTIONS") {
        Simd::limit(Simd::named(&name).unwrap());
    }
    let backend = std::env::var("KILN_BENCH_BACKEND").unwrap_or_else(|_| Flex::NAME.to_owned());
    kiln_backend::run(&backend, Answer).unwrap();
}

struct Answer;

impl Entry for Answer {
    type Output = ();

    fn run<B: Backend>(self) {
        let device = B::find_device(0).unwrap();
        // Inside the thread pool, like `kiln`.
        rayon::scope(|_| answer(device));
    }
}

fn answer(device: Device) {
    let mut works = Works { device, base: None, training: None, reviews: None };
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (work, precision) = line.split_once(' ').unwrap();
        let precision = match precision {
            "f32" => Precision::F32,
            "bf16" => Precision::Bf16,
            "int8" => Precision::Int8,
            other => panic!("there is no precision {other}"),
        };
        println!("{}", works.run(work, precision));
    }
}

struct Works {
    device: Device,
    base: Option<SequenceClassifier>,
    training: Option<Training>,
    reviews: Option<Reviews>,
}

struct Training {
    /// Absent during an update: if anything else held the weights, they would be copied.
    model: Option<SequenceClassifier>,
    optimizer: AdamW,
}

/// A small real model and real reviews.
struct Reviews {
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    texts: Vec<(String, i32)>,
}

impl Works {
    fn run(&mut self, work: &str, precision: Precision) -> f64 {
        let device = self.device.clone();
        let (work, family) = work.split_once('-').unwrap_or((work, "bert"));
        match work.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "forward" => self.forward(family, shape_of(work), 1, precision, &device),
            "latency" => self.forward(family, [1, 20], IN_A_ROW, precision, &device),
            kind @ ("step" | "lora" | "qlora") => {
                let training = self.training.get_or_insert_with(|| {
                    let config = base(family);
                    match kind {
                        "step" => Training::new(classifier(&config, &device)),
                        _ => Training::adapted(&config, kind == "qlora", &device),
                    }
                });
                training.set_precision(precision);
                let shape = shape_of(work);
                let batch = batch(shape, &device.clone().autodiff());
                let targets: Vec<i32> = (0..shape[0] as i32).map(|row| row % 2).collect();
                timed(|| {
                    training.step(batch, &targets);
                    device.sync().unwrap();
                })
            }
            "checkpoint" => timed(|| {
                let config = base(family);
                let network = Network::SequenceClassification {
                    model: classifier(&config, &device),
                    labels: LabelSet::new(["0", "1"]).unwrap(),
                    problem_type: ProblemType::default(),
                };
                save_model(&checkpoint().unwrap(), &TaskModel { network, config }).unwrap();
            }),
            "load" => timed(|| {
                let model = read_model(&Reviews::folder().join(MODEL), Pooling::Cls, InFile::Nothing, &device);
                model.forward(batch([1, 20], &device)).into_data()
            }),
            "epoch" => {
                let reviews = self.reviews.get_or_insert_with(|| Reviews::read(&device));
                let mut training = Training::new(reviews.model.clone());
                training.set_precision(precision);
                timed(|| reviews.epoch(&mut training, &device.autodiff()))
            }
            "predict" => {
                let reviews = self.reviews.get_or_insert_with(|| Reviews::read(&device));
                let packed = reviews.model.bert.products.packed.take().unwrap_or_default();
                reviews.model.bert.products = Products { precision, packed: Some(packed), ..Products::default() };
                timed(|| reviews.predict(&device))
            }
            // The peak memory of this process in MB, not seconds.
            "memory" => peak_memory(),
            other => panic!("there is no work {other}"),
        }
    }

    /// The mean seconds of `times` consecutive forward passes.
    fn forward(&mut self, family: &str, shape: [usize; 2], times: usize, precision: Precision, device: &Device) -> f64 {
        let model = self.base.get_or_insert_with(|| classifier(&base(family), device));
        let packed = model.bert.products.packed.take().unwrap_or_default();
        model.bert.products = Products { precision, packed: Some(packed), ..Products::default() };
        let batch = batch(shape, device);
        let seconds = timed(|| {
            for _ in 0..times {
                model.forward(batch.clone()).into_data();
            }
        });
        seconds / times as f64
    }
}

/// The number of texts and their length in tokens. The number at the end of a task's name is the number of texts or, if it
/// is 2048, the length of one text.
fn shape_of(work: &str) -> [usize; 2] {
    match work.trim_start_matches(|c: char| c.is_ascii_alphabetic()) {
        "2048" => [1, 2_048],
        texts => [texts.parse().unwrap_or(8), 128],
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// A batch without padding.
fn batch(shape: [usize; 2], device: &Device) -> Inputs {
    let tokens = shape[0] * shape[1];
    let ids: Vec<i32> = (0..tokens).map(|i| ((i * 7919 + 13) % VOCABULARY) as i32).collect();
    Inputs::new(&ids, &vec![1; tokens], &vec![0; tokens], shape, device)
}

/// The base-size configuration of a family, or BERT's large one.
fn base(family: &str) -> BertConfig {
    let mut config = BertConfig { vocab_size: VOCABULARY, ..BertConfig::base() };
    match family {
        "bert" => {}
        "large" => config = BertConfig { vocab_size: VOCABULARY, ..BertConfig::large() },
        "roberta" => {
            (config.max_position_embeddings, config.type_vocab_size) = (514, 1);
            (config.pad_token_id, config.layer_norm_eps) = (1, 1e-5);
        }
        "modernbert" => {
            (config.num_hidden_layers, config.intermediate_size, config.max_position_embeddings) = (22, 1_152, 8_192);
            config.layer_norm_eps = 1e-5;
            (config.hidden_dropout_prob, config.attention_probs_dropout_prob) = (0.0, 0.0);
        }
        other => panic!("there is no family {other}"),
    }
    let model_type = if family == "large" { "bert" } else { family };
    config.extra.insert("model_type".to_owned(), model_type.into());
    config
}

/// An encoder with fresh weights and a classifier with two labels, which reads the first token.
fn classifier(config: &BertConfig, device: &Device) -> SequenceClassifier {
    let head = ClassificationHeadConfig {
        hidden_size: config.hidden_size,
        hidden_layers: vec![],
        num_labels: 2,
        dropout: 0.1,
        initializer_range: config.initializer_range,
    };
    let pooling = if config.family().model_type == "bert" { Pooling::Pooler } else { Pooling::Cls };
    let model = SequenceClassifier { bert: config.init(device), head: head.init(device), pooling };
    kiln_bert::initialize(&model);
    model
}

impl Training {
    fn new(model: SequenceClassifier) -> Self {
        let mut model = model.train();
        model.bert.products.packed = None;
        Self { model: Some(model), optimizer: AdamW::new(Trainable::default()) }
    }

    /// A model with adapters on queries and values and, if `is_quantized`, with the encoder layers in 4 bits.
    fn adapted(config: &BertConfig, is_quantized: bool, device: &Device) -> Self {
        let mut model = match checkpoint() {
            Some(folder) => {
                let in_file = if is_quantized { InFile::WordsAndLayers } else { InFile::Words };
                read_model(&folder, Pooling::Pooler, in_file, device)
            }
            None => classifier(config, device),
        };
        if is_quantized {
            quantize(&mut model.bert, true);
        }
        attach(&mut model.bert, config, &AdapterConfig::default(), device).unwrap();
        let trainable = Trainable { scope: Scope::Adapters { pooler: false }, ..Trainable::default() };
        let mut training = Self::new(model);
        training.model = training.model.map(|model| trainable.apply(model));
        training.optimizer = AdamW::new(trainable);
        training
    }

    fn set_precision(&mut self, precision: Precision) {
        self.model.as_mut().unwrap().bert.products.precision = precision;
    }

    fn step(&mut self, batch: Inputs, targets: &[i32]) {
        let device = batch.input_ids.device();
        let count = targets.len();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets.to_vec(), [count]), &device);
        let model = self.model.take().unwrap();
        let loss = cross_entropy_sum(model.forward(batch), targets) / count as f64;
        let mut gradients = GradientSum::default();
        gradients.add(&model, loss.backward());
        let scale = GradientSum::clip_factor(gradients.norm(), 1.0);
        self.model = Some(self.optimizer.step(model, gradients, 5e-5, scale));
    }
}

fn checkpoint() -> Option<PathBuf> {
    std::env::var_os("KILN_BENCH_CHECKPOINT").map(PathBuf::from)
}

fn read_model(folder: &Path, pooling: Pooling, in_file: InFile, device: &Device) -> SequenceClassifier {
    let config = PretrainedConfig { in_file, num_labels: 2, ..PretrainedConfig::default() };
    config.sequence_classifier(folder, pooling, device).unwrap().model
}

impl Reviews {
    fn folder() -> PathBuf {
        PathBuf::from(std::env::var_os("KILN_ASSETS").unwrap())
    }

    fn read(device: &Device) -> Self {
        let model = read_model(&Self::folder().join(MODEL), Pooling::Cls, InFile::Nothing, device);
        let tokenizer = Tokenizer::from_folder(&Self::folder().join(MODEL)).unwrap();
        let tokenizer = tokenizer.with_max_length(MAX_LENGTH).unwrap();
        let data = std::fs::read_to_string(Self::folder().join("data/chnsenticorp/train.tsv")).unwrap();
        let rows = data.lines().filter_map(|line| line.rsplit_once('\t')).take(REVIEWS);
        let texts = rows.map(|(text, label)| (text.to_owned(), i32::from(label == "positive"))).collect();
        Self { model, tokenizer, texts }
    }

    fn encode(&self) -> Vec<Encoding> {
        self.tokenizer.encode_all(self.texts.iter().map(|(text, _)| (text.as_str(), None))).unwrap()
    }

    fn epoch(&self, training: &mut Training, device: &Device) {
        let encodings = self.encode();
        let shuffle = Shuffle { batch_size: 16, seed: 7, epoch: 0 };
        for rows in shuffled(&lengths(&encodings), shuffle) {
            let targets: Vec<i32> = rows.iter().map(|&row| self.texts[row].1).collect();
            training.step(inputs(&pad(&encodings, &rows, self.tokenizer.pad_token_id()), device), &targets);
        }
    }

    fn predict(&self, device: &Device) -> Vec<f32> {
        let encodings = self.encode();
        in_batches(&lengths(&encodings), 32, |rows| {
            self.model.forward(inputs(&pad(&encodings, rows, self.tokenizer.pad_token_id()), device))
        })
    }
}

fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1e3
}
