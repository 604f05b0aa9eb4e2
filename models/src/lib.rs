//! Model checking of the production crates `ring` and `replica`, and of the checkers themselves.
//!
//! The states of these models are the state machines that run in a node, driven as a node drives
//! them, with a network, crashes and clients around. [stateright](https://docs.rs/stateright) visits
//! every state within the bounds that each case names ([`Search::Exhaustive`]); what is too wide for
//! that is walked at random from numbered seeds, and says so ([`Search::Seeds`]).
//!
//! A checker that finds nothing proves little until it is seen to find something: each
//! [`Mutant`] leaves one safety rule out of the production code, and [`killers`] names the
//! cases that notice. `cargo xtask models` prints both tables, `--wide` the wider bounds too.

pub mod chain;
mod check;
pub mod deciding;
pub mod retries;
pub mod ring;
mod shared;

pub use check::{Outcome, Search, exhaust, walk};
use triad_ring::mutant::Mutant;

/// A model with its bounds.
#[derive(Clone, Copy)]
pub struct Case {
    /// Unique among all.
    pub name: &'static str,
    /// What is in it, and how much of it.
    pub bounds: &'static str,
    /// Too long for every day: run by `cargo xtask models --wide` alone.
    pub wide: bool,
    /// Runs it, with a rule left out or none.
    pub run: fn(Option<Mutant>) -> Outcome,
}

/// All cases of all models.
pub fn cases() -> Vec<Case> {
    [deciding::CASES, chain::CASES, retries::CASES, ring::CASES].concat()
}

/// The cases that must notice that a rule is left out: each of them alone does.
pub const fn killers(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::PromiseNotDurable
        | Mutant::AcceptanceNotDurable
        | Mutant::IgnoresReported
        | Mutant::ProposesAfterOnePromise
        | Mutant::DecidedByOne
        | Mutant::AcceptsBelowPromise => &["deciding: two ballots"],
        Mutant::PromisesTwice => &["deciding: a proposer restarts"],
        Mutant::TakesLowestReported => &["deciding: from the middle of a ballot"],
        Mutant::CountsAnyBallot => &["deciding: a late reply"],
        Mutant::AcceptingDoesNotFence
        | Mutant::HigherPromiseUnfences
        | Mutant::EntersAtAcceptance
        | Mutant::OlderReplacesNewer
        | Mutant::ServesAnyEpoch
        | Mutant::PurgeForgetsEpoch
        | Mutant::JointWritesCountOldSide
        | Mutant::JointWritesCountNewSide
        | Mutant::NewcomersAnswerReads => &["chain: one replaces the other"],
        Mutant::DeclarationOutlivesEpoch => &["chain: given up, then again"],
        Mutant::PromiseMakesSource
        | Mutant::MergesFromUnfenced
        | Mutant::MergesFromFencedLongAgo
        | Mutant::MergesFromOne
        | Mutant::StayingNeedsNoMerge
        | Mutant::ForwardByOneDeclaration => &["chain: one of three, forward"],
        Mutant::PurgesBeforeHandingOver => &["chain: one of three leaves"],
        Mutant::RepetitionsAreNew | Mutant::TwinsStay | Mutant::TwinsAreShown => {
            &["retries: deleted meanwhile"]
        }
        Mutant::TwinsGoWithWhatTheyReplaced | Mutant::SecondAttemptRevives => {
            &["retries: at random"]
        }
        Mutant::ActorOutlivesStart => &["records: a restart"],
        Mutant::ActorOutlivesForgetting => &["records: collected alone"],
        Mutant::HalfIsMajority
        | Mutant::ReadsShowOwnRecord
        | Mutant::MajorityVouches
        | Mutant::StampedRecordsAlwaysMerge
        | Mutant::MergesStampOfGcEpoch => &["records: late copies of what is collected"],
        Mutant::StaleStoreKeepsRecords
        | Mutant::DataEpochFollowsHearsay
        | Mutant::TakesAnyHandOver => &["records: who comes back"],
        Mutant::CollectsWhileRetired => &["records: who leaves"],
        Mutant::KeepsOneSuccessor
        | Mutant::AdoptsUnasked
        | Mutant::KeepsTheFailed
        | Mutant::BelievesHearsay
        | Mutant::HearsayBringsBack => &["ring: a death"],
        Mutant::JoinsWithOneSuccessor | Mutant::AnswersWhileAsking | Mutant::NeverNotifies => {
            &["ring: a join"]
        }
        Mutant::EntersATakenPlace => &["ring: two joins"],
        Mutant::SilenceIsFailure => &["ring: lost and late answers"],
        Mutant::ListsCountEntries | Mutant::CountsPositions | Mutant::TakesLateAnswers => {
            &["ring: turmoil"]
        }
    }
}
