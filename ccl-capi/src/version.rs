//! Version of the library, at compile time and at run time.

use crate::call::call;
use crate::memory;
use crate::result::cclResult_t;

/// Major version of this header. Functions may differ between major versions.
pub const CCL_VERSION_MAJOR: u32 = 0;
/// Minor version of this header. Before 1.0 functions may differ between minor versions too.
pub const CCL_VERSION_MINOR: u32 = 1;
/// Patch version of this header.
pub const CCL_VERSION_PATCH: u32 = 0;

/// Initializes the library. Optional: the first call that needs it does it too. May be called any
/// number of times, from any thread. Does not block.
///
/// Errors: none, except cclErrorInvalidUsage within the log callback.
#[unsafe(export_name = "cclInit")]
pub extern "C" fn init() -> cclResult_t {
    call(|| Ok(()))
}

/// Writes the version of the loaded library, as major × 10000 + minor × 100 + patch. Compare it
/// with CCL_VERSION_MAJOR, CCL_VERSION_MINOR and CCL_VERSION_PATCH of the header. Does not block.
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
