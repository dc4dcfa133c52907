use std::sync::Arc;

use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::{Bool, Device, Gradients, Int, Tensor, TensorData};
use kiln_kernels::{Products, Queries, is_fused};

use crate::checkpointing::Pass;
use crate::{BertConfig, BertEmbeddings, BertEncoder, BertPooler, LayerInputs, LayerOutputs, Linear};

/// Embeddings, encoder and, if the checkpoint has one, the pooler.
#[derive(Module, Debug)]
pub struct Bert {
    /// Token ids to vectors.
    pub embeddings: BertEmbeddings,
    /// Projection of the embeddings to the hidden size, in families that have one.
    pub embeddings_project: Option<Linear>,
    /// The stack of layers.
    pub encoder: BertEncoder,
    /// Normalization of the last layer's output, in encoders with pre-normalization.
    pub final_norm: Option<LayerNorm>,
    /// Absent in checkpoints trained without next-sentence prediction.
    pub pooler: Option<BertPooler>,
    /// How the encoder's matrix products are computed.
    #[module(skip)]
    pub products: Products,
    /// If set, training uses gradient checkpointing: a backward pass is only complete after [`Bert::backward`].
    #[module(skip)]
    pub layer_inputs: Option<LayerInputs>,
    /// If set, a forward pass stores the hidden states of all layers here.
    #[module(skip)]
    pub layer_outputs: Option<LayerOutputs>,
    /// Precomputed hidden states of a frozen encoder.
    #[module(skip)]
    pub known_states: Option<Arc<dyn KnownStates>>,
}

/// Precomputed hidden states, which replace the computation of a frozen encoder.
pub trait KnownStates: std::fmt::Debug + Send + Sync {
    /// The hidden states of a batch; none if those of some rows are not known.
    ///
    /// # Shapes
    /// - `inputs`: three tensors `[batch, seq]`
    /// - output: `[batch, seq, hidden]`, with any values at padding
    fn get(&self, inputs: &Inputs) -> Option<Tensor<3>>;
}

impl BertConfig {
    /// An encoder with fresh weights, including the pooler. A weight takes no memory until it is first used or loaded.
    pub fn init(&self, device: &Device) -> Bert {
        Bert {
            embeddings: BertEmbeddings::init(self, device),
            embeddings_project: self
                .projects_embeddings()
                .then(|| self.init_linear(self.embedding_size(), self.hidden_size, device)),
            encoder: BertEncoder::init(self, device),
            final_norm: self.family().has_pre_norm.then(|| self.init_layer_norm(self.hidden_size, device)),
            pooler: Some(self.init_pooler(device)),
            products: Products::default(),
            layer_inputs: None,
            layer_outputs: None,
            known_states: None,
        }
    }

    /// A fresh pooler, for a checkpoint that has none: the layers before the output layer of a sentence-level head in the
    /// config's family.
    pub fn init_pooler(&self, device: &Device) -> BertPooler {
        BertPooler::init(self, device)
    }
}

impl Bert {
    /// The last layer's hidden states. Dropout is active only on a device with autodiff.
    ///
    /// # Shapes
    /// - `inputs`: three tensors `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    /// When `seq` is above the config's [`max_sequence_length`](BertConfig::max_sequence_length); when an id is negative or
    /// not below the number of entries of its table; with gradient checkpointing, when an earlier forward pass still waits
    /// for [`Bert::backward`].
    pub fn forward(&self, inputs: Inputs) -> Tensor<3> {
        match self.known_states.as_ref().and_then(|known| known.get(&inputs)) {
            Some(states) => states,
            None => self.hidden_states(inputs, Queries::All),
        }
    }

    /// The width of a hidden state.
    pub fn hidden_size(&self) -> usize {
        self.encoder.layer.first().expect("an encoder has layers").hidden_size()
    }

    /// The number of parameters, including weights that are stored in another form. [`Module::num_params`] does not count
    /// those.
    pub fn parameter_count(&self) -> usize {
        let mut bert = self.clone();
        let layers = bert.linear_layers();
        let stored = layers.iter().filter(|(_, linear)| linear.is_stored());
        self.num_params() + stored.map(|(_, linear)| linear.shape().iter().product::<usize>()).sum::<usize>()
    }

    /// The encoder's linear layers with BERT's names, such as `encoder.layer.0.attention.self.query`. The pooler's is the
    /// last.
    pub fn linear_layers(&mut self) -> Vec<(String, &mut Linear)> {
        let mut layers = Vec::new();
        if let Some(project) = &mut self.embeddings_project {
            layers.push(("embeddings_project".to_owned(), project));
        }
        for (at, layer) in self.encoder.layer.iter_mut().enumerate() {
            let named = layer.linear_layers().into_iter();
            layers.extend(named.map(|(name, linear)| (format!("encoder.layer.{at}.{name}"), linear)));
        }
        if let Some(pooler) = &mut self.pooler {
            layers.push(("pooler.dense".to_owned(), &mut pooler.dense));
        }
        layers
    }

    /// [`Bert::forward`] for the first token of each row, which is all that a pooler or a head on `[CLS]` reads. The last
    /// layer computes no other tokens.
    ///
    /// # Shapes
    /// - `inputs`: three tensors `[batch, seq]`
    /// - output: `[batch, 1, hidden]`
    pub fn forward_first(&self, inputs: Inputs) -> Tensor<3> {
        self.hidden_states(inputs, Queries::First)
    }

    fn hidden_states(&self, inputs: Inputs, queries: Queries) -> Tensor<3> {
        let Inputs { input_ids, attention_mask, token_type_ids } = inputs;
        // padding = [batch, seq]
        let padding = attention_mask.equal_elem(0);
        let embedded = self.embeddings.forward(input_ids, token_type_ids);
        let embedded = match &self.embeddings_project {
            Some(project) => project.forward(embedded),
            None => embedded,
        };
        let outputs = self.layer_outputs.as_ref().filter(|outputs| outputs.keeps(&embedded));
        let [_, seq, _] = embedded.dims();
        let (embedded, padding) = if outputs.is_none() { lengthened(embedded, padding) } else { (embedded, padding) };
        let states = match (&self.layer_inputs, outputs) {
            (Some(kept), _) if embedded.is_autodiff() => {
                let pass = Pass { embedded, padding, queries, keeps_outputs: outputs.is_some() };
                kept.forward(&self.encoder, pass, &self.products)
            }
            (_, Some(_)) => self.encoder.forward_each(embedded, padding, &self.products),
            (_, None) => vec![self.encoder.forward(embedded, padding, queries, &self.products)],
        };
        let last = states.last().expect("the last layer's at least").clone();
        let last = match outputs {
            Some(outputs) => {
                outputs.keep(states);
                queries.select(last)
            }
            None => last,
        };
        let [_, positions, _] = last.dims();
        let last = if positions > seq { last.narrow(1, 0, seq) } else { last };
        match &self.final_norm {
            Some(norm) => norm.forward(last),
            None => last,
        }
    }

    /// The values of a layer's self-attention, which attention averages.
    ///
    /// # Shapes
    /// - `hidden_states`: what the layer reads, `[batch, seq, hidden]`
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn values(&self, layer: usize, hidden_states: Tensor<3>) -> Tensor<3> {
        let layer = self.encoder.steps().nth(layer).expect("there is such a layer");
        layer.values(hidden_states, &self.products)
    }

    /// Keeps only these layers, in this order.
    ///
    /// # Panics
    /// When there is no such layer, for example because layers share weights.
    pub fn keep_layers(&mut self, layers: &[usize]) {
        self.encoder.keep(layers);
    }

    /// With gradient checkpointing, completes the backward pass of a loss: `add` receives the remaining gradients of this
    /// module's parameters. Without it, does nothing.
    ///
    /// # Panics
    /// When `gradients` were not computed from a loss on the last forward pass's output.
    pub fn backward(&self, gradients: &Gradients, add: impl FnMut(Gradients)) {
        if let Some(kept) = &self.layer_inputs {
            kept.backward(&self.encoder, &self.products, gradients, add);
        }
    }
}

/// GPU kernels are compiled while the program runs, some of them for each sequence length. Texts are therefore padded
/// to a multiple of this length: computing padding is cheaper than compiling.
const COMPILED_LENGTH: usize = 64;

/// Pads the input of the layers to a multiple of [`COMPILED_LENGTH`], on all backends except flex.
fn lengthened(embedded: Tensor<3>, padding: Tensor<2, Bool>) -> (Tensor<3>, Tensor<2, Bool>) {
    let ([batch, seq, hidden], device) = (embedded.dims(), embedded.device());
    let further = seq.next_multiple_of(COMPILED_LENGTH) - seq;
    if further == 0 || is_fused(&device) {
        return (embedded, padding);
    }
    let states = Tensor::zeros([batch, further, hidden], &device);
    let behind = Tensor::<2, Int>::ones([batch, further], &padding.device()).bool();
    (Tensor::cat(vec![embedded, states], 1), Tensor::cat(vec![padding, behind], 1))
}

/// The input of an encoder: three tensors of the same shape.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Ids of tokens, `[batch, seq]`.
    pub input_ids: Tensor<2, Int>,
    /// 1 for a real token, 0 for padding, `[batch, seq]`.
    pub attention_mask: Tensor<2, Int>,
    /// Segment of each token, `[batch, seq]`.
    pub token_type_ids: Tensor<2, Int>,
}

impl Inputs {
    /// Moves three row-major arrays of the shape `[batch, seq]` to the device.
    ///
    /// # Panics
    /// When an array's length is not `batch · seq`.
    pub fn new(
        input_ids: &[i32],
        attention_mask: &[i32],
        token_type_ids: &[i32],
        shape: [usize; 2],
        device: &Device,
    ) -> Self {
        let tensor = |ids: &[i32]| Tensor::from_data(TensorData::new(ids.to_vec(), shape), device);
        Self {
            input_ids: tensor(input_ids),
            attention_mask: tensor(attention_mask),
            token_type_ids: tensor(token_type_ids),
        }
    }
}
