//! Model folders of a BERT with two layers, in the layouts of transformers and Kiln, made without either.

use serde_json::{Map, Value, json};

use crate::mutate::safetensors;
use crate::readers::workspace_file;
use crate::seed::Seed;

const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n房\n间\nclean\ncafe\n##er\n##s\n!\nun\n##able\n";
pub(super) const VOCAB_SIZE: usize = 14;
pub(super) const HIDDEN: usize = 8;
pub(super) const INTERMEDIATE: usize = 12;
pub(super) const POSITIONS: usize = 32;
pub(super) const LAYERS: usize = 2;

/// Name and shape of a tensor.
pub(super) type Tensor = (String, Vec<usize>);

pub(super) fn linear(name: &str, from: usize, to: usize) -> [Tensor; 2] {
    [(format!("{name}.weight"), vec![to, from]), (format!("{name}.bias"), vec![to])]
}

fn norm(name: &str) -> [Tensor; 2] {
    [(format!("{name}.weight"), vec![HIDDEN]), (format!("{name}.bias"), vec![HIDDEN])]
}

fn encoder(prefix: &str) -> Vec<Tensor> {
    let mut tensors = vec![];
    for (name, rows) in [("word", VOCAB_SIZE), ("position", POSITIONS), ("token_type", 2)] {
        tensors.push((format!("{prefix}embeddings.{name}_embeddings.weight"), vec![rows, HIDDEN]));
    }
    tensors.extend(norm(&format!("{prefix}embeddings.LayerNorm")));
    for layer in 0..LAYERS {
        let name = |part: &str| format!("{prefix}encoder.layer.{layer}.{part}");
        for part in ["query", "key", "value"] {
            tensors.extend(linear(&name(&format!("attention.self.{part}")), HIDDEN, HIDDEN));
        }
        tensors.extend(linear(&name("attention.output.dense"), HIDDEN, HIDDEN));
        tensors.extend(norm(&name("attention.output.LayerNorm")));
        tensors.extend(linear(&name("intermediate.dense"), HIDDEN, INTERMEDIATE));
        tensors.extend(linear(&name("output.dense"), INTERMEDIATE, HIDDEN));
        tensors.extend(norm(&name("output.LayerNorm")));
    }
    tensors.extend(linear(&format!("{prefix}pooler.dense"), HIDDEN, HIDDEN));
    tensors
}

/// A safetensors file whose numbers are a function of their position.
fn file(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (at, (name, shape)) in tensors.iter().enumerate() {
        let start = data.len();
        let centre = if name.ends_with("norm.weight") || name.ends_with("Norm.weight") { 1.0 } else { 0.0 };
        let number = |i: usize| centre + ((i * 7 + at * 13) as f32 * 0.37).sin() * 0.3;
        data.extend((0..shape.iter().product()).flat_map(|i| number(i).to_le_bytes()));
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    safetensors::write(&Value::Object(header).to_string(), &data)
}

fn config(more: &Value) -> String {
    let mut config = json!({
        "model_type": "bert", "vocab_size": VOCAB_SIZE, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "intermediate_size": INTERMEDIATE, "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12,
        "initializer_range": 0.02, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    });
    if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
        config.extend(more.clone());
    }
    config.to_string()
}

pub(super) fn labels(names: &[&str]) -> Value {
    let id2label: Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name))).collect();
    let label2id: Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| ((*name).to_owned(), json!(id))).collect();
    json!({ "id2label": id2label, "label2id": label2id })
}

pub(super) fn with(mut left: Value, right: &Value) -> Value {
    if let (Some(left), Some(right)) = (left.as_object_mut(), right.as_object()) {
        left.extend(right.clone());
    }
    left
}

pub(super) fn folder(name: &'static str, more: &Value, tensors: &[Tensor]) -> Seed {
    let tokenizer = format!("{{\"do_lower_case\": true, \"model_max_length\": {POSITIONS}}}");
    Seed::new(name)
        .with("config.json", config(more))
        .with("model.safetensors", file(tensors))
        .with("vocab.txt", VOCAB)
        .with("tokenizer_config.json", tokenizer)
}

/// A single-label classifier with three labels.
pub fn classifier() -> Seed {
    let more =
        json!({"architectures": ["BertForSequenceClassification"], "problem_type": "single_label_classification"});
    let tensors = [encoder("bert."), linear("classifier", HIDDEN, 3).to_vec()].concat();
    folder("classifier", &with(more, &labels(&["a", "b", "c"])), &tensors)
}

/// A model with a head of Kiln, which has its own file.
fn own_head(name: &'static str, head: &Value, names: &[&str], tensors: &[Tensor]) -> Seed {
    let more = with(json!({"architectures": ["BertModel"], "kiln_head": head}), &labels(names));
    folder(name, &more, &encoder("")).with("head.safetensors", file(tensors))
}

/// A classifier on the mean of the hidden states, with an extra layer.
pub fn mean_head() -> Seed {
    let head = json!({"task": "sequence-classification", "pooling": "mean", "hidden_layers": [5]});
    let tensors = [linear("hidden_layers.0", HIDDEN, 5), linear("classifier", 5, 2)].concat();
    own_head("mean_head", &head, &["no", "yes"], &tensors)
}

/// A tagger with a conditional random field.
pub fn crf_tagger() -> Seed {
    let head = json!({"task": "token-classification", "crf": true, "units": "characters"});
    let mut tensors = linear("classifier", HIDDEN, 3).to_vec();
    tensors.extend(
        [("start_transitions", vec![3]), ("transitions", vec![3, 3]), ("end_transitions", vec![3])]
            .map(|(name, shape)| (format!("crf.{name}"), shape)),
    );
    own_head("crf", &head, &["O", "B-A", "I-A"], &tensors)
}

/// A tagger in the layout of transformers.
pub fn tagger() -> Seed {
    let more = json!({"architectures": ["BertForTokenClassification"]});
    let tensors = [encoder("bert."), linear("classifier", HIDDEN, 3).to_vec()].concat();
    folder("tagger", &with(more, &labels(&["O", "B-A", "I-A"])), &tensors)
}

/// A question answering model.
pub fn answers() -> Seed {
    let tensors = [encoder("bert."), linear("qa_outputs", HIDDEN, 2).to_vec()].concat();
    folder("answers", &json!({"architectures": ["BertForQuestionAnswering"]}), &tensors)
}

/// A masked language model.
pub fn masked() -> Seed {
    let mut tensors = encoder("bert.");
    tensors.extend(linear("cls.predictions.transform.dense", HIDDEN, HIDDEN));
    tensors.extend(norm("cls.predictions.transform.LayerNorm"));
    tensors.push(("cls.predictions.bias".to_owned(), vec![VOCAB_SIZE]));
    folder("masked", &json!({"architectures": ["BertForMaskedLM"]}), &tensors)
}

/// The classifier in two files and an index.
pub fn shards() -> Seed {
    let mut seed = Seed { name: "shards", ..classifier() };
    seed.files.retain(|file| file.path != "model.safetensors");
    let tensors = [encoder("bert."), linear("classifier", HIDDEN, 3).to_vec()].concat();
    let (first, second) = tensors.split_at(9);
    let mut map = Map::new();
    for (name, tensors) in [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)] {
        map.extend(tensors.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
        seed = seed.with(name, file(tensors));
    }
    seed.with("model.safetensors.index.json", json!({"metadata": {}, "weight_map": map}).to_string())
}

/// An encoder of another size, written by `torch.save`.
pub fn pickle() -> anyhow::Result<Seed> {
    let weights = std::fs::read(workspace_file("tests/fixtures/tiny-pickle/pytorch_model.bin"))?;
    let sizes = json!({"vocab_size": 37, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40,
        "max_position_embeddings": 16, "architectures": ["BertModel"]});
    Ok(Seed::new("pickle")
        .beside("config.json", config(&sizes))
        .beside("vocab.txt", VOCAB)
        .with("pytorch_model.bin", weights))
}
