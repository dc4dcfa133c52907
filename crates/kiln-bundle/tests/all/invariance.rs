//! The predictions of a bundle depend only on its bytes. They are bit-identical for a text alone and in any batch, with any
//! other texts, with any number of threads and at every start, in every precision and for every task.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, initialize};
use kiln_bundle::{ActivationScales, Bundle, SealConfig};
use kiln_heads::{
    ClassificationHeadConfig, Crf, MaskedLm, Network, Pooling, PreTrainingHeads, QuestionAnswerer, SequenceClassifier,
    TaskModel, TokenClassifier, Units, save_model,
};
use kiln_kernels::Precision;
use kiln_predict::Predictor;
use kiln_schema::{LabelSet, ProblemType, TagScheme};
use kiln_tokenize::Tokenizer;
use rayon::ThreadPoolBuilder;
use tempfile::TempDir;

/// xorshift64 (Marsaglia, *Xorshift RNGs*, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn text(&mut self, length: usize) -> String {
        let characters: Vec<char> = "房间很干净服务不好早餐丰富位置方便价格贵ab1，。 ".chars().collect();
        (0..length).map(|_| characters[self.below(characters.len())]).collect()
    }
}

/// Odd sizes, so that every kernel has remainders.
fn config(vocab_size: usize) -> BertConfig {
    BertConfig {
        vocab_size,
        hidden_size: 84,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 150,
        max_position_embeddings: 150,
        ..BertConfig::base()
    }
}

/// A model for each task and each kind of head.
fn networks(config: &BertConfig, device: &Device) -> Vec<(&'static str, Network)> {
    let labels = LabelSet::new(["O", "B-A", "I-A"]).expect("three names");
    let head = |hidden_layers: Vec<usize>| {
        let (hidden_size, num_labels, initializer_range) = (config.hidden_size, labels.len(), 0.5);
        ClassificationHeadConfig { hidden_size, hidden_layers, num_labels, dropout: 0.0, initializer_range }
            .init(device)
    };
    let bert = || config.init(device);
    let sequences = |pooling, hidden_layers, problem_type| Network::SequenceClassification {
        model: SequenceClassifier { bert: bert(), head: head(hidden_layers), pooling },
        labels: labels.clone(),
        problem_type,
    };
    let tags = |crf: Option<Crf>| Network::TokenClassification {
        model: TokenClassifier { bert: bert(), head: head(vec![]), crf },
        labels: labels.clone(),
        units: Units::Characters,
        tag_scheme: TagScheme::Plain,
    };
    let masked = MaskedLm { bert: bert(), cls: PreTrainingHeads::new(config, true, device) };
    vec![
        ("cls", sequences(Pooling::Cls, vec![], ProblemType::SingleLabelClassification)),
        ("mean and hidden layers", sequences(Pooling::Mean, vec![33, 7], ProblemType::MultiLabelClassification)),
        ("pooler", sequences(Pooling::Pooler, vec![], ProblemType::SingleLabelClassification)),
        ("tags", tags(None)),
        ("tags of a CRF", tags(Some(Crf::new(labels.len(), device)))),
        ("answers", Network::QuestionAnswering { model: QuestionAnswerer::new(bert(), config, device) }),
        ("masks", Network::MaskedLm { model: masked }),
    ]
}

/// How a bundle is made.
#[derive(Clone, Copy, Debug)]
struct Making {
    precision: Precision,
    /// The scales, for calibrated int8. The model then has outliers.
    calibrated: Option<ActivationScales>,
}

impl Making {
    /// Makes a bundle of a model with new random weights.
    fn sealed(self, folder: &Path, sample: &Path, mut model: TaskModel) -> PathBuf {
        initialize(model.network.bert());
        if self.calibrated.is_some() {
            crate::outliers::add_outliers(model.network.bert_mut());
        }
        let (source, out, device) = (folder.join("model"), folder.join("bundle"), Flex::device(0));
        fs::create_dir(&source).expect("a folder");
        Tokenizer::from_folder(sample).and_then(|tokenizer| tokenizer.save(&source)).expect("it is writable");
        save_model(&source, &model).expect("it is writable");
        let mut sealing =
            SealConfig { precision: self.precision }.prepare(&source, &out, &device).expect("it is whole");
        if let Some(scales) = self.calibrated {
            let texts = [("好房间", Some("服务不好")), ("早餐丰富", Some("价格"))];
            sealing = sealing.smooth(&texts, scales, &device).expect("two texts");
        }
        let smoothed = sealing.finish(None).expect("it is writable").smoothing;
        assert_eq!(smoothed.is_some_and(|smoothed| smoothed.strength.is_some()), self.calibrated.is_some());
        out
    }
}

/// Texts of many lengths. The longest have several windows, and each has a second text if the task needs pairs.
fn texts(random: &mut Random, is_masked: bool, has_pairs: bool) -> Vec<(String, Option<String>)> {
    let lengths: [usize; 14] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 70, 89, 144, 233, 377];
    let mut text = |length: usize| {
        let text = random.text(length);
        let text = if is_masked { format!("好[MASK]{text}") } else { format!("好{text}") };
        (text, has_pairs.then(|| format!("好{}", random.text(1 + length / 2))))
    };
    lengths.into_iter().chain([4, 4, 20]).map(&mut text).collect()
}

/// The predictions of a bundle for some texts, exact to the last bit.
fn answers(bundle: &Bundle, texts: &[(&str, Option<&str>)], batch_size: usize) -> Vec<String> {
    let predictor: &Predictor = bundle.predictor().expect("it has a head");
    let predictions = predictor.clone().with_batch_size(batch_size).predict(texts).expect("the texts are good");
    let mut answers: Vec<String> =
        predictions.iter().map(|prediction| serde_json::to_string(prediction).expect("it is JSON")).collect();
    for pooling in [Pooling::Cls, Pooling::Mean] {
        let embedder = bundle.embedder(pooling, true).expect("they need no pooler");
        let vectors = embedder.embed(texts).expect("the texts are good");
        for (answer, vector) in answers.iter_mut().zip(vectors.chunks(embedder.width())) {
            let bits: Vec<u32> = vector.iter().map(|x| x.to_bits()).collect();
            answer.push_str(&format!("{bits:?}"));
        }
    }
    answers
}

fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads").install(f)
}

#[test]
fn answers_depend_on_the_bytes_of_the_bundle_alone() {
    let _turn = crate::random_turn();
    let sample_folder = tempfile::tempdir().expect("a temporary folder");
    let sample = kiln_sample::unpack(sample_folder.path()).expect("it is writable").model;
    let vocab_size = Tokenizer::from_folder(&sample).expect("the sample is whole").vocab_size();
    let (config, device) = (config(vocab_size), Flex::device(0));
    // For some weights, plain int8 is closer than any smoothing.
    device.seed(7);
    let mut random = Random(7);
    let plain =
        [Precision::F32, Precision::Bf16, Precision::Int8].map(|precision| Making { precision, calibrated: None });
    let calibrated = [ActivationScales::Dynamic, ActivationScales::Static]
        .map(|scales| Making { precision: Precision::Int8, calibrated: Some(scales) });
    for making in plain.into_iter().chain(calibrated) {
        for (name, network) in networks(&config, &device) {
            let folder: TempDir = tempfile::tempdir().expect("a temporary folder");
            let path = making.sealed(folder.path(), &sample, TaskModel { network, config: config.clone() });
            let open = || Bundle::open(&path, &device).expect("it is whole");
            let bundle = open();
            let texts = texts(&mut random, name == "masks", name == "answers");
            let texts: Vec<(&str, Option<&str>)> =
                texts.iter().map(|(text, pair)| (text.as_str(), pair.as_deref())).collect();
            let alone: Vec<String> =
                with_threads(1, || texts.iter().flat_map(|text| answers(&bundle, &[*text], 1)).collect());
            let different: HashSet<&String> = alone.iter().collect();
            assert_eq!(different.len(), texts.len(), "{name}, {making:?}: answers tell texts apart");
            for threads in [1, 2, 3, 7] {
                let bundle = open();
                for batch_size in [1, 2, 5, 32] {
                    let mut order: Vec<usize> = (0..texts.len()).collect();
                    (1..order.len()).rev().for_each(|last| order.swap(last, random.below(last + 1)));
                    order.truncate(1 + random.below(texts.len()));
                    let batch: Vec<(&str, Option<&str>)> = order.iter().map(|&at| texts[at]).collect();
                    let together = with_threads(threads, || answers(&bundle, &batch, batch_size));
                    for (at, answer) in order.into_iter().zip(together) {
                        let what = format!("{name}, {making:?}, {threads} threads, batches of {batch_size}");
                        assert!(answer == alone[at], "{what}: {}\n{answer}\nalone\n{}", texts[at].0, alone[at]);
                    }
                }
            }
        }
    }
}
