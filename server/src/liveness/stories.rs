//! What happens to networks of detectors.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::Liveness::{Alive, Down, Suspect};
use super::network::{Network, Random};
use super::roster::PINGS;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn all_alive(network: &Network) -> bool {
    let pairs = (0..network.size).flat_map(|at| (0..network.size).map(move |of| (at, of)));
    pairs.filter(|(at, of)| at != of).all(|(at, of)| network.belief(at, of) == Alive)
}

#[test]
fn a_dead_node_is_suspected_and_down_in_seconds_everywhere() {
    for (seed, size) in [(1, 2), (2, 3), (3, 5), (4, 9)] {
        let mut network = Network::settled(seed, size);
        assert!(all_alive(&network));
        network.kill(0);
        network.run(Duration::from_millis(2_600));
        assert!((1..size).all(|at| network.belief(at, 0) == Suspect), "{size} nodes");
        network.run(Duration::from_millis(2_900));
        assert!((1..size).all(|at| network.belief(at, 0) == Down), "{size} nodes");
        assert_eq!(network.declared_down().len(), size - 1, "nobody else");
        network.start(0, 2);
        network.run(seconds(2));
        assert!(all_alive(&network), "back in {size} nodes");
    }
}

#[test]
fn the_last_of_three_sees_both_others_down() {
    let mut network = Network::settled(1, 3);
    network.kill(0);
    network.kill(2);
    network.run(seconds(8));
    assert_eq!([network.belief(1, 0), network.belief(1, 2)], [Down, Down]);
}

#[test]
fn a_cut_between_two_is_no_death_while_a_third_sees_both() {
    let mut network = Network::settled(5, 3);
    network.cut_between(0, 1);
    network.run(seconds(300));
    assert_eq!([network.belief(0, 1), network.belief(1, 0)], [Suspect, Suspect]);
    assert_eq!([network.belief(0, 2), network.belief(2, 1)], [Alive, Alive]);
    assert_eq!(network.declared_down(), []);
    assert!(network.detector(0).shows_life(super::network::id(1)), "its removal is refused");
    assert!(network.detector(0).silent_for(super::network::id(1), network.now()) < seconds(2));
    // It restarts while cut off, and that is heard of, too.
    network.kill(1);
    network.run(seconds(10));
    assert_eq!(network.belief(0, 1), Down);
    network.start(1, 2);
    network.run(seconds(5));
    assert_eq!([network.belief(0, 1), network.belief(2, 1)], [Suspect, Alive]);
    network.cut.clear();
    network.run(seconds(3));
    assert!(all_alive(&network));
}

#[test]
fn a_link_that_carries_one_way_is_no_death() {
    let mut network = Network::settled(6, 2);
    network.cut.insert((0, 1));
    network.run(seconds(60));
    // 1 hears nothing at all; 0 hears 1's pings, and knows that its own are not answered.
    assert_eq!([network.belief(0, 1), network.belief(1, 0)], [Suspect, Down]);
    let mut network = Network::settled(6, 3);
    network.cut.insert((0, 1));
    network.run(seconds(60));
    assert_eq!([network.belief(0, 1), network.belief(1, 0)], [Suspect, Suspect]);
}

#[test]
fn thirty_per_cent_loss_for_long_declares_nobody_down() {
    for (seed, size, minutes) in [(1, 2, 60), (2, 3, 30), (3, 5, 10)] {
        let mut network = Network::settled(seed, size);
        network.loss = 300;
        network.run(seconds(minutes * 60));
        assert_eq!(network.declared_down(), [], "{size} nodes");
        network.loss = 0;
        network.run(seconds(3));
        assert!(all_alive(&network));
    }
}

#[test]
fn who_stood_still_accuses_nobody_and_is_found_again() {
    for (seed, pause) in [(1, 700), (2, 1_500), (3, 2_900), (4, 9_000), (5, 40_000)] {
        let mut network = Network::settled(seed, 4);
        let pause = Duration::from_millis(pause);
        network.pause(0, pause);
        network.run(pause);
        let down = (1..4).filter(|at| network.belief(*at, 0) == Down).count();
        assert_eq!(down, if pause > seconds(6) { 3 } else { 0 }, "{pause:?}");
        network.run(seconds(4));
        assert!(all_alive(&network), "{pause:?}");
        assert!(network.declared_down().iter().all(|(_, at, of)| *at != 0 && *of == 0));
    }
}

#[test]
fn a_slow_network_is_not_a_dead_one() {
    let mut network = Network::settled(7, 5);
    network.changes.clear();
    network.delay = (350_000, 200_000);
    network.run(seconds(120));
    let changes = network.changes.iter().filter(|(_, _, change)| change.now != Alive).count();
    assert_eq!(changes, 0, "suspected for round trips of 0.7 to 1.1 s: {:?}", network.changes);
}

#[test]
fn work_is_bounded_in_a_large_network_and_a_neighbour_is_missed_soon() {
    let size = 140;
    let mut network = Network::settled(8, size);
    network.run(seconds(10));
    network.near = (1..13).map(|near| (0, near)).collect();
    network.pings = 0;
    network.run(seconds(10));
    let most = (size * PINGS) as u64 * 23;
    assert!(network.pings <= most, "{} pings, at most {most}", network.pings);
    assert!(all_alive(&network));
    network.kill(12);
    network.run(seconds(7));
    assert_eq!(network.belief(0, 12), Down, "a member of shared shards");
    network.run(seconds(7));
    assert!((0..size).filter(|at| *at != 12).all(|at| network.belief(at, 12) == Down));
    // Half of all die at once.
    (70..size).for_each(|at| network.kill(at));
    network.run(seconds(40));
    for at in (0..70).filter(|at| *at != 12) {
        assert!((70..size).all(|of| network.belief(at, of) == Down), "{at}");
        let mut others = (0..70).filter(|of| *of != at && *of != 12);
        assert!(others.all(|of| network.belief(at, of) == Alive), "{at}");
    }
}

#[test]
fn a_quiet_network_of_five_costs_eight_pings_a_second_and_node() {
    let mut network = Network::settled(9, 5);
    network.pings = 0;
    network.helpers_asked = 0;
    network.run(seconds(100));
    assert!((3_900..4_100).contains(&network.pings), "{}", network.pings);
    assert_eq!(network.helpers_asked, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Nobody is declared down whom somebody else reaches; who is dead, or reached by nobody whom
    /// one reaches, is down within a bound.
    #[test]
    fn down_means_that_no_other_reaches_it(
        seed in any::<u64>(),
        size in 3_usize..8,
        cuts in 0_usize..14,
        dies in any::<bool>(),
    ) {
        let mut network = Network::settled(seed, size);
        let mut random = Random(seed);
        let mut pick = || random.below(size as u64) as usize;
        for _ in 0..cuts {
            let (a, b) = (pick(), pick());
            if a != b {
                network.cut_between(a, b);
            }
        }
        let dead: BTreeSet<usize> = dies.then_some(0).into_iter().collect();
        dead.iter().for_each(|at| network.kill(*at));
        network.run(seconds(40));
        let linked = |a: usize, b: usize| {
            !network.cut.contains(&(a, b)) && !dead.contains(&a) && !dead.contains(&b)
        };
        for (at, of) in (0..size).flat_map(|at| (0..size).map(move |of| (at, of))) {
            if at == of || dead.contains(&at) {
                continue;
            }
            let through = (0..size).any(|via| via != at && via != of && linked(at, via) && linked(via, of));
            let expected = match (linked(at, of), through) {
                (true, _) => Alive,
                (false, true) => Suspect,
                (false, false) => Down,
            };
            prop_assert_eq!(network.belief(at, of), expected, "{} of {}", at, of);
            let ever_down = network.declared_down().iter().any(|(_, a, o)| (*a, *o) == (at, of));
            prop_assert_eq!(ever_down, expected == Down, "{} of {}", at, of);
        }
    }
}
