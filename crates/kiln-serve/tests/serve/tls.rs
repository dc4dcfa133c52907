//! TLS, with a certificate for these tests (`certificates/`, valid for a hundred years).

use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_serve::{Server, TlsFiles};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{connect, read, request};
use crate::running::{JSON, MODELS, Running, config, load};

fn certificates(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/certificates").join(name)
}

fn files() -> TlsFiles {
    TlsFiles { certificate: certificates("server.pem"), key: certificates("server.key") }
}

#[test]
fn a_request_over_tls() {
    let server = Running::new(|config| config.tls = Some(files()));
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(certificates("authority.pem")).expect("it is PEM");
    roots.add(authority).expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("there are some")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("it is a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("the configuration is whole");
    let mut stream = StreamOwned::new(connection, connect(server.address));
    let ask = request("POST", "/predict", &[JSON], "{\"inputs\": \"房间\"}");
    stream.write_all(ask.as_bytes()).expect("the server reads");
    let answer = read(&mut BufReader::new(stream)).expect("the server answers");
    assert!(answer.status == 200 && answer.json()[0]["label"].is_string(), "{}", answer.body);

    let mut plain = connect(server.address);
    plain.write_all(ask.as_bytes()).expect("the server reads");
    assert!(read(&mut BufReader::new(plain)).is_none_or(|answer| answer.status != 200), "it speaks no plain HTTP");
}

#[test]
fn a_wrong_certificate_or_key_is_named() {
    let fails = |certificate: &str, key: &str| {
        let tls = Some(TlsFiles { certificate: certificates(certificate), key: certificates(key) });
        let config = kiln_serve::ServeConfig { tls, ..config() };
        Server::bind(config, Box::new(|| load(&MODELS.1))).expect_err("it cannot start").to_string()
    };
    assert!(fails("none.pem", "server.key").contains("none.pem"));
    assert!(fails("server.key", "server.key").contains("no certificate"));
    assert!(fails("server.pem", "authority.pem").contains("authority.pem: there is no private key"));
    assert!(fails("authority.pem", "server.key").contains("does not belong to"));
}
