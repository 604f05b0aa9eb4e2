//! Networks that are cut in two, cut between two nodes only, or lossy: who is taken for dead, what moves (nothing),
//! and how rings that were apart become one.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use triad_proto::test::v1::LinkDirection;
use triad_proto::test::v1::set_link_fault_request::Fault;
use triad_proto::v1::{Liveness, NodeInfo};
use triad_tests::processes::{Cluster, Node, Settings, client_of};
use triad_tests::wait::until;

const SHARDS: u32 = 64;
/// How long until everybody has noticed what is to be noticed, on a busy machine.
const NOTICED: Duration = Duration::from_mins(1);
/// Two rings are one again so long after the partition at most.
const MERGED: Duration = Duration::from_mins(1);
/// How long until everything about past moves is decided.
const AT_REST: Duration = Duration::from_mins(2);
/// Long enough for several deaths to be declared.
const HELD: Duration = Duration::from_secs(15);

/// What a node believes of the others, by name.
async fn seen_by(node: &Node) -> BTreeMap<String, NodeInfo> {
    let client = client_of([node.client_address()]);
    let listed = client.cluster().deadline(Duration::from_secs(10)).list_nodes().await;
    listed.unwrap_or_default().into_iter().map(|one| (one.node.clone(), one)).collect()
}

async fn believes(at: &Node, of: &str, expected: Liveness) -> Result<(), String> {
    let seen = seen_by(at).await;
    let told = seen.get(of).map(NodeInfo::liveness);
    if told == Some(expected) {
        Ok(())
    } else {
        Err(format!("{} takes {of} for {told:?}", at.name()))
    }
}

/// The nodes in a node's ring.
async fn ring_of(node: &Node) -> BTreeSet<String> {
    let client = client_of([node.client_address()]);
    let Ok(ring) = client.cluster().deadline(Duration::from_secs(10)).describe_ring().await else {
        return BTreeSet::new();
    };
    let neighbors = ring.virtual_nodes.into_iter().flat_map(|one| {
        let own = one.node;
        one.successors.into_iter().map(|next| next.node).chain([own])
    });
    neighbors.collect()
}

/// The epochs of all shards as all nodes know them.
async fn epochs(cluster: &Cluster) -> Vec<(u32, String, String)> {
    let mut epochs = Vec::new();
    for node in cluster.nodes() {
        for shard in 0..SHARDS {
            let digest = node.digest(shard).await.expect("a digest");
            if digest.member {
                epochs.push((shard, node.name().to_owned(), format!("{:?}", digest.epoch)));
            }
        }
    }
    epochs
}

/// The same once nothing is left to be decided: a shard that has moved is decided once more when its former members
/// have handed everything over, and its members hear of that one after the other.
async fn epochs_at_rest(cluster: &Cluster) -> Vec<(u32, String, String)> {
    let client = cluster.client();
    until("no shard lists former members", AT_REST, || async {
        let mut seen = BTreeSet::new();
        for number in 0.. {
            let located = client.cluster().locate("default", format!("k{number}"), false).await;
            let route = located.map_err(|error| error.to_string())?.route.unwrap_or_default();
            if !route.retired.is_empty() {
                return Err(format!("shard {} lists {:?}", route.shard, route.retired));
            }
            seen.insert(route.shard);
            if seen.len() == SHARDS as usize {
                break;
            }
        }
        Ok(())
    })
    .await;
    until("the members of each shard agree", AT_REST, || async {
        let epochs = epochs(cluster).await;
        let mut of_shard = BTreeMap::new();
        for (shard, node, epoch) in &epochs {
            if of_shard.entry(*shard).or_insert_with(|| epoch.clone()) != epoch {
                return Err(format!("{node} has {epoch} for shard {shard}"));
            }
        }
        Ok(epochs)
    })
    .await
}

/// How often any node has taken another for dead.
fn deaths(cluster: &Cluster) -> usize {
    cluster.nodes().iter().map(|node| node.log().matches("down: no answer").count()).sum()
}

/// Goes on writing at QUORUM by all nodes for a while.
async fn write_for(cluster: &Cluster, time: Duration) -> usize {
    let began = Instant::now();
    let mut written = 0;
    for number in 0.. {
        if began.elapsed() > time {
            break;
        }
        let node = &cluster.nodes()[number % cluster.nodes().len()];
        let client = client_of([node.client_address()]);
        let put = client.put(format!("k{number}"), "v").deadline(Duration::from_secs(5));
        written += usize::from(put.await.is_ok());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_halves_are_one_ring_within_a_minute_of_the_heal() {
    let mut cluster = Cluster::start(4, Settings::small()).await;
    let before = epochs_at_rest(&cluster).await;
    cluster.partition(&[0, 1], &[2, 3]).await;
    for (at, of) in [(0, "node3"), (1, "node4"), (2, "node1"), (3, "node2")] {
        let at = &cluster.nodes()[at];
        until("the other half is down", NOTICED, || believes(at, of, Liveness::Down)).await;
        until("the rings are apart", NOTICED, || async {
            let ring = ring_of(at).await;
            if ring.contains(of) { Err(ring) } else { Ok(()) }
        })
        .await;
    }

    cluster.heal_all().await;
    let healed = Instant::now();
    for at in cluster.nodes() {
        until("there is one ring", MERGED, || async {
            let ring = ring_of(at).await;
            if ring.len() == 4 { Ok(()) } else { Err(ring) }
        })
        .await;
    }
    let took = healed.elapsed();
    println!("one ring {took:?} after the heal");
    assert!(took < MERGED, "{took:?}");
    cluster.settled(4).await;
    assert_eq!(epochs(&cluster).await, before, "a partition alone moves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_between_two_nodes_that_others_reach_moves_nothing() {
    let mut cluster = Cluster::start(5, Settings::small()).await;
    let before = epochs_at_rest(&cluster).await;
    cluster.cut(0, 1).await;
    for (at, of) in [(0, "node2"), (1, "node1")] {
        let at = &cluster.nodes()[at];
        until("it is suspected", NOTICED, || believes(at, of, Liveness::Suspect)).await;
    }
    let written = write_for(&cluster, HELD).await;
    assert!(written > 0, "requests are routed around the cut");
    let seen = seen_by(&cluster.nodes()[0]).await;
    assert_eq!(seen["node2"].liveness(), Liveness::Suspect);
    let silent = seen["node2"].silent.unwrap_or_default();
    assert!(silent.seconds < 4, "others reach it: {silent:?}");
    for node in &cluster.nodes()[2..] {
        for of in ["node1", "node2"] {
            believes(node, of, Liveness::Alive).await.unwrap();
        }
    }
    assert_eq!(deaths(&cluster), 0);
    for node in cluster.nodes() {
        assert_eq!(ring_of(node).await.len(), 5, "{}", node.name());
    }
    assert_eq!(epochs(&cluster).await, before);

    cluster.heal_all().await;
    cluster.settled(5).await;
    assert_eq!(epochs(&cluster).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_per_cent_loss_moves_nothing() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let before = epochs_at_rest(&cluster).await;
    for (at, of) in [(0, "node2"), (1, "node3"), (2, "node1")] {
        let loss = Some(Fault::DropPercent(30));
        cluster.nodes()[at].link(of, LinkDirection::Unspecified, loss).await;
    }
    write_for(&cluster, HELD).await;
    assert_eq!(deaths(&cluster), 0);
    assert_eq!(epochs(&cluster).await, before);
    cluster.heal_all().await;
    cluster.settled(3).await;
    assert_eq!(epochs(&cluster).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_at_another_address_is_found() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    cluster.node(1).kill();
    let at = &cluster.nodes()[0];
    until("it is down", NOTICED, || believes(at, "node2", Liveness::Down)).await;
    let seeds = at.peer_address();
    let mut moved = Node::new("node2", &cluster.directory().join("elsewhere"));
    std::fs::create_dir_all(cluster.directory().join("elsewhere")).unwrap();
    moved.set_data_dir(cluster.nodes()[1].data_dir());
    moved.set("TRIAD_CLUSTER_SEEDS", &seeds).set("TRIAD_CLUSTER_PLACEMENT_SETTLE", "500ms");
    moved.start();
    moved.ready().await;
    for at in [&cluster.nodes()[0], &cluster.nodes()[2]] {
        until("it is alive", NOTICED, || believes(at, "node2", Liveness::Alive)).await;
        assert_eq!(seen_by(at).await["node2"].peer_address, moved.peer_address());
        until("it is in the ring", NOTICED, || async {
            let ring = ring_of(at).await;
            if ring.len() == 3 { Ok(()) } else { Err(ring) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_at_a_known_address_is_left_alone() {
    let mut cluster = Cluster::start(2, Settings::small()).await;
    cluster.node(1).kill();
    // Another cluster's node gets the address.
    let other_data = cluster.directory().join("other");
    let stranger = cluster.node(1);
    stranger.set_data_dir(&other_data);
    stranger.set("TRIAD_CLUSTER_SEEDS", "").set("TRIAD_CLUSTER_BOOTSTRAP", "true");
    stranger.start();
    stranger.ready().await;

    let [at, stranger] = [&cluster.nodes()[0], &cluster.nodes()[1]];
    until("it is noticed", NOTICED, || async {
        let log = at.log();
        if log.contains("WRONG_CLUSTER") { Ok(()) } else { Err("no word of it") }
    })
    .await;
    until("the dead one is down", NOTICED, || believes(at, "node2", Liveness::Down)).await;
    assert_eq!(ring_of(at).await, BTreeSet::from(["node1".to_owned()]));
    assert_eq!(seen_by(stranger).await.len(), 1, "it has not heard of the cluster's nodes");
}
