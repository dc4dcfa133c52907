use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request, as received.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path and query.
    pub target: String,
    /// The headers, by lower-case name.
    pub headers: BTreeMap<String, String>,
}

/// A response. Its declared length is the length of `body`.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Additional headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body; omitted in the response to a `HEAD` request.
    pub body: Vec<u8>,
    /// The number of bytes after which the body ends early.
    pub cut: Option<usize>,
    /// Whether the connection stays open after the body, until the client closes it.
    pub stalls: bool,
    /// The speed of the body.
    pub pace: Option<Pace>,
}

/// The speed of a slow network.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The number of bytes sent at a time.
    pub bytes: usize,
    /// The pause after these bytes.
    pub pause: Duration,
}

impl Reply {
    /// An empty reply.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None, stalls: false, pace: None }
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// An HTTP server on a free loopback port. It logs its requests. Its threads end with the process.
#[derive(Debug)]
pub struct Server {
    /// The address, `http://127.0.0.1:port`.
    pub address: String,
    log: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
}

impl Server {
    /// Starts a server that replies to each request with `reply`, in a new thread.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
        let (log, sent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let (reply, shared) = (Arc::new(reply), (Arc::clone(&log), Arc::clone(&sent)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (reply, (log, sent)) = (Arc::clone(&reply), shared.clone());
                thread::spawn(move || {
                    if let Some(request) = read(&stream) {
                        log.lock().expect("no thread panics with the log").push(request.clone());
                        // The client may close the connection early.
                        let _ = write(stream, &request, &reply(&request), &sent);
                    }
                });
            }
        });
        Self { address, log, sent }
    }

    /// The requests since the last call.
    ///
    /// # Panics
    /// Never: no thread panics while it holds the log.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.log.lock().expect("no thread panics with the log"))
    }

    /// The number of body bytes sent since the server was started.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some(Request { method, target, headers })
}

fn write(mut stream: TcpStream, request: &Request, reply: &Reply, sent: &AtomicU64) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Reply\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", reply.body.len()));
    stream.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len())];
    let pace = reply.pace.unwrap_or(Pace { bytes: 1 << 16, pause: Duration::ZERO });
    for chunk in body.chunks(pace.bytes) {
        stream.write_all(chunk)?;
        sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        thread::sleep(pace.pause);
    }
    if reply.stalls {
        // Returns when the client closes the connection.
        stream.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
