//! Version of the library, at compile time and at run time.

use crate::call::call;
use crate::memory;
use crate::result::cclResult_t;

/// Major version of this header. Another one may mean other functions.
pub const CCL_VERSION_MAJOR: u32 = 0;
/// Minor version of this header. Before 1.0 another one may mean other functions too.
pub const CCL_VERSION_MINOR: u32 = 1;
/// Patch version of this header.
pub const CCL_VERSION_PATCH: u32 = 0;

/// Prepares the library. Optional: whatever needs preparing is prepared by the first call that
/// needs it. May be called any number of times, from any thread. Does not block.
///
/// Errors: none, but for cclErrorInvalidUsage within the log callback.
#[unsafe(export_name = "cclInit")]
pub extern "C" fn init() -> cclResult_t {
    call(|| Ok(()))
}

/// Writes the version of the library that runs, as major × 10000 + minor × 100 + patch, to be
/// compared with CCL_VERSION_MAJOR and its like of the header that the program was compiled with.
/// Does not block.
///
/// Errors: cclErrorInvalidArgument.
#[unsafe(export_name = "cclGetVersion")]
pub unsafe extern "C" fn get_version(version: *mut u32) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(version, "version") }?;
        place.set(CCL_VERSION_MAJOR * 10_000 + CCL_VERSION_MINOR * 100 + CCL_VERSION_PATCH);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_version_of_the_package() {
        let header = format!("{CCL_VERSION_MAJOR}.{CCL_VERSION_MINOR}.{CCL_VERSION_PATCH}");
        assert_eq!(header, env!("CARGO_PKG_VERSION"));
    }
}
