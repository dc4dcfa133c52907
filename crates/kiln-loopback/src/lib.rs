//! A model hub on loopback for tests. It implements the interfaces of Hugging Face and ModelScope: files, revisions,
//! listings, redirects to a second host, ranges, and hashes in headers. On request it simulates network faults.
//!
//! ```
//! use std::io::{Read, Write};
//!
//! let hub = kiln_loopback::Hub::start();
//! let address = hub.server.address.trim_start_matches("http://");
//! let mut stream = std::net::TcpStream::connect(address)?;
//! stream.write_all(b"GET /owner/name/resolve/main/config.json HTTP/1.1\r\n\r\n")?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer)?;
//! assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"model_type": "bert"}"#));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Python's own clients are tested with it too: `cargo xtask ci clients`.
#![deny(missing_docs)]

mod server;

mod hub;

mod hugging_face;
mod model_scope;

mod content;

pub use content::{git_blob, sha256};
pub use hub::{COMMIT, Fault, Host, Hub, NO_REQUESTS, State};
pub use server::{Pace, Reply, Request, Server};
