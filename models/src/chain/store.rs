//! One store: rows and a record, which survive a restart, and the state machine over them.

use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::gc::{GcDigest, Vouch};
use triad_replica::member::{Member, StartNonce, StoreId};
use triad_replica::paxos::Acceptor;
use triad_replica::record::Record;
use triad_replica::shard::{Durable, EnteredRow, ShardReplica};
use triad_ring::{NodeId, ShardId};

pub(super) const SHARD: ShardId = ShardId::new(7);

/// The store and node of this number.
pub(super) fn member(index: u8) -> Member {
    Member {
        node: NodeId::from_bytes([index + 1; 16]),
        store: StoreId::from_bytes([index + 1; 16]),
    }
}

/// The number of a store.
pub(super) fn index_of(member: &Member) -> u8 {
    member.node.as_bytes()[0] - 1
}

/// The stores that `set` has a bit for.
pub(super) fn has(set: u8, index: u8) -> bool {
    set >> index & 1 == 1
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Store {
    pub(super) me: u8,
    // What a restart leaves.
    entered_row: Option<EnteredRow>,
    acceptor_row: Option<Acceptor>,
    pub(super) vouch: Option<Vouch>,
    /// There is one key.
    pub(super) record: Record,
    /// What a restart makes of it, while something minted here is not synced.
    synced: Option<Record>,
    // What a restart takes.
    pub(super) replica: ShardReplica,
    pub(super) life: u8,
    pub(super) lost: bool,
    /// For the copy of this epoch: the sources that are done with.
    pub(super) copied: Option<(Epoch, u8)>,
    /// For the hand-over to this epoch: who has everything, and who has entered it.
    pub(super) handed: Option<(Epoch, u8, u8)>,
}

impl Store {
    /// A store that never heard of the shard.
    pub(super) fn stranger(me: u8) -> Self {
        Self {
            me,
            entered_row: None,
            acceptor_row: None,
            vouch: None,
            record: Record::default(),
            synced: None,
            replica: ShardReplica::restore(SHARD, member(me), nonce(me, 0), None, None),
            life: 0,
            lost: false,
            copied: None,
            handed: None,
        }
    }

    /// A member of a cluster's first configuration.
    pub(super) fn founder(me: u8, first: &Configuration) -> Self {
        let mut store = Self::stranger(me);
        let row = EnteredRow {
            configuration: first.clone(),
            data_epoch: Some(first.epoch),
            tenure: Some(first.epoch),
            forgotten: 0,
            merged: true,
            declared: false,
            sweeping: false,
        };
        store.entered_row = Some(row);
        store.replica = store.restored();
        store
    }

    fn restored(&self) -> ShardReplica {
        let (entered, acceptor) = (self.entered_row.clone(), self.acceptor_row.clone());
        ShardReplica::restore(SHARD, member(self.me), nonce(self.me, self.life), entered, acceptor)
    }

    pub(super) fn restart(&mut self) {
        self.life += 1;
        if let Some(synced) = self.synced.take() {
            self.record = synced;
        }
        self.replica = self.restored();
        self.copied = None;
        self.handed = None;
    }

    /// What was minted is sent at once, and synced with the next batch that is.
    pub(super) fn mint(&mut self, record: Record, synced: bool) {
        let before = std::mem::replace(&mut self.record, record);
        if !synced && self.synced.is_none() {
            self.synced = Some(before);
        }
    }

    pub(super) fn sync(&mut self) {
        self.synced = None;
    }

    /// Takes a record in, durably.
    pub(super) fn merge(&mut self, record: &Record) {
        self.record.merge(record);
        self.record.settle();
        self.sync();
    }

    /// Commits one batch; what was forgotten is swept at once.
    pub(super) fn commit(&mut self, durable: Vec<Durable>) {
        if !durable.is_empty() {
            self.sync();
        }
        for change in durable {
            match change {
                Durable::Entered(row) => self.entered_row = Some(row),
                Durable::Acceptor(row) => self.acceptor_row = Some(row),
                Durable::Forget(_) => {
                    self.vouch = None;
                    self.record = Record::default();
                }
                Durable::EndRound { collected, .. } => self.end_round(collected),
            }
        }
        if self.replica.is_sweeping() {
            let swept = self.replica.on_swept();
            self.commit(swept);
        }
        if self
            .replica
            .pull_plan()
            .is_none_or(|plan| Some(plan.epoch) != self.copied.map(|it| it.0))
        {
            self.copied = None;
        }
    }

    /// As the server's committer does: prunes what was vouched for, if that was decided.
    fn end_round(&mut self, collected: Option<GcDigest>) {
        let vouch = self.vouch.take();
        let Some(vouch) = vouch.filter(|vouch| Some(vouch.digest()) == collected) else {
            return;
        };
        if vouch.garbage.iter().any(|one| one.record == self.record.digest()) {
            self.record = self.record.pruned();
        }
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.replica.newest().map(|known| known.epoch)
    }
}

fn nonce(me: u8, life: u8) -> StartNonce {
    let mut bytes = [me; 16];
    bytes[15] = life;
    StartNonce(bytes)
}
