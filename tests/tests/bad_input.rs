//! Whatever comes in, the answer names the field, the value and the limit, and the node stays healthy.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use tonic::{Code, Status};
use triad_proto::v1;
use triad_tests::processes::{Cluster, Node, Settings, client_of, ran_within};
use triad_tests::raw::{Kv, assert_refused, channel, delete, get, put};
use triad_tests::wait::until;
use triad_tests::workload::run_all;

/// A node that is asked to end by its own mistake does so at once.
const END_LIMIT: Duration = Duration::from_secs(20);

/// The node still does its work.
async fn still_healthy(cluster: &mut Cluster) {
    for index in 0..cluster.nodes().len() {
        assert!(cluster.node(index).is_running(), "node{} has ended", index + 1);
        let client = client_of([cluster.nodes()[index].client_address()]);
        client.put("health", "good").await.unwrap();
        assert_eq!(client.get("health").await.unwrap().value().unwrap(), "good");
        let readiness = cluster.nodes()[index].readiness().await.unwrap();
        assert!(readiness.live && readiness.ready, "{:?}", readiness.reasons);
    }
}

async fn put_error(kv: &mut Kv, request: v1::PutRequest) -> Status {
    kv.put(request).await.expect_err("a wrong put must be refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_values_and_buckets_are_refused_with_the_limit() {
    let mut cluster = Cluster::start(1, Settings::small()).await;
    let mut kv = Kv::new(cluster.nodes()[0].channel().await);

    empty_keys_are_refused(&mut kv).await;
    large_keys_and_values_are_refused(&mut kv).await;
    for bucket in ["Capital", "with space", "slash/", "ünicode", &"b".repeat(129)] {
        let status =
            put_error(&mut kv, v1::PutRequest { bucket: bucket.to_owned(), ..put("k", "v") }).await;
        let metadata =
            assert_refused(bucket, &status, Code::InvalidArgument, "BAD_BUCKET", &["bucket"]);
        assert_eq!(metadata["field"], "bucket");
    }
    still_healthy(&mut cluster).await;
}

async fn empty_keys_are_refused(kv: &mut Kv) {
    for request in [put("", "v"), v1::PutRequest { key_form: None, ..put("k", "v") }] {
        let status = put_error(kv, request).await;
        let metadata =
            assert_refused("empty key", &status, Code::InvalidArgument, "EMPTY_KEY", &["key"]);
        assert!(metadata["field"].starts_with("key"), "{metadata:?}");
    }
    let status = kv.get(get("")).await.unwrap_err();
    assert_refused("get of an empty key", &status, Code::InvalidArgument, "EMPTY_KEY", &["key"]);
    let status = kv.delete(delete("")).await.unwrap_err();
    assert_refused("delete of an empty key", &status, Code::InvalidArgument, "EMPTY_KEY", &["key"]);
}

async fn large_keys_and_values_are_refused(kv: &mut Kv) {
    let status = put_error(kv, put(&"k".repeat(5 * 1024), "v")).await;
    let metadata = assert_refused(
        "key of 5 KiB",
        &status,
        Code::InvalidArgument,
        "KEY_TOO_LARGE",
        &["5120", "4096"],
    );
    assert!(metadata["field"].starts_with("key"), "{metadata:?}");
    assert_eq!(metadata["size"], "5120");
    assert_eq!(metadata["limit"], "4096");
    kv.put(put(&"k".repeat(4096), "v")).await.expect("a key of exactly 4 KiB is allowed");

    let status = put_error(kv, put("k", &"v".repeat(2 << 20))).await;
    let metadata = assert_refused(
        "value of 2 MiB",
        &status,
        Code::InvalidArgument,
        "VALUE_TOO_LARGE",
        &["2097152", "1048576"],
    );
    assert!(metadata["field"].starts_with("value"), "{metadata:?}");
    assert_eq!(metadata["size"], "2097152");
    assert_eq!(metadata["limit"], "1048576");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_far_too_large_is_refused_before_it_is_kept() {
    let mut cluster = Cluster::start(1, Settings::small()).await;
    let mut kv = Kv::new(cluster.nodes()[0].channel().await).max_encoding_message_size(64 << 20);
    let status = put_error(&mut kv, put("k", &"v".repeat(20 << 20))).await;
    assert!(
        matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange),
        "{status:?}"
    );
    assert!(status.message().contains(&(8_u64 << 20).to_string()), "names the limit: {status:?}");
    still_healthy(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contexts_that_the_cluster_did_not_make_for_this_key_are_refused() {
    let mut cluster = Cluster::start(1, Settings::small()).await;
    let mut kv = Kv::new(cluster.nodes()[0].channel().await);
    let context = kv.put(put("k", "v")).await.unwrap().into_inner().context;

    for (what, context) in bad_contexts(&context).await {
        let status =
            put_error(&mut kv, v1::PutRequest { context: context.clone(), ..put("k", "new") })
                .await;
        let metadata =
            assert_refused(what, &status, Code::InvalidArgument, "BAD_CONTEXT", &["context"]);
        assert_eq!(metadata["field"], "context");
        let status = kv.delete(v1::DeleteRequest { context, ..delete("k") }).await.unwrap_err();
        assert_refused(what, &status, Code::InvalidArgument, "BAD_CONTEXT", &["context"]);
    }
    let request = v1::PutRequest { context: context.clone(), ..put("another key", "new") };
    assert_refused(
        "of another key",
        &put_error(&mut kv, request).await,
        Code::InvalidArgument,
        "BAD_CONTEXT",
        &[],
    );
    let request = v1::PutRequest { context, bucket: "another".to_owned(), ..put("k", "new") };
    assert_refused(
        "of another bucket",
        &put_error(&mut kv, request).await,
        Code::InvalidArgument,
        "BAD_CONTEXT",
        &[],
    );

    let read = cluster.client().get("k").await.unwrap();
    assert_eq!(read.value().unwrap(), "v", "nothing was written");
    still_healthy(&mut cluster).await;
}

async fn bad_contexts(context: &Bytes) -> Vec<(&'static str, Bytes)> {
    let mut forged = context.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let other = Cluster::start(1, Settings::small()).await;
    let mut stranger = Kv::new(other.nodes()[0].channel().await);
    let foreign = stranger.put(put("k", "v")).await.unwrap().into_inner().context;
    vec![
        ("forged", Bytes::from(forged)),
        ("cut short", context.slice(..context.len() - 1)),
        ("garbage", Bytes::from_static(b"garbage")),
        ("huge", Bytes::from(vec![7; 1 << 20])),
        ("of another cluster", foreign),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_levels_and_what_is_not_served_yet() {
    let mut cluster = Cluster::start(1, Settings::small()).await;
    let mut kv = Kv::new(cluster.nodes()[0].channel().await);
    for level in [4, 99, -1, i32::MAX] {
        let status = put_error(&mut kv, v1::PutRequest { level, ..put("k", "v") }).await;
        let metadata = assert_refused(
            "level",
            &status,
            Code::InvalidArgument,
            "BAD_LEVEL",
            &["level", &level.to_string()],
        );
        assert_eq!(metadata["field"], "level");
        let status = kv.get(v1::GetRequest { level, ..get("k") }).await.unwrap_err();
        assert_refused("level", &status, Code::InvalidArgument, "BAD_LEVEL", &["level"]);
    }
    other_modes_are_not_served_yet(&mut kv).await;
    let named = v1::PutRequest { request_id: Bytes::from_static(&[1; 16]), ..put("k", "v") };
    let status = put_error(&mut kv, v1::PutRequest { bucket: "any.b".to_owned(), ..named }).await;
    assert_refused("named", &status, Code::Unimplemented, "UNSUPPORTED_MODE", &["request_id"]);
    for length in [1, 15, 17, 1_000] {
        let request_id = Bytes::from(vec![1; length]);
        let status = put_error(&mut kv, v1::PutRequest { request_id, ..put("k", "v") }).await;
        assert_refused("request id", &status, Code::InvalidArgument, "BAD_REQUEST_ID", &["16"]);
    }
    still_healthy(&mut cluster).await;
}

async fn other_modes_are_not_served_yet(kv: &mut Kv) {
    let bucket = "lin.locks".to_owned();
    let status = put_error(kv, v1::PutRequest { bucket: bucket.clone(), ..put("k", "v") }).await;
    assert_refused(&bucket, &status, Code::Unimplemented, "UNSUPPORTED_MODE", &[&bucket]);
    let status = kv.get(v1::GetRequest { bucket: bucket.clone(), ..get("k") }).await.unwrap_err();
    assert_refused(&bucket, &status, Code::Unimplemented, "UNSUPPORTED_MODE", &[&bucket]);
    let status =
        kv.delete(v1::DeleteRequest { bucket: bucket.clone(), ..delete("k") }).await.unwrap_err();
    assert_refused(&bucket, &status, Code::Unimplemented, "UNSUPPORTED_MODE", &[&bucket]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_port_ends_its_own_connection_and_nothing_else() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let node = &cluster.nodes()[0];
    let noise: Vec<u8> =
        (0..100_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frames.extend(&noise);
    let pieces: [&[u8]; 6] = [
        &noise,
        &frames,
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0",
    ];
    for address in [node.client_address(), node.peer_address(), node.admin_address()] {
        for _ in 0..3 {
            for piece in pieces {
                throw(&address, piece);
            }
        }
    }
    still_healthy(&mut cluster).await;
    cluster.settled(3).await;
}

/// Sends the bytes and reads whatever comes back until the other side ends, or for half a second.
fn throw(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    // The node may hang up in the middle of it: that is its good right.
    if stream.write_all(bytes).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        let mut answer = Vec::new();
        let _ = stream.take(1 << 20).read_to_end(&mut answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_over_forty_connections_are_served_or_shed() {
    let mut cluster = Cluster::start(1, Settings::small()).await;
    let address = cluster.nodes()[0].client_address();
    cluster.client().put("k", "v").await.unwrap();
    let mut connections = Vec::new();
    for _ in 0..40 {
        connections.push(channel(&address).await);
    }
    let connections = std::sync::Arc::new(connections);
    let served = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    run_all(10_000, 10_000, |number| {
        let mut kv = Kv::new(connections[number % 40].clone());
        let served = std::sync::Arc::clone(&served);
        async move {
            let result = if number % 2 == 0 {
                kv.get(get("k")).await.map(drop)
            } else {
                kv.put(put(&format!("k{number}"), "v")).await.map(drop)
            };
            match result {
                Ok(()) => {
                    served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Err(status) => assert!(
                    matches!(
                        status.code(),
                        Code::ResourceExhausted
                            | Code::DeadlineExceeded
                            | Code::Unavailable
                            | Code::Cancelled
                    ),
                    "{status:?}"
                ),
            }
        }
    })
    .await;
    let served = served.load(std::sync::atomic::Ordering::Relaxed);
    assert!(served >= 1_000, "only {served} of 10,000 were served");
    still_healthy(&mut cluster).await;
}

#[test]
fn a_configuration_file_with_an_unknown_key_is_refused_with_a_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("triad.toml");
    std::fs::write(&file, "[storage]\ndata_dirr = \"/tmp/x\"\n").unwrap();
    let node = Node::new("node1", directory.path());
    let mut command = node.command();
    let ran = ran_within(command.env("TRIAD_CONFIG", &file), directory.path(), END_LIMIT);
    assert_eq!(ran.code, 2, "{ran:?}");
    for word in ["data_dirr", "data_dir", "triad.toml"] {
        assert!(ran.stderr.contains(word), "no {word:?} in {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_data_directory_is_refused() {
    let mut cluster = Cluster::start(1, Settings::small()).await;
    let mut second = Node::new("second", cluster.directory());
    second.set_data_dir(cluster.nodes()[0].data_dir());
    let ran = ran_within(&mut second.command(), cluster.directory(), END_LIMIT);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("in use"), "{ran:?}");
    assert!(
        ran.stderr.contains(cluster.nodes()[0].data_dir().to_str().unwrap()),
        "names the directory: {ran:?}"
    );
    still_healthy(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_cluster_does_not_mix() {
    let mut ours = Cluster::start(3, Settings::small()).await;
    let mut theirs = Cluster::start(1, Settings::small()).await;
    theirs.client().put("k", "theirs").await.unwrap();
    ours.client().put("k", "ours").await.unwrap();

    // Their node, data and all, is told that our nodes are its seeds.
    theirs.node(0).kill();
    let seeds: Vec<String> = ours.nodes().iter().map(Node::peer_address).collect();
    let intruder = theirs.node(0);
    intruder.set("TRIAD_CLUSTER_SEEDS", &seeds.join(","));
    intruder.start();
    until("the intruder is told that it is in the wrong cluster", Duration::from_secs(30), || {
        let log = theirs.nodes()[0].log();
        async move {
            if log.contains("cluster") && mentions_another_cluster(&log) {
                Ok(())
            } else {
                Err(log)
            }
        }
    })
    .await;

    assert_eq!(ours.client().get("k").await.unwrap().value().unwrap(), "ours");
    let status = ours.client().cluster().status().await.unwrap();
    assert_eq!(status.nodes.unwrap().total, 3, "it was not let in");
    still_healthy(&mut ours).await;
}

fn mentions_another_cluster(log: &str) -> bool {
    ["another cluster", "different cluster", "other cluster", "WRONG_CLUSTER", "wrong cluster"]
        .iter()
        .any(|words| log.contains(words))
}
