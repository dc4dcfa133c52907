//! Tests of a server on loopback with a small untrained model for each task, over TCP.

#[path = "../examples/untrained/mod.rs"]
mod untrained;

#[path = "serve/client.rs"]
mod client;
#[path = "serve/running.rs"]
mod running;

#[path = "serve/errors.rs"]
mod errors;
#[path = "serve/hugging_face.rs"]
mod hugging_face;
#[path = "serve/invariance.rs"]
mod invariance;
#[path = "serve/lifecycle.rs"]
mod lifecycle;
#[path = "serve/limits.rs"]
mod limits;
#[path = "serve/open_ai.rs"]
mod open_ai;
#[path = "serve/tei.rs"]
mod tei;
#[path = "serve/tls.rs"]
mod tls;
