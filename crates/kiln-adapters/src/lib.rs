//! LoRA, rsLoRA, DoRA and QLoRA adapters for the linear layers of an encoder, read and written in peft's format. An
//! adapter adds a low-rank product to a frozen weight; QLoRA stores that weight in 4 bits.
//!
//! ```
//! use kiln_adapters::{AdapterConfig, attach};
//! use kiln_backend::{Backend, Flex};
//! use kiln_bert::BertConfig;
//!
//! let device = Flex::device(0);
//! let config = BertConfig { hidden_size: 32, num_attention_heads: 4, num_hidden_layers: 2, ..BertConfig::base() };
//! let mut bert = config.init(&device);
//! let adapter = AdapterConfig { rank: 4, ..AdapterConfig::default() };
//! assert_eq!(attach(&mut bert, &config, &adapter, &device)?, 4, "the queries and values of two layers");
//! # Ok::<(), kiln_adapters::Error>(())
//! ```
//!
//! See `examples/share_a_base.rs`.
#![deny(missing_docs)]

mod modules;
mod config;
mod attach;
mod nf4;
mod quantize;
mod peft;
mod error;

pub use attach::{attach, merge};
pub use config::{AdapterConfig, Variant};
pub use error::Error;
pub use modules::{Modules, Patterns};
pub use nf4::{Absmax, Nf4};
pub use peft::{AdapterFile, PEFT_PREFIX, PeftConfig, adapter_parameters, load_adapter};
pub use quantize::quantize;
