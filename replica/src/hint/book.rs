//! Which hints a node has, and which of them to deliver next.
//!
//! Only an index is in memory; held records lie in the store. Every collection here is bounded
//! by [`HintLimits`], every walk over them by [`WALK`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use triad_ring::{NodeId, ShardId};

use crate::address::Address;
use crate::configuration::{Configuration, Epoch};
use crate::member::{ActorId, Member};

/// Entries looked at in one walk; the next goes on behind them.
const WALK: usize = 4_096;
/// The pause before a delivery that failed is tried again, and its greatest.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintLimits {
    /// Bytes of the rows of hints, both kinds together.
    pub bytes: u64,
    /// Hints of each kind: what the index takes in memory.
    pub count: usize,
    /// How old a courtesy hint may get, in milliseconds.
    pub age_ms: u64,
}

/// What came of noting that a member may lack something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It is new: its row is to be written.
    New,
    /// It was noted before; what is delivered will be the newest.
    Known,
    /// There is no room: it is dropped.
    Full,
}

/// A hint to be delivered now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The key.
    pub at: Address,
    /// Names the state of the hint: with another one, it has changed since.
    pub generation: u64,
}

/// What is known of a held record without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldEntry {
    /// Bytes of its row, key included.
    pub bytes: u64,
    /// The epoch in which it was made.
    pub stamp: Epoch,
    /// The actor under which this process mints for it; none if it has not yet.
    pub actor: Option<ActorId>,
}

/// Sums over all hints of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintTotals {
    /// Courtesy hints.
    pub courtesy: u64,
    /// Held records.
    pub held: u64,
    /// Bytes of the rows of both.
    pub bytes: u64,
}

/// Courtesy hints that are dropped without being delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// All of them: their rows are to be removed.
    pub rows: Vec<(Member, Address)>,
    /// How many of them somebody would still have needed.
    pub given_up: u64,
}

/// When something that failed is tried again.
#[derive(Clone, Copy, Debug, Default)]
struct Retry {
    at: Duration,
    pause: Duration,
}

impl Retry {
    fn postpone(&mut self, now: Duration) {
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        self.at = now + self.pause;
    }
}

#[derive(Clone, Debug)]
struct Courtesy {
    since_ms: u64,
    bytes: u64,
    generation: u64,
    retry: Retry,
}

#[derive(Clone, Debug)]
struct Held {
    entry: HeldEntry,
    generation: u64,
    retry: Retry,
    /// Who has it, in this epoch. Counting begins anew in every epoch.
    delivered: (Epoch, BTreeSet<Member>),
}

/// All hints of a node.
#[derive(Debug)]
pub struct HintBook {
    limits: HintLimits,
    courtesy: BTreeMap<Member, BTreeMap<Address, Courtesy>>,
    courtesy_count: usize,
    courtesy_bytes: u64,
    held: BTreeMap<Address, Held>,
    held_bytes: u64,
    floors: BTreeMap<ShardId, Epoch>,
    generations: u64,
    courtesy_cursors: BTreeMap<Member, Address>,
    held_cursor: Option<Address>,
    age_cursor: Option<(Member, Address)>,
}

impl HintBook {
    /// An empty book.
    pub fn new(limits: HintLimits) -> Self {
        Self {
            limits,
            courtesy: BTreeMap::new(),
            courtesy_count: 0,
            courtesy_bytes: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            floors: BTreeMap::new(),
            generations: 0,
            courtesy_cursors: BTreeMap::new(),
            held_cursor: None,
            age_cursor: None,
        }
    }

    fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    /// Sums over everything.
    pub fn totals(&self) -> HintTotals {
        HintTotals {
            courtesy: self.courtesy_count as u64,
            held: self.held.len() as u64,
            bytes: self.courtesy_bytes + self.held_bytes,
        }
    }

    // Courtesy hints.

    /// Notes that `target` may lack what the store has of a key; `bytes` is what its row takes.
    pub fn note(&mut self, target: Member, at: &Address, bytes: u64, now_ms: u64) -> Noted {
        let generation = self.next_generation();
        if let Some(known) = self.courtesy.get_mut(&target).and_then(|all| all.get_mut(at)) {
            known.generation = generation;
            return Noted::Known;
        }
        let after = self.courtesy_bytes + self.held_bytes + bytes;
        if self.courtesy_count >= self.limits.count || after > self.limits.bytes {
            return Noted::Full;
        }
        self.courtesy_count += 1;
        self.courtesy_bytes += bytes;
        let hint = Courtesy { since_ms: now_ms, bytes, generation, retry: Retry::default() };
        self.courtesy.entry(target).or_default().insert(at.clone(), hint);
        Noted::New
    }

    /// Whom there are courtesy hints for.
    pub fn targets(&self) -> Vec<Member> {
        self.courtesy.keys().copied().collect()
    }

    /// Courtesy hints for `target` to deliver now, at most `max`.
    pub fn due_courtesy(&mut self, target: Member, now: Duration, max: usize) -> Vec<Due> {
        let Some(all) = self.courtesy.get(&target) else {
            return Vec::new();
        };
        let cursor = self.courtesy_cursors.remove(&target);
        let mut due = Vec::new();
        let mut last = None;
        for (at, hint) in all.range(behind(cursor.as_ref())).take(WALK) {
            if due.len() == max {
                break;
            }
            last = Some(at);
            if hint.retry.at <= now {
                due.push(Due { at: at.clone(), generation: hint.generation });
            }
        }
        // At the end of all it begins anew.
        if let Some(last) =
            last.filter(|last| all.last_key_value().is_some_and(|(at, _)| at > last))
        {
            self.courtesy_cursors.insert(target, last.clone());
        }
        due
    }

    /// A courtesy hint was delivered in this state. True when its row is to be removed: nothing was
    /// noted meanwhile.
    pub fn courtesy_delivered(&mut self, target: Member, due: &Due) -> bool {
        let unchanged = self
            .courtesy
            .get(&target)
            .and_then(|all| all.get(&due.at))
            .is_some_and(|hint| hint.generation == due.generation);
        unchanged && self.drop_courtesy(target, &due.at)
    }

    /// Tries a delivery again later.
    pub fn postpone_courtesy(&mut self, target: Member, at: &Address, now: Duration) {
        if let Some(hint) = self.courtesy.get_mut(&target).and_then(|all| all.get_mut(at)) {
            hint.retry.postpone(now);
        }
    }

    /// Drops a courtesy hint. True when there was one: its row is to be removed.
    pub fn drop_courtesy(&mut self, target: Member, at: &Address) -> bool {
        let Some(all) = self.courtesy.get_mut(&target) else {
            return false;
        };
        let Some(hint) = all.remove(at) else {
            return false;
        };
        if all.is_empty() {
            self.courtesy.remove(&target);
            self.courtesy_cursors.remove(&target);
        }
        self.courtesy_count -= 1;
        self.courtesy_bytes -= hint.bytes;
        true
    }

    /// Drops courtesy hints that are too old, and some more while all hints together are too
    /// large; and those that are `of_use` no more, be their target alive or not. One step of a
    /// walk over all.
    pub fn drop_needless(
        &mut self,
        now_ms: u64,
        of_use: impl Fn(&Member, ShardId) -> bool,
    ) -> Dropped {
        let oldest = now_ms.saturating_sub(self.limits.age_ms);
        let mut excess = (self.courtesy_bytes + self.held_bytes).saturating_sub(self.limits.bytes);
        let cursor = self.age_cursor.take();
        let mut dropped = Dropped::default();
        let mut walked = 0;
        let from = cursor.as_ref().map_or(Bound::Unbounded, |(member, _)| Bound::Included(*member));
        'walk: for (target, all) in self.courtesy.range((from, Bound::Unbounded)) {
            let after = cursor.as_ref().filter(|(member, _)| member == target).map(|(_, at)| at);
            for (at, hint) in all.range(behind(after)) {
                if walked == WALK {
                    break 'walk;
                }
                walked += 1;
                let pointless = !of_use(target, at.shard);
                if pointless || hint.since_ms < oldest || excess > 0 {
                    excess = excess.saturating_sub(hint.bytes);
                    dropped.given_up += u64::from(!pointless);
                    dropped.rows.push((*target, at.clone()));
                }
                self.age_cursor = Some((*target, at.clone()));
            }
        }
        if walked < WALK {
            self.age_cursor = None;
        }
        for (target, at) in &dropped.rows {
            self.drop_courtesy(*target, at);
        }
        dropped
    }

    // Held records.

    /// What is known of the record held for a key.
    pub fn held(&self, at: &Address) -> Option<&HeldEntry> {
        self.held.get(at).map(|held| &held.entry)
    }

    /// Whether rows of held records may grow by `growth` bytes and `more` records.
    pub fn has_room(&self, growth: u64, more: usize) -> bool {
        // Courtesy hints make room: they are dropped as soon as both together are too large.
        self.held_bytes + growth <= self.limits.bytes && self.held.len() + more <= self.limits.count
    }

    /// A record is held in this state now, durably. Whoever had the state before lacks this one.
    pub fn hold(&mut self, at: Address, entry: HeldEntry) {
        let generation = self.next_generation();
        let delivered = (Epoch::NONE, BTreeSet::new());
        self.held_bytes += entry.bytes;
        let held = Held { entry, generation, retry: Retry::default(), delivered };
        if let Some(before) = self.held.insert(at, held) {
            self.held_bytes -= before.entry.bytes;
        }
    }

    /// A record is held no more.
    pub fn release(&mut self, at: &Address) {
        if let Some(held) = self.held.remove(at) {
            self.held_bytes -= held.entry.bytes;
        }
    }

    /// Whether the record held for a key is still in this state.
    pub fn is_unchanged(&self, due: &Due) -> bool {
        self.held.get(&due.at).is_some_and(|held| held.generation == due.generation)
    }

    /// Held records to deliver now, at most `max`.
    pub fn due_held(&mut self, now: Duration, max: usize) -> Vec<Due> {
        let cursor = self.held_cursor.take();
        let mut due = Vec::new();
        let mut last = None;
        for (at, held) in self.held.range(behind(cursor.as_ref())).take(WALK) {
            if due.len() == max {
                break;
            }
            last = Some(at);
            if held.retry.at <= now {
                due.push(Due { at: at.clone(), generation: held.generation });
            }
        }
        let more = last.filter(|last| self.held.last_key_value().is_some_and(|(at, _)| at > last));
        self.held_cursor = more.cloned();
        due
    }

    /// Which members of `configuration` still lack a held record.
    pub fn lacking(&self, due: &Due, configuration: &Configuration) -> Vec<Member> {
        let mut members = configuration.members();
        if let Some(held) = self.held.get(&due.at)
            && held.delivered.0 == configuration.epoch
        {
            members.retain(|member| !held.delivered.1.contains(member));
        }
        members
    }

    /// A member has a held record, durably, in this state and epoch.
    pub fn delivered(&mut self, due: &Due, epoch: Epoch, member: Member) {
        let Some(held) = self.held.get_mut(&due.at) else {
            return;
        };
        if held.generation != due.generation {
            return;
        }
        if held.delivered.0 != epoch {
            held.delivered = (epoch, BTreeSet::new());
        }
        held.delivered.1.insert(member);
    }

    /// Tries a delivery again later.
    pub fn postpone_held(&mut self, due: &Due, now: Duration) {
        if let Some(held) = self.held.get_mut(&due.at) {
            held.retry.postpone(now);
        }
    }

    /// A node is back: what waits for it waits no longer. Held records are for several.
    pub fn wake(&mut self, node: NodeId) {
        let for_node = self.courtesy.iter_mut().filter(|(target, _)| target.node == node);
        let hints = for_node.flat_map(|(_, all)| all.values_mut());
        hints.for_each(|hint| hint.retry = Retry::default());
        self.held.values_mut().for_each(|held| held.retry = Retry::default());
    }

    /// The earliest stamp of the records held for a shard.
    pub fn oldest_stamp(&self, shard: ShardId) -> Option<Epoch> {
        let first = Address { shard, bucket: String::new(), key: bytes::Bytes::new() };
        let of_shard = self.held.range(first..).take_while(|(at, _)| at.shard == shard);
        of_shard.map(|(_, held)| held.entry.stamp).min()
    }

    /// Up to which epoch this node has promised to hold nothing of a shard.
    pub fn floor(&self, shard: ShardId) -> Option<Epoch> {
        self.floors.get(&shard).copied()
    }

    /// The promise is durable.
    pub fn raise_floor(&mut self, shard: ShardId, floor: Epoch) {
        let known = self.floors.entry(shard).or_insert(floor);
        *known = (*known).max(floor);
    }

    /// The stamp of what this node mints itself, while it knows of the epoch `known`: later than
    /// every epoch for which it promised to hold nothing.
    pub fn stamp_of_mint(&self, shard: ShardId, known: Epoch) -> Epoch {
        self.floor(shard).map_or(known, |floor| known.max(floor.next()))
    }
}

/// The range behind `cursor`; everything without one.
fn behind(cursor: Option<&Address>) -> (Bound<&Address>, Bound<&Address>) {
    (cursor.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}
