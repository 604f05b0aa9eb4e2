//! The server reaches for randomness, the hour, threads and blocking work through its platform alone, and takes
//! nothing at random by itself: a simulation hands in another platform, and a seed must always tell the same story.

use super::Finding;
use super::modules::Reached;
use crate::source::{blank, matches, test_spans, tokens};
use crate::tree::Tree;

/// Where the rule holds.
const SERVER: &str = "server/src/";
/// The platform itself, what lies under it, and what is never simulated.
const OUTSIDE: [&str; 5] = ["platform.rs", "random.rs", "sled_store", "data_dir", "testing"];
/// What only the platform may use.
const NAMES: [&str; 3] = ["spawn_blocking", "SystemTime", "getrandom"];

pub(crate) fn check(tree: &Tree, reached: &Reached) -> Vec<Finding> {
    tree.with_ending(".rs")
        .filter(|(path, _)| !reached.is_test(path))
        .filter(|(path, _)| {
            let inside = path.strip_prefix(SERVER);
            inside.is_some_and(|name| !OUTSIDE.iter().any(|other| name.starts_with(other)))
        })
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
        if NAMES.contains(&token.text) {
            let message = format!("{} is the platform's (server/src/platform.rs)", token.text);
            findings.push(Finding::new(path, token.line, message));
        }
        let selects = matches(&tokens, index, &["select", "!", "{"]);
        if selects && !matches(&tokens, index + 3, &["biased", ";"]) {
            let message = "select! without `biased;` tries its branches in random order";
            findings.push(Finding::new(path, token.line, message));
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
    fn what_two_runs_of_a_seed_would_differ_by_is_found() {
        let text = "fn f() {\n tokio::select! { a = b => {} }\n tokio::select! { biased; a = b => {} }\n let t = SystemTime::now();\n}";
        assert_eq!(
            findings("server/src/a.rs", text),
            [
                "2: select! without `biased;` tries its branches in random order",
                "4: SystemTime is the platform's (server/src/platform.rs)",
            ]
        );
        assert_eq!(findings("server/src/platform.rs", text), Vec::<String>::new());
        assert_eq!(findings("cli/src/a.rs", text), Vec::<String>::new());
    }
}
