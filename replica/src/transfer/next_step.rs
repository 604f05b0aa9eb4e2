//! What a move does next, as a function of what is decided and what is reported.

use std::collections::BTreeMap;

use triad_ring::mutant::{Mutant, left_out};

use crate::configuration::{Configuration, MAX_RETIRED, Phase, majority, same_set};
use crate::member::Member;
use crate::message::{Removal, Report};

/// A newcomer whose copy differs in no more hash-tree leaves than this (of 256) is ready.
pub const SMALL_DIFFERENCE: u32 = 16;

/// What a move is to reach.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Plan {
    /// M': who shall hold the shard, in ring order.
    pub members: Vec<Member>,
    /// Why each member of M that is not in M' goes.
    pub removals: Vec<Removal>,
    /// Retired members that will never hand anything over: their store is lost, or their node
    /// was down for `down_after`. They are not waited for.
    pub written_off: Vec<Member>,
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Nothing yet: ask on.
    Wait,
    /// Have this decided.
    Propose(Configuration),
    /// The shard is where the plan wants it.
    Settled,
    /// Nothing was changed, and nothing shall be.
    Abandon(NotStarted),
}

/// Why a move was not begun.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum NotStarted {
    /// A newcomer did not get its copy near enough in time.
    #[error("a newcomer could not copy the shard in time")]
    NewcomersBehind,
    /// An acceptor sees a member alive that was to be removed as down.
    #[error("node {} was to be removed as down, but an acceptor sees it alive", .0.node)]
    RemovalRefused(Member),
    /// Before anything was proposed, the members turned out to be the right ones.
    #[error("the members are the right ones again")]
    Unwanted,
    /// Too many former members still have to hand over what they hold.
    #[error("too many former members have not handed over what they hold")]
    TooManyRetired,
    /// The plan breaks a rule of configurations, or the next epoch is no legal successor.
    #[error("the plan is not a legal configuration")]
    BadPlan,
}

/// The next step of a move.
///
/// - Stable, with a plan: once every newcomer's copy is nearly complete, decide Joint.
/// - Stable, with a plan that changes no member: once the former members have handed over, or
///   the patience is over and some have, decide the same members without them.
/// - Stable, without one (somebody died in the middle of a decision): decide the same members
///   again, which is always allowed and needs no transfer.
/// - Joint: once all of M' declared themselves merged, or a majority and the patience is
///   over, go forward. Without a majority and without patience, give up: that needs nobody
///   but M, so dead newcomers never freeze a shard.
///
/// The declarations are durable, so evidence once seen stays true.
pub fn next_step(
    base: &Configuration,
    plan: Option<&Plan>,
    reports: &BTreeMap<Member, Report>,
    patience_over: bool,
) -> Step {
    match &base.phase {
        Phase::Stable { members } => match plan {
            None => Step::Propose(follow(base, members, None, reports)),
            Some(plan) if same_set(&plan.members, members) => {
                step_to_clear(base, members, plan, reports, patience_over)
            }
            Some(plan) => step_to_joint(base, members, plan, reports, patience_over),
        },
        Phase::Joint { old, new } => {
            let stays =
                |member: &Member| left_out(Mutant::StayingNeedsNoMerge) && old.contains(member);
            let declared = |member: &&Member| has_declared(base, reports, member) || stays(member);
            let merged = new.iter().filter(declared).count();
            let needed = match majority(new.len()) {
                _ if left_out(Mutant::ForwardByOneDeclaration) => 1,
                needed => needed,
            };
            let enough = merged == new.len() || (patience_over && merged >= needed);
            match (enough, patience_over) {
                (true, _) => Step::Propose(follow(base, new, plan, reports)),
                (false, true) => Step::Propose(follow(base, old, plan, reports)),
                (false, false) => Step::Wait,
            }
        }
    }
}

/// Whether this member declared itself merged, for this joint epoch and no other.
pub(super) fn has_declared(
    base: &Configuration,
    reports: &BTreeMap<Member, Report>,
    member: &Member,
) -> bool {
    let report = reports.get(member);
    report.is_some_and(|report| report.declared == Some(base.epoch))
}

/// Former members that are done with go from the list by a decision of their own: until then
/// no tombstone may be collected, and a list that is full lets no move begin.
fn step_to_clear(
    base: &Configuration,
    members: &[Member],
    plan: &Plan,
    reports: &BTreeMap<Member, Report>,
    patience_over: bool,
) -> Step {
    let cleared = follow(base, members, Some(plan), reports);
    let shorter = cleared.retired.len() < base.retired.len();
    match (cleared.retired.is_empty(), patience_over) {
        (true, _) | (false, true) if shorter => Step::Propose(cleared),
        (false, false) => Step::Wait,
        _ => Step::Settled,
    }
}

fn step_to_joint(
    base: &Configuration,
    old: &[Member],
    plan: &Plan,
    reports: &BTreeMap<Member, Report>,
    patience_over: bool,
) -> Step {
    let joint = Configuration {
        phase: Phase::Joint { old: old.to_vec(), new: plan.members.clone() },
        retired: retired_after(base, |member| plan.members.contains(member), Some(plan), reports),
        epoch: base.epoch.next(),
        collected: None,
        ..base.clone()
    };
    if joint.retired.len() + joint.members().len() > MAX_RETIRED {
        return Step::Abandon(NotStarted::TooManyRetired);
    }
    if !base.may_be_followed_by(&joint) || !all_removals_have_a_reason(old, plan) {
        return Step::Abandon(NotStarted::BadPlan);
    }
    let ready = |member: Member| {
        let difference = reports.get(&member).and_then(|report| report.difference);
        difference.is_some_and(|leaves| leaves <= SMALL_DIFFERENCE)
    };
    if joint.newcomers().all(ready) {
        Step::Propose(joint)
    } else if patience_over {
        Step::Abandon(NotStarted::NewcomersBehind)
    } else {
        Step::Wait
    }
}

fn all_removals_have_a_reason(old: &[Member], plan: &Plan) -> bool {
    let mut gone = old.iter().filter(|member| !plan.members.contains(member));
    gone.all(|member| plan.removals.iter().any(|removal| removal.member == *member))
}

/// The stable configuration of these members that follows `base`.
fn follow(
    base: &Configuration,
    members: &[Member],
    plan: Option<&Plan>,
    reports: &BTreeMap<Member, Report>,
) -> Configuration {
    Configuration {
        shard: base.shard,
        epoch: base.epoch.next(),
        phase: Phase::Stable { members: members.to_vec() },
        gc_epoch: base.gc_epoch,
        collected: None,
        retired: retired_after(base, |member| members.contains(member), plan, reports),
    }
}

/// Who is still to hand over: everyone who leaves now, and those who left before and are
/// neither empty, nor written off, nor back.
fn retired_after(
    base: &Configuration,
    stays: impl Fn(&Member) -> bool,
    plan: Option<&Plan>,
    reports: &BTreeMap<Member, Report>,
) -> Vec<Member> {
    let written_off = |member: &Member| plan.is_some_and(|plan| plan.written_off.contains(member));
    let empty = |member: &Member| {
        let report = reports.get(member);
        report.is_some_and(|report| !report.holds_data && report.entered >= Some(base.epoch))
    };
    let done = |member: &Member| stays(member) || written_off(member) || empty(member);
    let mut retired = base.retired.clone();
    retired.retain(|member| !done(member));
    if base.is_joint() {
        retired.extend(base.members().into_iter().filter(|member| !stays(member)));
    }
    retired
}
