//! The acknowledged set: in the end everything is there that was acknowledged and not touched again, and nothing that
//! was never written.
//!
//! It needs no theory of what replaces what, so it judges every mode: each value that a read returns must have been
//! written, once; and each acknowledged put that no other write can have replaced must be in every *last read*: one at
//! QUORUM that began when the cluster was at rest, or, where nobody waited for that, in a strict bucket after all
//! writes of the key had ended. A write in doubt may be there or not.

use super::{Breach, Key, Report};
use crate::operation::{Level, Mode, Operation};
use crate::register::{Place, is_promised};

pub(super) fn check(key: &Key<'_>, report: &mut Report) {
    for read in key.reads() {
        check_values(key, read, report);
    }
    let expected = expected(key);
    if expected.is_empty() {
        return;
    }
    let mut is_read = false;
    for read in key.reads().filter(|read| is_last(key, read)) {
        is_read = true;
        let shown = key.register.shown(read);
        for place in expected.iter().filter(|place| !shown.contains(place)) {
            report.add(read, Breach::Missing(key.register.writes()[*place].id));
        }
    }
    report.unread += usize::from(!is_read);
}

/// Each value was written, and is there once.
pub(super) fn check_values(key: &Key<'_>, read: &Operation, report: &mut Report) {
    let values = read.returned().unwrap_or_default();
    for (index, value) in values.iter().enumerate() {
        if key.register.writer(value, read).is_none() {
            report.add(read, Breach::Phantom(value.clone()));
        } else if values[..index].contains(value) {
            report.add(read, Breach::Twice(value.clone()));
        }
    }
}

/// The puts that nothing can have replaced.
fn expected(key: &Key<'_>) -> Vec<Place> {
    let writes = key.register.writes();
    let settled = |place: &Place| {
        let write = writes[*place];
        is_promised(write) && write.value().is_some() && !key.register.is_disputed(*place)
    };
    (0..writes.len()).filter(settled).collect()
}

fn is_last(key: &Key<'_>, read: &Operation) -> bool {
    let ended = |one: &&Operation| one.ended_before(read.start) || !one.may_have_written();
    let over = key.register.writes().iter().all(ended);
    let strict = key.register.mode() != Mode::Available;
    let quiet = if key.rest.is_some() { key.is_at_rest(read) } else { strict };
    read.request.level >= Level::Quorum && over && quiet
}

#[cfg(test)]
mod tests {
    use crate::check::{Rules, check};
    use crate::story::{found, told};

    #[test]
    fn what_was_acknowledged_or_is_in_doubt_may_be_in_the_last_read() {
        let right = "
            1 put a 0-10 ok after:3
            1 put b 20-30 doubt after:3
            1 put c 40- after:3
            2 get 0-0 =
            2 get 50-60 =a,c
            2 get 70-80 =a,b,c";
        assert_eq!(found(right), [""; 0]);
    }

    #[test]
    fn planted_a_missing_value_is_found_in_every_mode() {
        for bucket in ["", "any", "lin"] {
            let story = format!(
                "1 put a 0-10 ok {bucket}
                2 get 40-50 = {bucket}
                rest 30"
            );
            let found = found(&story);
            assert!(found[0].contains("write 0 was acknowledged and never replaced"), "{found:?}");
        }
    }

    #[test]
    fn an_available_bucket_may_miss_something_until_it_is_at_rest() {
        let right = "
            1 put a 0-10 ok any
            2 get 20-30 = any
            rest 40
            2 get 50-60 =a any";
        assert_eq!(found(right), [""; 0]);
    }

    #[test]
    fn planted_values_from_nowhere_are_found() {
        let wrong = "
            1 put a 0-10 refused
            1 put b 100-110 ok
            2 get 20-30 =a one
            2 get 20-30 =b one
            2 get 20-30 =c one any";
        let expected =
            ["k, operation 2: \"a\"", "k, operation 3: \"b\"", "any.b/k, operation 4: \"c\""];
        for (found, start) in found(wrong).iter().zip(expected) {
            assert_eq!(*found, format!("{start} was never written"));
        }
        assert_eq!(found(wrong).len(), 3);
    }

    #[test]
    fn planted_a_value_that_is_there_twice_is_found() {
        let found = found("1 put a 0-10 ok\n2 get 20-30 =a,a");
        assert_eq!(found, ["k, operation 1: \"a\" twice in one answer"]);
    }

    #[test]
    fn a_key_that_nobody_read_in_the_end_is_counted() {
        let story = "1 put a 0-10 ok\n2 get 5-20 =\n1 put b 30-40 ok after:0\n2 get 50-60 =b one";
        let report = check(&told(story), &Rules::default()).unwrap();
        assert_eq!((report.unread, report.keys, report.reads), (1, 1, 2));
    }
}
