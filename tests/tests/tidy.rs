//! Checks the form of the code: lengths, widths, words, and where `unsafe` is allowed.
//!
//! Goal: a file read at night is short, documented and without leftovers. Each rule is checked over
//! the whole workspace and names file and line of each violation; the checks themselves are tested
//! on invented text.

mod source;

use source::{Source, sources, split};

const FOLDERS: [&str; 8] = [
    "ccl-core",
    "ccl-capi",
    "ccl-cli",
    "ccl-python",
    "ccl-reduce",
    "stress",
    "tests",
    "examples",
];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Files that may hold `unsafe`; each block says why it is sound.
const UNSAFE_FILES: [&str; 14] = [
    "ccl-capi/src",
    "ccl-core/src/buffer.rs",
    "ccl-core/src/communicator",
    "ccl-core/src/descriptors.rs",
    "ccl-core/src/state/engine/tests.rs",
    "ccl-core/src/net/info.rs",
    "ccl-core/src/net/options.rs",
    "ccl-python/src/dlpack.rs",
    "ccl-python/src/flight.rs",
    "ccl-python/src/shared_state.rs",
    "ccl-reduce/src/simd.rs",
    "stress/src/wan/sys.rs",
    "tests/src/bin/actor.rs",
    "tests/tests/descriptors.rs",
];

/// Words for unfinished work, assembled so that this file passes its own test.
fn leftover_words() -> [String; 3] {
    [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat())
}

fn check(rule: impl Fn(&Source) -> Vec<(usize, String)>) {
    let mut broken = Vec::new();
    for folder in FOLDERS {
        for source in sources(folder) {
            for (line, what) in rule(&source) {
                broken.push(format!("{}:{line}: {what}", source.path));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// Lines (from 1) of `text` that contain `needle` as a whole word.
fn lines_with_word(text: &str, needle: &str) -> Vec<usize> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let has = |line: &str| {
        line.match_indices(needle).any(|(at, _)| {
            let after = line[at + needle.len()..].chars().next();
            !is_word(line[..at].chars().next_back()) && !is_word(after)
        })
    };
    let numbered = text.lines().enumerate();
    numbered
        .filter(|(_, line)| has(line))
        .map(|(index, _)| index + 1)
        .collect()
}

/// First line, name and length in lines of each function with a body.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at..];
        let name: String = rest[3..]
            .chars()
            .take_while(|&c| c.is_alphanumeric() || c == '_')
            .collect();
        if let Some(end) = body_end(rest).filter(|_| !name.is_empty()) {
            let first_line = code[..at].matches('\n').count() + 1;
            found.push((first_line, name, rest[..end].lines().count()));
        }
    }
    found
}

/// Where the body of the function at the start of `code` ends; `None` if it has none.
fn body_end(code: &str) -> Option<usize> {
    let mut brackets = 0_i32;
    let mut braces = 0_i32;
    for (index, character) in code.char_indices() {
        match character {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => continue,
        }
        if braces == 0 && character == '}' {
            return Some(index + 1);
        }
    }
    None
}

/// Lines on which a parameter is a destructured tuple.
fn tuple_parameters(code: &str) -> Vec<usize> {
    let is_name = |c: char| c.is_alphanumeric() || " ,_\n".contains(c);
    let is_one = |at: usize| {
        let names = code[..at].trim_end_matches(is_name);
        let before = names.strip_suffix('(').map(str::trim_end);
        before.is_some_and(|before| before.ends_with(['(', ',']))
            && code[names.len()..at].contains(',')
    };
    let places = code.match_indices("): (").map(|(at, _)| at);
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    places.filter(|&at| is_one(at)).map(line_of).collect()
}

/// Lines on which a name is bound again to a continuation of its own expression from the line
/// before.
fn rebound_names(code: &str) -> Vec<usize> {
    let lines: Vec<&str> = code.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let bound = |line: &str| {
        let rest = line.trim_start().strip_prefix("let ")?;
        rest.split_once(" = ")
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let is_again = |index: &usize| {
        let Some((name, value)) = bound(&format!("{} ", lines[*index])) else {
            return false;
        };
        let goes_on = value.strip_prefix(name.as_str()).unwrap_or("(");
        let mut earlier = lines[..*index]
            .iter()
            .rev()
            .filter(|line| !line.trim().is_empty());
        let start = earlier.find(|line| {
            let is_tail = line.trim_start().starts_with([')', ']', '}', '.']);
            indent(line) <= indent(lines[*index]) && !is_tail
        });
        let before = start
            .filter(|line| indent(line) == indent(lines[*index]))
            .and_then(|line| bound(&format!("{line} ")));
        goes_on.trim_end().is_empty() | goes_on.starts_with('.')
            && before.is_some_and(|it| it.0 == name)
    };
    (0..lines.len())
        .filter(is_again)
        .map(|index| index + 1)
        .collect()
}

/// Lines on which a discarded value has a sentence for a name.
fn named_discards(code: &str) -> Vec<usize> {
    let is_one = |line: &str| {
        let name = line.split_once("let _").map_or("", |(_, rest)| rest);
        let words = name.split([' ', ':', ';']).next().unwrap_or_default();
        words.contains('_')
    };
    let numbered = code.lines().enumerate();
    numbered
        .filter(|(_, line)| is_one(line))
        .map(|(index, _)| index + 1)
        .collect()
}

#[test]
fn every_file_opens_with_what_it_owns() {
    check(|source| {
        let opens = source.text.starts_with("//! ");
        let what = "a file opens with `//!` and what it owns".to_string();
        if opens { vec![] } else { vec![(1, what)] }
    });
}

#[test]
fn files_are_short() {
    check(|source| {
        let lines = source.lines_without_tests();
        let what = format!("{lines} lines without tests; the limit is {FILE_LINES_MAX}");
        if lines > FILE_LINES_MAX {
            vec![(lines, what)]
        } else {
            vec![]
        }
    });
}

#[test]
fn functions_are_short() {
    check(|source| {
        let all = functions(&source.code).into_iter();
        all.filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX)
            .map(|(line, name, lines)| (line, format!("{name} has {lines} lines; the limit is 70")))
            .collect()
    });
}

#[test]
fn lines_are_narrow() {
    check(|source| {
        let texts = source.code.lines().zip(source.comments.lines());
        let wide = texts.enumerate().filter(|(_, (code, comment))| {
            // Long string literals do not count, nor does what they push out.
            let code = code.trim_end_matches([' ', ',', ';', ')', '\\']);
            let columns = code.chars().count().max(comment.trim_end().chars().count());
            columns > COLUMNS_MAX
        });
        wide.map(|(index, _)| (index + 1, "too wide".into()))
            .collect()
    });
}

#[test]
fn nothing_is_left_unfinished() {
    check(|source| {
        let mut found = Vec::new();
        for word in leftover_words() {
            for text in [&source.code, &source.comments] {
                for line in lines_with_word(text, &word) {
                    found.push((line, format!("{word}: docs/roadmap.md holds what is left")));
                }
            }
        }
        for line in lines_with_word(&source.code, "dbg!") {
            found.push((line, "dbg! is for debugging".into()));
        }
        found
    });
}

#[test]
fn unsafe_stands_only_where_it_is_needed() {
    check(|source| {
        if UNSAFE_FILES
            .iter()
            .any(|allowed| source.path.starts_with(allowed))
        {
            return vec![];
        }
        let lines = lines_with_word(&source.code, "unsafe").into_iter();
        lines
            .map(|line| {
                (
                    line,
                    "unsafe outside its files (tests/tests/tidy.rs)".into(),
                )
            })
            .collect()
    });
}

#[test]
fn no_test_is_switched_off() {
    check(|source| {
        let numbered = source.code.lines().enumerate();
        let ignored = numbered.filter(|(_, line)| line.trim_start().starts_with("#[ignore"));
        ignored
            .map(|(index, _)| (index + 1, "a test that does not run proves nothing".into()))
            .collect()
    });
}

#[test]
fn no_test_sleeps() {
    check(|source| {
        let tests_from = match source.is_tests() {
            true => 0,
            false => source.lines_without_tests(),
        };
        let lines = lines_with_word(&source.code, "thread::sleep").into_iter();
        lines
            .filter(|&line| line > tests_from)
            .map(|line| (line, "wait for the event, not for a while".into()))
            .collect()
    });
}

#[test]
fn comments_and_strings_are_told_from_code() {
    let text = "let a = \"fn x // y\"; // fn z\nlet c = '\"'; let r = r#\"un\"safe\"#; \
                /* a /* b */ */ f::<'a>();";
    let (code, comments) = split(text);
    assert_eq!(
        code.split_whitespace().collect::<Vec<_>>().join(" "),
        "let a = ; let c = ; let r = ; f::<'a>();"
    );
    assert!(comments.contains("fn z") && comments.contains("/* b */"));
    assert!(!comments.contains('y'));
}

#[test]
fn a_function_is_measured_from_signature_to_brace() {
    let code =
        "fn one(a: [u8; 3]) {\n    { }\n}\ntrait T { fn none(&self); }\nfn two() -> u8\n{ 1 }\n";
    let expected = [(1, "one".to_string(), 3), (5, "two".to_string(), 2)];
    assert_eq!(functions(code), expected);
}

#[test]
fn a_word_is_found_whole_and_with_its_line() {
    assert_eq!(lines_with_word("unsafe_code\nx unsafe {\n", "unsafe"), [2]);
}

/// In shipped code: structs with named fields instead of tuples, one name for one thing, and
/// comments instead of sentences as names.
#[test]
fn names_say_what_they_are() {
    check(|source| {
        if source.is_tests() {
            return vec![];
        }
        let code = source.code_without_tests();
        let found = [
            (
                tuple_parameters(&code),
                "a struct with names instead of a tuple",
            ),
            (
                rebound_names(&code),
                "one name for the half and the whole: build it in one go",
            ),
            (
                named_discards(&code),
                "a discard is `let _`, with a comment",
            ),
        ];
        let all = found.into_iter();
        all.flat_map(|(lines, what)| lines.into_iter().map(move |line| (line, what.to_owned())))
            .collect()
    });
}

#[test]
fn names_that_say_nothing_are_found() {
    let tuples = "fn a(x: u8, (y, z): (u8, u8)) {}\nfn b(\n    (y, z): (u8, u8),\n) {\n    \
                  let (p, q): (u8, u8) = c();\n}\n";
    assert_eq!(tuple_parameters(tuples), [1, 3]);
    let rebound =
        "let a = b\n    .c();\nlet a = a.d();\nlet e = a;\nlet e = f(e);\nlet g = g.h();\n";
    assert_eq!(rebound_names(rebound), [3]);
    let discards = "let _guard = a();\nlet _ = b();\nlet _nobody_waits = c();\n";
    assert_eq!(named_discards(discards), [3]);
}
