//! What must be true of any ring, against oracles too simple to be wrong.

mod driver;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use driver::{Network, Random};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use triad_ring::{
    ClusterSalt, Input, NodeId, RingConfig, RingId, RingNode, RingView, ShardCount, VirtualNode,
    first_distinct,
};

const SALT: ClusterSalt = ClusterSalt::from_bytes(*b"properties' salt");

fn nodes(seed: u64, count: u64) -> BTreeSet<NodeId> {
    let mut random = Random(seed);
    (0..count).map(|_| NodeId::of_public_key(&random.next().to_be_bytes())).collect()
}

/// The oracle: looks at everybody.
fn naive_owner(nodes: &BTreeSet<NodeId>, v: u16, target: RingId) -> VirtualNode {
    nodes
        .iter()
        .flat_map(|node| (0..v).map(|index| VirtualNode::of(&SALT, *node, index)))
        .min_by_key(|member| target.distance_to(member.id))
        .expect("at least one node")
}

/// The oracle: sorts everybody by distance and takes each node once.
fn naive_preference(nodes: &BTreeSet<NodeId>, v: u16, target: RingId, count: usize) -> Vec<NodeId> {
    let mut nearest: Vec<(u128, NodeId)> = nodes
        .iter()
        .flat_map(|node| (0..v).map(|index| VirtualNode::of(&SALT, *node, index)))
        .map(|member| (target.distance_to(member.id), member.node))
        .collect();
    nearest.sort_unstable();
    let mut list = Vec::new();
    for (_, node) in nearest {
        if !list.contains(&node) && list.len() < count {
            list.push(node);
        }
    }
    list
}

/// Failing cases are kept beside the test, to be tried first for ever.
fn cases(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

/// A network of nodes that are where stabilization would bring them.
fn settled(seed: u64, v: u16, entries: usize, everyone: &BTreeSet<NodeId>) -> Network {
    let config = RingConfig { successor_entries: entries, ..RingConfig::new(SALT, v, 3) };
    let mut network = Network::new(seed, config);
    for id in everyone {
        network.start(*id, Input::Create);
        let mut node = RingNode::new(*id, network.config.clone());
        node.settle(everyone, &mut Vec::new());
        network.replace(node);
    }
    network
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn every_node_finds_the_naive_owner(seed: u64, count in 1..24_u64, v in 1..6_u16, entries in 1..8_usize) {
        let everyone = nodes(seed, count);
        let mut network = settled(seed, v, entries, &everyone);
        for at in network.ids() {
            let target = network.random.id();
            let lookup = network.lookup(at, target);
            network.run(Duration::from_millis(700));
            let route = network.found.get(&lookup).cloned().flatten();
            prop_assert_eq!(route.map(|route| route.owner), Some(naive_owner(&everyone, v, target)));
        }
    }

    #[test]
    fn preference_lists_are_the_naive_ones_and_distinct(
        seed: u64, count in 1..12_u64, v in 1..20_u16, wanted in 0..6_usize,
    ) {
        let everyone = nodes(seed, count);
        let network = settled(seed, v, RingConfig::list_entries(v, 3), &everyone);
        let mut random = Random(seed);
        for _ in 0..16 {
            let target = random.id();
            let expected = naive_preference(&everyone, v, target, wanted);
            let computed = first_distinct(target, everyone.iter().copied(), &SALT, v, wanted);
            prop_assert_eq!(&computed, &expected);
            let distinct: BTreeSet<_> = computed.iter().collect();
            prop_assert_eq!(distinct.len(), wanted.min(count as usize));
            for node in network.nodes() {
                // A node may know too little, but never something else.
                if let Some(list) = node.view().preference_list(target, wanted) {
                    prop_assert_eq!(&list.0, &expected);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(12))]

    /// Claim C7, with the real protocol: what changes owner lies in the joiner's range, and the
    /// joiner gets it.
    #[test]
    fn a_join_moves_only_the_joiners_range(seed: u64, count in 1..8_u64, v in 1..6_u16) {
        let everyone = nodes(seed, count + 1);
        let joiner = *everyone.iter().nth(seed as usize % everyone.len()).expect("not empty");
        let before: BTreeSet<_> = everyone.iter().copied().filter(|node| *node != joiner).collect();
        let mut network = settled(seed, v, RingConfig::list_entries(v, 3), &before);
        let old = RingView::of_nodes(before.iter().copied(), &SALT, v);
        let via = *before.first().expect("not empty");
        for id in network.ids() {
            network.input(id, Input::Timer(triad_ring::Timer::Stabilize));
        }
        network.start(joiner, Input::Join { via });
        network.run(Duration::from_secs(10));
        let ranges: Vec<_> = network.node(joiner).describe().into_iter().map(|state| {
            let start = state.predecessor.expect("others notified it").id;
            triad_ring::RingRange { start, end: state.virtual_node.id }
        }).collect();
        for at in network.ids() {
            let target = network.random.id();
            let lookup = network.lookup(at, target);
            network.run(Duration::from_millis(500));
            let owner = network.found.get(&lookup).cloned().flatten().expect("found").owner;
            if ranges.iter().any(|range| range.contains(target)) {
                prop_assert_eq!(owner.node, joiner);
            } else {
                prop_assert_eq!(Some(owner), old.owner(target));
            }
        }
    }
}

/// Greatest share of the copies of all shards over the mean share.
fn unevenness(everyone: BTreeSet<NodeId>, v: u16) -> f64 {
    let count = u32::try_from(everyone.len()).expect("a few nodes");
    let view = RingView::of_nodes(everyone, &SALT, v);
    let shards = ShardCount::default();
    let mut copies = BTreeMap::new();
    for shard in shards.iter() {
        for node in view.preference_list(shards.end(shard), 3).expect("all is known").0 {
            *copies.entry(node).or_insert(0_u32) += 1;
        }
    }
    let max = copies.values().max().copied().unwrap_or(0);
    f64::from(max * count) / f64::from(copies.values().sum::<u32>())
}

/// Design §2, point 2: with the defaults (V = 64, Q = 1,024, N = 3) and up to 9 nodes the share of
/// *copies* is even to max/mean 1.25. Of 200 random clusters of each size the worst has 1.24; the
/// median is 1.07 at 4 nodes and 1.11 at 9. (Shares of first places reach 1.48: they do not count,
/// for every copy costs the same.)
#[test]
fn shares_of_copies_are_even_at_up_to_nine_nodes() {
    for count in 1..=9 {
        for seed in 0..200 {
            let uneven = unevenness(nodes(seed * 16 + count, count), 64);
            assert!(uneven <= 1.25, "{uneven:.3} with {count} nodes of seed {seed}");
        }
    }
}
