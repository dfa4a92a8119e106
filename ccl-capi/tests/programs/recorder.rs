//! Records which functions of the library the C programs call, and what they return.
//!
//! A text search of the programs would mistake comments for calls. So a library generated from the
//! header is loaded before libccl: for each function it records the call, forwards it, and records
//! the result. Programs restart themselves and may be killed at any moment, so each record is one
//! line, written at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ccl_tests::process::run;

use crate::common::{Function, functions};
use crate::{folder, package};

/// The variable that names the file to write to.
const CALLS: &str = "CCL_C_CALLS";
/// `cclSuccess`, `cclErrorInvalidArgument` and so on.
const SUCCESS: u32 = 0;
const INVALID_ARGUMENT: u32 = 1;
const INVALID_HANDLE: u32 = 3;
const FORKED: u32 = 4;

/// The recorded functions, and the results that they returned.
pub type Record = BTreeMap<String, BTreeSet<u32>>;

/// Makes a program record to this file.
pub fn attach(program: &mut Command, record: &Path) {
    let _was_not_there = std::fs::remove_file(record);
    program.env("LD_PRELOAD", library()).env(CALLS, record);
}

/// Reads these files.
pub fn read(records: &[PathBuf]) -> Record {
    let mut all = Record::new();
    for path in records {
        let text = std::fs::read_to_string(path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for line in text.lines() {
            let (name, result) = line.split_once(' ').expect("a name and what it did");
            let results = all.entry(name.to_owned()).or_default();
            results.extend(result.parse::<u32>());
        }
    }
    all
}

/// What a record lacks: functions that were never called, never succeeded, or never refused what
/// they must refuse.
pub fn missing(record: &Record) -> Vec<String> {
    let mut missing = Vec::new();
    for function in functions() {
        let name = &function.name;
        let Some(results) = record.get(name) else {
            missing.push(format!("{name} is never called"));
            continue;
        };
        for (applies, result, what) in [
            (function.returns_a_result(), SUCCESS, "never succeeds"),
            (
                function.can_refuse_an_argument(),
                INVALID_ARGUMENT,
                "is never called with a wrong argument",
            ),
            (
                function.takes_a_handle(),
                INVALID_HANDLE,
                "is never called with a wrong handle",
            ),
            (
                function.takes_a_handle(),
                FORKED,
                "is never called with its parent's handle",
            ),
        ] {
            if applies && !results.contains(&result) {
                missing.push(format!("{name} {what}"));
            }
        }
    }
    missing
}

/// The recording library, built once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let (source, library) = (folder().join("calls.c"), folder().join("libcalls.so"));
        std::fs::write(&source, text()).expect("it can be written");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-O1", "-I"]);
        compiler.arg(package().join("../include"));
        run(compiler.arg("-o").arg(&library).arg(source).arg("-ldl"));
        library
    })
}

fn text() -> String {
    let functions = functions();
    let mut text = PROLOGUE.replace("COUNT", &functions.len().to_string());
    for (index, function) in functions.iter().enumerate() {
        text += &wrapper(index, function);
    }
    text += EPILOGUE;
    for function in &functions {
        let name = &function.name;
        writeln!(
            text,
            "    *(void **)&real_{name} = dlsym(RTLD_NEXT, \"{name}\");"
        )
        .expect("a string takes everything");
    }
    text + "}\n"
}

/// The source of a function that records the call, forwards it, and records the result.
fn wrapper(index: usize, function: &Function) -> String {
    let Function { returns, name, .. } = function;
    let parameters = match &function.parameters[..] {
        [] => "void".to_owned(),
        parameters => parameters.join(", "),
    };
    let names = function.parameters.iter().map(|parameter| {
        let after = parameter.rsplit([' ', '*']).next();
        after.expect("a split has a part")
    });
    let names = names.collect::<Vec<_>>().join(", ");
    let note = if function.returns_a_result() {
        format!("note({index}, \"{name}\", returned);")
    } else {
        String::new()
    };
    format!(
        "static {returns}(*real_{name})({parameters});\n\
         {returns}{name}({parameters}) {{\n\
         note({index}, \"{name}\", CALLED);\n\
         {returns}returned = real_{name}({names});\n\
         {note}\n\
         return returned;\n\
         }}\n"
    )
}

/// Each distinct record is written once per process, since some functions are called in loops.
const PROLOGUE: &str = r#"
#define _GNU_SOURCE
#include <ccl.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
enum { CALLED = 62, OTHER = 63 };
static int file = -1;
static char is_noted[COUNT][OTHER + 1];
static void note(int function, const char *name, uint32_t what) {
    char line[100];
    int bytes, state;
    uint32_t place = what < OTHER ? what : OTHER;
    if (__atomic_exchange_n(&is_noted[function][place], 1, __ATOMIC_RELAXED)) {
        return;
    }
    bytes = what == CALLED ? snprintf(line, sizeof line, "%s called\n", name)
                           : snprintf(line, sizeof line, "%s %u\n", name, what);
    /* A thread that is being cancelled would end here, and not where it ends without a recorder. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    if (write(file, line, (size_t)bytes) != bytes) {
        abort();
    }
    pthread_setcancelstate(state, NULL);
}
"#;

const EPILOGUE: &str = r#"
__attribute__((constructor)) static void begin(void) {
    file = open(getenv("CCL_C_CALLS"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
"#;
