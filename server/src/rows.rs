//! The rows of a store that a start reads: the cluster, the contacts, the shards.
//!
//! Cluster and contacts are protobuf messages behind a format byte: they are small, rare, and
//! gain fields as Triad grows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use triad_proto::peer::v1 as wire;
use triad_proto::v1;
use triad_replica::member::{Member, StartNonce};
use triad_replica::paxos::Acceptor;
use triad_replica::shard::{Durable, EnteredRow, ShardReplica};
use triad_replica::start::{StartLog, Witnesses};
use triad_replica::store::key::{MetaRow, ShardRow};
use triad_replica::store::{Batch, Key, KeyRange, Store, StoreError};
use triad_replica::token::ClusterSecret;
use triad_ring::{ClusterId, ClusterSalt, Incarnation, ShardCount, ShardId};

use crate::book::{Contact, NodeState};
use crate::identity::ClusterIdentity;
use crate::peers::contact::{id16, wire_state};

/// The format of cluster and contact rows.
const FORMAT: u8 = 1;

/// A row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The store could not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not what this version of Triad writes.
    #[error("the store's {row} row cannot be read: {why}")]
    Malformed {
        /// Which row.
        row: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

fn malformed(row: &'static str, why: &dyn std::fmt::Display) -> RowError {
    RowError::Malformed { row, why: why.to_string() }
}

fn encode(message: &impl Message) -> Bytes {
    let mut row = BytesMut::with_capacity(1 + message.encoded_len());
    row.put_u8(FORMAT);
    row.put_slice(&message.encode_to_vec());
    row.freeze()
}

fn decode<M: Message + Default>(row: &'static str, bytes: &[u8]) -> Result<M, RowError> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => M::decode(rest).map_err(|error| malformed(row, &error)),
        Some((format, _)) => {
            Err(malformed(row, &format!("format {format} is of another version of Triad")))
        }
        None => Err(malformed(row, &"it is empty")),
    }
}

/// What all nodes share, in the form in which it is stored and handed to new nodes.
pub(crate) fn parameters(cluster: &ClusterIdentity) -> wire::ClusterParameters {
    wire::ClusterParameters {
        cluster_id: Bytes::copy_from_slice(cluster.id.as_bytes()),
        name: cluster.name.clone(),
        salt: Bytes::copy_from_slice(cluster.salt.as_bytes()),
        secret: Bytes::copy_from_slice(cluster.secret.as_bytes()),
        replication_factor: cluster.replication_factor,
        virtual_nodes: u32::from(cluster.virtual_nodes),
        shards: cluster.shards.get(),
    }
}

/// The reverse of [`parameters`], checked.
pub(crate) fn cluster_of(
    parameters: &wire::ClusterParameters,
) -> Result<ClusterIdentity, RowError> {
    let row = "cluster";
    let id = |bytes: &[u8]| id16(bytes, "cluster parameters").map_err(|bad| malformed(row, &bad));
    let secret = parameters
        .secret
        .as_ref()
        .try_into()
        .map_err(|_| malformed(row, &"the secret has not 32 bytes"))?;
    let virtual_nodes =
        u16::try_from(parameters.virtual_nodes).map_err(|bad| malformed(row, &bad))?;
    if virtual_nodes == 0 || !(1..=32).contains(&parameters.replication_factor) {
        return Err(malformed(row, &"virtual nodes or replication factor out of range"));
    }
    Ok(ClusterIdentity {
        id: ClusterId::from_bytes(id(&parameters.cluster_id)?),
        name: parameters.name.clone(),
        salt: ClusterSalt::from_bytes(id(&parameters.salt)?),
        secret: ClusterSecret::from_bytes(secret),
        replication_factor: parameters.replication_factor,
        virtual_nodes,
        shards: ShardCount::try_new(parameters.shards).map_err(|bad| malformed(row, &bad))?,
    })
}

/// The cluster that the store belongs to, if any.
pub(crate) fn load_cluster(store: &dyn Store) -> Result<Option<ClusterIdentity>, RowError> {
    let Some(row) = store.get(&Key::Meta(MetaRow::Cluster).encode())? else {
        return Ok(None);
    };
    cluster_of(&decode("cluster", &row)?).map(Some)
}

/// Puts the cluster's row into a batch.
pub(crate) fn put_cluster(batch: &mut Batch, cluster: &ClusterIdentity) {
    batch.put(Key::Meta(MetaRow::Cluster).encode(), encode(&parameters(cluster)));
}

/// Where the node stands in its cluster, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enrolment {
    pub(crate) state: NodeState,
    /// The incarnation in which it was last admitted.
    pub(crate) admitted: Incarnation,
    /// Counts the changes of its state.
    pub(crate) revision: u64,
    /// By which operation it leaves or has left; empty if by none.
    pub(crate) operation: String,
    /// It leaves even if fewer nodes stay than there should be copies.
    pub(crate) allow_under_replicated: bool,
}

impl Enrolment {
    /// That of a node which has just been admitted.
    pub(crate) fn new(admitted: Incarnation) -> Self {
        let (state, operation) = (NodeState::Active, String::new());
        Self { state, admitted, revision: 0, operation, allow_under_replicated: false }
    }
}

/// Where the node stands in its cluster; in it, unless it noted something else.
pub(crate) fn load_enrolment(store: &dyn Store) -> Result<Enrolment, RowError> {
    let Some(row) = store.get(&Key::Meta(MetaRow::Enrolment).encode())? else {
        return Ok(Enrolment::new(Incarnation::new(0)));
    };
    let kept: wire::Enrolment = decode("enrolment", &row)?;
    Ok(Enrolment {
        state: match kept.state() {
            v1::NodeState::Leaving => NodeState::Leaving,
            v1::NodeState::Left => NodeState::Left,
            _ => NodeState::Active,
        },
        admitted: Incarnation::new(kept.admitted),
        revision: kept.revision,
        operation: kept.operation,
        allow_under_replicated: kept.allow_under_replicated,
    })
}

/// Puts where the node stands into a batch.
pub(crate) fn put_enrolment(batch: &mut Batch, enrolment: &Enrolment) {
    let kept = wire::Enrolment {
        state: wire_state(enrolment.state).into(),
        admitted: enrolment.admitted.get(),
        revision: enrolment.revision,
        operation: enrolment.operation.clone(),
        allow_under_replicated: enrolment.allow_under_replicated,
    };
    batch.put(Key::Meta(MetaRow::Enrolment).encode(), encode(&kept));
}

/// The contacts of earlier starts. One that cannot be read is left out: it will be told again.
pub(crate) fn load_contacts(store: &dyn Store) -> Result<Vec<Contact>, RowError> {
    let mut contacts = Vec::new();
    let mut after = None;
    loop {
        let scanned = store.scan(&KeyRange::contacts(), after.as_deref(), &mut |_, row| {
            if let Ok(contact) = decode::<wire::Contact>("contact", &row)
                && let Ok(contact) = Contact::try_from(&contact)
            {
                contacts.push(contact);
            }
            ControlFlow::Continue(())
        });
        match scanned {
            Err(StoreError::Damaged { key, .. }) => after = Some(key),
            other => return other.map(|()| contacts).map_err(RowError::from),
        }
    }
}

/// Puts a contact's row into a batch.
pub(crate) fn put_contact(batch: &mut Batch, contact: &Contact) {
    batch.put(Key::Contact(contact.node).encode(), encode(&wire::Contact::from(contact)));
}

/// All shards as the store knows them, those it never heard of included.
pub(crate) fn load_shards(
    store: &dyn Store,
    shards: ShardCount,
    me: Member,
    nonce: StartNonce,
) -> Result<Vec<ShardReplica>, RowError> {
    let mut entered: BTreeMap<ShardId, EnteredRow> = BTreeMap::new();
    let mut acceptors: BTreeMap<ShardId, Acceptor> = BTreeMap::new();
    let mut bad = None;
    store.scan(&KeyRange::shard_rows(), None, &mut |key, row| {
        let read = match Key::decode(key) {
            Some(Key::Shard(shard, ShardRow::Entered)) => {
                EnteredRow::decode(&row).map(|row| drop(entered.insert(shard, row)))
            }
            Some(Key::Shard(shard, ShardRow::Acceptor)) => {
                Acceptor::decode(&row).map(|row| drop(acceptors.insert(shard, row)))
            }
            _ => Ok(()),
        };
        match read {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                bad = Some(malformed("shard", &why));
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(bad) = bad {
        return Err(bad);
    }
    let restore = |shard| {
        let (entered, acceptor) = (entered.remove(&shard), acceptors.remove(&shard));
        let mut replica = ShardReplica::restore(shard, me, nonce, entered, acceptor);
        replica.witnessed_by(Witnesses::none());
        replica
    };
    Ok(shards.iter().map(restore).collect())
}

/// The starts of other stores that this one has recorded.
pub(crate) fn load_starts(store: &dyn Store) -> Result<StartLog, RowError> {
    let mut log = StartLog::default();
    let mut bad = None;
    store.scan(&KeyRange::starts(), None, &mut |key, row| {
        let Some(Key::Start(member)) = Key::decode(key) else {
            return ControlFlow::Continue(());
        };
        match log.restore(member, &row) {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                bad = Some(malformed("start", &why));
                ControlFlow::Break(())
            }
        }
    })?;
    bad.map_or(Ok(log), Err)
}

/// How many commits the store has made in its life.
pub(crate) fn load_commits(store: &dyn Store) -> Result<u64, RowError> {
    let Some(row) = store.get(&Key::Meta(MetaRow::Commits).encode())? else {
        return Ok(0);
    };
    let number = row.as_ref().try_into().map_err(|bad| malformed("commits", &bad))?;
    Ok(u64::from_be_bytes(number))
}

/// Adds the commit's number, by which an old state of the store shows.
pub(crate) fn numbered(mut batch: Batch, number: u64) -> Batch {
    let mut one = Batch::new();
    one.set_essential();
    one.put(Key::Meta(MetaRow::Commits).encode(), number.to_be_bytes().to_vec());
    batch.append(one);
    batch
}

/// Makes a cluster: its row and the first configuration of every shard, in one batch.
pub(crate) fn found(
    cluster: &ClusterIdentity,
    me: Member,
    nonce: StartNonce,
) -> (Batch, Vec<ShardReplica>) {
    let mut batch = Batch::new();
    put_cluster(&mut batch, cluster);
    let mut replicas = Vec::new();
    for shard in cluster.shards.iter() {
        let (mut replica, durable) = ShardReplica::bootstrap(shard, me, nonce);
        replica.witnessed_by(Witnesses::none());
        for (row, value) in durable.iter().filter_map(Durable::row) {
            batch.put(Key::Shard(shard, row).encode(), value);
        }
        replicas.push(replica);
    }
    (batch, replicas)
}
