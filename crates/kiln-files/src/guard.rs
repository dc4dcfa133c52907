use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs code of a dependency that may panic on the content of a file. A panic is returned as an error with its message.
///
/// Nothing is printed. The panic hook is silent for threads inside this function. While there is one, it is also silent
/// for panics in the threads of a decoder. All other panics go to the previous hook.
///
/// ```
/// assert_eq!(kiln_files::guarded(|| 3), Ok(3));
/// assert_eq!(kiln_files::guarded(|| -> u8 { panic!("no {}", 7) }), Err("no 7".to_owned()));
/// ```
///
/// # Errors
/// When the code panics.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    silence();
    let outer = GUARDED.replace(true);
    RUNNING.fetch_add(1, Ordering::Relaxed);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    RUNNING.fetch_sub(1, Ordering::Relaxed);
    GUARDED.set(outer);
    result.map_err(|payload| message(payload.as_ref()))
}

/// The dependencies that decode in their own threads, by their source folders.
const DECODERS: [&str; 2] = ["polars-", "tokenizers-"];

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The number of threads inside [`guarded`].
static RUNNING: AtomicUsize = AtomicUsize::new(0);

fn silence() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let is_decoding = RUNNING.load(Ordering::Relaxed) > 0 && in_decoder(panic);
            if !is_decoding && !GUARDED.try_with(Cell::get).unwrap_or(false) {
                previous(panic);
            }
        }));
    });
}

fn in_decoder(panic: &PanicHookInfo<'_>) -> bool {
    panic.location().is_some_and(|place| DECODERS.iter().any(|decoder| place.file().contains(decoder)))
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
