//! The whole surface under fire: every method of every port with messages that nobody meant, and bytes that are no messages.
//! The nodes live, say what is wrong, stay small and keep what they acknowledged.
//!
//! `SOAK_SECONDS` makes it longer and `SOAK_SEED` repeats its choices; `cargo xtask fuzz` sets both.

// Tests fail by panicking; clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tonic::Code;
use triad_tests::dice::{Dice, length};
use triad_tests::history::History;
use triad_tests::liar::Liar;
use triad_tests::processes::{Cluster, Settings};
use triad_tests::schema::{Method, Schema, call, messages_of};
use triad_tests::wait::until;
use triad_tests::workload::{fill, read_all};

const KEYS: usize = 100;
const AT_ONCE: usize = 16;
/// How long it goes on, unless it is told; each method is called so often in any case.
const SECONDS: u64 = 12;
const CALLS: u64 = 25;
/// What nothing of this may make a node grow by, in kB.
const GROWTH_KB: u64 = 400 << 10;
/// How long anything may take on a machine busy with other tests.
const LIMIT: Duration = Duration::from_mins(2);
/// Methods that change who belongs to the cluster, and where their requests say that nothing is to be done.
const PLANS: [(&str, u32); 4] = [
    ("/triad.v1.ClusterService/Leave", 1),
    ("/triad.v1.ClusterService/Decommission", 2),
    ("/triad.v1.ClusterService/Replace", 2),
    ("/triad.v1.ClusterService/Force", 4),
];

/// A node as it is hit: what it had grown to before.
fn peaks(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes().iter().map(|node| node.peak_memory_kb().unwrap()).collect()
}

async fn nothing_happened(cluster: &mut Cluster, history: &Arc<History>, before: &[u64]) {
    assert!(cluster.running().iter().all(|runs| *runs), "a node has ended");
    for (node, before) in cluster.nodes().iter().zip(before) {
        assert!(!node.log().contains("panicked"), "{}", node.log());
        let grown = node.peak_memory_kb().unwrap().saturating_sub(*before);
        assert!(grown < GROWTH_KB, "{} has grown by {grown} kB", node.name());
    }
    let client = cluster.client();
    until("reads and writes as before", LIMIT, || async {
        client.put("afterwards", "good").await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(read_all(&client, history, AT_ONCE).await, [""; 0]);
}

/// The request, with the word that nothing is to be done as its last.
fn harmless(method: &Method, mut request: Vec<u8>) -> Vec<u8> {
    if let Some((_, field)) = PLANS.iter().find(|(path, _)| *path == method.path) {
        request.extend([(field << 3) as u8, 1]);
    }
    request
}

/// Calls every method of an API on random nodes, and counts the codes of the answers.
async fn bombard(
    cluster: &Cluster,
    schema: &Schema,
    address: impl Fn(usize) -> String,
    dice: &mut Dice,
) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut channels = Vec::new();
    for index in 0..cluster.nodes().len() {
        channels.push(triad_tests::raw::channel(&address(index)).await);
    }
    let mut told: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let until = Instant::now() + length(SECONDS);
    let mut round = 0;
    while round < CALLS || Instant::now() < until {
        round += 1;
        for method in &schema.methods {
            let messages = messages_of(method, dice);
            let requests = (0..messages).map(|_| harmless(method, schema.request(method, dice)));
            let requests: Vec<Vec<u8>> = requests.collect();
            let channel = dice.roll(0..channels.len() as u64) as usize;
            let answer = call(&channels[channel], method, requests.clone()).await;
            let code = answer.as_ref().map_or_else(tonic::Status::code, |()| Code::Ok);
            assert!(
                !matches!(code, Code::Unknown | Code::Internal),
                "seed {}: {} of {requests:02x?}: {answer:?}",
                dice.seed(),
                method.path
            );
            *told.entry(method.path.clone()).or_default().entry(code.to_string()).or_default() += 1;
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_for_clients_survives_what_nobody_meant() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let before = peaks(&cluster);
    let mut dice = Dice::new();
    let schema = Schema::read(triad_proto::FILE_DESCRIPTOR_SET, "triad.v1");
    let address = |index: usize| cluster.nodes()[index].client_address();
    let told = bombard(&cluster, &schema, address, &mut dice).await;
    eprintln!("seed {}: {told:#?}", dice.seed());
    assert!(told.len() >= 17, "all methods of two services: {told:?}");
    let codes = |method: &str| &told[&format!("/triad.v1.KvService/{method}")];
    for method in ["Put", "Get", "Delete"] {
        assert!(codes(method).len() >= 2, "{method} does some and refuses some: {told:?}");
    }
    nothing_happened(&mut cluster, &history, &before).await;
    cluster.settled(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_for_peers_survives_what_nobody_meant() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let before = peaks(&cluster);
    let mut dice = Dice::new();
    let mut schema = Schema::read(triad_proto::peer::v1::FILE_DESCRIPTOR_SET, "triad.peer.v1");
    // What an operator may ask for is asked for elsewhere; here it would be done.
    schema.methods.retain(|method| !method.path.ends_with("/Operate"));
    let liar = Liar::of(&cluster.nodes()[0], cluster.shards()).await;
    schema.fix(".triad.peer.v1.Hello", liar.hello.encode_to_vec());
    let address = |index: usize| cluster.nodes()[index].peer_address();
    let told = bombard(&cluster, &schema, address, &mut dice).await;
    eprintln!("seed {}: {told:#?}", dice.seed());
    assert!(told.len() >= 8, "all methods: {told:?}");
    nothing_happened(&mut cluster, &history, &before).await;
}

/// Frames of HTTP/2 that say something, in whatever order, and lie about their lengths.
fn frames(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for _ in 0..dice.roll(1..40) {
        let content: Vec<u8> = (0..dice.roll(0..80)).map(|_| dice.roll(0..256) as u8).collect();
        let claimed = dice.one_of(&[content.len() as u32, 0, 6, 1 << 14, 0x00ff_ffff]);
        bytes.extend_from_slice(&claimed.to_be_bytes()[1..]);
        bytes.push(dice.roll(0..12) as u8);
        bytes.push(dice.roll(0..256) as u8);
        bytes.extend_from_slice(&dice.one_of(&[0_u32, 1, 3, u32::MAX]).to_be_bytes());
        bytes.extend_from_slice(&content);
    }
    bytes
}

/// Requests of HTTP/1 that nobody should make.
fn lines(dice: &mut Dice) -> Vec<u8> {
    let method = dice.one_of(&["GET", "POST", "PUT", "\0", "CONNECT"]);
    let path = dice.one_of(&["/metrics", "/../../etc/passwd", "/%00", "*", "/readyz?x=%ff"]);
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    for _ in 0..dice.roll(0..200) {
        text.push_str(dice.one_of(&["a: b\r\n", "content-length: -1\r\n", ":\r\n", "x"]));
    }
    text.push_str(dice.one_of(&["\r\n", "", "\r\n\r\nff\r\n"]));
    text.into_bytes()
}

/// Throws bytes at a port. Who hangs up is right to.
fn throw(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    if stream.write_all(bytes).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        let mut answer = Vec::new();
        let _ = stream.take(1 << 20).read_to_end(&mut answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_port_survives_bytes_that_are_no_requests() {
    let mut cluster = Cluster::start(3, Settings::small()).await;
    let history = Arc::new(History::new());
    fill(&cluster.client(), &history, KEYS, AT_ONCE).await;
    let before = peaks(&cluster);
    let mut dice = Dice::new();
    eprintln!("seed {}", dice.seed());
    let node = &cluster.nodes()[0];
    let ports = [node.client_address(), node.peer_address(), node.admin_address()];
    let until = Instant::now() + length(SECONDS);
    let mut thrown = 0;
    while thrown < 60 || Instant::now() < until {
        let bytes = match dice.roll(0..3) {
            0 => frames(&mut dice),
            1 => lines(&mut dice),
            _ => (0..dice.roll(0..3_000)).map(|_| dice.roll(0..256) as u8).collect(),
        };
        let address = &ports[thrown % ports.len()];
        tokio::task::block_in_place(|| throw(address, &bytes));
        thrown += 1;
    }
    nothing_happened(&mut cluster, &history, &before).await;
    cluster.settled(3).await;
}
