//! With whom to compare, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use triad_replica::configuration::Epoch;
use triad_replica::member::Member;
use triad_ring::{NodeId, ShardId};

/// How soon a member that came back, or shards that changed hands, are looked at.
const SOON: Duration = Duration::from_secs(1);
/// Pause after a round that could not compare or mend all.
const RETRY: Duration = Duration::from_secs(2);

/// The rounds of one node; time comes in as an argument.
pub(super) struct Schedule {
    me: NodeId,
    interval: Duration,
    peers: BTreeMap<Member, Peer>,
}

#[derive(Default)]
struct Peer {
    /// None: the other one begins.
    due: Option<Duration>,
    alive: bool,
    shards: Vec<(ShardId, Epoch)>,
}

impl Peer {
    fn due_by(&mut self, at: Duration) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

impl Schedule {
    pub(super) fn new(me: NodeId, interval: Duration) -> Self {
        Self { me, interval, peers: BTreeMap::new() }
    }

    /// Takes in who shares what with this store now, and answers with whom a round is due.
    pub(super) fn due<'a>(
        &mut self,
        now_shared: impl Iterator<Item = (Member, bool, &'a Vec<(ShardId, Epoch)>)>,
        now: Duration,
    ) -> Vec<Member> {
        let mut before = std::mem::take(&mut self.peers);
        let mut due = Vec::new();
        for (member, alive, shards) in now_shared {
            let mut peer = before.remove(&member).unwrap_or_default();
            let returned = alive && !peer.alive;
            let changed = peer.shards != *shards;
            // Whoever notices that a member is back begins, for the other may not have noticed.
            if returned || (changed && self.begins(member)) {
                peer.due_by(now + SOON.min(self.interval));
            }
            peer.alive = alive;
            if changed {
                peer.shards.clone_from(shards);
            }
            if alive && peer.due.is_some_and(|at| at <= now) {
                due.push(member);
            }
            self.peers.insert(member, peer);
        }
        due
    }

    /// How long to rest after a round.
    pub(super) fn rest(&self, whole: bool) -> Duration {
        if whole { self.interval } else { RETRY.min(self.interval) }
    }

    /// A round ended; the next is due at `next`.
    pub(super) fn done(&mut self, with: Member, whole: bool, next: Duration) {
        let begins = self.begins(with);
        if let Some(peer) = self.peers.get_mut(&with) {
            peer.due = (begins || !whole).then_some(next);
        }
    }

    /// Of two, the one with the lower id begins.
    fn begins(&self, with: Member) -> bool {
        self.me < with.node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triad_replica::member::StoreId;

    const EVERY: Duration = Duration::from_secs(10);

    fn member(name: u8) -> Member {
        Member { node: NodeId::from_bytes([name; 16]), store: StoreId::from_bytes([name; 16]) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn shards(epoch: u64) -> Vec<(ShardId, Epoch)> {
        vec![(ShardId::new(1), Epoch { lineage: 1, number: epoch })]
    }

    fn due(schedule: &mut Schedule, peers: &[(u8, bool, u64)], now: u64) -> Vec<Member> {
        let peers: Vec<_> = peers
            .iter()
            .map(|(name, alive, epoch)| (member(*name), *alive, shards(*epoch)))
            .collect();
        schedule.due(peers.iter().map(|(member, alive, shards)| (*member, *alive, shards)), at(now))
    }

    #[test]
    fn the_lower_id_begins_in_every_interval() {
        let mut schedule = Schedule::new(member(2).node, EVERY);
        let peers = [(1, true, 1), (3, true, 1)];
        assert_eq!(due(&mut schedule, &peers, 0), []);
        // Both are news at the start; after that only the one with the higher id is asked.
        assert_eq!(due(&mut schedule, &peers, 1), [member(1), member(3)]);
        for with in [1, 3] {
            schedule.done(member(with), true, at(1) + schedule.rest(true));
        }
        assert_eq!(due(&mut schedule, &peers, 10), []);
        assert_eq!(due(&mut schedule, &peers, 11), [member(3)]);
    }

    #[test]
    fn a_member_that_is_back_and_a_shard_that_changed_hands_are_looked_at_soon() {
        let mut schedule = Schedule::new(member(2).node, EVERY);
        due(&mut schedule, &[(1, true, 1)], 0);
        due(&mut schedule, &[(1, true, 1)], 1);
        schedule.done(member(1), true, at(11));
        assert_eq!(due(&mut schedule, &[(1, false, 1)], 30), []);
        assert_eq!(due(&mut schedule, &[(1, true, 1)], 40), []);
        assert_eq!(due(&mut schedule, &[(1, true, 1)], 41), [member(1)]);
        schedule.done(member(1), true, at(51));
        assert_eq!(due(&mut schedule, &[(3, true, 1)], 60), [], "who shares nothing is forgotten");
        due(&mut schedule, &[(3, true, 1)], 61);
        schedule.done(member(3), true, at(71));
        assert_eq!(due(&mut schedule, &[(3, true, 2)], 62), []);
        assert_eq!(due(&mut schedule, &[(3, true, 2)], 63), [member(3)]);
    }

    #[test]
    fn what_could_not_be_done_is_tried_again_soon_and_the_dead_are_left_alone() {
        let mut schedule = Schedule::new(member(2).node, EVERY);
        due(&mut schedule, &[(1, true, 1)], 0);
        assert_eq!(due(&mut schedule, &[(1, true, 1)], 1), [member(1)]);
        schedule.done(member(1), false, at(1) + schedule.rest(false));
        assert_eq!(due(&mut schedule, &[(1, false, 1)], 5), []);
        assert_eq!(due(&mut schedule, &[(1, true, 1)], 6), [member(1)], "it was due all along");
    }
}
