//! Files and functions stay small enough to be read whole. Tests are not counted: a long list of
//! stories is no sign of a muddled design.

use super::Finding;
use super::modules::Reached;
use crate::source::{Token, blank, item_end, test_spans, tokens};
use crate::tree::Tree;

/// Lines of a file, tests not counted.
const FILE_LINES_MAX: usize = 500;

/// Lines of a function that hold code: neither blank nor only a comment.
const FUNCTION_LINES_MAX: usize = 70;

pub(crate) fn check(tree: &Tree, reached: &Reached) -> Vec<Finding> {
    tree.with_ending(".rs")
        .filter(|(path, _)| !reached.is_test(path))
        .flat_map(|(path, text)| check_file(path, text))
        .collect()
}

fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let blanked = blank(text);
    let tokens = tokens(&blanked);
    let tests = test_spans(&tokens);
    let test_lines: usize =
        tests.iter().map(|s| tokens[*s.end()].line - tokens[*s.start()].line + 1).sum();
    let lines = text.lines().count() - test_lines;
    let mut findings = Vec::new();
    if lines > FILE_LINES_MAX {
        let message =
            format!("{lines} lines without tests, at most {FILE_LINES_MAX}: split it by topic");
        findings.push(Finding::new(path, 0, message));
    }
    for index in 0..tokens.len() {
        if tests.iter().any(|span| span.contains(&index)) {
            continue;
        }
        let Some((name, lines)) = function(&blanked, &tokens, index) else {
            continue;
        };
        if lines > FUNCTION_LINES_MAX {
            let message = format!("fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}");
            findings.push(Finding::new(path, tokens[index].line, message));
        }
    }
    findings
}

/// Name and code lines of the function that starts at `index`, if one does (`fn(` is a type).
fn function<'a>(blanked: &str, tokens: &[Token<'a>], index: usize) -> Option<(&'a str, usize)> {
    let name = tokens.get(index + 1)?.text;
    if tokens[index].text != "fn" || !name.starts_with(|c: char| c == '_' || c.is_alphabetic()) {
        return None;
    }
    let end = tokens[item_end(tokens, index)];
    let body = blanked.get(tokens[index].at..=end.at)?;
    Some((name, body.lines().filter(|line| !line.trim().is_empty()).count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        check_file("a.rs", text).into_iter().map(|f| format!("{}: {}", f.line, f.message)).collect()
    }

    #[test]
    fn a_function_may_have_seventy_lines_of_code_and_not_one_more() {
        let function = |lines: usize| {
            format!("fn f() {{\n{}}}\n", "    // why\n\n    x();\n".repeat(lines - 2))
        };
        assert_eq!(findings(&function(70)), Vec::<String>::new());
        assert_eq!(findings(&function(71)), ["1: fn f has 71 lines, at most 70"]);
    }

    #[test]
    fn functions_of_tests_and_function_types_are_not_counted() {
        let body = "x();\n".repeat(100);
        assert_eq!(
            findings(&format!("#[cfg(test)]\nmod tests {{ fn f() {{\n{body}}} }}")),
            Vec::<String>::new()
        );
        assert_eq!(
            findings(&format!("struct A {{ f: fn(u8) -> u8 }}\nconst X: [u8; 1] = [\n{body}];")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_file_may_have_five_hundred_lines_beside_its_tests() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// a story\n".repeat(400));
        assert_eq!(findings(&("struct A;\n".repeat(500) + &tests)), Vec::<String>::new());
        let found = findings(&("struct A;\n".repeat(501) + &tests));
        assert_eq!(found, ["0: 501 lines without tests, at most 500: split it by topic"]);
    }
}
