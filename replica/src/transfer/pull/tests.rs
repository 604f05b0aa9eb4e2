use triad_ring::{NodeId, ShardId};

use super::*;
use crate::member::StoreId;

fn member(name: u8) -> Member {
    Member { node: NodeId::from_bytes([name; 16]), store: StoreId::from_bytes([name; 16]) }
}

fn epoch(number: u64) -> Epoch {
    Epoch { lineage: 1, number }
}

fn pull(purpose: PullPurpose, needed: usize) -> Pull {
    let plan = PullPlan {
        shard: ShardId::new(1),
        epoch: epoch(6),
        purpose,
        sources: vec![member(1), member(2), member(3)],
        needed,
        left: (purpose != PullPurpose::Learn).then(|| epoch(5)),
    };
    Pull::new(plan, CopyTiming::default(), Duration::ZERO)
}

fn step(pull: &mut Pull, input: PullInput) -> Vec<PullOutput> {
    let mut out = Vec::new();
    pull.handle(input, pull.wake_at(), &mut out);
    out
}

fn compared(from: u8, left: u64, differing: &[u8]) -> PullInput {
    let left = Some(epoch(left));
    let standing = Standing { entered: left, left, source: true };
    PullInput::Compared { from: member(from), standing, differing: differing.to_vec() }
}

#[test]
fn a_merge_counts_fenced_sources_alone_and_needs_a_majority() {
    let mut pull = pull(PullPurpose::Merge, 2);
    let asks = |name| vec![PullOutput::Compare { with: member(name) }];
    assert_eq!(step(&mut pull, PullInput::Tick), asks(1));
    // One that may still serve the epoch that was left is no source yet.
    assert_eq!(step(&mut pull, compared(1, 4, &[])), asks(2));
    let page = |after| PullOutput::Fetch { from: member(2), leaves: vec![3, 9], after };
    assert_eq!(step(&mut pull, compared(2, 5, &[3, 9])), vec![page(None)]);
    assert_eq!(pull.difference(), Some(2));
    let cursor = Some(PageCursor(bytes::Bytes::from_static(b"k")));
    let next = cursor.clone();
    let from = member(2);
    assert_eq!(step(&mut pull, PullInput::Merged { from, next }), vec![page(cursor)]);
    assert_eq!(step(&mut pull, PullInput::Merged { from, next: None }), asks(3));
    assert_eq!(step(&mut pull, PullInput::Failed { from: member(3) }), asks(1));
    let (epoch, purpose) = (epoch(6), PullPurpose::Merge);
    let complete = vec![PullOutput::Complete { epoch, purpose }];
    assert_eq!(step(&mut pull, compared(1, 5, &[])), complete);
    assert_eq!(step(&mut pull, PullInput::Tick), Vec::new(), "and that is all");
}

#[test]
fn a_store_without_the_data_is_no_source() {
    let mut pull = pull(PullPurpose::CatchUp, 1);
    step(&mut pull, PullInput::Tick);
    let standing = Standing { entered: Some(epoch(9)), left: Some(epoch(8)), source: false };
    let purged = PullInput::Compared { from: member(1), standing, differing: Vec::new() };
    assert_eq!(step(&mut pull, purged), vec![PullOutput::Compare { with: member(2) }]);
}

#[test]
fn a_learner_needs_one_source_and_compares_again_and_again() {
    let mut pull = pull(PullPurpose::Learn, 1);
    for round in 0..3 {
        let asked = step(&mut pull, PullInput::Tick);
        let [PullOutput::Compare { with }] = asked[..] else { panic!("round {round}: {asked:?}") };
        let standing = Standing { entered: None, left: None, source: true };
        let equal = PullInput::Compared { from: with, standing, differing: Vec::new() };
        let out = step(&mut pull, equal);
        assert!(matches!(out[..], [PullOutput::Complete { purpose: PullPurpose::Learn, .. }]));
        assert_eq!(pull.difference(), Some(0));
    }
}

#[test]
fn a_learner_is_not_near_before_it_has_fetched_everything_once_however_few_leaves_that_is() {
    let mut pull = pull(PullPurpose::Learn, 1);
    step(&mut pull, PullInput::Tick);
    let from = member(1);
    step(&mut pull, compared(1, 5, &[7]));
    assert_eq!(pull.difference(), Some(SMALL_DIFFERENCE + 1), "one leaf may hold everything");
    let next = Some(PageCursor(bytes::Bytes::from_static(b"k")));
    step(&mut pull, PullInput::Merged { from, next });
    assert_eq!(pull.difference(), Some(SMALL_DIFFERENCE + 1));
    step(&mut pull, PullInput::Merged { from, next: None });
    assert_eq!(pull.difference(), Some(0));
    // From then on it only falls behind by what is written meanwhile.
    step(&mut pull, PullInput::Tick);
    step(&mut pull, compared(2, 5, &[7]));
    assert_eq!(pull.difference(), Some(1));
}

#[test]
fn a_silent_source_is_set_aside_and_a_silent_cluster_asked_ever_more_slowly() {
    let mut pull = pull(PullPurpose::Merge, 2);
    let mut rests = Vec::new();
    for _ in 0..12 {
        let before = pull.wake_at();
        step(&mut pull, PullInput::Tick);
        rests.push(pull.wake_at().saturating_sub(before));
    }
    assert!(rests.contains(&CopyTiming::default().retry));
    assert!(rests.contains(&(CopyTiming::default().retry * 2)));
}
