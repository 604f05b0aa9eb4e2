//! Where successor lists end before the next own position, lookups fill the gap: nodes of middling
//! rings know the whole circle, too, and what they know is true.

mod driver;

use std::collections::BTreeSet;
use std::time::Duration;

use driver::Network;
use triad_ring::invariant::failed_stay_out;
use triad_ring::{ClusterSalt, Input, NodeId, RingConfig, RingNode, RingView, ShardCount};

const V: u16 = 64;

fn settled(count: u64) -> Network {
    let config = RingConfig::new(ClusterSalt::from_bytes(*b"salt of the test"), V, 3);
    let mut network = Network::new(1, config);
    let everyone: BTreeSet<NodeId> =
        (0..count).map(|number| NodeId::of_public_key(&number.to_be_bytes())).collect();
    for id in &everyone {
        network.start(*id, Input::Create);
        let mut node = RingNode::new(*id, network.config.clone());
        node.settle(&everyone, &mut Vec::new());
        network.replace(node);
    }
    network
}

#[test]
fn twenty_nodes_come_to_know_the_whole_circle_and_mend_what_they_know() {
    let mut network = settled(20);
    let incomplete = |network: &Network| {
        network.nodes().iter().filter(|node| !node.view().is_complete()).count()
    };
    assert!(incomplete(&network) > 0, "else there is nothing to see here");
    network.run(Duration::from_secs(12));
    assert_eq!(incomplete(&network), 0);

    let victim = network.ids()[7];
    network.kill(victim);
    network.run(Duration::from_secs(5));
    for node in network.nodes() {
        failed_stay_out(node).unwrap();
        assert!(!node.view().nodes().contains(&victim));
    }
    network.run(Duration::from_secs(15));
    let truth = RingView::of_nodes(network.ids(), &network.config.salt, V);
    let shards = ShardCount::try_new(1_024).unwrap();
    for node in network.nodes() {
        let view = node.view();
        assert!(view.is_complete());
        for shard in shards.iter() {
            let end = shards.end(shard);
            assert_eq!(view.preference_list(end, 3), truth.preference_list(end, 3));
        }
    }
}
