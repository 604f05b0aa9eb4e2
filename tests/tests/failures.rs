//! Nodes die: what goes on, what says that it cannot, and that nothing acknowledged is lost.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use triad_client::{Client, Error, Level, ReplicaResult};
use triad_tests::history::History;
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::wait::until;
use triad_tests::workload::{Workload, fill, read_all, write_once};

const KEYS: usize = 300;
const AT_ONCE: usize = 16;
/// How long until a death is noticed and routed around.
const NOTICED: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_dies_and_quorum_goes_on_while_all_names_the_missing_node() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    let client = cluster.client();
    fill(&client, &history, KEYS, AT_ONCE).await;

    cluster.node(1).kill();
    until("every key is read and written at QUORUM by the other two", NOTICED, || async {
        for number in 0..30 {
            write_once(&client, &history, &format!("fill/{number}"))
                .await
                .map_err(|error| error.to_string())?;
        }
        let problems = read_all(&client, &history, AT_ONCE).await;
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    })
    .await;

    for survivor in [0, 2] {
        let client = client_of([cluster.nodes()[survivor].client_address()]);
        all_names_node2_and_one_works(&client).await;
    }

    cluster.node(1).start();
    cluster.settled(3).await;
    assert_eq!(read_all(&cluster.client(), &history, AT_ONCE).await, [""; 0]);
    cluster.client().put("k", "v").level(Level::All).await.unwrap();
}

async fn all_names_node2_and_one_works(client: &Client) {
    // Until the death is noticed the write may have been sent: then it is in doubt, and names the node as well.
    let error = until("ALL is refused before anything is sent", NOTICED, || async {
        let began = Instant::now();
        let error = client.put("k", "v").level(Level::All).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(6), "within the deadline");
        assert_eq!(error.code(), tonic::Code::Unavailable, "{error:?}");
        assert!(error.to_string().contains("node2"), "{error:?}");
        if error.is_in_doubt() { Err(error) } else { Ok(error) }
    })
    .await;
    let Error::Unavailable { needed, acknowledged, replicas, detail } = &error else {
        panic!("ALL must be UNAVAILABLE: {error:?}");
    };
    assert_eq!(detail.reason, "QUORUM_NOT_MET");
    assert_eq!(*needed, 3);
    assert!(*acknowledged < 3);
    assert!(detail.message.contains("node2"), "{}", detail.message);
    let missing = replicas.iter().find(|replica| replica.node == "node2").expect("node2 is listed");
    assert_ne!(missing.result, "ok");

    client.put("one", "v").level(Level::One).await.unwrap();
    let read = client.get("one").level(Level::One).await.unwrap();
    assert!(!read.outcome.strict, "ONE promises nothing about freshness");
    let read = client.get("fill/1").await.unwrap();
    let answer = read.outcome.replicas.iter().find(|replica| replica.node == "node2");
    assert!(answer.is_none_or(|replica| replica.result != ReplicaResult::Ok), "{:?}", read.outcome);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_die_and_quorum_is_unavailable_within_the_deadline_until_they_return() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;

    cluster.node(0).kill();
    cluster.node(2).kill();
    let client = client_of([cluster.nodes()[1].client_address()]);
    quorum_is_refused_in_time_and_one_works(&client, &history).await;

    cluster.start_all();
    cluster.settled(3).await;
    assert_eq!(read_all(&cluster.client(), &history, AT_ONCE).await, [""; 0]);
    write_once(&cluster.client(), &history, "after").await.unwrap();
    assert_eq!(read_all(&cluster.client(), &history, AT_ONCE).await, [""; 0]);
}

async fn quorum_is_refused_in_time_and_one_works(client: &Client, history: &History) {
    // While the deaths are not noticed yet a write may have been sent: it is in doubt, and never called a success.
    until("a write at QUORUM is refused as UNAVAILABLE", NOTICED, || async {
        let began = Instant::now();
        let write = history.begin_write("after");
        let result = client.put("after", write.value()).deadline(Duration::from_secs(3)).await;
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "within the deadline: {:?}",
            began.elapsed()
        );
        match result {
            Ok(written) => panic!("acknowledged without a majority: {written:?}"),
            Err(error @ Error::Unavailable { .. }) => {
                write.refused();
                assert_eq!(error.reason(), "QUORUM_NOT_MET", "{error:?}");
                Ok(())
            }
            Err(error) => {
                assert!(
                    matches!(error, Error::InDoubt(_) | Error::DeadlineExceeded(_)),
                    "{error:?}"
                );
                write.in_doubt();
                Err(error.to_string())
            }
        }
    })
    .await;
    let began = Instant::now();
    let error = client.get("fill/0").deadline(Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(4));
    let found = client.get("fill/0").level(Level::One).await.unwrap();
    // Filling goes on with another value where a write was in doubt.
    assert!(found.value().unwrap().starts_with(b"fill/0#"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_die_one_after_the_other_under_load_and_no_acknowledged_write_is_missed() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    let load = Workload::start(&cluster.client(), &history, 2, 2, 20);
    for index in [0, 1, 2] {
        let reads = load.reads();
        cluster.node(index).kill();
        until("reads go on without the dead node", NOTICED, || async {
            let now = load.reads();
            if now > reads + 100 { Ok(()) } else { Err(now) }
        })
        .await;
        cluster.node(index).start();
        cluster.settled(3).await;
    }
    let report = load.stop().await;
    // Requests under way when a node dies may fail in doubt; promises may not be broken.
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert!(report.acknowledged > 100, "{report:?}");
    assert_eq!(read_all(&cluster.client(), &history, AT_ONCE).await, [""; 0]);
}
