//! Hostile bytes in the small files of a data directory.

use std::fs;
use std::path::Path;

use triad_fuzz::Target;
use triad_replica::member::StoreId;
use triad_ring::{Incarnation, NodeId};

use super::floor::Floor;
use super::key;
use super::loss::{LossReason, StoreLoss};
use super::store::Owner;
use crate::platform::OperatingSystem;

/// Attacks what reads a file; `load` says what it has read by writing it again.
fn attack_file(
    name: &'static str,
    file: &str,
    examples: Vec<Vec<u8>>,
    load: impl Fn(&Path) -> bool,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file);
    Target::new(name, examples).attack(|bytes| {
        fs::write(&path, bytes).unwrap();
        load(dir.path()).then(|| fs::read(&path).unwrap())
    });
}

fn written(file: &str, save: impl Fn(&Path)) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path());
    fs::read(dir.path().join(file)).unwrap()
}

#[test]
fn floors_and_losses() {
    let incarnation = Incarnation::new(9);
    let store = Some(StoreId::from_bytes([7; 16]));
    let floors = [Floor { store, incarnation }, Floor { store: None, incarnation }];
    let floors = floors.map(|floor| written("floor", |dir| floor.save(dir).unwrap()));
    attack_file("Floor::parse", "floor", floors.into(), |dir| {
        Floor::load(dir).unwrap().is_some_and(|floor| floor.save(dir).is_ok())
    });

    let loss = |place: Option<&str>| StoreLoss {
        reason: LossReason::Cloned,
        why: "it is a copy".to_owned(),
        at: 1_700_000_000,
        quarantine: place.map(Into::into),
    };
    let losses = [loss(None), loss(Some("quarantine-1"))];
    let losses = losses.map(|loss| written("store-lost", |dir| loss.save(dir).unwrap()));
    attack_file("StoreLoss::load", "store-lost", losses.into(), |dir| {
        StoreLoss::load(dir).unwrap().is_some_and(|loss| loss.save(dir).is_ok())
    });
}

#[test]
fn keys_and_owners() {
    attack_file("key::load", "node.key", vec![vec![5; 32]], |dir| {
        key::load_or_create(&OperatingSystem, dir).is_ok()
    });
    let owner = Owner {
        store: StoreId::from_bytes([1; 16]),
        node: NodeId::from_bytes([2; 16]),
        incarnation: Incarnation::new(3),
    };
    Target::new("Owner::decode", [owner.encode()])
        .canonical()
        .attack(|bytes| Some(Owner::decode(bytes.to_vec().into())?.encode().to_vec()));
}
