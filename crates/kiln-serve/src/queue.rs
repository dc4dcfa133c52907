use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

mod choice;
mod speed;
#[cfg(test)]
mod tests;

use choice::choose;
use speed::Speed;

/// What waits in a [`Queue`]: one text.
pub trait Work: Send + 'static {
    /// What comes of it.
    type Output: Send + 'static;

    /// Only works of the same group are computed together: those of one model and one kind.
    fn group(&self) -> usize;

    /// How many rows of a batch it takes.
    fn rows(&self) -> usize;

    /// The tokens of its longest row, to which a batch is padded.
    fn longest(&self) -> usize;

    /// Its tokens in all rows: what it costs.
    fn tokens(&self) -> usize;

    /// Computes works of one group. What one of them comes to does not depend on the others.
    fn compute(batch: &[&Self]) -> Vec<Result<Self::Output, String>>;
}

/// How a [`Queue`] takes and orders texts.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// The most tokens that wait.
    pub max_tokens: usize,
    /// The most tokens of a batch, padding included; a longer text is a batch of its own.
    pub batch_tokens: usize,
    /// A request of more texts is bulk.
    pub few_texts: usize,
    /// How much longer bulk waits than a request of few texts that came at the same time.
    pub bulk_patience: Duration,
    /// How long a request may take; one that would wait longer is refused at once.
    pub deadline: Duration,
}

/// Why a request got no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The model could not compute a text.
    Text(String),
    /// Computing a text panicked.
    Panic,
    /// The queue ended before the request's turn.
    Closed,
}

/// Why a request was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Others wait already; worth another try after so long.
    Full(Duration),
    /// It has more tokens than the queue ever takes.
    TooLarge,
    /// The server is shutting down.
    Closed,
}

/// What one batch was, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct BatchReport {
    /// Texts computed together.
    pub texts: usize,
    /// Their tokens.
    pub tokens: usize,
    /// The same with padding.
    pub padded_tokens: usize,
    /// How long it took.
    pub time: Duration,
    /// Whether it panicked.
    pub panicked: bool,
}

/// Texts of all requests, computed by one thread in batches of similar length.
///
/// - A request is admitted with all of its texts or not at all.
/// - The oldest text leads the next batch; texts of its group and of the nearest lengths fill it. None starves.
/// - Requests of few texts lead before bulk, until bulk has waited for [`QueueConfig::bulk_patience`] more.
/// - A text whose request has gone is not computed.
/// - A panic fails the text that causes it, and no other of its batch.
pub struct Queue<W: Work> {
    config: QueueConfig,
    state: Mutex<State<W>>,
    changed: Condvar,
}

struct State<W: Work> {
    /// In the order in which they came.
    items: Vec<Item<W>>,
    tokens: usize,
    next_request: u64,
    speed: Speed,
    closed: bool,
}

/// A text of a request.
struct Item<W: Work> {
    work: W,
    request: Arc<Request<W>>,
    place: usize,
    since: Instant,
}

/// What the texts of a request have in common.
struct Request<W: Work> {
    number: u64,
    bulk: bool,
    pending: Mutex<Option<Pending<W>>>,
}

/// A request that still waits for results.
struct Pending<W: Work> {
    outputs: Vec<Option<W::Output>>,
    missing: usize,
    sender: oneshot::Sender<Result<Vec<W::Output>, Failure>>,
}

/// A request in the queue. Dropping it takes the request's texts out.
pub struct Ticket<'a, W: Work> {
    queue: &'a Queue<W>,
    request: Arc<Request<W>>,
    receiver: oneshot::Receiver<Result<Vec<W::Output>, Failure>>,
}

impl<W: Work> Queue<W> {
    /// An empty queue. [`Queue::work`] does its work.
    pub fn new(config: QueueConfig) -> Self {
        let state = State { items: Vec::new(), tokens: 0, next_request: 0, speed: Speed::default(), closed: false };
        Self { config, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Whether a request could be taken in now, before it has been tokenized.
    ///
    /// # Errors
    /// When it would be refused whatever it holds.
    pub fn has_room(&self) -> Result<(), Refused> {
        let state = self.lock();
        self.admit(&state, 1)
    }

    /// Takes in all texts of a request, or none.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn submit(&self, works: Vec<W>) -> Result<Ticket<'_, W>, Refused> {
        let tokens: usize = works.iter().map(W::tokens).sum();
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        self.admit(&state, tokens)?;
        let number = state.next_request;
        state.next_request += 1;
        let bulk = works.len() > self.config.few_texts || tokens > self.config.batch_tokens;
        let outputs = works.iter().map(|_| None).collect();
        let mut pending = Some(Pending { outputs, missing: works.len(), sender });
        if works.is_empty() {
            pending.take().map(|pending| pending.sender.send(Ok(Vec::new())));
        }
        let request = Arc::new(Request { number, bulk, pending: Mutex::new(pending) });
        let since = Instant::now();
        let item = |(place, work)| Item { work, request: request.clone(), place, since };
        state.items.extend(works.into_iter().enumerate().map(item));
        state.tokens += tokens;
        drop(state);
        self.changed.notify_one();
        Ok(Ticket { queue: self, request, receiver })
    }

    fn admit(&self, state: &State<W>, tokens: usize) -> Result<(), Refused> {
        if state.closed {
            return Err(Refused::Closed);
        }
        if tokens > self.config.max_tokens {
            return Err(Refused::TooLarge);
        }
        let wait = state.speed.time_for(state.tokens);
        if state.tokens + tokens > self.config.max_tokens || wait > self.config.deadline {
            return Err(Refused::Full(wait));
        }
        Ok(())
    }

    /// Tokens that wait.
    pub fn waiting_tokens(&self) -> usize {
        self.lock().tokens
    }

    /// Computes what is in the queue and what comes, until the queue is closed and empty. `report` hears of each batch.
    pub fn work(&self, report: impl Fn(BatchReport)) {
        while let Some(batch) = self.next_batch() {
            let start = Instant::now();
            let works: Vec<&W> = batch.iter().map(|item| &item.work).collect();
            let tokens = works.iter().map(|work| work.tokens()).sum();
            let rows: usize = works.iter().map(|work| work.rows()).sum();
            let longest = works.iter().map(|work| work.longest()).max().unwrap_or(0);
            let (results, panicked) = compute(&works);
            let time = start.elapsed();
            self.lock().speed.add(tokens, time);
            report(BatchReport { texts: works.len(), tokens, padded_tokens: rows * longest, time, panicked });
            for (item, result) in batch.iter().zip(results) {
                item.request.deliver(item.place, result);
            }
        }
    }

    /// The next texts to compute; none once the queue is closed and empty.
    fn next_batch(&self) -> Option<Vec<Item<W>>> {
        let mut state = self.lock();
        loop {
            // Requests that have failed leave their other texts here.
            state.remove(|item| item.request.is_done());
            if !state.items.is_empty() {
                break;
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut is_chosen = vec![false; state.items.len()];
        choose(&state.items, &self.config).into_iter().for_each(|at| is_chosen[at] = true);
        // One pass, as there may be many.
        let mut is_chosen = is_chosen.into_iter();
        let batch: Vec<Item<W>> = state.items.extract_if(.., |_| is_chosen.next() == Some(true)).collect();
        state.tokens -= batch.iter().map(|item| item.work.tokens()).sum::<usize>();
        Some(batch)
    }

    /// Takes nothing more in. What is in the queue is still computed.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Takes everything out; those who wait hear [`Failure::Closed`].
    pub fn abandon(&self) {
        self.close();
        let mut state = self.lock();
        for item in state.items.drain(..) {
            item.request.deliver(item.place, Err(Failure::Closed));
        }
        state.tokens = 0;
    }

    /// No code that can panic runs while the lock is held.
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> State<W> {
    fn remove(&mut self, is_removed: impl Fn(&Item<W>) -> bool) {
        let tokens = &mut self.tokens;
        self.items.retain(|item| {
            let removed = is_removed(item);
            *tokens -= if removed { item.work.tokens() } else { 0 };
            !removed
        });
    }
}

/// What came of each work of a batch.
type Results<W> = Vec<Result<<W as Work>::Output, Failure>>;

/// The results of works, and whether one of them panicked. After a panic each is computed by itself.
fn compute<W: Work>(works: &[&W]) -> (Results<W>, bool) {
    let attempt = |works: &[&W]| -> Option<Results<W>> {
        // What a panic leaves half done is dropped, never looked at.
        let results = catch_unwind(AssertUnwindSafe(|| W::compute(works))).ok()?;
        Some(results.into_iter().map(|result| result.map_err(Failure::Text)).collect())
    };
    match attempt(works) {
        Some(results) => (results, false),
        None if works.len() == 1 => (vec![Err(Failure::Panic)], true),
        None => {
            let alone = |work: &&W| match attempt(&[*work]) {
                Some(mut results) => results.pop().unwrap_or(Err(Failure::Panic)),
                None => Err(Failure::Panic),
            };
            (works.iter().map(alone).collect(), true)
        }
    }
}

impl<W: Work> Request<W> {
    /// Keeps a result, and sends all once the last is there, or the first failure.
    fn deliver(&self, place: usize, result: Result<W::Output, Failure>) {
        let mut slot = self.lock();
        let Some(mut pending) = slot.take() else { return };
        match result {
            Err(failure) => drop(pending.sender.send(Err(failure))),
            Ok(output) => {
                pending.outputs[place] = Some(output);
                pending.missing -= 1;
                if pending.missing > 0 {
                    *slot = Some(pending);
                } else {
                    drop(pending.sender.send(Ok(pending.outputs.into_iter().flatten().collect())));
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.lock().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pending<W>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> Ticket<'_, W> {
    /// Waits for all results, in the order of the texts.
    ///
    /// # Errors
    /// When one of the texts fails, or the queue ends before.
    pub async fn results(mut self) -> Result<Vec<W::Output>, Failure> {
        (&mut self.receiver).await.unwrap_or(Err(Failure::Closed))
    }
}

impl<W: Work> Drop for Ticket<'_, W> {
    fn drop(&mut self) {
        if self.request.lock().take().is_some() {
            let number = self.request.number;
            self.queue.lock().remove(|item| item.request.number == number);
        }
    }
}

impl<W: Work> std::fmt::Debug for Queue<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("config", &self.config).field("waiting_tokens", &self.waiting_tokens()).finish()
    }
}
