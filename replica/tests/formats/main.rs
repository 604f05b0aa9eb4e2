//! What Triad has stored or handed out once, it must read for ever. `rows.txt` holds bytes of every
//! format and version as they were written at their time, in hexadecimal:
//!
//! - today's code reads each of them to the value that this file builds under its name;
//! - today's code writes exactly the newest version of each;
//! - every format constant in the source is in [`FORMATS`], and every version of every one in
//!   `rows.txt`: whoever raises a version or adds a format adds a line, and changes none.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use triad_replica::configuration::{Configuration, Epoch, Phase};
use triad_replica::context::Context;
use triad_replica::dot::Dot;
use triad_replica::gc::{Garbage, GcDigest, Vouch};
use triad_replica::hint::{self, HeldRecord};
use triad_replica::member::{ActorId, Member, StartNonce, StoreId};
use triad_replica::paxos::{Acceptor, Ballot};
use triad_replica::record::{Basis, Change, Limits, Record, RecordDigest, Request};
use triad_replica::shard::EnteredRow;
use triad_replica::start::{Start, StartLog};
use triad_replica::store::Key;
use triad_replica::store::key::{MetaRow, ShardRow};
use triad_replica::token::{self, ClusterSecret};
use triad_ring::{Incarnation, NodeId, ShardId};

const ROWS: &str = include_str!("rows.txt");

/// The file and name of each format's constant, its version today, and what begins the names of its
/// lines in `rows.txt`.
const FORMATS: [(&str, &str, u8, &str); 8] = [
    ("configuration/codec.rs", "CONFIGURATION_FORMAT", 1, "configuration"),
    ("gc.rs", "VOUCH_FORMAT", 1, "vouch"),
    ("hint.rs", "HELD_FORMAT", 1, "held"),
    ("paxos.rs", "ACCEPTOR_FORMAT", 1, "acceptor"),
    ("record/codec.rs", "VERSION", 2, "record"),
    ("shard/row.rs", "ENTERED_FORMAT", 2, "entered"),
    ("start.rs", "FORMAT", 1, "start"),
    ("token.rs", "VERSION", 1, "token"),
];

/// Constants that are no format of their own, or whose bytes are held elsewhere.
const ELSEWHERE: [(&str, &str); 2] = [
    // An older version of the record's.
    ("record/codec.rs", "VERSION_1"),
    // A row's frame and chunks: `store/row.rs` holds them beside what they frame.
    ("store/row.rs", "VERSION"),
];

/// The entered row's first version was replaced before there was a release, and is refused.
const REFUSED: [(&str, u8); 1] = [("entered", 1)];

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn member(number: u8) -> Member {
    Member { node: node(number), store: StoreId::from_bytes([number + 0x80; 16]) }
}

fn shard() -> ShardId {
    ShardId::new(517)
}

const fn epoch(lineage: u32, number: u64) -> Epoch {
    Epoch { lineage, number }
}

fn configurations() -> [(&'static str, Configuration); 2] {
    let joint = Configuration {
        epoch: epoch(1, 8),
        phase: Phase::Joint {
            old: vec![member(1), member(2), member(3)],
            new: vec![member(1), member(2), member(4)],
        },
        gc_epoch: epoch(1, 5),
        retired: vec![member(5)],
        ..Configuration::bootstrap(shard(), member(1))
    };
    let collecting = Configuration {
        epoch: epoch(2, 7),
        phase: Phase::Stable { members: vec![member(1), member(2)] },
        gc_epoch: epoch(2, 6),
        collected: Some(Box::new(GcDigest([0xd1; 16]))),
        retired: Vec::new(),
        ..Configuration::bootstrap(shard(), member(1))
    };
    [("configuration.v1.joint", joint), ("configuration.v1.collecting", collecting)]
}

fn context() -> Context {
    [(1, 1), (1, 2), (1, 3), (2, 5), (0xffff_ffff_ffff_ffff, 300)]
        .map(|(actor, counter)| Dot::new(ActorId::new(actor), counter))
        .into_iter()
        .collect()
}

fn put(
    record: &mut Record,
    actor: u64,
    value: &'static [u8],
    expires_at: Option<u64>,
    seen: Context,
) {
    let change = Change::Put { value: Bytes::from_static(value), expires_at };
    let basis = Basis::Causal(seen);
    record.update(ActorId::new(actor), change, basis, &Limits::default()).expect("within limits");
}

/// Two siblings, one of which expires.
fn siblings() -> Record {
    let mut record = Record::default();
    put(&mut record, 7, b"first", None, Context::new());
    put(&mut record, 9, b"second", Some(1_700_000_000_123), Context::new());
    record
}

fn tombstone() -> Record {
    let mut record = siblings();
    let all = record.context().clone();
    let gone =
        record.update(ActorId::new(7), Change::Delete, Basis::Causal(all), &Limits::default());
    gone.expect("within limits");
    record
}

/// A record that remembers the request that wrote it, over another value.
fn requested() -> Record {
    let mut record = siblings();
    let change = Change::Put { value: Bytes::from_static(b"third"), expires_at: None };
    let request = Request::new(&[0x1d; 16], &change, 1_700_000_000_000);
    let done =
        record.update_as(request, ActorId::new(7), change, Basis::Overwrite, &Limits::default());
    done.expect("within limits");
    record
}

fn records() -> [(&'static str, Record); 4] {
    [
        ("record.v2.absent", Record::default()),
        ("record.v2.siblings", siblings()),
        ("record.v2.tombstone", tombstone()),
        ("record.v2.requested", requested()),
    ]
}

fn acceptor() -> Acceptor {
    let mut acceptor = Acceptor::new(epoch(1, 7));
    let ballot = |counter| Ballot { counter, node: node(2) };
    acceptor.accept(ballot(3), configurations()[0].1.clone()).expect("nothing was promised");
    acceptor.prepare(ballot(0x1_0000_0004)).expect("it is higher");
    acceptor
}

fn entered() -> EnteredRow {
    EnteredRow {
        configuration: configurations()[0].1.clone(),
        data_epoch: Some(epoch(1, 8)),
        tenure: Some(epoch(1, 2)),
        forgotten: 3,
        merged: true,
        declared: true,
        sweeping: false,
    }
}

fn vouch() -> Vouch {
    let garbage = Garbage {
        bucket: "default".to_owned(),
        key: Bytes::from_static(b"greeting"),
        record: RecordDigest([0xee; 16]),
    };
    Vouch { epoch: epoch(1, 7), garbage: vec![garbage] }
}

fn held() -> HeldRecord {
    HeldRecord { stamp: epoch(1, 7), since_ms: 1_700_000_000_000, record: siblings() }
}

fn start() -> Start {
    Start {
        member: member(6),
        incarnation: Incarnation::new(12),
        nonce: StartNonce([0x5a; 16]),
        commits: 4_711,
    }
}

fn secret() -> ClusterSecret {
    ClusterSecret::from_bytes([7; 32])
}

/// Keys of rows. They carry no version: their first byte tells the kind, and a kind whose layout
/// changes gets another letter.
fn keys() -> Vec<(&'static str, Key<'static>)> {
    let (shard, bucket, key) = (shard(), "default", &b"greeting"[..]);
    vec![
        ("key.store", Key::Meta(MetaRow::Store)),
        ("key.cluster", Key::Meta(MetaRow::Cluster)),
        ("key.enrolment", Key::Meta(MetaRow::Enrolment)),
        ("key.commits", Key::Meta(MetaRow::Commits)),
        ("key.contact", Key::Contact(node(1))),
        ("key.start", Key::Start(member(1))),
        ("key.entered", Key::Shard(shard, ShardRow::Entered)),
        ("key.acceptor", Key::Shard(shard, ShardRow::Acceptor)),
        ("key.vouch", Key::Shard(shard, ShardRow::Vouch)),
        ("key.record", Key::Record { shard, bucket, key }),
        ("key.courtesy", Key::Courtesy { target: member(1), shard, bucket, key }),
        ("key.held", Key::Held { shard, bucket, key }),
        ("key.floor", Key::HintFloor(shard)),
        ("key.garbage", Key::Garbage { shard, bucket, key }),
        ("key.expiry", Key::Expiry { at_ms: 1_700_000_000_123, shard, bucket, key }),
        ("key.chunk", Key::Chunk { generation: 3, number: 1 }),
    ]
}

/// Everything that is written today, by name.
fn written_today() -> BTreeMap<&'static str, Bytes> {
    let mut rows = BTreeMap::new();
    rows.extend(configurations().map(|(name, value)| (name, value.encode())));
    rows.extend(records().map(|(name, value)| (name, value.encode())));
    rows.extend(keys().into_iter().map(|(name, key)| (name, key.encode())));
    let mut log = StartLog::default();
    log.record(&start());
    rows.extend([
        ("acceptor.v1.accepted", acceptor().encode()),
        ("entered.v2.joint", entered().encode()),
        ("vouch.v1.one", vouch().encode()),
        ("held.v1.record", held().encode()),
        ("held.v1.courtesy", hint::encode_courtesy(1_700_000_000_000)),
        ("held.v1.floor", hint::encode_floor(epoch(2, 9))),
        ("start.v1.one", log.row(&member(6)).expect("it was recorded")),
        ("token.v1.context", token::seal(&secret(), "default", b"greeting", &context())),
        ("token.v1.empty", token::seal(&secret(), "default", b"greeting", &Context::new())),
    ]);
    rows
}

/// Name → bytes, as kept.
fn kept() -> BTreeMap<&'static str, Bytes> {
    let lines = ROWS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, hex) = line.split_once(' ').expect("a name and bytes");
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
            (name, (0..hex.len()).step_by(2).map(byte).collect())
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[test]
fn what_is_written_today_is_what_is_kept() {
    let kept = kept();
    let mut missing = String::new();
    for (name, row) in written_today() {
        match kept.get(name) {
            Some(kept) => assert_eq!(hex(kept), hex(&row), "{name}: raise its version instead"),
            None => writeln!(missing, "{name} {}", hex(&row)).expect("text grows"),
        }
    }
    assert!(missing.is_empty(), "add to rows.txt:\n{missing}");
}

#[test]
fn what_was_ever_written_is_read() {
    let kept = kept();
    let mut unread: Vec<_> = kept.keys().copied().collect();
    let mut take = |name: &'static str| {
        unread.retain(|other| *other != name);
        kept.get(name).unwrap_or_else(|| panic!("{name} is missing in rows.txt")).clone()
    };
    for (name, value) in configurations() {
        assert_eq!(Configuration::decode(&take(name)), Ok(value), "{name}");
    }
    for (name, value) in records() {
        assert_eq!(Record::decode(take(name)), Ok(value), "{name}");
    }
    // It has no requests, so its versions differ by their number alone.
    assert_eq!(Record::decode(take("record.v1.siblings")), Ok(siblings()));
    let old = Record::decode(take("record.v1.requested")).expect("version 1 is still read");
    assert!(old.same_content(&requested()));
    let pair = |record: &Record| record.requests().first().map(|pair| (pair.id, pair.dot, pair.at));
    assert_eq!(pair(&old), pair(&requested()));
    for (name, key) in keys() {
        assert_eq!(Key::decode(&take(name)), Some(key), "{name}");
    }
    assert_eq!(Acceptor::decode(&take("acceptor.v1.accepted")), Ok(acceptor()));
    assert_eq!(EnteredRow::decode(&take("entered.v2.joint")), Ok(entered()));
    assert_eq!(Vouch::decode(&take("vouch.v1.one")), Ok(vouch()));
    assert_eq!(HeldRecord::decode(take("held.v1.record")), Ok(held()));
    assert_eq!(hint::decode_courtesy(&take("held.v1.courtesy")), Ok(1_700_000_000_000));
    assert_eq!(hint::decode_floor(&take("held.v1.floor")), Ok(epoch(2, 9)));
    let mut log = StartLog::default();
    log.restore(member(6), &take("start.v1.one")).expect("a start");
    assert_eq!(log.newest(node(6)), Some(start()));
    for (name, context) in [("token.v1.context", context()), ("token.v1.empty", Context::new())] {
        assert_eq!(token::open(&secret(), "default", b"greeting", take(name)), Ok(context));
    }
    assert!(unread.is_empty(), "nobody reads {unread:?}");
}

#[test]
fn every_version_of_every_format_is_kept() {
    let kept = kept();
    for (_, _, today, kind) in FORMATS {
        for version in 1..=today {
            let prefix = format!("{kind}.v{version}.");
            let has_one = kept.keys().any(|name| name.starts_with(&prefix));
            let excused = REFUSED.contains(&(kind, version));
            assert!(has_one != excused, "{prefix}… in rows.txt");
        }
    }
}

#[test]
fn every_format_of_the_source_is_in_the_list() {
    let mut found = Vec::new();
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the source is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("source is text");
            let file = path.strip_prefix(&source).expect("it is below").to_string_lossy();
            for (name, version) in text.lines().filter_map(format_constant) {
                found.push((file.to_string(), name.to_owned(), version));
            }
        }
    }
    found.retain(|(file, name, _)| !ELSEWHERE.contains(&(file, name)));
    found.sort();
    let listed =
        FORMATS.map(|(file, name, version, _)| (file.to_owned(), name.to_owned(), version));
    assert_eq!(found, listed);
}

/// `const …FORMAT: u8 = 1;` and the like.
fn format_constant(line: &str) -> Option<(&str, u8)> {
    let (name, rest) = line.trim().strip_prefix("const ")?.split_once(": u8 = ")?;
    let version = rest.strip_suffix(';')?.parse().ok()?;
    (name.contains("FORMAT") || name.contains("VERSION")).then_some((name, version))
}
