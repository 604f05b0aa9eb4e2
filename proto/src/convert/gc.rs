//! Rounds of tombstone collection: what members are asked to vouch for.

use triad_replica::configuration::{Configuration, ConfigurationDigest};
use triad_replica::gc::{Garbage, GcDigest, ROUND_KEYS, VouchReply, VouchRequest};
use triad_replica::message::Base;
use triad_replica::record::RecordDigest;
use triad_ring::ShardId;

use super::{BadField, bounded, from_id, id16, required};
use crate::peer::v1 as peer;
use crate::peer::v1::gc_vouch::Answer;

impl From<VouchRequest> for peer::GcRound {
    fn from(request: VouchRequest) -> Self {
        Self {
            shard: request.base.shard.get(),
            epoch: Some(request.base.epoch.into()),
            digest: from_id(request.base.digest.as_bytes()),
            garbage: request.garbage.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<peer::GcRound> for VouchRequest {
    type Error = BadField;

    fn try_from(wire: peer::GcRound) -> Result<Self, BadField> {
        bounded("round.garbage", wire.garbage.len(), ROUND_KEYS)?;
        let request = Self {
            base: Base {
                shard: ShardId::new(wire.shard),
                epoch: required("round.epoch", wire.epoch)?.into(),
                digest: ConfigurationDigest::from_bytes(id16("round.digest", &wire.digest)?),
            },
            garbage: wire.garbage.into_iter().map(Garbage::try_from).collect::<Result<_, _>>()?,
        };
        if !request.is_valid() {
            let why = "it must be in order, without a key twice, and within its limits";
            return Err(BadField::peer("round.garbage", request.garbage.len(), why));
        }
        Ok(request)
    }
}

impl From<Garbage> for peer::Garbage {
    fn from(garbage: Garbage) -> Self {
        let Garbage { bucket, key, record } = garbage;
        Self { bucket, key, record: from_id(&record.0) }
    }
}

impl TryFrom<peer::Garbage> for Garbage {
    type Error = BadField;

    fn try_from(wire: peer::Garbage) -> Result<Self, BadField> {
        if wire.bucket.is_empty() {
            return Err(BadField::missing("garbage.bucket"));
        }
        let record = RecordDigest(id16("garbage.record", &wire.record)?);
        Ok(Self { bucket: wire.bucket, key: wire.key, record })
    }
}

impl From<VouchReply> for peer::GcVouch {
    fn from(reply: VouchReply) -> Self {
        let answer = match reply {
            VouchReply::Vouched(digest) => Answer::Vouched(from_id(&digest.0)),
            VouchReply::Lacks(places) => Answer::Lacks(peer::GcLacks { places }),
            VouchReply::Refused { newest } => {
                Answer::Refused(peer::PullRefused { newest: newest.map(Into::into) })
            }
        };
        Self { answer: Some(answer) }
    }
}

impl TryFrom<peer::GcVouch> for VouchReply {
    type Error = BadField;

    fn try_from(wire: peer::GcVouch) -> Result<Self, BadField> {
        Ok(match required("vouch.answer", wire.answer)? {
            Answer::Vouched(digest) => Self::Vouched(GcDigest(id16("vouch.vouched", &digest)?)),
            Answer::Lacks(lacks) => {
                bounded("vouch.lacks", lacks.places.len(), ROUND_KEYS)?;
                Self::Lacks(lacks.places)
            }
            Answer::Refused(refused) => {
                Self::Refused { newest: refused.newest.map(Configuration::try_from).transpose()? }
            }
        })
    }
}
