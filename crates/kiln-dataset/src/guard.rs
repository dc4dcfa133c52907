use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use polars::prelude::PolarsResult;

use crate::Error;

/// Runs polars on a file. Its decoders panic on some damaged files; here a panic becomes an error that names the file, and
/// nothing is printed.
pub(crate) fn guarded<T>(path: &Path, decode: impl FnOnce() -> PolarsResult<T>) -> Result<T, Error> {
    silence_decoders();
    let outer = GUARDED.replace(true);
    RUNNING.fetch_add(1, Ordering::Relaxed);
    let result = panic::catch_unwind(AssertUnwindSafe(decode));
    RUNNING.fetch_sub(1, Ordering::Relaxed);
    GUARDED.set(outer);
    match result {
        Ok(decoded) => decoded.map_err(|source| Error::Columnar { path: path.to_owned(), source }),
        Err(payload) => Err(Error::Damaged { path: path.to_owned(), problem: message(payload.as_ref()) }),
    }
}

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// How many threads are inside [`guarded`].
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Silences the panic hook for threads inside [`guarded`], and for polars' own threads while there are some. Other panics go to
/// the hook that was there before.
fn silence_decoders() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let in_polars = panic.location().is_some_and(|location| location.file().contains("polars-"));
            let is_decoding = in_polars && RUNNING.load(Ordering::Relaxed) > 0;
            if !is_decoding && !GUARDED.try_with(Cell::get).unwrap_or(false) {
                previous(panic);
            }
        }));
    });
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    format!("it cannot be decoded: {}", text.unwrap_or("the decoder gave no reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_names_the_file() {
        let path = Path::new("a.parquet");
        assert_eq!(guarded(path, || Ok(3)).expect("nothing panics"), 3);
        let message = guarded(path, || -> PolarsResult<()> { panic!("no {}", 7) }).expect_err("it panics").to_string();
        assert_eq!(message, "a.parquet: the file is damaged: it cannot be decoded: no 7");
        assert!(!GUARDED.get());
    }
}
