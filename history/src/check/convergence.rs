//! Convergence: at rest all look the same, whoever is asked.
//!
//! All members that were last seen to hold something of the same shard or key hold the same; and all reads of a key
//! since the cluster came to rest return the same values, at whatever level, as long as nobody writes to it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Breach, Key, Report, Violation};
use crate::history::{History, Holding};
use crate::operation::Operation;

pub(super) fn check_holdings(history: &History, report: &mut Report) {
    let mut last: BTreeMap<(&str, &str), &Holding> = BTreeMap::new();
    for holding in &history.holdings {
        let seen = last.entry((&holding.of, &holding.node)).or_insert(holding);
        if seen.at <= holding.at {
            *seen = holding;
        }
    }
    let mut first: BTreeMap<&str, &Holding> = BTreeMap::new();
    for ((of, _), holding) in last {
        let expected = first.entry(of).or_insert(holding);
        if expected.digest != holding.digest {
            let told = |one: &Holding| format!("{} holds {}", one.node, one.digest);
            let breach = Breach::Diverged { one: told(expected), other: told(holding) };
            let (bucket, key) = (String::new(), of.to_owned());
            report.violations.push(Violation { bucket, key, at: None, breach });
        }
    }
}

pub(super) fn check_reads(key: &Key<'_>, report: &mut Report) {
    let Some(rest) = key.rest else { return };
    let later = |one: &&&Operation| one.may_have_written() && one.start >= rest;
    let quiet_until = key.register.writes().iter().find(later).map(|one| one.start);
    let quiet = |read: &&Operation| {
        let over = quiet_until.is_none_or(|until| read.ended_before(until));
        key.is_at_rest(read) && over
    };
    let mut first: Option<(&Operation, BTreeSet<&String>)> = None;
    for read in key.reads().filter(quiet) {
        let values: BTreeSet<_> = read.returned().unwrap_or_default().iter().collect();
        match &first {
            None => first = Some((read, values)),
            Some((_, expected)) if *expected == values => {}
            Some((earlier, expected)) => {
                let one = format!("operation {} returned {expected:?}", earlier.id);
                let other = format!("{} returned {values:?}", read.id);
                report.add(read, Breach::Diverged { one, other });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::story::found;

    const RIGHT: [&str; 0] = [];

    #[test]
    fn what_members_held_last_counts_and_not_what_they_held_before() {
        let story = "
            hold shard1 node1 aa 10
            hold shard1 node1 bb 20
            hold shard1 node2 bb 15
            hold shard2 node3 cc 15";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn planted_members_that_hold_different_things_are_found() {
        let found = found("hold shard1 node1 aa 10\nhold shard1 node2 bb 10");
        assert_eq!(found, ["shard1: node1 holds aa, but node2 holds bb"]);
    }

    #[test]
    fn at_rest_every_read_returns_the_same_in_any_order_until_somebody_writes() {
        let story = "
            9 get 0-1 =
            1 put a 5-10 ok after:0
            2 put b 5-15 doubt after:0
            3 get 20-25 =a
            rest 30
            3 get 40-50 =a,b
            4 get 40-50 =b,a one
            1 put c 60-70 ok
            3 get 65-80 =a,b";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn planted_reads_that_differ_at_rest_are_found() {
        let story = "
            1 put a 0-10 doubt
            rest 30
            3 get 40-50 =a one
            4 get 60-70 = one";
        let expected = "k, operation 2: operation 1 returned {\"a\"}, but 2 returned {}";
        assert_eq!(found(story), [expected]);
    }
}
