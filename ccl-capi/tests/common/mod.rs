//! The declarations of `include/ccl.h`, for tests that compare something with them.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};

/// One function of the header.
#[derive(Debug)]
pub struct Function {
    /// Its documentation, with lines joined.
    pub words: String,
    /// Its return type up to the name, such as `cclResult_t `.
    pub returns: String,
    /// Its name.
    pub name: String,
    /// Its parameters as they are declared; none for `void`.
    pub parameters: Vec<String>,
}

/// Types of the handles.
const HANDLES: [&str; 4] = [
    "cclMaster_t ",
    "cclCommunicator_t ",
    "cclOperation_t ",
    "cclSharedState_t ",
];

const USER_DATA: &str = "void *user_data";

impl Function {
    /// Whether it takes a handle, and not only a place for one.
    pub fn takes_a_handle(&self) -> bool {
        let mut parameters = self.parameters.iter();
        parameters.any(|parameter| is_handle(parameter))
    }

    /// Whether it must refuse some value of a parameter: a pointer may be NULL or misaligned, an
    /// enumeration's number may be unknown. Handles are tested separately, and any callback with
    /// any data is valid.
    pub fn can_refuse_an_argument(&self) -> bool {
        let is_free = |parameter: &str| {
            is_handle(parameter) || parameter.contains("Callback_t ") || parameter == USER_DATA
        };
        let is_refusable = |parameter: &String| {
            !is_free(parameter) && (parameter.contains('*') || parameter.starts_with("ccl"))
        };
        self.returns_a_result() && self.parameters.iter().any(is_refusable)
    }

    /// Whether it can fail at all.
    pub fn returns_a_result(&self) -> bool {
        self.returns == "cclResult_t "
    }
}

fn is_handle(parameter: &str) -> bool {
    !parameter.contains('*') && HANDLES.iter().any(|handle| parameter.starts_with(handle))
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The committed header.
pub fn header() -> PathBuf {
    package().join("../include/ccl.h")
}

/// All functions of the committed header, in its order.
pub fn functions() -> Vec<Function> {
    let text = std::fs::read_to_string(header()).expect("the header is committed");
    let functions = functions_of(&text);
    assert!(functions.len() > 30, "{functions:?}");
    functions
}

fn functions_of(text: &str) -> Vec<Function> {
    let is_begin = |line: &str| line.starts_with("cclResult_t ccl") || line.starts_with("const ");
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        if is_begin(line) {
            let (declaration, _) = rest.split_once(");").expect("a declaration has an end");
            let before = &text[..text.len() - rest.len()];
            found.push(function_of(last_comment(before), declaration));
        }
        rest = after;
    }
    found
}

/// The last comment of a text, split into words.
fn last_comment(text: &str) -> String {
    let comment = text.rsplit_once("/*").map_or("", |(_, comment)| comment);
    let (comment, _) = comment.split_once("*/").unwrap_or_default();
    let words: Vec<&str> = comment.split_whitespace().collect();
    words.join(" ")
}

fn function_of(words: String, declaration: &str) -> Function {
    let (before, list) = declaration.split_once('(').expect("it has parameters");
    let at = before.rfind([' ', '*']).expect("it returns something") + 1;
    let parameters = list.split(',').map(|parameter| {
        let words: Vec<&str> = parameter.split_whitespace().collect();
        words.join(" ")
    });
    Function {
        words,
        returns: before[..at].to_owned(),
        name: before[at..].to_owned(),
        parameters: parameters.filter(|parameter| parameter != "void").collect(),
    }
}

#[test]
fn declarations_are_taken_apart() {
    let text = "typedef struct x *y;\n/*\n cclResult_t cclNone(void);\n */\n\
                cclResult_t cclWait(cclOperation_t operation,\n          struct cclOutcome_t *out);\n\
                const char *cclText(void);\ncclResult_t cclMake(cclMaster_t *master);\n";
    let functions = functions_of(text);
    let names: Vec<&str> = functions.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["cclWait", "cclText", "cclMake"]);
    assert_eq!(functions[0].words, "cclResult_t cclNone(void);");
    let wait = ["cclOperation_t operation", "struct cclOutcome_t *out"];
    assert_eq!(functions[0].parameters, wait);
    assert!(functions[1].parameters.is_empty());
    let handles: Vec<bool> = functions.iter().map(Function::takes_a_handle).collect();
    assert_eq!(handles, [true, false, false]);
    let refusals = functions.iter().map(Function::can_refuse_an_argument);
    assert_eq!(refusals.collect::<Vec<_>>(), [true, false, true]);
}
