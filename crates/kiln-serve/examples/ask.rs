//! Starts a server and sends one request: `cargo run --release -p kiln-serve --example ask [FOLDER]`
//! It serves a small untrained model for each task. With FOLDER it only writes the models there, for `kiln serve FOLDER/*`.
#![expect(clippy::print_stdout, reason = "an example prints")]

mod untrained;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use kiln_backend::{Backend, Flex};
use kiln_serve::{Model, ModelConfig, ServeConfig, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(folder) = std::env::args().nth(1) {
        for (name, folder) in untrained::untrained(folder.as_ref())? {
            println!("{name}={}", folder.display());
        }
        return Ok(());
    }
    let temporary = tempfile::tempdir()?;
    let folders = untrained::untrained(temporary.path())?;
    let load = move || {
        let config = ModelConfig { precision: None, pooling: None };
        let load =
            |(name, folder): &(String, PathBuf)| Model::from_folder(name.clone(), folder, config, &Flex::device(0));
        folders.iter().map(load).collect()
    };
    let server = Server::bind(ServeConfig::new(([127, 0, 0, 1], 0).into()), Box::new(load))?;
    let (address, handle) = (server.address(), server.handle());
    println!("{}", server.url());
    let running = std::thread::spawn(move || server.run());
    println!("{}", ask(address, "/predict", r#"{"inputs": "房间很干净"}"#)?);
    handle.shut_down();
    running.join().map_err(|_| "the server panicked")?;
    Ok(())
}

/// Sends a POST and returns the body of the response.
fn ask(address: SocketAddr, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n")?;
    write!(stream, "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}
