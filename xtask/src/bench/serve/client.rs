//! Generates a load of HTTP requests from threads of this process, in the same way for every side.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A connection that is kept open. It is opened again when it has been closed.
pub struct Connection {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// Timeout for the answer of a server.
const PATIENCE: Duration = Duration::from_secs(60);

impl Connection {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Sends a request, and returns the status and the body of the response.
    pub fn send(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        stream.get_mut().write_all(request)?;
        let (status, body, is_kept) = read(&mut stream)?;
        self.stream = is_kept.then_some(stream);
        Ok((status, body))
    }
}

fn read(stream: &mut impl BufRead) -> io::Result<(u16, Vec<u8>, bool)> {
    let broken = || io::Error::other("this is no answer of HTTP");
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let (mut length, mut is_kept) = (0, true);
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| broken())?;
        } else if name.eq_ignore_ascii_case("connection") {
            is_kept = !value.trim().eq_ignore_ascii_case("close");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, body, is_kept))
}

/// A POST request with JSON.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// The outcome of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Latency in seconds of each response with status 200, from the time its request was due.
    pub seconds: Vec<f64>,
    /// Number of responses with status 429.
    pub refused: usize,
    /// Number of other responses and of broken connections.
    pub wrong: usize,
    pub time: Duration,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.seconds.len() as f64 / self.time.as_secs_f64()
    }

    /// A percentile of the latency in milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(at).map_or(f64::NAN, |seconds| seconds * 1e3)
    }
}

/// How requests are sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub connections: usize,
    /// Requests per second, independent of the responses. `None`: each connection sends the next request after a response.
    pub rate: Option<f64>,
    pub time: Duration,
    /// The largest number of requests.
    pub count: usize,
}

impl Load {
    /// Sends the requests in turn.
    pub fn run(self, address: SocketAddr, requests: &[Vec<u8>]) -> Outcome {
        let (next, outcome) = (AtomicUsize::new(0), Mutex::new(Outcome::default()));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..self.connections {
                scope.spawn(|| {
                    let own = self.one_connection(address, requests, start, &next);
                    let mut all = outcome.lock().expect("no thread panics with it");
                    all.seconds.extend(own.seconds);
                    all.refused += own.refused;
                    all.wrong += own.wrong;
                });
            }
        });
        let outcome = outcome.into_inner().expect("no thread panics with it");
        Outcome { time: start.elapsed(), ..outcome }
    }

    fn one_connection(self, address: SocketAddr, requests: &[Vec<u8>], start: Instant, next: &AtomicUsize) -> Outcome {
        let (mut connection, mut outcome) = (Connection::new(address), Outcome::default());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let due = match self.rate {
                Some(rate) => start + Duration::from_secs_f64(number as f64 / rate),
                None => Instant::now(),
            };
            if number >= self.count || due.duration_since(start) >= self.time {
                return outcome;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            match connection.send(&requests[number % requests.len()]) {
                Ok((200, _)) => outcome.seconds.push(due.elapsed().as_secs_f64()),
                Ok((429, _)) => outcome.refused += 1,
                Ok(_) => outcome.wrong += 1,
                Err(_) => {
                    outcome.wrong += 1;
                    connection = Connection::new(address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_percentiles() {
        let mut answer = &b"HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"[..];
        assert_eq!(read(&mut answer).expect("it is one"), (429, b"no".to_vec(), false));
        assert!(read(&mut &b"HTTP/1.1\r\n\r\n"[..]).is_err() && read(&mut &b""[..]).is_err());
        let seconds = (1..=200).map(|at| f64::from(at) / 1e3).collect();
        let outcome = Outcome { seconds, time: Duration::from_secs(4), ..Outcome::default() };
        assert_eq!((outcome.percentile(0.5), outcome.percentile(0.99)), (100.0, 198.0));
        assert_eq!(outcome.per_second(), 50.0);
    }
}
