//! `include/ccl.h` agrees with the source.
//!
//! Goal: the header is never edited by hand, and always regenerated. 1. The generated header equals
//! the committed one; `CCL_WRITE_HEADER=1`, set by `make header`, writes it instead. 2. Every
//! function of the source is in it, and documents whether it blocks and how it fails. `programs`
//! checks that each is called.

mod common;

use std::fs;
use std::path::Path;

/// The source files of the header, in the order in which callers should read them.
const TOPICS: [&str; 16] = [
    "last_error",
    "result",
    "remedy",
    "version",
    "log",
    "types",
    "config",
    "master",
    "communicator",
    "topology",
    "operation",
    "collectives",
    "shared_state",
    "entries",
    "checkpoint",
    "sync",
];

/// Files of the crate that contribute nothing to the header.
const INSIDE: [&str; 7] = [
    "call", "callback", "caller", "handles", "lib", "memory", "notice",
];

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(package().join("cbindgen.toml"));
    let builder = cbindgen::Builder::new().with_config(config.expect("it is a good file"));
    let builder = TOPICS.iter().fold(builder, |builder, topic| {
        builder.with_src(package().join(format!("src/{topic}.rs")))
    });
    let mut bytes = Vec::new();
    let bindings = builder.generate().expect("cbindgen reads the source");
    bindings.write(&mut bytes);
    String::from_utf8(bytes).expect("the source is UTF-8")
}

#[test]
fn the_committed_header_is_what_the_source_says() {
    let generated = generated();
    if std::env::var_os("CCL_WRITE_HEADER").is_some() {
        fs::create_dir_all(package().join("../include")).expect("it can be made");
        return fs::write(common::header(), generated).expect("the header can be written");
    }
    let committed = fs::read_to_string(common::header()).unwrap_or_default();
    assert!(
        generated == committed,
        "include/ccl.h is not what ccl-capi/src says: run `make header`, and commit what it wrote"
    );
}

#[test]
fn every_file_is_a_topic_or_inside() {
    let files = fs::read_dir(package().join("src")).expect("there is source");
    for file in files.map(|file| file.expect("it can be listed").path()) {
        let stem = file.file_stem().expect("it has a name").to_string_lossy();
        assert!(
            TOPICS.contains(&&*stem) || INSIDE.contains(&&*stem),
            "{stem} is not in tests/header.rs"
        );
    }
}

#[test]
fn every_exported_function_is_in_the_header() {
    let functions = common::functions();
    let mut exported = 0;
    for topic in TOPICS {
        let path = package().join(format!("src/{topic}.rs"));
        let source = fs::read_to_string(path).expect("a topic has a file");
        for rest in source.split("export_name = \"").skip(1) {
            let name = rest.split('"').next().expect("a split has a part");
            let is_declared = functions.iter().any(|function| function.name == name);
            assert!(is_declared, "{name} is not in include/ccl.h");
            exported += 1;
        }
    }
    assert_eq!(functions.len(), exported);
}

#[test]
fn every_function_says_whether_it_blocks_and_how_it_fails() {
    let mut silent = Vec::new();
    for function in common::functions() {
        let (name, words) = (&function.name, &function.words);
        let mut expect = |is_said: bool, what: &str| {
            if !is_said {
                silent.push(format!("{name} does not say {what}"));
            }
        };
        // Of the blocking form, or of another like it.
        let refers = words.contains("therwise as ccl");
        let blocks = ["Blocks", "blocks", "Does not block", "does not block"];
        expect(
            refers || blocks.iter().any(|word| words.contains(word)),
            "whether it blocks",
        );
        if !function.returns_a_result() {
            continue;
        }
        let errors = words.split_once("Errors: ").map(|(_, errors)| errors);
        expect(errors.is_some(), "how it fails");
        let errors = errors.unwrap_or_default();
        if function.takes_a_handle() && !errors.to_lowercase().contains("as ccl") {
            for error in ["cclErrorInvalidHandle", "cclErrorForked"] {
                let is_said = errors.contains(error) || errors.contains("as the blocking form");
                expect(is_said, error);
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}
