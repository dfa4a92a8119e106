//! The project's own source as text, for the tests that hold its form.
//!
//! Reads files and tells code from comments and strings. It knows no rule; the tests do.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file, split so that a rule can look at the part it is about.
pub struct Source {
    /// Path from the workspace's root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
    /// Comments and the insides of strings and characters replaced by spaces; same lines.
    pub code: String,
    /// Everything but comments replaced by spaces; same lines.
    pub comments: String,
    /// Whether it is, or lies in, a module that is built for tests only.
    pub is_test_module: bool,
}

impl Source {
    /// Whether all of it is tests.
    pub fn is_tests(&self) -> bool {
        self.path.starts_with("tests/") || self.is_test_module
    }

    /// Number of lines before the trailing `#[cfg(test)] mod …`, or of all lines; 0 for a module of
    /// tests in files of its own.
    pub fn lines_without_tests(&self) -> usize {
        if self.is_test_module {
            return 0;
        }
        let lines: Vec<&str> = self.code.lines().collect();
        (0..lines.len())
            .rev()
            .find(|&index| begins_test_module(&lines[index..]))
            .unwrap_or(lines.len())
    }

    /// The code before the trailing test module.
    pub fn code_without_tests(&self) -> String {
        let lines = self.code.lines().take(self.lines_without_tests());
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn begins_test_module(lines: &[&str]) -> bool {
    if lines[0].trim() != "#[cfg(test)]" {
        return false;
    }
    let item = lines[1..].iter().find(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    item.is_some_and(|line| line.trim().starts_with("mod ") && line.trim().ends_with('{'))
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies in the workspace")
        .into()
}

/// All Rust files below `folder`, by path.
pub fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.expect("a listed entry can be read").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(read(&path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    mark_test_modules(&mut found);
    found
}

/// Marks the files of `#[cfg(test)] mod name;`, and those in a package's `tests`.
fn mark_test_modules(sources: &mut [Source]) {
    let mut stems = Vec::new();
    for source in sources.iter() {
        let stem = source.path.trim_end_matches(".rs");
        let is_folder_root = ["/mod", "/lib", "/main"]
            .iter()
            .find(|root| stem.ends_with(**root));
        let folder = is_folder_root.map_or(stem, |root| stem.trim_end_matches(root));
        let lines: Vec<&str> = source.code.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let declared = ["mod ", "pub(crate) mod ", "pub(super) mod "]
                .iter()
                .find_map(|start| pair[1].strip_prefix(start));
            if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
                stems.push(format!("{folder}/{name}"));
            }
        }
    }
    for source in sources {
        let mut rests = stems
            .iter()
            .filter_map(|stem| source.path.strip_prefix(stem.as_str()));
        let is_declared = rests.any(|rest| rest == ".rs" || rest.starts_with('/'));
        let is_integration = source.path.split('/').nth(1) == Some("tests");
        source.is_test_module = is_declared || is_integration;
    }
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let relative = path.strip_prefix(root()).expect("below the root");
    let (code, comments) = split(&text);
    Source {
        path: relative.to_string_lossy().replace('\\', "/"),
        text,
        code,
        comments,
        is_test_module: false,
    }
}

/// What a stretch of text is.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Comment,
    Literal,
}

/// Code with all else blanked, and comments with all else blanked.
pub fn split(text: &str) -> (String, String) {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut comments = String::with_capacity(text.len());
    let mut index = 0;
    while index < characters.len() {
        let (part, end) = part_at(&characters, index);
        for &character in &characters[index..end] {
            let blank = if character == '\n' { '\n' } else { ' ' };
            code.push(if part == Part::Code { character } else { blank });
            comments.push(if part == Part::Comment {
                character
            } else {
                blank
            });
        }
        index = end;
    }
    (code, comments)
}

/// The part that begins at `index`, and where it ends. Code is returned a character at a time.
fn part_at(characters: &[char], index: usize) -> (Part, usize) {
    let at = |offset: usize| characters.get(index + offset).copied().unwrap_or('\n');
    let starts_word = index == 0 || !is_word(characters[index - 1]);
    match at(0) {
        '/' if at(1) == '/' => {
            let rest = characters[index..].iter();
            (
                Part::Comment,
                index + rest.take_while(|&&c| c != '\n').count(),
            )
        }
        '/' if at(1) == '*' => (Part::Comment, block_comment_end(characters, index)),
        '"' => (Part::Literal, quoted_end(characters, index + 1, '"')),
        '\'' if at(1) == '\\' || (at(1) != '\'' && at(2) == '\'') => {
            (Part::Literal, quoted_end(characters, index + 1, '\''))
        }
        'r' if starts_word || at_byte_prefix(characters, index) => {
            match raw_string_end(characters, index) {
                Some(end) => (Part::Literal, end),
                None => (Part::Code, index + 1),
            }
        }
        _ => (Part::Code, index + 1),
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn at_byte_prefix(characters: &[char], index: usize) -> bool {
    index > 0
        && matches!(characters[index - 1], 'b' | 'c')
        && (index == 1 || !is_word(characters[index - 2]))
}

fn block_comment_end(characters: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut index = start;
    while index < characters.len() {
        match (characters[index], characters.get(index + 1)) {
            ('/', Some('*')) => (depth, index) = (depth + 1, index + 2),
            ('*', Some('/')) => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

fn quoted_end(characters: &[char], start: usize, quote: char) -> usize {
    let mut index = start;
    while index < characters.len() && characters[index] != quote {
        index += if characters[index] == '\\' { 2 } else { 1 };
    }
    (index + 1).min(characters.len())
}

fn raw_string_end(characters: &[char], start: usize) -> Option<usize> {
    let rest = &characters[start + 1..];
    let hashes = rest.iter().take_while(|&&c| c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return None;
    }
    let closing: Vec<char> = std::iter::once('"')
        .chain((0..hashes).map(|_| '#'))
        .collect();
    let body = &rest[hashes + 1..];
    let length = body
        .windows(closing.len())
        .position(|window| window == closing)?;
    Some(start + 1 + hashes + 1 + length + closing.len())
}
