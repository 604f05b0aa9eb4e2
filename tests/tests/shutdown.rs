//! A node that is asked to end finishes what it has begun and exits with 0; its data is there at the next start.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use triad_tests::history::History;
use triad_tests::processes::{Cluster, Settings};
use triad_tests::workload::{Workload, fill, read_all};

/// Longer than `timeouts.drain`, for a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_exits_with_zero_and_keeps_the_data() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    let load = Workload::start(&cluster.client(), &history, 2, 2, 20);
    fill(&cluster.client(), &history, 200, 8).await;

    let stopped = cluster.node(2).stop(STOP_LIMIT);
    assert_eq!(stopped.code(), Some(0), "{stopped:?}");
    let report = load.stop().await;
    assert!(report.violations.is_empty(), "{:?}", report.violations);

    cluster.node(2).start();
    cluster.settled(3).await;
    assert_eq!(read_all(&cluster.client(), &history, 8).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_stop_politely_and_come_back() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, 200, 8).await;
    for index in 0..3 {
        let stopped = cluster.node(index).stop(STOP_LIMIT);
        assert_eq!(stopped.code(), Some(0), "node{}: {stopped:?}", index + 1);
    }
    cluster.start_all();
    cluster.settled(3).await;
    assert_eq!(read_all(&cluster.client(), &history, 8).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_hold_up_the_end() {
    let mut cluster = Cluster::start(1, Settings::small()).await;
    let client = cluster.client();
    client.put("k", "v").await.unwrap();
    // One that has said nothing, and one that keeps its HTTP connection open.
    let _silent = TcpStream::connect(cluster.nodes()[0].client_address()).unwrap();
    let mut http = TcpStream::connect(cluster.nodes()[0].admin_address()).unwrap();
    http.write_all(b"GET /readyz HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    http.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let began = Instant::now();
    let stopped = cluster.node(0).stop(STOP_LIMIT);
    assert_eq!(stopped.code(), Some(0), "{stopped:?}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}
