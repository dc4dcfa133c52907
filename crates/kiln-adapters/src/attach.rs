use burn::module::Param;
use burn::tensor::{Device, Tensor};
use kiln_bert::{Adapter, Bert, BertConfig, SentenceHead};

use crate::config::{ALL_LINEAR, matches};
use crate::{AdapterConfig, Error, Variant};

/// Puts a fresh adapter on each layer that the config names; returns how many. The encoder computes what it did before. Fresh
/// weights are drawn from the device's random stream.
///
/// # Errors
/// When a setting is out of range, or a name is no layer's.
pub fn attach(bert: &mut Bert, encoder: &BertConfig, config: &AdapterConfig, device: &Device) -> Result<usize, Error> {
    config.check()?;
    let mut layers = named_layers(bert, encoder);
    let is_all = config.target_modules == [ALL_LINEAR];
    if !is_all {
        let is_unknown = |target: &&String| !layers.iter().any(|(name, _)| matches(target, name));
        let names: Vec<String> = config.target_modules.iter().filter(is_unknown).cloned().collect();
        if !names.is_empty() {
            let mut known: Vec<String> =
                layers.iter().map(|(name, _)| name.rsplit('.').next().unwrap_or(name).to_owned()).collect();
            known.sort();
            known.dedup();
            return Err(Error::NoTarget { names, known });
        }
    }
    let mut attached = 0;
    for (name, linear) in &mut layers {
        let is_target = if is_all { !is_pooler(name) } else { config.is_target(name) };
        // A pooler that is trained as a whole is saved as a whole.
        if !is_target || (config.train_pooler && is_pooler(name)) {
            continue;
        }
        let mut adapter = Adapter::new(linear.shape(), config.rank, config.scale(), device);
        adapter.dropout = config.dropout;
        if config.variant == Variant::Dora {
            let norms: Tensor<1> = linear.dense_weight().square().sum_dim(0).sqrt().squeeze_dim(0);
            adapter.lora_magnitude_vector = Some(Param::from_tensor(norms));
        }
        kiln_bert::initialize(&adapter);
        linear.adapter = Some(adapter);
        attached += 1;
    }
    Ok(attached)
}

fn is_pooler(name: &str) -> bool {
    name.split('.').any(|part| part == "pooler")
}

/// Makes every adapter a part of its layer's weight, which becomes one tensor of f32: the encoder computes the same without
/// adapters.
pub fn merge(bert: &mut Bert) {
    for (_, linear) in bert.linear_layers() {
        *linear = linear.clone().merged();
    }
}

/// The encoder's linear layers by the names that its family gives them in a whole model. A layer that transformers counts as
/// part of the head is not among them.
fn named_layers<'a>(bert: &'a mut Bert, encoder: &BertConfig) -> Vec<(String, &'a mut kiln_bert::Linear)> {
    let family = encoder.family();
    let layers = bert.linear_layers().into_iter();
    let layers = layers.filter(|(name, _)| name != "pooler.dense" || family.sentence_head == SentenceHead::Pooler);
    let named = |(name, linear): (String, _)| {
        let tensor = encoder.tensor_name(&format!("{name}.weight"));
        (format!("{}{}", family.prefix, tensor.trim_end_matches(".weight")), linear)
    };
    layers.map(named).collect()
}
