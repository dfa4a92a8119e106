//! The wrapper of every call from C: no panic unwinds into C, the thread's state is restored, and a
//! failure is recorded.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ccl_core::Error;

use crate::callback;
use crate::caller::Caller;
use crate::last_error::keep;
use crate::result::{Failure, Outcome, cclResult_t, cclSuccess};

/// Runs `body` and converts its outcome to a result code. The text of a failure is stored for this
/// thread.
pub(crate) fn call(body: impl FnOnce() -> Outcome<()>) -> cclResult_t {
    let _caller = Caller::enter();
    let end = if callback::is_inside() {
        let what = "a callback must not call the library";
        Err(Failure::from(Error::usage(what)))
    } else {
        catch_unwind(AssertUnwindSafe(body))
            .unwrap_or_else(|panic| Err(Failure::Panic(words(&*panic))))
    };
    match end {
        Ok(()) => cclSuccess,
        Err(failure) => keep(failure),
    }
}

/// The message of a panic.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::last_error::last_error;
    use crate::result::cclErrorInternal;

    fn last_words() -> String {
        // SAFETY: the library's own text, which lives until this thread's next failure.
        let text = unsafe { CStr::from_ptr(last_error()) };
        text.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_becomes_a_result_code_with_its_words() {
        assert_eq!(call(|| panic!("broken {}", "promise")), cclErrorInternal);
        assert!(last_words().contains("broken promise"), "{}", last_words());
        assert_eq!(call(|| panic!("another")), cclErrorInternal);
        assert!(last_words().contains("another"), "{}", last_words());
    }

    #[test]
    fn a_success_leaves_the_words_of_the_last_failure() {
        assert_eq!(call(|| Err(Error::Timeout.into())), 7);
        assert_eq!(call(|| Ok(())), cclSuccess);
        assert!(last_words().contains("did not finish"), "{}", last_words());
    }
}
