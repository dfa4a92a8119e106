//! Names the shared library for the run-time linker, so that a program never starts with a library
//! whose functions mean something else: `libccl.so.1`, and before 1.0, where a minor version may
//! break, `libccl.so.0.1`. And keeps it loaded once it is: a program that unloads a plugin would
//! take the code away from under the library's threads.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    if is_linux {
        let interface = match env!("CARGO_PKG_VERSION_MAJOR") {
            "0" => concat!("0.", env!("CARGO_PKG_VERSION_MINOR")),
            major => major,
        };
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libccl.so.{interface}");
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
