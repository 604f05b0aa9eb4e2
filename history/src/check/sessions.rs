//! The session guarantees (Terry et al., *Session Guarantees for Weakly Consistent Replicated Data*, PDIS 1994), for
//! clients that ask at QUORUM and write with the contexts that they were given.
//!
//! - *Read your writes*: a client reads what it has written itself, or what may have replaced it.
//! - *Monotonic reads*: it reads again what it has read, or what may have replaced it. A regular register promises
//!   that of acknowledged writes only ([`Rules::monotonic_reads`] demands it of all).
//! - *Monotonic writes* and *writes follow reads*: no value stands beside one whose writer had seen it. That is true
//!   of every single record, so it is demanded of reads at every level and in every mode.

use std::collections::BTreeMap;

use super::regular::is_fresh;
use super::{Breach, Key, Report, Rules};
use crate::operation::{Mode, Operation};
use crate::register::is_promised;

pub(super) fn check(key: &Key<'_>, rules: &Rules, report: &mut Report) {
    if key.register.mode() == Mode::Linearizable {
        return;
    }
    let mut sessions: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
    for operation in key.operations {
        sessions.entry(operation.request.client).or_default().push(operation);
    }
    for session in sessions.values() {
        check_session(key, session, rules, report);
    }
    for read in key.reads() {
        check_order(key, read, report);
    }
}

/// What a client knows of a key: its last acknowledged write, its last read.
#[derive(Default)]
struct Known<'a> {
    write: Option<&'a Operation>,
    read: Option<&'a Operation>,
}

fn check_session(key: &Key<'_>, session: &[&Operation], rules: &Rules, report: &mut Report) {
    for (index, read) in session.iter().enumerate() {
        if read.returned().is_none() || !is_fresh(key, read) {
            continue;
        }
        let known = known(key, &session[..index], read);
        if known.write.is_none() && known.read.is_none() {
            continue;
        }
        let accounted = key.register.accounted(read);
        let is_there = |id| {
            let writes = key.register.writes().iter();
            writes.zip(&accounted).any(|(write, there)| write.id == id && *there)
        };
        if let Some(write) = known.write.filter(|write| !is_there(write.id)) {
            report.add(read, Breach::OwnWriteUnread(write.id));
        }
        let Some(earlier) = known.read else { continue };
        for place in key.register.shown(earlier) {
            let write = key.register.writes()[place];
            let due = is_promised(write) && write.ended_before(read.start);
            if (due || rules.monotonic_reads) && !accounted[place] {
                let value = write.value().unwrap_or_default().to_owned();
                report.add(read, Breach::WentBack { earlier: earlier.id, value });
            }
        }
    }
}

/// The last of what had ended in the session when the read began. What a client knew before is in it, or replaced.
fn known<'a>(key: &Key<'_>, before: &[&'a Operation], read: &Operation) -> Known<'a> {
    let mut known = Known::default();
    for one in before.iter().rev().filter(|one| one.ended_before(read.start)) {
        if known.write.is_none() && is_promised(one) {
            known.write = Some(one);
        }
        if known.read.is_none() && one.returned().is_some() && is_fresh(key, one) {
            known.read = Some(one);
        }
    }
    known
}

/// No value that was returned was seen by the writer of another one.
pub(super) fn check_order(key: &Key<'_>, read: &Operation, report: &mut Report) {
    let register = &key.register;
    let shown = register.shown(read);
    for successor in &shown {
        let mut open = register.named(*successor).to_vec();
        let mut visited = vec![false; register.writes().len()];
        while let Some(place) = open.pop() {
            if std::mem::replace(&mut visited[place], true) {
                continue;
            }
            open.extend(register.named(place));
            if shown.contains(&place) && place != *successor {
                let text =
                    |place: usize| register.writes()[place].value().unwrap_or_default().to_owned();
                let (value, successor) = (text(place), text(*successor));
                report.add(read, Breach::BesideItsSuccessor { value, successor });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::Rules;
    use crate::story::{found, found_by};

    const RIGHT: [&str; 0] = [];

    #[test]
    fn a_client_reads_its_own_writes_or_what_replaced_them() {
        let story = "
            1 put a 0-10 ok
            1 get 20-30 =a
            2 put b 35-70 ok
            1 get 40-50 =b
            1 put c 60-70 ok
            1 get 80-90 =c";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn planted_a_client_that_does_not_read_its_own_write_is_found() {
        let found = found("1 put a 0-10 ok\n1 put b 20-30 ok\n1 get 40-50 =a");
        let told = "a client that had written 1 does not read it";
        assert!(found.iter().any(|one| one.contains(told)), "{found:?}");
    }

    #[test]
    fn planted_a_client_that_goes_back_is_found() {
        let story = "
            1 put a 0-10 ok
            2 put b 20-200 doubt
            3 get 30-40 =b
            3 get 50-60 =a
            2 put c 300-310 ok
            3 get 320-330 =c
            3 get 340-350 =a";
        let expected = "a client that had read \"b\" in 2";
        let regular = found(story);
        assert!(!regular.iter().any(|one| one.contains(expected)), "{regular:?}");
        assert!(regular.iter().any(|one| one.contains("had read \"c\" in 5")), "{regular:?}");
        let monotonic = found_by(story, Rules { monotonic_reads: true, ..Rules::default() });
        assert!(monotonic.iter().any(|one| one.contains(expected)), "{monotonic:?}");
    }

    #[test]
    fn planted_writes_of_one_client_that_changed_their_order_are_found_at_every_level() {
        let story = "
            1 put a 0-10 ok
            1 put b 20-30 doubt after:0
            2 get 40-50 =a,b one any
            1 put a 0-10 ok any
            1 put b 20-30 doubt after:3 any";
        assert_eq!(
            found(story),
            ["any.b/k, operation 2: \"a\" beside \"b\", whose writer had seen it"]
        );
    }

    #[test]
    fn planted_a_write_beside_what_its_writer_had_read_is_found_also_through_others() {
        let story = "
            1 put a 0-10 doubt
            2 get 20-30 =a
            2 put b 40-50 doubt after:1
            3 get 60-70 =b
            3 put c 80-90 doubt after:3
            4 get 100-110 =a,c one";
        assert_eq!(found(story), ["k, operation 5: \"a\" beside \"c\", whose writer had seen it"]);
    }
}
