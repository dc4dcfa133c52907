use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
}

/// What is sent back. The length declared is the body's.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Left out where the request is a `HEAD`.
    pub body: Vec<u8>,
    /// Ends after so many of its bytes.
    pub cut: Option<usize>,
    /// Sends nothing more after these bytes, until the client hangs up.
    pub stalls: bool,
    /// How slowly it is sent.
    pub pace: Option<Pace>,
}

/// A slow network.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Sent at a time.
    pub bytes: usize,
    /// Before the next.
    pub pause: Duration,
}

impl Reply {
    /// An empty one.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None, stalls: false, pace: None }
    }

    /// The same with a header more.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// An HTTP server on a free port of loopback, which keeps a log. Its threads end with the process.
#[derive(Debug)]
pub struct Server {
    /// `http://127.0.0.1:port`.
    pub address: String,
    log: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
}

impl Server {
    /// Answers each request by `reply`, in a thread of its own.
    ///
    /// # Panics
    /// Where loopback has no free port.
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
                        // A client that has heard enough hangs up.
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

    /// How many bytes of bodies were sent since the server was started.
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
        // Ends with the client's connection.
        stream.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
