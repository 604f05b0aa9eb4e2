//! Copies and hand-overs, one source or receiver at a step.
//!
//! A `Pull` and a `Drain` keep a queue in an order that does not matter to what they achieve. So the
//! state has only who is done with; at each step the production machine is made anew, told of those
//! again, and led to the one that is next.

use std::time::Duration;

use triad_replica::configuration::Epoch;
use triad_replica::member::Member;
use triad_replica::message::{PullPurpose, Standing};
use triad_replica::transfer::{
    CopyTiming, Drain, DrainInput, DrainOutput, Pull, PullInput, PullOutput,
};

use super::model::Action;
use super::store::has;
use super::{Scenario, State, index_of, member};

/// Nothing takes time, and nobody rests.
const AT_ONCE: CopyTiming =
    CopyTiming { answer: Duration::ZERO, retry: Duration::ZERO, again: Duration::ZERO };

/// The one leaf that all records are in.
const LEAF: u8 = 0;

/// More failures than it takes to come round to any source.
const PATIENCE: usize = 20;

pub(super) fn actions(scenario: &Scenario, state: &State, actions: &mut Vec<Action>) {
    for index in state.live() {
        let store = state.store(index);
        if let Some(plan) = store.replica.pull_plan() {
            let learns = plan.purpose == PullPurpose::Learn;
            if plan.needed == 0 {
                actions.push(Action::Copy(index, index));
            } else if scenario.learns || !learns {
                let done = store.copied.map_or(0, |(_, done)| done);
                let sources = plan.sources.iter().map(index_of);
                let open = sources.filter(|one| !state.store(*one).lost && !has(done, *one));
                actions.extend(open.map(|source| Action::Copy(index, source)));
            }
        }
        if !scenario.drains {
            continue;
        }
        if let Some(to) = store.replica.must_drain_to() {
            let receivers = to.members();
            let receivers = receivers.iter().map(index_of).filter(|one| !state.store(*one).lost);
            actions.extend(receivers.map(|receiver| Action::HandOver(index, receiver)));
        }
        if store.replica.is_leftover() {
            actions.push(Action::Purge(index));
        }
    }
}

/// One source is copied from, if it may be.
pub(super) fn copy(state: &mut State, index: u8, source: u8) -> Option<()> {
    let store = state.store(index);
    let plan = store.replica.pull_plan()?;
    let epoch = plan.epoch;
    let done = store.copied.filter(|(of, _)| *of == epoch).map_or(0, |(_, done)| done);
    let mut pull = Pulling { pull: Pull::new(plan, AT_ONCE, Duration::ZERO), out: Vec::new() };
    for earlier in state.members_of(done) {
        pull.ask(member(earlier))?;
        let standing = Standing { entered: Some(epoch), left: Some(epoch), source: true };
        pull.tell(PullInput::Compared { from: member(earlier), standing, differing: Vec::new() });
    }
    let mut done = done;
    if source == index {
        pull.tell(PullInput::Tick);
    } else {
        pull.ask(member(source))?;
        from_source(state, &mut pull, index, source)?;
        done |= 1 << source;
    }
    let complete = pull.out.iter().any(|output| matches!(output, PullOutput::Complete { .. }));
    let learns = !state.store(index).replica.is_member();
    state.change(index, |store| {
        store.copied = (!learns).then_some((epoch, done));
        if complete && !learns {
            store.copied = None;
            let durable = store.replica.on_merged(epoch);
            store.commit(durable);
        }
    });
    Some(())
}

fn from_source(state: &mut State, pull: &mut Pulling, index: u8, source: u8) -> Option<()> {
    let from = member(source);
    let there = state.store(source);
    let (standing, record) = (there.replica.standing(), there.record.clone());
    let data_epoch = there.replica.data_epoch();
    // Always different, as false differences are harmless: who is copied from is a source that counts,
    // who is not was set aside.
    let differing = vec![LEAF];
    pull.out.clear();
    pull.tell(PullInput::Compared { from, standing, differing });
    let epoch = pull.pull.plan().epoch;
    let counts = pull.out.iter().any(|output| matches!(output, PullOutput::Fetch { .. }));
    let gives = there.replica.standing().source;
    if !counts || !gives || !state.store(index).replica.takes_page(epoch, data_epoch) {
        return None;
    }
    state.change(index, |store| store.merge(&record));
    pull.out.clear();
    pull.tell(PullInput::Merged { from, next: None });
    Some(())
}

/// A `Pull` and what it wants.
struct Pulling {
    pull: Pull,
    out: Vec<PullOutput>,
}

impl Pulling {
    fn tell(&mut self, input: PullInput) {
        self.pull.handle(input, Duration::ZERO, &mut self.out);
    }

    /// Leads it to the question for this source.
    fn ask(&mut self, source: Member) -> Option<()> {
        for _ in 0..PATIENCE {
            match self.out.pop() {
                Some(PullOutput::Compare { with }) if with == source => return Some(()),
                Some(PullOutput::Compare { with }) => self.tell(PullInput::Failed { from: with }),
                Some(_) => return None,
                None => self.tell(PullInput::Tick),
            }
        }
        None
    }
}

/// A former member hands over to one member, and purges when that was all there was to do.
pub(super) fn hand_over(state: &mut State, index: u8, receiver: u8) -> Option<()> {
    let store = state.store(index);
    let to = store.replica.must_drain_to()?.clone();
    let epoch = to.epoch;
    let known = store.handed.filter(|(of, ..)| *of == epoch);
    let (_, mut handed, mut entered) = known.unwrap_or((epoch, 0, 0));
    let drain = Drain::new(to, AT_ONCE, Duration::ZERO);
    let mut drain = Draining { drain, out: Vec::new() };
    let there = Standing { entered: Some(epoch), left: None, source: true };
    drain.tell(DrainInput::Tick);
    if drain.out.contains(&DrainOutput::Purge) {
        purge(state, index);
        return Some(());
    }
    for earlier in state.members_of(handed).chain(state.members_of(entered & !handed)) {
        drain.ask(member(earlier))?;
        let differing = if has(handed, earlier) { Vec::new() } else { vec![LEAF] };
        drain.tell(DrainInput::Compared { from: member(earlier), standing: there, differing });
    }
    drain.ask(member(receiver))?;
    let standing = state.store(receiver).replica.standing();
    let same = state.store(receiver).record.same_content(&store.record);
    let record = store.record.clone();
    let differing = if same { Vec::new() } else { vec![LEAF] };
    if standing.entered < Some(epoch) {
        return None;
    }
    drain.out.clear();
    drain.tell(DrainInput::Compared { from: member(receiver), standing, differing });
    entered |= 1 << receiver;
    let mut has_all = same;
    if drain.out.iter().any(|output| matches!(output, DrainOutput::Push { .. })) {
        push(state, index, receiver, epoch, &record)?;
        has_all = true;
        drain.tell(DrainInput::Pushed { to: member(receiver), next: None });
    }
    handed |= u8::from(has_all) << receiver;
    let purges = drain.out.contains(&DrainOutput::Purge);
    state.change(index, |store| store.handed = Some((epoch, handed, entered)));
    if purges {
        purge(state, index);
    }
    Some(())
}

fn push(
    state: &mut State,
    index: u8,
    receiver: u8,
    epoch: Epoch,
    record: &triad_replica::record::Record,
) -> Option<()> {
    let taken = state.store(receiver).replica.takes_push_from(&member(index), epoch);
    if taken {
        state.change(receiver, |store| store.merge(record));
    }
    taken.then_some(())
}

/// Forgets what is owed to nobody.
pub(super) fn purge(state: &mut State, index: u8) {
    state.purged = true;
    state.change(index, |store| {
        let durable = store.replica.purge();
        store.commit(durable);
        store.handed = None;
    });
}

/// A `Drain` and what it wants.
struct Draining {
    drain: Drain,
    out: Vec<DrainOutput>,
}

impl Draining {
    fn tell(&mut self, input: DrainInput) {
        self.drain.handle(input, Duration::ZERO, &mut self.out);
    }

    /// Leads it to the question for this receiver.
    fn ask(&mut self, receiver: Member) -> Option<()> {
        for _ in 0..PATIENCE {
            match self.out.pop() {
                Some(DrainOutput::Compare { with }) if with == receiver => return Some(()),
                Some(DrainOutput::Compare { with }) => {
                    self.tell(DrainInput::Failed { from: with });
                }
                Some(_) => return None,
                None => self.tell(DrainInput::Tick),
            }
        }
        None
    }
}
