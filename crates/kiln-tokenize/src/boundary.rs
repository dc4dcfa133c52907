use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`guarded`], where a panic is reported as a value.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs code of a dependency that may panic on what a file contains, and returns the panic's message as an error.
///
/// Nothing is printed: the panic hook stays silent for a thread that is inside this function, and calls the hook that was
/// there before for every other one.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !GUARDED.try_with(Cell::get).unwrap_or(false) {
                previous(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    result.map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("it ended without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(guarded(|| 3), Ok(3));
        assert_eq!(guarded(|| -> usize { panic!("no {}", 7) }), Err("no 7".to_owned()));
        assert_eq!(guarded(|| guarded(|| -> usize { panic!("inner") }).is_err()), Ok(true));
        assert!(!GUARDED.get());
    }
}
