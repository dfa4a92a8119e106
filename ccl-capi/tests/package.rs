//! `make install` installs what a user needs, and nothing else.
//!
//! 1. The libraries export the functions of the header and nothing else; the shared one is named by
//!    the version that must not change. 2. The examples build from their Makefile, which finds the
//!    library by pkg-config, and run; also linked statically. 3. CMake finds both libraries, for
//!    programs in C and C++, and none of another version.
//! 4. Installed files do not contain the path of the build directory.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use ccl_core::{MasterConfig, MasterServer};
use ccl_tests::process::{Process, run};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The part of the version that programs depend on: before 1.0 it includes the minor version.
const INTERFACE: &str = concat!(
    env!("CARGO_PKG_VERSION_MAJOR"),
    ".",
    env!("CARGO_PKG_VERSION_MINOR")
);

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fresh folder for this test.
fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _was_not_there = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("it can be made");
    folder
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null());
    command.stderr(Stdio::null()).status().is_ok()
}

/// Where the libraries built for this test are installed, once for all tests.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = fresh("installed");
        let this = std::env::current_exe().expect("a running program has a path");
        let mut install = Command::new(package().join("package/install.sh"));
        install.arg(this.parent().expect("it lies in a folder"));
        run(install.arg(&prefix).arg(VERSION));
        prefix
    })
}

/// Names that a file defines for others: `.dynsym` of the shared library, `.symtab` of the other.
fn exported(file: &Path) -> Vec<String> {
    let table = if file.extension().is_some_and(|extension| extension == "a") {
        "--symbols"
    } else {
        "--dyn-syms"
    };
    let listing = run(Command::new("readelf").args(["--wide", table]).arg(file));
    let lines = listing
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut names: Vec<String> = lines
        .filter(|words| words.len() >= 8 && matches!(words[4], "GLOBAL" | "WEAK"))
        .filter(|words| words[6] != "UND")
        .map(|words| words[7].to_owned())
        .collect();
    names.sort();
    names
}

fn declared() -> Vec<String> {
    let functions = common::functions().into_iter();
    let mut names: Vec<String> = functions.map(|function| function.name).collect();
    names.sort();
    names
}

fn make(prefix: &Path, folder: &Path, more: &[&str]) {
    for name in ["Makefile", "average.c", "elastic.c"] {
        let from = package().join("../examples/c").join(name);
        std::fs::copy(from, folder.join(name)).expect("the example is there");
    }
    let mut make = Command::new("make");
    make.arg("-C").arg(folder).args(more);
    run(make.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
}

fn start_master() -> MasterServer {
    let config = MasterConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        new_run: true,
        ..MasterConfig::default()
    };
    MasterServer::start(config, None).expect("a free port")
}

fn start(program: &Path, master: &MasterServer, argument: &str) -> Process {
    let mut peer = Command::new(program);
    Process::start(peer.args([&master.address().to_string(), argument]))
}

/// The output of a peer, which must succeed.
fn finish(mut peer: Process) -> Vec<String> {
    let (status, printed) = peer.end();
    assert!(status.success(), "{status}: {printed:?}");
    printed
}

/// Runs a world of peers of one program; returns the output of each.
fn run_world(program: &Path, argument: &str, world: u32) -> Vec<Vec<String>> {
    let master = start_master();
    let peers = (0..world).map(|_| start(program, &master, argument));
    let peers: Vec<_> = peers.collect();
    peers.into_iter().map(finish).collect()
}

#[test]
fn the_libraries_export_what_the_header_declares() {
    let prefix = installed();
    let declared = declared();
    let shared = prefix.join(format!("lib/libccl.so.{VERSION}"));
    assert_eq!(exported(&shared), declared);
    assert_eq!(exported(&prefix.join("lib/libccl.a")), declared);
    let dynamic = run(Command::new("readelf").args(["--wide", "-d"]).arg(shared));
    assert!(
        dynamic.contains(&format!("[libccl.so.{INTERFACE}]")),
        "{dynamic}"
    );
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
    for link in ["libccl.so".to_owned(), format!("libccl.so.{INTERFACE}")] {
        assert!(prefix.join("lib").join(&link).exists(), "{link}");
    }
}

#[test]
fn the_examples_build_and_run_from_where_it_is_installed() {
    if !is_there("pkg-config") {
        return eprintln!("not checked: there is no pkg-config (`make prepare` installs it)");
    }
    let (prefix, folder) = (installed(), fresh("examples"));
    make(prefix, &folder, &[]);
    for printed in run_world(&folder.join("average"), "3", 3) {
        assert_eq!(printed, ["1 2 3 4"]);
    }
    for printed in run_world(&folder.join("elastic"), "5", 2) {
        let is_there = printed.iter().any(|line| line.contains("step 5 of "));
        assert!(is_there, "{printed:?}");
    }
    the_elastic_example_survives_a_kill(&folder.join("elastic"));
}

#[test]
fn the_examples_build_and_run_with_the_static_library_alone() {
    if !is_there("pkg-config") {
        return eprintln!("not checked: there is no pkg-config (`make prepare` installs it)");
    }
    let (prefix, folder) = (installed(), fresh("static-examples"));
    let mut ask = Command::new("pkg-config");
    ask.args(["--libs", "ccl-static"]);
    let libs = run(ask.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
    make(prefix, &folder, &[&format!("CCL_LIBS={}", libs.trim())]);
    let average = folder.join("average");
    let needed = run(Command::new("readelf").args(["--wide", "-d"]).arg(&average));
    assert!(
        needed.contains("NEEDED") && !needed.contains("libccl"),
        "{needed}"
    );
    assert_eq!(run_world(&average, "2", 2), [["1 2 3 4"]; 2]);
}

/// Three peers train; one is killed in the middle, and the others end with the expected result.
fn the_elastic_example_survives_a_kill(program: &Path) {
    let master = start_master();
    let start = |_| start(program, &master, "500");
    let [mut victim, one, other] = [0; 3].map(start);
    // Only when all three are in does it go on to where it is killed.
    while !victim.line().contains(" of 3 peers") {}
    victim.kill();
    for peer in [one, other] {
        let printed = finish(peer);
        let last = printed.last().expect("it tells of each step");
        assert_eq!(last, "step 500 of 2 peers: 1", "{printed:?}");
    }
}

#[test]
fn cmake_finds_both_libraries() {
    if !is_there("cmake") {
        return eprintln!("not checked: there is no cmake");
    }
    let (prefix, folder) = (installed(), fresh("cmake"));
    // The example's source is C++ too.
    let average = package().join("../examples/c/average.c");
    std::fs::copy(&average, folder.join("average.cpp")).expect("the example is there");
    let lists = format!(
        "cmake_minimum_required(VERSION 3.13)\nproject(user C CXX)\n\
         find_package(ccl ${{WANTED}} REQUIRED)\n\
         foreach(kind ccl static)\n  add_executable(average-${{kind}} {})\n\
         target_link_libraries(average-${{kind}} ccl::${{kind}})\nendforeach()\n\
         add_executable(average-cplusplus average.cpp)\n\
         target_link_libraries(average-cplusplus ccl::ccl)\n",
        average.display()
    );
    std::fs::write(folder.join("CMakeLists.txt"), lists).expect("it can be written");
    let build = folder.join("build");
    let configure = |wanted: &str| {
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(&folder).arg("-B").arg(&build);
        configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
        configure.arg(format!("-DWANTED={wanted}"));
        configure
    };
    for other in ["0.0", "0.99", "1", "99"] {
        let output = configure(other).output().expect("cmake is there");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "it took {other}");
        assert!(words.contains("requested version"), "{words}");
    }
    run(&mut configure(INTERFACE));
    run(Command::new("cmake").arg("--build").arg(&build));
    for kind in ["average-ccl", "average-static", "average-cplusplus"] {
        assert_eq!(run_world(&build.join(kind), "1", 1), [["1 2 3 4"]]);
    }
}

#[test]
fn a_staged_install_names_the_place_it_is_meant_for() {
    let stage = fresh("stage");
    let this = std::env::current_exe().expect("a running program has a path");
    let mut install = Command::new(package().join("package/install.sh"));
    install.arg(this.parent().expect("it lies in a folder"));
    run(install.args(["/opt/ccl", VERSION]).env("DESTDIR", &stage));
    let file = stage.join("opt/ccl/lib/pkgconfig/ccl.pc");
    let text = std::fs::read_to_string(file).expect("it is installed");
    assert!(text.starts_with("prefix=/opt/ccl\n"), "{text}");
    assert!(text.contains(&format!("Version: {VERSION}\n")), "{text}");
    for file in [
        "lib/cmake/ccl/cclConfig.cmake",
        "lib/cmake/ccl/cclConfigVersion.cmake",
    ] {
        let text = std::fs::read_to_string(stage.join("opt/ccl").join(file)).expect("it is there");
        assert!(!text.contains('@') && !text.contains("stage"), "{text}");
    }
}

#[test]
fn the_guide_shows_the_example_as_it_is() {
    let guide = std::fs::read_to_string(package().join("../docs/c.md")).expect("it is there");
    let example = std::fs::read_to_string(package().join("../examples/c/average.c"));
    assert!(guide.contains(&format!("```c\n{}```\n", example.expect("it is there"))));
}

/// The other C snippets of the manual compile inside a function that declares their names.
#[test]
fn what_the_guide_shows_besides_compiles() {
    let guide = std::fs::read_to_string(package().join("../docs/c.md")).expect("it is there");
    let pieces = guide.split("```c\n").skip(1);
    let pieces = pieces.filter_map(|piece| Some(piece.split_once("```\n")?.0));
    let pieces: Vec<&str> = pieces.filter(|piece| !piece.contains("main(")).collect();
    assert!(!pieces.is_empty());
    let folder = fresh("guide");
    for (index, piece) in pieces.into_iter().enumerate() {
        let source = folder.join(format!("{index}.c"));
        let text = format!(
            "#include <ccl.h>\n\
             void train_a_step(float *weights);\n\
             void piece(cclCommunicator_t communicator, float *weights, uint64_t rows,\n\
             uint64_t columns);\n\
             void piece(cclCommunicator_t communicator, float *weights, uint64_t rows,\n\
             uint64_t columns) {{\n{piece}}}\n"
        );
        std::fs::write(&source, text).expect("it can be written");
        let mut compiler = Command::new("cc");
        compiler.args(["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]);
        compiler.arg("-fsyntax-only").arg("-I");
        run(compiler.arg(package().join("../include")).arg(source));
    }
}
