//! Whether a cluster has come to rest: every shard's members hold the same, nothing moves, nothing is owed, and the
//! ring is one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use triad_proto::test::v1::DigestResponse;
use triad_proto::v1;

use crate::processes::{Cluster, client_of};
use crate::wait::until;

/// How long the answer to one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Differences that a failing test names.
const NAMED: usize = 5;

impl Cluster {
    /// Waits until the running nodes have come to rest. Panics with what is still missing when the time is up.
    pub async fn converged(&mut self, limit: Duration) {
        let running: Vec<usize> = self.running_nodes();
        let cluster = &*self;
        let running = &running[..];
        until("one ring, nothing moves, all members hold the same", limit, || async move {
            nothing_is_owed(cluster, running).await?;
            one_ring(cluster, running).await?;
            members_agree(cluster, running, true).await
        })
        .await;
    }

    /// Waits until no running node knows of a shard that is on the move, dead nodes or not.
    pub async fn no_joint_configuration(&mut self, limit: Duration) {
        let running: Vec<usize> = self.running_nodes();
        let cluster = &*self;
        let running = &running[..];
        until("every configuration is stable", limit, || async move {
            members_agree(cluster, running, false).await
        })
        .await;
    }

    /// The numbers of the nodes that run.
    pub fn running_nodes(&mut self) -> Vec<usize> {
        let running = self.running();
        (0..running.len()).filter(|index| running[*index]).collect()
    }
}

async fn nothing_is_owed(cluster: &Cluster, running: &[usize]) -> Result<(), String> {
    let endpoints = running.iter().map(|index| cluster.nodes()[*index].client_address());
    let client = client_of(endpoints);
    let status = client.cluster().deadline(PATIENCE).status().await;
    let status = status.map_err(|error| error.to_string())?;
    let hints = status.hints.unwrap_or_default();
    let shards = status.shards.unwrap_or_default();
    let moving = shards.joint + shards.learning + shards.under_replicated + shards.unavailable;
    if hints.pending + hints.acknowledging > 0 || moving > 0 {
        return Err(format!("{hints:?} {shards:?}"));
    }
    Ok(())
}

/// Every virtual node's neighbours are the ones that all virtual nodes together make.
async fn one_ring(cluster: &Cluster, running: &[usize]) -> Result<(), String> {
    let mut all: BTreeMap<String, v1::VirtualNode> = BTreeMap::new();
    for index in running {
        let client = client_of([cluster.nodes()[*index].client_address()]);
        let ring = client.cluster().deadline(PATIENCE).describe_ring().await;
        let ring = ring.map_err(|error| error.to_string())?;
        all.extend(ring.virtual_nodes.into_iter().map(|one| (one.ring_id.clone(), one)));
    }
    let ids: Vec<&String> = all.keys().collect();
    for (place, id) in ids.iter().enumerate() {
        let next = ids[(place + 1) % ids.len()];
        let before = ids[(place + ids.len() - 1) % ids.len()];
        let told = &all[*id];
        let successor = told.successors.first().map(|one| &one.ring_id);
        let predecessor = told.predecessor.as_ref().map(|one| &one.ring_id);
        if successor != Some(next) || predecessor != Some(before) {
            return Err(format!(
                "{} of {} stands between {predecessor:?} and {successor:?}, not {before} and {next}",
                id, told.node
            ));
        }
    }
    Ok(())
}

/// What each running node holds of each shard.
async fn digests(
    cluster: &Cluster,
    running: &[usize],
) -> Result<BTreeMap<u32, Vec<(usize, DigestResponse)>>, String> {
    let mut all: BTreeMap<u32, Vec<(usize, DigestResponse)>> = BTreeMap::new();
    for index in running {
        let digests = cluster.nodes()[*index].digests(cluster.shards()).await;
        for (shard, digest) in digests.map_err(|status| status.to_string())? {
            all.entry(shard).or_default().push((*index, digest));
        }
    }
    Ok(all)
}

/// No shard is on the move; if `all`, its members in the newest epoch hold the same, and nobody else holds anything.
async fn members_agree(cluster: &Cluster, running: &[usize], all: bool) -> Result<(), String> {
    let mut problems = Vec::new();
    for (shard, digests) in digests(cluster, running).await? {
        if let Some(problem) = disagreement(&digests, all) {
            problems.push(format!("shard {shard}: {problem}"));
        }
    }
    let more = problems.len().saturating_sub(NAMED);
    problems.truncate(NAMED);
    if problems.is_empty() { Ok(()) } else { Err(format!("{problems:#?} and {more} more")) }
}

fn disagreement(digests: &[(usize, DigestResponse)], all: bool) -> Option<String> {
    let epoch = |digest: &DigestResponse| digest.epoch.map(|one| (one.lineage, one.number));
    let newest = digests.iter().map(|(_, digest)| epoch(digest)).max().flatten();
    let member = |one: &DigestResponse| one.member && epoch(one) == newest;
    let current: Vec<_> = digests.iter().filter(|(_, one)| member(one)).collect();
    if newest.is_none() || current.is_empty() {
        return Some(format!("no running node is a member: {digests:?}"));
    }
    if current.iter().any(|(_, one)| one.phase() != v1::Phase::Stable) {
        return Some(format!("on the move in epoch {newest:?}"));
    }
    if !all {
        return None;
    }
    let holds: BTreeSet<_> =
        current.iter().map(|(_, one)| (&one.digest, &one.root, one.damaged)).collect();
    if holds.len() > 1 {
        return Some(format!("members differ: {current:?}"));
    }
    let empty = |one: &DigestResponse| one.keys + one.tombstones + one.damaged == 0;
    let leftover = digests.iter().find(|(_, one)| !member(one) && !empty(one));
    leftover.map(|(index, one)| format!("node{} is no member and holds {one:?}", index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64, text: &str) -> DigestResponse {
        DigestResponse {
            digest: text.to_owned(),
            keys: u64::from(!text.is_empty()),
            epoch: Some(v1::Epoch { lineage: 1, number }),
            phase: v1::Phase::Stable.into(),
            member: true,
            ..DigestResponse::default()
        }
    }

    fn former(number: u64, text: &str) -> DigestResponse {
        DigestResponse { member: false, ..digest(number, text) }
    }

    #[test]
    fn members_that_hold_the_same_agree_whatever_others_once_knew() {
        let same = [
            (0, digest(3, "a")),
            (1, digest(3, "a")),
            (2, former(2, "")),
            (3, DigestResponse::default()),
        ];
        assert_eq!(disagreement(&same, true), None);
    }

    #[test]
    fn planted_differences_moves_and_leftovers_are_found() {
        let other = [(0, digest(3, "a")), (1, digest(3, "b"))];
        assert!(disagreement(&other, true).unwrap().contains("members differ"));
        let behind = [(0, digest(3, "a")), (1, digest(2, "a"))];
        assert!(disagreement(&behind, true).unwrap().contains("holds"));
        let leftover = [(0, digest(3, "a")), (1, former(3, "a"))];
        assert!(disagreement(&leftover, true).unwrap().contains("no member and holds"));
        assert!(disagreement(&[(0, former(3, ""))], true).unwrap().contains("no running node"));
        let joint = DigestResponse { phase: v1::Phase::Joint.into(), ..digest(4, "a") };
        assert!(
            disagreement(&[(0, joint), (1, digest(3, "a"))], false)
                .unwrap()
                .contains("on the move")
        );
        assert_eq!(disagreement(&other, false), None);
    }
}
