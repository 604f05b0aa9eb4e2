//! Hints: who was away gets what it missed, without anybody reading; and who is no member stands in for one.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::time::Duration;

use triad_client::{Client, Level, ReplicaResult};
use triad_tests::processes::{Cluster, Settings, client_of, run};
use triad_tests::wait::until;

/// How long a death may take to be noticed, and what was missed to be delivered, on a busy machine.
const SOON: Duration = Duration::from_mins(1);

/// How long the shards of a dead node may take to be whole again.
const LONG: Duration = Duration::from_mins(2);

/// All members store the same record of a key, which is looked at where it lies and not read.
async fn same_everywhere(client: &Client, bucket: &str, key: &str) -> Result<(), String> {
    let look = client.cluster().deadline(Duration::from_secs(5));
    let located = look.locate(bucket, key, true).await.map_err(|error| error.to_string())?;
    let told = located.replicas.iter().all(|replica| replica.result() == ReplicaResult::Ok);
    // The digest of what is deleted and collected is empty.
    let same = located.replicas.windows(2).all(|pair| pair[0].digest == pair[1].digest) && told;
    if same { Ok(()) } else { Err(format!("{key}: {:?}", located.replicas)) }
}

async fn pending(client: &Client) -> Result<u64, String> {
    let look = client.cluster().deadline(Duration::from_secs(5));
    let status = look.status().await.map_err(|error| error.to_string())?;
    status.hints.map(|hints| hints.pending).ok_or_else(|| "no hints told".to_owned())
}

async fn no_hints_left(client: &Client) {
    until("no hint is left", SOON, || async {
        match pending(client).await? {
            0 => Ok(()),
            left => Err(format!("{left} hints")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_gets_puts_and_deletes_by_hints_and_their_holders_may_restart() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let client = cluster.client();
    for number in 0..40 {
        client.put(format!("old/{number}"), "old").await.unwrap();
    }
    cluster.node(1).kill();
    let write = |number: usize| {
        let client = client.clone();
        async move {
            let level = if number.is_multiple_of(2) { Level::Quorum } else { Level::One };
            client.put(format!("new/{number}"), "new").level(level).await?;
            client.delete(format!("old/{number}")).level(level).await.map(drop)
        }
    };
    for number in 0..40 {
        until("writes go on without the dead node", SOON, || write(number)).await;
    }
    until("the missing member is noted for each key", SOON, || async {
        let pending = pending(&client).await?;
        if pending >= 80 { Ok(()) } else { Err(format!("{pending} hints")) }
    })
    .await;

    cluster.node(0).kill();
    cluster.node(2).kill();
    cluster.start_all();
    cluster.settled(3).await;
    for number in 0..40 {
        for key in [format!("new/{number}"), format!("old/{number}")] {
            until("every member has it", SOON, || same_everywhere(&client, "default", &key)).await;
        }
    }
    no_hints_left(&client).await;
    let read = client.get("new/1").level(Level::One).await.unwrap();
    assert_eq!(read.value().unwrap(), "new");
    assert!(!client.get("old/1").await.unwrap().is_found(), "a delete was missed and delivered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_noted_for_a_member_that_never_returns_goes_when_its_places_are_taken() {
    let settings = Settings::small().with("TRIAD_CLUSTER_DOWN_AFTER", "10s");
    let mut cluster = Cluster::start(4, settings).await;
    let client = cluster.client();
    cluster.node(3).kill();
    for number in 0..40 {
        let key = format!("missed/{number}");
        until("writes go on without the dead node", SOON, || async { client.put(&key, "v").await })
            .await;
    }
    until("something is noted for it", SOON, || async {
        match pending(&client).await? {
            0 => Err("no hints".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    until("its places are taken", LONG, || async {
        let status = client.cluster().status().await.map_err(|error| error.to_string())?;
        let shards = status.shards.unwrap_or_default();
        let missing = shards.under_replicated + shards.joint + shards.unavailable + shards.draining;
        if missing == 0 { Ok(()) } else { Err(format!("{shards:?}")) }
    })
    .await;
    no_hints_left(&client).await;
}

/// Five nodes, of which three are members of each shard.
async fn five(settings: Settings) -> Cluster {
    Cluster::start(5, settings).await
}

/// The numbers of the members of a key's shard, and of the others.
async fn sides(cluster: &Cluster, bucket: &str, key: &str) -> (Vec<usize>, Vec<usize>) {
    let located = cluster.client().cluster().locate(bucket, key, false).await.unwrap();
    let members: Vec<String> =
        located.route.unwrap().members.into_iter().map(|member| member.node).collect();
    (0..cluster.nodes().len())
        .partition(|index| members.contains(&cluster.nodes()[*index].name().to_owned()))
}

fn client_at(cluster: &Cluster, index: usize) -> Client {
    client_of([cluster.nodes()[index].client_address()])
}

async fn values(client: &Client, key: &str) -> Result<Vec<String>, String> {
    let read = client.get(key).bucket(BUCKET).await.map_err(|error| error.to_string())?;
    let mut values: Vec<String> =
        read.values().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    values.sort_unstable();
    Ok(values)
}

const BUCKET: &str = "any.events";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_buckets_take_writes_without_members_and_bring_them_home_through_a_restart() {
    let mut cluster = five(Settings::small()).await;
    let client = cluster.client();
    client.put("k", "before").bucket(BUCKET).await.unwrap();
    let healthy = client.get("k").bucket(BUCKET).await.unwrap();
    assert!(!healthy.outcome.strict && !healthy.outcome.degraded, "{:?}", healthy.outcome);
    let (members, others) = sides(&cluster, BUCKET, "k").await;

    cluster.node(members[0]).kill();
    cluster.node(members[1]).kill();
    let written = until("a write with one member of three", SOON, || async {
        client.put("k", "one member").bucket(BUCKET).await
    })
    .await;
    let outcome = &written.outcome;
    assert!(outcome.degraded && !outcome.strict, "{outcome:?}");
    assert_eq!(outcome.home_acknowledged, 1);
    assert!(outcome.acknowledged >= 2, "{outcome:?}");
    assert!(outcome.replicas.iter().any(|one| one.result == ReplicaResult::Hinted), "{outcome:?}");

    cluster.node(members[2]).kill();
    let survivors = client_of(others.iter().map(|index| cluster.nodes()[*index].client_address()));
    let written = until("a write without any member", SOON, || async {
        survivors.put("k", "no member").bucket(BUCKET).await
    })
    .await;
    assert_eq!(written.outcome.home_acknowledged, 0);
    for index in &others {
        let client = client_at(&cluster, *index);
        let read = until("each of the others reads it", SOON, || async {
            let read = client.get("k").bucket(BUCKET).await.map_err(|error| error.to_string())?;
            if read.outcome.degraded { Ok(read) } else { Err(format!("{:?}", read.outcome)) }
        })
        .await;
        assert!(read.values().any(|value| value == "no member"), "{read:?}");
    }

    for index in others {
        cluster.node(index).kill();
        cluster.node(index).start();
    }
    cluster.start_all();
    cluster.settled(5).await;
    no_hints_left(&client).await;
    until("all members have it", SOON, || same_everywhere(&client, BUCKET, "k")).await;
    let read = client.get("k").bucket(BUCKET).await.unwrap();
    assert!(!read.outcome.degraded, "{:?}", read.outcome);
    assert!(read.values().any(|value| value == "no member"), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_a_cut_take_writes_to_any_buckets_and_keep_them_as_siblings() {
    let mut cluster = five(Settings::small()).await;
    let client = cluster.client();
    let (members, others) = sides(&cluster, BUCKET, "k").await;
    // One side has no member of this key's shard.
    cluster.partition(&members, &others).await;
    for (side, value) in [(&members, "home"), (&others, "away")] {
        let endpoints: Vec<String> =
            side.iter().map(|index| cluster.nodes()[*index].client_address()).collect();
        // A client that has learned who the members are would cross the cut: each is new.
        let client = || client_of(endpoints.clone());
        until("each side takes a write", SOON, || async {
            client().put("k", value).bucket(BUCKET).deadline(Duration::from_secs(3)).await
        })
        .await;
        until("and reads it", SOON, || async {
            let values = values(&client(), "k").await?;
            if values.contains(&value.to_owned()) { Ok(()) } else { Err(format!("{values:?}")) }
        })
        .await;
    }
    cluster.heal_all().await;
    cluster.settled(5).await;
    no_hints_left(&client).await;
    until("all members have both", SOON, || same_everywhere(&client, BUCKET, "k")).await;
    let read = client.get("k").bucket(BUCKET).await.unwrap();
    assert!(read.has_siblings(), "{read:?}");
    for value in ["home", "away"] {
        assert!(read.values().any(|one| one == value), "{read:?}");
    }
    client.put("k", "merged").bucket(BUCKET).context(&read.context).await.unwrap();
    assert_eq!(values(&client, "k").await.unwrap(), ["merged"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_room_for_hints_refuses_to_stand_in_and_says_so() {
    let mut cluster = five(Settings::small().with("TRIAD_STORAGE_HINT_BYTES", "2KiB")).await;
    let (members, _) = sides(&cluster, BUCKET, "k").await;
    cluster.node(members[0]).kill();
    cluster.node(members[1]).kill();
    let client = cluster.client();
    let large = "x".repeat(4096);
    let error = until("a write that is too large to be held", SOON, || async {
        match client.put("k", large.clone()).bucket(BUCKET).await {
            Err(error) if error.code() == tonic::Code::ResourceExhausted => Ok(error),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(error.reason(), "NO_SPACE", "{error:?}");
    assert!(error.to_string().contains("storage.hint_bytes"), "{error}");
    let status = client.cluster().status().await.unwrap();
    assert!(status.alarms.iter().any(|alarm| alarm.name == "HINTS_FULL"), "{:?}", status.alarms);
    until("a small one is held", SOON, || async { client.put("k", "small").bucket(BUCKET).await })
        .await;
    assert_eq!(values(&client, "k").await.unwrap().last().map(String::as_str), Some("small"));

    // Small ones, until there is no room for these either; once they are brought home there is.
    let mut refused = false;
    for number in 0..400 {
        let written = client.put(format!("k/{number}"), "x".repeat(300)).bucket(BUCKET).await;
        refused |= written.is_err_and(|error| error.code() == tonic::Code::ResourceExhausted);
        if refused {
            break;
        }
    }
    assert!(refused, "nobody was full");
    cluster.start_all();
    cluster.settled(5).await;
    no_hints_left(&client).await;
    until("no node says that it is full", SOON, || async {
        let status = client.cluster().status().await.map_err(|error| error.to_string())?;
        let full = status.alarms.iter().any(|alarm| alarm.name == "HINTS_FULL");
        if full { Err(format!("{:?}", status.alarms)) } else { Ok(()) }
    })
    .await;
}

/// A key that this node alone of all is no member for.
async fn not_of(cluster: &Cluster, index: usize) -> String {
    for number in 0..1_000 {
        let key = format!("held/{number}");
        if sides(cluster, BUCKET, &key).await.1 == [index] {
            return key;
        }
    }
    panic!("node{} is a member of everything", index + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_brings_home_first_what_it_holds_for_others() {
    let mut cluster = Cluster::start(4, Settings::small()).await;
    let client = cluster.client();
    let holder = 1;
    let key = not_of(&cluster, holder).await;
    cluster.node(2).kill();
    cluster.node(3).kill();
    until("the one that is no member holds a write", SOON, || async {
        client.put(&key, "v").bucket(BUCKET).await.map_err(|error| error.to_string())?;
        let status = client.cluster().status().await.map_err(|error| error.to_string())?;
        match status.hints.map(|hints| hints.acknowledging) {
            Some(1..) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let leave = cluster.nodes()[holder].client_address();
    let leave = run(["node", "leave", "-o", "json"], &[("TRIAD_ENDPOINTS", &leave)]).json();
    let id = leave["operation"]["id"].as_str().unwrap().to_owned();
    cluster.node(2).start();
    cluster.node(3).start();
    until("it has left", LONG, || async {
        let known = cluster.triad(["op", "ls", "-o", "json"]).json();
        let all = known["operations"].as_array().cloned().unwrap_or_default();
        let state = all.iter().find(|one| one["id"] == *id).map(|one| one["state"].clone());
        if state.as_ref().is_some_and(|state| state == "done") { Ok(()) } else { Err(known) }
    })
    .await;
    cluster.node(holder).kill();
    until("all members have it", LONG, || same_everywhere(&client, BUCKET, &key)).await;
    let read = client.get(&key).bucket(BUCKET).await.unwrap();
    assert!(read.values().any(|value| value == "v"), "{read:?}");
    let hints = client.cluster().status().await.unwrap().hints.unwrap_or_default();
    assert_eq!(hints.lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_level_and_deletes_work_in_any_buckets_without_members() {
    let mut cluster = five(Settings::small()).await;
    let client = cluster.client();
    let levels = [("one", Level::One), ("quorum", Level::Quorum), ("all", Level::All)];
    for (key, level) in levels {
        for key in [key.to_owned(), format!("{key}, deleted")] {
            client.put(&key, "before").bucket(BUCKET).level(level).await.unwrap();
        }
    }
    cluster.node(3).kill();
    cluster.node(4).kill();
    for (key, level) in levels {
        until("a put at each level", SOON, || async {
            client.put(key, "after").bucket(BUCKET).level(level).await
        })
        .await;
        let needed = match level {
            Level::One => 1,
            Level::Quorum => 2,
            Level::All => 3,
        };
        let deleted = until("a delete at each level", SOON, || async {
            client.delete(format!("{key}, deleted")).bucket(BUCKET).level(level).await
        })
        .await;
        let outcome = deleted.outcome;
        assert!(outcome.acknowledged >= needed, "at {level:?}: {outcome:?}");
    }
    cluster.start_all();
    cluster.settled(5).await;
    no_hints_left(&client).await;
    for (key, _) in levels {
        let deleted = format!("{key}, deleted");
        for key in [key, &deleted] {
            until("all members have it", SOON, || same_everywhere(&client, BUCKET, key)).await;
        }
        assert_eq!(values(&client, key).await.unwrap(), ["after"]);
        assert_eq!(values(&client, &deleted).await.unwrap(), [""; 0], "deleted on every member");
    }
}
