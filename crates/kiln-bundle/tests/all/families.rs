//! Bundles of every encoder family: weights are stored in the bundle's precision under the family's tensor names.

use std::fs;

use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, FAMILIES, Weights, initialize};
use kiln_bundle::{Bundle, SealConfig};
use kiln_heads::{ClassificationHeadConfig, Network, Pooling, SequenceClassifier, TaskModel, save_model};
use kiln_kernels::Precision;
use kiln_predict::Predictor;
use kiln_schema::{LabelSet, ProblemType};
use kiln_tokenize::Tokenizer;

const LAYERS: usize = 2;

#[test]
fn every_family_is_bundled_compactly() {
    let _turn = crate::random_turn();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sample = kiln_sample::unpack(&folder.path().join("sample")).expect("it is writable").model;
    let tokenizer = Tokenizer::from_folder(&sample).expect("the sample is whole");
    let device = Flex::device(0);
    for family in FAMILIES {
        let mut config = BertConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: 32,
            num_hidden_layers: LAYERS,
            num_attention_heads: 4,
            intermediate_size: 64,
            ..BertConfig::base()
        };
        config.extra.insert("model_type".to_owned(), family.model_type.into());
        let model = folder.path().join(family.model_type);
        fs::create_dir(&model).expect("a folder");
        tokenizer.save(&model).expect("it is writable");
        let (hidden_size, num_labels, initializer_range) = (32, 2, 0.5);
        let head = ClassificationHeadConfig {
            hidden_size,
            hidden_layers: vec![],
            num_labels,
            dropout: 0.0,
            initializer_range,
        };
        let classifier =
            SequenceClassifier { bert: config.init(&device), head: head.init(&device), pooling: Pooling::Mean };
        initialize(&classifier);
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        let problem_type = ProblemType::default();
        let network = Network::SequenceClassification { model: classifier, labels, problem_type };
        save_model(&model, &TaskModel { network, config }).expect("it is writable");

        let texts = [("房间很干净", None), ("服务不好", None)];
        let answers = |predictor: &Predictor| predictor.predict(&texts).expect("two texts");
        let full = Predictor::from_folder(&model, &device).expect("it is whole");
        for precision in [Precision::F32, Precision::Int8] {
            let out = folder.path().join(format!("{}-{precision:?}", family.model_type));
            SealConfig { precision }.seal(&model, &out, &device).expect("it is whole");
            let bundle = Bundle::open(&out, &device).expect("it is whole");
            let predictor = bundle.predictor().expect("it has a head");
            assert_eq!(answers(predictor).len(), texts.len());
            if precision == Precision::F32 {
                assert_eq!(answers(predictor), answers(&full), "{}", family.model_type);
                continue;
            }
            let weights = Weights::from_folder(&out).expect("it is whole");
            let units = weights.names().filter(|name| name.ends_with("_scale")).count();
            let layers = if family.shares_layers { 1 } else { LAYERS };
            let matrices = if family.has_pre_norm { 4 } else { 6 };
            assert_eq!(units, matrices * layers + 1, "{}: all matrices of a layer, and the words", family.model_type);
        }
    }
}
