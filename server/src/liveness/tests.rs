//! The detector, input by input.

use std::time::Duration;

use triad_ring::{Incarnation, NodeId};

use super::*;

const NODE: NodeId = NodeId::from_bytes([7; 16]);
const HELPER: NodeId = NodeId::from_bytes([8; 16]);

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn incarnation(number: u64) -> Incarnation {
    Incarnation::new(number)
}

/// A detector that watches some nodes.
struct Bench {
    detector: Detector,
    watched: Vec<Watched>,
}

impl Bench {
    fn of(nodes: &[NodeId]) -> Self {
        let watched = nodes.iter().map(|&node| Watched { node, near: false }).collect();
        Self { detector: Detector::default(), watched }
    }

    fn give(&mut self, millis: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.detector.handle(input, at(millis), &mut out);
        out
    }

    fn period(&mut self, millis: u64) -> Vec<Output> {
        self.give(millis, Input::Period(self.watched.clone()))
    }

    /// A period in which these answer within two milliseconds.
    fn period_answered(&mut self, millis: u64, by: &[NodeId]) -> Vec<Output> {
        let mut all = self.period(millis);
        for (node, probe) in pings(&all) {
            if by.contains(&node) {
                let incarnation = incarnation(2);
                all.extend(self.give(millis + 2, Input::Answered { probe, incarnation }));
            }
        }
        all
    }
}

fn pings(out: &[Output]) -> Vec<(NodeId, ProbeId)> {
    let ping = |output: &Output| match *output {
        Output::Ping { node, probe, .. } => Some((node, probe)),
        _ => None,
    };
    out.iter().filter_map(ping).collect()
}

fn changes(out: &[Output]) -> Vec<(NodeId, Liveness)> {
    let change = |output: &Output| match *output {
        Output::Changed(change) => Some((change.node, change.now)),
        _ => None,
    };
    out.iter().filter_map(change).collect()
}

#[test]
fn silence_is_suspected_first_and_believed_later() {
    let mut bench = Bench::of(&[NODE]);
    assert_eq!(changes(&bench.period_answered(0, &[NODE])), [(NODE, Liveness::Alive)]);
    assert_eq!(bench.detector.round_trip(NODE), Some(at(2)));
    let mut seen = Vec::new();
    for millis in (500..=5_000).step_by(500) {
        let change = changes(&bench.period(millis));
        seen.extend(change.into_iter().map(|(_, now)| (millis, now)));
    }
    assert_eq!(seen, [(2_000, Liveness::Suspect), (4_000, Liveness::Down)]);
    assert_eq!(bench.detector.silent_for(NODE, at(5_000)), at(4_500), "since the first ping");
}

#[test]
fn a_node_that_was_never_heard_is_suspected_and_then_down() {
    let mut bench = Bench::of(&[NODE]);
    assert_eq!(bench.detector.silent_for(NODE, at(900)), Duration::ZERO);
    (0..=6).for_each(|period| assert_eq!(changes(&bench.period(500 * period)), []));
    assert_eq!(bench.detector.liveness(NODE), Liveness::Suspect);
    assert_eq!(changes(&bench.period(3_500)), [(NODE, Liveness::Down)]);
}

#[test]
fn helpers_are_asked_about_the_silent_and_their_word_counts() {
    let mut bench = Bench::of(&[NODE, HELPER]);
    bench.period_answered(0, &[NODE, HELPER]);
    for millis in (500..=9_500).step_by(500) {
        let out = bench.period_answered(millis, &[HELPER]);
        let (_, probe) = pings(&out)[0];
        let asked = bench.give(millis + 250, Input::Unanswered { probe });
        let [Output::AskHelper { node: NODE, helper: HELPER, .. }] = asked[..] else {
            panic!("{asked:?}");
        };
        let word = Word::Reached(incarnation(2));
        assert_eq!(bench.give(millis + 260, Input::Helped { probe, word }), []);
    }
    assert_eq!(bench.detector.liveness(NODE), Liveness::Suspect);
    assert_eq!(bench.detector.silent_for(NODE, at(9_990)), Duration::ZERO);
}

#[test]
fn a_late_answer_is_an_answer_all_the_same() {
    let mut bench = Bench::of(&[NODE]);
    bench.period_answered(0, &[NODE]);
    let (_, probe) = pings(&bench.period(500))[0];
    assert_eq!(bench.give(750, Input::Unanswered { probe }), [], "nobody to ask");
    (2..=4).for_each(|period| drop(bench.period(500 * period)));
    assert_eq!(bench.detector.liveness(NODE), Liveness::Suspect);
    let incarnation = incarnation(2);
    let out = bench.give(2_400, Input::Answered { probe, incarnation });
    assert_eq!(changes(&out), [(NODE, Liveness::Alive)]);
}

#[test]
fn a_word_of_an_older_process_does_not_revive_it() {
    let mut bench = Bench::of(&[NODE]);
    bench.period_answered(0, &[NODE]);
    (1..=9).for_each(|period| drop(bench.period(500 * period)));
    assert_eq!(bench.detector.liveness(NODE), Liveness::Down);
    let older = Input::Heard { node: NODE, incarnation: incarnation(1) };
    assert_eq!(bench.give(4_600, older), []);
    let newer = Input::Heard { node: NODE, incarnation: incarnation(3) };
    let out = bench.give(4_700, newer);
    assert_eq!(changes(&out), [(NODE, Liveness::Suspect)]);
    let [(NODE, probe)] = pings(&out)[..] else { panic!("it is pinged at once: {out:?}") };
    let out = bench.give(4_701, Input::Answered { probe, incarnation: incarnation(3) });
    assert_eq!(changes(&out), [(NODE, Liveness::Alive)]);
}

#[test]
fn a_restart_is_news_even_without_silence() {
    let mut bench = Bench::of(&[NODE]);
    bench.period_answered(0, &[NODE]);
    let same = Input::Heard { node: NODE, incarnation: incarnation(2) };
    assert_eq!(bench.give(100, same), []);
    let restarted = Input::Heard { node: NODE, incarnation: incarnation(3) };
    assert_eq!(changes(&bench.give(200, restarted)), [(NODE, Liveness::Alive)]);
}

#[test]
fn who_is_not_watched_any_more_is_forgotten() {
    let mut bench = Bench::of(&[NODE, HELPER]);
    bench.period_answered(0, &[NODE, HELPER]);
    bench.watched.retain(|watched| watched.node == HELPER);
    bench.period_answered(500, &[HELPER]);
    assert_eq!(bench.detector.liveness(NODE), Liveness::Suspect);
    assert_eq!(bench.detector.silent_for(NODE, at(90_000)), Duration::ZERO);
}
