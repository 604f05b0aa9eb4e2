//! R3 and R4 at every moment, R1 and R2 while the cluster is at rest: by the rules' own functions, on the state machines
//! of the running nodes.
//!
//! The ring promises R1 and R2 as long as lists lose not all their entries at once; faults here take more than that.
//! Then other nodes' books bring the ring together again, and from the rest on the rules must hold once more.

use triad_ring::RingNode;
use triad_ring::invariant::{
    busy_while_asking, enough_principals, failed_stay_out, lists_reach_enough_nodes, live_successor,
};

use super::{Invariant, Look};

/// Looks at the rings as they were at one moment.
pub(super) struct RingRules;

impl Invariant for RingRules {
    fn name(&self) -> &'static str {
        "the ring's rules"
    }

    fn check(&mut self, look: &Look<'_>) -> Result<(), String> {
        for node in &look.rings {
            busy_while_asking(node).map_err(|broken| broken.to_string())?;
            failed_stay_out(node).map_err(|broken| broken.to_string())?;
        }
        if look.at_rest {
            let nodes: Vec<&RingNode> = look.rings.iter().collect();
            live_successor(&nodes).map_err(|broken| broken.to_string())?;
            lists_reach_enough_nodes(&nodes).map_err(|broken| broken.to_string())?;
            enough_principals(&nodes, nodes.len()).map_err(|broken| broken.to_string())?;
        }
        Ok(())
    }
}
