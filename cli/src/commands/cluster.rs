//! `where`, `status`, `ring`, `node ls`, `health`: what the cluster says about itself.

use std::time::Duration;

use triad_client::Client;
use triad_proto::v1;

use crate::args::{Common, RingArgs, WhereArgs};
use crate::exit::{Exit, Failure};
use crate::output::json::Subject;
use crate::output::{self, Console, json, text};

/// A health check is asked every few seconds and has a deadline of its own: it must not wait as long as a request
/// may.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn location(
    args: &WhereArgs,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    let client = super::client(common.endpoints(), common.timeout())?;
    let subject = Subject { bucket: &args.key.bucket, key: args.key.bytes() };
    let located = client.cluster().locate(subject.bucket, subject.key, true).await?;
    console.result(&json::location(subject, &located), || text::location(subject, &located))?;
    Ok(Exit::Ok)
}

pub(super) async fn status(common: &Common, console: Console) -> Result<Exit, Failure> {
    let client = super::client(common.endpoints(), common.timeout())?;
    let status = client.cluster().status().await?;
    console.result(&json::status(&status), || text::status(&status))?;
    Ok(Exit::Ok)
}

pub(super) async fn nodes(common: &Common, console: Console) -> Result<Exit, Failure> {
    let client = super::client(common.endpoints(), common.timeout())?;
    let nodes = client.cluster().list_nodes().await?;
    console.result(&json::nodes(&nodes), || text::nodes(&nodes))?;
    Ok(Exit::Ok)
}

pub(super) async fn ring(
    args: &RingArgs,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    let client = super::client(common.endpoints(), common.timeout())?;
    let ring = if args.local {
        client.cluster().describe_ring().await?
    } else {
        whole_ring(&client).await?
    };
    console.result(&json::ring(&ring), || text::ring(&ring))?;
    Ok(Exit::Ok)
}

/// No node knows the whole ring, so each one is asked for its part. Who cannot be asked is told on stderr.
async fn whole_ring(client: &Client) -> Result<v1::DescribeRingResponse, Failure> {
    let mut ring: Option<v1::DescribeRingResponse> = None;
    let mut missing = None;
    for node in client.cluster().list_nodes().await? {
        let part = match client.cluster().at(&node.client_address) {
            Ok(cluster) => cluster.describe_ring().await,
            Err(error) => Err(error),
        };
        match part {
            Ok(part) => match &mut ring {
                Some(ring) => ring.virtual_nodes.extend(part.virtual_nodes),
                None => ring = Some(part),
            },
            Err(error) => {
                output::talk(&format!(
                    "{} ({}) is missing: {error}",
                    node.node, node.client_address
                ));
                missing = Some(error);
            }
        }
    }
    let mut ring = match (ring, missing) {
        (Some(ring), _) => ring,
        (None, Some(error)) => return Err(error.into()),
        (None, None) => client.cluster().describe_ring().await?,
    };
    // 32 hex digits each: the order of the text is the order of the circle.
    ring.virtual_nodes.sort_by(|a, b| a.ring_id.cmp(&b.ring_id));
    Ok(ring)
}

/// Asks the first endpoint and no other: whether *that* node is ready is the question.
/// Asks the first endpoint, and no other: it is that node which makes a cluster of its own.
pub(super) async fn bootstrap(
    force: bool,
    common: &Common,
    console: Console,
) -> Result<Exit, Failure> {
    let endpoints = common.endpoints();
    let client = super::client(endpoints.clone(), common.timeout())?;
    let made = client.cluster().at(&endpoints[0])?.bootstrap(force).await?;
    console.result(&json::bootstrap(&made), || text::bootstrap(&made))?;
    Ok(Exit::Ok)
}

pub(super) async fn health(common: &Common, console: Console) -> Result<Exit, Failure> {
    let endpoints = common.endpoints();
    let client = super::client(endpoints.clone(), common.timeout_or(HEALTH_TIMEOUT))?;
    let readiness = client.cluster().at(&endpoints[0])?.readiness().await?;
    console.result(&json::health(&readiness), || text::health(&readiness))?;
    Ok(if readiness.live && readiness.ready { Exit::Ok } else { Exit::Unavailable })
}
