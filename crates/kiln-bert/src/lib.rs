//! BERT as published: embeddings, encoder and pooler as burn modules whose parameters have Hugging Face's names. It reads
//! and writes Hugging Face checkpoints. Heads, batches and training are in other crates.
//!
//! ```
//! use burn::tensor::Tensor;
//! use kiln_backend::{Backend, Flex};
//! use kiln_bert::{BertConfig, Inputs};
//!
//! let device = Flex::device(0);
//! let config = BertConfig { vocab_size: 100, hidden_size: 32, num_attention_heads: 4, num_hidden_layers: 2, ..BertConfig::base() };
//! let bert = config.init(&device);
//! let inputs = Inputs::new(&[2, 7, 9, 3], &[1, 1, 1, 1], &[0, 0, 0, 0], [1, 4], &device);
//! let hidden_states: Tensor<3> = bert.forward(inputs);
//! assert_eq!(hidden_states.dims(), [1, 4, 32]);
//! ```
//!
//! See `examples/hidden_states.rs`. A good order to read the modules is `embeddings`, `encoder`, `pooler`.
#![deny(missing_docs)]

mod hidden_act;
mod family;
mod numbers;
mod config;
mod sharing;
mod pre_norm;
mod limits;
mod adapter;
mod input_ranges;
mod linear;
mod embeddings;
mod attention;
mod pre_norm_layer;
mod encoder;
mod pooler;
mod layer_outputs;
mod checkpointing;
mod bert;
mod shared_input;
mod names;
mod weights;
mod load;
mod save;
mod error;

pub use adapter::{Adapter, LoraFactor};
pub use attention::{BertAttention, BertOutput, BertSelfAttention};
pub use bert::{Bert, Inputs, KnownStates};
pub use checkpointing::LayerInputs;
pub use config::{BertConfig, Size};
pub use embeddings::BertEmbeddings;
pub use encoder::{BertEncoder, BertIntermediate, BertLayer, EncoderLayer};
pub use error::Error;
pub use family::{FAMILIES, Family, Positions, Projection, Rename, SentenceHead};
pub use hidden_act::HiddenAct;
pub use input_ranges::InputRanges;
pub use layer_outputs::LayerOutputs;
pub use limits::{MOST_PARAMETERS, reserve};
pub use linear::Linear;
pub use load::{
    InFile, Loaded, groups, initialize, layers, load, load_as, load_bert, load_bert_in_file, load_bert_stored,
    stored_tensors, tensor_names,
};
pub use names::{NamedParameter, ParameterPath, parameters, parameters_where};
pub use pooler::BertPooler;
pub use pre_norm_layer::{GatedFeedForward, PreNormAttention, PreNormLayer};
pub use save::{FloatType, StoredTensor, StoredType, save, save_stored, save_with_note};
pub use shared_input::{Giver, SharedInput};
pub use weights::{INPUT_RANGE, SMOOTHING, UNITS, Weights};
