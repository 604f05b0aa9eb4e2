//! The worked examples of the field (G1 to G5 and claim C1), and one golden script for each operation:
//! a sentence of intent, then inputs and everything that becomes visible.
//!
//! Positions are small numbers in the top bits of the circle: with m bits, position p is
//! p · 2^(128 − m). A node has one virtual node, named by its position.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use triad_ring::{
    ClusterSalt, Input, LookupId, Message, NodeId, Output, RingConfig, RingId, RingNode, Route,
    Timer, VirtualNode,
};

/// Nodes at small positions, and messages delivered at once and in order.
struct Circle {
    bits: u32,
    entries: usize,
    nodes: BTreeMap<u128, RingNode>,
    found: Vec<Route>,
    /// Everything that went over the wire or came out, one line each.
    seen: String,
}

impl Circle {
    /// `entries` = 1 leaves only the best successor, as in the first Chord paper's figures.
    fn new(bits: u32, entries: usize) -> Self {
        Self { bits, entries, nodes: BTreeMap::new(), found: Vec::new(), seen: String::new() }
    }

    fn settled(bits: u32, entries: usize, positions: &[u128]) -> Self {
        let mut circle = Self::new(bits, entries);
        let everyone: BTreeSet<NodeId> = positions.iter().map(|p| circle.node_id(*p)).collect();
        for position in positions {
            circle.add(*position);
            let node = circle.nodes.get_mut(position).expect("just added");
            node.settle(&everyone, &mut Vec::new());
        }
        circle
    }

    fn at(&self, position: u128) -> RingId {
        RingId::new(position << (128 - self.bits))
    }

    fn node_id(&self, position: u128) -> NodeId {
        NodeId::from_bytes(self.at(position).get().to_be_bytes())
    }

    fn small(&self, node: NodeId) -> u128 {
        u128::from_be_bytes(*node.as_bytes()) >> (128 - self.bits)
    }

    fn add(&mut self, position: u128) {
        let salt = ClusterSalt::from_bytes([0; 16]);
        let config = RingConfig { successor_entries: self.entries, ..RingConfig::new(salt, 1, 3) };
        let node = RingNode::with_given_position(self.node_id(position), config);
        self.nodes.insert(position, node);
    }

    /// Gives one input and lets all messages that follow arrive. Timers wait to be given.
    fn give(&mut self, position: u128, input: Input) {
        let mut arriving = VecDeque::from([(position, input)]);
        while let Some((at, input)) = arriving.pop_front() {
            let mut out = Vec::new();
            let Some(node) = self.nodes.get_mut(&at) else {
                continue;
            };
            node.handle(input, &mut out);
            for output in out {
                let line = self.line(at, &output);
                self.seen.push_str(&line);
                match output {
                    Output::Send { to, message } => {
                        let from = self.node_id(at);
                        arriving.push_back((self.small(to), Input::Message { from, message }));
                    }
                    Output::Found { route, .. } => self.found.push(route),
                    _ => {}
                }
            }
        }
    }

    /// The position's period: it stabilizes.
    fn stabilize(&mut self, position: u128) {
        self.give(position, Input::Timer(Timer::Stabilize));
    }

    fn lookup(&mut self, from: u128, target: u128) -> (u128, u32, Vec<u128>) {
        let target = self.at(target);
        self.give(from, Input::Lookup { lookup: LookupId::new(1), target });
        let route = self.found.pop().expect("every owner is found");
        let path = route.path.iter().map(|node| self.small(*node)).collect();
        (self.small(route.owner.node), route.hops, path)
    }

    fn predecessor(&self, position: u128) -> Option<u128> {
        let state = self.nodes[&position].describe().remove(0);
        state.predecessor.map(|entry| self.small(entry.node))
    }

    fn successors(&self, position: u128) -> Vec<u128> {
        let state = self.nodes[&position].describe().remove(0);
        state.successors.iter().map(|entry| self.small(entry.node)).collect()
    }

    fn successor(&self, position: u128) -> u128 {
        self.successors(position).first().copied().unwrap_or(position)
    }

    /// Fingers 1 to m as the lectures number them: finger i starts 2^(i−1) away.
    fn fingers(&self, position: u128) -> Vec<u128> {
        let state = self.nodes[&position].describe().remove(0);
        let here = state.virtual_node.id;
        let finger = |i: u32| {
            let reach = 1_u128 << (128 - self.bits + i);
            let covers = |finger: &&triad_ring::Finger| here.distance_to(finger.start) <= reach;
            let finger =
                state.fingers.iter().take_while(covers).last().expect("finger 0 is the successor");
            self.small(finger.virtual_node.node)
        };
        (0..self.bits).map(finger).collect()
    }

    fn name(&self, entry: &VirtualNode) -> String {
        self.small(entry.node).to_string()
    }

    fn names(&self, entries: &[VirtualNode]) -> String {
        let names: Vec<_> = entries.iter().map(|entry| self.name(entry)).collect();
        format!("[{}]", names.join(" "))
    }

    fn line(&self, at: u128, output: &Output) -> String {
        let mut line = String::new();
        let text = match output {
            Output::Send { to, message } => {
                format!("-> {}: {}", self.small(*to), self.say(message))
            }
            Output::SetTimer(timer @ (Timer::Stabilize | Timer::Fingers), _) => {
                format!("every {timer:?}")
            }
            Output::SetTimer(Timer::Soon, _) => "soon".to_owned(),
            // One with each question.
            Output::Await { .. } | Output::SetTimer(Timer::Query(_), _) => return line,
            Output::Found { route, .. } => {
                let path: Vec<_> = route.path.iter().map(|node| self.small(*node)).collect();
                format!("found {} by {path:?}", self.name(&route.owner))
            }
            Output::LookupFailed { path, .. } => {
                let path: Vec<_> = path.iter().map(|node| self.small(*node)).collect();
                format!("lookup failed after {path:?}")
            }
            Output::Joined => "joined".to_owned(),
            Output::ViewChanged => "view changed".to_owned(),
        };
        writeln!(line, "{at} {text}").expect("text has room");
        line
    }

    fn say(&self, message: &Message) -> String {
        match message {
            Message::AskState { .. } => "state?".to_owned(),
            Message::State { predecessor, successors, .. } => {
                let predecessor = predecessor.map_or("nil".to_owned(), |entry| self.name(&entry));
                format!("predecessor {predecessor} successors {}", self.names(successors))
            }
            Message::Unchanged { .. } => "unchanged".to_owned(),
            Message::Busy { .. } => "busy".to_owned(),
            Message::NotMember { .. } => "not a member".to_owned(),
            Message::Notify { .. } => "notify".to_owned(),
            Message::Nudge { .. } => "nudge".to_owned(),
            Message::Consider { candidate, .. } => format!("consider {}", self.name(candidate)),
            Message::Ping { .. } => "ping".to_owned(),
            Message::Pong { .. } => "pong".to_owned(),
            Message::AskStep { target, .. } => {
                format!("who owns {}?", target.get() >> (128 - self.bits))
            }
            Message::Owner { list, .. } => format!("owner {}", self.names(list)),
            Message::Closer { candidates, .. } => format!("closer {}", self.names(candidates)),
            Message::Leaving => "leaving".to_owned(),
        }
    }

    /// What became visible since last asked.
    #[track_caller]
    fn expect(&mut self, expected: &str) {
        let expected: String = expected
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .fold(String::new(), |mut text, line| {
                text.push_str(line);
                text.push('\n');
                text
            });
        assert_eq!(std::mem::take(&mut self.seen), expected);
    }
}

/// G1, the lecture's "Chord Join": 9 enters a ring with 0, 7, 12 and perhaps a fourth.
#[test]
fn g1_nine_joins_through_zero() {
    for fourth in
        [None, Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), Some(13), Some(14), Some(15)]
    {
        let mut positions = vec![0, 7, 12];
        positions.extend(fourth);
        let mut circle = Circle::settled(4, 21, &positions);
        let owners =
            |circle: &mut Circle| (0..16).map(|key| circle.lookup(0, key).0).collect::<Vec<_>>();
        let before = owners(&mut circle);

        circle.add(9);
        let via = circle.node_id(0);
        circle.give(9, Input::Join { via });
        assert_eq!((circle.predecessor(9), circle.successor(9)), (None, 12));

        circle.stabilize(9);
        assert_eq!((circle.successor(9), circle.predecessor(12)), (12, Some(9)));
        assert_eq!((circle.successor(7), circle.predecessor(9)), (12, None));

        circle.stabilize(7);
        assert_eq!((circle.successor(7), circle.predecessor(9)), (9, Some(7)));

        // Backwards along the ring, so that each hears of it from the next.
        let all: Vec<_> = circle.nodes.keys().copied().collect();
        for position in all.iter().rev().chain(all.iter().rev()) {
            circle.stabilize(*position);
        }
        let after = owners(&mut circle);
        let moved: Vec<_> = (0..16).filter(|key| before[*key] != after[*key]).collect();
        assert_eq!(moved, [8, 9]);
        assert!(moved.iter().all(|key| before[*key] == 12 && after[*key] == 9));
    }
}

#[test]
fn g2_every_key_has_the_first_node_at_or_after_it() {
    let mut circle = Circle::settled(4, 21, &[0, 7, 9, 12]);
    let expected = [0, 7, 7, 7, 7, 7, 7, 7, 9, 9, 12, 12, 12, 0, 0, 0];
    for from in [0, 7, 9, 12] {
        for key in 0..16 {
            assert_eq!(circle.lookup(from, key).0, expected[key as usize], "key {key} from {from}");
        }
    }
}

#[test]
fn g3_fingers_of_the_four_and_the_three() {
    for entries in [1, 21] {
        let four = Circle::settled(4, entries, &[0, 7, 9, 12]);
        let all = [0, 7, 9, 12].map(|position| four.fingers(position));
        assert_eq!(
            all,
            [vec![7, 7, 7, 9], vec![9, 9, 12, 0], vec![12, 12, 0, 7], vec![0, 0, 0, 7]]
        );
        let three = Circle::settled(4, entries, &[0, 7, 12]);
        let all = [0, 7, 12].map(|position| three.fingers(position));
        assert_eq!(all, [vec![7, 7, 7, 12], vec![12, 12, 12, 0], vec![0, 0, 0, 7]]);
    }
}

#[test]
fn g4_hops_in_the_full_ring_of_eight() {
    let mut circle = Circle::settled(3, 1, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let hops: Vec<_> = (0..8).map(|key| circle.lookup(0, key).1).collect();
    assert_eq!(hops, [0, 1, 1, 2, 1, 2, 2, 3]);
}

#[test]
fn g5_the_rings_of_the_chord_papers() {
    let mut small = Circle::settled(3, 1, &[0, 1, 3]);
    let fingers = [0, 1, 3].map(|position| small.fingers(position));
    assert_eq!(fingers, [vec![1, 3, 0], vec![3, 3, 0], vec![0, 0, 0]]);
    assert_eq!([1, 2, 6].map(|key| small.lookup(1, key).0), [1, 3, 0]);

    let mut ten = Circle::settled(6, 1, &[1, 8, 14, 21, 32, 38, 42, 48, 51, 56]);
    assert_eq!(ten.fingers(8), [14, 14, 14, 21, 32, 42]);
    assert_eq!([10, 24, 30, 38, 54].map(|key| ten.lookup(8, key).0), [14, 32, 32, 38, 56]);
    assert_eq!(ten.lookup(8, 54), (56, 3, vec![8, 42, 51, 56]));
}

/// C1, exact: in a full ring of 2^m, hops to the owner are the one bits of (key − node) mod 2^m.
#[test]
fn c1_hops_are_the_one_bits_of_the_distance() {
    for (bits, nodes) in [(3, 8), (4, 16), (6, 64)] {
        let mut circle = Circle::settled(bits, 1, &(0..nodes).collect::<Vec<_>>());
        let mut histogram = vec![0_u32; bits as usize + 1];
        for from in 0..nodes {
            for key in 0..nodes {
                let hops = circle.lookup(from, key).1;
                assert_eq!(hops, (key.wrapping_sub(from) % nodes).count_ones());
                histogram[hops as usize] += 1;
            }
        }
        let sum: u32 = (0..).zip(&histogram).map(|(hops, count): (u32, _)| hops * count).sum();
        // The mean is m/2: twice the sum is m for each of the 4^m pairs.
        assert_eq!(u128::from(2 * sum), u128::from(bits) * nodes * nodes);
        if nodes == 8 {
            assert_eq!(histogram, [8, 24, 24, 8]);
        }
    }
}

/// C1 at 1,024 nodes: at most 10 hops, 5 on average. All nodes are alike, so one asks.
#[test]
fn c1_in_a_ring_of_1024() {
    let mut circle = Circle::settled(10, 1, &(0..1_024).collect::<Vec<_>>());
    let hops: Vec<u32> = (0..1_024).map(|key| circle.lookup(317, key).1).collect();
    for (key, hops) in (0..1_024_u128).zip(&hops) {
        assert_eq!(*hops, (key.wrapping_sub(317) % 1_024).count_ones());
    }
    assert_eq!((hops.iter().max(), hops.iter().sum::<u32>()), (Some(&10), 5 * 1_024));
}

/// One that founds a ring is alone in it and owns everything.
#[test]
fn script_create() {
    let mut circle = Circle::new(4, 21);
    circle.add(5);
    circle.give(5, Input::Create);
    circle.give(5, Input::Lookup { lookup: LookupId::new(1), target: circle.at(9) });
    circle.expect(
        "
        5 every Stabilize
        5 every Fingers
        5 joined
        5 view changed
        5 found 5 by [5]
        ",
    );
}

/// A joiner looks its place up, copies the list of the one before it, and has no predecessor yet.
#[test]
fn script_join() {
    let mut circle = Circle::settled(4, 21, &[0, 7, 12]);
    circle.add(9);
    let via = circle.node_id(0);
    circle.give(9, Input::Join { via });
    assert_eq!((circle.predecessor(9), circle.successors(9)), (None, vec![12, 0, 7]));
    circle.expect(
        "
        9 every Stabilize
        9 every Fingers
        9 -> 0: who owns 9?
        0 -> 9: owner [12]
        9 -> 7: state?
        7 -> 9: predecessor 0 successors [12 0]
        9 soon
        9 joined
        9 view changed
        ",
    );
}

/// In a quiet ring stabilization asks once, then hears that nothing has changed.
#[test]
fn script_stabilize_in_quiet() {
    let mut circle = Circle::settled(4, 21, &[0, 7, 12]);
    circle.stabilize(7);
    circle.stabilize(7);
    circle.expect(
        "
        7 every Stabilize
        7 -> 12: state?
        12 -> 7: predecessor 7 successors [0 7]
        7 every Stabilize
        7 -> 12: state?
        12 -> 7: unchanged
        ",
    );
}

/// The successor's predecessor is nearer: it is asked, adopted and notified.
#[test]
fn script_stabilize_from_predecessor() {
    let mut circle = Circle::settled(4, 21, &[0, 7, 12]);
    circle.add(9);
    let via = circle.node_id(0);
    circle.give(9, Input::Join { via });
    circle.stabilize(9);
    circle.seen.clear();
    circle.stabilize(7);
    assert_eq!(circle.successors(7), [9, 12, 0]);
    circle.expect(
        "
        7 every Stabilize
        7 -> 12: state?
        12 -> 7: predecessor 9 successors [0 7]
        7 -> 9: state?
        9 -> 7: predecessor nil successors [12 0 7]
        7 soon
        7 view changed
        7 -> 9: notify
        9 view changed
        ",
    );
    // What changed is told backwards soon.
    circle.give(7, Input::Timer(Timer::Soon));
    circle.expect(
        "
        7 -> 0: nudge
        0 soon
        ",
    );
}

/// While its own question is open a virtual node answers "busy", and the asker comes back soon.
#[test]
fn script_busy() {
    let mut circle = Circle::settled(4, 21, &[0, 7, 12]);
    let silent = circle.nodes.remove(&12);
    circle.stabilize(7);
    circle.stabilize(0);
    circle.expect(
        "
        7 every Stabilize
        7 -> 12: state?
        0 every Stabilize
        0 -> 7: state?
        7 -> 0: busy
        0 soon
        ",
    );
    circle.nodes.extend(silent.map(|node| (12, node)));
    let query = triad_ring::QueryId::new(1);
    circle.give(7, Input::Timer(Timer::Query(query)));
    circle.give(0, Input::Timer(Timer::Soon));
    circle.expect(
        "
        0 -> 7: state?
        7 -> 0: predecessor 0 successors [12 0]
        ",
    );
}

/// One farther away says that it is our predecessor: the one we have is asked whether it lives.
#[test]
fn script_rectify() {
    let mut circle = Circle::settled(4, 21, &[0, 7, 9, 12]);
    let notify = |circle: &Circle, from: u128, to: u128| {
        let message = Message::Notify { to: entry_of(circle, to), asker: entry_of(circle, from) };
        Input::Message { from: circle.node_id(from), message }
    };
    circle.give(12, notify(&circle, 7, 12));
    assert_eq!(circle.predecessor(12), Some(9), "it lives");
    circle.expect(
        "
        12 -> 9: ping
        9 -> 12: pong
        ",
    );
    // It has restarted and is in no ring.
    circle.add(9);
    circle.give(12, notify(&circle, 7, 12));
    assert_eq!(circle.predecessor(12), Some(7));
    circle.expect(
        "
        12 -> 9: ping
        9 -> 12: not a member
        12 soon
        12 view changed
        ",
    );
    // It is dead, but not yet declared so: three silences are enough.
    circle.add(8);
    circle.give(12, notify(&circle, 8, 12));
    circle.nodes.remove(&8);
    for query in 3..6 {
        assert_eq!(circle.predecessor(12), Some(8));
        circle.give(12, notify(&circle, 7, 12));
        circle.give(12, Input::Timer(Timer::Query(triad_ring::QueryId::new(query))));
    }
    assert_eq!(circle.predecessor(12), Some(7));
}

/// A failed best successor gives way to the next of the list, which is asked soon.
#[test]
fn script_failed_successor() {
    let mut circle = Circle::settled(4, 2, &[0, 3, 7, 9, 12]);
    circle.nodes.remove(&7);
    let failed = circle.node_id(7);
    circle.give(3, Input::Failed(failed));
    assert_eq!(circle.successors(3), [9]);
    circle.give(9, Input::Failed(failed));
    assert_eq!(circle.predecessor(9), None);
    circle.give(3, Input::Timer(Timer::Soon));
    assert_eq!(circle.successors(3), [9, 12]);
    assert_eq!(circle.predecessor(9), Some(3));
    circle.expect(
        "
        3 soon
        3 view changed
        9 view changed
        3 -> 9: state?
        9 -> 3: predecessor nil successors [12 0]
        3 soon
        3 view changed
        3 -> 9: notify
        9 view changed
        ",
    );
    // What others say of it does not bring it back (R4).
    let message = Message::Consider { to: entry_of(&circle, 3), candidate: entry_of(&circle, 7) };
    let from = circle.node_id(0);
    circle.give(3, Input::Message { from, message });
    circle.expect("");
    // That it notifies us does: it is back, as our predecessor at least.
    let message = Message::Notify { to: entry_of(&circle, 9), asker: entry_of(&circle, 7) };
    let from = circle.node_id(7);
    circle.give(9, Input::Message { from, message });
    assert_eq!(circle.predecessor(9), Some(7));
}

fn entry_of(circle: &Circle, position: u128) -> VirtualNode {
    VirtualNode { id: circle.at(position), node: circle.node_id(position), index: 0 }
}

/// One that leaves tells all it knows; they forget it at once.
#[test]
fn script_leave() {
    let mut circle = Circle::settled(4, 21, &[0, 7, 12]);
    circle.give(7, Input::Leave);
    assert_eq!((circle.successors(0), circle.predecessor(12)), (vec![12], None));
    assert!(!circle.nodes[&7].is_member());
    circle.expect(
        "
        7 view changed
        7 -> 0: leaving
        7 -> 12: leaving
        0 soon
        0 view changed
        12 soon
        12 view changed
        ",
    );
}

/// Two that each are a ring of their own meet, and are one.
#[test]
fn script_met() {
    let mut circle = Circle::new(4, 21);
    for position in [3, 9] {
        circle.add(position);
        circle.give(position, Input::Resume);
    }
    circle.seen.clear();
    let met = circle.node_id(9);
    circle.give(3, Input::Met(met));
    assert_eq!((circle.successors(3), circle.predecessor(9)), (vec![9], Some(3)));
    circle.expect(
        "
        3 -> 9: state?
        9 -> 3: predecessor nil successors []
        3 soon
        3 view changed
        3 -> 9: notify
        9 soon
        9 view changed
        ",
    );
    circle.give(9, Input::Timer(Timer::Soon));
    assert_eq!((circle.successors(9), circle.predecessor(3)), (vec![3], Some(9)));
    circle.expect(
        "
        9 -> 3: state?
        3 -> 9: predecessor nil successors [9]
        9 soon
        9 view changed
        9 -> 3: notify
        3 view changed
        ",
    );
}

/// A lookup goes round a silent node by the next best.
#[test]
fn script_lookup_with_a_silent_node() {
    let mut circle = Circle::settled(4, 1, &[0, 2, 4, 8, 10]);
    circle.nodes.remove(&8);
    circle.give(0, Input::Lookup { lookup: LookupId::new(1), target: circle.at(10) });
    circle.expect(
        "
        0 -> 8: who owns 10?
        ",
    );
    circle.give(0, Input::Timer(Timer::Query(triad_ring::QueryId::new(1))));
    circle.expect(
        "
        0 -> 4: who owns 10?
        4 -> 0: closer [8]
        0 -> 2: who owns 10?
        2 -> 0: closer [10 8 4]
        0 -> 10: who owns 10?
        10 -> 0: owner [10]
        0 found 10 by [0, 4, 2, 10]
        ",
    );
}

/// A refresh of fingers looks up only what the lists do not reach, within its budget.
#[test]
fn script_fingers() {
    let mut circle = Circle::settled(4, 1, &[0, 2, 4, 8, 10]);
    circle.give(0, Input::Timer(Timer::Fingers));
    circle.expect(
        "
        0 every Fingers
        0 -> 4: who owns 4?
        0 -> 8: who owns 8?
        4 -> 0: owner [4]
        8 -> 0: owner [8]
        ",
    );
}
