use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::app::App;

/// Accepts connections and serves their requests.
///
/// It does not use `axum::serve`, because the limits apply to connections: their number, the time for a request's head, and
/// the requests to finish while the server drains.
#[derive(Debug)]
pub struct Listener {
    pub socket: TcpListener,
    pub router: Router,
    pub app: Arc<App>,
    /// The TLS configuration, if TLS is on. A reload replaces it.
    pub tls: Option<Arc<RwLock<Arc<ServerConfig>>>>,
}

/// The most bytes in the head of a request.
const HEAD_BYTES: usize = 64 << 10;

/// More connections than a process can open.
const MOST_CONNECTIONS: usize = 1 << 24;

impl Listener {
    /// Runs until `closing` is true. Then it accepts no further connections, and returns once the open ones have their
    /// responses.
    pub async fn run(self, closing: watch::Receiver<bool>) {
        let most = self.app.config.limits.connections.min(MOST_CONNECTIONS);
        let slots = Arc::new(Semaphore::new(most));
        let mut stop = closing.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|closing| *closing) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Errors such as too many open files may pass after a pause. A connection that was reset needs no pause.
                    if !is_of_one_connection(&error) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                self.app.metrics.refused_connection();
                tokio::spawn(turn_away(stream, self.tls.is_some()));
                continue;
            };
            // Responses are small. Waiting to fill a packet would only delay them.
            let _ = stream.set_nodelay(true);
            let connection = self.connection(stream, closing.clone());
            tokio::spawn(async move {
                connection.await;
                drop(slot);
            });
        }
        drop(self.socket);
        // All slots are free once all connections have ended.
        let _ = slots.acquire_many(most as u32).await;
    }

    fn connection(&self, stream: TcpStream, closing: watch::Receiver<bool>) -> impl Future<Output = ()> + use<> {
        let (router, app) = (self.router.clone(), self.app.clone());
        let tls = self.tls.as_ref().map(|tls| tls.read().unwrap_or_else(PoisonError::into_inner).clone());
        async move {
            let _open = app.metrics.connection();
            let header_time = app.config.limits.header_time;
            match tls {
                None => serve(stream, router, header_time, closing).await,
                Some(config) => {
                    let handshake = TlsAcceptor::from(config).accept(stream);
                    if let Ok(Ok(stream)) = tokio::time::timeout(header_time, handshake).await {
                        serve(stream, router, header_time, closing).await;
                    }
                }
            }
        }
    }
}

async fn serve<S>(stream: S, router: Router, header_time: Duration, mut closing: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_time).max_buf_size(HEAD_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // Errors of a connection are ignored: its client notices them.
    let ended = tokio::select! {
        _ = connection.as_mut() => true,
        _ = closing.wait_for(|closing| *closing) => false,
    };
    if !ended {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Responds that there are too many connections. With TLS it only closes the connection, because a response would need a
/// handshake.
async fn turn_away(stream: TcpStream, tls: bool) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
        content-length: 49\r\nconnection: close\r\n\r\n{\"error\":\"too many connections are open already\"}";
    if tls {
        return;
    }
    let answer = async {
        stream.writable().await?;
        stream.try_write(ANSWER)?;
        // A connection that is closed with unread bytes is reset, and its client may not see the response.
        stream.readable().await?;
        stream.try_read(&mut [0; 4 << 10])
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), answer).await;
}
