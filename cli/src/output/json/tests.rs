//! The objects as scripts see them, made from answers as nodes give them.

use super::*;
use triad_client::{Deleted, Versioned, Written};

use crate::exit::Exit;

fn shown<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

fn outcome() -> v1::Outcome {
    let answer = |node: &str, result: v1::ReplicaResult, micros: Option<i32>| v1::ReplicaAnswer {
        node_id: "00".repeat(16),
        node: node.into(),
        result: result.into(),
        elapsed: micros.map(|micros| prost_types::Duration { seconds: 0, nanos: micros * 1000 }),
    };
    v1::Outcome {
        level: v1::Level::Quorum.into(),
        needed: 2,
        acknowledged: 2,
        replicas: vec![
            answer("node1", v1::ReplicaResult::Ok, Some(400)),
            answer("node2", v1::ReplicaResult::Ok, Some(1250)),
            answer("node3", v1::ReplicaResult::NoSpace, None),
        ],
        strict: true,
        diverged: true,
        coordinator: "node1".into(),
        shard: 512,
        epoch: Some(v1::Epoch { lineage: 1, number: 7 }),
        elapsed: Some(prost_types::Duration { seconds: 1, nanos: 500_000 }),
        ..Default::default()
    }
}

const OUTCOME: &str = concat!(
    r#""level":"quorum","needed":2,"acknowledged":2,"strict":true,"degraded":false,"#,
    r#""replicas":[{"node":"node1","result":"ok","elapsed_ms":0.4},{"node":"node2","result":"ok","elapsed_ms":1.25},"#,
    r#"{"node":"node3","result":"no_space","elapsed_ms":null}],"#,
    r#""coordinator":"node1","shard":512,"epoch":"1.7","elapsed_ms":1000.5"#
);

const SUBJECT: Subject<'static> = Subject { bucket: "default", key: b"greeting" };

#[test]
fn put_and_del_tell_who_acknowledged() {
    let written = Written::from(v1::PutResponse {
        context: vec![1, 2, 255].into(),
        dot: "00000000000000aa.1".into(),
        outcome: Some(outcome()),
        ..Default::default()
    });
    let expected = format!(
        r#"{{"bucket":"default","key":"greeting","context":"AQL/","dot":"00000000000000aa.1",{OUTCOME}}}"#
    );
    assert_eq!(shown(&put(SUBJECT, &written)), expected);

    let deleted = Deleted::from(v1::DeleteResponse {
        context: vec![7].into(),
        outcome: Some(outcome()),
        ..Default::default()
    });
    let expected = format!(r#"{{"bucket":"default","key":"greeting","context":"Bw==",{OUTCOME}}}"#);
    assert_eq!(shown(&del(SUBJECT, &deleted)), expected);
}

#[test]
fn get_tells_each_sibling_and_bytes_that_are_no_text_in_base64() {
    let sibling = |value: &[u8], dot: &str| v1::Sibling {
        value_form: Some(v1::sibling::ValueForm::Value(value.to_vec().into())),
        dot: dot.into(),
        ttl_remaining: None,
    };
    let mut mortal = sibling(b"hello", "00000000000000aa.1");
    mortal.ttl_remaining = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    let read = Versioned::from(v1::GetResponse {
        siblings: vec![mortal, sibling(&[255, 0], "00000000000000bb.1")],
        outcome: Some(outcome()),
        ..Default::default()
    });
    let binary = Subject { bucket: "users", key: &[255] };
    let expected = format!(
        r#"{{"bucket":"users","key_base64":"/w==","context":"",{OUTCOME},"found":true,"siblings":[{}],"diverged":true}}"#,
        concat!(
            r#"{"value":"hello","dot":"00000000000000aa.1","ttl_ms":2000},"#,
            r#"{"value_base64":"/wA=","dot":"00000000000000bb.1","ttl_ms":null}"#
        )
    );
    assert_eq!(shown(&get(binary, &read)), expected);
}

#[test]
fn an_absent_key_has_no_siblings() {
    let read = Versioned::from(v1::GetResponse::default());
    let text = shown(&get(SUBJECT, &read));
    assert!(text.ends_with(r#""found":false,"siblings":[],"diverged":false}"#), "{text}");
}

#[test]
fn an_error_is_one_line_with_code_reason_message_and_metadata() {
    let mut refused =
        Failure::new(Exit::Unavailable, tonic::Code::Unavailable, "asked node1, node2:\n1 of 2");
    refused.reason = "QUORUM_NOT_MET".into();
    refused.metadata =
        BTreeMap::from([("needed".into(), "2".into()), ("acknowledged".into(), "1".into())]);
    let text = shown(&failure(&refused));
    let expected = concat!(
        r#"{"error":{"code":"UNAVAILABLE","reason":"QUORUM_NOT_MET","message":"asked node1, node2:\n1 of 2","#,
        r#""metadata":{"acknowledged":"1","needed":"2"}}}"#
    );
    assert_eq!(text, expected);
    assert!(!text.contains('\n'));
}

#[test]
fn where_tells_shard_configuration_replicas_and_path() {
    let member = |node: &str| v1::Member { node: node.into(), ..Default::default() };
    let located = v1::LocateResponse {
        ring_id: "8f".repeat(16),
        route: Some(v1::Route {
            shard: 573,
            epoch: Some(v1::Epoch { lineage: 1, number: 4 }),
            phase: v1::Phase::Joint.into(),
            members: vec![member("node1"), member("node2")],
            next_members: vec![member("node1"), member("node3")],
            ..Default::default()
        }),
        ideal_members: vec!["node1".into(), "node3".into()],
        path: vec!["node2".into()],
        hops: 1,
        replicas: vec![v1::ReplicaState {
            node: "node1".into(),
            result: v1::ReplicaResult::Ok.into(),
            dots: vec!["00000000000000aa.1".into()],
            digest: "ab".repeat(16),
        }],
        range_start: "00".repeat(16),
        range_end: "ff".repeat(16),
    };
    let expected = format!(
        concat!(
            r#"{{"bucket":"default","key":"greeting","ring_id":"{id}","shard":573,"#,
            r#""range":{{"start":"{start}","end":"{end}"}},"#,
            r#""configuration":{{"epoch":"1.4","phase":"joint","members":["node1","node2"],"next_members":["node1","node3"],"#,
            r#""retired":[]}},"ideal":["node1","node3"],"#,
            r#""replicas":[{{"node":"node1","result":"ok","dots":["00000000000000aa.1"],"digest":"{digest}"}}],"#,
            r#""path":["node2"],"hops":1}}"#
        ),
        id = "8f".repeat(16),
        start = "00".repeat(16),
        end = "ff".repeat(16),
        digest = "ab".repeat(16)
    );
    assert_eq!(shown(&location(SUBJECT, &located)), expected);
}

#[test]
fn status_sums_up_the_cluster() {
    let wire = v1::StatusResponse {
        cluster_id: "c1".into(),
        cluster_name: "triad".into(),
        healthy: true,
        complete: true,
        failures_tolerated: 1,
        nodes: Some(v1::NodeCounts { total: 3, alive: 3, ..Default::default() }),
        shards: Some(v1::ShardCounts { total: 1024, joint: 2, ..Default::default() }),
        alarms: vec![v1::Alarm {
            name: "NOSPACE".into(),
            node: "node1".into(),
            ..Default::default()
        }],
        version: "0.1.0".into(),
        parameters: Some(v1::ClusterParameters {
            replication_factor: 3,
            shards: 1024,
            virtual_nodes: 64,
        }),
        ..Default::default()
    };
    let expected = concat!(
        r#"{"cluster":{"id":"c1","name":"triad","replication_factor":3,"shards":1024,"virtual_nodes":64},"#,
        r#""healthy":true,"complete":true,"failures_tolerated":1,"#,
        r#""nodes":{"total":3,"alive":3,"suspect":0,"down":0},"#,
        r#""shards":{"total":1024,"joint":2,"under_replicated":0,"unavailable":0,"learning":0,"draining":0},"#,
        r#""hints":{"pending":0,"bytes":0,"acknowledging":0,"lost":0},"trees_different":0,"operations":{"running":0},"#,
        r#""alarms":[{"name":"NOSPACE","node":"node1","detail":"","cure":""}],"unreachable":[],"version":"0.1.0"}"#
    );
    assert_eq!(shown(&status(&wire)), expected);
}

#[test]
fn nodes_and_ring_are_told_in_snake_case_with_plain_numbers() {
    let wire = [v1::NodeInfo {
        node_id: "aa".into(),
        node: "node1".into(),
        incarnation: 2,
        liveness: v1::Liveness::Alive.into(),
        state: v1::NodeState::Active.into(),
        shards: 683,
        ideal_shards: 683,
        keys: u64::MAX,
        round_trip: Some(prost_types::Duration { seconds: 0, nanos: 1_500_000 }),
        ..Default::default()
    }];
    let expected = concat!(
        r#"{"nodes":[{"node_id":"aa","node":"node1","store_id":"","incarnation":2,"liveness":"alive","state":"active","#,
        r#""client_address":"","peer_address":"","admin_address":"","zone":"","version":"","virtual_nodes":0,"shards":683,"#,
        r#""ideal_shards":683,"keys":18446744073709551615,"live_bytes":0,"disk_bytes":0,"silent_ms":null,"round_trip_ms":1.5}]}"#
    );
    assert_eq!(shown(&nodes(&wire)), expected);

    let neighbor =
        |id: &str| v1::Neighbor { ring_id: id.into(), node: "node2".into(), ..Default::default() };
    let position = v1::VirtualNode {
        ring_id: "01".into(),
        node: "node1".into(),
        index: 3,
        predecessor: None,
        successors: vec![neighbor("02"), neighbor("03")],
        fingers: vec![v1::Finger {
            start: "05".into(),
            ring_id: "06".into(),
            node: "node3".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let wire = v1::DescribeRingResponse { cluster_id: "c1".into(), virtual_nodes: vec![position] };
    let expected = concat!(
        r#"{"cluster_id":"c1","virtual_nodes":[{"ring_id":"01","node":"node1","index":3,"predecessor":null,"#,
        r#""successors":["02","03"],"fingers":[{"start":"05","ring_id":"06","node":"node3"}]}]}"#
    );
    assert_eq!(shown(&ring(&wire)), expected);
}

#[test]
fn health_and_settings_have_their_fixed_keys() {
    let readiness = v1::GetReadinessResponse {
        live: true,
        ready: false,
        reasons: vec!["waiting for seeds".into()],
    };
    assert_eq!(
        shown(&health(&readiness)),
        r#"{"live":true,"ready":false,"reasons":["waiting for seeds"]}"#
    );
    let loaded =
        triad_server::config::Loader::new().env([("TRIAD_LIMITS_STREAMS", "64")]).load().unwrap();
    let one: Vec<_> =
        loaded.settings.into_iter().filter(|setting| setting.key == "limits.streams").collect();
    assert_eq!(
        shown(&settings(&one)),
        r#"{"values":[{"key":"limits.streams","value":64,"origin":"env","env":"TRIAD_LIMITS_STREAMS"}]}"#
    );
}
