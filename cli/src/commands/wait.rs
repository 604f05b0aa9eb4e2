//! `wait`: asks again and again until the cluster is as wanted, or the time is up.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::Code;
use triad_client::Client;
use triad_proto::v1;

use crate::args::{Common, WaitArgs};
use crate::exit::{Exit, Failure};
use crate::output::{Console, json};

/// How long to wait unless told otherwise: a few nodes with some data settle in that.
const WAIT_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause between two questions: much shorter than what is waited for, much longer than answering takes.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// One question's own deadline, so that a node that hangs does not use up the whole time.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) async fn run(
    args: &WaitArgs,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    until(args, common.endpoints(), common.timeout_or(WAIT_TIMEOUT)).await?;
    console.result(&json::Done { ok: true }, || "OK\n".to_owned())?;
    Ok(Exit::Ok)
}

/// Returns when everything asked for holds at once. Nodes that do not answer are no error before the time is up.
pub(super) async fn until(
    args: &WaitArgs,
    endpoints: Vec<String>,
    patience: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    let asking = Client::builder().endpoints(endpoints.clone()).retries(0);
    let client = asking.deadline(ASK_TIMEOUT.min(patience / 2)).connect_lazy()?;
    let mut missing = "no node has answered".to_owned();
    loop {
        match timeout_at(deadline, missing_now(args, &client, &endpoints)).await {
            Ok(Some(now)) => missing = now,
            Ok(None) => return Ok(()),
            Err(_) => break,
        }
        if Instant::now() + ASK_EVERY >= deadline {
            break;
        }
        sleep(ASK_EVERY).await;
    }
    let message = format!("not so within {}: {missing}", humantime::format_duration(patience));
    Err(Failure::new(Exit::Deadline, Code::DeadlineExceeded, message))
}

/// Asks everything once. None: nothing is missing.
async fn missing_now(args: &WaitArgs, client: &Client, endpoints: &[String]) -> Option<String> {
    let mut missing = Vec::new();
    if args.ready {
        for endpoint in endpoints {
            missing.extend(unready(client, endpoint).await);
        }
    }
    if args.nodes.is_some() || args.settled {
        match client.cluster().status().await {
            Ok(status) => {
                missing.extend(args.nodes.and_then(|wanted| too_few(wanted, &status)));
                if args.settled {
                    missing.extend(unsettled(&status));
                }
            }
            Err(error) => missing.push(error.to_string()),
        }
    }
    // Only when the counts are right is it worth looking at each node.
    if missing.is_empty() && args.settled {
        match client.cluster().list_nodes().await {
            Ok(nodes) => missing.extend(misplaced(&nodes)),
            Err(error) => missing.push(error.to_string()),
        }
    }
    if missing.is_empty() { None } else { Some(missing.join("; ")) }
}

async fn unready(client: &Client, endpoint: &str) -> Option<String> {
    let answer = match client.cluster().at(endpoint) {
        Ok(cluster) => cluster.readiness().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(readiness) if readiness.live && readiness.ready => None,
        Ok(readiness) => Some(format!("{endpoint} is not ready: {}", readiness.reasons.join(", "))),
        Err(error) => Some(error.to_string()),
    }
}

fn too_few(wanted: u32, status: &v1::StatusResponse) -> Option<String> {
    let nodes = status.nodes.unwrap_or_default();
    (nodes.alive < wanted).then(|| format!("{} of {wanted} nodes are alive", nodes.alive))
}

/// What keeps the shards from being settled.
fn unsettled(status: &v1::StatusResponse) -> Vec<String> {
    let shards = status.shards.unwrap_or_default();
    let mut missing = Vec::new();
    if !status.complete {
        missing.push(format!("not every node answers ({})", status.unreachable.join(", ")));
    }
    if shards.total == 0 {
        missing.push("no shards are known".to_owned());
    }
    let counts = [
        (shards.joint, "on the move"),
        (shards.learning, "being copied"),
        (shards.under_replicated, "under-replicated"),
        (shards.unavailable, "unavailable"),
    ];
    let wrong = counts.into_iter().filter(|(count, _)| *count > 0);
    missing.extend(wrong.map(|(count, what)| format!("{count} shards {what}")));
    missing
}

/// Between two moves nothing is joint, and yet shards are not where the ring wants them: each node's share tells.
fn misplaced(nodes: &[v1::NodeInfo]) -> Vec<String> {
    let mut missing = Vec::new();
    for node in nodes.iter().filter(|node| node.state() != v1::NodeState::Left) {
        let name = &node.node;
        if node.state() != v1::NodeState::Active {
            missing.push(format!("{name} is {}", json::node_state(node.state())));
        } else if node.shards != node.ideal_shards {
            missing.push(format!(
                "{name} has {} shards, the ring wants {}",
                node.shards, node.ideal_shards
            ));
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled() -> v1::StatusResponse {
        v1::StatusResponse {
            complete: true,
            nodes: Some(v1::NodeCounts { total: 3, alive: 3, ..Default::default() }),
            shards: Some(v1::ShardCounts { total: 1024, ..Default::default() }),
            ..Default::default()
        }
    }

    fn node(name: &str, shards: u32, ideal_shards: u32) -> v1::NodeInfo {
        let state = v1::NodeState::Active.into();
        v1::NodeInfo { node: name.into(), state, shards, ideal_shards, ..Default::default() }
    }

    #[test]
    fn a_cluster_is_settled_when_nothing_moves_and_all_answer() {
        assert_eq!(unsettled(&settled()), [""; 0]);
        let mut status = settled();
        status.shards =
            Some(v1::ShardCounts { total: 1024, joint: 2, learning: 1, ..Default::default() });
        status.complete = false;
        status.unreachable = vec!["node2".into()];
        assert_eq!(
            unsettled(&status),
            ["not every node answers (node2)", "2 shards on the move", "1 shards being copied"]
        );
        status.shards = None;
        assert!(unsettled(&status).contains(&"no shards are known".to_owned()));
    }

    #[test]
    fn shards_that_wait_to_be_moved_are_seen_in_the_shares() {
        let mut nodes = [node("node1", 1024, 1024), node("node2", 1024, 700)];
        assert_eq!(misplaced(&nodes), ["node2 has 1024 shards, the ring wants 700"]);
        nodes[1].ideal_shards = 1024;
        nodes[0].state = v1::NodeState::Joining.into();
        assert_eq!(misplaced(&nodes), ["node1 is joining"]);
        nodes[0].state = v1::NodeState::Left.into();
        assert_eq!(misplaced(&nodes), [""; 0]);
    }

    #[test]
    fn at_least_the_nodes_asked_for_must_be_alive() {
        assert_eq!(too_few(3, &settled()), None);
        assert_eq!(too_few(2, &settled()), None);
        assert_eq!(too_few(5, &settled()).unwrap(), "3 of 5 nodes are alive");
    }

    #[tokio::test]
    async fn nobody_there_is_no_error_until_the_time_is_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let args = WaitArgs { nodes: Some(3), settled: true, ready: true };
        let patience = Duration::from_millis(600);
        let began = Instant::now();
        let failure = until(&args, vec![address.clone()], patience).await.unwrap_err();
        assert!(began.elapsed() >= patience / 2 && began.elapsed() < patience * 4);
        assert_eq!((failure.exit, failure.code), (Exit::Deadline, Code::DeadlineExceeded));
        assert!(
            failure.message.starts_with("not so within 600ms: ")
                && failure.message.contains(&address),
            "{}",
            failure.message
        );
    }
}
