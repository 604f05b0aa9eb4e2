//! A peer that is no member of anything and tells the nodes of a cluster whatever a test has it tell.
//!
//! It knows the cluster's id, which every node tells to whoever asks, and introduces itself truthfully, under an id of its own:
//! so much anybody can who reaches the peer port, as long as connections do not prove who opened them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use triad_proto::peer::v1 as wire;
use triad_proto::peer::v1::peer_service_client::PeerServiceClient;
use triad_proto::peer::v1::{control_reply, control_request, data_reply, data_request};
use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::member::{Member, StoreId};
use triad_replica::record::Record;
use triad_ring::{NodeId, RingId, ShardCount, ShardId};

use crate::processes::Node;

/// How long all answers of one stream may take together, on a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a request about a record allows its receiver.
const DEADLINE_MS: u32 = 5_000;

/// The liar.
#[derive(Clone, Debug)]
pub struct Liar {
    /// Who it says it is.
    pub hello: wire::Hello,
    shards: ShardCount,
}

impl Liar {
    /// Hears from a node which cluster it is in, and takes an id that no node has.
    pub async fn of(node: &Node, shards: u32) -> Self {
        let asked = wire::IdentifyRequest::default();
        let told = peer(node).await.identify(asked).await.expect("a node says who it is");
        let cluster = told.into_inner().hello.expect("a node introduces itself").cluster_id;
        let hello = wire::Hello {
            protocol_version: 1,
            cluster_id: cluster,
            node_id: Bytes::from_static(&[0xbd; 16]),
            incarnation: 7,
            store_id: Bytes::from_static(&[0xbe; 16]),
            start_nonce: Bytes::from_static(&[0xbf; 16]),
            commit_number: 1,
        };
        Self { hello, shards: ShardCount::try_new(shards).expect("a cluster's number of shards") }
    }

    /// The same under another name.
    #[must_use]
    pub fn disguised(&self, hello: wire::Hello) -> Self {
        Self { hello, ..self.clone() }
    }

    /// What it would be in a configuration.
    pub fn member(&self) -> Member {
        Member {
            node: NodeId::from_bytes(id(&self.hello.node_id)),
            store: StoreId::from_bytes(id(&self.hello.store_id)),
        }
    }

    /// The shard of a key.
    pub fn shard_of(&self, bucket: &str, key: &str) -> ShardId {
        self.shards.shard_of(RingId::of_key(bucket, key.as_bytes()))
    }

    /// Asks all this on one control stream. The answers that came, by the request's place; none is waited for where none is
    /// due.
    pub async fn control(
        &self,
        node: &Node,
        requests: Vec<control_request::Request>,
    ) -> Result<BTreeMap<usize, control_reply::Reply>, Status> {
        let due = |request: &control_request::Request| {
            let silent = |one: &control_request::Request| {
                use control_request::Request;
                matches!(one, Request::Ring(_) | Request::Contacts(_))
            };
            !silent(request)
        };
        let expected = requests.iter().filter(|request| due(request)).count();
        let numbered = requests.into_iter().enumerate().map(|(place, request)| {
            wire::ControlRequest { id: place as u64 + 1, request: Some(request) }
        });
        let batch = wire::ControlBatch {
            hello: Some(self.hello.clone()),
            requests: Vec::new(),
            contacts: Vec::new(),
        };
        let more =
            wire::ControlBatch { hello: None, requests: numbered.collect(), ..batch.clone() };
        let stream = tokio_stream::iter([batch, more]).chain(tokio_stream::pending());
        let replies = peer(node).await.control(stream).await?.into_inner();
        let replies = gather(replies, expected, |batch| {
            batch.replies.into_iter().filter_map(|reply| Some((reply.id, reply.reply?))).collect()
        });
        replies.await
    }

    /// Asks all this on one data stream: the answers, by the request's place.
    pub async fn data(
        &self,
        node: &Node,
        requests: Vec<wire::DataRequest>,
    ) -> Result<BTreeMap<usize, data_reply::Reply>, Status> {
        let expected = requests.len();
        let numbered = requests
            .into_iter()
            .enumerate()
            .map(|(place, request)| wire::DataRequest { id: place as u64 + 1, ..request });
        let first =
            wire::DataBatch { hello: Some(self.hello.clone()), ..wire::DataBatch::default() };
        let more = wire::DataBatch { requests: numbered.collect(), ..wire::DataBatch::default() };
        let stream = tokio_stream::iter([first, more]).chain(tokio_stream::pending());
        let replies = peer(node).await.data(stream).await?.into_inner();
        let replies = gather(replies, expected, |batch| {
            batch.replies.into_iter().filter_map(|reply| Some((reply.id, reply.reply?))).collect()
        });
        replies.await
    }

    /// The configuration of a shard that a node knows.
    pub async fn configuration(&self, node: &Node, shard: ShardId) -> Configuration {
        let find = wire::FindConfiguration { shard: shard.get() };
        let asked = vec![control_request::Request::Find(find)];
        let told = self.control(node, asked).await.expect("a configuration is public");
        match told.into_values().next() {
            Some(control_reply::Reply::Found(found)) => {
                let newest = found.newest.expect("a settled cluster knows all its shards");
                Configuration::try_from(newest).expect("a node sends what is well-formed")
            }
            other => panic!("not a configuration: {other:?}"),
        }
    }

    /// A request about a key, in an epoch.
    pub fn about(
        &self,
        shard: ShardId,
        epoch: Epoch,
        request: data_request::Request,
    ) -> wire::DataRequest {
        wire::DataRequest {
            id: 0,
            deadline_ms: DEADLINE_MS,
            trace: String::new(),
            shard: shard.get(),
            epoch: Some(epoch.into()),
            request: Some(request),
        }
    }

    /// The record of a key as a member has it.
    pub async fn record(&self, node: &Node, epoch: Epoch, bucket: &str, key: &str) -> Record {
        let read = data_request::Request::Read(wire::Read {
            bucket: bucket.to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            digest: Bytes::new(),
        });
        let asked = vec![self.about(self.shard_of(bucket, key), epoch, read)];
        let told = self.data(node, asked).await.expect("reading is allowed");
        match told.into_values().next() {
            Some(data_reply::Reply::Record(stored)) if stored.record.is_empty() => {
                Record::default()
            }
            Some(data_reply::Reply::Record(stored)) => {
                Record::decode(stored.record).expect("a node sends what it stored")
            }
            other => panic!("not a record: {other:?}"),
        }
    }
}

/// The peer port of a node.
pub async fn peer(node: &Node) -> PeerServiceClient<Channel> {
    PeerServiceClient::new(crate::raw::channel(&node.peer_address()).await)
}

fn id(bytes: &[u8]) -> [u8; 16] {
    bytes.try_into().expect("an id has 16 bytes")
}

/// Reads until so many answers are there, or the stream ends.
async fn gather<B, R>(
    mut batches: Streaming<B>,
    expected: usize,
    replies: impl Fn(B) -> Vec<(u64, R)>,
) -> Result<BTreeMap<usize, R>, Status> {
    let mut all = BTreeMap::new();
    let reading = async {
        while all.len() < expected
            && let Some(batch) = batches.message().await?
        {
            let replies = replies(batch);
            all.extend(replies.into_iter().map(|(id, reply)| (id as usize - 1, reply)));
        }
        Ok(())
    };
    let in_time = tokio::time::timeout(PATIENCE, reading).await;
    let late = || Status::deadline_exceeded(format!("{expected} answers are due"));
    in_time.unwrap_or_else(|_| Err(late()))?;
    Ok(all)
}
