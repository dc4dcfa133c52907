//! The options of `kiln serve`.

use std::convert::Infallible;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use kiln_hub::Source;
use kiln_serve::Limits;

use super::shared::{adapter_folder, at_least_one, folder_or_source};
use super::{HubArgs, Pooled, PrecisionArgs};

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Bundles, folders of models or of runs, or sources as in `kiln pull`; NAME=FOLDER sets a name
    #[arg(required = true, value_name = "BUNDLE", value_parser = named)]
    pub models: Vec<Named>,
    /// Adapter of the single model, served instead of it; several share the model's memory; NAME=FOLDER sets a name
    #[arg(long = "adapter", value_name = "FOLDER", value_parser = named_folder)]
    pub adapters: Vec<NamedFolder>,
    /// Address to listen on; one that other machines can reach needs --key-file or --without-keys
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port to listen on; 0 selects any free port
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// File with the API keys of clients, one NAME:KEY per line; a key has at least 16 characters
    #[arg(long, value_name = "FILE", conflicts_with = "without_keys")]
    pub key_file: Option<PathBuf>,
    /// Accept requests without a key, from anyone who can reach --host
    #[arg(long)]
    pub without_keys: bool,
    /// Certificate chain for TLS (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Origin whose pages may call the server (CORS), such as https://example.org, or * for all
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    pub cors_origin: Option<String>,
    /// Truncate texts that are too long, unless a request says otherwise; by default they are rejected
    #[arg(long)]
    pub truncate: bool,
    /// How hidden states are pooled into vectors; by default as the bundle or the checkpoint's sentence-transformers files
    /// say
    #[arg(long, value_enum)]
    pub pooling: Option<Pooled>,
    /// Return probabilities without a model's calibration
    #[arg(long)]
    pub raw: bool,
    /// Number of compute threads; by default as many as the process may use
    #[arg(long, value_name = "COUNT", value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Log events of the server, but no requests
    #[arg(long)]
    pub no_request_log: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// The limits of the server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Maximum bytes of a request's body; a longer one gets status 413
    #[arg(long, value_name = "BYTES", value_parser = at_least_one, default_value_t = Limits::default().body_bytes)]
    pub max_body: usize,
    /// Maximum texts in a request; more get status 422
    #[arg(long, value_name = "COUNT", value_parser = at_least_one, default_value_t = Limits::default().texts)]
    pub max_texts: usize,
    /// Maximum tokens of a text that is read in windows; a longer one gets status 422
    #[arg(long, value_name = "COUNT", value_parser = at_least_one, default_value_t = Limits::default().text_tokens)]
    pub max_text_tokens: usize,
    /// Maximum tokens in the queue, for all requests together; further requests get status 429, and a larger one 413
    #[arg(long, value_name = "COUNT", value_parser = at_least_one, default_value_t = Limits::default().queue_tokens)]
    pub max_queue_tokens: usize,
    /// Maximum open connections; more get status 503
    #[arg(long, value_name = "COUNT", value_parser = at_least_one, default_value_t = Limits::default().connections)]
    pub max_connections: usize,
    /// Maximum seconds to answer a request; after that it gets status 504
    #[arg(long, value_name = "SECONDS", default_value_t = Seconds(Limits::default().deadline))]
    pub deadline: Seconds,
    /// Seconds to finish the remaining requests when the server shuts down
    #[arg(long, value_name = "SECONDS", default_value_t = Seconds(Limits::default().drain_time))]
    pub drain_time: Seconds,
}

/// A duration, written as a number of seconds.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.map(Self).ok_or("expected a number of seconds")
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.as_secs_f64().fmt(f)
    }
}

/// A model and its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    pub name: String,
    pub source: Source,
}

/// An adapter's folder and its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedFolder {
    pub name: String,
    pub folder: PathBuf,
}

/// Parses `NAME=FOLDER`, or a folder or source from which the name is derived.
fn named(text: &str) -> Result<Named, String> {
    let (name, source) = name_and_place(text);
    Ok(Named { name, source: folder_or_source(source)? })
}

/// Parses `NAME=FOLDER`, or a folder from which the name is derived.
fn named_folder(text: &str) -> Result<NamedFolder, Infallible> {
    let (name, folder) = name_and_place(text);
    Ok(NamedFolder { name, folder: adapter_folder(Path::new(folder)) })
}

fn name_and_place(text: &str) -> (String, &str) {
    let given = text.split_once('=').filter(|(name, _)| !name.is_empty() && name.chars().all(is_plain));
    // An existing folder whose name contains `=` is that folder.
    match given.filter(|_| !Path::new(text).is_dir()) {
        Some((name, place)) => (name.to_owned(), place),
        None => (name_of(text), text),
    }
}

/// The name of a path or source: its last meaningful part.
fn name_of(text: &str) -> String {
    let before_revision = text.rsplit_once('@').filter(|(_, revision)| !revision.contains('/'));
    let text = before_revision.map_or(text, |(source, _)| source);
    let mut parts = text.trim_end_matches('/').rsplit(['/', '\\', ':']);
    let last = parts.next().unwrap_or_default();
    // A run's folder has its model in `model`, and an adapter in `adapter`.
    let telling = if ["model", "adapter"].contains(&last) {
        parts.next().filter(|part| !part.is_empty()).unwrap_or(last)
    } else {
        last
    };
    let telling = telling.trim_end_matches(".bundle");
    telling.chars().map(|character| if is_plain(character) { character } else { '-' }).collect()
}

fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || "-_.".contains(character)
}

/// An origin as browsers send it: a scheme and a host, without a path.
fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_plain = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', ' ']) && host.is_ascii();
    match text == "*" || host.is_some_and(is_plain) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("expected * or an origin without a path, such as https://example.org".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_no_path() {
        for text in ["*", "https://example.org", "http://127.0.0.1:8080"] {
            assert_eq!(origin(text), Ok(text.to_owned()));
        }
        assert_eq!(origin("http://Host"), Ok("http://host".to_owned()));
        for text in ["http://a/", "a", "", "http://", "https://a b", "HTTP://a"] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_model_is_named_after_its_place() {
        for (text, expected) in [
            ("runs/hotel/model", "hotel"),
            ("runs/hotel/", "hotel"),
            ("hotel.bundle", "hotel"),
            ("model", "model"),
            ("hf:google-bert/bert-base-chinese@main", "bert-base-chinese"),
            ("dir:a b", "a-b"),
            ("sample", "sample"),
        ] {
            assert_eq!(name_of(text), expected, "{text}");
        }
        assert_eq!(named("reviews=sample").map(|named| named.name), Ok("reviews".to_owned()));
        assert_eq!(named("sample").map(|named| named.name), Ok("sample".to_owned()));
        assert!(named("reviews=/no/such/folder").is_err());
    }
}
