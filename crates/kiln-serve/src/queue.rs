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

/// An item of a [`Queue`]: one text.
pub trait Work: Send + 'static {
    /// The result for a text.
    type Output: Send + 'static;

    /// The group of the item. Only items of the same group, that is, of one model and one kind, share a batch.
    fn group(&self) -> usize;

    /// The number of batch rows that the item takes.
    fn rows(&self) -> usize;

    /// The number of tokens in its longest row. A batch is padded to the longest row.
    fn longest(&self) -> usize;

    /// The number of tokens in all rows, which is the cost of the item.
    fn tokens(&self) -> usize;

    /// Computes items of one group. The result for an item does not depend on the others.
    fn compute(batch: &[&Self]) -> Vec<Result<Self::Output, String>>;
}

/// Configuration of a [`Queue`].
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// The most tokens that wait in the queue.
    pub max_tokens: usize,
    /// The most tokens in a batch, padding included. A longer text is computed in a batch of its own.
    pub batch_tokens: usize,
    /// A request with more texts than this is bulk. So is one with more tokens than a batch.
    pub few_texts: usize,
    /// How much longer a bulk request waits than a small request that came at the same time.
    pub bulk_patience: Duration,
    /// The longest expected wait. A request that would wait longer is refused at once.
    pub deadline: Duration,
}

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The model could not compute a text.
    Text(String),
    /// Computing a text panicked.
    Panic,
    /// The queue was abandoned before the request was computed.
    Closed,
}

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full. The client should try again after this time.
    Full(Duration),
    /// The request has more tokens than the queue can hold.
    TooLarge,
    /// The server is shutting down.
    Closed,
}

/// Statistics of a batch, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct BatchReport {
    /// The number of texts.
    pub texts: usize,
    /// The number of tokens, without padding.
    pub tokens: usize,
    /// The number of tokens, with padding.
    pub padded_tokens: usize,
    /// The time that the batch took.
    pub time: Duration,
    /// Whether the computation panicked.
    pub panicked: bool,
}

/// A queue for the texts of all requests. One thread computes them in batches of similar length.
///
/// - A request is admitted with all of its texts or not at all.
/// - The oldest text starts the next batch. Texts of its group with the most similar lengths fill it. No text starves.
/// - Small requests go before bulk requests, until a bulk request has waited [`QueueConfig::bulk_patience`] longer.
/// - A text whose request was dropped is not computed.
/// - A text that causes a panic fails. The other texts of its batch do not.
pub struct Queue<W: Work> {
    config: QueueConfig,
    state: Mutex<State<W>>,
    changed: Condvar,
}

struct State<W: Work> {
    /// In order of arrival.
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

/// The shared state of the texts of a request.
struct Request<W: Work> {
    number: u64,
    bulk: bool,
    pending: Mutex<Option<Pending<W>>>,
}

/// The results of a request that is not complete yet.
struct Pending<W: Work> {
    outputs: Vec<Option<W::Output>>,
    missing: usize,
    sender: oneshot::Sender<Result<Vec<W::Output>, Failure>>,
}

/// A request in the queue. Dropping the ticket removes its texts from the queue.
pub struct Ticket<'a, W: Work> {
    queue: &'a Queue<W>,
    request: Arc<Request<W>>,
    receiver: oneshot::Receiver<Result<Vec<W::Output>, Failure>>,
}

impl<W: Work> Queue<W> {
    /// An empty queue. A thread that runs [`Queue::work`] computes its texts.
    pub fn new(config: QueueConfig) -> Self {
        let state = State { items: Vec::new(), tokens: 0, next_request: 0, speed: Speed::default(), closed: false };
        Self { config, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Checks whether there is room for a request, before it is tokenized.
    ///
    /// # Errors
    /// When even the smallest request would be refused.
    pub fn has_room(&self) -> Result<(), Refused> {
        let state = self.lock();
        self.admit(&state, 1)
    }

    /// Adds all texts of a request to the queue, or none.
    ///
    /// # Errors
    /// When there is no room for all texts.
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

    /// The number of tokens that wait.
    pub fn waiting_tokens(&self) -> usize {
        self.lock().tokens
    }

    /// Computes the texts in the queue until it is closed and empty. `report` is called after each batch.
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

    /// Waits for the next batch. Returns `None` once the queue is closed and empty.
    fn next_batch(&self) -> Option<Vec<Item<W>>> {
        let mut state = self.lock();
        loop {
            // When one text of a request fails, its other texts are still in the queue.
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
        // One pass, because the queue may be long.
        let mut is_chosen = is_chosen.into_iter();
        let batch: Vec<Item<W>> = state.items.extract_if(.., |_| is_chosen.next() == Some(true)).collect();
        state.tokens -= batch.iter().map(|item| item.work.tokens()).sum::<usize>();
        Some(batch)
    }

    /// Stops admitting requests. The texts in the queue are still computed.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Closes and empties the queue. Waiting requests fail with [`Failure::Closed`].
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

/// The results for the items of a batch.
type Results<W> = Vec<Result<<W as Work>::Output, Failure>>;

/// The results for the items, and whether one of them panicked. After a panic each item is computed separately.
fn compute<W: Work>(works: &[&W]) -> (Results<W>, bool) {
    let attempt = |works: &[&W]| -> Option<Results<W>> {
        // A panic leaves no state behind that is used later.
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
    /// Stores a result. Sends all results once they are complete, or the first failure.
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
    /// When one of the texts fails, or the queue is abandoned.
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
