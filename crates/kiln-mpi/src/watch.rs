use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A report that this process has waited too long for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// The call in which it waits.
    pub place: &'static str,
    /// How long it has waited.
    pub waited: Duration,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another process has stalled: this one has waited {} s {}", self.waited.as_secs(), self.place)
    }
}

/// Watches the calls in which a process waits for the others.
pub(crate) struct Watch {
    waiting: Arc<Mutex<Option<Waiting>>>,
}

/// A call in progress.
#[derive(Clone, Copy)]
struct Waiting {
    place: &'static str,
    since: Instant,
    limit: Duration,
}

/// The interval between two checks.
const PERIOD: Duration = Duration::from_millis(200);

impl Watch {
    /// Starts a thread that calls `on_stall` when a call takes longer than its limit.
    pub fn start(on_stall: impl Fn(Stalled) + Send + 'static) -> Self {
        let waiting = Arc::default();
        let watched = Arc::downgrade(&waiting);
        std::thread::spawn(move || look(&watched, on_stall));
        Self { waiting }
    }

    /// Makes a call that waits for the others. Reports a stall if it takes longer than `limit`.
    pub fn during(&self, place: &'static str, limit: Duration, call: impl FnOnce()) {
        *locked(&self.waiting) = Some(Waiting { place, since: Instant::now(), limit });
        call();
        *locked(&self.waiting) = None;
    }
}

/// Checks the current call periodically until the watch is dropped.
fn look(watched: &Weak<Mutex<Option<Waiting>>>, on_stall: impl Fn(Stalled)) {
    while let Some(waiting) = watched.upgrade() {
        let now = *locked(&waiting);
        drop(waiting);
        if let Some(Waiting { place, since, limit }) = now
            && since.elapsed() > limit
        {
            on_stall(Stalled { place, waited: since.elapsed() });
        }
        std::thread::sleep(PERIOD);
    }
}

fn locked(waiting: &Mutex<Option<Waiting>>) -> MutexGuard<'_, Option<Waiting>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_call_beyond_its_limit_is_reported_and_no_other() {
        let (sender, stalled) = mpsc::channel();
        // Sending fails after the test has received what it needs.
        let watch = Watch::start(move |stalled| {
            let _ = sender.send(stalled);
        });
        watch.during("in a short call", Duration::MAX, || std::thread::sleep(3 * PERIOD));
        assert!(stalled.try_recv().is_err());
        watch.during("in a long call", Duration::ZERO, || {
            assert_eq!(stalled.recv().expect("it is reported").place, "in a long call");
        });
    }
}
