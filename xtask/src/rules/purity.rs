//! The cores know no clock, socket, file, task, thread, randomness or randomly ordered map, so that
//! the same inputs give the same outputs in a test, a simulator and a model checker.
//!
//! Clippy's disallowed lists (`ring/clippy.toml`, `replica/clippy.toml`) see through renames; this
//! rule sees what no list of types names, and does not depend on what was compiled.

use super::Finding;
use super::modules::Reached;
use crate::source::{blank, matches, test_spans, tokens};
use crate::tree::Tree;

/// Directories of the sans-io crates.
const CORES: [&str; 2] = ["ring/src/", "replica/src/"];

/// The stores' contract suite: test code, in the library because the server's tests run it too.
const CONTRACT_SUITE: &str = "replica/src/store/contract.rs";

/// Names that have no meaning in a core, wherever they come from.
const NAMES: [&str; 10] = [
    "HashMap",
    "HashSet",
    "RandomState",
    "Instant",
    "SystemTime",
    "rand",
    "getrandom",
    "tokio",
    "async",
    "await",
];

/// Modules of `std` that touch the world.
const MODULES: [&str; 6] = ["thread", "net", "fs", "env", "process", "os"];

pub(crate) fn check(tree: &Tree, reached: &Reached) -> Vec<Finding> {
    tree.with_ending(".rs")
        .filter(|(path, _)| CORES.iter().any(|core| path.starts_with(core)))
        .filter(|(path, _)| *path != CONTRACT_SUITE && !reached.is_test(path))
        .flat_map(|(path, text)| check_file(path, text))
        .collect()
}

fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let blanked = blank(text);
    let tokens = tokens(&blanked);
    let tests = test_spans(&tokens);
    let mut findings = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if tests.iter().any(|span| span.contains(&index)) {
            continue;
        }
        let outside = if NAMES.contains(&token.text) {
            Some(token.text.to_owned())
        } else {
            MODULES
                .iter()
                .find(|m| matches(&tokens, index, &["std", ":", ":", m]))
                .map(|m| format!("std::{m}"))
        };
        if let Some(name) = outside {
            findings.push(Finding::new(
                path,
                token.line,
                format!("{name} has no place in a sans-io crate"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::planted;

    fn findings(path: &str, text: &str) -> Vec<String> {
        planted(check, path, text)
    }

    #[test]
    fn a_clock_or_a_random_map_in_a_core_is_found() {
        let text = "use std::collections::{BTreeMap, HashMap};\nlet x = Instant::now();\nstd::thread::sleep(d);";
        assert_eq!(
            findings("replica/src/a.rs", text),
            [
                "1: HashMap has no place in a sans-io crate",
                "2: Instant has no place in a sans-io crate",
                "3: std::thread has no place in a sans-io crate",
            ]
        );
    }

    #[test]
    fn other_crates_tests_and_prose_may_name_them() {
        assert_eq!(
            findings("server/src/a.rs", "use std::collections::HashMap;"),
            Vec::<String>::new()
        );
        assert_eq!(
            findings("ring/src/a.rs", "#[cfg(test)] mod tests { use std::collections::HashMap; }"),
            Vec::<String>::new()
        );
        assert_eq!(
            findings("ring/src/a.rs", "//! No HashMap, no Instant.\nlet operand = 1;"),
            Vec::<String>::new()
        );
        assert_eq!(
            findings("ring/tests/a.rs", "use std::collections::HashMap;"),
            Vec::<String>::new()
        );
    }
}
