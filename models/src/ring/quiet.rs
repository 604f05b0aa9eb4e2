//! Liveness, in a bounded way: from a state, with no more faults and everybody doing its duty in
//! turn, the ring is ideal within a few rounds (Zave §V, Theorem 2).

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use triad_ring::invariant::{Violation, is_ideal, is_unknown_to, lists_reach_enough_nodes};
use triad_ring::{Input, Timer};

use super::scenario::{Budget, name_of};
use super::step::RingModel;
use super::world::{Place, Process, World, print_of};

/// A ring of five takes four rounds at most.
const ROUNDS: usize = 16;
/// Letters that one question of peace can set going.
const LETTERS: usize = 2_000;

/// States without letters from which the ring is known to become ideal.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<BTreeSet<u64>>);

impl Quiet {
    fn knows(&self, print: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&print)
    }

    fn learn(&self, prints: impl IntoIterator<Item = u64>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(prints);
    }
}

impl RingModel {
    /// Whether the ring becomes ideal from here.
    pub(super) fn becomes_ideal(&self, world: &World) -> Result<(), Violation> {
        let mut world = world.clone();
        world.left = Budget::default();
        let mut passed = Vec::new();
        self.calm(&mut world);
        for round in 0..ROUNDS {
            let print = print_of(&world);
            if self.quiet.knows(print) {
                break;
            }
            passed.push(print);
            match self.is_at_rest(&world) {
                Ok(()) => break,
                Err(violation) if round + 1 == ROUNDS => return Err(violation),
                Err(_) => self.round(&mut world, round),
            }
        }
        self.quiet.learn(passed);
        Ok(())
    }

    fn is_at_rest(&self, world: &World) -> Result<(), Violation> {
        let nodes = world.nodes();
        is_ideal(&nodes)?;
        // Where a scenario says how short the lists are, they are as short.
        if self.scenario.entries == 0 { lists_reach_enough_nodes(&nodes) } else { Ok(()) }
    }

    /// The dead are declared, the returned are met, every letter arrives, and what waits for the dead
    /// gives up.
    fn calm(&self, world: &mut World) {
        for at in world.running() {
            for other in 0..self.scenario.nodes {
                let declared = world.declared.contains(&(at, other));
                match &world.processes[other] {
                    Process::Down if !declared => self.declare(world, at, other),
                    Process::Up(_) if declared => self.meet(world, at, other),
                    _ => {}
                }
            }
        }
        self.deliver(world);
        for at in world.running() {
            let questions = world.node(at).map(triad_ring::RingNode::open_questions);
            for (query, _) in questions.unwrap_or_default().into_iter().rev() {
                world.input(&self.scenario, at, Input::Timer(Timer::Query(query)));
            }
        }
        self.deliver(world);
    }

    fn deliver(&self, world: &mut World) {
        for _ in 0..LETTERS {
            let Some(letter) = world.letters.first().cloned() else {
                return;
            };
            world.arrive(&self.scenario, &letter);
        }
    }

    /// One period of every node, one after the other; who is not in joins by a member, strangers are
    /// met, and each compares itself with another's ring.
    fn round(&self, world: &mut World, round: usize) {
        let members: Vec<Place> = world.running().filter(|at| world.is_member(*at)).collect();
        for at in world.running() {
            if let (false, Some(via)) = (world.is_member(at), members.first()) {
                let via = name_of(*via);
                world.input(&self.scenario, at, Input::Join { via });
            } else if members.len() > 1 {
                let via = members[(at + round) % members.len()];
                let via = name_of(via);
                world.input(&self.scenario, at, Input::Compare { via });
            }
            self.deliver(world);
            for other in members.iter().filter(|other| **other != at) {
                let stranger = name_of(*other);
                if world.node(at).is_some_and(|node| is_unknown_to(node, stranger).is_ok()) {
                    self.meet(world, at, *other);
                    self.deliver(world);
                }
            }
            for timer in [Timer::Soon, Timer::Stabilize, Timer::Fingers] {
                if self.scenario.haste || timer != Timer::Fingers {
                    world.input(&self.scenario, at, Input::Timer(timer));
                    self.deliver(world);
                }
            }
        }
    }
}
