use triad_ring::ShardId;

use super::*;
use crate::configuration::{Epoch, Phase};
use crate::member::StoreId;
use crate::message::RemovalReason;
use crate::paxos::Ballot;

fn member(name: u8) -> Member {
    Member { node: NodeId::from_bytes([name; 16]), store: StoreId::from_bytes([name; 16]) }
}

fn members(names: &[u8]) -> Vec<Member> {
    names.iter().copied().map(member).collect()
}

fn base() -> Configuration {
    Configuration {
        phase: Phase::Stable { members: members(&[1, 2, 3]) },
        ..Configuration::bootstrap(ShardId::new(1), member(1))
    }
}

/// From {1, 2, 3} to {1, 2, 4}.
fn plan() -> Plan {
    let (member, reason) = (member(3), RemovalReason::Displaced);
    let removals = vec![Removal { member, reason }];
    Plan { members: members(&[1, 2, 4]), removals, written_off: Vec::new() }
}

struct Script {
    moving: Move,
    now: Duration,
}

impl Script {
    fn start() -> Self {
        let timing = MoveTiming::default();
        let now = Duration::from_secs(100);
        Self { moving: Move::start(member(1).node, 7, base(), plan(), timing, now), now }
    }

    fn resume(base: Configuration) -> Self {
        let timing = MoveTiming::default();
        let now = Duration::from_secs(100);
        Self { moving: Move::take_over(member(2).node, 7, base, timing, now), now }
    }

    fn handle(&mut self, input: MoveInput) -> Vec<MoveOutput> {
        let mut out = Vec::new();
        self.moving.handle(input, Moment { now: self.now, jitter: 9 }, &mut out);
        out
    }

    fn tick(&mut self) -> Vec<MoveOutput> {
        self.now = self.now.max(self.moving.wake_at());
        self.handle(MoveInput::Tick)
    }

    fn wait(&mut self, time: Duration) -> Vec<MoveOutput> {
        self.now += time;
        self.handle(MoveInput::Tick)
    }

    fn reply(&mut self, from: u8, reply: ShardReply) -> Vec<MoveOutput> {
        let from = member(from);
        self.handle(MoveInput::Reply { from, reply })
    }

    /// Two promises and two acceptances of whatever is asked; returns what was decided.
    fn decide(&mut self, asked: &[MoveOutput]) -> Configuration {
        let ballot = asked.iter().find_map(ballot_of).expect("a ballot runs");
        self.reply(1, ShardReply::Promised { ballot, accepted: None });
        let asked = self.reply(2, ShardReply::Promised { ballot, accepted: None });
        let value = proposal(&asked).expect("phase 2 runs");
        self.reply(1, ShardReply::Accepted { ballot });
        self.reply(2, ShardReply::Accepted { ballot });
        value
    }
}

fn ballot_of(output: &MoveOutput) -> Option<Ballot> {
    match output {
        MoveOutput::Send { request: ShardRequest::Prepare { ballot, .. }, .. } => Some(*ballot),
        _ => None,
    }
}

fn proposal(outputs: &[MoveOutput]) -> Option<Configuration> {
    outputs.iter().find_map(|output| match output {
        MoveOutput::Send { request: ShardRequest::Accept { value, .. }, .. } => Some(value.clone()),
        _ => None,
    })
}

fn report(epoch: Epoch, declared: bool, difference: Option<u32>) -> ShardReply {
    ShardReply::Report(Report {
        entered: Some(epoch),
        fenced: false,
        declared: declared.then_some(epoch),
        merged: declared,
        difference,
        holds_data: true,
    })
}

fn asked_of(outputs: &[MoveOutput], wanted: fn(&ShardRequest) -> bool) -> Vec<Member> {
    let to = outputs.iter().filter_map(|output| match output {
        MoveOutput::Send { to, request } if wanted(request) => Some(*to),
        _ => None,
    });
    to.collect()
}

#[test]
fn a_move_copies_decides_joint_waits_for_the_declarations_and_goes_forward() {
    let mut script = Script::start();
    let asked = script.tick();
    let learns = |request: &ShardRequest| matches!(request, ShardRequest::StartLearning { .. });
    assert_eq!(asked_of(&asked, learns), members(&[4]));
    script.reply(4, report(Epoch::FIRST, false, Some(200)));
    assert!(script.tick().iter().all(|output| ballot_of(output).is_none()), "not near enough");
    let asked = script.reply(4, report(Epoch::FIRST, false, Some(3)));
    let joint = script.decide(&asked);
    assert_eq!(joint.phase, Phase::Joint { old: members(&[1, 2, 3]), new: members(&[1, 2, 4]) });
    assert_eq!(script.moving.configuration(), &joint);

    for name in [1, 4] {
        let asked = script.reply(name, report(joint.epoch, true, None));
        assert!(asked.is_empty(), "a majority, but there is still patience");
    }
    let asked = script.reply(2, report(joint.epoch, true, None));
    let last = script.decide(&asked);
    assert_eq!(last.phase, Phase::Stable { members: members(&[1, 2, 4]) });
    assert_eq!(last.retired, members(&[3]));
    for name in [1, 2, 3] {
        assert!(script.reply(name, ShardReply::Learned { epoch: last.epoch }).is_empty());
    }
    let finished = script.reply(4, ShardReply::Learned { epoch: last.epoch });
    assert_eq!(finished, vec![MoveOutput::Finished(Outcome::Settled(last))]);
}

fn joint() -> Configuration {
    let (old, new) = (members(&[1, 2, 3]), members(&[1, 4, 5]));
    Configuration { epoch: Epoch::FIRST.next(), phase: Phase::Joint { old, new }, ..base() }
}

#[test]
fn whoever_takes_over_a_joint_shard_gives_up_when_the_newcomers_are_dead() {
    let mut script = Script::resume(joint());
    script.tick();
    script.reply(1, report(joint().epoch, true, None));
    let asked = script.wait(MoveTiming::default().silence * 2);
    let last = script.decide(&asked);
    assert_eq!(last.phase, Phase::Stable { members: members(&[1, 2, 3]) });
    assert_eq!(last.retired, members(&[4, 5]), "they took writes in the joint epoch");
}

#[test]
fn a_merged_majority_goes_forward_without_the_silent_rest() {
    let mut script = Script::resume(joint());
    script.tick();
    script.reply(1, report(joint().epoch, true, None));
    script.reply(4, report(joint().epoch, true, None));
    let asked = script.wait(MoveTiming::default().silence * 2);
    let last = script.decide(&asked);
    assert_eq!(last.phase, Phase::Stable { members: members(&[1, 4, 5]) });
}

#[test]
fn a_declaration_for_another_epoch_is_none() {
    let mut script = Script::resume(joint());
    script.tick();
    for name in [1, 4, 5] {
        let stale = Report {
            entered: Some(joint().epoch),
            fenced: false,
            declared: Some(Epoch::FIRST),
            merged: true,
            difference: None,
            holds_data: true,
        };
        assert!(script.reply(name, ShardReply::Report(stale)).is_empty());
    }
}

#[test]
fn an_undecided_shard_gets_what_phase_one_obliges_or_the_same_members_again() {
    let mut script = Script::resume(base());
    let asked = script.tick();
    let again = script.decide(&asked);
    assert_eq!(again, Configuration { epoch: Epoch::FIRST.next(), ..base() });

    let mut script = Script::resume(base());
    let ballot = script.tick().iter().find_map(ballot_of).unwrap();
    let earlier = Ballot { counter: 1, node: member(3).node };
    let accepted = Some((earlier, joint()));
    script.reply(1, ShardReply::Promised { ballot, accepted: None });
    let asked = script.reply(3, ShardReply::Promised { ballot, accepted });
    assert_eq!(proposal(&asked), Some(joint()));
}

#[test]
fn an_outbid_proposer_waits_and_goes_higher() {
    let mut script = Script::resume(base());
    let first = script.tick().iter().find_map(ballot_of).unwrap();
    let promised = Ballot { counter: first.counter * 5, node: member(3).node };
    assert!(script.reply(2, ShardReply::Rejected { promised }).is_empty());
    assert!(script.moving.wake_at() > script.now, "it backs off");
    let second = script.tick().iter().find_map(ballot_of).unwrap();
    assert!(second > promised);
}

/// A simulation stood still here: the next tick was due at once, again and again.
#[test]
fn one_outbid_by_a_minority_goes_on_when_a_majority_promises() {
    let mut script = Script::resume(base());
    let ballot = script.tick().iter().find_map(ballot_of).unwrap();
    let promised = Ballot { counter: ballot.counter * 5, node: member(3).node };
    script.reply(2, ShardReply::Rejected { promised });
    script.reply(1, ShardReply::Promised { ballot, accepted: None });
    let asked = script.reply(3, ShardReply::Promised { ballot, accepted: None });
    assert!(proposal(&asked).is_some());
    for _ in 0..20 {
        script.tick();
        assert!(script.moving.wake_at() > script.now, "each tick is later than the one before");
    }
}

#[test]
fn nothing_is_begun_with_a_dead_newcomer_or_a_living_member_called_down() {
    let mut script = Script::start();
    script.tick();
    let out = script.wait(MoveTiming::default().silence * 2);
    let why = NotStarted::NewcomersBehind;
    assert_eq!(out, vec![MoveOutput::Finished(Outcome::NotStarted(why))]);

    let mut script = Script::start();
    script.tick();
    script.reply(4, report(Epoch::FIRST, false, Some(0)));
    let out = script.reply(2, ShardReply::RemovalRefused { member: member(3) });
    let why = NotStarted::RemovalRefused(member(3));
    assert_eq!(out, vec![MoveOutput::Finished(Outcome::NotStarted(why))]);
}

#[test]
fn without_a_majority_it_ends_undecided() {
    let mut script = Script::resume(base());
    script.tick();
    let out = script.wait(MoveTiming::default().decide);
    assert_eq!(out, vec![MoveOutput::Finished(Outcome::Undecided(base()))]);
}

#[test]
fn a_plan_without_a_reason_for_each_removal_is_no_plan() {
    let plan = Plan { removals: Vec::new(), ..plan() };
    let step = next_step(&base(), Some(&plan), &BTreeMap::new(), false);
    assert_eq!(step, Step::Abandon(NotStarted::BadPlan));
}

#[test]
fn a_late_answer_of_the_first_decision_counts_for_nothing_in_the_second() {
    let mut script = Script::start();
    script.tick();
    let asked = script.reply(4, report(base().epoch, false, Some(0)));
    let first = asked.iter().find_map(ballot_of).expect("a ballot for Joint");
    let joint = script.decide(&asked);
    let mut asked = Vec::new();
    for name in [1, 2, 4] {
        asked = script.reply(name, report(joint.epoch, true, None));
    }
    let second = asked.iter().find_map(ballot_of).expect("a ballot for the final epoch");
    assert!(second > first, "no ballot serves two decisions");
    script.reply(1, ShardReply::Promised { ballot: second, accepted: None });
    script.reply(2, ShardReply::Promised { ballot: second, accepted: None });
    script.reply(1, ShardReply::Accepted { ballot: second });
    // C's acceptance of Joint, which was slow.
    script.reply(3, ShardReply::Accepted { ballot: first });
    assert_eq!(script.moving.configuration(), &joint, "one acceptance decides nothing");
    script.reply(2, ShardReply::Accepted { ballot: second });
    assert!(!script.moving.configuration().is_joint());
}

/// {1, 2, 3}, with 4 and 5 on the list of former members.
fn with_retired() -> Configuration {
    Configuration { retired: members(&[4, 5]), ..base() }
}

fn clearing(written_off: &[u8]) -> Script {
    let plan = Plan {
        members: members(&[1, 2, 3]),
        removals: Vec::new(),
        written_off: members(written_off),
    };
    let (timing, now) = (MoveTiming::default(), Duration::from_secs(100));
    let moving = Move::start(member(1).node, 7, with_retired(), plan, timing, now);
    Script { moving, now }
}

fn empty() -> ShardReply {
    ShardReply::Report(Report {
        entered: Some(Epoch::FIRST),
        fenced: false,
        declared: None,
        merged: false,
        difference: None,
        holds_data: false,
    })
}

#[test]
fn former_members_that_have_handed_over_go_from_the_list_by_a_decision_of_the_same_members() {
    let mut script = clearing(&[]);
    script.tick();
    script.reply(4, empty());
    let asked = script.reply(5, empty());
    let cleared = script.decide(&asked);
    assert_eq!(cleared, Configuration { epoch: Epoch::FIRST.next(), ..base() });
}

#[test]
fn a_former_member_that_never_will_hand_over_is_written_off() {
    let mut script = clearing(&[5]);
    script.tick();
    let asked = script.reply(4, empty());
    assert_eq!(script.decide(&asked).retired, []);
}

#[test]
fn one_that_still_holds_something_stays_listed_and_alone_is_no_reason_to_decide() {
    let mut script = clearing(&[]);
    script.tick();
    script.reply(4, empty());
    script.reply(5, report(Epoch::FIRST, false, None));
    let asked = script.wait(MoveTiming::default().clear);
    assert_eq!(script.decide(&asked).retired, members(&[5]));

    let mut script = clearing(&[]);
    script.tick();
    script.reply(5, report(Epoch::FIRST, false, None));
    let out = script.wait(MoveTiming::default().clear);
    assert_eq!(out, vec![MoveOutput::Finished(Outcome::Settled(with_retired()))]);
}

#[test]
fn a_move_that_is_not_wanted_any_more_ends_before_anything_is_proposed_and_not_after() {
    let mut waits = Script::start();
    waits.tick();
    waits.reply(4, report(Epoch::FIRST, false, Some(200)));
    let ended = vec![MoveOutput::Finished(Outcome::NotStarted(NotStarted::Unwanted))];
    assert_eq!(waits.handle(MoveInput::Unwanted), ended);
    assert_eq!(waits.reply(4, report(Epoch::FIRST, false, Some(3))), Vec::new());

    let mut goes_on = Script::start();
    goes_on.tick();
    let asked = goes_on.reply(4, report(Epoch::FIRST, false, Some(3)));
    assert_eq!(goes_on.handle(MoveInput::Unwanted), Vec::new(), "a ballot runs");
    let joint = goes_on.decide(&asked);
    assert_eq!(goes_on.handle(MoveInput::Unwanted), Vec::new(), "members wait for each other");
    goes_on.reply(1, report(joint.epoch, true, None));
    goes_on.reply(2, report(joint.epoch, true, None));
    let asked = goes_on.reply(4, report(joint.epoch, true, None));
    let last = goes_on.decide(&asked);
    assert_eq!(last.phase, Phase::Stable { members: members(&[1, 2, 4]) });
}
