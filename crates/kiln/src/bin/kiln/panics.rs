//! Panics, which are bugs in Kiln, are reported in one line.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln::environment::wants_backtrace;

/// Runs a function, and turns a panic into a one-line error message.
///
/// The message is printed by the caller and not by the panic hook, because a library may turn a panic into an error.
pub fn catch_panic<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        *last_panic() = Some(place(info));
        if wants_backtrace() {
            default(info);
        }
    }));
    // No state that the panic may have left inconsistent is used afterwards.
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(run));
    drop(std::panic::take_hook());
    outcome.map_err(|payload| {
        let place = last_panic().take().unwrap_or_default();
        format!("internal error: {}{place}; please report it, with the command", message(&*payload))
    })
}

/// The location of the last panic in any thread.
fn last_panic() -> MutexGuard<'static, Option<String>> {
    static PLACE: Mutex<Option<String>> = Mutex::new(None);
    PLACE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn place(info: &PanicHookInfo<'_>) -> String {
    info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default()
}

/// The message of a panic, in one line.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let line = catch_panic(|| -> () { panic!("no\nway") }).expect_err("it panics");
        assert!(line.starts_with("internal error: no way ("), "{line}");
        assert!(line.contains("panics.rs:") && line.ends_with("please report it, with the command"), "{line}");
        assert_eq!(catch_panic(|| 7), Ok(7));
    }
}
