//! Overwriting and causal writes: what replaces what, and what stays beside it.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use triad_client::{Client, Context};
use triad_tests::processes::{Cluster, Settings};

async fn values(client: &Client, key: &str) -> Vec<String> {
    let read = client.get(key).await.unwrap();
    let mut values: Vec<String> =
        read.values().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    values.sort_unstable();
    values
}

async fn context(client: &Client, key: &str) -> Context {
    client.get(key).await.unwrap().context
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_and_deletes_replace_what_they_have_seen_and_nothing_else() {
    let cluster = Cluster::start(3, Settings::small()).await;
    // A client for each node: siblings must not depend on who coordinates.
    let clients: Vec<Client> = cluster
        .endpoints()
        .into_iter()
        .map(|endpoint| triad_tests::processes::client_of([endpoint]))
        .collect();
    for round in 0..6 {
        let [a, b, c] = [0, 1, 2].map(|offset| &clients[(round + offset) % 3]);
        let key = format!("key/{round}");
        overwriting_leaves_one(a, b, &key).await;
        let old = context(c, &key).await;
        concurrent_writes_stay_side_by_side(a, b, &key, &old).await;
        one_write_with_their_context_leaves_one(b, c, &key).await;
        a_deletion_stays_deleted(a, c, &key, &old).await;
    }
}

async fn overwriting_leaves_one(a: &Client, b: &Client, key: &str) {
    a.put(key, "first").await.unwrap();
    b.put(key, "second").await.unwrap();
    assert_eq!(values(a, key).await, ["second"]);
}

async fn concurrent_writes_stay_side_by_side(a: &Client, b: &Client, key: &str, old: &Context) {
    a.put(key, "left").context(old).await.unwrap();
    b.put(key, "right").context(old).await.unwrap();
    let read = a.get(key).await.unwrap();
    assert!(read.has_siblings());
    assert_eq!(values(b, key).await, ["left", "right"]);
    assert!(read.siblings[0].dot < read.siblings[1].dot, "sorted by dot");
}

async fn one_write_with_their_context_leaves_one(b: &Client, c: &Client, key: &str) {
    let seen = context(b, key).await;
    let written = c.put(key, "merged").context(&seen).await.unwrap();
    assert_eq!(values(b, key).await, ["merged"]);
    // The context that a write returns is as good as one that was read.
    b.put(key, "edited").context(&written.context).await.unwrap();
    assert_eq!(values(c, key).await, ["edited"]);
}

async fn a_deletion_stays_deleted(a: &Client, c: &Client, key: &str, old: &Context) {
    let seen = context(a, key).await;
    a.delete(key).context(&seen).await.unwrap();
    assert_eq!(values(c, key).await, [""; 0]);

    // A stale put is a new value, and brings back nothing that it or others had seen.
    c.put(key, "stale").context(old).await.unwrap();
    assert_eq!(values(a, key).await, ["stale"]);
    a.delete(key).await.unwrap();
    assert_eq!(values(c, key).await, [""; 0]);
    let read = c.get(key).await.unwrap();
    assert!(!read.is_found() && !read.context.is_empty(), "the deletion is remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_key_has_a_context_too_so_that_two_who_create_it_at_once_both_stay() {
    let cluster = Cluster::start(3, Settings::small()).await;
    let client = cluster.client();
    let read = client.get("never").await.unwrap();
    assert!(!read.is_found());
    client.delete("never").await.unwrap();
    for value in ["mine", "yours"] {
        client.put("never", value).context(&read.context).await.unwrap();
    }
    assert_eq!(values(&client, "never").await, ["mine", "yours"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_with_an_old_context_spares_what_it_has_not_seen() {
    let cluster = Cluster::start(3, Settings::small()).await;
    let client = cluster.client();
    client.put("k", "old").await.unwrap();
    let old = context(&client, "k").await;
    client.put("k", "new").context(&old).await.unwrap();
    client.delete("k").context(&old).await.unwrap();
    assert_eq!(values(&client, "k").await, ["new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_bytes_and_may_be_empty_or_large() {
    let cluster = Cluster::start(3, Settings::small()).await;
    let client = cluster.client();
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for value in [Vec::new(), vec![0], vec![0xff, 0xfe], bytes] {
        client.put([0, 0xff, b'/'], value.clone()).bucket("raw.bytes-1_0").await.unwrap();
        let read = client.get([0, 0xff, b'/']).bucket("raw.bytes-1_0").await.unwrap();
        assert_eq!(read.siblings.len(), 1);
        assert_eq!(read.siblings[0].value, value);
    }
    assert!(
        !client.get([0, 0xff, b'/']).await.unwrap().is_found(),
        "another bucket is another key"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn siblings_are_bounded_and_an_overwrite_is_never_refused_for_them() {
    let cluster = Cluster::start(
        1,
        Settings::small()
            .with("TRIAD_LIMITS_SIBLINGS_HARD", "3")
            .with("TRIAD_LIMITS_SIBLINGS_SOFT", "2"),
    )
    .await;
    let client = cluster.client();
    client.put("k", "0").await.unwrap();
    let old = context(&client, "k").await;
    for number in 1..=3 {
        client.put("k", number.to_string()).context(&old).await.unwrap();
    }
    let error = client.put("k", "4").context(&old).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted, "{error:?}");
    assert_eq!(error.reason(), "SIBLING_LIMIT");
    assert_eq!(error.metadata("limit"), Some("3"));
    client.put("k", "all").await.unwrap();
    assert_eq!(values(&client, "k").await, ["all"]);
}
