//! Deciding a shard's next configuration.

use triad_replica::configuration::{Configuration, ConfigurationDigest, Epoch, MAX_MEMBERS};
use triad_replica::member::Member;
use triad_replica::message::{Base, Removal, RemovalReason, Report, ShardReply, ShardRequest};
use triad_replica::paxos::Ballot;
use triad_ring::{NodeId, ShardId};

use super::{BadField, bounded, from_id, id16, required};
use crate::peer::v1 as peer;
use crate::peer::v1::shard_reply::Reply;
use crate::peer::v1::shard_request::Request;

impl From<Ballot> for peer::Ballot {
    fn from(ballot: Ballot) -> Self {
        Self { counter: ballot.counter, node_id: from_id(ballot.node.as_bytes()) }
    }
}

impl TryFrom<peer::Ballot> for Ballot {
    type Error = BadField;

    fn try_from(wire: peer::Ballot) -> Result<Self, BadField> {
        Ok(Self {
            counter: wire.counter,
            node: NodeId::from_bytes(id16("ballot.node_id", &wire.node_id)?),
        })
    }
}

impl From<Base> for peer::Base {
    fn from(base: Base) -> Self {
        Self {
            shard: base.shard.get(),
            epoch: Some(base.epoch.into()),
            digest: from_id(base.digest.as_bytes()),
        }
    }
}

impl TryFrom<peer::Base> for Base {
    type Error = BadField;

    fn try_from(wire: peer::Base) -> Result<Self, BadField> {
        Ok(Self {
            shard: ShardId::new(wire.shard),
            epoch: required("base.epoch", wire.epoch)?.into(),
            digest: ConfigurationDigest::from_bytes(id16("base.digest", &wire.digest)?),
        })
    }
}

impl From<Removal> for peer::Removal {
    fn from(removal: Removal) -> Self {
        let reason = match removal.reason {
            RemovalReason::Displaced => peer::RemovalReason::Displaced,
            RemovalReason::Leaving => peer::RemovalReason::Leaving,
            RemovalReason::LostStore => peer::RemovalReason::LostStore,
            RemovalReason::Down => peer::RemovalReason::Down,
        };
        Self { member: Some(removal.member.into()), reason: reason.into() }
    }
}

impl TryFrom<peer::Removal> for Removal {
    type Error = BadField;

    fn try_from(wire: peer::Removal) -> Result<Self, BadField> {
        let unknown = || BadField::peer("removal.reason", wire.reason, "no reason has this number");
        let reason = match peer::RemovalReason::try_from(wire.reason).map_err(|_| unknown())? {
            peer::RemovalReason::Unspecified => return Err(BadField::missing("removal.reason")),
            peer::RemovalReason::Displaced => RemovalReason::Displaced,
            peer::RemovalReason::Leaving => RemovalReason::Leaving,
            peer::RemovalReason::LostStore => RemovalReason::LostStore,
            peer::RemovalReason::Down => RemovalReason::Down,
        };
        Ok(Self { member: required("removal.member", wire.member)?.try_into()?, reason })
    }
}

impl From<ShardRequest> for peer::ShardRequest {
    fn from(request: ShardRequest) -> Self {
        let request = match request {
            ShardRequest::Prepare { base, ballot, removals } => Request::Prepare(peer::Prepare {
                base: Some(base.into()),
                ballot: Some(ballot.into()),
                removals: removals.into_iter().map(Into::into).collect(),
            }),
            ShardRequest::Accept { base, ballot, value } => Request::Accept(peer::Accept {
                base: Some(base.into()),
                ballot: Some(ballot.into()),
                value: Some(value.into()),
            }),
            ShardRequest::Learn { configuration } => {
                Request::Learn(peer::Learn { configuration: Some(configuration.into()) })
            }
            ShardRequest::StartLearning { base } => {
                Request::StartLearning(peer::StartLearning { base: Some(base.into()) })
            }
            ShardRequest::Progress { shard } => {
                Request::Progress(peer::AskProgress { shard: shard.get() })
            }
        };
        Self { request: Some(request) }
    }
}

impl TryFrom<peer::ShardRequest> for ShardRequest {
    type Error = BadField;

    fn try_from(wire: peer::ShardRequest) -> Result<Self, BadField> {
        Ok(match required("shard.request", wire.request)? {
            Request::Prepare(prepare) => Self::Prepare {
                base: configuration("prepare.base", prepare.base)?,
                ballot: ballot("prepare.ballot", prepare.ballot)?,
                removals: removals(prepare.removals)?,
            },
            Request::Accept(accept) => Self::Accept {
                base: required("accept.base", accept.base)?.try_into()?,
                ballot: ballot("accept.ballot", accept.ballot)?,
                value: configuration("accept.value", accept.value)?,
            },
            Request::Learn(learn) => Self::Learn {
                configuration: configuration("learn.configuration", learn.configuration)?,
            },
            Request::StartLearning(start) => {
                Self::StartLearning { base: configuration("start_learning.base", start.base)? }
            }
            Request::Progress(ask) => Self::Progress { shard: ShardId::new(ask.shard) },
        })
    }
}

impl From<ShardReply> for peer::ShardReply {
    fn from(reply: ShardReply) -> Self {
        let reply = match reply {
            ShardReply::Promised { ballot, accepted } => Reply::Promised(peer::Promised {
                ballot: Some(ballot.into()),
                accepted: accepted.map(|(ballot, value)| peer::Acceptance {
                    ballot: Some(ballot.into()),
                    value: Some(value.into()),
                }),
            }),
            ShardReply::Rejected { promised } => {
                Reply::Rejected(peer::Rejected { promised: Some(promised.into()) })
            }
            ShardReply::Accepted { ballot } => {
                Reply::Accepted(peer::Accepted { ballot: Some(ballot.into()) })
            }
            ShardReply::Superseded { newest } => {
                Reply::Superseded(peer::Superseded { newest: Some(newest.into()) })
            }
            ShardReply::Behind { newest } => {
                Reply::Behind(peer::Behind { newest: newest.map(Into::into) })
            }
            ShardReply::RemovalRefused { member } => {
                Reply::RemovalRefused(peer::RemovalRefused { member: Some(member.into()) })
            }
            ShardReply::Refused => Reply::Refused(peer::ShardRefused {}),
            ShardReply::Learned { epoch } => {
                Reply::Learned(peer::Learned { epoch: Some(epoch.into()) })
            }
            ShardReply::Report(report) => Reply::Progress(report.into()),
        };
        Self { reply: Some(reply) }
    }
}

impl TryFrom<peer::ShardReply> for ShardReply {
    type Error = BadField;

    fn try_from(wire: peer::ShardReply) -> Result<Self, BadField> {
        Ok(match required("shard.reply", wire.reply)? {
            Reply::Promised(promised) => Self::Promised {
                ballot: ballot("promised.ballot", promised.ballot)?,
                accepted: promised.accepted.map(acceptance).transpose()?,
            },
            Reply::Rejected(rejected) => {
                Self::Rejected { promised: ballot("rejected.promised", rejected.promised)? }
            }
            Reply::Accepted(accepted) => {
                Self::Accepted { ballot: ballot("accepted.ballot", accepted.ballot)? }
            }
            Reply::Superseded(superseded) => {
                Self::Superseded { newest: configuration("superseded.newest", superseded.newest)? }
            }
            Reply::Behind(behind) => Self::Behind { newest: behind.newest.map(Epoch::from) },
            Reply::RemovalRefused(refused) => Self::RemovalRefused {
                member: Member::try_from(required("removal_refused.member", refused.member)?)?,
            },
            Reply::Refused(peer::ShardRefused {}) => Self::Refused,
            Reply::Learned(learned) => {
                Self::Learned { epoch: required("learned.epoch", learned.epoch)?.into() }
            }
            Reply::Progress(progress) => Self::Report(progress.into()),
        })
    }
}

impl From<Report> for peer::Progress {
    fn from(report: Report) -> Self {
        Self {
            entered: report.entered.map(Into::into),
            fenced: report.fenced,
            declared: report.declared.map(Into::into),
            merged: report.merged,
            difference: report.difference,
            holds_data: report.holds_data,
        }
    }
}

impl From<peer::Progress> for Report {
    fn from(wire: peer::Progress) -> Self {
        Self {
            entered: wire.entered.map(Epoch::from),
            fenced: wire.fenced,
            declared: wire.declared.map(Epoch::from),
            merged: wire.merged,
            difference: wire.difference,
            holds_data: wire.holds_data,
        }
    }
}

fn acceptance(wire: peer::Acceptance) -> Result<(Ballot, Configuration), BadField> {
    let ballot = ballot("accepted.ballot", wire.ballot)?;
    Ok((ballot, configuration("accepted.value", wire.value)?))
}

fn ballot(field: &'static str, wire: Option<peer::Ballot>) -> Result<Ballot, BadField> {
    required(field, wire)?.try_into()
}

fn configuration(
    field: &'static str,
    wire: Option<peer::Configuration>,
) -> Result<Configuration, BadField> {
    required(field, wire)?.try_into()
}

fn removals(wire: Vec<peer::Removal>) -> Result<Vec<Removal>, BadField> {
    bounded("prepare.removals", wire.len(), MAX_MEMBERS)?;
    wire.into_iter().map(Removal::try_from).collect()
}
