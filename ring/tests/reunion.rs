//! Rings that a partition has made two become one again, whatever their sizes and whatever it is
//! that they still know of each other; a restart of very many at once is no storm; lies about
//! positions are not believed.

mod driver;

use std::collections::BTreeSet;
use std::time::Duration;

use driver::Network;
use triad_ring::invariant::{Violation, is_ideal, lists_reach_enough_nodes, live_successor};
use triad_ring::{
    ClusterSalt, Input, Message, NodeId, Output, RingConfig, RingId, RingNode, VirtualNode,
};

fn config(v: u16) -> RingConfig {
    RingConfig::new(ClusterSalt::from_bytes(*b"salt of the test"), v, 3)
}

fn name(number: u64) -> NodeId {
    NodeId::of_public_key(&number.to_be_bytes())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the two sides still know of each other.
#[derive(Clone, Copy, PartialEq)]
enum Memory {
    /// Each has declared the other failed.
    Failed,
    /// Nothing.
    None,
}

/// Rings of these sizes, settled, that a partition has made of one.
fn split(memory: Memory, v: u16, sizes: [u64; 2]) -> (Network, [Vec<NodeId>; 2]) {
    let [left, right] = sizes;
    let mut network = Network::new(left * 100 + right, config(v));
    let sides: [Vec<NodeId>; 2] =
        [(0..left).map(name).collect(), (left..left + right).map(name).collect()];
    for side in &sides {
        settle(&mut network, side);
    }
    for (side, others) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
        for at in side.iter().filter(|_| memory == Memory::Failed) {
            others.iter().for_each(|other| network.input(*at, Input::Failed(*other)));
        }
    }
    network.run(seconds(5));
    (network, sides)
}

fn settle(network: &mut Network, side: &[NodeId]) {
    let everyone: BTreeSet<NodeId> = side.iter().copied().collect();
    for id in side {
        network.start(*id, Input::Create);
        let mut node = RingNode::new(*id, network.config.clone());
        node.settle(&everyone, &mut Vec::new());
        network.replace(node);
    }
}

fn check_one_ring(network: &Network) -> Result<(), Violation> {
    let nodes = network.nodes();
    is_ideal(&nodes)?;
    live_successor(&nodes)?;
    lists_reach_enough_nodes(&nodes)
}

/// Runs until there is one ring, and says for how long.
#[track_caller]
fn until_one_ring(network: &mut Network, limit: u64) -> u64 {
    for second in 0..=limit {
        if check_one_ring(network).is_ok() {
            return second;
        }
        network.run(seconds(1));
    }
    check_one_ring(network).expect("a single ring in time");
    limit
}

#[test]
fn two_rings_of_any_sizes_become_one_when_one_pair_meets() {
    for memory in [Memory::Failed, Memory::None] {
        for (v, sizes) in [(64, [1, 1]), (64, [2, 3]), (64, [4, 4]), (8, [1, 7])] {
            let (mut network, [left, right]) = split(memory, v, sizes);
            assert!(check_one_ring(&network).is_err());
            network.input(left[0], Input::Met(right[0]));
            let took = until_one_ring(&mut network, 20);
            assert!(took <= 10, "{sizes:?} took {took} s");
        }
    }
}

#[test]
fn a_lookup_through_an_old_contact_is_enough() {
    for memory in [Memory::Failed, Memory::None] {
        for (v, sizes) in [(64, [1, 1]), (64, [2, 3]), (64, [4, 4]), (16, [9, 1])] {
            let (mut network, [left, right]) = split(memory, v, sizes);
            let mut took = 0;
            while check_one_ring(&network).is_err() {
                assert!(took < 60, "{sizes:?}: {:?}", check_one_ring(&network));
                network.input(left[0], Input::Compare { via: right[0] });
                network.run(seconds(10));
                took += 10;
            }
        }
    }
}

#[test]
fn two_large_rings_become_one_by_lookups_through_random_contacts() {
    for memory in [Memory::Failed, Memory::None] {
        let (mut network, [left, right]) = split(memory, 4, [40, 40]);
        let everyone: Vec<NodeId> = left.iter().chain(&right).copied().collect();
        for period in 1.. {
            for at in &everyone {
                let via = network.random.pick(&everyone);
                network.input(*at, Input::Compare { via });
                network.run(Duration::from_millis(10_000 / everyone.len() as u64));
            }
            if memory == Memory::Failed && period == 1 {
                // Each detector finds, one after the other, those alive that it took for dead.
                everyone.iter().for_each(|id| network.meet(*id));
            }
            if check_one_ring(&network).is_ok() {
                break;
            }
            assert!(period < 6, "within a minute: {:?}", check_one_ring(&network));
        }
    }
}

#[test]
fn comparing_within_one_ring_changes_nothing() {
    let mut network = Network::new(7, config(16));
    let side: Vec<NodeId> = (0..6).map(name).collect();
    settle(&mut network, &side);
    network.run(seconds(3));
    let before: Vec<_> = network.nodes().iter().map(|node| node.describe()).collect();
    for _ in 0..32 {
        network.input(side[1], Input::Compare { via: side[4] });
        network.run(Duration::from_millis(200));
    }
    let after: Vec<_> = network.nodes().iter().map(|node| node.describe()).collect();
    assert_eq!(before, after);
    check_one_ring(&network).unwrap();
}

#[test]
fn a_restart_of_a_hundred_is_no_storm() {
    let count = 100;
    let v = 16;
    let mut network = Network::new(8, config(v));
    (0..count).for_each(|number| network.start(name(number), Input::Resume));
    (0..count).for_each(|number| network.meet(name(number)));
    let limit = 100;
    let mut busiest = 0;
    for _ in 0..20 {
        let before = network.traffic.messages;
        network.run(seconds(1));
        busiest = busiest.max((network.traffic.messages - before) / count);
    }
    println!("at most {busiest} messages per node and second");
    // Each position asks a handful of questions until it has found its neighbours.
    assert!(busiest <= limit * u64::from(v), "{busiest} messages per node in one second");
    check_one_ring(&network).unwrap();
    network.traffic = driver::Traffic::default();
    network.run(seconds(10));
    let quiet = network.traffic.messages / count / 10;
    println!("{quiet} in quiet");
    assert!(quiet <= 4 * u64::from(v) + 40, "{quiet} messages per node and second in quiet");
}

#[test]
fn a_message_that_names_a_made_up_position_is_not_believed_at_all() {
    let mut network = Network::new(9, config(8));
    let side: Vec<NodeId> = (0..3).map(name).collect();
    settle(&mut network, &side);
    network.run(seconds(3));
    let honest = network.node(side[0]).clone();
    let virtual_node = honest.describe()[0].virtual_node;
    let made_up =
        VirtualNode { id: RingId::new(virtual_node.id.get() + 1), node: name(77), index: 0 };
    let lie = Message::Consider { to: virtual_node, candidate: made_up };
    let mut deceived = honest.clone();
    let mut out = Vec::new();
    deceived.handle(Input::Message { from: side[1], message: lie }, &mut out);
    assert_eq!((out.as_slice(), &deceived), ([].as_slice(), &honest));
    // Nor is the answer to a question.
    let mut asking = honest.clone();
    asking.handle(Input::Timer(triad_ring::Timer::Stabilize), &mut out);
    let question = out.iter().find_map(|output| match output {
        Output::Send { to, message: Message::AskState { query, .. } } => Some((*to, *query)),
        _ => None,
    });
    let (from, query) = question.expect("a period asks");
    let before = asking.describe();
    let message = Message::State { query, predecessor: None, successors: vec![made_up] };
    asking.handle(Input::Message { from, message }, &mut Vec::new());
    assert_eq!(asking.describe(), before);
}
