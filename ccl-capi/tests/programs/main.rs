//! The programs in `tests/c`: compiled as a user would, linked with the library, and run.
//!
//! Goal: the library is tested in the language it is for. 1. Each program compiles without warnings
//! as C99 and, for its syntax, as C++. 2. Each runs to its end, and its exit status is the verdict.
//! 3. Together they call every function of the header, with every kind of result.
//!
//! `make valgrind` and `make asan` set: `CCL_C_RUNNER`, which is put before each program;
//! `CCL_C_FLAGS` for the compiler, and `CCL_C_LINK` for the linker.

#[path = "../common/mod.rs"]
mod common;
mod recorder;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ccl_tests::process::run;

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];
const POSIX: &str = "-D_POSIX_C_SOURCE=200809L";
/// The system libraries that the static library needs.
const SYSTEM: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

/// The soname with which programs are linked: before 1.0 it includes the minor version.
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

/// Where cargo put the libraries, and where the programs go: beside this test.
fn folder() -> PathBuf {
    let this = std::env::current_exe().expect("a running program has a path");
    this.parent().expect("it lies in a folder").to_owned()
}

fn words(variable: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
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

fn compile(source: &Path, library: &Library) -> PathBuf {
    let (kind, file) = match library {
        Library::Shared => ("shared", "libccl.so"),
        Library::Static => ("static", "libccl.a"),
    };
    let name = source.file_stem().expect("a source has a name").display();
    let program = folder().join(format!("c-{name}-{kind}"));
    let object = program.with_extension("o");
    let mut compiler = compiler("cc", ["-x", "c"]);
    compiler.arg("-std=c99").args(words("CCL_C_FLAGS"));
    run(compiler.arg("-c").arg(source).arg("-o").arg(&object));

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

/// Under a memory checker nothing is recorded, because its library must be loaded first.
fn is_checked() -> bool {
    !words("CCL_C_RUNNER").is_empty() || !words("CCL_C_FLAGS").is_empty()
}

/// Runs a program of `PROGRAMS`, unless another test has, and records its calls.
fn run_recorded(name: &str) -> PathBuf {
    static RUNS: [OnceLock<()>; PROGRAMS.len()] = [const { OnceLock::new() }; PROGRAMS.len()];
    let index = PROGRAMS.iter().position(|program| *program == name);
    let record = folder().join(format!("c-{name}-calls"));
    RUNS[index.expect("a program is in the list")].get_or_init(|| {
        let program = compile(&source(name), &Library::Shared);
        let mut command = command(&program);
        if !is_checked() {
            recorder::attach(&mut command, &record);
        }
        run(&mut command);
    });
    record
}

fn command(program: &Path) -> Command {
    match &words("CCL_C_RUNNER")[..] {
        [] => Command::new(program),
        [checker, arguments @ ..] => {
            let mut command = Command::new(checker);
            command.args(arguments).arg(program);
            command
        }
    }
}

fn cplusplus() -> Option<&'static str> {
    let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    ["c++", "g++", "clang++"].into_iter().find(is_there)
}

/// All programs; each has a test below.
const PROGRAMS: [&str; 17] = [
    "arguments",
    "callers",
    "churn",
    "closed",
    "collectives",
    "ended",
    "entries",
    "forked",
    "interrupted",
    "masters",
    "notified",
    "scarce",
    "state",
    "state_arguments",
    "threads",
    "topology",
    "versions",
];

#[test]
fn every_program_is_known() {
    let files = std::fs::read_dir(package().join("tests/c")).expect("there are programs");
    let paths = files.map(|file| file.expect("it can be listed").path());
    let mut found: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    found.sort();
    assert_eq!(found, PROGRAMS);
}

/// Checks what the programs did when they ran, not what their text says.
#[test]
fn every_function_is_called_and_succeeds_and_refuses_what_it_must() {
    if is_checked() {
        return eprintln!("not recorded: a checker of memory runs the programs");
    }
    let records = PROGRAMS.map(run_recorded);
    let missing = recorder::missing(&recorder::read(&records));
    assert!(
        missing.is_empty(),
        "the programs in tests/c lack calls:\n{}",
        missing.join("\n")
    );
}

#[test]
fn a_function_that_is_only_named_is_not_recorded_as_called() {
    if is_checked() {
        return eprintln!("not recorded: a checker of memory runs the programs");
    }
    let decoy = compile(&package().join("tests/programs/decoy.c"), &Library::Shared);
    let record = folder().join("c-decoy-calls");
    let mut program = Command::new(decoy);
    recorder::attach(&mut program, &record);
    run(&mut program);
    let record = recorder::read(&[record]);
    let called: Vec<_> = record
        .iter()
        .map(|(name, results)| (&**name, results))
        .collect();
    let (success, invalid_argument) = ([0].into(), [1].into());
    assert_eq!(
        called,
        [("cclGetVersion", &invalid_argument), ("cclInit", &success)]
    );
    let missing = recorder::missing(&record);
    for (name, what) in [
        ("cclBarrier", "is never called"),
        ("cclLeave", "is never called"),
        ("cclUpdateTopology", "is never called"),
        ("cclConnect", "is never called"),
        ("cclDestroyCommunicator", "is never called"),
        ("cclCancel", "is never called"),
        ("cclGetVersion", "never succeeds"),
    ] {
        assert!(missing.contains(&format!("{name} {what}")), "{missing:?}");
    }
    assert!(!missing.iter().any(|what| what.starts_with("cclInit ")));
}

/// The header, and everything the programs do with it, is also valid C++.
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
    run_recorded("arguments");
}

#[test]
fn calls_leave_their_thread_as_it_was() {
    run_recorded("callers");
}

#[test]
fn collectives_among_processes() {
    run_recorded("collectives");
}

#[test]
fn a_killed_process_is_lost_to_the_others_alike_and_a_newcomer_takes_its_place() {
    run_recorded("churn");
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
fn every_function_says_how_the_session_ended() {
    run_recorded("ended");
}

#[test]
fn a_forked_child_does_no_harm() {
    run_recorded("forked");
}

#[test]
fn masters_end_and_come_back() {
    run_recorded("masters");
}

#[test]
fn who_is_behind_gets_the_others_bits_and_a_killed_source_disturbs_nobody() {
    run_recorded("state");
}

#[test]
fn wrong_uses_of_shared_state_are_answered_and_syncs_and_checkpoints_end_as_they_should() {
    run_recorded("state_arguments");
}

#[test]
fn entries_and_checkpoints_can_be_asked_for() {
    run_recorded("entries");
}

#[test]
fn a_system_that_refuses_memory_threads_or_files_ends_no_process() {
    run_recorded("scarce");
}

#[test]
fn waits_end_when_another_thread_ends_what_they_wait_for() {
    run_recorded("interrupted");
}

#[test]
fn structs_of_older_and_newer_programs_are_read_and_written_as_far_as_they_go() {
    run_recorded("versions");
}

#[test]
fn a_loop_of_events_is_told_of_ends() {
    run_recorded("notified");
}

#[test]
fn safe_points_are_started_cancelled_and_ended() {
    run_recorded("topology");
}

#[test]
fn closed_groups_have_the_ranks_that_their_members_gave() {
    run_recorded("closed");
}

#[test]
fn many_threads_use_one_communicator() {
    run_recorded("threads");
}

#[test]
fn the_static_library_does_the_same() {
    let program = compile(&source("collectives"), &Library::Static);
    run(&mut command(&program));
}
