//! What the client knows of who holds which shard.
//!
//! A cached route is a hint, never an authority: a member that is none any more passes the request on or says so,
//! and its reply mends the cache. So a stale entry costs a hop, not a wrong answer. Every reply helps: a route with
//! a greater epoch replaces the cached one, an outcome with a greater epoch marks it stale, and the next request then
//! asks for the route.

use std::collections::BTreeMap;
use std::sync::Mutex;

use triad_proto::v1;
use triad_replica::configuration::Epoch;
use triad_ring::{RingId, ShardCount, ShardId};

use crate::channel::{Address, lock};
use crate::reply::epoch_of_wire;

/// The members of a shard, where clients reach them, first choice first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CachedRoute {
    epoch: Epoch,
    members: Vec<Address>,
    stale: bool,
    used: u64,
}

/// What a request should know before it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Members of the key's shard; empty when not known.
    pub(crate) members: Vec<Address>,
    /// The reply should bring the route.
    pub(crate) want_route: bool,
}

/// Routes by shard, at most so many.
#[derive(Debug)]
pub(crate) struct RouteCache {
    routes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many shards there are; none until a reply told.
    shards: Option<ShardCount>,
    routes: BTreeMap<ShardId, CachedRoute>,
    /// Counts uses, to find the route least recently used.
    clock: u64,
}

impl RouteCache {
    pub(crate) fn new(routes_max: usize) -> Self {
        Self { routes_max: routes_max.max(1), state: Mutex::default() }
    }

    /// Whom to ask about this identifier.
    pub(crate) fn plan(&self, id: RingId) -> Plan {
        let mut state = lock(&self.state);
        state.clock += 1;
        let clock = state.clock;
        let cached = state.shard_of(id).and_then(|shard| state.routes.get_mut(&shard));
        cached.map_or(Plan { members: Vec::new(), want_route: true }, |route| {
            route.used = clock;
            Plan { members: route.members.clone(), want_route: route.stale }
        })
    }

    /// Learns from a reply about this identifier: its route, if it brought one, and what the outcome says about the
    /// route that was used.
    pub(crate) fn mend(
        &self,
        id: RingId,
        route: Option<&v1::Route>,
        outcome: Option<&v1::Outcome>,
    ) {
        let mut state = lock(&self.state);
        if let Some(route) = route {
            state.learn(id, route, self.routes_max);
        }
        if let Some(outcome) = outcome {
            state.check(id, outcome);
        }
    }

    /// The next request for this identifier asks for the route: the last one failed.
    pub(crate) fn distrust(&self, id: RingId) {
        let mut state = lock(&self.state);
        if let Some(route) = state.shard_of(id).and_then(|shard| state.routes.get_mut(&shard)) {
            route.stale = true;
        }
    }

    /// How many routes are cached.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.state).routes.len()
    }
}

impl State {
    fn shard_of(&self, id: RingId) -> Option<ShardId> {
        self.shards.map(|shards| shards.shard_of(id))
    }

    fn learn(&mut self, id: RingId, route: &v1::Route, routes_max: usize) {
        let Ok(shards) = ShardCount::try_new(route.shard_count) else {
            return;
        };
        if self.shards != Some(shards) {
            // Another cluster behind the same addresses: nothing known holds.
            self.routes.clear();
            self.shards = Some(shards);
        }
        let shard = shards.shard_of(id);
        if shard.get() != route.shard {
            return;
        }
        let mut members: Vec<Address> =
            route.members.iter().filter_map(|member| member.client_address.parse().ok()).collect();
        // A configuration names its members in one order for all shards: the shard's number spreads the work, and
        // all clients ask the same member about a key.
        let turns = shard.get() as usize % members.len().max(1);
        members.rotate_left(turns);
        let epoch = epoch_of_wire(route.epoch.as_ref());
        let older = self.routes.get(&shard).is_some_and(|known| known.epoch > epoch);
        if older || members.is_empty() {
            return;
        }
        if self.routes.len() >= routes_max && !self.routes.contains_key(&shard) {
            let oldest =
                self.routes.iter().min_by_key(|(_, route)| route.used).map(|(shard, _)| *shard);
            oldest.and_then(|oldest| self.routes.remove(&oldest));
        }
        self.clock += 1;
        let used = self.clock;
        self.routes.insert(shard, CachedRoute { epoch, members, stale: false, used });
    }

    fn check(&mut self, id: RingId, outcome: &v1::Outcome) {
        let Some(shard) = self.shard_of(id) else {
            return;
        };
        if shard.get() != outcome.shard {
            self.routes.remove(&shard);
            return;
        }
        let Some(route) = self.routes.get_mut(&shard) else {
            return;
        };
        if epoch_of_wire(outcome.epoch.as_ref()) > route.epoch {
            route.stale = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: u32 = 4;

    fn address(port: u16) -> Address {
        format!("localhost:{port}").parse().unwrap()
    }

    /// An identifier in the given quarter of the circle.
    fn id_in(shard: u32) -> RingId {
        RingId::new((u128::from(shard) << 126) + 5)
    }

    fn route(shard: u32, number: u64, ports: &[u16]) -> v1::Route {
        v1::Route {
            shard,
            epoch: Some(v1::Epoch { lineage: 1, number }),
            members: ports
                .iter()
                .map(|port| v1::Member {
                    client_address: address(*port).to_string(),
                    ..Default::default()
                })
                .collect(),
            shard_count: SHARDS,
            ..Default::default()
        }
    }

    fn outcome(shard: u32, number: u64) -> v1::Outcome {
        v1::Outcome { shard, epoch: Some(v1::Epoch { lineage: 1, number }), ..Default::default() }
    }

    #[test]
    fn an_empty_cache_asks_for_the_route_and_a_filled_one_uses_it() {
        let cache = RouteCache::new(16);
        assert_eq!(cache.plan(id_in(2)), Plan { members: vec![], want_route: true });
        cache.mend(id_in(2), Some(&route(2, 1, &[1, 2, 3])), Some(&outcome(2, 1)));
        let plan = cache.plan(id_in(2));
        assert_eq!(plan.members, [address(3), address(1), address(2)]);
        assert!(!plan.want_route);
        assert!(cache.plan(id_in(1)).want_route, "another shard is not known by it");
    }

    #[test]
    fn a_greater_epoch_replaces_and_a_lower_one_is_ignored() {
        let cache = RouteCache::new(16);
        cache.mend(id_in(0), Some(&route(0, 5, &[1, 2])), None);
        cache.mend(id_in(0), Some(&route(0, 4, &[7, 8])), None);
        assert_eq!(cache.plan(id_in(0)).members, [address(1), address(2)]);
        cache.mend(id_in(0), Some(&route(0, 6, &[3, 4])), None);
        assert_eq!(cache.plan(id_in(0)).members, [address(3), address(4)]);
    }

    #[test]
    fn an_outcome_of_a_later_epoch_makes_the_next_request_ask() {
        let cache = RouteCache::new(16);
        cache.mend(id_in(3), Some(&route(3, 5, &[1, 2])), Some(&outcome(3, 5)));
        assert!(!cache.plan(id_in(3)).want_route);
        cache.mend(id_in(3), None, Some(&outcome(3, 6)));
        assert!(cache.plan(id_in(3)).want_route);
        cache.mend(id_in(3), Some(&route(3, 6, &[2, 4])), None);
        assert!(!cache.plan(id_in(3)).want_route);
        cache.distrust(id_in(3));
        assert!(cache.plan(id_in(3)).want_route, "so does a failure");
    }

    #[test]
    fn each_member_is_asked_first_about_its_share_of_the_shards() {
        let cache = RouteCache::new(16);
        for shard in 0..SHARDS {
            cache.mend(id_in(shard), Some(&route(shard, 1, &[1, 2, 3])), None);
        }
        let first: Vec<Address> =
            (0..SHARDS).map(|shard| cache.plan(id_in(shard)).members[0].clone()).collect();
        assert_eq!(first, [1, 2, 3, 1].map(address));
        cache.mend(id_in(1), None, Some(&outcome(1, 1)));
        assert_eq!(cache.plan(id_in(1)).members, [2, 3, 1].map(address), "an answer moves nothing");
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_what_was_used_least_lately() {
        let cache = RouteCache::new(2);
        for shard in 0..SHARDS {
            cache.mend(id_in(shard), Some(&route(shard, 1, &[1])), None);
            cache.plan(id_in(0));
        }
        assert_eq!(cache.len(), 2);
        assert!(!cache.plan(id_in(0)).want_route, "used all along");
        assert!(!cache.plan(id_in(3)).want_route, "just learned");
    }

    #[test]
    fn nonsense_from_a_node_is_not_believed() {
        let cache = RouteCache::new(16);
        let mut wrong = route(1, 1, &[1]);
        wrong.shard_count = 3;
        cache.mend(id_in(1), Some(&wrong), None);
        cache.mend(id_in(1), Some(&route(2, 1, &[1])), None);
        let mut nowhere = route(1, 1, &[1]);
        nowhere.members[0].client_address = "no address".to_owned();
        cache.mend(id_in(1), Some(&nowhere), None);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn another_shard_count_is_another_cluster() {
        let cache = RouteCache::new(16);
        cache.mend(id_in(1), Some(&route(1, 9, &[1])), None);
        let mut other = route(0, 1, &[2]);
        other.shard_count = 1;
        cache.mend(id_in(1), Some(&other), None);
        assert_eq!(cache.plan(id_in(3)).members, [address(2)]);
        assert_eq!(cache.len(), 1);
    }
}
