//! A node that has left its cluster: it waits until an operator asks it to join again.

use std::sync::Arc;

use tracing::info;
use triad_proto::peer::v1 as wire;
use triad_replica::store::Store;

use super::{Membership, SEED_PATIENCE, ask_seed, join, wait};
use crate::book::NodeState;
use crate::bootstrap::SeedAnswer;
use crate::host::Host;
use crate::identity::ClusterIdentity;
use crate::peers::{self, dial};
use crate::rows::{self, Enrolment};
use crate::server::StartError;

/// Waits, and joins the same cluster again when asked to.
pub(super) async fn wait_to_be_asked(
    host: &Arc<Host>,
    store: &Arc<dyn Store>,
    cluster: &ClusterIdentity,
    enrolment: &Enrolment,
) -> Result<Membership, StartError> {
    say_goodbye(host, store, cluster, enrolment).await?;
    let gone = format!(
        "this node has left cluster `{}` ({}); ask it to join again: triad node join --seeds HOST:PORT",
        cluster.name, cluster.id
    );
    loop {
        let seeds = host.join_seeds();
        let mut why = vec![gone.clone()];
        for seed in &seeds {
            match ask_seed(host, seed).await {
                SeedAnswer::Cluster { id, .. } if id == cluster.id => {
                    match join(host, store, seed).await? {
                        Ok(membership) => return Ok(membership),
                        Err(refused) => why.push(format!("seed {seed} did not admit it: {refused}")),
                    }
                }
                SeedAnswer::Cluster { id, name } => why.push(format!(
                    "seed {seed} belongs to another cluster, {id} (`{name}`): empty the data directory to join that one"
                )),
                SeedAnswer::Silent { why: silent } => {
                    why.push(format!("seed {seed} has not answered ({silent})"));
                }
                SeedAnswer::Myself | SeedAnswer::NoCluster { .. } => {
                    why.push(format!("seed {seed} is in no cluster"));
                }
            }
        }
        wait(host, why).await;
    }
}

/// If the node went down just as it left, not everybody has heard of it.
async fn say_goodbye(
    host: &Arc<Host>,
    store: &Arc<dyn Store>,
    cluster: &ClusterIdentity,
    enrolment: &Enrolment,
) -> Result<(), StartError> {
    info!(cluster = %cluster.id, name = %cluster.name, "this node has left the cluster");
    let mut own = wire::Contact::from(&*host.book.own());
    own.state = crate::peers::contact::wire_state(NodeState::Left).into();
    // It left in an earlier start than this one, in which it may be admitted again.
    own.incarnation = own.incarnation.saturating_sub(1);
    own.admitted = enrolment.admitted.get();
    own.revision = enrolment.revision;
    own.operation.clone_from(&enrolment.operation);
    let told = rows::load_contacts(&**store)?.into_iter().map(|contact| {
        let request = wire::IdentifyRequest {
            hello: Some(peers::hello(&host.identity, Some(cluster.id), host.identity.commits)),
            contact: Some(own.clone()),
            may_bootstrap: false,
        };
        let platform = Arc::clone(&host.platform);
        tokio::time::timeout(SEED_PATIENCE, async move {
            if let Ok(mut client) = dial(&*platform, &contact.peer_address).await {
                // Whoever cannot be told now will see a node that is down and holds nothing.
                let _ = client.identify(request).await;
            }
        })
    });
    futures::future::join_all(told).await;
    Ok(())
}
