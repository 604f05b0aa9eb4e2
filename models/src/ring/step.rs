//! What may happen next, and what it does.

use stateright::{Model, Property};
use triad_ring::invariant::{enough_principals, is_unknown_to, live_successor};
use triad_ring::mutant::{self, Mutant};
use triad_ring::{Input, NodeId, QueryId, RingNode, Timer};

use super::quiet::Quiet;
use super::rules;
use super::scenario::{Returns, Scenario, name_of};
use super::world::{Letter, Place, Process, World};

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// A new node starts and joins by another.
    Join(Place, Place),
    /// One that was there before starts again, perhaps by another.
    Return(Place, Option<Place>),
    /// A process dies.
    Crash(Place),
    /// A node leaves politely and ends.
    Leave(Place),
    /// The first is told that the second has failed.
    Declare(Place, Place),
    /// The first is told that the second is there.
    Meet(Place, Place),
    /// The first looks itself up through the second.
    Compare(Place, Place),
    /// A node's period begins.
    Period(Place),
    /// A node's hurried work is due.
    Soon(Place),
    /// A node's period of fingers begins.
    Fingers(Place),
    /// A question is given up.
    GiveUp(Place, QueryId),
    /// A letter arrives.
    Arrive(Letter),
}

/// A scenario with at most one rule left out.
#[derive(Debug)]
pub(super) struct RingModel {
    pub(super) scenario: Scenario,
    pub(super) left_out: Option<Mutant>,
    pub(super) quiet: Quiet,
}

impl RingModel {
    /// The model of a scenario.
    pub(super) fn new(scenario: Scenario, left_out: Option<Mutant>) -> Self {
        Self { scenario, left_out, quiet: Quiet::default() }
    }

    pub(super) fn with_mutant<T>(&self, act: impl FnOnce() -> T) -> T {
        mutant::with(self.left_out, act)
    }

    fn starts(&self, world: &World, events: &mut Vec<Event>) {
        for (at, process) in world.processes.iter().enumerate() {
            let members = world.running().filter(|via| world.is_member(*via));
            match process {
                Process::New if world.left.joins > 0 => {
                    events.extend(members.map(|via| Event::Join(at, via)));
                }
                Process::Down if world.left.returns > 0 => match self.scenario.returns {
                    Returns::Join => {
                        events.extend(members.map(|via| Event::Return(at, Some(via))));
                    }
                    Returns::Resume => events.push(Event::Return(at, None)),
                },
                Process::New | Process::Down | Process::Up(_) => {}
            }
        }
    }

    /// What may happen to one running node.
    fn events_at(&self, world: &World, at: Place, node: &RingNode, events: &mut Vec<Event>) {
        events.push(Event::Period(at));
        if self.scenario.haste {
            events.extend([Event::Soon(at), Event::Fingers(at)]);
        }
        let questions = node.open_questions();
        for (query, _) in &questions {
            let on_the_way = world.letters.iter().any(|letter| letter.carries(at, *query));
            if !on_the_way || world.left.timeouts > 0 {
                events.push(Event::GiveUp(at, *query));
            }
        }
        if world.left.crashes > 0 && self.may_go(world, at) {
            events.push(Event::Crash(at));
        }
        if world.left.leaves > 0 && node.is_member() && self.may_go(world, at) {
            events.push(Event::Leave(at));
        }
        for other in (0..self.scenario.nodes).filter(|other| *other != at) {
            if may_be_declared(world, node, at, other, &questions) {
                events.push(Event::Declare(at, other));
            }
            if world.left.meetings > 0 && world.is_member(other) {
                events.push(Event::Meet(at, other));
            }
            if world.left.comparisons > 0 && world.is_member(other) {
                events.push(Event::Compare(at, other));
            }
        }
    }

    /// Zave's operating assumption.
    fn may_go(&self, world: &World, at: Place) -> bool {
        let name = name_of(at);
        let mut rest = world.nodes();
        rest.retain(|node| node.id() != name);
        live_successor(&rest).is_ok() && enough_principals(&rest, self.scenario.principals).is_ok()
    }

    pub(super) fn apply(&self, world: &mut World, event: &Event) {
        let scenario = &self.scenario;
        match event {
            Event::Join(at, via) => {
                world.left.joins -= 1;
                let via = name_of(*via);
                world.start(scenario, *at, Input::Join { via });
            }
            Event::Return(at, via) => {
                world.left.returns -= 1;
                self.bring_back(world, *at, *via);
            }
            Event::Crash(at) => {
                world.left.crashes -= 1;
                world.stop(*at);
            }
            Event::Leave(at) => {
                world.left.leaves -= 1;
                world.input(scenario, *at, Input::Leave);
                world.stop(*at);
            }
            Event::Declare(at, other) => self.declare(world, *at, *other),
            Event::Meet(at, other) => {
                world.left.meetings -= 1;
                self.meet(world, *at, *other);
            }
            Event::Compare(at, via) => {
                world.left.comparisons -= 1;
                world.input(scenario, *at, Input::Compare { via: name_of(*via) });
            }
            Event::Period(at) if scenario.haste => {
                world.input(scenario, *at, Input::Timer(Timer::Stabilize));
            }
            Event::Period(at) => {
                let both = [Input::Timer(Timer::Soon), Input::Timer(Timer::Stabilize)];
                world.inputs(scenario, *at, both);
            }
            Event::Soon(at) => world.input(scenario, *at, Input::Timer(Timer::Soon)),
            Event::Fingers(at) => world.input(scenario, *at, Input::Timer(Timer::Fingers)),
            Event::GiveUp(at, query) => {
                if world.letters.iter().any(|letter| letter.carries(*at, *query)) {
                    world.left.timeouts -= 1;
                }
                world.input(scenario, *at, Input::Timer(Timer::Query(*query)));
            }
            Event::Arrive(letter) => world.arrive(scenario, letter),
        }
    }

    /// What its former life sent arrives no more, once its transport has introduced the new one.
    fn bring_back(&self, world: &mut World, at: Place, via: Option<Place>) {
        world.letters.retain(|letter| letter.from != at);
        let via = name_of(via.unwrap_or(at));
        if self.scenario.returns == Returns::Resume {
            world.lonely.insert(at);
        }
        world.start(&self.scenario, at, self.scenario.returning(via));
    }

    pub(super) fn declare(&self, world: &mut World, at: Place, other: Place) {
        world.declared.insert((at, other));
        world.letters.retain(|letter| (letter.from, letter.to) != (other, at));
        world.input(&self.scenario, at, Input::Failed(name_of(other)));
    }

    pub(super) fn meet(&self, world: &mut World, at: Place, other: Place) {
        world.declared.remove(&(at, other));
        world.input(&self.scenario, at, Input::Met(name_of(other)));
    }
}

/// The dead are declared to those that have to do with them.
fn may_be_declared(
    world: &World,
    node: &RingNode,
    at: Place,
    other: Place,
    questions: &[(QueryId, NodeId)],
) -> bool {
    if world.processes[other] != Process::Down || world.declared.contains(&(at, other)) {
        return false;
    }
    let name = name_of(other);
    questions.iter().any(|(_, of)| *of == name) || is_unknown_to(node, name).is_err()
}

impl Model for RingModel {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![self.with_mutant(|| self.scenario.start())]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        self.starts(world, events);
        for at in world.running() {
            if let Some(node) = world.node(at) {
                self.events_at(world, at, node, events);
            }
        }
        events.extend(world.letters.iter().cloned().map(Event::Arrive));
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        self.with_mutant(|| self.apply(&mut next, &event));
        let too_many = !matches!(event, Event::Leave(_))
            && next.letters.len() > self.scenario.letters.max(world.letters.len());
        (!too_many && next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::all()
    }
}
