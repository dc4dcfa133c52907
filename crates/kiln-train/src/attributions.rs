use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use kiln_bert::ParameterPath;
use kiln_heads::{SequenceClassifier, inputs};
use kiln_schema::LabelId;
use kiln_tokenize::{Encoding, pad};

use crate::GradientSum;
use crate::adversarial::WORDS;

/// Gradient × input attributions: how much each token id of a text supports one label against another. An attribution is the
/// dot product of the token's word embedding and the gradient of the difference between the two logits. A token id that
/// occurs several times has the sum.
///
/// A. Shrikumar et al., "Not just a black box: learning important features through propagating activation differences", 2016,
/// section 2. This is a first-order approximation. It does not prove what the model would predict without the token.
///
/// `model` must not be in training mode, so that dropout does not change the gradient.
pub fn attributions(
    model: &SequenceClassifier,
    encoding: &Encoding,
    [label, other]: [LabelId; 2],
    device: &Device,
) -> BTreeMap<u32, f64> {
    let mut model = model.clone();
    model.bert.embeddings.read_words();
    let mut model = model.map(&mut Tracker::default());
    (model.bert.layer_inputs, model.bert.layer_outputs) = (None, None);
    // A single text is not padded.
    let batch = pad(std::slice::from_ref(encoding), &[0], 0);
    let logits = model.forward(inputs(&batch, &device.clone().autodiff()));
    let preference = logits.clone().narrow(1, label, 1) - logits.narrow(1, other, 1);
    let mut gradients = GradientSum::default();
    gradients.add(&model, preference.sum().backward());
    let Some((_, gradient)) = gradients.iter().find(|(name, _)| name.ends_with(WORDS)) else { return BTreeMap::new() };
    let words = model.bert.embeddings.word_embeddings.weight.val().inner();
    let products = (gradient.clone().reshape(words.shape()) * words).sum_dim(1);
    let products = products.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
    encoding.input_ids.iter().map(|&id| (id, f64::from(products[id as usize]))).collect()
}

/// Enables the gradient of the word embeddings only.
#[derive(Default)]
struct Tracker {
    path: ParameterPath,
}

impl ModuleMapper for Tracker {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_words = self.path.name().ends_with(WORDS);
        param.map(|weights| {
            let weights = Tensor::from_inner(weights);
            if is_words { weights.require_grad() } else { weights }
        })
    }
}
