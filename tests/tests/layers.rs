//! Checks the arrows of ARCHITECTURE.md: which module may use which, and which modules are pure.
//!
//! Goal: decisions stay where the simulator can drive them. 1. Every `crate::…` path in ccl-core is
//! looked up in `ARROWS`. 2. Pure modules must not name clocks, sockets, threads, locks or files.

mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{Source, sources};

/// Each module, and what it may use besides itself. The longest entry that matches a file applies.
const ARROWS: &[(&str, &str)] = &[
    // Vocabulary.
    ("ids", ""),
    ("time", "mutation"),
    ("limits", ""),
    ("lock", ""),
    ("mutation", ""),
    ("names", "ids"),
    ("outcome", "ids peer::View wire::control"),
    ("signals", ""),
    ("descriptors", "lock"),
    ("net", "descriptors lock"),
    ("timers", ""),
    ("paths", "limits"),
    // Bytes and arithmetic.
    ("buffer", ""),
    ("reduce", ""),
    ("wire", "ids limits names reduce timers"),
    // Texts for users. The reasons inside errors and events are those of the control messages.
    ("error", "ids names wire::control"),
    ("event", "ids names wire::control"),
    ("config", "error ids limits paths timers wire::control"),
    ("state", "error ids limits reduce time wire::state"),
    (
        "state::engine",
        "buffer ids limits lock reduce time transport wire::state",
    ),
    ("state::hash", "lock signals wire::state"),
    ("state::frames", "buffer ids transport wire::state"),
    ("state::holding", "buffer ids lock wire::state"),
    ("state::previous", "buffer wire::state"),
    (
        "state::running",
        "buffer ids limits time transport wire::state",
    ),
    // Decisions.
    ("topology", "ids paths wire::control"),
    (
        "master",
        "event ids limits mutation names paths time timers topology wire::control",
    ),
    (
        "peer",
        "error event ids limits mutation names time timers wire::control wire::peer_to_peer",
    ),
    // Sockets, memory and tasks. The deciding parts of the collectives know frames, not links.
    (
        "transport",
        "buffer config descriptors error ids limits lock net peer::Neighbour wire",
    ),
    (
        "collective",
        "ids limits mutation reduce transport::Frame transport::FrameHeader wire::control",
    ),
    (
        "collective::engine",
        "buffer ids limits lock transport wire::control",
    ),
    (
        "collective::memory",
        "buffer ids limits reduce wire::control",
    ),
    ("collective::run", "buffer limits reduce"),
    (
        "driver",
        "collective config descriptors error event ids limits lock master names net outcome peer signals \
         state time transport wire",
    ),
    // Files.
    ("checkpoint", "error ids lock state wire::state"),
    // The public API.
    (
        "communicator",
        "buffer checkpoint collective config driver error ids limits lock outcome peer::View reduce state time \
         wire::control",
    ),
];

/// Modules that decide, and therefore must not act.
const PURE: &str = "collective config error event ids limits master mutation names paths peer reduce state \
                    time timers topology wire";

/// Parts of those modules that act: they carry out decisions.
const SHELLS: &str = "collective::engine collective::memory collective::run state::engine state::frames \
                      state::hash state::holding state::previous state::running";

/// Files of the network emulator that decide: they know times and packets, no clock and no device.
const PURE_WAN: &str =
    "command lateness link loss packet preset router shaper stats timeline units";

/// What a pure module must not name, and what to use instead.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "queue an output and let the driver act"),
    ("socket2", "queue an output and let the driver act"),
    ("std::net::Tcp", "queue an output and let the driver act"),
    (
        "std::time::Instant",
        "take crate::time::Instant as an argument",
    ),
    (
        "std::time::SystemTime",
        "take crate::time::Instant as an argument",
    ),
    ("std::thread", "the driver owns the threads"),
    ("Mutex", "the owner of the machine locks it"),
    ("HashMap", "its order differs from run to run; use BTreeMap"),
    ("HashSet", "its order differs from run to run; use BTreeSet"),
    ("std::env", "take it from the config"),
    ("std::fs", "the driver owns the files"),
    ("getrandom", "take entropy as an argument"),
];

/// `crate::` path of a file, as ccl-core sees it: `ccl-core/src/peer/mod.rs` is `peer`,
/// `ccl-reduce/src/rule.rs` is `reduce::rule`.
fn module_of(path: &str) -> String {
    let inside = path
        .replacen("ccl-reduce/src/lib.rs", "reduce.rs", 1)
        .replacen("ccl-reduce/src/", "reduce/", 1)
        .replacen("ccl-core/src/", "", 1);
    let stem = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    stem.replace('/', "::")
}

fn is_within(module: &str, prefix: &str) -> bool {
    module == prefix
        || module
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with("::"))
}

fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let fitting = ARROWS
        .iter()
        .filter(|(prefix, _)| is_within(module, prefix));
    let longest = fitting.max_by_key(|(prefix, _)| prefix.len());
    longest.map(|(_, targets)| targets.split_whitespace().collect())
}

/// All paths below `crate::` in `code`, with their lines; groups in braces are expanded.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        for path in expand(&code[at + start.len()..]) {
            found.push((line, path));
        }
    }
    found
}

/// `a::{b, c::{d, e}}` becomes `a::b`, `a::c::d`, `a::c::e`; reads to the end of the path.
fn expand(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut outer: Vec<String> = Vec::new();
    let mut current = String::new();
    for character in text.chars() {
        match character {
            c if c.is_alphanumeric() || c == '_' || c == ':' => current.push(c),
            '{' if current.is_empty() || current.ends_with("::") => {
                let prefix = outer.last().cloned().unwrap_or_default();
                outer.push(prefix + &std::mem::take(&mut current));
            }
            ',' | '}' if !outer.is_empty() => {
                if !current.is_empty() {
                    found.push(outer[outer.len() - 1].clone() + &std::mem::take(&mut current));
                }
                if character == '}' {
                    outer.pop();
                }
                if outer.is_empty() {
                    break;
                }
            }
            c if c.is_whitespace() && !outer.is_empty() => {}
            _ => break,
        }
    }
    if outer.is_empty() && !current.is_empty() {
        found.push(current);
    }
    found
}

/// The crate `ccl-reduce` depends on no other crate of this repository; cargo checks that arrow.
fn core_and_reduce() -> impl Iterator<Item = Source> {
    sources("ccl-core/src")
        .into_iter()
        .chain(sources("ccl-reduce/src"))
}

/// What `lib.rs` re-exports: `Error` is `error::Error`.
fn reexports(all: &[Source]) -> BTreeMap<String, String> {
    let is_root = |source: &&Source| source.path == "ccl-core/src/lib.rs";
    let root = all.iter().find(is_root).expect("ccl-core has a root");
    let uses = root.code.match_indices("pub use ");
    let paths = uses.flat_map(|(at, start)| expand(&root.code[at + start.len()..]));
    paths
        .filter_map(|path| Some((path.rsplit_once("::")?.1.to_string(), path.clone())))
        .collect()
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let all = sources("ccl-core/src");
    let reexported = reexports(&all);
    let mut broken = Vec::new();
    for source in all
        .iter()
        .filter(|source| source.path != "ccl-core/src/lib.rs")
    {
        let module = module_of(&source.path);
        let Some(targets) = allowed(&module) else {
            broken.push(format!("{module} has no entry in tests/tests/layers.rs"));
            continue;
        };
        let own = module.split("::").next().unwrap_or_default();
        for (line, named) in crate_paths(&source.code_without_tests()) {
            let first = named.split("::").next().unwrap_or_default();
            let path = reexported.get(first).unwrap_or(&named);
            let fits = |target: &&str| is_within(path, target);
            if !is_within(path, own) && !targets.iter().any(fits) {
                let at = format!("{}:{line}", source.path);
                broken.push(format!(
                    "{at}: {module} may not use {path}: see ARCHITECTURE.md"
                ));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn pure_modules_touch_nothing_outside() {
    let mut broken = Vec::new();
    for source in core_and_reduce() {
        let module = module_of(&source.path);
        let is_in = |list: &str| list.split_whitespace().any(|one| is_within(&module, one));
        if !is_in(PURE) || is_in(SHELLS) {
            continue;
        }
        for (index, line) in source.code_without_tests().lines().enumerate() {
            for (word, instead) in IMPURE.iter().filter(|(word, _)| line.contains(word)) {
                let at = format!("{}:{}", source.path, index + 1);
                broken.push(format!(
                    "{at}: {module} is pure and may not use {word}: {instead}"
                ));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// Only one module has to change when TCP is wrapped or replaced.
#[test]
fn only_net_uses_sockets() {
    let words = ["tokio::net::", "socket2", "std::net::Tcp", "TcpStream"];
    let mut broken = Vec::new();
    for source in sources("ccl-core/src") {
        let module = module_of(&source.path);
        if is_within(&module, "net") || source.path.contains("tests") {
            continue;
        }
        for (index, line) in source.code_without_tests().lines().enumerate() {
            let is_lookup = line.contains("tokio::net::lookup_host");
            if !is_lookup && words.iter().any(|word| line.contains(word)) {
                broken.push(format!("{}:{}: use crate::net", source.path, index + 1));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// A fork may copy such a table in the middle of a change (docs/decisions/0004-locks-of-std.md).
#[test]
fn no_lock_waits_in_a_table_of_the_process() {
    let lock = std::fs::read_to_string(source::root().join("Cargo.lock")).unwrap();
    assert!(!lock.contains("name = \"parking_lot"), "use ccl_core::lock");
}

/// The arrows between top-level modules: `a` uses what `a::b` may use.
#[test]
fn arrows_go_round_in_no_circle() {
    let room = |path: &str| path.split("::").next().unwrap_or_default().to_string();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, targets) in ARROWS {
        let targets = targets.split_whitespace().map(room);
        arrows.entry(room(module)).or_default().extend(targets);
    }
    assert_no_circle(arrows);
}

/// Each file of the C interface is a layer of its own: `call` uses `last_error`, and so on.
#[test]
fn files_of_the_c_interface_use_each_other_in_no_circle() {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources("ccl-capi/src") {
        let file = source.path.rsplit('/').next().unwrap_or_default();
        let own = file.trim_end_matches(".rs").to_string();
        let paths = crate_paths(&source.code_without_tests()).into_iter();
        let files = paths.filter_map(|(_, path)| Some(path.split("::").next()?.to_string()));
        arrows.entry(own).or_default().extend(files);
    }
    assert!(arrows["call"].contains("result"), "{arrows:?}");
    assert_no_circle(arrows);
}

/// Each file of the network emulator is a layer of its own, and those that decide use no others.
#[test]
fn files_of_the_network_emulator_use_each_other_in_no_circle() {
    let is_pure = |file: &str| PURE_WAN.split_whitespace().any(|pure| pure == file);
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut broken = Vec::new();
    let all = sources("stress/src/wan").into_iter();
    for source in all.filter(|source| !source.is_tests() && source.path != "stress/src/wan/mod.rs")
    {
        let inside = source.path.replacen("stress/src/wan/", "", 1);
        let own = inside
            .split(['/', '.'])
            .next()
            .unwrap_or_default()
            .to_string();
        let code = source.code_without_tests();
        let paths = crate_paths(&code).into_iter();
        let used = paths.filter_map(|(_, path)| Some(path.strip_prefix("wan::")?.to_string()));
        let used = used.filter_map(|path| Some(path.split("::").next()?.to_string()));
        let used: BTreeSet<String> = used.collect();
        if is_pure(&own) {
            let acting = used.iter().filter(|file| !is_pure(file));
            broken.extend(acting.map(|file| format!("{own} is pure and may not use {file}")));
            let named = IMPURE.iter().filter(|(word, _)| code.contains(word));
            broken.extend(named.map(|(word, _)| format!("{own} is pure and may not use {word}")));
        }
        arrows.entry(own).or_default().extend(used);
    }
    assert!(arrows["router"].contains("link"), "{arrows:?}");
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
    assert_no_circle(arrows);
}

fn assert_no_circle(mut arrows: BTreeMap<String, BTreeSet<String>>) {
    // Remove modules that use none of the remaining ones, layer by layer.
    while !arrows.is_empty() {
        let left: BTreeSet<String> = arrows.keys().cloned().collect();
        arrows.retain(|own, targets| targets.iter().any(|to| to != own && left.contains(to)));
        assert!(arrows.len() < left.len(), "a circle among {left:?}");
    }
}

#[test]
fn every_entry_names_a_module_that_exists() {
    let all: Vec<String> = core_and_reduce()
        .map(|source| module_of(&source.path))
        .collect();
    let sources = ARROWS.iter().map(|(module, _)| *module);
    let targets = ARROWS
        .iter()
        .flat_map(|(_, targets)| targets.split_whitespace());
    for entry in sources.chain(targets) {
        // A capitalised last part is a type in that module.
        let module = entry
            .split("::")
            .take_while(|part| part.starts_with(char::is_lowercase));
        let module = module.collect::<Vec<_>>().join("::");
        assert!(
            all.iter().any(|known| is_within(known, &module)),
            "{module} is no module"
        );
    }
}

#[test]
fn paths_in_braces_are_taken_apart() {
    let code = "use crate::{a::{B, c}, d};\nfn f() { crate::e::g(); $crate::h(); }";
    let expected = [(1, "a::B"), (1, "a::c"), (1, "d"), (2, "e::g")];
    assert_eq!(
        crate_paths(code),
        expected.map(|(line, path)| (line, path.to_string()))
    );
}
