//! One node: its rows and records (which survive a crash) and what it runs (which does not).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::gc::{Garbage, GcDigest, Round, Vouch, VouchReply, VouchRequest, lacking};
use triad_replica::member::{ActorId, Member, StartNonce, StoreId};
use triad_replica::message::{PageCursor, ShardReply, ShardRequest, Standing};
use triad_replica::paxos::Acceptor;
use triad_replica::record::Record;
use triad_replica::shard::{Durable, EnteredRow, ShardReplica};
use triad_replica::store::key::ShardRow;
use triad_replica::transfer::{CopyTiming, Drain, Move, Pull};
use triad_ring::{NodeId, ShardId};

use crate::sabotage::Sabotage;

pub(crate) const SHARD: ShardId = ShardId::new(7);

/// All writes a store holds: bit i is write i. Merging is a union, as with records.
pub(crate) type Writes = u64;

/// Write i belongs to leaf i % LEAVES.
pub(crate) const LEAVES: u32 = 4;

pub(crate) fn leaf(number: u8) -> Writes {
    (0..Writes::BITS)
        .filter(|write| write % LEAVES == u32::from(number))
        .fold(0, |all, write| all | 1 << write)
}

/// The records of the keys that are written, read and deleted. Key i belongs to leaf i.
pub(crate) type Records = BTreeMap<u8, Record>;

/// How many keys have records.
pub(crate) const KEYS: u8 = 3;

/// What a store holds of the shard, or a part of it on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) writes: Writes,
    pub(crate) records: Records,
}

impl Content {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.writes |= other.writes;
        for (key, record) in &other.records {
            self.records.entry(*key).or_default().merge(record);
        }
    }

    pub(crate) fn record(&self, key: u8) -> Record {
        self.records.get(&key).cloned().unwrap_or_default()
    }

    pub(crate) fn differing(&self, other: &Self) -> Vec<u8> {
        let differs = |number: &u8| {
            (self.writes ^ other.writes) & leaf(*number) != 0
                || !self.record(*number).same_content(&other.record(*number))
        };
        (0..LEAVES as u8).filter(differs).collect()
    }

    /// One leaf is one page, so that a transfer takes several answers.
    pub(crate) fn page(
        &self,
        leaves: &[u8],
        after: Option<&PageCursor>,
    ) -> (Self, Option<PageCursor>) {
        let start = after.and_then(|cursor| cursor.0.first().copied()).unwrap_or(0);
        let mut rest = leaves.iter().copied().filter(|number| *number >= start);
        let page = rest.next().map_or_else(Self::default, |number| Self {
            writes: self.writes & leaf(number),
            records: self
                .records
                .get_key_value(&number)
                .map(|(k, r)| (*k, r.clone()))
                .into_iter()
                .collect(),
        });
        let next = rest.next().map(|number| PageCursor(Bytes::copy_from_slice(&[number])));
        (page, next)
    }
}

pub(crate) fn member(index: usize) -> Member {
    let index = index as u8 + 1;
    Member { node: NodeId::from_bytes([index; 16]), store: StoreId::from_bytes([0xF0 + index; 16]) }
}

pub(crate) fn index_of(member: &Member) -> usize {
    usize::from(member.node.as_bytes()[0]) - 1
}

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Shard(ShardRequest),
    Tree,
    Page {
        leaves: Vec<u8>,
        after: Option<PageCursor>,
    },
    Push {
        from: Member,
        epoch: Epoch,
        content: Content,
        next: Option<PageCursor>,
    },
    Vouch(VouchRequest),
    /// A record for a member of an epoch, read or minted in the epoch `stamp`.
    Record {
        epoch: Epoch,
        stamp: Epoch,
        key: u8,
        record: Record,
        of: Option<(usize, usize)>,
    },
    ReadRecord {
        epoch: Epoch,
        read: usize,
    },
    Merge {
        configuration: Configuration,
        write: usize,
        attempt: usize,
    },
    Read {
        configuration: Configuration,
        read: usize,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Shard(ShardReply),
    Tree { standing: Standing, content: Content },
    Page { content: Content, data_epoch: Option<Epoch>, next: Option<PageCursor> },
    Vouch(VouchReply),
    Record { of: (usize, usize) },
    ReadRecord { read: usize, record: Record },
    Pushed { next: Option<PageCursor> },
    Merged { write: usize, attempt: usize },
    Read { read: usize, held: Writes },
    No,
}

pub(crate) struct Node {
    pub(crate) me: Member,
    // Rows and records: what a crash leaves.
    pub(crate) entered_row: Option<Bytes>,
    pub(crate) acceptor_row: Option<Bytes>,
    pub(crate) held: Content,
    pub(crate) vouch_row: Option<Bytes>,
    pub(crate) sabotage: Sabotage,
    // What a crash takes.
    pub(crate) replica: ShardReplica,
    pub(crate) life: u64,
    pub(crate) up: bool,
    pub(crate) moving: Option<Move>,
    pub(crate) pull: Option<Pull>,
    pub(crate) drain: Option<Drain>,
    pub(crate) round: Option<Round>,
    /// For the saboteur who counts vouches only up to a majority.
    pub(crate) vouches: usize,
    pub(crate) moves_started: u32,
    /// The numbers of the last requests of the copy and of the hand-over: an answer to an
    /// earlier one is dropped, as one drops the future of a call.
    pub(crate) tickets: [u64; 3],
    /// Since when the newest configuration is joint, or fenced without a decision.
    pub(crate) unsettled_since: Option<Duration>,
    pub(crate) leftover_since: Option<Duration>,
}

impl Node {
    pub(crate) fn new(index: usize) -> Self {
        let me = member(index);
        Self {
            me,
            entered_row: None,
            acceptor_row: None,
            held: Content::default(),
            vouch_row: None,
            sabotage: Sabotage::None,
            replica: ShardReplica::restore(SHARD, me, nonce(index, 0), None, None),
            life: 0,
            up: true,
            moving: None,
            pull: None,
            drain: None,
            round: None,
            vouches: 0,
            moves_started: 0,
            tickets: [0; 3],
            unsettled_since: None,
            leftover_since: None,
        }
    }

    pub(crate) fn index(&self) -> usize {
        index_of(&self.me)
    }

    /// Commits one batch.
    pub(crate) fn commit(&mut self, durable: &[Durable]) {
        for change in durable {
            match (change, change.row()) {
                (Durable::Forget(_), _) => {
                    self.vouch_row = None;
                    self.held.writes = 0;
                    if self.sabotage != Sabotage::KeepStaleData {
                        self.held.records.clear();
                    }
                }
                (Durable::EndRound { collected, .. }, _) => self.end_round(*collected),
                (_, Some((ShardRow::Entered, row))) => self.entered_row = Some(row),
                (_, Some((ShardRow::Acceptor, row))) => self.acceptor_row = Some(row),
                (change, row) => panic!("{change:?} has the row {row:?}"),
            }
        }
    }

    fn end_round(&mut self, collected: Option<GcDigest>) {
        let vouch = self.vouch_row.take().map(|row| Vouch::decode(&row).expect("our row"));
        if let Some(vouch) = vouch.filter(|vouch| Some(vouch.digest()) == collected) {
            self.prune(&vouch);
        }
    }

    /// Prunes what a vouch lists and is unchanged.
    pub(crate) fn prune(&mut self, vouch: &Vouch) {
        for one in &vouch.garbage {
            let key = one.key[0];
            let record = self.held.record(key);
            if record.digest() == one.record {
                self.held.records.insert(key, record.pruned());
            }
        }
        self.held.records.retain(|_, record| !record.is_absent());
    }

    /// Vouches durably, or says what it lacks.
    pub(crate) fn vouch(&mut self, request: &VouchRequest) -> VouchReply {
        if !self.replica.may_vouch(&request.base) {
            return VouchReply::Refused { newest: self.replica.newest().cloned() };
        }
        let digest = |one: &Garbage| Ok::<_, ()>(self.held.record(one.key[0]).digest());
        let lacks = lacking(&request.garbage, digest).expect("never an error");
        if !lacks.is_empty() {
            return VouchReply::Lacks(lacks);
        }
        let garbage = request.garbage.clone();
        let vouch = Vouch { epoch: request.base.epoch, garbage };
        self.vouch_row = Some(vouch.encode());
        VouchReply::Vouched(vouch.digest())
    }

    /// Whether a page for the running copy may be merged.
    pub(crate) fn takes_page(&self, source: Option<Epoch>) -> bool {
        let plan = self.pull.as_ref().map(Pull::plan);
        plan.is_some_and(|plan| self.replica.takes_page(plan.epoch, source))
    }

    /// Under which actor it mints.
    pub(crate) fn actor(&self) -> ActorId {
        let actor = self.replica.actor().expect("who may mint has an actor");
        let row = self.replica.entered().expect("a member");
        match (self.sabotage, row.tenure) {
            (Sabotage::SameActor, Some(entry)) => {
                ActorId::of_tenure(nonce(self.index(), self.life), SHARD, entry, 0)
            }
            _ => actor,
        }
    }

    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.life += 1;
        self.moving = None;
        self.pull = None;
        self.drain = None;
        self.round = None;
        self.moves_started = 0;
        self.unsettled_since = None;
        self.leftover_since = None;
        self.replica = self.restored();
    }

    /// The shard as its rows say; equal to what is in memory, but for what may be lost.
    pub(crate) fn restored(&self) -> ShardReplica {
        let entered =
            self.entered_row.as_ref().map(|row| EnteredRow::decode(row).expect("our row"));
        let acceptor =
            self.acceptor_row.as_ref().map(|row| Acceptor::decode(row).expect("our row"));
        let nonce = nonce(self.index(), self.life);
        ShardReplica::restore(SHARD, self.me, nonce, entered, acceptor)
    }
}

fn nonce(index: usize, life: u64) -> StartNonce {
    let mut bytes = [index as u8; 16];
    bytes[8..].copy_from_slice(&life.to_be_bytes());
    StartNonce(bytes)
}

pub(crate) const COPYING: CopyTiming = CopyTiming {
    answer: Duration::from_millis(80),
    retry: Duration::from_millis(10),
    again: Duration::from_millis(60),
};
