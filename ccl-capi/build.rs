//! Names the shared library for the run-time linker: `libccl.so.0`, the major version, so that a
//! program never starts with a library whose functions mean something else.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    if is_linux {
        let major = env!("CARGO_PKG_VERSION_MAJOR");
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libccl.so.{major}");
    }
}
