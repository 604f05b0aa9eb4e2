//! Members come, go and are lost under load: every change of membership keeps what was acknowledged.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use triad_proto::v1::cluster_service_client::ClusterServiceClient;
use triad_proto::v1::{Operation, OperationState, WatchOperationRequest};
use triad_tests::history::History;
use triad_tests::processes::{Cluster, Node, Ran, Settings, run};
use triad_tests::raw::channel;
use triad_tests::wait::until;
use triad_tests::workload::{Workload, fill, read_all};

/// Keys put before anything happens.
const KEYS: usize = 400;
/// Requests under way at once while filling and reading back.
const AT_ONCE: usize = 16;
/// How long a change of membership may take on a machine busy with other tests.
const CHANGE: Duration = Duration::from_mins(2);

/// How soon copies that nobody needs any more must have ended: the last resort are 90 s.
const SOON: Duration = Duration::from_secs(45);

/// A dead node is replaced after some seconds instead of ten minutes.
fn impatient() -> Settings {
    Settings::small().with("TRIAD_CLUSTER_DOWN_AFTER", "6s")
}

/// Waits until every shard has all its members alive, with so many nodes alive, and nothing moves.
async fn whole(cluster: &Cluster, alive: u32) {
    let client = cluster.client();
    until(&format!("all shards whole on {alive} nodes"), CHANGE, || async {
        let status = client.cluster().status().await.map_err(|error| error.to_string())?;
        let (nodes, shards) = (status.nodes.unwrap_or_default(), status.shards.unwrap_or_default());
        let missing = shards.joint + shards.learning + shards.under_replicated + shards.unavailable;
        let quiet = missing == 0 && nodes.alive == alive && status.operations_running == 0;
        if quiet { Ok(()) } else { Err(format!("{nodes:?} {shards:?}")) }
    })
    .await;
}

async fn everything_reads_back(cluster: &Cluster, history: &Arc<History>, when: &str) {
    assert_eq!(read_all(&cluster.client(), history, AT_ONCE).await, [""; 0], "{when}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_replaced_and_then_another_may_die() {
    let mut cluster = Cluster::start(4, impatient()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let load = Workload::start(&cluster.client(), &history, 2, 2, 30);

    cluster.node(3).kill();
    whole(&cluster, 3).await;
    // Three copies of everything again: any one of them may go.
    cluster.node(2).kill();
    until("all is read with two of four nodes", CHANGE, || async {
        let missing = read_all(&cluster.client(), &history, AT_ONCE).await;
        if missing.is_empty() { Ok(()) } else { Err(missing.len()) }
    })
    .await;
    let report = load.stop().await;
    assert_eq!(report.violations, []);

    // Who comes back finds that others have its places, and takes what the ring gives it.
    cluster.start_all();
    cluster.settled_within(4, CHANGE).await;
    everything_reads_back(&cluster, &history, "after both came back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_for_a_dead_member_end_soon_after_it_has_come_back() {
    // So slow that the member is back long before anybody has replaced it.
    let slow = impatient().with("TRIAD_REPAIR_BYTES_PER_SECOND", "64KiB");
    let mut cluster = Cluster::start(4, slow).await;
    let client = cluster.client();
    let large = vec![7; 64 << 10];
    let puts = (0..300).map(|key| client.put(format!("large/{key}"), large.clone()));
    for put in puts {
        put.await.unwrap();
    }
    cluster.node(3).kill();
    until("others learn what the dead member held", CHANGE, || async {
        let status = client.cluster().status().await.map_err(|error| error.to_string())?;
        let shards = status.shards.unwrap_or_default();
        if shards.learning > 0 { Ok(()) } else { Err(format!("{shards:?}")) }
    })
    .await;
    cluster.node(3).start();
    cluster.node(3).ready().await;
    cluster.settled_with(4, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_store_gets_its_shards_again_as_another_member() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    for victim in [0, 1, 2] {
        let load = Workload::start(&cluster.client(), &history, 2, 1, 20);
        let node = cluster.node(victim);
        node.kill();
        fs::remove_dir_all(node.data_dir().join("store")).unwrap();
        node.start();
        // Nobody waits for `down_after`: the node itself shows that the store is gone.
        cluster.settled_within(3, CHANGE).await;
        let report = load.stop().await;
        assert_eq!(report.violations, [], "node {victim} lost its store");
    }
    // Each store of the beginning is gone by now; the writes have moved on.
    everything_reads_back(&cluster, &history, "after every store was lost once").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_everything_comes_back_as_another_node() {
    let mut cluster = Cluster::start(3, impatient()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let node = cluster.node(2);
    node.kill();
    fs::remove_dir_all(node.data_dir()).unwrap();
    node.start();
    until("the new node is counted beside the lost one", CHANGE, || async {
        let (total, down) = counted(&cluster).await;
        if (total, down) == (4, 1) { Ok(()) } else { Err((total, down)) }
    })
    .await;
    whole(&cluster, 3).await;
    cluster.node(0).kill();
    until("all is read without another node", CHANGE, || async {
        let missing = read_all(&cluster.client(), &history, AT_ONCE).await;
        if missing.is_empty() { Ok(()) } else { Err(missing.len()) }
    })
    .await;
}

/// Runs `triad` against one node.
fn at(node: &Node, arguments: &[&str]) -> Ran {
    run(arguments, &[("TRIAD_ENDPOINTS", &node.client_address())])
}

/// The id of the operation that a command began.
fn begun(ran: &Ran) -> String {
    let json = ran.json();
    assert_eq!(json["operation"]["state"], "running", "{json}");
    json["operation"]["id"].as_str().unwrap().to_owned()
}

/// Follows an operation at a node until it has ended well.
fn done(node: &Node, id: &str) {
    let watched = at(node, &["op", "watch", id, "--timeout", "150s", "-o", "json"]);
    let json = watched.json();
    assert_eq!(
        (&json["operation"]["state"], &json["operation"]["percent"]),
        (&"done".into(), &100.0.into()),
        "{json}"
    );
}

/// All that `WatchOperation` tells until the operation has ended.
async fn watch(address: String, id: String) -> Vec<Operation> {
    let mut cluster = ClusterServiceClient::new(channel(&address).await);
    let request = WatchOperationRequest { id };
    let mut looks = cluster.watch_operation(request).await.expect("it is known").into_inner();
    let mut told = Vec::new();
    while let Some(look) = looks.message().await.expect("the node lives on") {
        told.push(look.operation.expect("a look is at an operation"));
    }
    told
}

/// How many nodes the cluster counts, and how many of them are down.
async fn counted(cluster: &Cluster) -> (u32, u32) {
    let status = cluster.client().cluster().status().await;
    let nodes = status.map(|status| status.nodes.unwrap_or_default()).unwrap_or_default();
    (nodes.total, nodes.down)
}

async fn is_seen_down(cluster: &Cluster) {
    until("the dead node is seen to be down", CHANGE, || async {
        let (_, down) = counted(cluster).await;
        if down > 0 { Ok(()) } else { Err(down) }
    })
    .await;
}

/// The node at `index` hands over, leaves and is stopped.
fn leaves(cluster: &mut Cluster, index: usize) {
    let id = begun(&at(&cluster.nodes()[index], &["node", "leave", "-o", "json"]));
    done(&cluster.nodes()[0], &id);
    assert_eq!(at(&cluster.nodes()[index], &["health"]).code, 5, "it is in no cluster any more");
    assert!(cluster.node(index).stop(CHANGE).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_from_one_to_five_to_three_to_one_to_three_nodes_under_load() {
    let mut cluster = Cluster::start(1, Settings::small()).await;
    let history = Arc::new(History::new());
    let client = cluster.client();
    fill(&client, &history, KEYS, AT_ONCE).await;
    let load = Workload::with_deletes(&client, &history, 2, 2, 30);
    for _ in 2..=5 {
        cluster.grow();
    }
    whole(&cluster, 5).await;
    for leaver in [4, 3, 2, 1] {
        leaves(&mut cluster, leaver);
        whole(&cluster, leaver as u32).await;
        assert_eq!(counted(&cluster).await, (leaver as u32, 0), "who has left is not counted");
        everything_reads_back(&cluster, &history, &format!("with {leaver} nodes left")).await;
    }
    let last = at(&cluster.nodes()[0], &["node", "leave", "-o", "json"]);
    assert_eq!(last.error()["reason"], "UNSAFE_DECOMMISSION", "{last:?}");
    cluster.grow();
    cluster.grow();
    whole(&cluster, 3).await;
    let report = load.stop().await;
    assert_eq!(report.violations, []);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    everything_reads_back(&cluster, &history, "with three nodes again").await;
    cluster.converged(CHANGE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decommission_is_refused_planned_taken_back_and_survives_the_leaver() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let decommission = ["node", "decommission", "node3", "-o", "json"];
    let few = [&decommission[..], &["--allow-under-replicated"]].concat();
    let dry = [&few[..], &["--dry-run"]].concat();
    let first = |cluster: &Cluster, arguments: &[&str]| at(&cluster.nodes()[0], arguments);

    let refused = first(&cluster, &decommission);
    assert_eq!(refused.error()["reason"], "UNSAFE_DECOMMISSION", "{refused:?}");
    assert_eq!(
        first(&cluster, &["node", "decommission", "nobody", "-o", "json"]).error()["code"],
        "NOT_FOUND"
    );
    let planned = first(&cluster, &dry).json();
    assert_eq!(planned["operation"]["id"], "", "{planned}");
    assert_eq!(planned["movement"]["shards"], 64, "{planned}");
    assert_eq!(planned["movement"]["nodes_left"], 2, "{planned}");
    assert!(planned["movement"]["bytes"].as_u64() > Some(0), "{planned}");
    assert_eq!(
        first(&cluster, &["op", "ls", "-o", "json"]).json()["operations"],
        serde_json::json!([])
    );

    let id = begun(&first(&cluster, &few));
    let cancelled = first(&cluster, &["op", "cancel", &id, "-o", "json"]).json();
    assert_eq!(cancelled["operation"]["state"], "cancelled", "{cancelled}");
    assert_eq!(at(&cluster.nodes()[1], &["op", "watch", &id]).code, 4, "known at any node");
    cluster.settled_within(3, CHANGE).await;

    let id = begun(&first(&cluster, &few));
    let watched = tokio::spawn(watch(cluster.nodes()[1].client_address(), id.clone()));
    cluster.node(2).kill();
    cluster.node(2).start();
    done(&cluster.nodes()[1], &id);
    let looks = watched.await.expect("the watch ends");
    let last = looks.last().expect("there is always a first look");
    assert_eq!(last.state(), OperationState::Done, "{looks:?}");
    assert!(
        looks.iter().rev().skip(1).all(|look| look.state() == OperationState::Running),
        "{looks:?}"
    );
    cluster.node(2).kill();
    whole(&cluster, 2).await;
    everything_reads_back(&cluster, &history, "with two nodes left").await;

    // It stays out, and says so, until it is asked to join.
    cluster.node(2).start();
    until("the node says that it has left", CHANGE, || async {
        let reasons = cluster.nodes()[2].readiness().await.map(|answer| answer.reasons.join("; "));
        match reasons {
            Ok(reasons) if reasons.contains("has left") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let seed = cluster.nodes()[0].peer_address();
    let id = begun(&at(&cluster.nodes()[2], &["node", "join", "--seeds", &seed, "-o", "json"]));
    cluster.settled_within(3, CHANGE).await;
    done(&cluster.nodes()[2], &id);
    everything_reads_back(&cluster, &history, "after it joined again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_sent_away_at_once_do_not_leave_too_few_behind() {
    let cluster = Cluster::start(4, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    // Each is asked of another node, and each alone would be fine.
    let ids: Vec<String> = std::thread::scope(|threads| {
        let asked = [(0, "node3"), (2, "node4"), (3, "node2")].map(|(asked, name)| {
            let node = &cluster.nodes()[asked];
            threads.spawn(move || at(node, &["node", "decommission", name, "-o", "json"]))
        });
        let ran = asked.map(|one| one.join().expect("the command ends"));
        // Who came last may have been refused at once.
        ran.iter().filter(|ran| ran.code == 0).map(begun).collect()
    });
    assert!(!ids.is_empty());
    until("all that may go have gone", CHANGE, || async {
        let listed = at(&cluster.nodes()[0], &["op", "ls", "-o", "json"]).json();
        let running = listed["operations"]
            .as_array()
            .is_none_or(|all| all.iter().any(|one| one["state"] == "running"));
        if running { Err(listed) } else { Ok(()) }
    })
    .await;
    whole(&cluster, 3).await;
    assert_eq!(counted(&cluster).await, (3, 0), "as many as there should be copies");
    everything_reads_back(&cluster, &history, "with three nodes left").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_taken_out_for_ever() {
    let mut cluster = Cluster::start(4, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    cluster.node(3).kill();
    is_seen_down(&cluster).await;
    // Named as the list of nodes shows it.
    let listed = at(&cluster.nodes()[0], &["node", "ls"]).stdout;
    let row = listed.lines().find(|line| line.split_whitespace().any(|cell| cell == "node4"));
    let is_id = |cell: &&str| cell.len() == 8 && cell.bytes().all(|byte| byte.is_ascii_hexdigit());
    let dead = row.and_then(|row| row.split_whitespace().find(is_id)).expect("it is listed");
    let id = begun(&at(&cluster.nodes()[0], &["node", "decommission", dead, "-o", "json"]));
    done(&cluster.nodes()[1], &id);
    whole(&cluster, 3).await;
    assert_eq!(counted(&cluster).await, (3, 0));
    everything_reads_back(&cluster, &history, "without the node").await;

    cluster.node(3).start();
    until("the node learns that it was taken out", CHANGE, || async {
        let reasons = cluster.nodes()[3].readiness().await.map(|answer| answer.reasons.join("; "));
        match reasons {
            Ok(reasons) if reasons.contains("taken out") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(counted(&cluster).await, (3, 0), "it is not believed");
    cluster.node(3).kill();
    cluster.node(3).start();
    until("the node waits to be asked", CHANGE, || async {
        let seed = cluster.nodes()[0].peer_address();
        let ran = at(&cluster.nodes()[3], &["node", "join", "--seeds", &seed]);
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    })
    .await;
    cluster.settled_within(4, CHANGE).await;
    everything_reads_back(&cluster, &history, "after it joined again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_replaced_at_once_when_an_operator_says_so() {
    let mut cluster = Cluster::start(4, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let alive = at(&cluster.nodes()[0], &["node", "replace", "node2", "-o", "json"]);
    assert_eq!(alive.error()["code"], "FAILED_PRECONDITION", "{alive:?}");
    cluster.node(3).kill();
    is_seen_down(&cluster).await;
    let id = begun(&at(&cluster.nodes()[0], &["node", "replace", "node4", "-o", "json"]));
    done(&cluster.nodes()[2], &id);
    whole(&cluster, 3).await;
    everything_reads_back(&cluster, &history, "without the node").await;
    cluster.node(3).start();
    cluster.settled_within(4, CHANGE).await;
    everything_reads_back(&cluster, &history, "after it came back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_that_lost_their_majority_go_on_by_force_and_what_returns_is_put_aside() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let needless = at(&cluster.nodes()[0], &["force", "--shard", "1", "--yes", "-o", "json"]);
    assert_eq!(needless.error()["code"], "FAILED_PRECONDITION", "{needless:?}");
    cluster.node(1).kill();
    cluster.node(2).kill();
    fs::remove_dir_all(cluster.nodes()[2].data_dir()).unwrap();
    until("both are seen to be down", CHANGE, || async {
        let (_, down) = counted(&cluster).await;
        if down == 2 { Ok(()) } else { Err(down) }
    })
    .await;
    assert_eq!(
        at(&cluster.nodes()[0], &["force", "--all-frozen"]).code,
        2,
        "it must be said twice"
    );
    let forced = at(&cluster.nodes()[0], &["force", "--all-frozen", "--yes", "-o", "json"]).json();
    assert_eq!(forced["shards"].as_array().unwrap().len(), 64, "{forced}");
    assert_eq!(forced["shards"][0]["after"], "2.1", "{forced}");
    assert_eq!(forced["shards"][0]["survivors"], serde_json::json!(["node1"]), "{forced}");
    assert_eq!(forced["shards"][0]["emptied"], false, "{forced}");

    // What the survivor held is there, and writes go on.
    let (client, after) = (cluster.client(), Arc::new(History::new()));
    fill(&client, &after, KEYS, AT_ONCE).await;
    cluster.node(1).start();
    let gone = ["node", "decommission", "node3", "--allow-under-replicated"];
    assert_eq!(at(&cluster.nodes()[0], &gone).code, 0);
    whole(&cluster, 2).await;
    everything_reads_back(&cluster, &after, "after a store of the old lineage returned").await;
    let aside = fs::read_dir(cluster.nodes()[1].data_dir().join("aside")).unwrap().count();
    assert!(aside > 0, "its records were put aside");
}
