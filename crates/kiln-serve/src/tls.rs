use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;
use crate::config::TlsFiles;

/// Reads a certificate chain and its private key, both in PEM.
pub fn config(files: &TlsFiles) -> Result<Arc<ServerConfig>, Error> {
    let TlsFiles { certificate, key } = files;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| broken(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(broken(certificate, "there is no certificate in it; expected PEM".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| broken(key, format!("there is no private key in it, expected PEM: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(certificate, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| broken(certificate, format!("it does not belong to {}: {error}", key.display())))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    kiln_files::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn broken(path: &Path, reason: String) -> Error {
    Error::Tls { path: path.to_owned(), reason }
}
