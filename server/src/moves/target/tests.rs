use triad_replica::configuration::{Epoch, Phase};
use triad_ring::ShardId;

use super::*;

const SHARDS: u32 = 16;

fn node(name: u8) -> NodeId {
    NodeId::from_bytes([name; 16])
}

fn store(name: u8) -> StoreId {
    StoreId::from_bytes([name; 16])
}

fn member(name: u8) -> Member {
    Member { node: node(name), store: store(name) }
}

/// Nodes 1 to `nodes`, all alive with the store of their own number.
struct World {
    facts: Facts,
    wanted: usize,
}

impl World {
    fn new(nodes: u8, wanted: usize) -> Self {
        let facts = |name| NodeFacts {
            store: store(name),
            liveness: Liveness::Alive,
            dead: false,
            leaving: false,
            gone: false,
        };
        Self { facts: (1..=nodes).map(|name| (node(name), facts(name))).collect(), wanted }
    }

    fn set(&mut self, name: u8, change: impl FnOnce(&mut NodeFacts)) -> &mut Self {
        change(self.facts.get_mut(&node(name)).unwrap());
        self
    }

    fn dies(&mut self, name: u8) -> &mut Self {
        self.set(name, |facts| (facts.liveness, facts.dead) = (Liveness::Down, true))
    }

    fn falls_silent(&mut self, name: u8) -> &mut Self {
        self.set(name, |facts| facts.liveness = Liveness::Down)
    }

    fn leaves(&mut self, name: u8) -> &mut Self {
        self.set(name, |facts| facts.leaving = true)
    }

    fn placement(&self) -> Placement {
        let shards = ShardCount::try_new(SHARDS).unwrap();
        Placement::new(ClusterSalt::from_bytes([7; 16]), 8, shards, self.wanted)
    }

    /// The ring closes over those that are down.
    fn view(&self) -> RingView {
        let alive = self.facts.iter().filter(|(_, facts)| facts.liveness == Liveness::Alive);
        RingView::of_nodes(alive.map(|(node, _)| *node), &ClusterSalt::from_bytes([7; 16]), 8)
    }

    fn target(&self, shard: u32, members: &[u8]) -> Option<Vec<Place>> {
        let known = configuration(shard, members);
        self.placement().target(&self.view(), &known, &self.facts)
    }

    /// The same as names; a newcomer with a new store is shown by 100 more.
    fn names(&self, shard: u32, members: &[u8]) -> Option<BTreeSet<u8>> {
        let name = |place: &Place| match place {
            Place::Stays(member) => member.node.as_bytes()[0],
            Place::Newcomer(new) => {
                let again = members.contains(&new.as_bytes()[0]);
                new.as_bytes()[0] + if again { 100 } else { 0 }
            }
        };
        Some(self.target(shard, members)?.iter().map(name).collect())
    }
}

fn configuration(shard: u32, members: &[u8]) -> Configuration {
    Configuration {
        epoch: Epoch::FIRST,
        phase: Phase::Stable { members: members.iter().copied().map(member).collect() },
        ..Configuration::bootstrap(ShardId::new(shard), member(1))
    }
}

fn set(names: &[u8]) -> BTreeSet<u8> {
    names.iter().copied().collect()
}

#[test]
fn a_member_that_is_merely_silent_keeps_its_place_and_nobody_is_displaced_beside_it() {
    for shard in 0..SHARDS {
        let mut world = World::new(6, 3);
        world.falls_silent(2);
        assert_eq!(world.names(shard, &[1, 2, 3]), Some(set(&[1, 2, 3])));
    }
}

#[test]
fn a_dead_member_is_replaced_by_a_living_node_and_the_others_stay_or_move_to_their_places() {
    for shard in 0..SHARDS {
        let mut world = World::new(4, 3);
        world.dies(2);
        assert_eq!(world.names(shard, &[1, 2, 3]), Some(set(&[1, 3, 4])));
    }
}

#[test]
fn a_death_makes_no_configuration_smaller() {
    for shard in 0..SHARDS {
        let mut world = World::new(3, 3);
        world.dies(2);
        let target = world.target(shard, &[1, 2, 3]).unwrap();
        assert!(is_settled(configuration(shard, &[1, 2, 3]).new_set(), &target), "{target:?}");
    }
}

#[test]
fn a_dead_one_is_replaced_although_another_is_silent() {
    for shard in 0..SHARDS {
        let mut world = World::new(7, 5);
        world.dies(2).falls_silent(3);
        let target = world.names(shard, &[1, 2, 3, 4, 5]).unwrap();
        assert!(target.is_superset(&set(&[1, 3, 4, 5])), "{target:?}");
        assert!(target.len() == 5 && !target.contains(&2), "{target:?}");
    }
}

#[test]
fn nothing_is_proposed_that_would_have_no_living_majority() {
    let mut world = World::new(2, 3);
    world.dies(2).leaves(1);
    assert_eq!(world.names(0, &[1, 2]), None);
    let mut world = World::new(3, 3);
    world.falls_silent(2).leaves(3);
    assert_eq!(world.names(0, &[1, 2, 3]), None, "one of two would be alive");
}

#[test]
fn a_lost_store_is_replaced_at_once_even_by_its_own_node() {
    for shard in 0..SHARDS {
        let mut world = World::new(3, 3);
        world.set(2, |facts| facts.store = store(99));
        assert_eq!(world.names(shard, &[1, 2, 3]), Some(set(&[1, 102, 3])));
    }
}

#[test]
fn an_old_contact_of_a_silent_node_proves_no_loss() {
    let mut world = World::new(3, 3);
    world.falls_silent(2).set(2, |facts| facts.store = store(99));
    assert_eq!(world.names(0, &[1, 2, 3]), Some(set(&[1, 2, 3])));
}

#[test]
fn who_leaves_makes_room_for_others_and_the_configuration_smaller_where_there_are_none() {
    for shard in 0..SHARDS {
        let mut world = World::new(4, 3);
        world.leaves(2);
        assert_eq!(world.names(shard, &[1, 2, 3]), Some(set(&[1, 3, 4])));
        let mut world = World::new(3, 3);
        world.leaves(2);
        assert_eq!(world.names(shard, &[1, 2, 3]), Some(set(&[1, 3])));
        world.leaves(3);
        assert_eq!(world.names(shard, &[1, 2, 3]), Some(set(&[1])));
        world.leaves(1);
        assert_eq!(world.names(shard, &[1, 2, 3]), None, "somebody must stay");
    }
}

#[test]
fn without_need_the_ring_alone_decides() {
    let world = World::new(6, 3);
    for shard in 0..SHARDS {
        let end = ShardCount::try_new(SHARDS).unwrap().end(ShardId::new(shard));
        let ideal = world.view().preference_list(end, 3).unwrap();
        let target = world.target(shard, &[1, 2, 3]).unwrap();
        let nodes: Vec<NodeId> = target.iter().map(Place::node).collect();
        assert_eq!(nodes, ideal.nodes());
    }
}
