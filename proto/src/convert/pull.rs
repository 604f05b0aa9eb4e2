//! Comparing and copying shards.

use bytes::{BufMut, Bytes, BytesMut};
use triad_replica::anti_entropy::{Listing, ShardRoot};
use triad_replica::configuration::{Configuration, Epoch};
use triad_replica::hash_tree::LEAVES;
use triad_replica::message::{
    ListedRow, PageCursor, PullPurpose, PullReply, PullRequest, PulledRecord, Standing,
};
use triad_ring::ShardId;

use super::{BadField, bounded, from_id, id16, required};
use crate::peer::v1 as peer;
use crate::peer::v1::pull_request::Request;
use crate::peer::v1::pull_response::Response;

/// One leaf of a hash tree.
const LEAF_BYTES: usize = 16;

impl From<PullPurpose> for peer::PullPurpose {
    fn from(purpose: PullPurpose) -> Self {
        match purpose {
            PullPurpose::Learn => Self::Learn,
            PullPurpose::Merge => Self::Merge,
            PullPurpose::CatchUp => Self::CatchUp,
            PullPurpose::Drain => Self::Drain,
            PullPurpose::AntiEntropy => Self::AntiEntropy,
        }
    }
}

/// Without `hello`, which the transport adds.
impl From<PullRequest> for peer::PullRequest {
    fn from(request: PullRequest) -> Self {
        let request = match request {
            PullRequest::Tree { shard, epoch, root, purpose } => Request::Tree(peer::TreeRequest {
                shard: shard.get(),
                epoch: Some(epoch.into()),
                root: from_id(&root.to_be_bytes()),
                purpose: peer::PullPurpose::from(purpose).into(),
            }),
            PullRequest::Page { shard, epoch, leaves, after, max_bytes } => {
                Request::Page(peer::PageRequest {
                    shard: shard.get(),
                    epoch: Some(epoch.into()),
                    leaves: leaves.into(),
                    after: from_cursor(after),
                    max_bytes,
                })
            }
            PullRequest::List { shard, epoch, leaves, after } => Request::List(peer::ListRequest {
                shard: shard.get(),
                epoch: Some(epoch.into()),
                leaves: leaves.into(),
                after: from_cursor(after),
            }),
            PullRequest::Push { shard, epoch, from, records } => Request::Push(peer::PushRequest {
                shard: shard.get(),
                epoch: Some(epoch.into()),
                from: Some(from.into()),
                records: from_records(records),
            }),
        };
        Self { hello: None, request: Some(request) }
    }
}

impl TryFrom<peer::PullRequest> for PullRequest {
    type Error = BadField;

    fn try_from(wire: peer::PullRequest) -> Result<Self, BadField> {
        Ok(match required("pull.request", wire.request)? {
            Request::Tree(tree) => Self::Tree {
                shard: ShardId::new(tree.shard),
                epoch: required("tree.epoch", tree.epoch)?.into(),
                root: u128::from_be_bytes(id16("tree.root", &tree.root)?),
                purpose: purpose(tree.purpose)?,
            },
            Request::Page(page) => {
                bounded("page.leaves", page.leaves.len(), LEAVES)?;
                Self::Page {
                    shard: ShardId::new(page.shard),
                    epoch: required("page.epoch", page.epoch)?.into(),
                    leaves: page.leaves.to_vec(),
                    after: cursor(page.after),
                    max_bytes: page.max_bytes,
                }
            }
            Request::List(list) => {
                bounded("list.leaves", list.leaves.len(), LEAVES)?;
                Self::List {
                    shard: ShardId::new(list.shard),
                    epoch: required("list.epoch", list.epoch)?.into(),
                    leaves: list.leaves.to_vec(),
                    after: cursor(list.after),
                }
            }
            Request::Push(push) => Self::Push {
                shard: ShardId::new(push.shard),
                epoch: required("push.epoch", push.epoch)?.into(),
                from: required("push.from", push.from)?.try_into()?,
                records: records(push.records)?,
            },
        })
    }
}

/// Without `stamp`, which the transport adds.
impl From<PullReply> for peer::PullResponse {
    fn from(reply: PullReply) -> Self {
        let response = match reply {
            PullReply::Tree { standing, same, leaves } => Response::Tree(peer::TreeReply {
                standing: Some(standing.into()),
                same,
                leaves: from_leaves(&leaves),
            }),
            PullReply::Page { records, data_epoch, next } => Response::Page(peer::PageReply {
                records: from_records(records),
                next: from_cursor(next),
                data_epoch: data_epoch.map(Into::into),
            }),
            PullReply::List(Listing { rows, end }) => Response::List(peer::ListReply {
                rows: rows.into_iter().map(Into::into).collect(),
                end: from_cursor(end),
            }),
            PullReply::Pushed => Response::Push(peer::PushReply {}),
            PullReply::Refused { newest } => {
                Response::Refused(peer::PullRefused { newest: newest.map(Into::into) })
            }
        };
        Self { stamp: None, response: Some(response) }
    }
}

impl TryFrom<peer::PullResponse> for PullReply {
    type Error = BadField;

    fn try_from(wire: peer::PullResponse) -> Result<Self, BadField> {
        Ok(match required("pull.response", wire.response)? {
            Response::Tree(tree) => Self::Tree {
                standing: required("tree.standing", tree.standing)?.into(),
                same: tree.same,
                leaves: leaves(&tree.leaves, tree.same)?,
            },
            Response::Page(page) => Self::Page {
                records: records(page.records)?,
                data_epoch: page.data_epoch.map(Epoch::from),
                next: cursor(page.next),
            },
            Response::List(list) => Self::List(Listing {
                rows: list.rows.into_iter().map(ListedRow::try_from).collect::<Result<_, _>>()?,
                end: cursor(list.end),
            }),
            Response::Push(peer::PushReply {}) => Self::Pushed,
            Response::Refused(refused) => {
                Self::Refused { newest: refused.newest.map(Configuration::try_from).transpose()? }
            }
        })
    }
}

impl From<Standing> for peer::Standing {
    fn from(standing: Standing) -> Self {
        Self {
            entered: standing.entered.map(Into::into),
            left: standing.left.map(Into::into),
            source: standing.source,
        }
    }
}

impl From<peer::Standing> for Standing {
    fn from(wire: peer::Standing) -> Self {
        Self {
            entered: wire.entered.map(Epoch::from),
            left: wire.left.map(Epoch::from),
            source: wire.source,
        }
    }
}

impl From<PulledRecord> for peer::RecordEntry {
    fn from(record: PulledRecord) -> Self {
        Self { bucket: record.bucket, key: record.key, record: record.record }
    }
}

/// The record's bytes are not decoded here: who merges them does, and knows what damage means.
impl TryFrom<peer::RecordEntry> for PulledRecord {
    type Error = BadField;

    fn try_from(wire: peer::RecordEntry) -> Result<Self, BadField> {
        if wire.bucket.is_empty() {
            return Err(BadField::missing("record.bucket"));
        }
        if wire.key.is_empty() {
            return Err(BadField::missing("record.key"));
        }
        Ok(Self { bucket: wire.bucket, key: wire.key, record: wire.record })
    }
}

impl From<ListedRow> for peer::ListedRow {
    fn from(row: ListedRow) -> Self {
        let hash = row.hash.map(|hash| from_id(&hash.to_be_bytes())).unwrap_or_default();
        Self { bucket: row.bucket, key: row.key, hash }
    }
}

impl TryFrom<peer::ListedRow> for ListedRow {
    type Error = BadField;

    fn try_from(wire: peer::ListedRow) -> Result<Self, BadField> {
        if wire.bucket.is_empty() {
            return Err(BadField::missing("row.bucket"));
        }
        let hash = (!wire.hash.is_empty()).then(|| id16("row.hash", &wire.hash)).transpose()?;
        Ok(Self { bucket: wire.bucket, key: wire.key, hash: hash.map(u128::from_be_bytes) })
    }
}

impl From<ShardRoot> for peer::ShardRoot {
    fn from(root: ShardRoot) -> Self {
        Self {
            shard: root.shard.get(),
            epoch: Some(root.epoch.into()),
            root: from_id(&root.root.to_be_bytes()),
        }
    }
}

impl TryFrom<peer::ShardRoot> for ShardRoot {
    type Error = BadField;

    fn try_from(wire: peer::ShardRoot) -> Result<Self, BadField> {
        Ok(Self {
            shard: ShardId::new(wire.shard),
            epoch: required("root.epoch", wire.epoch)?.into(),
            root: u128::from_be_bytes(id16("root.root", &wire.root)?),
        })
    }
}

fn purpose(raw: i32) -> Result<PullPurpose, BadField> {
    let unknown = || BadField::peer("tree.purpose", raw, "no purpose has this number");
    match peer::PullPurpose::try_from(raw).map_err(|_| unknown())? {
        peer::PullPurpose::Unspecified => Err(BadField::missing("tree.purpose")),
        peer::PullPurpose::Learn => Ok(PullPurpose::Learn),
        peer::PullPurpose::Merge => Ok(PullPurpose::Merge),
        peer::PullPurpose::CatchUp => Ok(PullPurpose::CatchUp),
        peer::PullPurpose::Drain => Ok(PullPurpose::Drain),
        peer::PullPurpose::AntiEntropy => Ok(PullPurpose::AntiEntropy),
    }
}

/// A cursor is never empty: it names a key.
fn from_cursor(cursor: Option<PageCursor>) -> Bytes {
    cursor.map(|PageCursor(bytes)| bytes).unwrap_or_default()
}

fn cursor(wire: Bytes) -> Option<PageCursor> {
    (!wire.is_empty()).then_some(PageCursor(wire))
}

fn from_records(records: Vec<PulledRecord>) -> Vec<peer::RecordEntry> {
    records.into_iter().map(Into::into).collect()
}

fn records(wire: Vec<peer::RecordEntry>) -> Result<Vec<PulledRecord>, BadField> {
    wire.into_iter().map(PulledRecord::try_from).collect()
}

fn from_leaves(leaves: &[u128]) -> Bytes {
    let mut out = BytesMut::with_capacity(leaves.len() * LEAF_BYTES);
    for leaf in leaves {
        out.put_u128(*leaf);
    }
    out.freeze()
}

fn leaves(wire: &[u8], same: bool) -> Result<Vec<u128>, BadField> {
    let wanted = if same { 0 } else { LEAVES * LEAF_BYTES };
    if wire.len() != wanted {
        let why = format!("it must be {wanted} bytes long");
        return Err(BadField::peer("tree.leaves", format!("{} bytes long", wire.len()), why));
    }
    let (leaves, _) = wire.as_chunks::<LEAF_BYTES>();
    Ok(leaves.iter().map(|leaf| u128::from_be_bytes(*leaf)).collect())
}
