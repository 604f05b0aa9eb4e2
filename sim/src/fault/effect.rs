//! Whether a fault made a difference.
//!
//! What counts is no more than what such a fault alone can do, where that can be seen: segments of the very links that
//! were held up, reads and writes of the very store that failed, the very member that was replaced. Where only clients
//! can tell (a process that is gone, or stands still), a request must have failed or taken long while the fault lasted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use triad_replica::member::Member;
use triad_replica::store::MemoryStore;

use super::Kind;
use crate::network::MachineId;
use crate::view::View;
use crate::world::World;

/// A request that takes longer was held up.
pub(crate) const LONG: Duration = Duration::from_millis(600);
/// How long after its end a fault may still show.
const AFTERMATH: Duration = Duration::from_secs(3);
/// How long a member may take to be replaced, or a newcomer to be a member.
const MOVES: Duration = Duration::from_mins(10);

/// What clients have felt so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Felt {
    /// Requests that failed, stayed in doubt, or were held up.
    pub hampered: u64,
    /// Requests refused because of too many others.
    pub overloaded: u64,
    /// Requests refused because a disk is full.
    pub no_space: u64,
    /// Reads of values with a time to live that were judged.
    pub lives_judged: u64,
    /// Writes that were repeated under their id.
    pub repeated: u64,
}

/// What clients have felt so far, shared with them.
#[derive(Clone, Default)]
pub struct Feelings(Arc<Mutex<Felt>>);

impl Feelings {
    /// Adds to it.
    pub fn add(&self, add: impl FnOnce(&mut Felt)) {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// So far.
    pub fn now(&self) -> Felt {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a fault shows.
pub(super) enum Trace {
    /// Clients' requests were hampered.
    Clients,
    /// Clients were refused, or hampered, for there were too many.
    Overload,
    /// Something on these links was held up.
    Links(Vec<(MachineId, MachineId)>),
    /// The store failed at something, or clients were refused for want of room.
    Store(MemoryStore),
    /// Syncs of the machine were slow.
    SlowSyncs(MachineId),
    /// A row that could not be read could be read again, or was replaced together with its store.
    Mended,
    /// Values with a time to live were judged meanwhile.
    Lives,
    /// The member is one no more.
    Replaced(Member),
    /// All these machines' nodes are members of one shard.
    Together(Vec<MachineId>),
}

/// A fault that may still show.
pub(super) struct Case {
    kind: Kind,
    until: Duration,
    trace: Trace,
    before: Felt,
    count: u64,
}

impl Case {
    /// One that begins now and whose fault lasts until then.
    pub(super) fn open(
        kind: Kind,
        over: Duration,
        trace: Trace,
        world: &World,
        eyes: Eyes,
    ) -> Self {
        let lasting = matches!(trace, Trace::Replaced(_) | Trace::Together(_) | Trace::Mended);
        let until = if lasting { world.now() + MOVES } else { over + AFTERMATH };
        let count = trace.count(world, &eyes);
        Self { kind, until, trace, before: eyes.felt, count }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn is_over(&self, now: Duration) -> bool {
        now > self.until
    }

    /// Whether the fault has made a difference by now.
    pub(super) fn shows(&self, world: &World, view: &View, eyes: &Eyes) -> bool {
        let (felt, before) = (&eyes.felt, &self.before);
        match &self.trace {
            Trace::Clients => felt.hampered > before.hampered,
            Trace::Overload => {
                felt.overloaded > before.overloaded || felt.hampered > before.hampered
            }
            Trace::Store(_) => {
                felt.no_space > before.no_space || self.trace.count(world, eyes) > self.count
            }
            Trace::Lives => felt.lives_judged > before.lives_judged,
            Trace::Links(_) | Trace::SlowSyncs(_) | Trace::Mended => {
                self.trace.count(world, eyes) > self.count
            }
            Trace::Replaced(member) => !view.newest().values().any(|known| known.is_member(member)),
            Trace::Together(machines) => are_together(machines, view),
        }
    }
}

/// What is looked at from outside the world.
#[derive(Clone, Copy)]
pub(super) struct Eyes {
    pub(super) felt: Felt,
    pub(super) mended: u64,
}

impl Trace {
    fn count(&self, world: &World, eyes: &Eyes) -> u64 {
        match self {
            Self::Links(links) => world.network.felt(links),
            Self::Store(store) => store.struck(),
            Self::SlowSyncs(id) => world.machines[usize::from(id.0)].slow_syncs(),
            Self::Mended => eyes.mended,
            _ => 0,
        }
    }
}

fn are_together(machines: &[MachineId], view: &View) -> bool {
    let member = |id: &MachineId| {
        let store = view.stores.iter().find(|store| store.machine == *id);
        store.map(|store| store.member)
    };
    let Some(members) = machines.iter().map(member).collect::<Option<Vec<_>>>() else {
        return false;
    };
    view.newest().values().any(|known| members.iter().all(|member| known.is_member(member)))
}
