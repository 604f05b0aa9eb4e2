use proptest::prelude::*;

use super::*;
use crate::member::StoreId;

fn member(name: u8) -> Member {
    Member { node: NodeId::from_bytes([name; 16]), store: StoreId::from_bytes([name; 16]) }
}

fn side() -> impl Strategy<Value = Vec<Member>> {
    proptest::collection::btree_set(0_u8..40, 1..6)
        .prop_map(|names| names.into_iter().map(member).collect())
}

prop_compose! {
    fn any_configuration()(
        shard in any::<u32>(),
        lineage in any::<u32>(),
        number in any::<u64>(),
        old in side(),
        new in side(),
        joint in any::<bool>(),
        retired in side(),
    ) -> Configuration {
        let phase = if joint && old != new {
            Phase::Joint { old, new }
        } else {
            Phase::Stable { members: old }
        };
        let epoch = Epoch { lineage, number };
        Configuration { shard: ShardId::new(shard), epoch, phase, gc_epoch: Epoch::NONE, collected: None, retired }
    }
}

proptest! {
    #[test]
    fn a_configuration_reads_back(configuration in any_configuration()) {
        let row = configuration.encode();
        prop_assert_eq!(Configuration::decode(&row), Ok(configuration.clone()));
        for end in 0..row.len() {
            prop_assert!(Configuration::decode(&row[..end]).is_err());
        }
        let mut members = configuration.members();
        let distinct: BTreeSet<_> = members.iter().copied().collect();
        prop_assert_eq!(distinct.len(), members.len());
        members.retain(|member| !configuration.is_member(member));
        prop_assert!(members.is_empty());
    }

    #[test]
    fn garbage_never_panics(row in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Configuration::decode(&row);
    }

    #[test]
    fn previous_is_below_and_next_above(lineage in 0_u32..3, number in 0_u64..5) {
        let epoch = Epoch { lineage, number };
        prop_assert!(epoch.next() > epoch);
        prop_assert!(epoch.previous() < epoch || epoch <= Epoch::FIRST);
        prop_assert_eq!(epoch.next().previous() == epoch, number > 0 || lineage == 0 );
        prop_assert_eq!(epoch.to_string().parse(), Ok(epoch));
    }
}

#[test]
fn broken_rules_are_named() {
    let of =
        |phase| Configuration { phase, ..Configuration::bootstrap(ShardId::new(1), member(1)) };
    let stable = |members| of(Phase::Stable { members }).validated();
    assert_eq!(stable(vec![]), Err(BadConfiguration::NoMembers));
    let twice = vec![member(1), Member { store: member(2).store, ..member(1) }];
    assert_eq!(stable(twice), Err(BadConfiguration::SameNodeTwice(member(1).node)));
    let many = (0..=MAX_MEMBERS as u8).map(member).collect();
    assert_eq!(stable(many), Err(BadConfiguration::TooManyMembers(MAX_MEMBERS + 1)));
    let (old, new) = (vec![member(1), member(2)], vec![member(2), member(1)]);
    assert_eq!(of(Phase::Joint { old, new }).validated(), Err(BadConfiguration::NoMove));
}

#[test]
fn a_replaced_store_is_another_member_of_the_same_node() {
    let wiped = Member { store: member(9).store, ..member(3) };
    let joint = Configuration {
        phase: Phase::Joint { old: vec![member(3)], new: vec![wiped] },
        ..Configuration::bootstrap(ShardId::new(1), member(3))
    };
    let joint = joint.validated().expect("sides may share a node");
    assert_eq!(joint.newcomers().collect::<Vec<_>>(), vec![wiped]);
    assert!(!Configuration::bootstrap(ShardId::new(1), member(3)).is_member(&wiped));
}

#[test]
fn a_text_that_is_no_epoch_is_refused() {
    for text in ["", "1", "1.", ".1", "1.x", "-1.2", "1.2.3"] {
        assert!(text.parse::<Epoch>().is_err(), "{text}");
    }
}
