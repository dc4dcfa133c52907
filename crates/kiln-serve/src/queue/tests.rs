use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

/// A text with a number of tokens, and the outcome of its computation.
#[derive(Clone, Debug)]
struct Text {
    id: usize,
    tokens: usize,
    panics: bool,
    fails: bool,
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

impl Work for Text {
    type Output = usize;

    fn group(&self) -> usize {
        self.id / 1_000
    }

    fn rows(&self) -> usize {
        1
    }

    fn longest(&self) -> usize {
        self.tokens
    }

    fn tokens(&self) -> usize {
        self.tokens
    }

    fn compute(batch: &[&Self]) -> Vec<Result<usize, String>> {
        if batch.iter().any(|text| text.panics) {
            PANICS.fetch_add(1, Ordering::SeqCst);
            panic!("as the test wants it");
        }
        batch.iter().map(|text| if text.fails { Err("bad".to_owned()) } else { Ok(text.id) }).collect()
    }
}

fn text(id: usize, tokens: usize) -> Text {
    Text { id, tokens, panics: false, fails: false }
}

const CONFIG: QueueConfig = QueueConfig {
    max_tokens: 1_000,
    batch_tokens: 100,
    few_texts: 2,
    bulk_patience: Duration::from_secs(3_600),
    deadline: Duration::from_secs(60),
};

/// The ids of the texts in each batch of a filled queue, sorted within a batch.
fn batches(queue: &Queue<Text>) -> Vec<Vec<usize>> {
    let mut batches = Vec::new();
    while queue.waiting_tokens() > 0 {
        let batch = queue.next_batch().expect("something waits");
        let mut ids: Vec<usize> = batch.iter().map(|item| item.work.id).collect();
        ids.sort_unstable();
        batches.push(ids);
    }
    batches
}

fn submit(queue: &Queue<Text>, texts: impl IntoIterator<Item = Text>) -> Ticket<'_, Text> {
    queue.submit(texts.into_iter().collect()).expect("there is room")
}

fn wait(ticket: Ticket<'_, Text>) -> Result<Vec<usize>, Failure> {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(ticket.results())
}

/// Runs `ask` while another thread works on the queue. Closes the queue afterwards.
fn with_worker<T>(queue: &Queue<Text>, ask: impl FnOnce() -> T) -> (T, Vec<BatchReport>) {
    let (sender, reports) = mpsc::channel();
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| queue.work(|report| sender.send(report).expect("the receiver lives")));
        let answer = ask();
        queue.close();
        answer
    });
    drop(sender);
    (answer, reports.iter().collect())
}

#[test]
fn a_request_is_admitted_whole_or_not_at_all() {
    let queue = Queue::new(CONFIG);
    let first = submit(&queue, [text(0, 400), text(1, 400)]);
    assert!(matches!(queue.submit(vec![text(2, 100), text(3, 101)]), Err(Refused::Full(_))));
    assert_eq!(queue.waiting_tokens(), 800);
    assert!(matches!(queue.submit(vec![text(4, 1_001)]), Err(Refused::TooLarge)));
    let second = submit(&queue, [text(5, 200)]);
    assert_eq!(queue.waiting_tokens(), 1_000);
    assert!(matches!(queue.has_room(), Err(Refused::Full(_))));
    drop(first);
    assert_eq!((queue.waiting_tokens(), queue.has_room()), (200, Ok(())));
    drop(second);
    assert_eq!(queue.waiting_tokens(), 0);
}

#[test]
fn batches_hold_similar_lengths_and_the_oldest_leads() {
    let queue = Queue::new(CONFIG);
    let _tickets = [
        submit(&queue, [text(0, 10)]),
        submit(&queue, [text(1, 50), text(2, 50)]),
        submit(&queue, [text(3, 11), text(4, 12)]),
        submit(&queue, [text(5, 300)]),
    ];
    // 4 rows of 50 tokens would be 200. A text longer than a batch is computed alone, and counts as bulk.
    assert_eq!(batches(&queue), [vec![0, 3, 4], vec![1, 2], vec![5]]);
}

#[test]
fn models_are_not_mixed() {
    let queue = Queue::new(CONFIG);
    let _tickets = [submit(&queue, [text(0, 10), text(1_000, 10)]), submit(&queue, [text(1, 10), text(1_001, 10)])];
    assert_eq!(batches(&queue), [vec![0, 1], vec![1_000, 1_001]]);
}

#[test]
fn few_texts_go_before_bulk_until_bulk_has_waited() {
    for (bulk_patience, first) in [(CONFIG.bulk_patience, vec![10, 11]), (Duration::ZERO, vec![0, 1, 2])] {
        let queue = Queue::new(QueueConfig { bulk_patience, ..CONFIG });
        let _bulk = submit(&queue, (0..3).map(|id| text(id, 30)));
        let _few = submit(&queue, [text(10, 30), text(11, 30)]);
        assert_eq!(batches(&queue)[0], first, "{bulk_patience:?}");
    }
}

#[test]
fn results_come_in_the_order_of_the_texts() {
    let queue = Queue::new(CONFIG);
    let (results, reports) = with_worker(&queue, || {
        let lengths = [7, 90, 3, 60, 90, 5];
        let ids: Vec<usize> = (0..lengths.len()).collect();
        let ticket = submit(&queue, ids.iter().map(|&id| text(id, lengths[id])));
        let nothing = submit(&queue, []);
        (wait(ticket), wait(nothing), ids)
    });
    assert_eq!(results.0, Ok(results.2));
    assert_eq!(results.1, Ok(vec![]));
    assert_eq!(reports.iter().map(|report| report.tokens).sum::<usize>(), 255);
    assert!(reports.iter().all(|report| report.padded_tokens <= CONFIG.batch_tokens && !report.panicked));
}

#[test]
fn a_panic_fails_its_text_alone() {
    let queue = Queue::new(CONFIG);
    // All are queued before the worker starts, so they are one batch.
    let good = submit(&queue, [text(0, 10)]);
    let panics = submit(&queue, [Text { panics: true, ..text(1, 10) }]);
    let fails = submit(&queue, [text(2, 10), Text { fails: true, ..text(3, 10) }]);
    let ((good, panics, fails), reports) = with_worker(&queue, || (wait(good), wait(panics), wait(fails)));
    assert_eq!(good, Ok(vec![0]));
    assert_eq!(panics, Err(Failure::Panic));
    assert_eq!(fails, Err(Failure::Text("bad".to_owned())));
    assert_eq!(PANICS.load(Ordering::SeqCst), 2, "once in the batch, once alone");
    assert!(reports[0].panicked);
}

#[test]
fn a_closed_queue_computes_what_it_has() {
    let queue = Queue::new(CONFIG);
    let ticket = submit(&queue, [text(0, 10)]);
    queue.close();
    assert!(matches!(queue.submit(vec![text(1, 1)]), Err(Refused::Closed)));
    let (result, _) = with_worker(&queue, || wait(ticket));
    assert_eq!(result, Ok(vec![0]));
    let abandoned = Queue::new(CONFIG);
    let ticket = submit(&abandoned, [text(0, 10)]);
    abandoned.abandon();
    assert_eq!(wait(ticket), Err(Failure::Closed));
}

#[test]
fn the_speed_says_how_long_a_queue_takes() {
    let mut speed = Speed::default();
    assert_eq!(speed.time_for(1_000), Duration::ZERO);
    speed.add(1_000, Duration::from_secs(2));
    assert_eq!(speed.time_for(1_000), Duration::from_secs(2));
    // A batch that is twice as fast moves the mean by a tenth of the difference.
    speed.add(1_000, Duration::from_secs(1));
    assert!((speed.time_for(550).as_secs_f64() - 1.0).abs() < 1e-9, "{:?}", speed.time_for(550));
    let queue = Queue::new(QueueConfig { deadline: Duration::from_secs(1), ..CONFIG });
    queue.lock().speed.add(100, Duration::from_secs(1));
    let _waits = submit(&queue, [text(0, 300)]);
    assert_eq!(queue.has_room(), Err(Refused::Full(Duration::from_secs(3))));
}
