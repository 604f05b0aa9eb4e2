//! Rules that can be left out on purpose, so that checkers can show that they would notice.
//!
//! Each [`Mutant`] leaves one safety rule out of the production code, where the rule is one readable
//! condition: `left_out(Mutant::X)`. Which one is active is a matter of the thread ([`with`]): the
//! threads of a model checker, and simulated seeds side by side, each have their own.
//!
//! All this exists only with the cargo feature `mutants`, which tests turn on by a dev-dependency.
//! Without it [`left_out`] is the constant `false`, and nothing is left of the branch.

macro_rules! mutants {
    ($($(#[doc = $rule:literal])+ $name:ident,)+) => {
        /// A rule that is left out: its number in the design, and what is done wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Mutant {
            $($(#[doc = $rule])+ $name,)+
        }

        impl Mutant {
            /// All of them; a checker must kill every one.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The rule and what is done wrong, as one line.
            pub const fn rule(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($rule),+).trim_ascii(),)+
                }
            }
        }
    };
}

mutants! {
    // The configurations of a shard, one epoch after the other.

    /// D1: a promise is not durable when it is answered.
    PromiseNotDurable,
    /// D1: an acceptance is not durable when it is answered.
    AcceptanceNotDurable,
    /// D1: a proposer proposes its own value, whatever was accepted before.
    IgnoresReported,
    /// D1: a proposer takes the lowest acceptance that is reported, not the highest.
    TakesLowestReported,
    /// D1: one promise is enough to propose.
    ProposesAfterOnePromise,
    /// D1: one acceptance is enough to be decided.
    DecidedByOne,
    /// D1: acceptances of different ballots are added up.
    CountsAnyBallot,
    /// D1: a ballot below the promised one is accepted.
    AcceptsBelowPromise,
    /// D1: a ballot is promised twice.
    PromisesTwice,
    /// D2: who accepted goes on serving.
    AcceptingDoesNotFence,
    /// D2: a higher promise ends the fence of an acceptance.
    HigherPromiseUnfences,
    /// D2: who only promised counts as a source that has left the epoch.
    PromiseMakesSource,
    /// D2: what is accepted is entered, decided or not.
    EntersAtAcceptance,
    /// D2: an older configuration replaces a newer one.
    OlderReplacesNewer,
    /// D2: any epoch is served, not exactly the own one.
    ServesAnyEpoch,
    /// D2: with its records a store forgets which epoch it had entered.
    PurgeForgetsEpoch,
    /// D3: a majority is half.
    HalfIsMajority,
    /// D3: in a joint epoch a write counts on the old side alone.
    JointWritesCountOldSide,
    /// D3: in a joint epoch a write counts on the new side alone.
    JointWritesCountNewSide,
    /// D4: a source may still serve the epoch that was left.
    MergesFromUnfenced,
    /// D4: a source needs to have left an older epoch only.
    MergesFromFencedLongAgo,
    /// D4: one source is enough to be merged.
    MergesFromOne,
    /// D4: those that stay need not merge.
    StayingNeedsNoMerge,
    /// D4: one declaration is enough to go forward.
    ForwardByOneDeclaration,
    /// D4: a declaration counts in later joint epochs.
    DeclarationOutlivesEpoch,
    /// D4: a former member purges without handing over.
    PurgesBeforeHandingOver,
    /// D8: newcomers of a joint epoch answer reads, and count.
    NewcomersAnswerReads,
    /// D8: only the coordinator's own record is shown.
    ReadsShowOwnRecord,

    // Records, their tombstones and their actors.

    // A request that is repeated.

    /// D11: nobody knows a request again.
    RepetitionsAreNew,
    /// D11: a dot goes with its twin, whatever value it replaced.
    TwinsGoWithWhatTheyReplaced,
    /// D11: a dot stays when its twin was deleted.
    TwinsStay,
    /// D11: an event is shown under each of its dots.
    TwinsAreShown,
    /// D5: the second attempt of an overwriting put is made though the first is replaced.
    SecondAttemptRevives,

    /// D5: a process that starts again mints under its old actor.
    ActorOutlivesStart,
    /// D5: a store that forgot what it minted goes on under its old actor.
    ActorOutlivesForgetting,
    /// D7: a majority's vouches are enough.
    MajorityVouches,
    /// D7: a store whose data epoch is below the gc epoch keeps its records.
    StaleStoreKeepsRecords,
    /// D7: a store's data epoch follows what it hears of.
    DataEpochFollowsHearsay,
    /// D7: tombstones are collected while former members may still hand over.
    CollectsWhileRetired,
    /// D7: records read in any epoch are merged in every other.
    StampedRecordsAlwaysMerge,
    /// D10: what is stamped with the gc epoch itself is merged.
    MergesStampOfGcEpoch,
    /// D7: a former member hands over what it read in any epoch, listed or not.
    TakesAnyHandOver,

    // The ring.

    /// R1: stabilizing copies the best successor and not its list.
    KeepsOneSuccessor,
    /// R1: joining copies the best successor of the one before and not the list.
    JoinsWithOneSuccessor,
    /// R1: a list reaches N + 2 entries, not so many nodes.
    ListsCountEntries,
    /// R1: who does not answer in time is taken for failed.
    SilenceIsFailure,
    /// R2: who joins enters without looking whether others have come between.
    EntersATakenPlace,
    /// R2: a successor's predecessor is adopted without being asked (Chord of 2001).
    AdoptsUnasked,
    /// R3: state queries are answered while an own query is outstanding.
    AnswersWhileAsking,
    /// R3: the answer to a question that was given up is taken for the next one's.
    TakesLateAnswers,
    /// R4: one declared failed stays in the lists.
    KeepsTheFailed,
    /// R4: what others still say of the failed is believed.
    BelievesHearsay,
    /// R4: who is shown by another is taken for back.
    HearsayBringsBack,
    /// R5: a preference list counts positions, not nodes.
    CountsPositions,
    /// R2: a successor is never told of the one before it.
    NeverNotifies,
}

#[cfg(feature = "mutants")]
mod active {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this rule is left out on this thread now.
    pub fn left_out(rule: Mutant) -> bool {
        ACTIVE.get() == Some(rule)
    }

    /// Runs `act` with a rule left out, or with none.
    pub fn with<T>(rule: Option<Mutant>, act: impl FnOnce() -> T) -> T {
        /// Puts back what was before, also when `act` panics.
        struct Before(Option<Mutant>);
        impl Drop for Before {
            fn drop(&mut self) {
                ACTIVE.set(self.0);
            }
        }
        let _before = Before(ACTIVE.replace(rule));
        act()
    }
}

#[cfg(not(feature = "mutants"))]
mod active {
    use super::Mutant;

    /// No rule is ever left out: the feature `mutants` is off.
    #[inline]
    pub const fn left_out(_: Mutant) -> bool {
        false
    }

    /// Runs `act`; no rule is ever left out.
    pub fn with<T>(_: Option<Mutant>, act: impl FnOnce() -> T) -> T {
        act()
    }
}

pub use active::{left_out, with};

/// Whether rules can be left out at all: whether the feature `mutants` is on.
pub const POSSIBLE: bool = cfg!(feature = "mutants");
