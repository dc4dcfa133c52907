//! A checkpoint's encoder with a new head.

use kiln_adapters::{AdapterConfig, attach, quantize};
use kiln_bert::{Bert, InFile, LayerInputs, LayerOutputs};
use kiln_heads::PretrainedConfig;
use kiln_schema::Task;
use kiln_train::Scope;

use super::Described;
use super::settle::Plan;
use super::teacher::matching;
use crate::Observer;
use crate::observer::warn_of_layers;
use crate::recipe::Encoder;

/// How to load the checkpoint for the recipe. Also seeds the generator of random weights.
pub(crate) fn pretrained(plan: &Plan<'_>, num_labels: usize) -> PretrainedConfig {
    let model = &plan.recipe.model;
    plan.device.seed(plan.recipe.train.seed);
    PretrainedConfig {
        start: model.initialize,
        architecture: model.size.is_some().then(|| plan.checkpoint.config.clone()),
        layers: plan.recipe.student.as_ref().map(|student| student.layers.clone()),
        frozen: model.encoder == Encoder::Frozen,
        in_file: match model.encoder {
            // A masked language model multiplies with the word embeddings in every step.
            _ if plan.recipe.task == Task::MaskedLm => InFile::Nothing,
            Encoder::Full | Encoder::Frozen => InFile::Nothing,
            Encoder::Lora => InFile::Words,
            Encoder::Qlora => InFile::WordsAndLayers,
        },
        hidden_layers: model.hidden_layers.clone(),
        num_labels,
        head_initializer_range: model.head_initializer_range,
    }
}

/// Configures the encoder from the recipe: precision, gradient checkpointing, whether it is trained, the layer outputs to
/// compare with a teacher's, and the adapter.
pub(crate) fn prepare(plan: &Plan<'_>, bert: &mut Bert) -> anyhow::Result<()> {
    use burn::module::Module;
    let encoder = plan.recipe.model.encoder;
    bert.products.precision = plan.precision;
    let is_trained = encoder != Encoder::Frozen;
    bert.layer_inputs = (is_trained && plan.recipe.train.gradient_checkpointing).then(LayerInputs::default);
    bert.layer_outputs = matching(plan).map(|_| LayerOutputs::of_training());
    if !is_trained {
        *bert = bert.clone().freeze();
    }
    if encoder == Encoder::Qlora {
        quantize(bert, true);
    }
    if encoder.has_adapter() {
        attach(bert, &plan.checkpoint.config, &adapter(plan, bert), plan.device)?;
    }
    Ok(())
}

/// The recipe's adapter for an encoder. A new pooler is trained and saved with it.
pub(crate) fn adapter(plan: &Plan<'_>, bert: &Bert) -> AdapterConfig {
    let adapter = plan.recipe.adapter.clone();
    let has_fresh_pooler = bert.pooler.as_ref().is_some_and(|pooler| pooler.is_fresh);
    AdapterConfig { train_pooler: adapter.train_pooler || has_fresh_pooler, ..adapter }
}

/// Which parameters of a model with this encoder are trained.
pub(crate) fn scope(plan: &Plan<'_>, bert: &Bert) -> Scope {
    match plan.recipe.model.encoder {
        Encoder::Full => Scope::Whole,
        Encoder::Frozen => Scope::Head,
        Encoder::Lora | Encoder::Qlora => Scope::Adapters { pooler: adapter(plan, bert).train_pooler },
    }
}

/// Reports one line about the encoder, one about the head, and warnings about the checkpoint.
pub(crate) fn describe<M>(plan: &Plan<'_>, described: &Described<M>, longest: usize, observer: &mut dyn Observer) {
    let Described { pretrained, encoder_parameters, head, .. } = described;
    let config = &pretrained.config;
    let batch = plan.recipe.train.batch_size;
    let (layers, heads, hidden) = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size);
    let encoder = format!("L{layers} H{hidden} A{heads}, {encoder_parameters} parameters");
    observer.stage("model", "kiln-bert", &format_args!("{encoder}; hidden_states [{batch}, ≤ {longest}, {hidden}]"));
    observer.stage("", "kiln-heads", head);
    if pretrained.fresh_pooler {
        observer.warning(&"the checkpoint has no pooler; a fresh one is trained");
    }
    warn_of_layers(&pretrained.unused, observer);
    if !pretrained.unused.is_empty() {
        observer.stage("", "", &unused_tensors(&pretrained.unused));
    }
}

/// The unused tensors of a checkpoint, grouped by the part of the model that they belong to.
fn unused_tensors(names: &[String]) -> String {
    /// More would not fit on a line.
    const MOST_PARTS: usize = 4;
    let mut parts: Vec<String> = names
        .iter()
        .map(|name| match name.split('.').collect::<Vec<_>>()[..] {
            [first, second, _, ..] => format!("{first}.{second}.*"),
            [first, _] => format!("{first}.*"),
            _ => name.clone(),
        })
        .collect();
    parts.sort();
    parts.dedup();
    let more = parts.len().saturating_sub(MOST_PARTS);
    parts.truncate(MOST_PARTS);
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    let tensors = if names.len() == 1 { "tensor" } else { "tensors" };
    format!("unused: {} {tensors} ({})", names.len(), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_tensors_are_one_short_line() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let cls = names(&["cls.predictions.bias", "cls.predictions.transform.dense.weight"]);
        assert_eq!(unused_tensors(&cls), "unused: 2 tensors (cls.predictions.*)");
        assert_eq!(unused_tensors(&names(&["classifier.bias"])), "unused: 1 tensor (classifier.*)");
        let many = names(&["a.a", "b.b", "c.c", "d.d", "e.e.e", "e.e.f", "logit_scale"]);
        assert_eq!(unused_tensors(&many), "unused: 7 tensors (a.*, b.*, c.*, d.*, 2 more)");
    }
}
