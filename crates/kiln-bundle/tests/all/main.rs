//! Tests of the guarantees of bundles.

mod families;
mod invariance;
mod outliers;
mod sealed;
mod smoothing;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock for tests that draw weights. A device has one random stream for all threads, so concurrent tests would change
/// the weights that a seed gives.
fn random_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
