//! Writes that are repeated under their request id: done once, whoever is asked and whatever happened meanwhile.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use bytes::Bytes;
use tonic::Code;
use triad_client::{Client, Level};
use triad_proto::v1;
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::raw;
use triad_tests::wait::until;

const PATIENCE: Duration = Duration::from_mins(1);

/// A client for each node.
fn clients(cluster: &Cluster) -> Vec<Client> {
    cluster.endpoints().into_iter().map(|endpoint| client_of([endpoint])).collect()
}

async fn values(client: &Client, key: &str) -> Vec<String> {
    let read = client.get(key).await.unwrap();
    let mut values: Vec<String> =
        read.values().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    values.sort_unstable();
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_changes_nothing_whatever_happened_since() {
    let cluster = Cluster::start(3, Settings::small()).await;
    let clients = clients(&cluster);
    for round in 0..3_usize {
        let [a, b, c] = [0, 1, 2].map(|offset| &clients[(round + offset) % 3]);
        let key = format!("key/{round}");
        let id = [round as u8 + 1; 16];
        let first = a.put(&key, "v").request_id(id).await.unwrap();
        for other in [a, b, c] {
            let again = other.put(&key, "v").request_id(id).await.unwrap();
            assert_eq!(again.dot, first.dot, "it is answered with the first attempt's dot");
        }
        assert_eq!(values(c, &key).await, ["v"]);

        b.put(&key, "later").await.unwrap();
        c.put(&key, "v").request_id(id).await.unwrap();
        assert_eq!(values(a, &key).await, ["later"], "what came after it stays");

        c.delete(&key).await.unwrap();
        for other in [a, b, c] {
            other.put(&key, "v").request_id(id).await.unwrap();
            assert_eq!(values(other, &key).await, [""; 0], "what is deleted does not come back");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_deletion_leaves_what_was_written_after_it() {
    let cluster = Cluster::start(3, Settings::small()).await;
    let clients = clients(&cluster);
    for (round, client) in clients.iter().enumerate() {
        let key = format!("key/{round}");
        let id = [round as u8 + 100; 16];
        clients[0].put(&key, "v").await.unwrap();
        clients[1].delete(&key).request_id(id).await.unwrap();
        assert_eq!(values(&clients[2], &key).await, [""; 0]);
        clients[2].put(&key, "written after it").await.unwrap();
        client.delete(&key).request_id(id).await.unwrap();
        assert_eq!(values(&clients[0], &key).await, ["written after it"]);
        client.delete(&key).await.unwrap();
        assert_eq!(values(&clients[0], &key).await, [""; 0], "another deletion is another");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_names_one_write_of_a_key() {
    let cluster = Cluster::start(3, Settings::small()).await;
    let mut kvs = Vec::new();
    for node in cluster.nodes() {
        kvs.push(raw::Kv::new(raw::channel(&node.client_address()).await));
    }
    let id = Bytes::from_static(&[9; 16]);
    let put = |value| v1::PutRequest { request_id: id.clone(), ..raw::put("k", value) };
    let delete = v1::DeleteRequest { request_id: id.clone(), ..raw::delete("k") };
    kvs[0].put(put("one")).await.unwrap();
    for kv in &mut kvs {
        for refused in
            [kv.put(put("two")).await.unwrap_err(), kv.delete(delete.clone()).await.unwrap_err()]
        {
            let reason = "REQUEST_ID_REUSED";
            let metadata = raw::assert_refused(
                "reused",
                &refused,
                Code::InvalidArgument,
                reason,
                &["request_id"],
            );
            assert_eq!(metadata["field"], "request_id");
        }
        let read = kv.get(raw::get("k")).await.unwrap().into_inner();
        assert_eq!(raw::texts(&read), ["one"]);
    }
    // Of another key it is another.
    let other = v1::PutRequest { request_id: id.clone(), ..raw::put("other", "two") };
    kvs[0].put(other).await.unwrap();
    for length in [1, 15, 17] {
        let request_id = Bytes::from(vec![1; length]);
        let refused = kvs[0].put(v1::PutRequest { request_id, ..raw::put("k", "v") }).await;
        let refused = refused.unwrap_err();
        raw::assert_refused("length", &refused, Code::InvalidArgument, "BAD_REQUEST_ID", &["16"]);
    }
}

/// The first attempt reaches one member alone. What the repetition is told holds, and the value is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_doubt_is_settled_by_its_repetition() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let clients = clients(&cluster);
    for round in 0..3_u8 {
        let alone = usize::from(round);
        let (other, third) = ((alone + 1) % 3, (alone + 2) % 3);
        let key = format!("key/{round}");
        let id = [round + 1; 16];
        clients[other].put(&key, "before").level(Level::All).await.unwrap();
        cluster.partition(&[alone], &[other, third]).await;
        let mut kv = raw::Kv::new(raw::channel(&cluster.nodes()[alone].client_address()).await);
        let request_id = Bytes::copy_from_slice(&id);
        let first = v1::PutRequest { request_id, first_attempt: true, ..raw::put(&key, "v") };
        let mut first = tonic::Request::new(first);
        first.set_timeout(Duration::from_secs(2));
        let status = kv.put(first).await.expect_err("a majority cannot be reached");
        let codes = [Code::Unavailable, Code::DeadlineExceeded];
        assert!(codes.contains(&status.code()), "{status:?}");
        cluster.heal_all().await;
        until("the repetition is answered", PATIENCE, || async {
            clients[other].put(&key, "v").request_id(id).await.map(drop)
        })
        .await;
        until("the value is there once, by every node", PATIENCE, || async {
            for client in &clients {
                let read = client.get(&key).level(Level::All).await;
                let read = read.map_err(|error| error.to_string())?;
                if read.siblings.len() != 1 || read.value().is_none_or(|value| value != "v") {
                    return Err(format!("{:?}", read.siblings));
                }
            }
            Ok(())
        })
        .await;
        clients[third].delete(&key).await.unwrap();
        clients[alone].put(&key, "v").request_id(id).await.unwrap();
        assert_eq!(values(&clients[other], &key).await, [""; 0], "deleted for good");
    }
}

/// The first attempt stays with a member that is cut off and behind; the repetition is done without it, and replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_first_attempt_left_does_not_come_back_after_its_repetition_was_replaced() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let mut kvs = Vec::new();
    for node in cluster.nodes() {
        kvs.push(raw::Kv::new(raw::channel(&node.client_address()).await));
    }
    for round in 0..3_usize {
        let (alone, other, third) = (round, (round + 1) % 3, (round + 2) % 3);
        let key = format!("twins/{round}");
        let request_id = Bytes::from(vec![round as u8 + 50; 16]);
        let named = v1::PutRequest { request_id, ..raw::put(&key, "v") };
        kvs[other].put(raw::put(&key, "before")).await.unwrap();
        cluster.partition(&[alone], &[other, third]).await;
        until("it is written without the one that is cut off", PATIENCE, || {
            let mut kv = kvs[other].clone();
            let missed = raw::put(&key, "what it has missed");
            async move { kv.put(missed).await.map(drop) }
        })
        .await;
        let first = v1::PutRequest { first_attempt: true, ..named.clone() };
        let mut first = tonic::Request::new(first);
        first.set_timeout(Duration::from_secs(2));
        kvs[alone].put(first).await.expect_err("a majority cannot be reached");
        until("the repetition is answered", PATIENCE, || {
            let (mut kv, named) = (kvs[other].clone(), named.clone());
            async move { kv.put(named).await.map(drop) }
        })
        .await;
        let left: &[&str] = if round == 0 { &[] } else { &["later"] };
        match left {
            [] => drop(kvs[third].delete(raw::delete(&key)).await.unwrap()),
            _ => drop(kvs[third].put(raw::put(&key, "later")).await.unwrap()),
        }
        cluster.heal_all().await;
        for kv in &kvs {
            until("all members agree on what is left", PATIENCE, || {
                let (mut kv, get) = (kv.clone(), raw::get(&key));
                let get = v1::GetRequest { level: v1::Level::All.into(), ..get };
                async move {
                    let read = kv.get(get).await.map_err(|status| status.to_string())?.into_inner();
                    let diverged = read.outcome.as_ref().is_some_and(|outcome| outcome.diverged);
                    let texts = raw::texts(&read);
                    if texts == left && !diverged { Ok(()) } else { Err(format!("{texts:?}")) }
                }
            })
            .await;
        }
    }
}
