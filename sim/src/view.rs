//! What lies in the stores of all machines, as nobody in the cluster can see it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use triad_replica::configuration::Configuration;
use triad_replica::hint::HeldRecord;
use triad_replica::member::{Member, StoreId};
use triad_replica::record::Record;
use triad_replica::shard::EnteredRow;
use triad_replica::start::{Start, StartLog};
use triad_replica::store::{Key, KeyRange, MemoryStore, MetaRow, ShardRow, Store};
use triad_ring::{NodeId, ShardId};

use crate::machine::Machine;
use crate::network::MachineId;
use crate::world::World;

/// One store.
pub struct StoreView {
    /// On which machine it is in use.
    pub machine: MachineId,
    /// Whether its server runs.
    pub running: bool,
    /// Whose it is.
    pub member: Member,
    /// The newest configuration of each shard that it knows.
    pub entered: BTreeMap<ShardId, EnteredRow>,
    /// The records, by their stored keys.
    pub records: BTreeMap<Bytes, Record>,
    /// Hints that wait for delivery.
    pub hints: usize,
    /// Records held for the members of their shards, by the records' stored keys.
    pub held: BTreeMap<Bytes, HeldRecord>,
    /// The starts of others that it has recorded.
    pub starts: Vec<Start>,
    /// Rows that cannot be read.
    pub damaged: usize,
}

/// All stores in use.
pub struct View {
    /// In the order of their machines.
    pub stores: Vec<StoreView>,
}

impl View {
    /// What lies there now.
    pub fn of(world: &World) -> Self {
        let stores = world.machines.iter().filter_map(|machine| {
            machine.disks.current()?.unharmed(|store| StoreView::of(machine, store))
        });
        Self { stores: stores.collect() }
    }

    /// The newest configuration of each shard that any store knows.
    pub fn newest(&self) -> BTreeMap<ShardId, &Configuration> {
        let mut newest: BTreeMap<ShardId, &Configuration> = BTreeMap::new();
        for row in self.stores.iter().flat_map(|store| store.entered.values()) {
            let known = newest.entry(row.configuration.shard).or_insert(&row.configuration);
            if row.configuration.epoch > known.epoch {
                *known = &row.configuration;
            }
        }
        newest
    }

    /// The store of a member, if it is still in use somewhere.
    pub fn store_of(&self, member: &Member) -> Option<&StoreView> {
        self.stores.iter().find(|store| store.member == *member)
    }

    /// Whether every shard has `copies` members whose stores are all there, and none is on the move: then one store
    /// may be lost.
    pub fn is_whole(&self, copies: usize) -> bool {
        let newest = self.newest();
        let whole = |configuration: &&Configuration| {
            let members = configuration.members();
            let merged = |member: &Member| {
                self.store_of(member)
                    .and_then(|store| store.entered.get(&configuration.shard))
                    .is_some_and(|row| row.merged && row.configuration.epoch == configuration.epoch)
            };
            !configuration.is_joint() && members.len() >= copies && members.iter().all(merged)
        };
        let damaged = self.stores.iter().any(|store| store.damaged > 0);
        !newest.is_empty() && !damaged && newest.values().all(whole)
    }

    /// Why the cluster is not at rest; none when it is.
    pub fn unrest(&self, shards: u32, copies: usize) -> Option<String> {
        let newest = self.newest();
        if newest.len() != shards as usize {
            return Some(format!("{} of {shards} shards are known", newest.len()));
        }
        if let Some(store) = self.stores.iter().find(|store| store.hints > 0) {
            return Some(format!("{:?} keeps {} hints", store.machine, store.hints));
        }
        newest.values().find_map(|configuration| self.unrest_of(configuration, copies))
    }

    fn unrest_of(&self, configuration: &Configuration, copies: usize) -> Option<String> {
        let (shard, epoch) = (configuration.shard, configuration.epoch);
        if configuration.is_joint() {
            return Some(format!("shard {shard} is on the move in epoch {epoch}"));
        }
        let members = configuration.members();
        if members.len() < copies {
            return Some(format!("shard {shard} has {} members in epoch {epoch}", members.len()));
        }
        let mut first: Option<(&StoreView, BTreeMap<&Bytes, &Record>)> = None;
        for member in members {
            let Some(store) = self.store_of(&member).filter(|store| store.running) else {
                return Some(format!(
                    "shard {shard} has the lost member {member:?} in epoch {epoch}"
                ));
            };
            let row = store.entered.get(&shard);
            if row.is_none_or(|row| row.configuration.epoch != epoch || !row.merged || row.sweeping)
            {
                return Some(format!(
                    "{:?} has not entered epoch {epoch} of shard {shard}",
                    store.machine
                ));
            }
            let records = store.records_of(shard);
            match &first {
                None => first = Some((store, records)),
                Some((other, held)) => {
                    if let Some(difference) = difference(held, &records) {
                        return Some(format!(
                            "{:?} and {:?} differ in shard {shard}: {difference}",
                            other.machine, store.machine
                        ));
                    }
                }
            }
        }
        None
    }
}

fn difference(
    one: &BTreeMap<&Bytes, &Record>,
    other: &BTreeMap<&Bytes, &Record>,
) -> Option<String> {
    let keys: BTreeSet<&Bytes> = one.keys().chain(other.keys()).copied().collect();
    let empty = Record::default();
    keys.into_iter().find_map(|key| {
        let (here, there) = (one.get(key).copied(), other.get(key).copied());
        let same = here.unwrap_or(&empty).same_content(there.unwrap_or(&empty));
        (!same).then(|| format!("{:?}", Key::decode(key)))
    })
}

impl StoreView {
    fn of(machine: &Machine, store: &MemoryStore) -> Option<Self> {
        let row = store.get(&Key::Meta(MetaRow::Store).encode()).ok()??;
        let mut view = StoreView {
            machine: machine.id,
            running: machine.is_running(),
            member: owner(&row)?,
            entered: BTreeMap::new(),
            records: BTreeMap::new(),
            hints: 0,
            held: BTreeMap::new(),
            starts: Vec::new(),
            damaged: 0,
        };
        view.read(store);
        Some(view)
    }

    fn read(&mut self, store: &dyn Store) {
        let rows = |range: &KeyRange, visit: &mut dyn FnMut(&[u8], Bytes)| {
            let mut damaged = 0;
            let mut after: Option<Bytes> = None;
            loop {
                let read = store.scan(range, after.as_deref(), &mut |key, row| {
                    visit(key, row);
                    ControlFlow::Continue(())
                });
                match read {
                    Err(triad_replica::store::StoreError::Damaged { key, .. }) => {
                        damaged += 1;
                        after = Some(key);
                    }
                    Ok(()) | Err(_) => return damaged,
                }
            }
        };
        let mut damaged = 0;
        let entered = &mut self.entered;
        damaged += rows(&KeyRange::shard_rows(), &mut |key, row| {
            if let Some(Key::Shard(shard, ShardRow::Entered)) = Key::decode(key)
                && let Ok(row) = EnteredRow::decode(&row)
            {
                entered.insert(shard, row);
            }
        });
        let records = &mut self.records;
        damaged += rows(&KeyRange::records(), &mut |key, row| {
            if let Ok(record) = Record::decode(row) {
                records.insert(Bytes::copy_from_slice(key), record);
            }
        });
        let (hints, held) = (&mut self.hints, &mut self.held);
        damaged += rows(&KeyRange::hints(), &mut |key, row| {
            let key = Key::decode(key);
            if let Some(Key::Held { shard, bucket, key }) = key
                && let Ok(record) = HeldRecord::decode(row)
            {
                held.insert(Key::Record { shard, bucket, key }.encode(), record);
            }
            *hints += usize::from(!matches!(key, Some(Key::HintFloor(_))));
        });
        let starts = &mut self.starts;
        damaged += rows(&KeyRange::starts(), &mut |key, row| {
            let mut log = StartLog::default();
            if let Some(Key::Start(member)) = Key::decode(key)
                && log.restore(member, &row).is_ok()
            {
                starts.extend(log.newest(member.node));
            }
        });
        self.damaged = damaged;
    }

    fn records_of(&self, shard: ShardId) -> BTreeMap<&Bytes, &Record> {
        let range = KeyRange::shard_records(shard);
        self.records.iter().filter(|(key, _)| range.contains(key)).collect()
    }
}

/// Reads the first row of a store: a version, the store's id, the node's id, the incarnation.
fn owner(row: &[u8]) -> Option<Member> {
    let id = |from: usize| row.get(from..from + 16)?.try_into().ok();
    Some(Member { node: NodeId::from_bytes(id(17)?), store: StoreId::from_bytes(id(1)?) })
}
