//! What bundles promise.

mod families;
mod invariance;
mod outliers;
mod sealed;
mod smoothing;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The turn of a test that draws weights: a device has one random stream for all threads, and what another test draws from it
/// changes the weights that a seed gives.
fn random_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
