//! What was deleted stays deleted.
//!
//! In strict buckets no read at QUORUM returns what a delete had taken away before it began. Once the cluster is at
//! rest no read at all does, at no level and in no mode: then no replica is left that could bring it back.

use super::regular::is_fresh;
use super::{Breach, Key, Report};
use crate::operation::Operation;
use crate::register::By;

pub(super) fn check(key: &Key<'_>, report: &mut Report) {
    for read in key.reads() {
        check_read(key, read, report);
    }
}

pub(super) fn check_read(key: &Key<'_>, read: &Operation, report: &mut Report) {
    if !is_fresh(key, read) && !key.is_at_rest(read) {
        return;
    }
    let register = &key.register;
    for place in register.shown(read) {
        if let Some(by) = register.replaced(place, read.start, By::Delete) {
            let value = register.writes()[place].value().unwrap_or_default().to_owned();
            report.add(read, Breach::Resurrected { value, deleted_by: register.writes()[by].id });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::story::found;

    const RIGHT: [&str; 0] = [];

    #[test]
    fn a_deleted_key_may_be_absent_or_put_again() {
        let story = "
            1 put a 0-10 ok
            1 delete 20-30 ok
            2 get 40-50 =
            1 put b 60-70 ok
            2 get 55-80 =
            2 get 90-100 =b";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn a_delete_under_way_or_in_doubt_may_show_or_not() {
        let story = "
            1 put a 0-10 ok
            1 delete 20-100 doubt
            2 get 30-40 =a
            2 get 50-60 =
            2 get 110-120 =a
            2 get 130-140 =";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn a_put_in_doubt_may_show_after_a_delete() {
        let story = "1 put a 0-10 doubt\n1 delete 20-30 ok\n2 get 40-50 =a";
        assert_eq!(found(story), RIGHT);
    }

    #[test]
    fn planted_a_deleted_value_that_comes_back_is_found() {
        let story = "1 put a 0-10 ok\n1 delete 20-30 ok\n2 get 40-50 =a";
        assert_eq!(found(story), ["k, operation 2: \"a\" came back after delete 1"]);
        // Nor does a later write excuse it.
        let story = "1 put a 0-10 ok\n1 delete 20-30 ok\n1 put b 40-50 doubt\n2 get 60-70 =a,b";
        assert_eq!(found(story), ["k, operation 3: \"a\" came back after delete 1"]);
    }

    #[test]
    fn planted_what_a_context_deleted_comes_back() {
        let story = "
            1 put a 0-10 doubt
            2 get 20-30 =a
            2 delete 40-50 ok after:1
            2 get 60-70 =a";
        assert_eq!(found(story), ["k, operation 3: \"a\" came back after delete 2"]);
    }

    #[test]
    fn planted_at_rest_no_level_and_no_mode_brings_anything_back() {
        for bucket in ["", "any"] {
            let story = |rest| {
                format!(
                    "1 put a 0-10 ok {bucket}
                    1 delete 20-30 ok after:0 {bucket}
                    2 get 50-60 =a one {bucket}
                    rest {rest}"
                )
            };
            assert_eq!(found(&story(51)), RIGHT);
            assert!(found(&story(50))[0].contains("came back after delete 1"));
        }
    }

    #[test]
    fn planted_a_refused_delete_that_took_effect_and_a_write_lost_after_a_delete_are_found() {
        let refused = "1 put a 0-10 ok\n1 delete 20-30 refused\n2 get 40-50 =";
        assert!(found(refused).iter().any(|one| one.contains("write 0 was acknowledged, but")));
        let lost = "1 put a 0-10 ok\n1 delete 20-30 ok\n1 put b 40-50 ok\n2 get 60-70 =";
        assert!(found(lost).iter().any(|one| one.contains("write 2 was acknowledged, but")));
    }
}
