use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::Error;

/// Renders a page as HTML.
pub type MakePage = Arc<dyn Fn() -> String + Send + Sync>;

/// Allows inline styles and `data:` images, and no other content.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Serves one page at `/` from a separate thread until the process ends. The page is rendered for each request. Returns the
/// address that it listens on, with the actual port if `address` has port 0.
///
/// # Errors
/// When other machines can reach the address, or it is not possible to listen on it.
pub fn serve_page(address: SocketAddr, page: MakePage) -> Result<SocketAddr, Error> {
    if !address.ip().is_loopback() {
        return Err(Error::Open { address });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("page")
        .enable_all()
        .build()
        .map_err(Error::Threads)?;
    let listen = |source: io::Error| Error::Listen { address, source };
    let socket = runtime.block_on(TcpListener::bind(address)).map_err(listen)?;
    let address = socket.local_addr().map_err(listen)?;
    let answer = move || async move {
        let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
        (headers, Html(page())).into_response()
    };
    let router = Router::new().route("/", get(answer));
    std::thread::Builder::new()
        .name("page".to_owned())
        // This runs until the process ends. An error of a connection ends only that connection.
        .spawn(move || runtime.block_on(async { axum::serve(socket, router).await }))
        .map_err(Error::Threads)?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    #[test]
    fn the_page_is_made_for_each_request() {
        let count = AtomicUsize::new(0);
        let page = Arc::new(move || format!("<p>page {}</p>", count.fetch_add(1, Ordering::Relaxed)));
        let address = serve_page(([127, 0, 0, 1], 0).into(), page.clone()).expect("any port is free");
        for number in 0..2 {
            let answer = ask(address, "/");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(POLICY), "{answer}");
            assert!(answer.ends_with(&format!("<p>page {number}</p>")), "{answer}");
        }
        assert!(ask(address, "/other").starts_with("HTTP/1.1 404"));
        assert!(matches!(serve_page(address, page.clone()), Err(Error::Listen { .. })), "the port is taken");
        assert!(matches!(serve_page(([0, 0, 0, 0], 0).into(), page), Err(Error::Open { .. })));
    }
}
