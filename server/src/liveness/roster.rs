//! Who is pinged in a period: everybody, as long as that is not too many; else the doubted, those
//! that share shards and all others by turns, each kind with a share of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use triad_ring::NodeId;

use super::peer::Peer;
use super::{Liveness, PERIOD};

/// Pings in one period at most.
pub(super) const PINGS: usize = 64;
/// What the doubted, the near, the others and the down are sure of, if they are so many.
const SHARES: [usize; 4] = [24, 16, 16, 8];
/// Who is down is not pinged more often than this. It calls by itself when it comes back.
const DOWN_EVERY: Duration = Duration::from_millis(2 * PERIOD.as_millis() as u64 - 100);

/// At most [`PINGS`] of these, of each kind those that wait longest.
pub(super) fn due(
    peers: &BTreeMap<NodeId, Peer>,
    near: &BTreeSet<NodeId>,
    now: Duration,
) -> Vec<NodeId> {
    let mut kinds: [Vec<(Option<Duration>, NodeId)>; 4] = Default::default();
    for (&node, peer) in peers {
        let kind = if peer.liveness == Liveness::Down {
            if peer.pinged_at.is_some_and(|at| now < at + DOWN_EVERY) {
                continue;
            }
            3
        } else if peer.is_doubted() {
            0
        } else if near.contains(&node) {
            1
        } else {
            2
        };
        kinds[kind].push((peer.pinged_at, node));
    }
    let mut due = Vec::new();
    let mut rest = Vec::new();
    for (kind, share) in kinds.iter_mut().zip(SHARES) {
        kind.sort_unstable();
        let sure = share.min(kind.len());
        due.extend(kind.drain(..sure));
        rest.append(kind);
    }
    rest.truncate(PINGS - due.len());
    due.into_iter().chain(rest).map(|(_, node)| node).collect()
}
