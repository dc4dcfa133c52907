use burn::module::Param;
use burn::tensor::{Device, Tensor};
use kiln_bert::{Adapter, Bert, BertConfig, Linear, SentenceHead};

use crate::modules::Targets;
use crate::{AdapterConfig, Error};

/// Attaches a fresh adapter to each layer that the config selects, and returns the number of these layers. Fresh adapters
/// do not change what the encoder computes. Their weights are drawn from the device's random stream.
///
/// # Errors
/// When a setting is invalid, a name matches no layer, or no layer is selected.
pub fn attach(bert: &mut Bert, encoder: &BertConfig, config: &AdapterConfig, device: &Device) -> Result<usize, Error> {
    config.check()?;
    let targets = Targets::new(config)?;
    let layers = named_layers(bert, encoder);
    let unknown = targets.without_layer(&names(&layers));
    if !unknown.is_empty() {
        return Err(no_target(unknown, &layers));
    }
    attach_where(layers, &targets, &|name| name.to_owned(), device)
}

/// [`attach`] for an adapter from a file. Its config may also name layers that this encoder lacks, as long as it names one
/// that it has. If `alone`, the adapter is for an encoder without a head, and its config may use names without the
/// family's prefix.
pub(crate) fn attach_of_file(
    bert: &mut Bert,
    encoder: &BertConfig,
    config: &AdapterConfig,
    alone: bool,
    device: &Device,
) -> Result<usize, Error> {
    let targets = Targets::new(config)?;
    let layers = named_layers(bert, encoder);
    let without_prefix = |name: &str| name.strip_prefix(encoder.family().prefix).unwrap_or(name).to_owned();
    match alone && layers.iter().any(|(name, _)| targets.contains(&without_prefix(name))) {
        true => attach_where(layers, &targets, &without_prefix, device),
        false => attach_where(layers, &targets, &|name| name.to_owned(), device),
    }
}

/// Attaches an adapter to each target. `named` converts a layer's full name to the name that is matched.
fn attach_where(
    mut layers: Vec<NamedLayer<'_>>,
    targets: &Targets<'_>,
    named: &dyn Fn(&str) -> String,
    device: &Device,
) -> Result<usize, Error> {
    let config = targets.config;
    let mut attached = 0;
    for (name, linear) in &mut layers {
        let name = named(name);
        if !targets.contains(&name) {
            continue;
        }
        let (rank, scale) = targets.shape(&name);
        let mut adapter = Adapter::new(linear.shape(), rank, scale, device);
        adapter.dropout = config.dropout;
        if config.variant.has_norms() {
            let norms: Tensor<1> = linear.dense_weight().square().sum_dim(0).sqrt().squeeze_dim(0);
            adapter.lora_magnitude_vector = Some(Param::from_tensor(norms));
        }
        kiln_bert::initialize(&adapter);
        linear.adapter = Some(adapter);
        attached += 1;
    }
    if attached > 0 {
        return Ok(attached);
    }
    Err(match layers.iter().map(|(name, _)| named(name)).find(|name| targets.names(name)) {
        Some(first) => Error::NoneLeft { first },
        None => no_target(config.target_modules.as_list().to_vec(), &layers),
    })
}

type NamedLayer<'a> = (String, &'a mut Linear);

fn names<'a>(layers: &'a [NamedLayer<'_>]) -> Vec<&'a str> {
    layers.iter().map(|(name, _)| name.as_str()).collect()
}

fn no_target(unknown: Vec<String>, layers: &[NamedLayer<'_>]) -> Error {
    let layers = names(layers);
    let mut known: Vec<String> = layers.iter().map(|name| name.rsplit('.').next().unwrap_or(name).to_owned()).collect();
    known.sort();
    known.dedup();
    Error::NoTarget { names: unknown, known, example: layers.first().copied().unwrap_or_default().to_owned() }
}

/// Merges every adapter into its layer's weight, which becomes one f32 tensor. The encoder computes the same as before.
pub fn merge(bert: &mut Bert) {
    for (_, linear) in bert.linear_layers() {
        *linear = linear.clone().merged();
    }
}

/// The encoder's linear layers with their family's names in a full model. Layers that transformers counts as part of the
/// head are excluded.
fn named_layers<'a>(bert: &'a mut Bert, encoder: &BertConfig) -> Vec<NamedLayer<'a>> {
    let family = encoder.family();
    let layers = bert.linear_layers().into_iter();
    let layers = layers.filter(|(name, _)| name != "pooler.dense" || family.sentence_head == SentenceHead::Pooler);
    let named = |(name, linear): (String, _)| {
        let tensor = encoder.tensor_name(&format!("{name}.weight"));
        (format!("{}{}", family.prefix, tensor.trim_end_matches(".weight")), linear)
    };
    layers.map(named).collect()
}
