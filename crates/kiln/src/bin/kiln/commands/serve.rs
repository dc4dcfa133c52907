//! `kiln serve`: serves models over HTTP until a signal ends it.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;
use kiln::fetch::fetch_model;
use kiln::recipe::available;
use kiln::{UsageError, check_adapter};
use kiln_backend::Backend;
use kiln_serve::{Event, Handle, Limits, Model, ModelConfig, ServeConfig, Server, TlsFiles};

use crate::cli::{LimitArgs, ServeArgs};
use crate::console;
use crate::observer::Console;

pub fn run<B: Backend>(arguments: &ServeArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let config = serve_config(arguments)?;
    let pooling = arguments.pooling.map(Into::into);
    let precision = arguments.precision.precision.map(available::<B>).transpose()?;
    let model_config = ModelConfig { precision, pooling };
    let mut models = Vec::new();
    for model in &arguments.models {
        let folder = fetch_model(&model.source, &arguments.hub.options(), &mut Console::default())?;
        models.push((model.name.clone(), folder));
    }
    let base = adapters_base(arguments, &models)?;
    if let Some(base) = &base {
        arguments.adapters.iter().try_for_each(|named| check_adapter(base, &named.folder))?;
    }
    let adapters: Vec<_> = arguments.adapters.iter().map(|named| (named.name.clone(), named.folder.clone())).collect();
    let (device, raw) = (device.clone(), arguments.raw);
    let load = move || {
        let as_asked = |model: Model| if raw { model.without_calibration() } else { model };
        if let Some(base) = &base {
            let models = Model::from_adapters(base, &adapters, model_config, &device)?;
            return Ok(models.into_iter().map(as_asked).collect());
        }
        let load = |(name, folder): &(String, PathBuf)| {
            Model::from_folder(name.clone(), folder, model_config, &device).map(as_asked)
        };
        models.iter().map(load).collect()
    };
    let server = Server::bind(config, Box::new(load))?;
    watch_signals(server.handle())?;
    let url = server.url();
    match json {
        true => console::json(&serde_json::json!({ "url": url }))?,
        false => console::result(&url)?,
    }
    server.run();
    Ok(())
}

/// The folder of the base model of the adapters, if there are adapters.
fn adapters_base(arguments: &ServeArgs, models: &[(String, PathBuf)]) -> Result<Option<PathBuf>, UsageError> {
    match models {
        _ if arguments.adapters.is_empty() => Ok(None),
        [(_, folder)] if !kiln_bundle::is_bundle(folder) => Ok(Some(folder.clone())),
        [(name, _)] => Err(UsageError(format!("`{name}` is a bundle; --adapter needs the adapter's base model"))),
        _ => Err(UsageError(format!("found {} models; --adapter needs one, the adapters' base", models.len()))),
    }
}

fn serve_config(arguments: &ServeArgs) -> Result<ServeConfig, UsageError> {
    let ServeArgs { host, port, key_file, without_keys, .. } = arguments;
    if !host.is_loopback() && key_file.is_none() && !without_keys {
        let message = format!(
            "{host} can be reached from other machines: give --key-file, or allow all requests with --without-keys"
        );
        return Err(UsageError(message));
    }
    let tls = arguments.tls_certificate.clone().zip(arguments.tls_key.clone());
    let log_requests = !arguments.no_request_log;
    let log = move |event: &Event| {
        if log_requests || !matches!(event, Event::Request(_)) {
            log(event);
        }
    };
    Ok(ServeConfig {
        key_file: key_file.clone(),
        without_keys: *without_keys,
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        cors_origin: arguments.cors_origin.clone(),
        threads: arguments.threads,
        truncate: arguments.truncate,
        limits: limits(&arguments.limits),
        log: Arc::new(log),
        ..ServeConfig::new((*host, *port).into())
    })
}

fn limits(arguments: &LimitArgs) -> Limits {
    Limits {
        body_bytes: arguments.max_body,
        texts: arguments.max_texts,
        text_tokens: arguments.max_text_tokens,
        queue_tokens: arguments.max_queue_tokens,
        connections: arguments.max_connections,
        deadline: arguments.deadline.0,
        drain_time: arguments.drain_time.0,
        ..Limits::default()
    }
}

/// Writes a line of JSON for each event to standard error.
fn log(event: &Event) {
    if let Ok(line) = serde_json::to_string(event) {
        console::log(line);
    }
}

/// The first SIGTERM or SIGINT stops the server after its remaining requests, the second ends the process. SIGHUP reloads.
#[cfg(unix)]
fn watch_signals(handle: Handle) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let receive = move || {
        let mut is_ending = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP => handle.reload(),
                signal if is_ending => std::process::exit(128 + signal),
                _ => {
                    is_ending = true;
                    handle.shut_down();
                }
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(receive)?;
    Ok(())
}

#[cfg(not(unix))]
fn watch_signals(handle: Handle) -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(move || handle.shut_down())?)
}
