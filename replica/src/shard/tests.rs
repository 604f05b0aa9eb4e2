use triad_ring::NodeId;

use super::*;
use crate::gc::GcDigest;
use crate::member::StoreId;
use crate::message::{Base, Removal, RemovalReason};
use crate::paxos::Ballot;

const SHARD: ShardId = ShardId::new(3);
const NONCE: StartNonce = StartNonce([5; 16]);

fn member(name: u8) -> Member {
    Member { node: NodeId::from_bytes([name; 16]), store: StoreId::from_bytes([name; 16]) }
}

fn members(names: &[u8]) -> Vec<Member> {
    names.iter().copied().map(member).collect()
}

fn epoch(number: u64) -> Epoch {
    Epoch { lineage: 1, number }
}

fn stable(number: u64, names: &[u8], retired: &[u8]) -> Configuration {
    Configuration {
        shard: SHARD,
        epoch: epoch(number),
        phase: Phase::Stable { members: members(names) },
        gc_epoch: Epoch::NONE,
        collected: None,
        retired: members(retired),
    }
}

fn joint(number: u64, old: &[u8], new: &[u8]) -> Configuration {
    let (old, new) = (members(old), members(new));
    Configuration { phase: Phase::Joint { old, new }, ..stable(number, &[1], &[]) }
}

fn ballot(counter: u64) -> Ballot {
    Ballot { counter, node: member(9).node }
}

fn replica(name: u8) -> ShardReplica {
    ShardReplica::restore(SHARD, member(name), NONCE, None, None)
}

/// A store that entered these, one after the other.
fn entered(name: u8, chain: &[Configuration]) -> ShardReplica {
    let mut replica = replica(name);
    for configuration in chain {
        replica.on_learn(configuration.clone());
    }
    replica
}

#[test]
fn accepting_fences_for_ever_and_promising_does_not() {
    let (mut a, _) = ShardReplica::bootstrap(SHARD, member(1), NONCE);
    let base = a.newest().unwrap().clone();
    let (durable, reply) = a.on_prepare(base.clone(), ballot(1), &[], |_| true);
    assert_eq!(durable.len(), 1);
    assert_eq!(reply, ShardReply::Promised { ballot: ballot(1), accepted: None });
    assert_eq!(a.check(Access::Merge, epoch(1)), Ok(()));
    assert_eq!(a.standing().left, Some(Epoch::NONE));

    let value = joint(2, &[1], &[1, 2]);
    let (durable, reply) = a.on_accept(Base::of(&base), ballot(1), value.clone());
    assert_eq!(reply, ShardReply::Accepted { ballot: ballot(1) });
    let [Durable::Acceptor(row)] = &durable[..] else { panic!("one row") };
    for access in [Access::Merge, Access::Read, Access::Mint] {
        let newest = base.clone();
        assert_eq!(a.check(access, epoch(1)), Err(Refusal::StaleEpoch { newest }));
    }
    assert_eq!(a.standing().left, Some(epoch(1)));
    assert_eq!(a.newest(), Some(&base), "accepted is not decided");

    let again = StartNonce([6; 16]);
    let entered = a.entered().cloned();
    let a = ShardReplica::restore(SHARD, member(1), again, entered, Some(row.clone()));
    assert!(a.is_fenced(), "a restart does not lift the fence");
}

#[test]
fn an_acceptor_that_is_behind_enters_the_base_first() {
    let mut b = replica(2);
    let base = stable(5, &[1, 2, 3], &[]);
    let value = stable(6, &[1, 2, 3], &[]);
    let (_, reply) = b.on_accept(Base::of(&base), ballot(1), value.clone());
    assert_eq!(reply, ShardReply::Behind { newest: None });
    let (durable, reply) = b.on_prepare(base.clone(), ballot(1), &[], |_| false);
    assert!(matches!(durable[..], [Durable::Entered(_), Durable::Acceptor(_)]));
    assert!(matches!(reply, ShardReply::Promised { .. }));
    let (_, reply) = b.on_accept(Base::of(&base), ballot(1), value.clone());
    assert!(matches!(reply, ShardReply::Accepted { .. }));
    b.on_learn(value.clone());
    let (_, reply) = b.on_prepare(base, ballot(2), &[], |_| false);
    assert_eq!(reply, ShardReply::Superseded { newest: value });
}

#[test]
fn a_living_member_is_not_removed_as_down() {
    let base = stable(5, &[1, 2, 3], &[]);
    let mut a = entered(1, std::slice::from_ref(&base));
    let removal = |reason| [Removal { member: member(3), reason }];
    let alive = |who: &Member| *who == member(3);
    let (_, reply) = a.on_prepare(base.clone(), ballot(1), &removal(RemovalReason::Down), alive);
    assert_eq!(reply, ShardReply::RemovalRefused { member: member(3) });
    let (_, reply) = a.on_prepare(base, ballot(1), &removal(RemovalReason::Displaced), alive);
    assert!(matches!(reply, ShardReply::Promised { .. }), "displaced ones are alive");
}

#[test]
fn no_illegal_successor_is_accepted() {
    let base = stable(5, &[1, 2, 3], &[]);
    let mut a = entered(1, std::slice::from_ref(&base));
    let illegal = [
        stable(6, &[1, 2], &[3]),      // members change in Joint only
        stable(7, &[1, 2, 3], &[]),    // skips an epoch
        joint(6, &[1, 2], &[1, 2, 4]), // from a set that is not this one
        stable(6, &[1, 2, 3], &[8]),   // retires a stranger
        Configuration { shard: ShardId::new(4), ..stable(6, &[1, 2, 3], &[]) },
    ];
    for value in illegal {
        let (durable, reply) = a.on_accept(Base::of(&base), ballot(1), value);
        assert_eq!((durable, reply), (Vec::new(), ShardReply::Refused));
    }
    let base = joint(6, &[1, 2, 3], &[1, 2, 4]);
    a.on_learn(base.clone());
    for (names, retired, legal) in
        [([1, 2, 4], vec![3], true), ([1, 2, 3], vec![4], true), ([1, 2, 4], vec![], false)]
    {
        assert_eq!(base.may_be_followed_by(&stable(7, &names, &retired)), legal);
    }
}

#[test]
fn in_joint_a_newcomer_writes_but_neither_reads_nor_mints_until_it_merged() {
    let mut x = entered(4, &[joint(6, &[1, 2, 3], &[1, 2, 4])]);
    assert_eq!(x.check(Access::Merge, epoch(6)), Ok(()));
    assert_eq!(x.check(Access::Read, epoch(6)), Err(Refusal::Learner));
    assert_eq!(x.check(Access::Mint, epoch(6)), Err(Refusal::NotMerged));
    assert_eq!(x.actor(), None);
    let plan = x.pull_plan().unwrap();
    assert_eq!((plan.purpose, plan.needed, plan.left), (PullPurpose::Merge, 2, Some(epoch(5))));
    assert_eq!(x.on_merged(epoch(4)), Vec::new(), "a copy for another epoch declares nothing");
    assert_eq!(x.on_merged(epoch(6)).len(), 1);
    assert_eq!(x.check(Access::Read, epoch(6)), Err(Refusal::Learner));
    assert_eq!(x.check(Access::Mint, epoch(6)), Ok(()));
    assert!(x.actor().is_some() && x.pull_plan().is_none());
}

#[test]
fn in_joint_the_old_members_go_on_answering_reads_before_they_have_merged() {
    for name in [1, 2, 3] {
        let a = entered(name, &[joint(6, &[1, 2, 3], &[1, 2, 4])]);
        assert_eq!(a.check(Access::Read, epoch(6)), Ok(()), "{name}");
    }
}

#[test]
fn newcomers_of_a_joint_epoch_have_no_vote_on_what_follows() {
    let base = joint(6, &[1, 2, 3], &[1, 2, 4]);
    let given_up = stable(7, &[1, 2, 3], &[4]);
    let mut newcomer = entered(4, std::slice::from_ref(&base));
    let (durable, reply) = newcomer.on_prepare(base.clone(), ballot(1), &[], |_| false);
    assert_eq!((durable, reply), (Vec::new(), ShardReply::Refused));
    let (durable, reply) = newcomer.on_accept(Base::of(&base), ballot(1), given_up.clone());
    assert_eq!((durable, reply), (Vec::new(), ShardReply::Refused));
    let mut leaving = entered(3, std::slice::from_ref(&base));
    let (_, reply) = leaving.on_accept(Base::of(&base), ballot(1), given_up);
    assert_eq!(reply, ShardReply::Accepted { ballot: ballot(1) });
}

#[test]
fn a_ballot_over_another_configuration_of_the_same_epoch_counts_for_nothing() {
    let (known, other) = (stable(5, &[1, 2, 3], &[]), stable(5, &[1, 2, 4], &[]));
    let mut a = entered(1, std::slice::from_ref(&known));
    let superseded = (Vec::new(), ShardReply::Superseded { newest: known });
    assert_eq!(a.on_prepare(other.clone(), ballot(1), &[], |_| false), superseded);
    let value = stable(6, &[1, 2, 3], &[]);
    assert_eq!(a.on_accept(Base::of(&other), ballot(1), value), superseded);
    assert!(!a.is_fenced());
}

#[test]
fn what_a_member_is_worth_follows_it_only_from_epoch_to_epoch() {
    let chain = [stable(1, &[1], &[]), joint(2, &[1], &[1, 2]), stable(3, &[1, 2], &[])];
    let worth = |replica: &ShardReplica| {
        let row = replica.entered().unwrap();
        (row.merged, row.declared)
    };
    let (mut a, _) = ShardReplica::bootstrap(SHARD, member(1), NONCE);
    a.on_learn(chain[1].clone());
    assert_eq!(worth(&a), (true, false), "an old member holds its data, and declares anew");
    let mut gave_up = a.clone();
    gave_up.on_learn(stable(3, &[1], &[2]));
    assert_eq!(worth(&gave_up), (true, false), "given up: as it was");
    let mut undeclared = a.clone();
    undeclared.on_learn(chain[2].clone());
    assert_eq!(worth(&undeclared), (false, false), "forward: only who declared");
    assert_eq!(undeclared.check(Access::Read, epoch(3)), Ok(()), "but it serves");
    let plan = undeclared.pull_plan().unwrap();
    assert_eq!((plan.purpose, plan.needed, plan.sources), (PullPurpose::CatchUp, 1, members(&[2])));
    a.on_merged(epoch(2));
    a.on_learn(chain[2].clone());
    assert_eq!(worth(&a), (true, false), "the declaration died with its epoch");
    a.on_learn(stable(5, &[1, 2], &[]));
    assert_eq!(worth(&a), (false, false), "an epoch was skipped");
    let (_, reply) = a.on_learn(chain[2].clone());
    assert!(matches!(reply, ShardReply::Superseded { .. }), "never back");
}

#[test]
fn a_former_member_hands_over_and_its_tenure_ends_with_the_purge() {
    let (mut a, _) = ShardReplica::bootstrap(SHARD, member(1), NONCE);
    let first = a.actor();
    a.on_learn(joint(2, &[1], &[2]));
    assert_eq!(a.actor(), first, "one tenure through the move");
    assert_eq!(a.purge(), Vec::new(), "a member never forgets");
    let done = stable(3, &[2], &[1]);
    a.on_learn(done.clone());
    assert_eq!(
        a.check(Access::Read, epoch(3)),
        Err(Refusal::NotMember { newest: Some(done.clone()) })
    );
    assert_eq!(a.must_drain_to(), Some(&done));
    assert!(entered(2, std::slice::from_ref(&done)).takes_push_from(&member(1), epoch(3)));
    let durable = a.purge();
    assert!(matches!(durable[..], [Durable::Forget(_), Durable::Entered(_)]));
    assert_eq!((a.must_drain_to(), a.standing().source), (None, false));
    assert_eq!(a.standing().entered, Some(epoch(3)), "what was decided is known for ever");
    a.on_swept();
    a.on_learn(joint(4, &[2], &[1]));
    a.on_merged(epoch(4));
    assert!(a.actor().is_some() && a.actor() != first);
}

#[test]
fn a_learner_promises_nothing_and_stale_data_goes_before_the_copy() {
    let mut x = entered(4, &[stable(1, &[4], &[]), stable(3, &[1], &[4])]);
    let base = Configuration { gc_epoch: epoch(5), ..stable(9, &[1, 2], &[]) };
    let (durable, reply) = x.start_learning(base.clone());
    assert_eq!(reply, ShardReply::Learned { epoch: epoch(9) });
    assert!(durable.contains(&Durable::Forget(SHARD)), "tombstones went since it left");
    assert_eq!(x.pull_plan(), None, "what it forgot goes first");
    x.on_swept();
    assert!(!x.standing().source && !x.is_leftover());
    let plan = x.pull_plan().unwrap();
    assert_eq!((plan.purpose, plan.left), (PullPurpose::Learn, None));
    assert_eq!(x.start_learning(base).0, Vec::new(), "asked again, nothing changes");
    x.stop_learning();
    assert!(x.is_leftover());
}

#[test]
fn until_forgotten_records_are_gone_nothing_is_served_or_taken_even_after_a_crash() {
    let chain = [stable(1, &[1], &[]), stable(2, &[2], &[1])];
    let mut former = entered(1, &chain);
    former.purge();
    assert!(former.is_sweeping());
    // Back as a member before the last record is gone: through a move, after a crash.
    let row = EnteredRow::decode(&former.entered().unwrap().encode()).unwrap();
    let mut former = ShardReplica::restore(SHARD, member(1), NONCE, Some(row), None);
    former.on_learn(joint(3, &[2], &[1, 2]));
    former.on_learn(stable(4, &[1, 2], &[3]));
    assert_eq!(former.check(Access::Read, epoch(4)), Err(Refusal::Learner));
    assert_eq!(former.check(Access::Merge, epoch(4)), Err(Refusal::Overloaded));
    assert_eq!(former.check(Access::Mint, epoch(4)), Err(Refusal::NotMerged));
    assert_eq!((former.pull_plan(), former.takes_push_from(&member(3), epoch(4))), (None, false));
    assert!(!former.standing().source, "what it holds is nothing to copy");
    assert_eq!(former.on_merged(epoch(4)), Vec::new());
    let durable = former.on_swept();
    assert!(matches!(&durable[..], [Durable::Entered(row)] if !row.sweeping));
    assert_eq!(former.check(Access::Merge, epoch(4)), Ok(()));
    assert!(former.pull_plan().is_some() && former.takes_push_from(&member(3), epoch(4)));
    assert_eq!(former.on_swept(), Vec::new());
}

#[test]
fn the_entered_row_reads_back_and_garbage_does_not() {
    let (mut a, _) = ShardReplica::bootstrap(SHARD, member(1), NONCE);
    a.on_learn(joint(2, &[1], &[1, 2, 3]));
    let row = a.entered().unwrap();
    let bytes = row.encode();
    assert_eq!(EnteredRow::decode(&bytes).as_ref(), Ok(row));
    for end in 0..bytes.len() {
        assert!(EnteredRow::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut broken = bytes.to_vec();
        broken[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(EnteredRow::decode(&broken).as_ref(), Ok(row), "bit {bit}");
    }
}

/// {1, 2} in epoch 1, and what a round of that epoch led to.
fn collected() -> (Configuration, Configuration) {
    let base = stable(1, &[1, 2], &[]);
    let next = base.collecting(GcDigest([7; 16]));
    (base, next)
}

#[test]
fn entering_a_collection_from_its_round_ends_the_round_and_begins_another_actor() {
    let (base, next) = collected();
    let mut a = entered(1, std::slice::from_ref(&base));
    a.on_merged(epoch(1));
    assert!(a.may_vouch(&Base::of(&base)) && !a.may_vouch(&Base::of(&next)));
    let first = a.actor().unwrap();
    let (durable, _) = a.on_learn(next.clone());
    let round = Durable::EndRound { shard: SHARD, collected: next.collected.as_deref().copied() };
    assert_eq!(durable.first(), Some(&round));
    assert!(a.actor().is_some_and(|actor| actor != first), "what it had counted is forgotten");
    assert_eq!(a.data_epoch(), Some(epoch(2)));

    // Decided otherwise, the round is void, and the actor goes on.
    let mut a = entered(1, std::slice::from_ref(&base));
    a.on_merged(epoch(1));
    let first = a.actor();
    let (durable, _) = a.on_learn(stable(2, &[1, 2], &[]));
    assert_eq!(durable.first(), Some(&Durable::EndRound { shard: SHARD, collected: None }));
    assert_eq!(a.actor(), first);

    // Who skips the collection keeps what it holds, and mints anew once it has caught up.
    let mut a = entered(1, std::slice::from_ref(&base));
    let after = Configuration { epoch: epoch(3), collected: None, ..next };
    let (durable, _) = a.on_learn(after);
    assert_eq!(durable.first(), Some(&Durable::EndRound { shard: SHARD, collected: None }));
    assert!(!durable.contains(&Durable::Forget(SHARD)), "it vouched");
    assert_eq!(a.actor(), None);
}

#[test]
fn nobody_vouches_who_is_fenced_no_member_or_lists_a_former_one() {
    let (base, next) = collected();
    let mut fenced = entered(1, std::slice::from_ref(&base));
    fenced.on_accept(Base::of(&base), ballot(1), next);
    assert!(!fenced.may_vouch(&Base::of(&base)));
    assert!(!entered(3, std::slice::from_ref(&base)).may_vouch(&Base::of(&base)));
    let listing = stable(1, &[1, 2], &[9]);
    assert!(!entered(1, std::slice::from_ref(&listing)).may_vouch(&Base::of(&listing)));
}

#[test]
fn data_from_before_a_collection_is_worth_nothing_to_anybody() {
    let old = stable(1, &[1, 2, 4], &[]);
    let gc = |configuration: Configuration| Configuration { gc_epoch: epoch(5), ..configuration };
    // A former member that slept, and is listed again: it has nothing to hand over.
    let mut zombie = entered(4, std::slice::from_ref(&old));
    let (durable, _) = zombie.on_learn(gc(stable(8, &[1, 2], &[4])));
    assert!(durable.contains(&Durable::Forget(SHARD)));
    assert_eq!((zombie.must_drain_to(), zombie.standing().source), (None, false));
    // A learner whose copy is thrown away copies nothing until somebody wants it anew.
    let mut learner = entered(4, &[]);
    learner.start_learning(stable(3, &[1, 2], &[]));
    assert!(learner.takes_page(epoch(3), Some(epoch(2))));
    learner.on_learn(gc(stable(6, &[1, 2], &[])));
    assert_eq!((learner.data_epoch(), learner.pull_plan()), (None, None));
    learner.start_learning(gc(stable(6, &[1, 2], &[])));
    assert_eq!(learner.data_epoch(), Some(epoch(5)));
}

#[test]
fn what_was_held_for_others_is_taken_in_later_epochs_until_tombstones_of_its_own_are_gone() {
    let mut a = entered(1, &[stable(1, &[1, 2, 3], &[])]);
    a.on_learn(stable(4, &[1, 2, 3], &[]));
    assert_eq!(a.check_stamp(epoch(1)), Ok(()), "an older record is not lost");
    a.on_learn(Configuration { gc_epoch: epoch(4), ..stable(5, &[1, 2, 3], &[]) });
    for old in [1, 4] {
        assert_eq!(a.check_stamp(epoch(old)), Err(Refusal::Collected), "it could undo a delete");
    }
    assert_eq!(a.check_stamp(epoch(5)), Ok(()));
}

#[test]
fn old_pages_and_old_hand_overs_are_refused() {
    let base = Configuration { gc_epoch: epoch(5), ..stable(9, &[1, 2], &[4]) };
    let mut learner = entered(3, &[]);
    learner.start_learning(base.clone());
    assert!(learner.takes_page(epoch(9), Some(epoch(5))), "it vouched for what was collected");
    assert!(!learner.takes_page(epoch(9), Some(epoch(4))), "it may hold what was collected");
    assert!(!learner.takes_page(epoch(9), None) && !learner.takes_page(epoch(8), Some(epoch(9))));

    let member_of = entered(1, std::slice::from_ref(&base));
    assert!(member_of.takes_push_from(&member(4), epoch(9)));
    // It read them while an earlier configuration listed it, and was written off in between.
    assert!(!member_of.takes_push_from(&member(4), epoch(4)));
}

/// What an operator's force decides for a shard of {1, 2, 3}: a new lineage with these.
fn forced(names: &[u8]) -> Configuration {
    Configuration { epoch: Epoch { lineage: 2, number: 1 }, ..stable(1, names, &[]) }
}

#[test]
fn a_survivor_of_force_goes_on_with_what_it_holds() {
    let before = stable(7, &[1, 2, 3], &[]);
    let mut a = entered(1, &[before.clone(), forced(&[1])]);
    assert_eq!(a.pull_plan(), None, "nobody else is left");
    assert_eq!(a.check(Access::Mint, forced(&[1]).epoch), Ok(()), "at once");
    let (_, reply) = a.on_learn(stable(900, &[1, 2, 3], &[]));
    assert!(matches!(reply, ShardReply::Superseded { .. }), "the higher lineage wins");

    let a = entered(1, &[before, forced(&[1, 2])]);
    let plan = a.pull_plan().expect("it has to merge");
    assert_eq!((plan.sources, plan.needed), (members(&[2]), 1));
    assert!(plan.left > Some(epoch(u64::MAX - 1)), "from one that has left the old lineage");
}

#[test]
fn a_store_of_an_ended_lineage_counts_for_nothing() {
    let mut b = entered(2, &[stable(7, &[1, 2, 3], &[]), forced(&[1])]);
    assert!(!b.standing().source && b.is_leftover() && b.must_drain_to().is_none());
    let refused = b.check(Access::Read, forced(&[1]).epoch);
    assert!(matches!(refused, Err(Refusal::NotMember { .. })));
    let (_, reply) = b.on_prepare(stable(7, &[1, 2, 3], &[]), ballot(3), &[], |_| false);
    assert!(matches!(reply, ShardReply::Superseded { .. }), "nor does its vote");

    assert!(b.entered().is_some_and(EnteredRow::holds_ended_lineage));
    let (durable, _) = b.start_learning(forced(&[1]));
    assert!(durable.contains(&Durable::Forget(SHARD)), "its records mix with no copy");
    let (again, _) = b.start_learning(forced(&[1]));
    assert!(again.is_empty() && !b.entered().is_some_and(EnteredRow::holds_ended_lineage));
    let mut learner = entered(4, &[stable(1, &[1], &[])]);
    learner.start_learning(stable(1, &[1], &[]));
    assert!(!learner.entered().is_some_and(EnteredRow::holds_ended_lineage), "an ordinary copy");
}

/// What a witnessed start is told of, by these.
fn witnesses(names: &[u8]) -> Witnesses {
    Witnesses::Members(std::sync::Arc::new(members(names).into_iter().collect()))
}

#[test]
fn nothing_is_served_or_voted_for_before_a_majority_has_recorded_the_start() {
    let base = stable(5, &[1, 2, 3], &[]);
    let value = stable(6, &[1, 2, 3], &[]);
    let mut a = entered(1, std::slice::from_ref(&base));
    let refuses = |a: &mut ShardReplica| {
        for access in [Access::Merge, Access::Read, Access::Mint] {
            assert_eq!(a.check(access, epoch(5)), Err(Refusal::NotIntroduced));
        }
        let (_, reply) = a.on_prepare(base.clone(), ballot(1), &[], |_| false);
        assert_eq!(reply, ShardReply::Refused);
        let (durable, reply) = a.on_accept(Base::of(&base), ballot(1), value.clone());
        assert_eq!((durable, reply), (Vec::new(), ShardReply::Refused));
        assert!(!a.may_vouch(&Base::of(&base)) && !a.standing().source);
        assert_eq!((a.pull_plan(), a.on_merged(epoch(5))), (None, Vec::new()));
    };
    a.witnessed_by(Witnesses::none());
    refuses(&mut a);
    a.witnessed_by(witnesses(&[8, 9]));
    refuses(&mut a);
    // One that says that the store is a copy outweighs all others, for ever.
    a.witnessed_by(Witnesses::Suspect);
    refuses(&mut a);

    let mut a = entered(1, std::slice::from_ref(&base));
    a.witnessed_by(witnesses(&[3]));
    assert_eq!(a.check(Access::Merge, epoch(5)), Ok(()));
    let (_, reply) = a.on_prepare(base, ballot(1), &[], |_| false);
    assert!(matches!(reply, ShardReply::Promised { .. }));
}

#[test]
fn a_joint_epoch_wants_witnesses_on_both_sides_and_a_lone_member_none() {
    let mut a = entered(1, &[joint(5, &[1, 2, 3], &[1, 4, 5])]);
    for (names, introduced) in [(&[2, 3][..], false), (&[4, 5], false), (&[3, 4], true)] {
        a.witnessed_by(witnesses(names));
        assert_eq!(a.is_introduced(), introduced, "{names:?}");
    }
    let (mut alone, _) = ShardReplica::bootstrap(SHARD, member(1), NONCE);
    alone.witnessed_by(Witnesses::none());
    assert_eq!(alone.check(Access::Mint, epoch(1)), Ok(()));
}
