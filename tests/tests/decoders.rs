//! Whatever reads bytes or text from outside is attacked with hostile ones, and a new reader that is not is noticed.
//!
//! Readers are found by their names, as they are found by people: `decode…`, `parse…`, `from_wire`, `from_str`, `of_status`, and
//! `TryFrom` in the conversions of the protocol.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where to look.
const SOURCES: [&str; 6] = ["ring", "replica", "proto", "server", "client", "cli"];

/// Files that are compiled for tests alone, or for the test service.
const TESTS: [&str; 5] = ["tests", "hostile.rs", "round_trips", "testing", "stories.rs"];

/// Each reader by its file, and the target (see `triad_fuzz::Target`) that attacks it, by itself or with what it is a part of.
const READERS: [(&str, &str, &str); 65] = [
    ("cli/src/args.rs", "Assignment::from_str", "Assignment::from_str"),
    ("cli/src/args.rs", "ContextArg::from_str", "ContextArg::from_str"),
    ("cli/src/args.rs", "RequestIdArg::from_str", "RequestIdArg::from_str"),
    ("client/src/channel.rs", "Address::from_str", "Address::from_str"),
    ("client/src/error.rs", "Detail::of_status", "Detail::of_status"),
    (
        "proto/src/convert/configuration.rs",
        "peer::Configuration→Configuration",
        "peer::Configuration→Configuration",
    ),
    ("proto/src/convert/configuration.rs", "peer::Member→Member", "peer::Member→Member"),
    ("proto/src/convert/gc.rs", "peer::Garbage→Garbage", "peer::GcRound→VouchRequest"),
    ("proto/src/convert/gc.rs", "peer::GcRound→VouchRequest", "peer::GcRound→VouchRequest"),
    ("proto/src/convert/gc.rs", "peer::GcVouch→VouchReply", "peer::GcVouch→VouchReply"),
    ("proto/src/convert/level.rs", "v1::Level→Level", "PutRequest"),
    ("proto/src/convert/outcome.rs", "peer::Refusal→Refusal", "peer::Refusal→Refusal"),
    (
        "proto/src/convert/outcome.rs",
        "v1::ReplicaResult→ReplicaResult",
        "v1::ReplicaResult→ReplicaResult",
    ),
    ("proto/src/convert/pull.rs", "peer::ListedRow→ListedRow", "peer::PullResponse→PullReply"),
    ("proto/src/convert/pull.rs", "peer::PullRequest→PullRequest", "peer::PullRequest→PullRequest"),
    ("proto/src/convert/pull.rs", "peer::PullResponse→PullReply", "peer::PullResponse→PullReply"),
    (
        "proto/src/convert/pull.rs",
        "peer::RecordEntry→PulledRecord",
        "peer::PullRequest→PullRequest",
    ),
    ("proto/src/convert/pull.rs", "peer::ShardRoot→ShardRoot", "peer::ShardRoot→ShardRoot"),
    ("proto/src/convert/ring.rs", "peer::AskState→Message", "peer::RingMessage→Message"),
    ("proto/src/convert/ring.rs", "peer::RingMessage→Message", "peer::RingMessage→Message"),
    (
        "proto/src/convert/ring.rs",
        "peer::RingPosition→VirtualNode",
        "peer::RingPosition→VirtualNode",
    ),
    ("proto/src/convert/ring.rs", "peer::RingState→Message", "peer::RingMessage→Message"),
    ("proto/src/convert/ring.rs", "peer::StepOwner→Message", "peer::RingMessage→Message"),
    ("proto/src/convert/shard.rs", "peer::Ballot→Ballot", "peer::Ballot→Ballot"),
    ("proto/src/convert/shard.rs", "peer::Base→Base", "peer::Base→Base"),
    ("proto/src/convert/shard.rs", "peer::Removal→Removal", "peer::Removal→Removal"),
    ("proto/src/convert/shard.rs", "peer::ShardReply→ShardReply", "peer::ShardReply→ShardReply"),
    (
        "proto/src/convert/shard.rs",
        "peer::ShardRequest→ShardRequest",
        "peer::ShardRequest→ShardRequest",
    ),
    ("replica/src/configuration.rs", "Configuration::decode", "Configuration::decode"),
    ("replica/src/configuration.rs", "Epoch::from_str", "Epoch::from_str"),
    ("replica/src/context.rs", "Context::decode", "Context::decode"),
    ("replica/src/context.rs", "Context::decode_bounded", "Context::decode"),
    ("replica/src/context.rs", "Context::decode_from", "Context::decode"),
    ("replica/src/dot.rs", "Dot::from_str", "Dot::from_str"),
    ("replica/src/dot.rs", "parse", "Dot::from_str"),
    ("replica/src/gc.rs", "Vouch::decode", "Vouch::decode"),
    ("replica/src/hint.rs", "HeldRecord::decode", "HeldRecord::decode"),
    ("replica/src/hint.rs", "decode_courtesy", "decode_courtesy"),
    ("replica/src/hint.rs", "decode_floor", "decode_floor"),
    ("replica/src/member.rs", "StoreId::from_str", "StoreId::from_str"),
    ("replica/src/paxos.rs", "Acceptor::decode", "Acceptor::decode"),
    ("replica/src/record/codec.rs", "Record::decode", "Record::decode"),
    ("replica/src/shard/row.rs", "EnteredRow::decode", "EnteredRow::decode"),
    ("replica/src/store/key.rs", "Key::decode", "Key::decode"),
    ("replica/src/store/key.rs", "Key::decode_hint", "Key::decode"),
    ("replica/src/store/row.rs", "Head::decode", "row::decode"),
    ("replica/src/store/row.rs", "decode", "row::decode"),
    ("replica/src/store/row.rs", "decode_chunk", "row::decode_chunk"),
    ("ring/src/id.rs", "RingId::from_str", "RingId::from_str"),
    ("ring/src/id.rs", "from_str", "NodeId::from_str"),
    ("ring/src/id.rs", "parse_hex", "NodeId::from_str"),
    ("server/src/config/sections.rs", "String→Engine", "Loader::file"),
    ("server/src/config/sections.rs", "String→LogFormat", "Loader::file"),
    ("server/src/coordinator/forward.rs", "from_wire", "forward::from_wire"),
    ("server/src/data_dir/floor.rs", "Floor::parse", "Floor::parse"),
    ("server/src/data_dir/loss.rs", "LossReason::parse", "StoreLoss::load"),
    ("server/src/data_dir/store.rs", "Owner::decode", "Owner::decode"),
    ("server/src/deadline.rs", "parse_timeout", "parse_timeout"),
    ("server/src/local/mod.rs", "decode_record", "Record::decode"),
    ("server/src/peers/contact.rs", "wire::Contact→Contact", "wire::Contact→Contact"),
    ("server/src/peers/contact.rs", "wire::Hello→Sender", "wire::Hello→Sender"),
    ("server/src/rows.rs", "decode", "rows::load_cluster"),
    ("server/src/sled_store/mark.rs", "parse", "mark::parse"),
    ("server/src/starts.rs", "Distrust::of_status", "Distrust::of_status"),
    ("server/src/telemetry.rs", "parse_filter", "parse_filter"),
];

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reader {
    at: String,
    name: String,
}

fn reader(at: &str, name: &str) -> Reader {
    Reader { at: at.to_owned(), name: name.to_owned() }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the workspace") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// The type that an `impl` line speaks of: `T`, or `A→B` for `TryFrom<A> for B`.
fn subject(line: &str) -> Option<String> {
    let rest = line.strip_prefix("impl")?;
    let rest = rest.split_once("> ").map_or(rest, |(generics, rest)| {
        if generics.starts_with('<') { rest } else { line.strip_prefix("impl").unwrap_or(rest) }
    });
    let rest = rest.trim().trim_end_matches('{').trim();
    let plain = |text: &str| text.split('<').next().unwrap_or(text).trim().to_owned();
    if let Some((from, to)) =
        rest.strip_prefix("TryFrom<").and_then(|rest| rest.split_once("> for "))
    {
        return Some(format!("{}→{}", from.trim_start_matches('&'), plain(to)));
    }
    Some(plain(rest.split_once(" for ").map_or(rest, |(_, to)| to)))
}

fn is_reader(function: &str) -> bool {
    ["decode", "parse"].iter().any(|start| function.starts_with(start))
        || ["from_str", "from_wire", "of_status", "try_from"].contains(&function)
}

/// The readers of a file, those of its tests left out.
fn readers(path: &str, text: &str) -> Vec<Reader> {
    let mut found = Vec::new();
    let mut of = String::new();
    for line in text.lines() {
        if line.starts_with("mod tests {") {
            break;
        }
        if line.starts_with("impl") {
            of = subject(line).unwrap_or_default();
        } else if line == "}" {
            of.clear();
        }
        let Some((_, rest)) = line.split_once("fn ") else { continue };
        if line.trim_start().starts_with("//") {
            continue;
        }
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        if is_reader(name) {
            let name = match (of.as_str(), name) {
                ("", name) => name.to_owned(),
                (of, "try_from") => of.to_owned(),
                (of, name) => format!("{of}::{name}"),
            };
            found.push(reader(path, &name));
        }
    }
    found
}

fn all_readers() -> Vec<Reader> {
    let root = root();
    let mut all = Vec::new();
    for source in SOURCES {
        let mut files = Vec::new();
        rust_files(&root.join(source).join("src"), &mut files);
        for file in files {
            let path = file.strip_prefix(&root).expect("below the root").display().to_string();
            let parts = path.split('/').skip(2);
            if !parts.into_iter().any(|part| TESTS.contains(&part) || part == "tests.rs") {
                all.extend(readers(&path, &fs::read_to_string(&file).expect("a source file")));
            }
        }
    }
    all
}

/// Every text in quotes of every source file: targets are named by such.
fn quoted() -> BTreeSet<String> {
    let mut files = Vec::new();
    SOURCES.iter().for_each(|source| rust_files(&root().join(source).join("src"), &mut files));
    let texts = files.iter().map(|file| fs::read_to_string(file).expect("a source file"));
    texts.flat_map(|text| text.split('"').map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_reader_is_attacked_and_none_is_forgotten() {
    let known: BTreeSet<Reader> =
        READERS.into_iter().map(|(at, name, _)| reader(at, name)).collect();
    let found: BTreeSet<Reader> = all_readers().into_iter().collect();
    let forgotten: Vec<_> = found.difference(&known).collect();
    assert!(forgotten.is_empty(), "readers without a target, see READERS: {forgotten:#?}");
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "these readers are gone: {gone:#?}");
    let quoted = quoted();
    let missing: Vec<_> =
        READERS.iter().filter(|(_, _, target)| !quoted.contains(*target)).collect();
    assert!(missing.is_empty(), "no test names these targets: {missing:?}");
}

#[test]
fn a_reader_is_found_by_its_name() {
    let text = "impl Thing {\n    pub fn decode(row: &[u8]) -> Self {}\n}\n\
        impl TryFrom<wire::A> for B {\n    fn try_from(a: wire::A) {}\n}\nfn parse_it(text: &str) {}\n\
        #[cfg(test)]\nmod tests {\nfn decode_in_a_test() {}\n}\n";
    let names: Vec<String> = readers("x.rs", text).into_iter().map(|reader| reader.name).collect();
    assert_eq!(names, ["Thing::decode", "wire::A→B", "parse_it"]);
}
