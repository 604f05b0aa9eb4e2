//! What must hold in every state: R1 to R5 as `triad_ring::invariant` states them, and that the ring
//! becomes ideal from here when nothing more goes wrong.

use stateright::Property;
use triad_ring::RingId;
use triad_ring::invariant::{
    Violation, busy_while_asking, distinct_nodes, enough_principals, failed_stay_out,
    is_unknown_to, live_successor_of,
};

use super::scenario::name_of;
use super::step::RingModel;
use super::world::{Process, World};

pub(super) fn all() -> Vec<Property<RingModel>> {
    vec![
        Property::always("R1 a live successor", |model: &RingModel, world: &World| {
            model.with_mutant(|| r1(world)).is_ok()
        }),
        Property::always("R2 enough principals", |model: &RingModel, world: &World| {
            model.with_mutant(|| r2(model, world)).is_ok()
        }),
        Property::always("R3 busy while asking", |model: &RingModel, world: &World| {
            model.with_mutant(|| r3(world)).is_ok()
        }),
        Property::always("R4 the failed stay out", |model: &RingModel, world: &World| {
            model.with_mutant(|| r4(world)).is_ok()
        }),
        Property::always("R5 distinct nodes", |model: &RingModel, world: &World| {
            model.with_mutant(|| r5(model, world)).is_ok()
        }),
        Property::always("ideal when quiet", |model: &RingModel, world: &World| {
            model.with_mutant(|| model.becomes_ideal(world)).is_ok()
        }),
    ]
}

/// Who was started as a ring of its own has no successor to lose yet.
fn r1(world: &World) -> Result<(), Violation> {
    let nodes = world.nodes();
    let mut together = world.running().filter(|at| !world.lonely.contains(at));
    together.try_for_each(|at| match world.node(at) {
        Some(node) => live_successor_of(node, &nodes),
        None => Ok(()),
    })
}

fn r2(model: &RingModel, world: &World) -> Result<(), Violation> {
    enough_principals(&world.nodes(), model.scenario.principals)
}

fn r3(world: &World) -> Result<(), Violation> {
    world.nodes().into_iter().try_for_each(busy_while_asking)
}

/// By what the node holds of others, and by what it was told of the dead.
fn r4(world: &World) -> Result<(), Violation> {
    world.nodes().into_iter().try_for_each(failed_stay_out)?;
    for (at, other) in &world.declared {
        if let (Some(node), Process::Down) = (world.node(*at), &world.processes[*other]) {
            is_unknown_to(node, name_of(*other))?;
        }
    }
    Ok(())
}

fn r5(model: &RingModel, world: &World) -> Result<(), Violation> {
    // With one position a node, no list can name a node twice.
    if model.scenario.virtual_nodes == 1 {
        return Ok(());
    }
    for node in world.nodes() {
        let view = node.view();
        for member in view.virtual_nodes() {
            distinct_nodes(&view, RingId::new(member.id.get()), model.scenario.nodes)?;
        }
    }
    Ok(())
}
