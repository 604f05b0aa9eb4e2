//! The house rules, one per file. Each is a function from the tree to what it found.

mod documents;
mod modules;
mod platform;
mod purity;
mod size;
mod words;

use std::fmt;

use crate::tree::Tree;

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// Counted from 1; 0 when the whole file is meant.
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// What a rule finds in a tree of one file, as `line: message`.
#[cfg(test)]
fn planted(
    rule: impl Fn(&Tree, &modules::Reached) -> Vec<Finding>,
    path: &str,
    text: &str,
) -> Vec<String> {
    let tree = Tree::planted(&[(path, text)], &[]);
    let found = rule(&tree, &modules::Reached::walk(&tree));
    found.into_iter().map(|f| format!("{}: {}", f.line, f.message)).collect()
}

/// Everything that the rules have to say about the tree, in path order.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let modules = modules::Reached::walk(tree);
    let mut findings = modules.dead_files(tree);
    findings.extend(size::check(tree, &modules));
    findings.extend(words::check(tree));
    findings.extend(purity::check(tree, &modules));
    findings.extend(platform::check(tree, &modules));
    findings.extend(documents::check(tree));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_itself_is_tidy() {
        let tree = Tree::read_workspace().expect("the workspace can be read");
        let findings: Vec<String> = check(&tree).iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn a_clean_tree_has_no_finding_and_each_rule_speaks_for_itself() {
        let clean = Tree::planted(
            &[("ring/src/lib.rs", "//! Ring.\nmod id;\n"), ("ring/src/id.rs", "struct Id;\n")],
            &["ring/src/lib.rs"],
        );
        assert_eq!(check(&clean), []);
        let dirty = Tree::planted(
            &[
                (
                    "ring/src/lib.rs",
                    "//! Ring.\nfn f() { todo!() }\nuse std::collections::HashMap;\n",
                ),
                ("ring/src/dead.rs", "struct Dead;\n"),
                ("README.md", "[gone](docs/gone.md)\n"),
            ],
            &["ring/src/lib.rs"],
        );
        let lines: Vec<_> = check(&dirty).iter().map(|f| (f.path.clone(), f.line)).collect();
        let expected = [
            ("README.md", 1),
            ("ring/src/dead.rs", 0),
            ("ring/src/lib.rs", 2),
            ("ring/src/lib.rs", 3),
        ];
        assert_eq!(lines, expected.map(|(path, line)| (path.to_owned(), line)));
    }
}
