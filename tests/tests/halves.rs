//! The network falls into two halves while clients write on both sides: strict writes succeed only where a majority of
//! the shard's members is, `any.` buckets take them on both sides, and after the heal nothing acknowledged is lost.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use triad_proto::v1;
use triad_proto::v1::kv_service_client::KvServiceClient;
use triad_tests::dice::length;
use triad_tests::history::History;
use triad_tests::processes::{Cluster, Settings};
use triad_tests::raw;
use triad_tests::workload::{fill, read_all};

const NODES: usize = 5;
const KEYS: usize = 60;
const AT_ONCE: usize = 16;
const ANY: &str = "any.halves";
const SIDES: [&[usize]; 2] = [&[0, 1], &[2, 3, 4]];
/// A request's deadline: without a majority it is refused earlier, or in doubt by then.
const DEADLINE: Duration = Duration::from_secs(2);
/// For the halves to become one again.
const HEALED: Duration = Duration::from_mins(2);
/// The network stays cut for this many seconds unless `SOAK_SECONDS` says otherwise.
const SECONDS: u64 = 20;

/// Key → the side that has a majority of its shard's members.
async fn majorities(cluster: &Cluster) -> BTreeMap<String, usize> {
    let client = cluster.client();
    let mut sides = BTreeMap::new();
    for number in 0..KEYS {
        let key = format!("fill/{number}");
        let found = client.cluster().locate("", &key, false).await.unwrap();
        let members = found.route.unwrap().members;
        let on_left = members
            .iter()
            .filter(|member| {
                SIDES[0].iter().any(|node| cluster.nodes()[*node].name() == member.node)
            })
            .count();
        sides.insert(key, usize::from(on_left * 2 < members.len()));
    }
    sides
}

/// Puts and gets a key at one node, and tells which of the two succeeded.
async fn ask(kv: &mut raw::Kv, history: &History, key: &str) -> (bool, bool) {
    let write = history.begin_write(key);
    let mut put = tonic::Request::new(raw::put(key, &write.value()));
    put.set_timeout(DEADLINE);
    let written = kv.put(put).await.is_ok();
    // What was sent before the deadline may still take effect.
    if written {
        write.acknowledged();
    } else {
        write.in_doubt();
    }

    let read = history.begin_read(key);
    let mut get = tonic::Request::new(raw::get(key));
    get.set_timeout(DEADLINE);
    let answer = kv.get(get).await;
    if let Ok(found) = &answer {
        read.returned(raw::texts(found.get_ref())).unwrap();
    }
    (written, answer.is_ok())
}

/// Puts into an `any.` bucket at one node; what is there from now on, if that is sure.
async fn put_anywhere(kv: &mut raw::Kv, key: &str, value: String) -> Option<String> {
    let put = v1::PutRequest { bucket: ANY.to_owned(), ..raw::put(key, &value) };
    let mut put = tonic::Request::new(put);
    put.set_timeout(DEADLINE);
    kv.put(put).await.is_ok().then_some(value)
}

/// The values of a key in the `any.` bucket.
async fn found_anywhere(kv: &mut raw::Kv, key: &str) -> Vec<String> {
    let get = v1::GetRequest { bucket: ANY.to_owned(), ..raw::get(key) };
    raw::texts(kv.get(get).await.expect("nothing is broken any more").get_ref())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_writes_succeed_only_where_a_majority_is_and_nothing_is_lost() {
    let mut cluster = Cluster::start(NODES, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let majorities = majorities(&cluster).await;
    assert!(majorities.values().any(|side| *side == 0), "some shard lives on the smaller side");

    cluster.partition(SIDES[0], SIDES[1]).await;
    let until = Instant::now() + length(SECONDS);
    // [side has the majority][written, read]
    let mut successes = [[0; 2]; 2];
    let mut asked = 0;
    let mut kvs = Vec::new();
    for side in SIDES {
        let address = cluster.nodes()[side[0]].client_address();
        kvs.push(KvServiceClient::new(raw::channel(&address).await));
    }
    // What each side has written last to each key of the `any.` bucket.
    let mut anywhere: BTreeMap<&str, [Option<String>; 2]> = BTreeMap::new();
    'cut: loop {
        for (key, majority) in &majorities {
            for (side, kv) in kvs.iter_mut().enumerate() {
                let value = format!("{side}/{asked}");
                anywhere.entry(key).or_default()[side] = put_anywhere(kv, key, value).await;
                let (written, read) = ask(kv, &history, key).await;
                let has_majority = usize::from(side == *majority);
                successes[has_majority][0] += u32::from(written);
                successes[has_majority][1] += u32::from(read);
                asked += 1;
            }
            if Instant::now() > until {
                break 'cut;
            }
        }
    }
    eprintln!("{asked} keys asked at a node; without, with a majority: {successes:?}");
    assert_eq!(successes[0], [0, 0], "no success without a majority");
    assert!(successes[1].iter().all(|count| *count > 0), "the other side goes on: {successes:?}");

    cluster.heal_all().await;
    cluster.settled_within(NODES, HEALED).await;
    assert_eq!(read_all(&cluster.client(), &history, AT_ONCE).await, [""; 0]);
    cluster.converged(HEALED).await;
    let mut both = 0;
    for (key, [left, right]) in anywhere {
        let found = found_anywhere(&mut kvs[0], key).await;
        for value in [&left, &right].into_iter().flatten() {
            assert!(found.contains(value), "{key}: {value} is not among {found:?}");
        }
        both += usize::from(left.is_some() && right.is_some());
    }
    assert!(both > 0, "both sides of the cut take writes to any. buckets");
}
