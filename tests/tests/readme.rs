//! The contents of README.md agree with the repository.
//!
//! Goal: a reader who copies from README gets code that was compiled here. 1. The Rust block equals
//! `examples/all_reduce.rs`. 2. The loop is part of `examples/elastic_training.rs`. 3. Every file
//! that a document links to exists. 4. Every setting has its row.

mod source;

use std::fs;
use std::path::Path;

use source::root;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rust_blocks(markdown: &str) -> Vec<&str> {
    let blocks = markdown.split("```rust\n").skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

/// Targets of `[text](target)` that are files here.
fn links(markdown: &str) -> Vec<&str> {
    let targets = markdown
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.starts_with("http") && !target.starts_with('#'));
    files
        .map(|target| target.split('#').next().unwrap_or(target))
        .collect()
}

#[test]
fn readme_shows_the_example_as_it_is() {
    let readme = read("README.md");
    assert_eq!(rust_blocks(&readme)[0], read("examples/all_reduce.rs"));
}

#[test]
fn readme_shows_the_loop_as_it_is() {
    let readme = read("README.md");
    let shown = rust_blocks(&readme)[1].trim();
    let example = read("examples/elastic_training.rs");
    let lines: Vec<&str> = example.lines().map(str::trim).collect();
    assert!(
        lines
            .join("\n")
            .contains(&shown.lines().map(str::trim).collect::<Vec<_>>().join("\n"))
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = vec![
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    ]
    .into_iter()
    .map(String::from)
    .collect::<Vec<_>>();
    for folder in ["docs", "docs/decisions"] {
        for entry in fs::read_dir(root().join(folder)).expect("the folder exists") {
            let name = entry.expect("a listed entry can be read").file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".md") {
                documents.push(format!("{folder}/{name}"));
            }
        }
    }
    for document in documents {
        let text = read(&document);
        let folder = Path::new(&document).parent().expect("a file has a folder");
        for link in links(&text) {
            let target = root().join(folder).join(link);
            assert!(
                target.exists(),
                "{document} links to {link}, which is not there"
            );
        }
    }
}

/// Names of the public fields of a struct in `config.rs` or the communicator.
fn public_fields(source: &str) -> Vec<&str> {
    let lines = source
        .lines()
        .filter_map(|line| line.strip_prefix("    pub "));
    let fields = lines.filter_map(|line| line.split_once(": "));
    fields
        .map(|(name, _)| name)
        .filter(|name| !name.contains(['(', ' ']))
        .collect()
}

#[test]
fn every_setting_is_documented() {
    let document = read("docs/configuration.md");
    for field in public_fields(&read("ccl-core/src/config.rs")) {
        assert!(
            document.contains(&format!("| `{field}` |")),
            "{field} is not in the tables"
        );
    }
}

#[test]
fn every_error_is_documented() {
    let source = read("ccl-core/src/error.rs");
    let (_, body) = source.split_once("pub enum Error {").expect("there is one");
    let (body, _) = body.split_once("\n}\n").expect("it ends");
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = lines.filter(|line| line.starts_with(char::is_uppercase));
    let document = read("docs/failure-model.md");
    for variant in variants {
        let end = variant
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(variant.len());
        let name = &variant[..end];
        assert!(
            document.contains(&format!("`{name}`")),
            "{name} is not in the table"
        );
    }
}
