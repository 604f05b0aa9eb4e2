//! Words that must not land: unfinished work, forgotten debugging, paths of somebody's machine.

use super::Finding;
use crate::source::{blank, matches, tokens};
use crate::tree::Tree;

/// Macros that mean "not finished" or "left over".
const MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Marks in comments: an open question belongs into an issue.
const MARKS: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Beginnings of paths that exist on one machine only.
const PATHS: [&str; 2] = ["/work/", "/root/"];

/// This file, which must name what it forbids.
const OWN: &str = "xtask/src/rules/words.rs";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let texts =
        tree.files().filter(|(path, _)| *path != OWN).flat_map(|(path, text)| in_text(path, text));
    let code = tree.with_ending(".rs").flat_map(|(path, text)| in_code(path, text));
    texts.chain(code).collect()
}

fn in_text(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for word in MARKS.iter().filter(|word| has_word(line, word)) {
            findings.push(Finding::new(path, index + 1, format!("{word}: open an issue instead")));
        }
        for start in PATHS.iter().filter(|start| has_path(line, start)) {
            findings.push(Finding::new(
                path,
                index + 1,
                format!("a path under {start} exists on one machine only"),
            ));
        }
    }
    findings
}

fn in_code(path: &str, text: &str) -> Vec<Finding> {
    let blanked = blank(text);
    let tokens = tokens(&blanked);
    let mut findings = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if MACROS.contains(&token.text) && matches(&tokens, index + 1, &["!"]) {
            findings.push(Finding::new(
                path,
                token.line,
                format!("{}!: finish it or leave it out", token.text),
            ));
        }
        if matches(&tokens, index, &["#", "[", "ignore", "]"]) {
            findings.push(Finding::new(
                path,
                token.line,
                "#[ignore] without a reason: say when the test is run",
            ));
        }
        // A module that several test programs share is dead in those that use a part of it.
        let shared = path.contains("/tests/");
        if !shared && matches(&tokens, index, &["allow", "(", "dead_code"]) {
            findings.push(Finding::new(path, token.line, "allow(dead_code): remove the dead code"));
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

/// Whether a path starts here, and not in the middle of a longer one (`deploy/work/x`).
fn has_path(line: &str, start: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || "._-}~/".contains(c);
    line.match_indices(start).any(|(at, _)| !line[..at].ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::planted(&[(path, text)], &[]);
        check(&tree).into_iter().map(|f| format!("{}: {}", f.line, f.message)).collect()
    }

    #[test]
    fn unfinished_code_is_found_outside_of_strings_and_comments() {
        assert_eq!(
            findings("a.rs", "fn f() {\n    todo!()\n}"),
            ["2: todo!: finish it or leave it out"]
        );
        assert_eq!(findings("a.rs", "dbg!(x); unimplemented![]").len(), 2);
        assert_eq!(
            findings("a.rs", "// todo!()\nconst A: &str = \"dbg!(x)\"; fn todo() {}"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn marks_are_found_in_every_text_file() {
        assert_eq!(findings("a.md", "fine\nTODO: later"), ["2: TODO: open an issue instead"]);
        assert_eq!(findings("a.yml", "# FIXME later").len(), 1);
        assert_eq!(findings("a.md", "TODOS and XXXL and MY_TODO"), Vec::<String>::new());
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        assert_eq!(findings("a.md", "see /root/x").len(), 1);
        assert_eq!(
            findings("a.md", "see docs/work/x, https://example.org/root/x, ${root}/work/"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn ignored_tests_and_hidden_dead_code_need_a_reason() {
        assert_eq!(findings("a.rs", "#[ignore]\nfn f() {}").len(), 1);
        assert_eq!(
            findings("a.rs", "#[ignore = \"needs root: cargo run -p x\"]\nfn f() {}"),
            Vec::<String>::new()
        );
        assert_eq!(findings("a.rs", "#[allow(dead_code)]\nfn f() {}").len(), 1);
    }
}
