//! What a ring node is told when it is made.

use std::time::Duration;

use crate::id::ClusterSalt;
use crate::mutant::{Mutant, left_out};

/// The parameters of a ring node. The first three belong to the cluster and must be the same on
/// every node; the others are each node's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingConfig {
    /// Mixed into all positions.
    pub salt: ClusterSalt,
    /// V, how many positions a node holds: at least 1. More make shares more even and cost more
    /// messages; V times the number of nodes should stay under 16,384.
    pub virtual_nodes: u16,
    /// N, how many nodes hold each shard: a successor list reaches N + 2 distinct nodes.
    pub replication_factor: usize,
    /// How many entries a successor list has at most, and has whenever the ring is that large.
    /// See [`RingConfig::list_entries`].
    pub successor_entries: usize,
    /// The period of stabilization.
    pub stabilize_every: Duration,
    /// How long one answer may take; under `stabilize_every`, so that a period is not lost to the
    /// question of the one before.
    pub query_timeout: Duration,
    /// The period of finger refresh.
    pub fingers_every: Duration,
    /// How many lookups a finger refresh may cost the whole node, whatever V is.
    pub finger_budget: usize,
    /// How long to wait before asking a busy neighbour again, and before telling a change
    /// backwards. Small against `stabilize_every`; a few round trips.
    pub busy_retry: Duration,
}

impl RingConfig {
    /// The defaults for a cluster with these parameters.
    pub fn new(salt: ClusterSalt, virtual_nodes: u16, replication_factor: usize) -> Self {
        Self {
            salt,
            virtual_nodes: virtual_nodes.max(1),
            replication_factor,
            successor_entries: Self::list_entries(virtual_nodes, replication_factor),
            stabilize_every: Duration::from_secs(1),
            query_timeout: Duration::from_millis(800),
            fingers_every: Duration::from_secs(5),
            finger_budget: 32,
            busy_retry: Duration::from_millis(50),
        }
    }

    /// The bound of rule R1, 4(N + 2) + V entries: so many neighbours are of N + 2 distinct nodes
    /// for all practical purposes, and reach this node's own next position while the cluster has
    /// up to about nine nodes, which then know the whole circle.
    pub fn list_entries(virtual_nodes: u16, replication_factor: usize) -> usize {
        if left_out(Mutant::ListsCountEntries) {
            return replication_factor + 2;
        }
        4 * (replication_factor + 2) + usize::from(virtual_nodes)
    }
}
