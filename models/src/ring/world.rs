//! The state: nodes, and the letters between them.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use triad_ring::{Input, Message, NodeId, Output, QueryId, RingNode};

use super::scenario::{Budget, Scenario, name_of, place_of};

/// One position in the scenario's list of nodes.
pub(super) type Place = usize;

/// The name that all questions have which nobody waits for any more.
const LATE: QueryId = QueryId::new(0);

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Letter {
    pub(super) to: Place,
    pub(super) from: Place,
    pub(super) message: Message,
}

/// A running node with its hash, for most steps change one node of many.
#[derive(Clone, Debug)]
pub(super) struct Running {
    node: Arc<RingNode>,
    print: u64,
}

impl Running {
    fn new(node: RingNode) -> Self {
        let print = print_of(&node);
        Self { node: Arc::new(node), print }
    }
}

impl PartialEq for Running {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print && self.node == other.node
    }
}

impl Eq for Running {}

impl Hash for Running {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

pub(super) fn print_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A process that is, was or will be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Process {
    /// It has never run.
    New,
    /// It runs.
    Up(Running),
    /// It died, or left.
    Down,
}

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) processes: Vec<Process>,
    pub(super) letters: BTreeSet<Letter>,
    /// Who was declared failed to whom, and has not been met since.
    pub(super) declared: BTreeSet<(Place, Place)>,
    /// Restarted as rings of their own, and not part of another yet.
    pub(super) lonely: BTreeSet<Place>,
    pub(super) left: Budget,
}

impl World {
    pub(super) fn node(&self, at: Place) -> Option<&RingNode> {
        match &self.processes[at] {
            Process::Up(running) => Some(&running.node),
            Process::New | Process::Down => None,
        }
    }

    /// All running nodes.
    pub(super) fn nodes(&self) -> Vec<&RingNode> {
        (0..self.processes.len()).filter_map(|at| self.node(at)).collect()
    }

    pub(super) fn running(&self) -> impl Iterator<Item = Place> + use<> {
        let up: Vec<_> = (0..self.processes.len()).filter(|at| self.node(*at).is_some()).collect();
        up.into_iter()
    }

    pub(super) fn is_member(&self, at: Place) -> bool {
        self.node(at).is_some_and(RingNode::is_member)
    }

    pub(super) fn start(&mut self, scenario: &Scenario, at: Place, input: Input) {
        self.put(at, scenario.fresh(at));
        self.input(scenario, at, input);
    }

    pub(super) fn put(&mut self, at: Place, node: RingNode) {
        self.processes[at] = Process::Up(Running::new(node));
    }

    /// The process ends. What it told may still arrive; what it was told does not, nor what it asked.
    pub(super) fn stop(&mut self, at: Place) {
        self.processes[at] = Process::Down;
        self.letters.retain(|letter| letter.to != at && !letter.is_question_of(at));
        self.lonely.remove(&at);
        self.declared.retain(|(who, _)| *who != at);
    }

    /// Hands an input to a running node and its messages to the network.
    pub(super) fn input(&mut self, scenario: &Scenario, at: Place, input: Input) {
        self.inputs(scenario, at, [input]);
    }

    /// Several inputs, one right after the other.
    pub(super) fn inputs<const COUNT: usize>(
        &mut self,
        scenario: &Scenario,
        at: Place,
        inputs: [Input; COUNT],
    ) {
        let Some(mut node) = self.node(at).cloned() else {
            return;
        };
        let mut out = Vec::new();
        for input in inputs {
            node.handle(input, &mut out);
        }
        for output in out {
            if let Output::Send { to, message } = output {
                self.post(scenario, at, to, message);
            }
        }
        if !scenario.haste {
            node.forget_haste();
        }
        let old = node.take_normal_form();
        self.rename(scenario, at, &old);
        if !node.is_alone() {
            self.lonely.remove(&at);
        }
        self.put(at, node);
        while let Some(letter) =
            self.letters.iter().find(|letter| scenario.is_swift(letter)).cloned()
        {
            self.arrive(scenario, &letter);
        }
    }

    pub(super) fn arrive(&mut self, scenario: &Scenario, letter: &Letter) {
        self.letters.remove(letter);
        let from = name_of(letter.from);
        let message = letter.message.clone();
        self.input(scenario, letter.to, Input::Message { from, message });
    }

    fn post(&mut self, scenario: &Scenario, from: Place, to: NodeId, message: Message) {
        let hastens = matches!(message, Message::Nudge { .. });
        let to = place_of(to);
        if self.node(to).is_some() && (scenario.haste || !hastens) {
            self.letters.insert(Letter { to, from, message });
        }
    }

    /// The open questions of `at` have the names 1, 2, … now instead of the old ones.
    fn rename(&mut self, scenario: &Scenario, at: Place, old: &[QueryId]) {
        let changes = |letter: &Letter| {
            letter.query_of(at).is_some_and(|query| query != new_name(old, query) || query == LATE)
        };
        if !self.letters.iter().any(changes) {
            return;
        }
        for mut letter in std::mem::take(&mut self.letters) {
            if let Some(query) = letter.query_of(at) {
                let query = new_name(old, query);
                if query == LATE && !(scenario.late_answers && letter.to == at) {
                    continue;
                }
                letter.message = renamed(letter.message, query);
            }
            self.letters.insert(letter);
        }
    }
}

fn new_name(old: &[QueryId], query: QueryId) -> QueryId {
    let place = old.iter().position(|name| *name == query);
    place.map_or(LATE, |place| QueryId::new(place as u64 + 1))
}

impl Letter {
    /// The name in it that `at` gave to a question.
    fn query_of(&self, at: Place) -> Option<QueryId> {
        let (query, asks) = question(&self.message)?;
        let asker = if asks { self.from } else { self.to };
        (asker == at).then_some(query)
    }

    /// Whether it is this question of `at`, or its answer.
    pub(super) fn carries(&self, at: Place, query: QueryId) -> bool {
        self.query_of(at) == Some(query)
    }

    fn is_question_of(&self, at: Place) -> bool {
        self.from == at && self.is_question()
    }

    pub(super) fn is_question(&self) -> bool {
        question(&self.message).is_some_and(|(_, asks)| asks)
    }

    /// Whether it is an answer that tells nothing new.
    pub(super) fn is_empty_answer(&self) -> bool {
        matches!(self.message, Message::Unchanged { .. } | Message::Busy { .. })
    }
}

/// The name of the question in a message, and whether the message is the question itself.
fn question(message: &Message) -> Option<(QueryId, bool)> {
    match message {
        Message::AskState { query, .. }
        | Message::Ping { query, .. }
        | Message::AskStep { query, .. } => Some((*query, true)),
        Message::State { query, .. }
        | Message::Unchanged { query }
        | Message::Busy { query }
        | Message::NotMember { query }
        | Message::Pong { query }
        | Message::Owner { query, .. }
        | Message::Closer { query, .. } => Some((*query, false)),
        Message::Notify { .. }
        | Message::Nudge { .. }
        | Message::Consider { .. }
        | Message::Leaving => None,
    }
}

fn renamed(mut message: Message, to: QueryId) -> Message {
    match &mut message {
        Message::AskState { query, .. }
        | Message::Ping { query, .. }
        | Message::AskStep { query, .. }
        | Message::State { query, .. }
        | Message::Unchanged { query }
        | Message::Busy { query }
        | Message::NotMember { query }
        | Message::Pong { query }
        | Message::Owner { query, .. }
        | Message::Closer { query, .. } => *query = to,
        Message::Notify { .. }
        | Message::Nudge { .. }
        | Message::Consider { .. }
        | Message::Leaving => {}
    }
    message
}
