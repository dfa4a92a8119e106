//! The programs in `tests/c`: compiled as a user would, linked with the library, and run.
//!
//! Goal: the library is tested by the language it is for. 1. Each program compiles without a
//! warning as C99 and, for its syntax, as C++. 2. Each runs to its end, which is its verdict.
//!
//! Set by `make valgrind` and `make asan`: `CCL_C_RUNNER` is put before each program;
//! `CCL_C_FLAGS` are given to the compiler, and `CCL_C_LINK` where a program is linked.

use std::path::{Path, PathBuf};
use std::process::Command;

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];
const POSIX: &str = "-D_POSIX_C_SOURCE=200809L";
/// What the static library asks of the system.
const SYSTEM: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

/// By which programs ask for the library: before 1.0 with the minor version.
const SONAME: &str = concat!(
    "libccl.so.",
    env!("CARGO_PKG_VERSION_MAJOR"),
    ".",
    env!("CARGO_PKG_VERSION_MINOR")
);

enum Library {
    Shared,
    Static,
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo put the libraries, and the programs go: beside this test.
fn folder() -> PathBuf {
    let this = std::env::current_exe().expect("a running program has a path");
    this.parent().expect("it lies in a folder").to_owned()
}

fn words(variable: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn run(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn compiler(program: &str, language: [&str; 2]) -> Command {
    let mut compiler = Command::new(program);
    compiler.args(language).args(STRICT).arg(POSIX).arg("-g");
    compiler.arg("-I").arg(package().join("../include"));
    compiler
}

fn source(name: &str) -> PathBuf {
    package().join(format!("tests/c/{name}.c"))
}

fn compile(name: &str, library: &Library) -> PathBuf {
    let (kind, file) = match library {
        Library::Shared => ("shared", "libccl.so"),
        Library::Static => ("static", "libccl.a"),
    };
    let program = folder().join(format!("c-{name}-{kind}"));
    let object = program.with_extension("o");
    let mut compiler = compiler("cc", ["-x", "c"]);
    compiler.arg("-std=c99").args(words("CCL_C_FLAGS"));
    run(compiler.arg("-c").arg(source(name)).arg("-o").arg(&object));

    let mut linker = Command::new("cc");
    linker.arg(object).arg(folder().join(file));
    linker.arg("-o").arg(&program);
    if let Library::Shared = library {
        // By its soname, as where it is installed.
        let _may_be_there_already = std::os::unix::fs::symlink("libccl.so", folder().join(SONAME));
        linker.arg(format!("-Wl,-rpath,{}", folder().display()));
    }
    run(linker.args(SYSTEM).args(words("CCL_C_LINK")));
    program
}

fn compile_and_run(name: &str, library: &Library) {
    let program = compile(name, library);
    let runner = words("CCL_C_RUNNER");
    let mut command = Command::new(
        runner
            .first()
            .map_or(program.as_os_str(), |word| word.as_ref()),
    );
    if !runner.is_empty() {
        command.args(&runner[1..]).arg(program);
    }
    run(&mut command);
}

fn cplusplus() -> Option<&'static str> {
    let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    ["c++", "g++", "clang++"].into_iter().find(is_there)
}

/// All programs, each of which has a test below.
const PROGRAMS: [&str; 8] = [
    "arguments",
    "churn",
    "collectives",
    "forked",
    "masters",
    "state",
    "state_arguments",
    "threads",
];

#[test]
fn every_program_is_run() {
    let files = std::fs::read_dir(package().join("tests/c")).expect("there are programs");
    let paths = files.map(|file| file.expect("it can be listed").path());
    let mut found: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    found.sort();
    assert_eq!(found, PROGRAMS);
    let this = include_str!("programs.rs");
    for program in PROGRAMS {
        assert!(this.contains(&format!("run(\"{program}\", &Library::Shared)")));
    }
}

/// The header and all that the programs do with it is C++ too.
#[test]
fn programs_are_clean_as_cplusplus() {
    let Some(cplusplus) = cplusplus() else {
        return eprintln!("not checked: there is no C++ compiler (`make prepare` installs one)");
    };
    for program in PROGRAMS {
        let mut compiler = compiler(cplusplus, ["-x", "c++"]);
        compiler
            .args(["-std=c++11", "-fsyntax-only"])
            .arg(source(program));
        run(&mut compiler);
    }
}

#[test]
fn wrong_arguments_are_answered_and_harm_nothing() {
    compile_and_run("arguments", &Library::Shared);
}

#[test]
fn collectives_among_processes() {
    compile_and_run("collectives", &Library::Shared);
}

#[test]
fn a_killed_process_is_lost_to_the_others_alike_and_a_newcomer_takes_its_place() {
    compile_and_run("churn", &Library::Shared);
    // Each run is killed elsewhere. A checker takes half a minute for one.
    let runs = if words("CCL_C_RUNNER").is_empty() {
        100
    } else {
        1
    };
    for _ in 1..runs {
        run(&mut Command::new(folder().join("c-churn-shared")));
    }
}

#[test]
fn a_forked_child_does_no_harm() {
    compile_and_run("forked", &Library::Shared);
}

#[test]
fn masters_end_and_come_back() {
    compile_and_run("masters", &Library::Shared);
}

#[test]
fn who_is_behind_gets_the_others_bits_and_a_killed_source_disturbs_nobody() {
    compile_and_run("state", &Library::Shared);
}

#[test]
fn wrong_uses_of_shared_state_are_answered_and_syncs_and_checkpoints_end_as_they_should() {
    compile_and_run("state_arguments", &Library::Shared);
}

#[test]
fn many_threads_use_one_communicator() {
    compile_and_run("threads", &Library::Shared);
}

#[test]
fn the_static_library_does_the_same() {
    compile_and_run("collectives", &Library::Static);
}
