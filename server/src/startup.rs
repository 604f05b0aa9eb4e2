//! From an open store to a node of a cluster: found one, join one, or return to one.

mod rejoin;

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use triad_proto::peer::v1 as wire;
use triad_replica::record::Limits;
use triad_replica::shard::ShardReplica;
use triad_replica::store::{Batch, Store};
use triad_replica::token::ClusterSecret;
use triad_ring::{ClusterId, ClusterSalt, NodeId, ShardCount};

use crate::book::{Contact, NodeState};
use crate::bootstrap::{SeedAnswer, Step, decide};
use crate::config::Config;
use crate::host::Host;
use crate::identity::ClusterIdentity;
use crate::peers::{self, contact::Sender, dial};
use crate::rows::Enrolment;
use crate::server::StartError;
use crate::starts::Distrust;
use crate::{random, rows};

/// Pause between two rounds of questions to the seeds.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// The same, for a node that only checks whether its seeds are of its cluster.
const VERIFY_EVERY: Duration = Duration::from_secs(3);
/// How long a seed may take to answer.
const SEED_PATIENCE: Duration = Duration::from_secs(2);

/// What a node waits for that has lost its store and finds nobody.
const LOST_A_CLUSTER: &str = "this node has lost its store, and makes no new, empty cluster in the place of the one that it was in: \
     name a node of that cluster as a seed (cluster.seeds, or `triad node join`), or give the lost data up with `triad node bootstrap --force`";

/// How a node enters the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It made the cluster.
    Create,
    /// It is new in the cluster of this node.
    Join(NodeId),
    /// It was a member before.
    Resume,
}

/// A cluster to be a node of, with this store's part of it.
pub(crate) struct Membership {
    pub(crate) cluster: ClusterIdentity,
    pub(crate) replicas: Vec<ShardReplica>,
    pub(crate) entry: Entry,
}

/// The limits of a record's writes.
pub(crate) fn record_limits(config: &Config) -> Limits {
    Limits { siblings: config.limits.siblings_hard as usize, ..Limits::default() }
}

/// Finds the cluster to be in: the one in the store, else by asking the seeds until they agree.
pub(crate) async fn enter(
    host: &Arc<Host>,
    store: &Arc<dyn Store>,
) -> Result<Membership, StartError> {
    if let Some(cluster) = rows::load_cluster(&**store)? {
        let enrolment = rows::load_enrolment(&**store)?;
        if enrolment.state == NodeState::Left {
            return rejoin::wait_to_be_asked(host, store, &cluster, &enrolment).await;
        }
        return resume(host, store, cluster, enrolment);
    }
    loop {
        let seeds = &asked_seeds(host);
        let answers =
            futures::future::join_all(seeds.iter().map(|seed| ask_seed(host, seed))).await;
        let name = &host.config.cluster.name;
        match decide(name, host.config.cluster.may_bootstrap(), seeds, &answers) {
            Step::Create if lost_a_cluster(host) && !host.is_bootstrap_forced() => {
                wait(host, vec![LOST_A_CLUSTER.to_owned()]).await;
            }
            Step::Create => return create(host, store).await,
            Step::Join { seed } => match join(host, store, &seeds[seed]).await? {
                Ok(membership) => return Ok(membership),
                Err(why) => {
                    wait(
                        host,
                        vec![format!("seed {} did not admit this node: {why}", seeds[seed])],
                    )
                    .await;
                }
            },
            // An operator may overrule silence, but not a seed that has a cluster.
            Step::Wait { .. } if host.is_bootstrap_forced() && !in_a_cluster(&answers) => {
                warn!("making a cluster by force: the seeds were not waited for");
                return create(host, store).await;
            }
            Step::Wait { why } => wait(host, why).await,
        }
    }
}

/// Whether this node was in a cluster, with a store that it has lost. A new, empty cluster in its place
/// would answer "absent" for what is only lost, and be a second one if the others still live.
fn lost_a_cluster(host: &Host) -> bool {
    host.losses.pending().is_some_and(|loss| loss.quarantine.is_some())
}

/// The configured seeds, and those that an operator has named since.
fn asked_seeds(host: &Host) -> Vec<String> {
    let mut seeds = host.config.cluster.seeds.clone();
    let named = host.join_seeds();
    seeds.extend(named.into_iter().filter(|seed| !host.config.cluster.seeds.contains(seed)));
    seeds
}

/// Whether any seed is in a cluster.
fn in_a_cluster(answers: &[SeedAnswer]) -> bool {
    answers.iter().any(|answer| matches!(answer, SeedAnswer::Cluster { .. }))
}

async fn wait(host: &Host, why: Vec<String>) {
    let text = why.join("; ");
    if host.wait_for(why) {
        warn!(reason = %text, "waiting to enter a cluster");
    }
    tokio::time::sleep(ASK_EVERY).await;
}

fn resume(
    host: &Host,
    store: &Arc<dyn Store>,
    cluster: ClusterIdentity,
    enrolment: Enrolment,
) -> Result<Membership, StartError> {
    let configured = &host.config.cluster.name;
    if cluster.name != *configured {
        return Err(StartError::OtherCluster {
            stored: cluster.name,
            configured: configured.clone(),
        });
    }
    for contact in rows::load_contacts(&**store)? {
        host.book.learn(contact);
    }
    host.book.update_own(|contact| {
        contact.admitted = enrolment.admitted;
        contact.revision = enrolment.revision;
        contact.operation = enrolment.operation;
    });
    let identity = &host.identity;
    let replicas = rows::load_shards(&**store, cluster.shards, identity.member(), identity.nonce)?;
    info!(cluster = %cluster.id, name = %cluster.name, "returning to the cluster");
    Ok(Membership { cluster, replicas, entry: Entry::Resume })
}

/// After a return to a cluster: asks the seeds until one other than this node has answered with its
/// cluster. Answers why this process must not go on, if that is another cluster: the data
/// directory or the seeds are not the ones that were meant.
pub(crate) async fn verify_seeds(host: &Arc<Host>, cluster: ClusterId) -> Option<String> {
    let seeds = &host.config.cluster.seeds;
    loop {
        let answers =
            futures::future::join_all(seeds.iter().map(|seed| ask_seed(host, seed))).await;
        for (seed, answer) in seeds.iter().zip(&answers) {
            match answer {
                SeedAnswer::Cluster { id, .. } if *id == cluster => return None,
                SeedAnswer::Cluster { id, name } => {
                    return Some(format!(
                        "WRONG_CLUSTER: the data directory belongs to cluster {cluster}, but seed {seed} belongs to another \
                         cluster, {id} (`{name}`): use the right data directory, or the right seeds"
                    ));
                }
                _ => {}
            }
        }
        if answers.iter().all(|answer| *answer == SeedAnswer::Myself) {
            return None;
        }
        tokio::time::sleep(VERIFY_EVERY).await;
    }
}

/// What one seed is.
async fn ask_seed(host: &Host, seed: &str) -> SeedAnswer {
    let silent = |why: String| SeedAnswer::Silent { why };
    let ask = async {
        let mut client = dial(&*host.platform, seed).await?;
        let request = wire::IdentifyRequest {
            hello: Some(peers::hello(&host.identity, None, host.identity.commits)),
            contact: Some(wire::Contact::from(&*host.book.own())),
            may_bootstrap: host.config.cluster.may_bootstrap(),
        };
        client.identify(request).await.map_err(|status| status.message().to_owned())
    };
    let response = match tokio::time::timeout(SEED_PATIENCE, ask).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(why)) => return silent(why),
        Err(_) => return silent(format!("no answer within {SEED_PATIENCE:?}")),
    };
    let name = response.contact.as_ref().map(|contact| contact.name.clone()).unwrap_or_default();
    let Some(sender) = response.hello.as_ref().and_then(|hello| Sender::try_from(hello).ok())
    else {
        return silent("it does not speak Triad's peer protocol".to_owned());
    };
    match sender.cluster {
        _ if sender.node == host.identity.node => SeedAnswer::Myself,
        Some(id) => SeedAnswer::Cluster { id, name: response.cluster_name },
        None => {
            SeedAnswer::NoCluster { node: sender.node, name, may_bootstrap: response.may_bootstrap }
        }
    }
}

/// Makes a cluster of one node: id, salt, secret and all first configurations, one fsynced batch.
async fn create(host: &Host, store: &Arc<dyn Store>) -> Result<Membership, StartError> {
    let wanted = &host.config.cluster;
    let cluster = ClusterIdentity {
        id: ClusterId::from_bytes(random::bytes(&*host.platform)?),
        name: wanted.name.clone(),
        salt: ClusterSalt::from_bytes(random::bytes(&*host.platform)?),
        secret: ClusterSecret::from_bytes(random::bytes(&*host.platform)?),
        replication_factor: u32::from(wanted.replication_factor),
        virtual_nodes: wanted.virtual_nodes,
        shards: ShardCount::try_new(wanted.shards)
            .map_err(|bad| StartError::Config(bad.to_string()))?,
    };
    let (mut batch, replicas) = rows::found(&cluster, host.identity.member(), host.identity.nonce);
    rows::put_enrolment(&mut batch, &Enrolment::new(host.identity.incarnation));
    write(host, store, batch).await?;
    info!(cluster = %cluster.id, name = %cluster.name, "made a new cluster");
    Ok(Membership { cluster, replicas, entry: Entry::Create })
}

/// Asks a member for the cluster's parameters. The inner error is the seed's, to be tried again.
async fn join(
    host: &Host,
    store: &Arc<dyn Store>,
    seed: &str,
) -> Result<Result<Membership, String>, StartError> {
    let ask = async {
        let mut client = dial(&*host.platform, seed).await?;
        let request = wire::AdmitRequest {
            hello: Some(peers::hello(&host.identity, None, host.identity.commits)),
            contact: Some(wire::Contact::from(&*host.book.own())),
        };
        client.admit(request).await.map_err(|status| {
            if let Some(distrust) = Distrust::of_status(&status) {
                host.losses.distrusted(&distrust);
            }
            status.message().to_owned()
        })
    };
    let response = match tokio::time::timeout(SEED_PATIENCE, ask).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(why)) => return Ok(Err(why)),
        Err(_) => return Ok(Err(format!("no answer within {SEED_PATIENCE:?}"))),
    };
    let Some(parameters) = response.parameters else {
        return Ok(Err("it told no parameters".to_owned()));
    };
    let cluster = rows::cluster_of(&parameters)?;
    let contacts: Vec<Contact> =
        response.contacts.iter().filter_map(|told| Contact::try_from(told).ok()).collect();
    // Not through one that has left: nobody answers there.
    let in_ring =
        |contact: &&Contact| contact.node != host.identity.node && contact.state.is_ring_member();
    let Some(via) = contacts.iter().find(in_ring).map(|contact| contact.node) else {
        return Ok(Err("it told no contacts of ring members".to_owned()));
    };
    let mut batch = Batch::new();
    rows::put_cluster(&mut batch, &cluster);
    rows::put_enrolment(&mut batch, &Enrolment::new(host.identity.incarnation));
    contacts.iter().for_each(|contact| rows::put_contact(&mut batch, contact));
    write(host, store, batch).await?;
    for contact in contacts {
        host.book.learn(contact);
    }
    let identity = &host.identity;
    let replicas = rows::load_shards(&**store, cluster.shards, identity.member(), identity.nonce)?;
    info!(cluster = %cluster.id, name = %cluster.name, seed, "admitted to the cluster");
    Ok(Ok(Membership { cluster, replicas, entry: Entry::Join(via) }))
}

/// Applies and syncs on a thread that may block.
async fn write(host: &Host, store: &Arc<dyn Store>, batch: Batch) -> Result<(), StartError> {
    let (work, store) = (host.platform.work(), Arc::clone(store));
    let written = work.run(move || store.apply(batch).and_then(|()| store.sync()));
    match written.await {
        Ok(result) => Ok(result?),
        Err(panic) => Err(StartError::Config(format!("the store's writer panicked: {panic}"))),
    }
}
