//! A picture of a run: one static page, without scripts, that any browser opens.
//!
//! Above, the faults of each node on a time line, and under them how requests went meanwhile. Below, for each key whose
//! promises were broken, its operations, a line for each client. Whoever points at a bar is told what it is.

mod svg;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::check::{Report, Violation};
use crate::history::History;
use crate::operation::{Action, Operation, OperationId, Outcome, Time};
use svg::{Canvas, escaped};

/// Keys with violations that are drawn.
const KEYS: usize = 20;
/// Violations that are told in words.
const TOLD: usize = 100;
/// How many parts the time line has for the counts of requests.
const PARTS: usize = 200;
/// Operations of one key that are drawn, around the violations.
const OPERATIONS: usize = 2_000;

/// The kinds of outcome, with the colour of each.
const OUTCOMES: [(&str, &str); 5] = [
    ("acknowledged", "#2e7d32"),
    ("read", "#1565c0"),
    ("in doubt", "#ef6c00"),
    ("refused", "#9e9e9e"),
    ("conflict", "#6a1b9a"),
];
const WRONG: &str = "#d50000";
/// Colours of faults, by turns: enough to tell apart all kinds of a chaos run.
const FAULTS: [&str; 18] = [
    "#c62828", "#ad1457", "#4527a0", "#00695c", "#9e9d24", "#4e342e", "#37474f", "#0277bd",
    "#ff8f00", "#00bfa5", "#d500f9", "#8bc34a", "#ff5252", "#304ffe", "#a1887f", "#00b8d4",
    "#f06292", "#827717",
];

/// Draws a run and what the checkers said of it.
pub fn html(history: &History, report: &Report) -> String {
    let mut page = String::from(HEAD);
    words(&mut page, history, report);
    let scale = span(history);
    let _ = writeln!(page, "<h2>Faults and requests</h2>{}", overview(history, scale));
    let mut keys: BTreeMap<(&str, &str), Vec<&Violation>> = BTreeMap::new();
    for violation in &report.violations {
        keys.entry((&violation.bucket, &violation.key)).or_default().push(violation);
    }
    let by_key = history.by_key();
    for (key, violations) in keys.iter().take(KEYS) {
        let Some(operations) = by_key.get(key) else { continue };
        let name = escaped(&format!("{}/{}", key.0, key.1));
        let _ = writeln!(page, "<h2>Key {name}</h2>{}", of_key(operations, violations));
    }
    page.push_str("</body></html>\n");
    page
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<title>A run of Triad</title><style>\
body{font:14px sans-serif;margin:2em}svg{border:1px solid #ddd;background:#fff;display:block}\
text{font:11px sans-serif}.wrong{color:#d50000}li{margin:.2em 0}h2{margin-top:1.5em}\
.key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}\
</style></head><body><h1>A run of Triad</h1>\n";

/// What there is to say in words.
fn words(page: &mut String, history: &History, report: &Report) {
    for note in &history.notes {
        let _ = writeln!(page, "<pre>{}</pre>", escaped(note));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for operation in &history.operations {
        *counts.entry(OUTCOMES[outcome(operation)].0).or_default() += 1;
    }
    let told: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let (operations, told) = (history.operations.len(), told.join(", "));
    let _ = writeln!(page, "<p>{operations} operations: {told}.</p>");
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for fault in &history.faults {
        *kinds.entry(&fault.kind).or_default() += 1;
    }
    let told: Vec<String> =
        kinds.iter().map(|(kind, count)| format!("{count} × {}", escaped(kind))).collect();
    let _ = writeln!(page, "<p>{} faults: {}.</p>", history.faults.len(), told.join(", "));
    if report.violations.is_empty() {
        page.push_str("<p>No promise was broken.</p>\n");
        return;
    }
    let count = report.violations.len();
    let _ = writeln!(page, "<p class=\"wrong\">{count} promises broken:</p><ol class=\"wrong\">");
    for violation in report.violations.iter().take(TOLD) {
        let _ = writeln!(page, "<li>{}</li>", escaped(&violation.to_string()));
    }
    page.push_str("</ol>\n");
}

/// From the first to the last moment of a run.
fn span(history: &History) -> (Time, Time) {
    let operations = history.operations.iter().flat_map(|one| [Some(one.start), one.end]);
    let faults = history.faults.iter().flat_map(|one| [Some(one.start), one.end]);
    let times: BTreeSet<Time> = operations.chain(faults).chain([history.rest]).flatten().collect();
    let first = times.first().copied().unwrap_or_default();
    (first, times.last().copied().unwrap_or_default().max(first + 1))
}

fn overview(history: &History, (from, to): (Time, Time)) -> String {
    let mut canvas = Canvas::new(from, to);
    let kinds: BTreeSet<&str> = history.faults.iter().map(|one| one.kind.as_str()).collect();
    let colour = |kind: &str| {
        FAULTS[kinds.iter().position(|one| *one == kind).unwrap_or_default() % FAULTS.len()]
    };
    let nodes: BTreeSet<&String> = history.faults.iter().flat_map(|one| &one.nodes).collect();
    for node in nodes {
        canvas.row(node);
        for fault in history.faults.iter().filter(|one| one.nodes.contains(node)) {
            let title = format!("{} of {}: {}", fault.kind, fault.nodes.join(", "), fault.detail);
            canvas.bar(fault.start, fault.end, colour(&fault.kind), &title);
        }
    }
    for (kind, (name, colour)) in OUTCOMES.iter().enumerate() {
        if !history.operations.iter().any(|one| outcome(one) == kind) {
            continue;
        }
        canvas.row(name);
        canvas.counts(&counts(history, kind, (from, to)), colour);
    }
    if let Some(rest) = history.rest {
        canvas.mark(rest, "at rest");
    }
    let legend = legend(kinds.iter().map(|kind| (*kind, colour(kind))));
    format!("{}<p class=\"key\">{legend}</p>", canvas.finish())
}

/// How many requests of a kind ended in each part of the time.
fn counts(history: &History, kind: usize, (from, to): (Time, Time)) -> Vec<usize> {
    let mut counts = vec![0; PARTS];
    for one in history.operations.iter().filter(|one| outcome(one) == kind) {
        let at = u128::from(one.end.unwrap_or(one.start).clamp(from, to) - from);
        let part = at * PARTS as u128 / (u128::from(to - from) + 1);
        counts[part as usize] += 1;
    }
    counts
}

/// One key's operations, a line for each client.
fn of_key(operations: &[&Operation], violations: &[&Violation]) -> String {
    let wrong: BTreeSet<OperationId> = violations.iter().filter_map(|one| one.at).collect();
    let place = operations.iter().position(|one| wrong.contains(&one.id)).unwrap_or_default();
    let first = place.saturating_sub(OPERATIONS / 2);
    let shown = &operations[first..operations.len().min(first + OPERATIONS)];
    let from = shown.iter().map(|one| one.start).min().unwrap_or_default();
    let ends = shown.iter().map(|one| one.end.unwrap_or(one.start));
    let mut canvas = Canvas::new(from, ends.max().unwrap_or_default().max(from + 1));
    let clients: BTreeSet<u32> = shown.iter().map(|one| one.request.client).collect();
    for client in clients {
        canvas.row(&format!("client {client}"));
        for one in shown.iter().filter(|one| one.request.client == client) {
            let is_wrong = wrong.contains(&one.id);
            let colour = if is_wrong { WRONG } else { OUTCOMES[outcome(one)].1 };
            canvas.bar(one.start, one.end, colour, &told(one));
        }
    }
    let legend = legend(OUTCOMES.into_iter().chain([("breaks a promise", WRONG)]));
    format!("{}<p class=\"key\">{legend}</p>", canvas.finish())
}

/// What the colours mean.
fn legend<'a>(colours: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut legend = String::new();
    for (name, colour) in colours {
        let name = escaped(name);
        let _ = write!(legend, "<span style=\"background:{colour}\"></span>{name}");
    }
    legend
}

/// An operation in words.
fn told(one: &Operation) -> String {
    let request = &one.request;
    let action = match &request.action {
        Action::Get => "get".to_owned(),
        Action::Put(value) => format!("put {value:?}"),
        Action::Delete => "delete".to_owned(),
        Action::CompareAndSet { expected, value } => format!("{expected:?} to {value:?}"),
    };
    let context = request.context.map_or(String::new(), |source| format!(", context of {source}"));
    let node = request.node.as_ref().map_or(String::new(), |node| format!(" at {node}"));
    let end = one.end.map_or("never ended".to_owned(), |end| format!("to {end}"));
    let answer = match &one.outcome {
        Outcome::Returned(values) => format!("returned {values:?}"),
        _ => OUTCOMES[outcome(one)].0.to_owned(),
    };
    let (id, level, start) = (one.id, request.level, one.start);
    format!("{id}: {action} at {level:?}{context}{node}, {start} {end} µs: {answer}")
}

/// The place of its outcome among the kinds.
fn outcome(one: &Operation) -> usize {
    match one.outcome {
        Outcome::Acknowledged => 0,
        Outcome::Returned(_) => 1,
        Outcome::InDoubt => 2,
        Outcome::Refused => 3,
        Outcome::Conflict => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Rules, check};
    use crate::operation::Request;
    use crate::recorder::Recorder;

    #[test]
    fn a_run_shows_its_faults_its_requests_and_what_went_wrong() {
        let recorder = Recorder::new();
        recorder.note("seed <7>");
        let fault = recorder.fault(5, "kill", vec!["node2".to_owned()], "SIGKILL");
        let put = recorder.begin(0, Request::new(1, "k&k", Action::Put("v<1>".to_owned())));
        recorder.end(10, put, Outcome::Acknowledged);
        let get = recorder.begin(20, Request::new(2, "k&k", Action::Get));
        recorder.end(30, get, Outcome::Returned(Vec::new()));
        recorder.heal(40, fault);
        recorder.rest(50);
        let history = recorder.history();
        let report = check(&history, &Rules::default()).unwrap();
        let page = html(&history, &report);
        for part in ["kill of node2: SIGKILL", "seed &lt;7&gt;", "Key /k&amp;k", WRONG, "at rest"] {
            assert!(page.contains(part), "{part} is missing:\n{page}");
        }
        assert!(!page.contains("v<1>") && !page.contains("<script"));
        assert_eq!(page.matches("<svg").count(), 2, "one of the run and one of the key");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn an_empty_run_has_a_picture_too() {
        assert!(html(&History::default(), &Report::default()).contains("No promise was broken"));
    }
}
