//! Training in several processes, with threads in their place. The result is that of one process, and differing runs are
//! refused.

use std::sync::{Arc, Barrier, Mutex};

use kiln_train::{Reduce, Reduction, check_ranks, check_same};

use super::*;

/// One of several threads that communicate like processes.
#[derive(Debug)]
struct Rank {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    barrier: Barrier,
    messages: Vec<Mutex<Vec<u8>>>,
}

impl Rank {
    /// Exchanges messages, and returns those of all threads by rank.
    fn all(&self, mine: Vec<u8>) -> Vec<Vec<u8>> {
        let message = |rank: usize| self.shared.messages[rank].lock().expect("no thread has panicked");
        *message(self.rank) = mine;
        self.shared.barrier.wait();
        let all = (0..self.ranks()).map(|rank| message(rank).clone()).collect();
        self.shared.barrier.wait();
        all
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
}

fn bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|float| float.to_ne_bytes()).collect()
}

impl Reduction for Rank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.shared.messages.len()
    }

    fn meet(&self) {
        self.all(Vec::new());
    }

    fn exchange(&self, values: &[f32], sent: &[usize], received: &[usize]) -> Vec<f32> {
        // The start of each part, followed by the parts.
        let starts = (0..=sent.len()).map(|rank| sent[..rank].iter().sum::<usize>() as f32);
        let message: Vec<f32> = starts.chain(values.iter().copied()).collect();
        let of_rank = |(message, count): (Vec<u8>, &usize)| {
            let message = floats(&message);
            let (starts, values) = message.split_at(sent.len() + 1);
            let part = &values[starts[self.rank] as usize..starts[self.rank + 1] as usize];
            assert_eq!(part.len(), *count, "both sides count the same");
            part.to_vec()
        };
        self.all(bytes(&message)).into_iter().zip(received).flat_map(of_rank).collect()
    }

    fn gather(&self, mine: &[u8], counts: &[usize], all: &mut [u8]) {
        let messages = self.all(mine.to_vec());
        assert!(messages.iter().map(Vec::len).eq(counts.iter().copied()), "both sides count the same");
        all.copy_from_slice(&messages.concat());
    }

    fn add(&self, values: &mut [f32]) {
        let all = self.all(bytes(values));
        values.fill(0.0);
        for message in &all {
            values.iter_mut().zip(floats(message)).for_each(|(sum, value)| *sum += value);
        }
    }

    fn bytes_sent(&self) -> u64 {
        0
    }
}

/// Runs one thread per rank, and returns their results.
fn together<T: Send>(ranks: usize, run: impl Fn(&Rank) -> T + Sync) -> Vec<T> {
    let messages = (0..ranks).map(|_| Mutex::default()).collect();
    let shared = Arc::new(Shared { barrier: Barrier::new(ranks), messages });
    std::thread::scope(|scope| {
        let start = |rank| {
            let (rank, run) = (Rank { rank, shared: shared.clone() }, &run);
            scope.spawn(move || run(&rank))
        };
        let threads: Vec<_> = (0..ranks).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    })
}

/// The result of a training in one process.
#[derive(Debug, PartialEq)]
struct Outcome {
    parameters: BTreeMap<String, NamedParameter>,
    epochs: Vec<EpochReport>,
    end: End,
    steps: usize,
}

/// Trains in several processes. The first process keeps its checkpoints in the folder.
fn train(
    ranks: usize,
    (folder, resume): (&Path, bool),
    config: &TrainConfig,
    (is_checkpointed, stop): (bool, Option<(usize, usize)>),
) -> Vec<Outcome> {
    together(ranks, |reduction| {
        let mut model = model();
        model.bert.layer_inputs = is_checkpointed.then(LayerInputs::default);
        let (train, device, fingerprint) = (&set(), &Flex::device(0), &Fingerprint::default());
        let fit = Fit { train, validation: train, config, fingerprint, device, checkpoints: folder, resume, reduction };
        let stops = |step| stop == Some((reduction.rank, step));
        let fitted = fit.run(model, &mut |event| match event {
            Event::Step { step, .. } if stops(step) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        let fitted = fitted.expect("a tiny run trains");
        let epochs = without_times(&fitted.epochs);
        Outcome { parameters: by_name(&fitted.model), epochs, end: fitted.end, steps: fitted.steps }
    })
}

/// A configuration with updates of four batches and of one batch.
fn shared_config() -> TrainConfig {
    TrainConfig { batch_size: 1, gradient_accumulation_steps: 4, ..config() }
}

#[test]
fn the_result_does_not_depend_on_the_number_of_processes() {
    let config = shared_config();
    for (config, is_checkpointed) in [
        (config.clone(), false),
        (config.clone(), true),
        (TrainConfig { fgm: 0.3, ema: 0.9, eval_steps: 1, ..config.clone() }, false),
        (TrainConfig { scope: kiln_train::Scope::Head, early_stopping_patience: 1, ..config }, false),
    ] {
        let folder = || tempfile::tempdir().expect("a folder");
        let alone = fit_alone(&config, is_checkpointed);
        for ranks in [1, 2, 3, 4] {
            let outcomes = train(ranks, (folder().path(), false), &config, (is_checkpointed, None));
            assert!(outcomes[0] == alone, "{ranks} processes, {config:?}");
            let heard = |outcome: &Outcome| (outcome.epochs.clone(), outcome.end, outcome.steps);
            assert!(outcomes.iter().all(|outcome| heard(outcome) == heard(&alone)), "{ranks} processes");
        }
    }
}

/// Trains in a single process.
fn fit_alone(config: &TrainConfig, is_checkpointed: bool) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder");
    let mut model = model();
    model.bert.layer_inputs = is_checkpointed.then(LayerInputs::default);
    let fitted = try_fit((&set(), model), (folder.path(), false), config, go_on).expect("a tiny run trains");
    let epochs = without_times(&fitted.epochs);
    Outcome { parameters: by_name(&fitted.model), epochs, end: fitted.end, steps: fitted.steps }
}

/// If one process is stopped, all stop. Any number of processes can resume.
#[test]
fn all_processes_end_when_one_is_told_to_and_others_go_on() {
    let (config, folder) = (shared_config(), tempfile::tempdir().expect("a folder"));
    let stopped = train(2, (folder.path(), false), &config, (false, Some((1, 3))));
    assert!(stopped.iter().all(|outcome| outcome.end == End::Interrupted && outcome.steps == 3), "{stopped:?}");
    let resumed = train(4, (folder.path(), true), &config, (false, None));
    assert!(resumed[0] == fit_alone(&config, false));
}

#[test]
fn fast_sums_differ_by_rounding_alone() {
    let (config, folder) = (shared_config(), tempfile::tempdir().expect("a folder"));
    let exact = fit_alone(&config, false);
    let config = TrainConfig { reduce: Reduce::Fast, ..config };
    let fast = train(3, (folder.path(), false), &config, (false, None));
    assert!(fast.iter().all(|outcome| outcome.steps == exact.steps && outcome.end == End::Complete));
    let losses = |outcome: &Outcome| outcome.epochs.iter().map(|report| report.train_loss).collect::<Vec<_>>();
    for (fast, exact) in losses(&fast[0]).into_iter().zip(losses(&exact)) {
        assert!((fast - exact).abs() < 1e-4, "{fast} and {exact}");
    }
    let error = try_fit((&set(), model()), (folder.path(), true), &shared_config(), go_on).expect_err("it was fast");
    assert!(error.to_string().contains("train.reduce: fast before, not set now"), "{error}");
}

#[test]
fn processes_that_would_not_train_the_same_are_refused() {
    let errors = together(3, |rank| {
        let mut fingerprint = Fingerprint::default();
        fingerprint.settings.insert("train.seed".to_owned(), if rank.rank == 1 { "7" } else { "42" }.to_owned());
        fingerprint.contents.insert("data.train".to_owned(), if rank.rank == 2 { "ab" } else { "cd" }.to_owned());
        check_same(rank, &fingerprint).expect_err("two of them differ").to_string()
    });
    for error in errors {
        let lines: Vec<&str> = error.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines, ["rank 1 has a different train.seed: 7, rank 0 has 42", "rank 2 has a different data.train"]);
    }
    for error in together(3, |rank| check_ranks(rank, 2).expect_err("one has nothing to do").to_string()) {
        assert!(error.starts_with("3 processes train together, and an update has 2 batches"), "{error}");
    }
    // Only the first process resumes from the checkpoint.
    let (config, folder) = (shared_config(), tempfile::tempdir().expect("a folder"));
    train(2, (folder.path(), false), &config, (false, Some((0, 1))));
    let errors = together(2, |reduction| {
        let (train, device, fingerprint) = (&set(), &Flex::device(0), &Fingerprint::default());
        let (resume, config, checkpoints) = (reduction.rank == 0, &config, folder.path());
        let fit = Fit { train, validation: train, config, fingerprint, device, checkpoints, resume, reduction };
        fit.run(model(), &mut |_| ControlFlow::Continue(())).expect_err("they differ").to_string()
    });
    let expected = "rank 1 at update 0 has weights different from those of rank 0 at update 1";
    assert!(errors.iter().all(|error| error.starts_with(expected)), "{errors:?}");
}
