//! Values with a time to live: nobody is shown them when it is over, no store keeps them, and one wrong clock
//! does not matter.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::time::{Duration, Instant};

use tonic::Code;
use triad_client::{Client, Level};
use triad_proto::v1;
use triad_proto::v1::cluster_service_client::ClusterServiceClient;
use triad_tests::processes::{Cluster, Settings, client_of};
use triad_tests::raw;
use triad_tests::wait::until;

const PATIENCE: Duration = Duration::from_mins(1);
const HOUR: i64 = 3_600;

async fn gone(client: &Client, key: &str) {
    until("the value is gone", PATIENCE, || async {
        let read = client.get(key).await.map_err(|error| error.to_string())?;
        if read.is_found() { Err("still there".to_owned()) } else { Ok(()) }
    })
    .await;
}

/// Waits until no store has a value of the key any more.
async fn removed(cluster: &Cluster, key: &str) {
    let channel = raw::channel(&cluster.nodes()[0].client_address()).await;
    until("every store has removed the value", PATIENCE, || async {
        let request = v1::LocateRequest {
            key_form: Some(v1::locate_request::KeyForm::KeyText(key.to_owned())),
            with_versions: true,
            ..Default::default()
        };
        let answer = ClusterServiceClient::new(channel.clone()).locate(request).await;
        let replicas = answer.map_err(|status| status.to_string())?.into_inner().replicas;
        if replicas.len() == 3 && replicas.iter().all(|replica| replica.dots.is_empty()) {
            Ok(())
        } else {
            Err(format!("{replicas:?}"))
        }
    })
    .await;
}

async fn skew_alarms(client: &Client) -> Result<usize, String> {
    let status = client.cluster().status().await.map_err(|error| error.to_string())?;
    Ok(status.alarms.iter().filter(|alarm| alarm.name == "CLOCK_SKEW").count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_goes_when_its_time_is_over_and_what_replaced_it_stays() {
    let cluster = Cluster::start(3, Settings::small()).await;
    let client = cluster.client();
    client.put("replaced", "first").ttl(Duration::from_secs(1)).await.unwrap();
    client.put("replaced", "second").await.unwrap();
    let nothing = client.get("sibling").await.unwrap().context;
    client.put("sibling", "stays").await.unwrap();
    client.put("sibling", "goes").ttl(Duration::from_secs(2)).context(&nothing).await.unwrap();
    let hour = Duration::from_secs(HOUR.unsigned_abs());
    client.put("long", "lives").ttl(hour).await.unwrap();

    client.put("short", "lived").ttl(Duration::from_secs(3)).await.unwrap();
    let began = Instant::now();
    let read = client.get("short").await.unwrap();
    let left = read.siblings[0].ttl.expect("it has a time to live");
    assert!(left <= Duration::from_secs(3) && left > Duration::ZERO, "{left:?}");
    gone(&client, "short").await;
    assert!(began.elapsed() > Duration::from_secs(2), "early: {:?}", began.elapsed());
    removed(&cluster, "short").await;
    // What was due before it was looked at before it.
    assert_eq!(client.get("replaced").await.unwrap().value().unwrap(), "second");
    assert_eq!(client.get("sibling").await.unwrap().value().unwrap(), "stays");
    let left = client.get("long").await.unwrap().siblings[0].ttl.expect("a time to live");
    assert!(left <= hour && left > hour / 2, "{left:?}");
    // A key whose value is gone takes new ones.
    client.put("short", "again").await.unwrap();
    assert_eq!(client.get("short").await.unwrap().value().unwrap(), "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_an_hour_wrong_changes_nothing() {
    let cluster = Cluster::start(3, Settings::small()).await;
    let all = cluster.client();
    for offset in [HOUR, -HOUR] {
        cluster.nodes()[2].clock_offset(offset).await;
        until("the node knows that its clock is wrong", PATIENCE, || async {
            match skew_alarms(&all).await? {
                1 => Ok(()),
                other => Err(format!("{other} alarms")),
            }
        })
        .await;
        for (number, endpoint) in cluster.endpoints().into_iter().enumerate() {
            let (client, key) = (client_of([endpoint]), format!("{offset}/{number}"));
            let began = Instant::now();
            client.put(&key, "v").ttl(Duration::from_secs(4)).level(Level::All).await.unwrap();
            let written = began.elapsed();
            for endpoint in cluster.endpoints() {
                let read = client_of([endpoint]).get(&key).await.unwrap();
                if began.elapsed() < Duration::from_secs(3) {
                    let left = read.siblings[0].ttl.expect("a time to live");
                    assert!(left <= Duration::from_secs(5), "{left:?}");
                }
            }
            gone(&client, &key).await;
            assert!(began.elapsed() >= Duration::from_secs(3), "early by more than a second");
            let late = Duration::from_secs(30) + written;
            assert!(began.elapsed() < late, "late: {:?}", began.elapsed());
            removed(&cluster, &key).await;
        }
    }
    cluster.nodes()[2].clock_offset(0).await;
    until("the alarm is over", PATIENCE, || async {
        match skew_alarms(&all).await? {
            0 => Ok(()),
            other => Err(format!("{other} alarms")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_to_live_that_is_none_is_refused() {
    let cluster = Cluster::start(1, Settings::small()).await;
    let mut kv = raw::Kv::new(raw::channel(&cluster.nodes()[0].client_address()).await);
    for (seconds, nanos) in [(0, 0), (-1, 0), (0, 999_999), (i64::MAX, 0)] {
        let ttl = Some(prost_types::Duration { seconds, nanos });
        let refused = kv.put(v1::PutRequest { ttl, ..raw::put("k", "v") }).await.unwrap_err();
        let metadata = raw::assert_refused(
            "ttl",
            &refused,
            Code::InvalidArgument,
            "BAD_TTL",
            &["ttl", "1 ms"],
        );
        assert_eq!(metadata["field"], "ttl");
    }
    assert!(kv.get(raw::get("k")).await.unwrap().into_inner().siblings.is_empty());
}
