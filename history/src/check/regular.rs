//! A regular register over sets of siblings and causal contexts: the promise D8.
//!
//! In strict buckets a read at QUORUM returns every write that QUORUM or ALL acknowledged before it began, or what
//! replaced it; and nothing that such a write had replaced. Writes that run beside the read may show or not, and two
//! reads beside one write may see it and then not: that is what *regular* leaves open (Lamport, *On Interprocess
//! Communication*, part II, 1986). Writes in doubt run beside everything that follows, as `info` operations do in
//! Jepsen's histories.

use super::{Breach, Key, Report};
use crate::operation::{Level, Mode, Operation};
use crate::register::{By, is_promised};

pub(super) fn check(key: &Key<'_>, report: &mut Report) {
    for read in key.reads() {
        check_read(key, read, report);
    }
}

pub(super) fn check_read(key: &Key<'_>, read: &Operation, report: &mut Report) {
    if !is_fresh(key, read) {
        return;
    }
    let register = &key.register;
    for place in register.shown(read) {
        if let Some(by) = register.replaced(place, read.start, By::Put) {
            let value = register.writes()[place].value().unwrap_or_default().to_owned();
            report.add(read, Breach::Revived { value, replaced_by: register.writes()[by].id });
        }
    }
    let accounted = register.accounted(read);
    let due = |write: &Operation| is_promised(write) && write.ended_before(read.start);
    // One of several is enough to know that something is wrong, and the last says most.
    let lost = register.writes().iter().zip(accounted).rfind(|(write, there)| !there && due(write));
    if let Some((write, _)) = lost {
        let returned = read.returned().unwrap_or_default().to_vec();
        report.add(read, Breach::Lost { write: write.id, returned });
    }
}

/// Whether the read is one that must see what was acknowledged.
pub(super) fn is_fresh(key: &Key<'_>, read: &Operation) -> bool {
    key.register.mode() == Mode::Strict && read.request.level >= Level::Quorum
}

#[cfg(test)]
mod tests {
    use crate::check::Rules;
    use crate::story::{found, found_by};

    const RIGHT: [&str; 0] = [];

    #[test]
    fn the_last_acknowledged_value_or_a_later_one_is_right() {
        let story = "
            1 put a 0-10 ok
            2 get 20-30 =a
            1 put b 40-50 ok
            2 get 15-60 =a
            3 get 15-60 =b
            2 get 70-80 =b";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn beside_a_write_either_side_of_it_or_both_may_show() {
        let story = "
            1 put a 0-10 ok
            1 put b 20-100 ok
            2 get 30-40 =a
            2 get 50-60 =b
            2 get 70-80 =a
            2 get 81-90 =a,b";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn two_writes_beside_each_other_may_replace_each_other_or_stay_both() {
        for answer in ["a", "b", "a,b"] {
            let story = format!("1 put a 0-20 ok\n2 put b 10-30 ok\n3 get 40-50 ={answer}");
            assert_eq!(found(&story), RIGHT, "{answer}");
        }
    }

    #[test]
    fn a_write_in_doubt_may_show_or_not_for_ever() {
        let story = "
            1 put a 0-10 ok
            1 put b 20-30 doubt
            2 get 40-50 =a
            2 get 60-70 =b
            1 put c 80-90 ok
            2 get 100-110 =c
            2 get 120-130 =b,c";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn planted_a_lost_write_is_found() {
        assert!(found("1 put a 0-10 ok\n2 get 20-30 =")[1].contains("the read returned []"));
        let found = found("1 put a 0-10 ok\n1 put b 20-30 ok\n2 get 40-50 =a");
        assert!(found.iter().any(|one| one.contains("write 1 was acknowledged, but")), "{found:?}");
    }

    #[test]
    fn planted_a_write_in_doubt_excuses_a_lost_one_only_while_it_may_still_overwrite() {
        let story = "1 put a 0-10 doubt\n1 put b 20-30 ok\n2 get 40-50 =a";
        assert_eq!(found_by(story, Rules { grace: 10, ..Rules::default() }), RIGHT);
        assert!(found_by(story, Rules { grace: 9, ..Rules::default() })[0].contains("write 1"));
    }

    #[test]
    fn planted_a_write_that_began_before_the_lost_one_is_no_excuse_unless_it_went_on() {
        let story = |end| format!("1 put a 0-{end} ok\n2 put b 20-30 ok\n3 get 40-50 =a");
        assert_eq!(found(&story(20)), RIGHT);
        assert!(!found(&story(19)).is_empty());
    }

    #[test]
    fn planted_a_replaced_value_that_comes_back_is_found() {
        let found = found("1 put a 0-10 ok\n1 put b 20-30 ok\n2 get 40-50 =a,b");
        assert_eq!(found, ["k, operation 2: \"a\" came back after write 1 had replaced it"]);
    }

    #[test]
    fn siblings_stay_until_a_context_has_seen_them() {
        let story = "
            9 get 0-1 =
            1 put a 10-20 ok after:0
            2 put b 10-20 ok after:0
            3 get 30-40 =a,b
            3 put c 50-60 ok after:3
            1 put d 50-60 ok after:1
            4 get 70-80 =c,d";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn planted_a_sibling_that_no_context_has_seen_is_missed() {
        let story = "
            9 get 0-1 =
            1 put a 10-20 ok after:0
            2 put b 10-20 ok after:0
            3 get 30-40 =a,b
            3 put c 50-60 ok after:1
            4 get 70-80 =c";
        let found = found(story);
        assert!(found.iter().any(|one| one.contains("write 2 was acknowledged, but")), "{found:?}");
    }

    #[test]
    fn planted_a_value_that_an_acknowledged_context_had_seen_comes_back() {
        // Nobody acknowledged the first one; but it was seen, and what saw it was acknowledged.
        let story = "
            1 put a 0-10 doubt
            2 get 20-30 =a
            2 put b 40-50 ok after:1
            3 get 60-70 =a,b";
        let found = found(story);
        assert!(found[0].contains("\"a\" came back after write 2"), "{found:?}");
    }

    #[test]
    fn a_context_of_a_write_covers_what_that_write_replaced() {
        let story = "
            1 put a 0-10 ok
            1 put b 20-30 ok
            1 put c 40-50 ok after:1
            2 get 60-70 =c";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn reads_and_writes_at_one_promise_nothing_about_freshness() {
        let story = "
            1 put a 0-10 ok one
            2 get 20-30 =
            1 put b 40-50 ok
            2 get 60-70 =a one";
        assert_eq!(found(story), RIGHT);
    }
}
