//! Epochs, members and configurations.

use triad_replica::configuration::{Configuration, Epoch, MAX_MEMBERS, MAX_RETIRED, Phase};
use triad_replica::gc::GcDigest;
use triad_replica::member::{Member, StoreId};
use triad_ring::{NodeId, ShardId};

use super::{BadField, bounded, from_id, id16, required};
use crate::peer::v1 as peer;
use crate::v1;

impl From<Epoch> for v1::Epoch {
    fn from(epoch: Epoch) -> Self {
        Self { lineage: epoch.lineage, number: epoch.number }
    }
}

impl From<v1::Epoch> for Epoch {
    fn from(epoch: v1::Epoch) -> Self {
        Self { lineage: epoch.lineage, number: epoch.number }
    }
}

impl From<Member> for peer::Member {
    fn from(member: Member) -> Self {
        Self {
            node_id: from_id(member.node.as_bytes()),
            store_id: from_id(member.store.as_bytes()),
        }
    }
}

impl TryFrom<peer::Member> for Member {
    type Error = BadField;

    fn try_from(member: peer::Member) -> Result<Self, BadField> {
        Ok(Self {
            node: NodeId::from_bytes(id16("member.node_id", &member.node_id)?),
            store: StoreId::from_bytes(id16("member.store_id", &member.store_id)?),
        })
    }
}

impl From<&Configuration> for peer::Configuration {
    fn from(configuration: &Configuration) -> Self {
        let members =
            |members: &[Member]| members.iter().copied().map(peer::Member::from).collect();
        let (phase, next_members) = match &configuration.phase {
            Phase::Stable { .. } => (v1::Phase::Stable, Vec::new()),
            Phase::Joint { new, .. } => (v1::Phase::Joint, members(new)),
        };
        Self {
            shard: configuration.shard.get(),
            epoch: Some(configuration.epoch.into()),
            phase: phase.into(),
            members: members(configuration.read_set()),
            next_members,
            gc_epoch: Some(configuration.gc_epoch.into()),
            retired: members(&configuration.retired),
            collected: configuration
                .collected
                .as_ref()
                .map_or_else(Default::default, |digest| from_id(&digest.0)),
        }
    }
}

impl From<Configuration> for peer::Configuration {
    fn from(configuration: Configuration) -> Self {
        Self::from(&configuration)
    }
}

/// Checks all that [`Configuration::validated`] does.
impl TryFrom<peer::Configuration> for Configuration {
    type Error = BadField;

    fn try_from(wire: peer::Configuration) -> Result<Self, BadField> {
        let unknown =
            || BadField::peer("configuration.phase", wire.phase, "no phase has this number");
        let phase = v1::Phase::try_from(wire.phase).map_err(|_| unknown())?;
        let members = side("configuration.members", wire.members, MAX_MEMBERS)?;
        let new = side("configuration.next_members", wire.next_members, MAX_MEMBERS)?;
        let phase = match phase {
            v1::Phase::Unspecified => return Err(BadField::missing("configuration.phase")),
            v1::Phase::Joint => Phase::Joint { old: members, new },
            v1::Phase::Stable if new.is_empty() => Phase::Stable { members },
            v1::Phase::Stable => {
                let why = "a stable configuration has no next members";
                return Err(BadField::peer("configuration.next_members", new.len(), why));
            }
        };
        let configuration = Self {
            shard: ShardId::new(wire.shard),
            epoch: required("configuration.epoch", wire.epoch)?.into(),
            phase,
            gc_epoch: wire.gc_epoch.map_or(Epoch::NONE, Epoch::from),
            collected: match wire.collected.as_ref() {
                [] => None,
                digest => Some(Box::new(GcDigest(id16("configuration.collected", digest)?))),
            },
            retired: side("configuration.retired", wire.retired, MAX_RETIRED)?,
        };
        let text = configuration.to_string();
        configuration.validated().map_err(|bad| BadField::peer("configuration", text, bad))
    }
}

fn side(
    field: &'static str,
    members: Vec<peer::Member>,
    limit: usize,
) -> Result<Vec<Member>, BadField> {
    bounded(field, members.len(), limit)?;
    members.into_iter().map(Member::try_from).collect()
}
