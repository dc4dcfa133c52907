//! An HTTP server for models: one queue, the routes of known clients, and a page to try models.
//! A [`Server`] has the routes of Hugging Face, text-embeddings-inference, OpenAI and KServe. One worker thread computes
//! all requests in batches of similar length.
//!
//! ```no_run
//! use kiln_backend::{Backend, Flex};
//! use kiln_kernels::Precision;
//! use kiln_serve::{Model, ModelConfig, ServeConfig, Server};
//!
//! let config = ModelConfig { precision: Some(Precision::Bf16), pooling: None };
//! let load = move || {
//!     let model = Model::from_folder("hotel".to_owned(), "runs/hotel/model".as_ref(), config, &Flex::device(0))?;
//!     Ok(vec![model])
//! };
//! let server = Server::bind(ServeConfig::new(([127, 0, 0, 1], 8080).into()), Box::new(load))?;
//! let handle = server.handle();
//! // Elsewhere, when the process is told to end:
//! handle.shut_down();
//! server.run();
//! # Ok::<(), kiln_serve::Error>(())
//! ```
//!
//! See `examples/ask.rs`.
#![deny(missing_docs)]

mod config;
mod model;
mod queue;
mod metrics;
mod keys;
mod tls;
mod refusal;
mod inputs;
mod app;
mod call;
mod observe;
mod routes;
mod page;
mod listener;
mod server;
mod live;
mod error;

pub use config::{Event, Limits, RequestEvent, ServeConfig, TlsFiles};
pub use error::Error;
pub use live::{MakePage, serve_page};
pub use model::{Ability, Details, Model, ModelConfig};
pub use server::{Handle, Load, Server};
