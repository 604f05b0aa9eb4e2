//! What is explored: who is there, and how often what may happen.

use std::collections::BTreeSet;

use triad_ring::{ClusterSalt, Input, NodeId, RingConfig, RingNode};

use super::world::{Letter, Place, Process, World};

/// How often each kind of event may still happen. Periods, arrivals of letters, questions that wait
/// for the dead and declarations of the dead are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// New nodes that join.
    pub(super) joins: u8,
    /// Deaths.
    pub(super) crashes: u8,
    /// Polite departures.
    pub(super) leaves: u8,
    /// Starts of nodes that were there before.
    pub(super) returns: u8,
    /// Questions given up though they or their answer were on the way.
    pub(super) timeouts: u8,
    /// Nodes of which another is told that they are there.
    pub(super) meetings: u8,
    /// Lookups of an own place through another.
    pub(super) comparisons: u8,
}

/// How one that was there before comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    /// By joining through a member.
    Join,
    /// As a ring of its own, which then meets the others.
    Resume,
}

/// One bounded course of events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    /// V, virtual nodes of each node. With one, positions are given: the node's number.
    pub(super) virtual_nodes: u16,
    /// How many nodes there are at most.
    pub(super) nodes: usize,
    /// The settled rings at the beginning, by number of node.
    pub(super) rings: &'static [&'static [Place]],
    /// r, the entries of a successor list; 0 for as many as N + 2 nodes need.
    pub(super) entries: usize,
    /// N: a list reaches N + 2 nodes.
    pub(super) replication_factor: usize,
    /// How many principals there must always be (R2); 0 where rings are still apart.
    pub(super) principals: usize,
    /// How often what may happen.
    pub(super) budget: Budget,
    /// How nodes come back.
    pub(super) returns: Returns,
    /// Whether answers arrive also after their question was given up.
    pub(super) late_answers: bool,
    /// Whether questions, and answers that tell nothing new, arrive at once. That leaves out courses
    /// in which somebody is found busy by one while his question has not arrived at another.
    pub(super) swift: bool,
    /// How many letters may be under way at once.
    pub(super) letters: usize,
    /// Whether nudges travel and hurried work has its own timer.
    pub(super) haste: bool,
}

/// What most scenarios have in common.
pub(super) const USUAL: Scenario = Scenario {
    virtual_nodes: 1,
    nodes: 4,
    rings: &[&[0, 1, 2]],
    entries: 2,
    replication_factor: 0,
    principals: 3,
    budget: NOTHING,
    returns: Returns::Join,
    late_answers: false,
    swift: true,
    letters: 3,
    haste: false,
};

pub(super) const NOTHING: Budget = Budget {
    joins: 0,
    crashes: 0,
    leaves: 0,
    returns: 0,
    timeouts: 0,
    meetings: 0,
    comparisons: 0,
};

impl Scenario {
    /// The state in which it begins.
    pub(super) fn start(&self) -> World {
        let mut world = World {
            processes: vec![Process::New; self.nodes],
            letters: BTreeSet::new(),
            declared: BTreeSet::new(),
            lonely: self.rings.iter().filter(|ring| ring.len() == 1).map(|ring| ring[0]).collect(),
            left: self.budget,
        };
        for ring in self.rings {
            let ids: BTreeSet<NodeId> = ring.iter().map(|at| name_of(*at)).collect();
            for at in *ring {
                let mut node = self.fresh(*at);
                node.settle(&ids, &mut Vec::new());
                node.take_normal_form();
                node.forget_haste();
                world.put(*at, node);
            }
        }
        world
    }

    /// A node that has just been started and is in no ring.
    pub(super) fn fresh(&self, at: Place) -> RingNode {
        let salt = ClusterSalt::from_bytes(*b"salt of the test");
        let mut config = RingConfig::new(salt, self.virtual_nodes, self.replication_factor);
        config.finger_budget = 2;
        if self.entries > 0 {
            config.successor_entries = self.entries;
        }
        if self.virtual_nodes == 1 {
            RingNode::with_given_position(name_of(at), config)
        } else {
            RingNode::new(name_of(at), config)
        }
    }

    pub(super) fn is_swift(&self, letter: &Letter) -> bool {
        self.swift && (letter.is_question() || letter.is_empty_answer())
    }

    pub(super) fn returning(&self, via: NodeId) -> Input {
        match self.returns {
            Returns::Join => Input::Join { via },
            Returns::Resume => Input::Resume,
        }
    }
}

pub(super) fn name_of(at: Place) -> NodeId {
    NodeId::from_bytes((at as u128 + 1).to_be_bytes())
}

pub(super) fn place_of(name: NodeId) -> Place {
    u128::from_be_bytes(*name.as_bytes()) as usize - 1
}
