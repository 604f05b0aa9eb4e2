//! Faults on demand: the test service of running nodes, and what can be made of it.
//!
//! All of it needs programs with the cargo feature `testing`, which [`crate::binary::triad`] builds.

use std::collections::BTreeMap;

use tonic::Status;
use triad_proto::test::v1::fault_service_client::FaultServiceClient;
use triad_proto::test::v1::set_link_fault_request::Fault;
use triad_proto::test::v1::{
    DigestRequest, DigestResponse, LinkDirection, ListFailpointsRequest, SetClockOffsetRequest,
    SetFailpointRequest, SetLinkFaultRequest,
};

use crate::processes::{Cluster, Node};

impl Node {
    /// Its test service.
    async fn fault_service(&self) -> FaultServiceClient<tonic::transport::Channel> {
        FaultServiceClient::new(crate::raw::channel(&self.admin_address()).await)
    }

    /// What a named step does from now on: `off`, `pause`, `exit` or `error`.
    pub async fn failpoint(&self, name: &str, action: &str) {
        self.failpoint_as(name, action, "").await;
    }

    /// The same for a step of a move, when this node comes by it as `proposer`, `learner`, `leaver` or `stayer`.
    pub async fn failpoint_as(&self, name: &str, action: &str, role: &str) {
        let (name, action, role) = (name.to_owned(), action.to_owned(), role.to_owned());
        let request = SetFailpointRequest { name, action, role, skip: 0 };
        self.fault_service().await.set_failpoint(request).await.expect("a step of this name");
    }

    /// How often each step did what it was told (`acted`) and was reached at all.
    pub async fn failpoints(&self) -> BTreeMap<String, (u64, u64)> {
        let listed = self.fault_service().await.list_failpoints(ListFailpointsRequest {}).await;
        let listed = listed.expect("all steps").into_inner().failpoints;
        listed.into_iter().map(|one| (one.name, (one.acted, one.reached))).collect()
    }

    /// Spoils (or, with none, heals) its link to another node, by name, or to all (`*`).
    pub async fn link(&self, peer: &str, direction: LinkDirection, fault: Option<Fault>) {
        let request =
            SetLinkFaultRequest { peer: peer.to_owned(), direction: direction.into(), fault };
        self.fault_service().await.set_link_fault(request).await.expect("a node of this name");
    }

    /// Moves its wall clock by so many seconds.
    pub async fn clock_offset(&self, seconds: i64) {
        let offset = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = SetClockOffsetRequest { offset };
        self.fault_service().await.set_clock_offset(request).await.expect("a clock to move");
    }

    /// What its store holds of the shards below `shards`.
    pub async fn digests(&self, shards: u32) -> Result<Vec<(u32, DigestResponse)>, Status> {
        let mut service = self.fault_service().await;
        let mut digests = Vec::new();
        for shard in 0..shards {
            digests.push((shard, service.digest(DigestRequest { shard }).await?.into_inner()));
        }
        Ok(digests)
    }

    /// What its store holds of a shard.
    pub async fn digest(&self, shard: u32) -> Result<DigestResponse, Status> {
        Ok(self.fault_service().await.digest(DigestRequest { shard }).await?.into_inner())
    }
}

impl Cluster {
    /// Cuts the link between two nodes (by number from 0), both ways.
    pub async fn cut(&self, one: usize, other: usize) {
        self.link_both(one, other, Some(Fault::Cut(true))).await;
    }

    /// Heals the link between two nodes.
    pub async fn heal(&self, one: usize, other: usize) {
        self.link_both(one, other, None).await;
    }

    /// Cuts every link between the two groups.
    pub async fn partition(&self, left: &[usize], right: &[usize]) {
        for one in left {
            for other in right {
                self.cut(*one, *other).await;
            }
        }
    }

    /// Heals all links between all running nodes.
    pub async fn heal_all(&mut self) {
        let running: Vec<bool> = self.running();
        let up = || (0..running.len()).filter(|index| running[*index]);
        for one in up() {
            for other in up().filter(|other| *other != one) {
                let name = self.nodes()[other].name().to_owned();
                self.nodes()[one].link(&name, LinkDirection::Unspecified, None).await;
            }
        }
    }

    /// What happens to every message between two nodes, both ways.
    pub async fn link_both(&self, one: usize, other: usize, fault: Option<Fault>) {
        for (from, to) in [(one, other), (other, one)] {
            let name = self.nodes()[to].name();
            self.nodes()[from].link(name, LinkDirection::Unspecified, fault).await;
        }
    }
}
