//! Tests with processes that pull at the same time, or are killed during a pull. Each process runs this program again.
//! The tests do not use cargo's harness, because each process would then run every test.
#![expect(clippy::print_stdout, reason = "a test's program says what it has tested")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use kiln_hub::{Error, HubConfig, Location, PullConfig, pull};
use kiln_loopback::{Hub, Pace, git_blob, sha256};

const SOURCES: [&str; 2] = ["hf:owner/name", "modelscope:owner/name"];
/// The environment variable with the source, address and cache of a process, one per line.
const TASK: &str = "KILN_HUB_TEST_TASK";
const ROUNDS: usize = 100;

fn main() {
    if let Ok(task) = env::var(TASK) {
        return work(&task).expect("a whole checkpoint");
    }
    let tests: [(&str, fn()); 2] = [
        ("processes_at_the_same_time_fetch_once", processes_at_the_same_time_fetch_once),
        ("a_killed_process_leaves_what_the_next_goes_on_with", a_killed_process_leaves_what_the_next_goes_on_with),
    ];
    // As in cargo's harness, the first argument that is not an option filters the names.
    let filter = env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let chosen: Vec<_> = tests.into_iter().filter(|(name, _)| name.contains(&filter)).collect();
    println!("\nrunning {} tests", chosen.len());
    for (name, test) in &chosen {
        test();
        println!("test {name} ... ok");
    }
    println!("\ntest result: ok. {} passed; 0 failed\n", chosen.len());
}

/// The work of a process.
fn work(task: &str) -> Result<(), Error> {
    let [source, address, cache] = task.lines().collect::<Vec<_>>()[..] else { panic!("three lines: {task}") };
    let hub = HubConfig { endpoint: Some(address.to_owned()), cache_dir: Some(cache.into()), token: None };
    let config = PullConfig { hugging_face: hub.clone(), model_scope: hub, ..PullConfig::default() };
    let location: Location = source.parse()?;
    pull(&location, &config, &mut |_| ()).map(drop)
}

fn start(hub: &Hub, source: &str, cache: &Path) -> Child {
    let task = format!("{source}\n{}\n{}", hub.server.address, cache.display());
    let program = env::current_exe().expect("this program");
    Command::new(program).env(TASK, task).stdout(Stdio::null()).spawn().expect("a process")
}

fn processes_at_the_same_time_fetch_once() {
    for source in SOURCES {
        let (hub, cache) = (Hub::start(), tempfile::tempdir().expect("a folder"));
        let pace = Pace { bytes: 10_000, pause: Duration::from_millis(5) };
        hub.change(|state| state.pace = Some(pace));
        let processes: Vec<Child> = (0..3).map(|_| start(&hub, source, cache.path())).collect();
        for mut process in processes {
            assert!(process.wait().expect("its end").success());
        }
        check(&hub, cache.path());
        assert_eq!(hub.content.bytes_sent(), hub.file("model.safetensors").len() as u64, "{source}");
    }
}

fn a_killed_process_leaves_what_the_next_goes_on_with() {
    // Each process is killed after a random time, so that it stops anywhere: before the first response, within a file,
    // between two files, or after the last.
    let mut seed = 42_u64;
    let (mut in_downloads, mut resumed, mut finished, mut sent) = (0, 0, 0, 0);
    for source in SOURCES {
        let mut cache = tempfile::tempdir().expect("a folder");
        for _ in 0..ROUNDS / SOURCES.len() {
            // A request of a killed process may be logged after its end, so each process has its own hub.
            let hub = Hub::start();
            hub.change(|state| state.pace = Some(Pace { bytes: 1_000, pause: Duration::from_micros(500) }));
            let had = part_of_weights(&hub, cache.path());
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut process = start(&hub, source, cache.path());
            thread::sleep(Duration::from_micros((seed >> 33) % 100_000));
            // SIGKILL, so that the process cannot clean up.
            process.kill().expect("it runs, or has ended");
            process.wait().expect("its end");

            check(&hub, cache.path());
            sent += hub.content.bytes_sent();
            let asked = hub.content.requests();
            assert!(asked.len() <= 1, "nothing is fetched twice: {asked:?}");
            if let Some(request) = asked.first() {
                let begin = had.map(|len| format!("bytes={len}-"));
                assert_eq!(request.headers.get("range"), begin.as_ref(), "what is there is not fetched again");
                in_downloads += 1;
                resumed += usize::from(had.is_some());
            }
            if is_whole(&hub, cache.path()) {
                finished += 1;
                cache = tempfile::tempdir().expect("a folder");
            }
        }
        let hub = Hub::start();
        assert!(start(&hub, source, cache.path()).wait().expect("its end").success());
        check(&hub, cache.path());
        assert!(is_whole(&hub, cache.path()));
    }
    println!(
        "{ROUNDS} processes killed; {in_downloads} had asked for the weights, {resumed} of these for the rest alone;"
    );
    println!("{sent} bytes were sent, of files of 100,003, of which {finished} were whole at the time");
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The size of the partial weights file, if it is not empty.
fn part_of_weights(hub: &Hub, cache: &Path) -> Option<u64> {
    let names = [sha256(&hub.file("model.safetensors")), "model.safetensors".to_owned()];
    let is_it = |path: &PathBuf| names.iter().any(|name| path.ends_with(format!("{name}.incomplete")));
    let part = files(cache).into_iter().find(is_it)?;
    Some(part.metadata().expect("a file").len()).filter(|len| *len > 0)
}

/// Checks that every file with a final name has the content of the hub.
fn check(hub: &Hub, cache: &Path) {
    let contents = hub.change(|state| state.files.clone());
    for path in files(cache) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let in_folder = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
        if name.ends_with(".incomplete") || name.starts_with('.') {
            continue;
        }
        if in_folder("snapshots") {
            assert!(std::fs::read(&path).expect("a file") == contents[name], "{}", path.display());
        } else if in_folder("blobs") {
            let content = std::fs::read(&path).expect("a file");
            assert!([sha256(&content), git_blob(&content)].contains(&name.to_owned()), "{}", path.display());
        }
    }
}

fn is_whole(hub: &Hub, cache: &Path) -> bool {
    let weights = hub.file("model.safetensors");
    let is_it =
        |path: &PathBuf| path.ends_with("model.safetensors") && std::fs::read(path).is_ok_and(|it| it == weights);
    files(cache).iter().any(is_it)
}
