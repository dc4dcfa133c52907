use std::io::{BufRead, BufReader, Write, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use kiln_hub::{Error, Proxies, Secret};
use kiln_loopback::{Hub, NO_REQUESTS};

use crate::client::{config, pull_with, shown};

/// A proxy that opens tunnels, and reports their destinations.
fn proxy() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    let address = listener.local_addr().expect("a bound listener has an address").to_string();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || tunnel(client, &sender));
        }
    });
    (address, receiver)
}

fn tunnel(mut client: TcpStream, sender: &mpsc::Sender<String>) -> Option<()> {
    let mut lines = BufReader::new(client.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let target = first.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    while !lines.next()?.ok()?.is_empty() {}
    sender.send(target.clone()).ok()?;
    let hub = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, hub.try_clone().ok()?);
    thread::spawn(move || copy(&mut from, &mut to));
    copy(&mut &hub, &mut client).ok()?;
    client.shutdown(Shutdown::Both).ok()
}

#[test]
fn hubs_and_content_hosts_are_reached_through_it_unless_they_are_excepted() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let (address, tunnels) = proxy();
    let http = Some(Secret::from(format!("http://{address}")));
    let mut config = config(&hub, cache.path());
    config.proxies = Proxies { http, ..Proxies::default() };
    pull_with(&config, "hf:owner/name").expect("a whole checkpoint");
    let targets: Vec<String> = tunnels.try_iter().collect();
    for server in [&hub.server, &hub.content] {
        assert!(targets.iter().any(|target| server.address.ends_with(target.as_str())), "{targets:?}");
    }

    let cache = tempfile::tempdir().expect("a folder");
    config.hugging_face.cache_dir = Some(cache.path().to_owned());
    config.proxies.direct = vec!["127.0.0.1".to_owned()];
    pull_with(&config, "hf:owner/name").expect("a whole checkpoint");
    assert_eq!(tunnels.try_iter().count(), 0);
}

#[test]
fn one_that_is_not_there_is_an_error_without_its_password() {
    let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
    let gone = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    let mut config = config(&hub, cache.path());
    config.proxies.http = Some(Secret::from(format!("http://user:proxy_secret@{gone}")));
    let error = pull_with(&config, "hf:owner/name").expect_err("no proxy");
    assert!(matches!(error, Error::Request { .. }), "{error}");
    assert!(!shown(&error).contains("secret"), "{}", shown(&error));
    assert_eq!(hub.requests(), NO_REQUESTS);
}
