//! Tests of both hubs over loopback: the files on disk, the requests, and what is refused.

mod client;

mod hugging_face;
mod model_scope;
mod datasets;
mod fallback;

mod faults;
mod proxy;
mod safety;
