//! Both hubs, spoken to over loopback: what lands on disk, what is asked for, and what is refused.

mod client;

mod hugging_face;
mod model_scope;
mod datasets;
mod fallback;

mod faults;
mod proxy;
mod safety;
