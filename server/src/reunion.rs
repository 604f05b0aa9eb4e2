//! Finding each other again: every ten seconds one contact out of the book or one seed, whoever and
//! however long dead, is asked who it is, and our place is looked up through it. Where the answer
//! comes from a ring that does not know this node, the two rings become one.
//!
//! The pulse finds back whoever answers at the address that is known. This finds the others: names
//! that lead elsewhere now, and rings so large that whom we meet is no neighbour of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};
use triad_proto::peer::v1 as wire;
use triad_ring::{Input, NodeId};

use crate::introduce::hear_of;
use crate::node::Node;
use crate::peers::contact::Sender;
use crate::peers::dial;

/// How often one is tried.
const EVERY: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Addresses of which a warning was given once, remembered at most.
const TOLD: usize = 1_024;

/// Runs until the node stops.
pub(crate) async fn reunion_task(node: Arc<Node>) {
    let mut told = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.spread(EVERY)) => {}
        }
        let addresses = addresses(&node);
        let pick = node.random_below(addresses.len() as u64) as usize;
        let Some((address, known)) = addresses.iter().nth(pick) else { continue };
        match tokio::time::timeout(PATIENCE, identify(&node, address, *known)).await {
            Ok(Ok(via)) => node.ring.input(Input::Compare { via }),
            Ok(Err(NoReunion::Nobody(why))) => debug!(address, %why, "no contact"),
            Ok(Err(NoReunion::Stranger(cluster))) if told.insert(address.clone()) => {
                if told.len() > TOLD {
                    told.clear();
                }
                warn!(
                    address, %cluster,
                    "WRONG_CLUSTER: a node of another cluster answers at the address of a contact or seed; it is left alone"
                );
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Everywhere that a node of the cluster was or should be, and which.
fn addresses(node: &Node) -> BTreeMap<String, Option<NodeId>> {
    let seeds = node.config.cluster.seeds.iter().map(|seed| (seed.clone(), None));
    let mut addresses: BTreeMap<_, _> = seeds.collect();
    let contacts = node.book.all();
    addresses
        .extend(contacts.iter().map(|contact| (contact.peer_address.clone(), Some(contact.node))));
    addresses.remove(&node.book.own().peer_address);
    addresses
}

/// Why an address led to no ring member of this cluster.
enum NoReunion {
    /// Nobody who could help answered.
    Nobody(String),
    /// A node of this other cluster did.
    Stranger(triad_ring::ClusterId),
}

/// Asks who is there, tells who asks, and remembers the answer.
async fn identify(node: &Node, address: &str, known: Option<NodeId>) -> Result<NodeId, NoReunion> {
    let nobody = |why: &str| NoReunion::Nobody(why.to_owned());
    if let Some(known) = known {
        node.peers.faults().call(known).await.map_err(NoReunion::Nobody)?;
    }
    let mut client = dial(&*node.platform, address).await.map_err(NoReunion::Nobody)?;
    let request = wire::IdentifyRequest {
        hello: Some(node.hello()),
        contact: Some(wire::Contact::from(&*node.book.own())),
        may_bootstrap: false,
    };
    let answered = client.identify(request).await.map_err(|status| nobody(status.message()))?;
    let answered = answered.into_inner();
    let sender = answered.hello.as_ref().and_then(|hello| Sender::try_from(hello).ok());
    let sender = sender.ok_or_else(|| nobody("it does not say who it is"))?;
    match sender.cluster {
        None => return Err(nobody("it has no cluster")),
        Some(other) if other != node.cluster.id => return Err(NoReunion::Stranger(other)),
        Some(_) => {}
    }
    answered.contact.iter().for_each(|contact| hear_of(node, &sender, contact));
    if sender.node == node.me() || !answered.ring_member {
        return Err(nobody("it is no other ring member"));
    }
    Ok(sender.node)
}
