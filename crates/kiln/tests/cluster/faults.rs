//! Faults of processes and of an object store. The job always ends with the same bytes as an undisturbed job, or with an
//! error. After an error, the same command finishes the job.

use std::time::Duration;

use crate::place::{Place, Written};
use crate::store::Store;
use crate::tables;

/// Ten shards, which take a few seconds in total: long enough for a fault during the job, even on a fast machine.
fn place() -> Place {
    let place = Place::new();
    tables::write_reviews(&place.path("in/a.parquet"), 0, ROWS);
    place
}

const ROWS: usize = 40_000;
const ROWS_PER_SHARD: &str = "4000";
const OPTIONS: [&str; 4] = ["--rows-per-shard", ROWS_PER_SHARD, "--scheduler", ""];

fn options(scheduler: &str) -> Vec<&str> {
    let scheduler_at = OPTIONS.len() - 1;
    [&OPTIONS[..scheduler_at], &[scheduler]].concat()
}

fn undisturbed(place: &Place) -> Written {
    place.ran("undisturbed", &["--rows-per-shard", ROWS_PER_SHARD])
}

/// Checks that every row is there exactly once.
fn has_every_row(place: &Place, written: &Written, out: &str) {
    let rows = tables::read(&place.path(out), &written.names());
    assert_eq!(tables::numbers(&rows, "id"), (0..ROWS as i64).collect::<Vec<_>>());
}

#[test]
fn an_executor_is_killed_in_mid_shard_and_after_its_write() {
    let place = place();
    let expected = undisturbed(&place);
    has_every_row(&place, &expected, "undisturbed");
    let (_scheduler, address) = place.scheduler("0");
    for (out, is_after_write) in [("mid-shard", false), ("after-write", true)] {
        let (first, _second) = (place.executor(&address), place.executor(&address));
        let mut job = place.start(out, &options(&address));
        match is_after_write {
            // The executor may not have reported the shard yet.
            true => place.wait_for_data(out, 3),
            false => {
                place.wait_for_shards(out, 2);
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        first.kill();
        assert!(job.is_running(), "{out}: in its midst");
        let ended = job.end();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(Written::read(&place.path(out)) == expected, "{out}: the same manifest and bytes");
    }
}

#[test]
fn an_executor_that_was_stopped_for_long_writes_late() {
    let place = place();
    let expected = undisturbed(&place);
    let (_scheduler, address) = place.scheduler("0");
    let (stopped, _other) = (place.executor(&address), place.executor(&address));
    let mut job = place.start("out", &options(&address));
    place.wait_for_shards("out", 2);
    stopped.signal("STOP");
    assert!(job.is_running(), "in its midst");
    let ended = job.end();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(Written::read(&place.path("out")) == expected, "without it");
    stopped.signal("CONT");
    std::thread::sleep(Duration::from_secs(4));
    assert!(Written::read(&place.path("out")) == expected, "and after its late write");
    // The process works as an executor again.
    assert!(place.ran("again", &options(&address)) == expected);
}

#[test]
fn a_scheduler_is_killed_and_started_again() {
    let place = place();
    let expected = undisturbed(&place);
    let (scheduler, address) = place.scheduler("0");
    let _executors = [place.executor(&address), place.executor(&address)];
    let mut job = place.start("out", &[&options(&address)[..], &["--patience", "10"]].concat());
    place.wait_for_shards("out", 2);
    // This is checked before the fault, because the job may notice the loss and end at once.
    assert!(job.is_running(), "in its midst");
    scheduler.kill();
    let port = address.rsplit(':').next().expect("it has a port");
    let (_scheduler, address) = place.scheduler(port);
    // The scheduler's state is lost, so the job may fail. It then reports how much is done.
    let ended = job.end();
    match ended.code {
        Some(0) => {}
        code => assert!(code == Some(1) && ended.log.contains("of 10 shards are finished"), "{code:?} {}", ended.log),
    }
    // The executors reconnect by themselves.
    let again = place.ran("out", &options(&address));
    assert!(again == expected, "the same manifest and bytes");
}

#[test]
fn all_executors_are_killed() {
    let place = place();
    let expected = undisturbed(&place);
    let (_scheduler, address) = place.scheduler("0");
    let executors = [place.executor(&address), place.executor(&address)];
    let mut job = place.start("out", &options(&address));
    place.wait_for_shards("out", 2);
    executors.into_iter().for_each(|executor| executor.kill());
    assert!(job.is_running(), "in its midst");
    let ended = job.end();
    assert!(ended.code == Some(1) && ended.log.contains("of 10 shards are finished"), "{:?} {}", ended.code, ended.log);
    assert!(!place.path("out/manifest.json").exists());
    // A single process finishes the rest.
    assert!(place.ran("out", &["--rows-per-shard", ROWS_PER_SHARD]) == expected, "the same manifest and bytes");
}

#[test]
fn a_store_fails_every_tenth_call() {
    let place = place();
    let store = Store::start();
    store.put("in/a.parquet", std::fs::read(place.path("in/a.parquet")).expect("it is there"));
    let environment = store.environment();
    let run = |out: &str, scheduler: &[&str]| {
        let options = [&["--rows-per-shard", ROWS_PER_SHARD, "--input", "s3://data/in"], scheduler].concat();
        let ended = place.run_with(&format!("s3://data/{out}"), &options, &environment);
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        let manifest = store.get(&format!("{out}/manifest.json")).expect("a manifest");
        let json: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        let names =
            json["shards"].as_array().expect("a list").iter().map(|shard| shard["file"].as_str().expect("a name"));
        let shards: Vec<_> = names.map(|name| store.get(&format!("{out}/{name}")).expect("a shard")).collect();
        (manifest, shards)
    };
    let expected = run("undisturbed", &[]);
    assert_eq!((expected.1.len(), store.failed()), (10, 0));
    store.fail_every(10);
    assert!(run("alone", &[]) == expected, "the same manifest and bytes");
    let (_scheduler, address) = place.scheduler("0");
    let executor = || place.executor_of(&address, crate::place::model(), &environment);
    let _executors = [executor(), executor()];
    assert!(run("shared", &["--scheduler", &address]) == expected, "the same manifest and bytes");
    assert!(store.failed() > 5, "{}", store.failed());
}
