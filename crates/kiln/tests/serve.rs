//! `kiln serve` as a process: killed, stopped and reloaded under load, and abandoned by its clients.
#![cfg(unix)]

#[path = "../../kiln-serve/tests/serve/client.rs"]
mod client;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use client::{Answer, connect, read, request, send};
use serde_json::{Value, json};

/// Rounds of each signal; `cargo xtask bench serve` runs 50.
const ROUNDS: usize = 3;
const CLIENTS: usize = 6;
const JSON: (&str, &str) = ("content-type", "application/json");

/// An int8 bundle of the sample's masked language model.
static BUNDLE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("it is writable");
    let bundle = folder.join("bundle");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(["bundle", "--model", "sample", "--precision", "int8", "--out"]).arg(&bundle);
    let output = command.env("KILN_CACHE", folder.join("cache")).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bundle
});

/// A running server, which is killed on drop.
struct Served {
    process: Child,
    address: SocketAddr,
    /// Returns the lines of its log, after it has ended.
    log: Option<JoinHandle<Vec<Value>>>,
    reloads: std::sync::mpsc::Receiver<()>,
}

impl Served {
    fn start() -> Self {
        Self::with(&["serve", text(&BUNDLE), "--port", "0", "--threads", "2"])
    }

    fn with(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the binary runs");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it writes its address");
        let address = line.trim().strip_prefix("http://").and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("found {line:?}, expected an address"));
        let stderr = BufReader::new(process.stderr.take().expect("it is piped"));
        let (reloaded, reloads) = std::sync::mpsc::channel();
        let log = std::thread::spawn(move || {
            let lines = stderr.lines().map_while(Result::ok);
            let events = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            let notice = |event: &Value| {
                if event["event"] == "reloaded" {
                    // The test may have ended.
                    let _ = reloaded.send(());
                }
            };
            events.inspect(notice).collect()
        });
        Self { process, address, log: Some(log), reloads }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status();
        assert!(sent.expect("there is kill").success());
    }

    /// Waits for the server to end. Returns the exit code and the requests in the log.
    fn end(mut self) -> (Option<i32>, Vec<Value>) {
        let code = self.process.wait().expect("it ends").code();
        let log = self.log.take().expect("it is joined once").join().expect("it does not panic");
        (code, log.into_iter().filter(|event| event["event"] == "request").collect())
    }

    fn ask(&self, body: &str) -> Answer {
        send(self.address, "POST", "/", &[JSON], body)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Requests of different lengths.
fn bodies() -> Vec<String> {
    let masked = |at: usize| format!("{}很[MASK]净{}", "房间".repeat(1 + at % 5), "服务不好".repeat(at % 11));
    (0..24).map(|at| json!({ "inputs": vec![masked(at); 1 + at % 3] }).to_string()).collect()
}

/// The responses that the clients have received, and whether they should stop.
#[derive(Default)]
struct Load {
    answers: Mutex<Vec<(usize, Answer)>>,
    count: AtomicUsize,
    broken: AtomicUsize,
    stopped: AtomicBool,
}

impl Load {
    /// Sends one request after another on a connection, until the connection breaks or the load is stopped.
    fn run(&self, address: SocketAddr, bodies: &[String], first: usize) {
        let Ok(stream) = std::net::TcpStream::connect(address) else {
            self.broken.fetch_add(1, Ordering::SeqCst);
            return;
        };
        let mut stream = BufReader::new(stream);
        for at in (0..bodies.len()).cycle().skip(first) {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let sent = stream.get_mut().write_all(request("POST", "/", &[JSON], &bodies[at]).as_bytes());
            match sent.ok().and_then(|()| read(&mut stream)) {
                Some(answer) => {
                    self.answers.lock().expect("no thread panics with it").push((at, answer));
                    self.count.fetch_add(1, Ordering::SeqCst);
                }
                None => {
                    self.broken.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    }

    /// Runs clients that send requests while `during` acts on the server.
    fn around(&self, address: SocketAddr, bodies: &[String], during: impl FnOnce()) {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || self.run(address, bodies, client * 4));
            }
            let _stop = StopInPanic(&self.stopped);
            eventually("the clients get answers", || self.count.load(Ordering::SeqCst) >= 2 * CLIENTS);
            during();
        });
    }

    /// Checks that every response is the same as without load. Returns the number of responses.
    fn check(&self, expected: &[String]) -> usize {
        let answers = self.answers.lock().expect("no thread panics with it");
        for (at, answer) in answers.iter() {
            assert_eq!((answer.status, &answer.body), (200, &expected[*at]), "request {at}");
        }
        answers.len()
    }
}

/// Stops the clients when a test panics. Otherwise the test would wait for them forever.
struct StopInPanic<'a>(&'a AtomicBool);

impl Drop for StopInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn at_rest(bodies: &[String]) -> Vec<String> {
    let served = Served::start();
    bodies.iter().map(|body| served.ask(body).body).collect()
}

#[test]
fn a_killed_server_answers_the_same_bytes_once_it_is_back() {
    let bodies = bodies();
    let expected = at_rest(&bodies);
    for _ in 0..ROUNDS {
        let (served, load) = (Served::start(), Load::default());
        load.around(served.address, &bodies, || served.signal("KILL"));
        load.check(&expected);
        assert_eq!(load.broken.load(Ordering::SeqCst), CLIENTS);
        assert_eq!(served.end().0, None);
    }
    assert_eq!(at_rest(&bodies), expected);
}

/// Every request in the log was accepted, and its response reached the client.
#[test]
fn a_server_that_is_told_to_end_answers_what_it_has_accepted() {
    let bodies = bodies();
    let expected = at_rest(&bodies);
    for _ in 0..ROUNDS {
        let (served, load) = (Served::start(), Load::default());
        load.around(served.address, &bodies, || served.signal("TERM"));
        let answers = load.check(&expected);
        let (code, requests) = served.end();
        assert_eq!((code, requests.len()), (Some(0), answers), "{requests:?}");
        assert!(requests.iter().all(|request| request["status"] == 200), "{requests:?}");
    }
}

#[test]
fn a_reload_under_load_loses_no_request() {
    let bodies = bodies();
    let expected = at_rest(&bodies);
    let (served, load) = (Served::start(), Load::default());
    load.around(served.address, &bodies, || {
        for _ in 0..ROUNDS {
            let before = load.count.load(Ordering::SeqCst);
            served.signal("HUP");
            served.reloads.recv_timeout(Duration::from_secs(60)).expect("it reloads");
            eventually("answers go on", || load.count.load(Ordering::SeqCst) > before + CLIENTS);
        }
        load.stopped.store(true, Ordering::SeqCst);
    });
    let answers = load.check(&expected);
    assert_eq!(load.broken.load(Ordering::SeqCst), 0);
    served.signal("TERM");
    let (code, requests) = served.end();
    assert_eq!((code, requests.len()), (Some(0), answers));
}

#[test]
fn idle_connections_and_clients_that_vanish_leave_nothing_behind() {
    let served = Served::start();
    let bodies = bodies();
    let expected = served.ask(&bodies[0]);
    let idle: Vec<_> = (0..200).map(|_| connect(served.address)).collect();
    let whole = request("POST", "/", &[JSON], &bodies[0]);
    for at in 0..100 {
        let mut stream = connect(served.address);
        stream.write_all(&whole.as_bytes()[..whole.len() - 1 - at % 40]).expect("the server reads");
    }
    assert_eq!(send(served.address, "GET", "/health", &[], "").json(), json!({ "ready": true }));
    let again = served.ask(&bodies[0]);
    assert_eq!((again.status, &again.body), (200, &expected.body));
    drop(idle);
    let open = || {
        let metrics = send(served.address, "GET", "/metrics", &[], "").body;
        let open = metrics.lines().find_map(|line| line.strip_prefix("kiln_connections ")?.trim().parse::<f64>().ok());
        open.expect("it is counted")
    };
    eventually("only the connection that asks is open", || open() == 1.0);
}

#[test]
fn a_changed_bundle_is_not_served_and_is_named_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("changed");
    std::fs::create_dir(&copy).expect("a folder");
    for entry in std::fs::read_dir(&*BUNDLE).expect("a bundle") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, copy.join(path.file_name().expect("a name"))).expect("it is writable");
    }
    std::fs::write(copy.join("extra"), "").expect("it is writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    let output = command.args(["serve", text(&copy), "--port", "0"]).output().expect("the binary runs");
    let reason = "the bundle differs from its manifest: extra is not in the manifest";
    let expected = format!("error: {}: {reason}\n", copy.display());
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(1), expected.as_str()));
}

/// The commands of the systemd unit and of the container image, with the bundle, the keys and the port of this test.
fn deployed() -> [Vec<String>; 2] {
    let unit = deploy("kiln.service");
    let unit = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/kiln ")).expect("it starts it");
    let image = deploy("Dockerfile");
    let words = |instruction: &str| -> Vec<String> {
        let json = image.lines().find_map(|line| line.strip_prefix(instruction)).expect("it is there");
        serde_json::from_str(json).expect("a list")
    };
    let image = [words("ENTRYPOINT "), words("CMD ")].concat();
    assert_eq!(image[0], "/kiln");
    [unit.split(' ').map(str::to_owned).collect(), image[1..].to_vec()]
}

fn deploy(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-serve/deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_commands_that_are_deployed_start_a_server_with_keys() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("keys"), "lab:0123456789abcdef\n").expect("it is writable");
    let (keys, key) = (text(folder.path()), ("authorization", "Bearer 0123456789abcdef"));
    for command in deployed() {
        let in_place = |argument: String| match argument.as_str() {
            "/var/lib/kiln/hotel.bundle" => text(&BUNDLE).to_owned(),
            "model=/bundle" => format!("model={}", text(&BUNDLE)),
            "${CREDENTIALS_DIRECTORY}/keys" | "/keys" => format!("{keys}/keys"),
            "8080" => "0".to_owned(),
            _ => argument,
        };
        let command: Vec<String> = command.into_iter().map(in_place).collect();
        let served = Served::with(&command.iter().map(String::as_str).collect::<Vec<_>>());
        let ask = |headers: &[_]| send(served.address, "POST", "/", headers, &bodies()[0]).status;
        assert_eq!((ask(&[JSON]), ask(&[JSON, key])), (401, 200), "{command:?}");
        assert_eq!(send(served.address, "GET", "/health", &[], "").status, 200);
    }
}

/// Checks the unit with systemd, if it is installed.
#[test]
#[allow(clippy::print_stderr, reason = "a test that does not run says so")]
fn the_unit_is_one_of_systemd_and_closed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unit = folder.path().join("kiln.service");
    let content = deploy("kiln.service").replace("/usr/local/bin/kiln", env!("CARGO_BIN_EXE_kiln"));
    std::fs::write(&unit, content).expect("it is writable");
    // The exposure is at most 1.5 of 10; the threshold is in tenths.
    for arguments in
        [["verify", "--man=no"].as_slice(), &["security", "--offline=true", "--threshold=15", "--no-pager"]]
    {
        let output = match Command::new("systemd-analyze").args(arguments).arg(&unit).output() {
            Ok(output) => output,
            Err(error) => return eprintln!("skipped: systemd-analyze does not run: {error}"),
        };
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}
