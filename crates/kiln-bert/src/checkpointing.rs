use std::sync::{Arc, Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::{Bool, Device, Distribution, Gradients, Tensor};
use kiln_kernels::{DropoutSeeds, Products, Queries};

use crate::BertEncoder;

/// Gradient checkpointing (Chen et al., 2016): the forward pass keeps only the input of each layer, and the backward pass
/// computes each layer again before its gradients. This takes a third more time, and the memory of one layer instead of
/// all. Without dropout the gradients are identical to the bit.
///
/// Clones share the kept inputs. Call [`Bert::backward`](crate::Bert::backward) after each forward pass: another forward
/// pass before it panics, because the encoder would silently get no gradients from the first.
#[derive(Clone, Debug, Default)]
pub struct LayerInputs(Arc<Mutex<Option<Kept>>>);

/// The inputs of a forward pass of the encoder.
pub(crate) struct Pass {
    /// The embeddings under autodiff, `[batch, seq, hidden]`.
    pub embedded: Tensor<3>,
    /// `[batch, seq]`, true where a position is padding.
    pub padding: Tensor<2, Bool>,
    pub queries: Queries,
    /// Whether a loss reads the hidden states of every layer.
    pub keeps_outputs: bool,
}

/// A forward pass that waits for its gradients.
#[derive(Debug)]
struct Kept {
    /// The embeddings under autodiff, from which the backward pass continues.
    embedded: Tensor<3>,
    padding: Tensor<2, Bool>,
    queries: Queries,
    /// Seed of the dropout of all layers.
    seed: u64,
    /// The input of each layer.
    inputs: Vec<Tensor<3>>,
    /// The hidden states that the loss reads, each a leaf of its graph: the input of the first layer, then the output of
    /// each layer. None for those that the loss does not read.
    leaves: Vec<Option<Tensor<3>>>,
}

impl LayerInputs {
    /// Runs [`BertEncoder::forward`] without a graph, and keeps the input of each layer. Returns the hidden states for the
    /// loss: those of the last layer or, if all outputs are kept, those of [`BertEncoder::forward_each`].
    ///
    /// # Panics
    /// When an earlier forward pass still waits for its backward pass.
    pub(crate) fn forward(&self, encoder: &BertEncoder, pass: Pass, products: &Products) -> Vec<Tensor<3>> {
        assert!(
            !self.is_waiting(),
            "a forward pass waits for `Bert::backward`; without it the encoder gets no gradients"
        );
        let Pass { embedded, padding, queries, keeps_outputs } = pass;
        let queries = if keeps_outputs { Queries::All } else { queries };
        let seed = draw(&embedded.device().inner());
        let leaf = |states: &Tensor<3>| Tensor::from_inner(states.clone()).require_grad();
        let mut hidden_states = embedded.clone().inner();
        let mut inputs = Vec::with_capacity(encoder.steps().len());
        let mut leaves = vec![keeps_outputs.then(|| leaf(&hidden_states))];
        for (at, layer) in encoder.steps().enumerate() {
            inputs.push(hidden_states.clone());
            let is_last = at + 1 == encoder.steps().len();
            // Without autodiff burn disables dropout, even in a layer that is not frozen.
            let plain = if layer.drops() { layer.valid().unfreeze() } else { layer.valid() };
            let products = of_layer(products, seed, at);
            let queries = if is_last { queries } else { Queries::All };
            hidden_states = plain.forward(hidden_states, padding.clone(), queries, &products);
            leaves.push((keeps_outputs || is_last).then(|| leaf(&hidden_states)));
        }
        let states = leaves.iter().flatten().cloned().collect();
        let kept = Kept { embedded, padding, queries, seed, inputs, leaves };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        states
    }

    /// Whether a forward pass waits for its backward pass.
    pub fn is_waiting(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Continues the backward pass after the head: through the layers from the last to the first, then the embeddings.
    /// `add` receives the gradients of each.
    ///
    /// # Panics
    /// When there was no forward pass, or `gradients` were not computed from its output.
    pub(crate) fn backward(
        &self,
        encoder: &BertEncoder,
        products: &Products,
        gradients: &Gradients,
        mut add: impl FnMut(Gradients),
    ) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Kept { embedded, padding, mut queries, seed, inputs, leaves } = kept.expect("a forward pass has been kept");
        let of_loss = |at: usize| leaves[at].as_ref().and_then(|leaf| leaf.grad(gradients));
        let mut gradient = of_loss(inputs.len()).expect("the loss depends on the hidden states");
        for ((at, layer), input) in encoder.steps().enumerate().zip(inputs).rev() {
            // The embeddings, below the first layer, may be frozen.
            let goes_on = at > 0 || embedded.is_tracked();
            let input = Tensor::from_inner(input);
            let input = if goes_on { input.require_grad() } else { input };
            let products = of_layer(products, seed, at);
            let output = layer.forward(input.clone(), padding.clone(), queries, &products);
            if !output.is_tracked() {
                return;
            }
            let gradients = (output * Tensor::from_inner(gradient)).sum().backward();
            let of_input = goes_on.then(|| input.grad(&gradients).expect("a layer's output depends on its input"));
            add(gradients);
            let Some(of_input) = of_input else { return };
            gradient = match of_loss(at) {
                Some(of_loss) => of_input + of_loss,
                None => of_input,
            };
            queries = Queries::All;
        }
        add((embedded * Tensor::from_inner(gradient)).sum().backward());
    }
}

/// A seed from the device's random stream.
fn draw(device: &Device) -> u64 {
    let draw = Tensor::<1>::random([2], Distribution::Uniform(0.0, 1.0), device).into_data();
    draw.iter::<f32>().fold(0, |seed, part| seed << 32 | u64::from(part.to_bits()))
}

/// The settings for the products of one layer, with the same dropout each time that the layer is computed.
fn of_layer(products: &Products, seed: u64, layer: usize) -> Products {
    let seed = seed ^ (layer as u64 + 1).wrapping_mul(0xd605_bbb5_8c8a_bbfd);
    Products { dropout_seeds: Some(DropoutSeeds::new(seed)), ..products.clone() }
}
