//! Twenty steps of full fine-tuning without randomness, compared with PyTorch.

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, Weights, load_bert};
use kiln_heads::{ClassificationHeadConfig, Pooling, SequenceClassifier, cross_entropy_sum, inputs};
use kiln_kernels::Precision;
use kiln_tokenize::{Tokenizer, pad};
use kiln_train::{AdamW, GradientSum, Trainable};
use serde_json::Value;

use crate::assets::{MODELS, assets};
use crate::tiny;

#[test]
fn losses_norms_and_logits_are_pytorch_s() {
    let Some(assets) = assets() else { return };
    for name in MODELS {
        follow(&assets, name, Precision::F32);
    }
}

#[test]
fn bf16_stays_near_pytorch_s_f32() {
    let Some(assets) = assets() else { return };
    for name in MODELS {
        follow(&assets, name, Precision::Bf16);
    }
}

fn follow(assets: &Path, name: &str, precision: Precision) {
    let json = std::fs::read(assets.join(format!("reference/{name}.finetune.json"))).expect("the reference is there");
    let reference: Value = serde_json::from_slice(&json).expect("it is JSON");
    let number = |key: &str| reference[key].as_f64().expect("a number");
    let series = |key: &str| -> Vec<f64> {
        reference[key].as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
    };
    let (batch_size, steps) = (number("batch_size") as usize, number("steps") as usize);
    let (losses, norms) = (series("losses"), series("gradient_norms"));

    let data =
        std::fs::read_to_string(assets.join(reference["data"].as_str().expect("a path"))).expect("the data is there");
    let ids: HashMap<&str, i32> = (reference["labels"].as_object().expect("a map").iter())
        .map(|(label, id)| (label.as_str(), id.as_i64().expect("a number") as i32))
        .collect();
    let rows: Vec<(&str, i32)> = data
        .split('\n')
        .skip(number("skip_lines") as usize)
        .filter_map(|line| line.rsplit_once('\t'))
        .take(steps * batch_size)
        .map(|(text, label)| (text, ids[label.trim()]))
        .collect();

    let folder = assets.join("models").join(name);
    let tokenizer = Tokenizer::from_folder(&folder)
        .and_then(|tokenizer| tokenizer.with_max_length(number("max_length") as usize))
        .expect("a tokenizer");
    let encodings = tokenizer.encode_all(rows.iter().map(|(text, _)| (*text, None))).expect("texts encode");

    let device = Flex::device(0).autodiff();
    let tensors =
        Weights::from_file(&assets.join(format!("reference/{name}.finetune.safetensors"))).expect("its tensors");
    let tensor = |name: &str| tensors.read(name).expect("floats").expect("the reference has it");
    let mut model = model(&folder, &tensor("head.weight"), &tensor("head.bias"), &device);
    model.bert.products.precision = precision;
    // bf16 has three significant digits and every layer rounds, so only the course of the training is compared.
    let (allowed_loss, allowed_norm, [before, after]): (fn(f64) -> f64, f64, [f32; 2]) = match precision {
        Precision::F32 => (|_| 2e-3, 1e-2, [1e-4, 2e-2]),
        _ => (|loss| 3e-2 * loss, 5e-2, [2e-2, 5e-2]),
    };
    let first: Vec<usize> = (0..batch_size).collect();
    let logits = |model: &SequenceClassifier| {
        let plain = Flex::device(0);
        tiny::numbers(model.valid().forward(inputs(&pad(&encodings, &first, tokenizer.pad_token_id()), &plain)))
    };
    tiny::assert_close(&logits(&model), &tensor("logits_before"), before, "logits before");

    let mut optimizer = AdamW::new(Trainable { weight_decay: number("weight_decay"), ..Trainable::default() });
    for step in 0..steps {
        let batch: Vec<usize> = (step * batch_size..(step + 1) * batch_size).collect();
        let targets: Vec<i32> = batch.iter().map(|&row| rows[row].1).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [batch_size]), &device);
        let batch = inputs(&pad(&encodings, &batch, tokenizer.pad_token_id()), &device);
        let loss = cross_entropy_sum(model.forward(batch), targets) / batch_size as f64;
        let mut gradients = GradientSum::default();
        gradients.add(&model, loss.backward());

        let (loss, norm) = (loss.into_scalar::<f64>(), gradients.norm());
        let what = format!("{name} {precision:?}, step {step}");
        let expected = losses[step];
        assert!((loss - expected).abs() < allowed_loss(expected), "{what}: loss {loss}, PyTorch {expected}");
        assert!((norm / norms[step] - 1.0).abs() < allowed_norm, "{what}: norm {norm}, PyTorch {}", norms[step]);

        let scale = GradientSum::clip_factor(norm, number("clip_global_norm"));
        model = optimizer.step(model, gradients, number("learning_rate"), scale);
    }
    tiny::assert_close(&logits(&model), &tensor("logits_after"), after, "logits after");
}

/// The checkpoint without dropout or pooler, with the reference's head. PyTorch stores a weight as `[out, in]`.
fn model(folder: &Path, weight: &[f32], bias: &[f32], device: &burn::tensor::Device) -> SequenceClassifier {
    let config = BertConfig::from_folder(folder).expect("a supported config");
    let config = BertConfig { hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0, ..config };
    let mut bert = load_bert(&config, &Weights::from_folder(folder).expect("weights"), device).expect("whole").module;
    bert.pooler = None;
    let (num_labels, hidden_size) = (bias.len(), config.hidden_size);
    let shape = ClassificationHeadConfig {
        hidden_size,
        hidden_layers: vec![],
        num_labels,
        dropout: 0.0,
        initializer_range: config.initializer_range,
    };
    let mut head = shape.init(device);
    let weight = Tensor::<2>::from_data(TensorData::new(weight.to_vec(), [num_labels, hidden_size]), device);
    let bias = Tensor::<1>::from_data(TensorData::new(bias.to_vec(), [num_labels]), device);
    head.classifier.weight = Some(Param::from_tensor(weight.transpose()));
    head.classifier.bias = Some(Param::from_tensor(bias));
    SequenceClassifier { bert, head, pooling: Pooling::Cls }
}
