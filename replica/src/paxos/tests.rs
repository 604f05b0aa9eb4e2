use triad_ring::ShardId;

use super::*;
use crate::configuration::Phase;
use crate::member::StoreId;

fn member(name: u8) -> Member {
    Member { node: NodeId::from_bytes([name; 16]), store: StoreId::from_bytes([name; 16]) }
}

fn value(names: &[u8]) -> Configuration {
    let members = names.iter().copied().map(member).collect();
    Configuration {
        epoch: Epoch::FIRST.next(),
        phase: Phase::Stable { members },
        ..Configuration::bootstrap(ShardId::new(1), member(1))
    }
}

fn proposer(name: u8) -> Proposer {
    Proposer::new(member(name).node, 1, vec![member(1), member(2), member(3)])
}

#[test]
fn a_proposer_takes_over_what_may_have_been_decided() {
    let mut acceptors = [Acceptor::new(Epoch::FIRST), Acceptor::new(Epoch::FIRST)];
    let mut first = proposer(1);
    for acceptor in &mut acceptors {
        acceptor.prepare(first.ballot()).unwrap();
    }
    assert_eq!(first.on_promised(member(1), first.ballot(), None), None);
    assert_eq!(first.on_promised(member(2), first.ballot(), None), Some(Choice::Free));
    first.propose(value(&[1, 2]));
    acceptors[1].accept(first.ballot(), value(&[1, 2])).unwrap();

    let mut second = proposer(2);
    second.start_higher();
    acceptors[1].prepare(second.ballot()).unwrap();
    let reported = acceptors[1].accepted().cloned();
    assert_eq!(second.on_promised(member(3), second.ballot(), None), None);
    let choice = second.on_promised(member(2), second.ballot(), reported);
    assert_eq!(choice, Some(Choice::Obliged(value(&[1, 2]))));

    // The first proposer is outbid where the second was promised.
    let outbid = acceptors[1].accept(first.ballot(), value(&[1, 2]));
    assert_eq!(outbid, Err(Outbid(second.ballot())));
    assert!(first.on_rejected(second.ballot()));
    first.start_higher();
    assert!(first.ballot() > second.ballot());
}

#[test]
fn the_highest_reported_acceptance_binds() {
    let mut late = proposer(3);
    let mut ballots = [proposer(1).ballot(), proposer(2).ballot()];
    ballots.sort();
    late.start_higher();
    late.on_promised(member(1), late.ballot(), Some((ballots[1], value(&[1]))));
    let choice = late.on_promised(member(2), late.ballot(), Some((ballots[0], value(&[2]))));
    assert_eq!(choice, Some(Choice::Obliged(value(&[1]))));
}

#[test]
fn acceptances_of_different_ballots_are_not_added_up() {
    let mut proposer = proposer(1);
    let old = proposer.ballot();
    proposer.propose(value(&[1]));
    assert_eq!(proposer.on_accepted(member(1), old), None);
    proposer.start_higher();
    proposer.propose(value(&[1]));
    assert_eq!(proposer.on_accepted(member(2), proposer.ballot()), None);
    assert_eq!(proposer.on_accepted(member(1), old), None);
    assert_eq!(proposer.on_accepted(member(2), proposer.ballot()), None, "the same one again");
    let decided = proposer.on_accepted(member(3), proposer.ballot());
    assert_eq!(decided, Some(value(&[1])));
}

#[test]
fn only_acceptors_count_and_a_ballot_is_promised_once() {
    let mut proposer = proposer(1);
    for stranger in [7, 8] {
        assert_eq!(proposer.on_promised(member(stranger), proposer.ballot(), None), None);
    }
    let mut acceptor = Acceptor::new(Epoch::FIRST);
    assert_eq!(acceptor.prepare(proposer.ballot()), Ok(()));
    assert_eq!(acceptor.prepare(proposer.ballot()), Err(Outbid(proposer.ballot())));
    assert!(!proposer.on_rejected(proposer.ballot()), "a doubled question is no defeat");
}

#[test]
fn moves_of_one_process_never_share_a_ballot() {
    let acceptors = vec![member(1)];
    let mut ballots = BTreeSet::new();
    for serial in 0..5 {
        let mut proposer = Proposer::new(member(1).node, serial, acceptors.clone());
        for _ in 0..5 {
            assert!(ballots.insert(proposer.ballot()));
            proposer.start_higher();
        }
    }
}

#[test]
fn the_acceptor_row_reads_back_and_garbage_does_not() {
    let mut acceptor = Acceptor::new(Epoch::FIRST);
    let empty = acceptor.encode();
    assert_eq!(Acceptor::decode(&empty), Ok(acceptor.clone()));
    acceptor.accept(proposer(2).ballot(), value(&[1, 2, 3])).unwrap();
    let row = acceptor.encode();
    assert_eq!(Acceptor::decode(&row), Ok(acceptor));
    for end in 0..row.len() {
        assert!(Acceptor::decode(&row[..end]).is_err(), "cut at {end}");
    }
    let longer = [&row[..], &[0]].concat();
    assert_eq!(Acceptor::decode(&longer), Err(BadRow::Long(1)));
    assert_eq!(Acceptor::decode(&[9]), Err(BadRow::Version(9)));
}
