//! Far more requests than the nodes can do: each is done or refused, nothing piles up, and afterwards all is as
//! before.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use triad_proto::v1;
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::raw::{Kv, channel, get, put, texts};
use triad_tests::wait::until;

/// How long the overload lasts.
const OVERLOAD: Duration = Duration::from_secs(6);
/// Requests that are under way at any time, all nodes together.
const AT_ONCE: usize = 1_500;
/// Connections to each node.
const CONNECTIONS: usize = 4;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Size of the values: enough for a pile of them to be seen in the memory of a node.
const VALUE_BYTES: usize = 4 << 10;
/// What a node may have taken at most, at any time, in kB. Idle it has some 50 MB.
const MEMORY_KB: u64 = 400 << 10;
/// Refused writes of which it is looked whether they left anything, at most.
const LOOKED_AT: usize = 500;
/// Keys that are looked at together.
const READERS: usize = 16;
/// How long anything may take afterwards, on a machine that is busy with other tests.
const AFTERWARDS: Duration = Duration::from_mins(2);

/// What became of the requests.
#[derive(Debug, Default)]
struct Outcomes {
    acknowledged: Vec<String>,
    read: usize,
    refused: Vec<String>,
    /// Answers that leave open whether anything was done, or that came from no node.
    unsettled: usize,
    by_reason: BTreeMap<String, usize>,
}

impl Outcomes {
    fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.refused.extend(other.refused);
        self.read += other.read;
        self.unsettled += other.unsettled;
        for (reason, count) in other.by_reason {
            *self.by_reason.entry(reason).or_default() += count;
        }
    }

    fn answers(&self) -> usize {
        self.acknowledged.len() + self.read + self.refused.len() + self.unsettled
    }
}

/// Sends one request after the other, without ever waiting, until it is told to stop.
async fn insist(mut kv: Kv, worker: usize, stop: Arc<AtomicBool>) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{worker}/{number}");
        let writes = number % 4 != 3;
        let answer = if writes {
            let padded = format!("{key:>VALUE_BYTES$}");
            let mut request = Request::new(put(&key, &padded));
            request.set_timeout(PATIENCE);
            kv.put(request).await.map(drop)
        } else {
            let mut request = Request::new(get(&format!("{worker}/{}", number - 1)));
            request.set_timeout(PATIENCE);
            kv.get(request).await.map(drop)
        };
        match answer {
            Ok(()) if writes => outcomes.acknowledged.push(key),
            Ok(()) => outcomes.read += 1,
            Err(status) => outcomes.note(&status, key),
        }
    }
    outcomes
}

impl Outcomes {
    /// A refusal says so, which limit was reached, and when to come back.
    fn note(&mut self, status: &Status, key: String) {
        let reason = status.get_details_error_info().map_or_else(String::new, |info| info.reason);
        *self.by_reason.entry(format!("{:?} {reason}", status.code())).or_default() += 1;
        match (status.code(), reason.as_str()) {
            (Code::ResourceExhausted, "OVERLOADED") => {
                let wait = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
                let wait = wait.unwrap_or_else(|| panic!("no RetryInfo: {status:?}"));
                assert!(!wait.is_zero() && wait <= Duration::from_secs(10), "{status:?}");
                assert!(status.message().contains("overloaded"), "{status:?}");
                self.refused.push(key);
            }
            (Code::Unavailable, "QUORUM_NOT_MET") => self.refused.push(key),
            (Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled, _) => {
                self.unsettled += 1;
            }
            _ => panic!("no answer to expect from a node with too much to do: {status:?}"),
        }
    }
}

async fn overload(cluster: &Cluster) -> Outcomes {
    let stop = Arc::new(AtomicBool::new(false));
    let mut connections = Vec::new();
    for node in cluster.nodes() {
        for _ in 0..CONNECTIONS {
            connections.push(channel(&node.client_address()).await);
        }
    }
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        let kv = Kv::new(connections[worker % connections.len()].clone());
        workers.spawn(insist(kv, worker, Arc::clone(&stop)));
    }
    tokio::time::sleep(OVERLOAD).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Outcomes::default();
    while let Some(ended) = workers.join_next().await {
        all.add(ended.unwrap());
    }
    all
}

/// Every node does ordinary requests at once, from clients that do not repeat anything.
async fn serves_again(cluster: &Cluster) {
    for node in cluster.nodes() {
        let address = node.client_address();
        until(&format!("{} serves", node.name()), AFTERWARDS, || async {
            let mut kv = Kv::new(channel(&address).await);
            for round in 0..20 {
                let (key, value) = (format!("after {round}"), format!("{address} {round}"));
                kv.put(put(&key, &value)).await?;
                let found = kv.get(get(&key)).await?.into_inner();
                assert_eq!(texts(&found), [value], "{key}");
            }
            Ok::<(), Status>(())
        })
        .await;
    }
}

/// Which of these keys hold something, by a client that goes on until it knows.
async fn held(cluster: &Cluster, keys: &[String]) -> BTreeMap<String, Vec<String>> {
    let (keys, next) = (Arc::new(keys.to_vec()), Arc::new(AtomicUsize::new(0)));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (keys, next) = (Arc::clone(&keys), Arc::clone(&next));
        let client = client_of(cluster.endpoints());
        readers.spawn(async move {
            let mut held = Vec::new();
            while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                let read = || async { client.get(key.as_str()).await };
                let found = until("a read", AFTERWARDS, read).await;
                let texts = found.values().map(|value| String::from_utf8_lossy(value).into_owned());
                held.push((key.clone(), texts.collect::<Vec<_>>()));
            }
            held.retain(|(_, texts)| !texts.is_empty());
            held
        });
    }
    readers.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_are_done_or_refused_and_afterwards_all_is_as_before() {
    // Little patience, so that on any machine more comes than may wait.
    let settings = Settings::small().with("TRIAD_LIMITS_QUEUE_WAIT", "20ms");
    let mut cluster = Cluster::start(3, settings).await;
    let outcomes = overload(&cluster).await;

    let (answers, refused) = (outcomes.answers(), outcomes.refused.len());
    assert!(refused > 0, "it was no overload: {:?}", outcomes.by_reason);
    assert!(!outcomes.acknowledged.is_empty(), "nothing was done: {:?}", outcomes.by_reason);
    let unsettled = outcomes.unsettled;
    assert!(unsettled * 20 <= answers, "{unsettled} of {answers}: {:?}", outcomes.by_reason);

    serves_again(&cluster).await;
    for index in 0..cluster.nodes().len() {
        assert!(cluster.node(index).is_running(), "node{} has ended", index + 1);
        let peak = cluster.nodes()[index].peak_memory_kb().expect("a running process");
        assert!(peak < MEMORY_KB, "node{} has taken {peak} kB", index + 1);
    }
    let found = held(&cluster, &outcomes.acknowledged).await;
    for key in &outcomes.acknowledged {
        let values = found.get(key).unwrap_or_else(|| panic!("{key} is lost"));
        assert!(values.len() == 1 && values[0].trim() == key, "{key}: {values:?}");
    }
    let looked_at = &outcomes.refused[..refused.min(LOOKED_AT)];
    let left: Vec<String> = held(&cluster, looked_at).await.into_keys().collect();
    assert!(left.is_empty(), "refused, and done: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_one_place_refuses_the_second_request_with_its_limit() {
    let settings = Settings::small().with("TRIAD_LIMITS_IN_FLIGHT", "1");
    let cluster = Cluster::start(1, settings).await;
    let channel = cluster.nodes()[0].channel().await;
    let refusal = until("a refusal", AFTERWARDS, || async {
        let mut puts = JoinSet::new();
        for number in 0..64 {
            let mut kv = Kv::new(channel.clone());
            puts.spawn(async move { kv.put(put(&format!("k{number}"), "v")).await.map(drop) });
        }
        let answers: Vec<Result<(), Status>> = puts.join_all().await;
        answers.into_iter().find_map(Result::err).ok_or("all were done one after the other")
    })
    .await;
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal:?}");
    let info = refusal.get_details_error_info().expect("details");
    assert_eq!(info.reason, "OVERLOADED");
    assert_eq!(info.metadata["limit"], "limits.in_flight");
    assert!(refusal.message().contains("limits.in_flight = 1"), "{refusal:?}");
    let retry = refusal.get_details_retry_info().and_then(|retry| retry.retry_delay);
    assert!(retry.is_some_and(|delay| !delay.is_zero()), "{refusal:?}");
    let request = v1::GetRequest { ..get("k0") };
    Kv::new(channel).get(request).await.expect("one request at a time is served");
}
