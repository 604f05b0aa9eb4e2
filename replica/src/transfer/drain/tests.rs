use triad_ring::{NodeId, ShardId};

use super::*;
use crate::configuration::Phase;
use crate::member::StoreId;

fn member(name: u8) -> Member {
    Member { node: NodeId::from_bytes([name; 16]), store: StoreId::from_bytes([name; 16]) }
}

fn step(drain: &mut Drain, input: DrainInput) -> Vec<DrainOutput> {
    let mut out = Vec::new();
    drain.handle(input, drain.wake_at(), &mut out);
    out
}

#[test]
fn a_majority_gets_what_it_lacks_and_all_must_have_entered_before_the_purge() {
    let configuration = Configuration {
        epoch: Epoch { lineage: 1, number: 3 },
        phase: Phase::Stable { members: vec![member(1), member(2), member(3)] },
        retired: vec![member(4)],
        ..Configuration::bootstrap(ShardId::new(1), member(1))
    };
    let mut drain = Drain::new(configuration, CopyTiming::default(), Duration::ZERO);
    let asks = |name| vec![DrainOutput::Compare { with: member(name) }];
    let compared = |name, entered, differing: &[u8]| {
        let entered = Some(Epoch { lineage: 1, number: entered });
        let standing = Standing { entered, left: entered, source: true };
        DrainInput::Compared { from: member(name), standing, differing: differing.to_vec() }
    };
    assert_eq!(step(&mut drain, DrainInput::Tick), asks(1));
    let push = DrainOutput::Push { to: member(1), leaves: vec![7], after: None };
    assert_eq!(step(&mut drain, compared(1, 3, &[7])), vec![push]);
    let pushed = DrainInput::Pushed { to: member(1), next: None };
    assert_eq!(step(&mut drain, pushed), asks(2));
    assert_eq!(step(&mut drain, compared(2, 3, &[])), asks(3));
    // The third still merges in the joint epoch, perhaps from this very store.
    assert_eq!(step(&mut drain, compared(3, 2, &[7])), Vec::new());
    assert_eq!(step(&mut drain, DrainInput::Tick), asks(3));
    // A majority has it all: the last one only has to be in.
    assert_eq!(step(&mut drain, compared(3, 4, &[7])), vec![DrainOutput::Purge]);
    assert_eq!(step(&mut drain, DrainInput::Tick), Vec::new());
}
