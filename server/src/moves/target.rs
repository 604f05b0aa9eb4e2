//! Which members a shard should have: what the ring proposes, and who must be replaced.
//!
//! The first N distinct nodes clockwise from the shard's end, of those in the ring that do not
//! leave, and at their places those members that are merely silent: such a member is displaced
//! only by a living node that stands before it. A member that is dead, or whose store is lost,
//! is replaced by a living node and by nothing else: a configuration shrinks only because a
//! node leaves (design §3).

use std::collections::{BTreeMap, BTreeSet};

use triad_replica::configuration::{Configuration, majority};
use triad_replica::member::{Member, StoreId};
use triad_replica::message::RemovalReason;
use triad_ring::{ClusterSalt, NodeId, RingId, RingView, ShardCount, VirtualNode};

use crate::liveness::Liveness;

/// What is known of a node, as far as placement is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// The store that it shows.
    pub(crate) store: StoreId,
    pub(crate) liveness: Liveness,
    /// Silent for so long, or given up by an operator, that its places go to others.
    pub(crate) dead: bool,
    /// It leaves the cluster, or has left.
    pub(crate) leaving: bool,
    /// It has left: it hands nothing over any more.
    pub(crate) gone: bool,
}

/// What is known of all nodes.
pub(crate) type Facts = BTreeMap<NodeId, NodeFacts>;

/// What a member is worth to its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Its node is there and shows the member's store.
    Here,
    /// Nobody has heard of it for a while: it may come back.
    Silent,
    /// Its node has been silent for too long.
    Dead,
    /// Its node shows another store: what this member held is gone.
    LostStore,
    /// Its node leaves the cluster.
    Leaving,
}

impl Presence {
    /// Of this member, after what is known.
    pub(crate) fn of(member: &Member, facts: &Facts) -> Self {
        match facts.get(&member.node) {
            None => Self::Silent,
            Some(node) if node.leaving => Self::Leaving,
            // Only a living node can show what it has: of a silent one an old contact may be known.
            Some(node) if node.store != member.store && node.liveness == Liveness::Alive => {
                Self::LostStore
            }
            Some(node) if node.dead => Self::Dead,
            Some(node) if node.liveness == Liveness::Down || node.store != member.store => {
                Self::Silent
            }
            Some(_) => Self::Here,
        }
    }

    /// Why a member of this presence goes, if it goes.
    pub(crate) const fn reason(self) -> RemovalReason {
        match self {
            Self::Here | Self::Silent => RemovalReason::Displaced,
            Self::Dead => RemovalReason::Down,
            Self::LostStore => RemovalReason::LostStore,
            Self::Leaving => RemovalReason::Leaving,
        }
    }
}

/// One place in the configuration that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// For a member of now.
    Stays(Member),
    /// For this node, with the store that it shows.
    Newcomer(NodeId),
}

impl Place {
    pub(crate) const fn node(&self) -> NodeId {
        match self {
            Self::Stays(member) => member.node,
            Self::Newcomer(node) => *node,
        }
    }
}

/// The first `wanted` distinct nodes at or after `from` that are not left out, or all there
/// are. None when the view does not reach far enough to tell.
pub(crate) fn preferred(
    view: &RingView,
    from: RingId,
    wanted: usize,
    left_out: impl Fn(NodeId) -> bool,
) -> Option<Vec<NodeId>> {
    let mut count = wanted;
    loop {
        let list = view.preference_list(from, count)?;
        let nodes = list.nodes();
        let kept: Vec<NodeId> = nodes.iter().copied().filter(|node| !left_out(*node)).collect();
        if kept.len() >= wanted || nodes.len() < count {
            return Some(kept);
        }
        count += wanted - kept.len();
    }
}

/// Positions of nodes, computed once per node.
pub(crate) struct Placement {
    salt: ClusterSalt,
    virtual_nodes: u16,
    shards: ShardCount,
    wanted: usize,
    positions: BTreeMap<NodeId, Vec<RingId>>,
}

impl Placement {
    pub(crate) fn new(
        salt: ClusterSalt,
        virtual_nodes: u16,
        shards: ShardCount,
        wanted: usize,
    ) -> Self {
        Self { salt, virtual_nodes, shards, wanted, positions: BTreeMap::new() }
    }

    /// How far clockwise from `from` the node's nearest position is.
    fn distance(&mut self, from: RingId, node: NodeId) -> u128 {
        let (salt, count) = (self.salt, self.virtual_nodes);
        let positions = self.positions.entry(node).or_insert_with(|| {
            (0..count).map(|index| VirtualNode::of(&salt, node, index).id).collect()
        });
        positions.iter().map(|position| from.distance_to(*position)).min().unwrap_or(u128::MAX)
    }

    /// The places that the shard of `configuration` should have, in ring order. None when the
    /// view does not reach far enough to tell, or too few of them would be alive to serve.
    pub(crate) fn target(
        &mut self,
        view: &RingView,
        configuration: &Configuration,
        facts: &Facts,
    ) -> Option<Vec<Place>> {
        let end = self.shards.end(configuration.shard);
        let unwanted = unwanted(facts);
        let living = preferred(view, end, self.wanted, |node| unwanted.contains(&node))?;
        let members = configuration.new_set();
        let presence = |member: &Member| Presence::of(member, facts);
        let stays =
            |member: &&Member| matches!(presence(member), Presence::Here | Presence::Silent);
        let mut places: Vec<Place> =
            members.iter().filter(stays).copied().map(Place::Stays).collect();
        let is_new = |node: &NodeId| places.iter().all(|place| place.node() != *node);
        let mut newcomers: Vec<NodeId> = living.into_iter().filter(is_new).collect();
        let waits = members.iter().any(|member| presence(member) == Presence::Silent);
        if waits {
            // A silent member waits for its replacement; to displace a living one beside it would
            // be a copy for nothing. So only what is missing is filled up.
            newcomers.truncate(self.wanted.saturating_sub(places.len()));
        }
        places.extend(newcomers.into_iter().map(Place::Newcomer));
        places.sort_by_cached_key(|place| self.distance(end, place.node()));
        if !waits {
            places.truncate(self.wanted);
        }
        self.keep_size(&mut places, configuration, facts);
        let alive = |place: &&Place| match place {
            Place::Stays(member) => presence(member) == Presence::Here,
            Place::Newcomer(_) => true,
        };
        let enough = places.iter().filter(alive).count() >= majority(places.len());
        (enough && !places.is_empty()).then_some(places)
    }

    /// Members that should be replaced stay where nobody can take their place: only who leaves
    /// makes a configuration smaller.
    fn keep_size(&mut self, places: &mut Vec<Place>, known: &Configuration, facts: &Facts) {
        let end = self.shards.end(known.shard);
        let mut replaced: Vec<Member> = known.new_set().to_vec();
        let leaving = |member: &Member| Presence::of(member, facts) == Presence::Leaving;
        replaced.retain(|member| !leaving(member));
        let least = replaced.len().min(self.wanted);
        replaced.sort_by_cached_key(|member| self.distance(end, member.node));
        for member in replaced {
            if places.len() < least && places.iter().all(|place| place.node() != member.node) {
                places.push(Place::Stays(member));
            }
        }
        places.sort_by_cached_key(|place| self.distance(end, place.node()));
    }

    /// The same nodes in ring order from the shard's end.
    pub(crate) fn in_ring_order(&mut self, configuration: &Configuration) -> Vec<Member> {
        let end = self.shards.end(configuration.shard);
        let mut members = configuration.members();
        members.sort_by_cached_key(|member| self.distance(end, member.node));
        members
    }
}

/// Whether these places are the members of now, each with its store.
pub(crate) fn is_settled(members: &[Member], places: &[Place]) -> bool {
    members.len() == places.len()
        && members.iter().all(|member| places.contains(&Place::Stays(*member)))
}

/// How many of these shards are not where the ring wants them.
pub(crate) fn misplaced<'a>(
    placement: &mut Placement,
    view: &RingView,
    facts: &Facts,
    configurations: impl Iterator<Item = &'a Configuration>,
) -> usize {
    configurations
        .filter(|known| {
            let target = placement.target(view, known, facts);
            target.is_some_and(|places| !is_settled(known.new_set(), &places))
        })
        .count()
}

/// Nodes that no shard should be on: those that leave, and those that are dead.
pub(crate) fn unwanted(facts: &Facts) -> BTreeSet<NodeId> {
    facts.iter().filter(|(_, facts)| facts.leaving || facts.dead).map(|(node, _)| *node).collect()
}

#[cfg(test)]
mod tests;
