//! A server with the part of the S3 API that `kiln cluster` needs. It can be set to fail requests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A bucket named `data`, in memory, on loopback. It serves until the process ends.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    port: u16,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    calls: AtomicU64,
    /// Every n-th request fails; 0 for none.
    fail_every: AtomicU64,
    failed: AtomicU64,
}

struct Request {
    method: String,
    key: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Response {
    status: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Store {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (calls, fail_every, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let store = Self(Arc::new(Shared { port, objects: Mutex::default(), calls, fail_every, failed }));
        let serving = store.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(&stream));
            }
        });
        store
    }

    /// The environment variables that make the bucket `s3://data`.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.0.port);
        let settings = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "eu-north-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    pub fn put(&self, key: &str, bytes: Vec<u8>) {
        self.0.objects.lock().expect("no panic").insert(key.to_owned(), bytes);
    }

    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.objects.lock().expect("no panic").get(key).cloned()
    }

    pub fn fail_every(&self, count: u64) {
        self.0.fail_every.store(count, Ordering::SeqCst);
    }

    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::SeqCst)
    }

    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(request) = read(&mut reader) {
            let call = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
            let every = self.0.fail_every.load(Ordering::SeqCst);
            let response = if every > 0 && call.is_multiple_of(every) {
                self.0.failed.fetch_add(1, Ordering::SeqCst);
                status("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>".to_vec())
            } else {
                self.answer(&request)
            };
            if write(stream, &request.method, &response).is_err() {
                return;
            }
        }
    }

    fn answer(&self, Request { method, key, query, headers, body }: &Request) -> Response {
        let mut objects = self.0.objects.lock().expect("no panic");
        match method.as_str() {
            "GET" if key.is_empty() => listing(&objects, &value(query, "prefix")),
            "GET" | "HEAD" => match objects.get(key) {
                Some(object) => found(object, headers.get("range").filter(|_| method == "GET")),
                None => status("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
            },
            "PUT" if headers.contains_key("if-none-match") && objects.contains_key(key) => {
                status("412 Precondition Failed", b"<Error><Code>PreconditionFailed</Code></Error>".to_vec())
            }
            "PUT" => {
                let headers = vec![("ETag".to_owned(), tag(body))];
                objects.insert(key.clone(), body.clone());
                Response { status: "200 OK", headers, body: vec![] }
            }
            "POST" if query.contains("delete") => {
                let text = String::from_utf8_lossy(body);
                for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
                    objects.remove(key);
                }
                status("200 OK", b"<DeleteResult></DeleteResult>".to_vec())
            }
            _ => status("501 Not Implemented", vec![]),
        }
    }
}

fn found(object: &[u8], range: Option<&String>) -> Response {
    let mut headers = vec![
        ("ETag".to_owned(), tag(object)),
        ("Last-Modified".to_owned(), "Thu, 01 Jan 2026 00:00:00 GMT".to_owned()),
    ];
    let bounds = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((start, end)) = bounds else {
        return Response { status: "200 OK", headers, body: object.to_vec() };
    };
    let start: usize = start.parse().unwrap_or(0);
    let end = end.parse().map_or(object.len(), |end: usize| (end + 1).min(object.len()));
    headers.push(("Content-Range".to_owned(), format!("bytes {start}-{}/{}", end - 1, object.len())));
    Response { status: "206 Partial Content", headers, body: object[start..end].to_vec() }
}

fn listing(objects: &BTreeMap<String, Vec<u8>>, prefix: &str) -> Response {
    let is_below = |(key, _): &(&String, &Vec<u8>)| key.starts_with(prefix);
    let entry = |(key, object): (&String, &Vec<u8>)| {
        let (size, tag) = (object.len(), tag(object));
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <ETag>{tag}</ETag><Size>{size}</Size></Contents>"
        )
    };
    let entries: String = objects.iter().filter(is_below).map(entry).collect();
    let body = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>");
    status("200 OK", body.into_bytes())
}

/// A checksum of the bytes, used as an ETag.
fn tag(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("\"{sum:016x}\"")
}

fn status(status: &'static str, body: Vec<u8>) -> Response {
    Response { status, headers: vec![], body }
}

/// A decoded parameter of a query.
fn value(query: &str, name: &str) -> String {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| decoded(value)).next().unwrap_or_default()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = if *first == b'%' { after.get(..2).and_then(|code| std::str::from_utf8(code).ok()) } else { None };
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = decoded(path.strip_prefix("/data")?.trim_start_matches('/'));
    Some(Request { method, key, query: query.to_owned(), headers, body })
}

fn write(mut stream: &TcpStream, method: &str, Response { status, headers, body }: &Response) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    if method == "HEAD" { Ok(()) } else { stream.write_all(body) }
}
