//! Tokenizers with models: long texts with real vocabularies, limits of the model, and texts with surrounding white space.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use kiln_backend::{Backend, Flex};
use kiln_bert::BertConfig;
use kiln_heads::{MaskedLm, Network, Pooling, PreTrainingHeads, TaskModel, save_model};
use kiln_kernels::Precision;
use kiln_predict::{EmbedConfig, Predictor};
use kiln_schema::{LabelSet, ProblemType};
use kiln_tokenize::Tokenizer;

use crate::assets::assets;
use crate::tiny;

const PARTS: [&str; 32] = [
    "房间很干净，",
    "早餐不错。",
    "服务",
    "The room was clean, ",
    "U.S.A.",
    "café ",
    "cafe\u{301}",
    "ÜBER ",
    " ",
    "  ",
    "\n",
    "\t",
    "\u{3000}",
    "。",
    "！",
    "?",
    "[MASK]",
    "<mask>",
    "[SEP] ",
    "</s>",
    "👩\u{200d}🔬",
    "𠮷野家",
    "ｆｕｌｌ　ｗｉｄｔｈ",
    "\u{fffd}",
    "\u{200b}",
    "한국어 ",
    "ひらがなカタカナ",
    "\u{600}5",
    "ﬁ½㍿",
    "aaaaaaaaaa",
    "1234567890",
    "▁",
];

/// A text of mixed scripts, the same for each seed.
fn mixed(seed: u64, bytes: usize, parts: &[&str]) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::new();
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(parts[(state >> 33) as usize % parts.len()]);
    }
    text
}

#[test]
fn long_texts_of_real_vocabularies_have_the_tokens_of_the_whole() {
    let Some(assets) = assets() else { return };
    for model in ["all-MiniLM-L6-v2", "multilingual-e5-small-zh", "bert-base-chinese-tokenizer"] {
        let tokenizer = Tokenizer::from_folder(&assets.join("models").join(model)).expect("the model is whole");
        for seed in 0..4 {
            // Texts with and without white space, and of only a few parts.
            let without: Vec<&str> = PARTS.into_iter().filter(|part| !part.contains(char::is_whitespace)).collect();
            let some = &PARTS[seed as usize * 7..][..6];
            for parts in [&PARTS[..], &without, some] {
                let text = mixed(seed, 70_000, parts);
                let whole = tokenizer.list(&text, None).expect("it encodes").input_ids;
                let limited = tokenizer.clone().with_max_length(60).expect("60 is enough");
                let encoding = limited.encode(&text, None).expect("it encodes");
                assert_eq!(encoding.input_ids.len(), 60.min(whole.len()), "{model} {seed}");
                let kept = encoding.input_ids.len() - 1;
                assert_eq!(encoding.input_ids[..kept], whole[..kept], "{model} {seed}");
                let counted = limited.encode_counted(&text, None).expect("it encodes");
                assert_eq!(
                    (counted.input_ids, counted.full_length),
                    (encoding.input_ids, whole.len()),
                    "{model} {seed}"
                );
                let all = tokenizer.pieces(&[&text]).expect("it encodes");
                assert_eq!(all[0], whole[1..whole.len() - 1], "{model} {seed}");
            }
        }
    }
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/kiln-tokenize/tests").join(name)
}

/// A folder of a tiny model with a tiny tokenizer, whose limit of 512 tokens exceeds the model's 16 positions.
fn folder(tokenizer: &str, network: Network, config: BertConfig) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    save_model(folder.path(), &TaskModel { network, config }).expect("it is writable");
    let file = if tokenizer == "tiny" { "vocab.txt" } else { "tokenizer.json" };
    fs::copy(fixture(tokenizer).join(file), folder.path().join(file)).expect("the fixture is readable");
    let keys = match tokenizer {
        "tiny" => serde_json::json!({ "model_max_length": 512 }),
        _ => {
            serde_json::json!({ "model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "<unk>" })
        }
    };
    fs::write(folder.path().join("tokenizer_config.json"), keys.to_string()).expect("it is writable");
    folder
}

fn classifier(device: &Device) -> Network {
    Network::SequenceClassification {
        model: crate::classifier::classifier(Pooling::Cls, device),
        labels: LabelSet::new(["a", "b", "c"]).expect("three names"),
        problem_type: ProblemType::SingleLabelClassification,
    }
}

fn masked_lm(device: &Device) -> Network {
    let cls = PreTrainingHeads::new(&tiny::config(), false, device);
    kiln_bert::initialize(&cls);
    let mut bert = tiny::bert(device);
    bert.pooler = None;
    Network::MaskedLm { model: MaskedLm { bert, cls } }
}

/// The rows of a file are trimmed, but a single text may not be.
#[test]
fn white_space_around_a_text_changes_no_answer() {
    let device = Flex::device(0);
    for (tokenizer, mask) in [("tiny", "[MASK]"), ("tiny-unigram", "<unk>")] {
        let text = format!("房间 {mask}");
        let spaced = format!(" \u{3000}{text} \n");
        for network in [classifier(&device), masked_lm(&device)] {
            let folder = folder(tokenizer, network, tiny::config());
            let predictor = Predictor::from_folder(folder.path(), &device).expect("it was saved");
            let answers = predictor.predict(&[(&text, Some("房")), (&spaced, Some(" 房 "))]).expect("it answers");
            let json = |at: usize| serde_json::to_string(&answers[at]).expect("it is JSON");
            assert_eq!(json(0), json(1), "{tokenizer}");
            let config = EmbedConfig { pooling: Pooling::Mean, normalize: false, precision: Precision::F32 };
            let embedder = config.load(folder.path(), &device).expect("it was saved");
            let vectors = embedder.embed(&[(&text, None), (&spaced, None)]).expect("it embeds");
            assert_eq!(vectors[..embedder.width()], vectors[embedder.width()..], "{tokenizer}");
        }
    }
}

#[test]
fn a_model_with_fewer_positions_than_its_tokenizer_allows_truncates_there() {
    let device = Flex::device(0);
    let folder = folder("tiny", classifier(&device), tiny::config());
    let predictor = Predictor::from_folder(folder.path(), &device).expect("16 positions are enough");
    assert_eq!(predictor.tokenizer().max_length(), 16);
    let long = "房".repeat(40);
    let answers = predictor.predict(&[(&long, None), (&long[..14 * 3], None)]).expect("it answers");
    let scores = |at: usize| serde_json::to_value(&answers[at]).expect("it is JSON")["scores"].clone();
    assert_eq!(scores(0), scores(1), "14 characters and 2 special tokens");
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let device = Flex::device(0);
    let refused = |tokenizer: &str, keys: BertConfig| {
        let mut bert = keys.init(&device);
        kiln_bert::initialize(&bert);
        bert.pooler = None;
        let Network::SequenceClassification { mut model, labels, problem_type } = classifier(&device) else {
            panic!("it is one")
        };
        model.bert = bert;
        let folder = folder(tokenizer, Network::SequenceClassification { model, labels, problem_type }, keys);
        let predictor = Predictor::from_folder(folder.path(), &device);
        let answers = predictor.and_then(|predictor| predictor.predict(&[("房", Some("间"))]));
        answers.map(|answers| answers.len()).map_err(|error| error.to_string())
    };
    let few = refused("tiny", BertConfig { vocab_size: 9, ..tiny::config() }).expect_err("14 tokens and 9 rows");
    assert!(few.contains("vocab.txt") && few.contains("id 13"), "{few}");
    let one = BertConfig { type_vocab_size: 1, ..tiny::config() };
    let pair = refused("tiny", one.clone()).expect_err("the second text has type 1");
    assert!(pair.contains("type_vocab_size 1"), "{pair}");
    assert_eq!(refused("tiny-unigram", one), Ok(1), "its template gives type 0 alone");
}
