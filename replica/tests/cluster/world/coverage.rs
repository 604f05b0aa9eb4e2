//! What happened in a run, so that the test knows it met the dangers it is there for.

use triad_replica::configuration::{Configuration, same_set};
use triad_replica::message::PullPurpose;
use triad_replica::refusal::Refusal;

macro_rules! coverage {
    ($($field:ident),*; with deletes: $($late:ident),* $(,)?) => {
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Coverage {
            $(pub(crate) $field: u64,)*
            $(pub(crate) $late: u64,)*
        }

        impl Coverage {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
                $(self.$late += other.$late;)*
            }

            pub(crate) fn assert_everything_happened(&self) {
                $(assert!(self.$field > 0, "{} never happened", stringify!($field));)*
            }

            pub(crate) fn assert_collection_happened(&self) {
                $(assert!(self.$late > 0, "{} never happened", stringify!($late));)*
            }
        }
    };
}

coverage! {
    joint, forward, gave_up, same_again,
    settled, not_started, undecided, took_over,
    skipped, returned, crashes, purged, pushed,
    learned, merged, caught_up,
    stale, learner, not_merged, not_member,
    acknowledged, reads;
    with deletes: deleted, record_reads, vouched, collected, discarded,
    in_doubt, read_again, collected_stamps,
}

impl Coverage {
    pub(crate) fn decided(&mut self, base: &Configuration, value: &Configuration) {
        self.collected += u64::from(value.collected.is_some());
        let counter = match (base.is_joint(), value.is_joint()) {
            (_, true) => &mut self.joint,
            (false, false) => &mut self.same_again,
            (true, false) if same_set(base.new_set(), value.new_set()) => &mut self.forward,
            (true, false) => &mut self.gave_up,
        };
        *counter += 1;
    }

    pub(crate) fn completed(&mut self, purpose: PullPurpose) {
        match purpose {
            PullPurpose::Learn => self.learned += 1,
            PullPurpose::Merge => self.merged += 1,
            PullPurpose::CatchUp => self.caught_up += 1,
            PullPurpose::Drain | PullPurpose::AntiEntropy => {}
        }
    }

    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::StaleEpoch { .. } => self.stale += 1,
            Refusal::NotMember { .. } => self.not_member += 1,
            Refusal::Learner => self.learner += 1,
            Refusal::NotMerged => self.not_merged += 1,
            // What it held in an earlier tenure is still being deleted.
            Refusal::Overloaded => {}
            other => panic!("a shard never refuses so: {other}"),
        }
    }
}
