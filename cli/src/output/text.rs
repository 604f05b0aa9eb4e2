//! What people read. Nothing here is fixed; programs use `-o json`. There are no colours, so `NO_COLOR` holds anyway.

use std::fmt::Write as _;
use std::time::Duration;

use triad_client::{Deleted, Outcome, Versioned, Written};
use triad_proto::v1;
use triad_server::config::Setting;

use super::json::{self, Subject};
use crate::exit::Failure;

pub(crate) fn failure(failure: &Failure) -> String {
    let reason =
        if failure.reason.is_empty() { String::new() } else { format!(" ({})", failure.reason) };
    let hint = failure.hint().map_or_else(String::new, |hint| format!("\ntry: {hint}"));
    format!("error: {}{reason}{hint}", failure.message)
}

pub(crate) fn put(written: &Written) -> String {
    format!(
        "OK  {}  dot {}\ncontext {}\n",
        outcome(&written.outcome),
        written.dot,
        json::context(&written.context)
    )
}

pub(crate) fn del(deleted: &Deleted) -> String {
    format!("OK  {}\ncontext {}\n", outcome(&deleted.outcome), json::context(&deleted.context))
}

/// `quorum 2/2 in 1.2 ms: node1 ok 0.4 ms, node2 ok 1.1 ms, node3 pending`.
pub(crate) fn outcome(outcome: &Outcome) -> String {
    let replicas: Vec<String> = outcome.replicas.iter().map(replica).collect();
    let flags = match (outcome.strict, outcome.degraded) {
        (_, true) => format!(", degraded: {} of them members", outcome.home_acknowledged),
        (false, false) => ", not strict".to_owned(),
        (true, false) => String::new(),
    };
    format!(
        "{} acknowledged, {} needed ({}{flags}), {} by {}: {}",
        outcome.acknowledged,
        outcome.needed,
        json::level(outcome.level),
        span(outcome.elapsed),
        or_dash(&outcome.coordinator),
        replicas.join(", ")
    )
}

fn replica(answer: &triad_client::ReplicaAnswer) -> String {
    let result = json::replica_result(answer.result);
    match answer.elapsed {
        Some(elapsed) => format!("{} {result} {}", answer.node, span(elapsed)),
        None => format!("{} {result}", answer.node),
    }
}

/// What `get --explain` says.
pub(crate) fn explain(read: &Versioned) -> String {
    let differed = if read.outcome.diverged { "; the replicas differed" } else { "" };
    let dots: Vec<&str> = read.siblings.iter().map(|one| one.dot.as_str()).collect();
    format!(
        "{}{differed}\nversions {}\ncontext {}",
        outcome(&read.outcome),
        or_dash(&dots.join(" ")),
        json::context(&read.context)
    )
}

/// What is said beside the values of a key that has several.
pub(crate) fn siblings(count: usize, context: &str) -> String {
    format!(
        "{count} siblings: concurrent writes left several values, printed one after the other.\n\
         try: triad put KEY VALUE --context {context}"
    )
}

pub(crate) fn location(subject: Subject<'_>, located: &v1::LocateResponse) -> String {
    let route = located.route.clone().unwrap_or_default();
    let list = |members: &[v1::Member]| {
        let names: Vec<&str> = members.iter().map(|member| member.node.as_str()).collect();
        names.join(", ")
    };
    let mut rows = vec![
        (
            "key",
            format!(
                "{} in bucket {}",
                String::from_utf8_lossy(subject.key).escape_debug(),
                subject.bucket
            ),
        ),
        ("identifier", located.ring_id.clone()),
        (
            "shard",
            format!(
                "{} of {}, ({}, {}]",
                route.shard, route.shard_count, located.range_start, located.range_end
            ),
        ),
        (
            "configuration",
            format!("epoch {}, {}", json::epoch(route.epoch.as_ref()), json::phase(route.phase())),
        ),
        ("members", list(&route.members)),
    ];
    if !route.next_members.is_empty() {
        rows.push(("next members", list(&route.next_members)));
    }
    if !route.retired.is_empty() {
        rows.push(("retired", list(&route.retired)));
    }
    rows.push(("ideal", located.ideal_members.join(", ")));
    let path = or_dash(&located.path.join(" → ")).to_owned();
    let hops =
        if located.hops == 1 { "1 hop".to_owned() } else { format!("{} hops", located.hops) };
    rows.push(("lookup", format!("{path} ({hops})")));
    let mut text = pairs(&rows);
    if !located.replicas.is_empty() {
        let mut table =
            vec![vec!["REPLICA".into(), "RESULT".into(), "DIGEST".into(), "VERSIONS".into()]];
        table.extend(located.replicas.iter().map(|replica| {
            let (digest, dots) = (or_dash(&replica.digest), replica.dots.join(" "));
            vec![
                replica.node.clone(),
                json::replica_result(replica.result()),
                digest.into(),
                or_dash(&dots).into(),
            ]
        }));
        text.push('\n');
        text.push_str(&columns(&table));
    }
    text
}

/// `leave-1a2b3c4d-2.1  running  41.5 %, 12 s to go, 1048576 bytes moved`.
pub(crate) fn begun(operation: &v1::Operation, movement: Option<&v1::Movement>) -> String {
    let mut text = String::new();
    if operation.id.is_empty() {
        let _ = writeln!(text, "nothing was begun: this is what {} would do", operation.kind);
    } else {
        let error = if operation.error.is_empty() {
            String::new()
        } else {
            format!(": {}", operation.error)
        };
        let state = json::operation_state(operation.state());
        let _ = writeln!(text, "{}  {state}{error}  {}", operation.id, progress(operation));
    }
    if let Some(movement) = movement {
        let few =
            if movement.under_replicated { ", fewer than there should be copies" } else { "" };
        let _ = writeln!(
            text,
            "{} shards, {} bytes; {} nodes are left to hold them{few}",
            movement.shards, movement.bytes, movement.nodes_left
        );
    }
    text
}

fn progress(operation: &v1::Operation) -> String {
    let eta = operation.eta.and_then(|eta| Duration::try_from(eta).ok());
    let eta = eta.map_or_else(String::new, |eta| format!(", {} s to go", eta.as_secs() + 1));
    format!("{:.1} %{eta}, {} bytes moved", operation.percent, operation.moved_bytes)
}

pub(crate) fn operations(operations: &[v1::Operation]) -> String {
    let mut table = vec![vec![
        "OPERATION".into(),
        "KIND".into(),
        "STATE".into(),
        "PROGRESS".into(),
        "ERROR".into(),
    ]];
    table.extend(operations.iter().map(|operation| {
        vec![
            operation.id.clone(),
            operation.kind.clone(),
            json::operation_state(operation.state()),
            progress(operation),
            or_dash(&operation.error).to_owned(),
        ]
    }));
    columns(&table)
}

pub(crate) fn forced(forced: &v1::ForceResponse) -> String {
    if forced.shards.is_empty() {
        return "no shard is frozen\n".to_owned();
    }
    let mut table =
        vec![vec!["SHARD".into(), "EPOCH".into(), "GOES ON WITH".into(), "GIVEN UP".into()]];
    table.extend(forced.shards.iter().map(|shard| {
        let (before, after) =
            (json::epoch(shard.before.as_ref()), json::epoch(shard.after.as_ref()));
        let empty = if shard.emptied { " (empty: nobody holds it any more)" } else { "" };
        vec![
            shard.shard.to_string(),
            format!("{before} → {after}"),
            format!("{}{empty}", shard.survivors.join(", ")),
            or_dash(&shard.lost.join(", ")).to_owned(),
        ]
    }));
    columns(&table)
}

pub(crate) fn status(status: &v1::StatusResponse) -> String {
    let parameters = status.parameters.unwrap_or_default();
    let nodes = status.nodes.unwrap_or_default();
    let mut rows = vec![
        (
            "cluster",
            format!(
                "{} ({}), {} copies, {} shards, {} virtual nodes each",
                status.cluster_name,
                status.cluster_id,
                parameters.replication_factor,
                parameters.shards,
                parameters.virtual_nodes
            ),
        ),
        (
            "health",
            format!(
                "{}{}; {}",
                if status.healthy { "healthy" } else { "NOT healthy" },
                if status.complete { "" } else { " (incomplete: not all nodes answered)" },
                tolerance(status.failures_tolerated)
            ),
        ),
        (
            "nodes",
            format!(
                "{}: {} alive, {} suspect, {} down",
                nodes.total, nodes.alive, nodes.suspect, nodes.down
            ),
        ),
        ("shards", shards(status.shards.unwrap_or_default())),
        ("hints", hints(status.hints.unwrap_or_default())),
    ];
    if !status.unreachable.is_empty() {
        rows.push(("unreachable", status.unreachable.join(", ")));
    }
    for alarm in &status.alarms {
        rows.push((
            "ALARM",
            format!("{} at {}: {}; try: {}", alarm.name, alarm.node, alarm.detail, alarm.cure),
        ));
    }
    rows.push(("version", status.version.clone()));
    pairs(&rows)
}

fn hints(hints: v1::HintCounts) -> String {
    let mut text = match hints.pending {
        0 => "none to deliver".to_owned(),
        pending => format!(
            "{pending} to deliver ({} bytes), {} of them counted as acknowledgements",
            hints.bytes, hints.acknowledging
        ),
    };
    if hints.lost > 0 {
        let _ = write!(text, "; {} LOST", hints.lost);
    }
    text
}

fn tolerance(failures: u32) -> String {
    match failures {
        0 => "no node may fail".to_owned(),
        1 => "1 node may fail, whichever it is".to_owned(),
        more => format!("{more} nodes may fail, whichever they are"),
    }
}

fn shards(shards: v1::ShardCounts) -> String {
    let mut text = shards.total.to_string();
    let states = [
        (shards.joint, "on the move"),
        (shards.learning, "being copied"),
        (shards.under_replicated, "under-replicated"),
        (shards.unavailable, "UNAVAILABLE"),
    ];
    let parts: Vec<String> = states
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if parts.is_empty() {
        text.push_str(", all with all their replicas");
    } else {
        let _ = write!(text, ": {}", parts.join(", "));
    }
    text
}

pub(crate) fn nodes(nodes: &[v1::NodeInfo]) -> String {
    let head = [
        "NODE", "ID", "LIVENESS", "STATE", "CLIENTS", "ZONE", "SHARDS", "IDEAL", "KEYS", "LIVE",
        "DISK", "VERSION",
    ];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    table.extend(nodes.iter().map(|node| {
        vec![
            node.node.clone(),
            node.node_id.chars().take(8).collect(),
            liveness(node),
            json::node_state(node.state()),
            node.client_address.clone(),
            or_dash(&node.zone).into(),
            node.shards.to_string(),
            node.ideal_shards.to_string(),
            node.keys.to_string(),
            size(node.live_bytes),
            size(node.disk_bytes),
            node.version.clone(),
        ]
    }));
    columns(&table)
}

/// A node that does not answer may be reached by others, or be silent for so long.
fn liveness(node: &v1::NodeInfo) -> String {
    let told = json::liveness(node.liveness());
    let silent = node.silent.unwrap_or_default().seconds;
    match node.liveness() {
        v1::Liveness::Suspect if silent == 0 => format!("{told}, others reach it"),
        v1::Liveness::Suspect | v1::Liveness::Down => format!("{told} for {silent} s"),
        _ => told,
    }
}

pub(crate) fn ring(ring: &v1::DescribeRingResponse) -> String {
    let head = ["IDENTIFIER", "NODE", "INDEX", "PREDECESSOR", "SUCCESSOR", "LIST", "FINGERS"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    let brief = |neighbor: Option<&v1::Neighbor>| {
        neighbor.map_or_else(
            || "-".to_owned(),
            |one| {
                let id: String = one.ring_id.chars().take(8).collect();
                format!("{id} {}", one.node)
            },
        )
    };
    table.extend(ring.virtual_nodes.iter().map(|position| {
        vec![
            position.ring_id.clone(),
            position.node.clone(),
            position.index.to_string(),
            brief(position.predecessor.as_ref()),
            brief(position.successors.first()),
            position.successors.len().to_string(),
            position.fingers.len().to_string(),
        ]
    }));
    columns(&table)
}

pub(crate) fn bootstrap(made: &v1::BootstrapResponse) -> String {
    format!("made cluster {}", made.cluster_id)
}

pub(crate) fn health(readiness: &v1::GetReadinessResponse) -> String {
    let state = match (readiness.live, readiness.ready) {
        (true, true) => "ready",
        (true, false) => "not ready",
        (false, _) => "not live",
    };
    if readiness.reasons.is_empty() {
        format!("{state}\n")
    } else {
        format!("{state}: {}\n", readiness.reasons.join("; "))
    }
}

pub(crate) fn settings(settings: &[Setting], with_origin: bool) -> String {
    let mut table = vec![vec!["KEY".to_owned(), "VALUE".to_owned()]];
    if with_origin {
        table[0].push("ORIGIN".to_owned());
    }
    table.extend(settings.iter().map(|setting| {
        let mut row = vec![setting.key.clone(), setting.value.to_string()];
        if with_origin {
            row.push(setting.origin.to_string());
        }
        row
    }));
    columns(&table)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// `0.4 ms`, `1.25 s`.
pub(crate) fn span(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{:.1} ms", span.as_secs_f64() * 1000.0)
    } else {
        format!("{:.2} s", span.as_secs_f64())
    }
}

/// `1.5 MiB`: rounded, for a table.
#[allow(clippy::cast_precision_loss)]
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    if unit == 0 {
        return format!("{bytes} B");
    }
    let amount = bytes as f64 / (1_u64 << (10 * unit)) as f64;
    format!("{amount:.1} {}", UNITS[unit as usize])
}

/// Labels and values, one pair a line, the values aligned.
fn pairs(rows: &[(&str, String)]) -> String {
    let table: Vec<Vec<String>> =
        rows.iter().map(|(label, value)| vec![(*label).to_owned(), value.clone()]).collect();
    columns(&table)
}

/// Rows with aligned columns; the last column is as long as it is.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let table = [row(["NODE", "ID", "X"]), row(["nöde1", "", ""])];
        assert_eq!(columns(&table), "NODE   ID  X\nnöde1\n");
    }

    #[test]
    fn sizes_and_times_are_rounded_for_reading() {
        assert_eq!(
            [0, 1023, 1024, 1_572_864, u64::MAX].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "16777216.0 TiB"]
        );
        assert_eq!(span(Duration::from_micros(1250)), "1.2 ms");
        assert_eq!(span(Duration::from_millis(2500)), "2.50 s");
    }

    #[test]
    fn the_status_says_in_words_what_may_still_fail() {
        let mut wire = v1::StatusResponse {
            cluster_name: "triad".into(),
            healthy: true,
            complete: true,
            failures_tolerated: 1,
            shards: Some(v1::ShardCounts { total: 1024, ..Default::default() }),
            ..Default::default()
        };
        let text = status(&wire);
        assert!(text.contains("health   healthy; 1 node may fail, whichever it is\n"), "{text}");
        assert!(text.contains("shards   1024, all with all their replicas\n"), "{text}");
        wire.shards = Some(v1::ShardCounts {
            total: 1024,
            joint: 3,
            under_replicated: 9,
            ..Default::default()
        });
        wire.unreachable = vec!["node2".into(), "node3".into()];
        let text = status(&wire);
        assert!(text.contains("1024: 3 on the move, 9 under-replicated\n"), "{text}");
        assert!(text.contains("unreachable  node2, node3\n"), "{text}");
    }
}
