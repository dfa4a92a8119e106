//! What to do about a result: the core's answer, by its code.

use ccl_core::ErrorKind;

use crate::call::call;
use crate::memory;
use crate::result::{cclResult_t, kind};

/// Whether the same call may succeed if it is made again in this session: writes 1 or 0. Does not
/// block.
///
/// Errors: cclErrorInvalidArgument.
#[unsafe(export_name = "cclResultIsRetryable")]
pub unsafe extern "C" fn result_is_retryable(
    result: cclResult_t,
    is_retryable: *mut u32,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(is_retryable, "is_retryable") }?;
        place.set(kind(result).is_some_and(ErrorKind::is_retryable).into());
        Ok(())
    })
}

/// Whether a failure ended the session: writes 1 or 0. Then every further call on the communicator
/// fails; destroy it, create another and connect again. Does not block.
///
/// Errors: cclErrorInvalidArgument.
#[unsafe(export_name = "cclResultIsFatal")]
pub unsafe extern "C" fn result_is_fatal(result: cclResult_t, is_fatal: *mut u32) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(is_fatal, "is_fatal") }?;
        place.set(kind(result).is_some_and(ErrorKind::is_fatal).into());
        Ok(())
    })
}
