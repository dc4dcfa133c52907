//! Fault tests of a server under load: signals to kill, terminate and reload it, and clients that disconnect.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::client::{Connection, Load, get};
use super::side::{Side, kiln};

/// The outcome of the rounds.
#[derive(Debug, Default)]
pub struct Faults {
    pub rounds: usize,
    pub answers: usize,
    /// Number of responses that differ from those of an idle server.
    pub wrong: usize,
    /// Number of requests that were sent at least [`BEFORE`] the signal and got no response with status 200.
    pub lost: usize,
}

/// A request that was sent this long before the signal counts as accepted before it.
const BEFORE: Duration = Duration::from_millis(50);

/// Runs rounds of a signal under load. Each round has a new server, unless the signal leaves it running.
pub fn rounds(program: &Path, model: &Path, requests: &[Vec<u8>], signal: &str, rounds: usize) -> Result<Faults> {
    let mut side = Side::start(&mut kiln(program, model, "int8"), 2)?;
    let mut expected = BTreeMap::new();
    for request in requests {
        expected.insert(request.as_slice(), Connection::new(side.address).send(request)?.1);
    }
    let mut faults = Faults { rounds, ..Faults::default() };
    for round in 0..rounds {
        let (done, results) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let signalled = std::thread::scope(|scope| -> Result<Instant> {
            for at in 0..8 {
                let (done, results, address) = (&done, &results, side.address);
                scope.spawn(move || {
                    let mut connection = Connection::new(address);
                    for request in requests.iter().cycle().skip(at) {
                        let sent = Instant::now();
                        let result = connection.send(request);
                        let is_over = result.is_err();
                        results.lock().expect("no thread panics with it").push((sent, request, result));
                        if is_over || done.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(200 + 13 * (round as u64 % 10)));
            let signalled = Instant::now();
            side.signal(signal)?;
            std::thread::sleep(Duration::from_millis(300));
            done.store(true, Ordering::Relaxed);
            Ok(signalled)
        })?;
        for (sent, request, result) in results.into_inner().expect("no thread panics with it") {
            match result {
                Ok((200, body)) => {
                    faults.answers += 1;
                    faults.wrong += usize::from(expected[request.as_slice()] != body);
                }
                _ => faults.lost += usize::from(sent + BEFORE < signalled),
            }
        }
        if signal != "HUP" {
            let code = side.end()?;
            ensure!(signal == "KILL" || code == Some(0), "after SIG{signal} it ended with {code:?}");
            side = Side::start(&mut kiln(program, model, "int8"), 2)?;
        }
    }
    Ok(faults)
}

/// The p99 latency of `/health` in milliseconds with 1,000 idle connections and 500 clients that disconnect in the middle of
/// a body, and the number of connections that are open afterwards.
pub fn idle_and_vanishing(side: &Side, request: &[u8]) -> Result<(f64, f64)> {
    let idle = (0..1_000).map(|_| TcpStream::connect(side.address)).collect::<std::io::Result<Vec<_>>>()?;
    for at in 0..500 {
        let mut stream = TcpStream::connect(side.address)?;
        stream.write_all(&request[..request.len() - 1 - at % 20])?;
    }
    let probes = Load { connections: 1, rate: Some(100.0), time: Duration::from_secs(3), count: usize::MAX };
    let outcome = probes.run(side.address, &[get("/health")]);
    ensure!(outcome.wrong == 0, "{} probes failed", outcome.wrong);
    drop(idle);
    std::thread::sleep(Duration::from_millis(500));
    Ok((outcome.percentile(0.99), side.metric("kiln_connections ")?))
}
