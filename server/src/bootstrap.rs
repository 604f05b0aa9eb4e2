//! Make a cluster, join one, or wait: what a node without a cluster does (design §3, bootstrap).
//!
//! The danger is a second cluster: a node whose disk was lost must not found a new one
//! while its seeds cannot be reached. So a node with seeds founds a cluster only when
//! *every* other seed answered that it has none.

use triad_ring::{ClusterId, NodeId};

/// What one seed address answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SeedAnswer {
    /// The address leads back to this node.
    Myself,
    /// Nobody answered: unresolved, refused, timed out.
    Silent { why: String },
    /// A node without a cluster.
    NoCluster { node: NodeId, name: String, may_bootstrap: bool },
    /// A member of a cluster.
    Cluster { id: ClusterId, name: String },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Found a cluster of one node.
    Create,
    /// Ask this seed (index into the answers) for admission.
    Join { seed: usize },
    /// Ask again soon; the reasons are shown by readiness and the log.
    Wait { why: Vec<String> },
}

/// Decides from one round of answers. `answers[i]` belongs to `seeds[i]`.
pub(crate) fn decide(
    cluster_name: &str,
    may_bootstrap: bool,
    seeds: &[String],
    answers: &[SeedAnswer],
) -> Step {
    match find_cluster(cluster_name, seeds, answers) {
        Err(why) => Step::Wait { why: vec![why] },
        Ok(Some(seed)) => Step::Join { seed },
        Ok(None) if may_bootstrap => create_unless(obstacles(seeds, answers)),
        Ok(None) => Step::Wait { why: waiting(seeds, answers) },
    }
}

/// The seed to join through; an error when the answers contradict each other.
fn find_cluster(
    cluster_name: &str,
    seeds: &[String],
    answers: &[SeedAnswer],
) -> Result<Option<usize>, String> {
    let mut found: Option<(usize, ClusterId)> = None;
    for (index, answer) in answers.iter().enumerate() {
        let SeedAnswer::Cluster { id, name } = answer else {
            continue;
        };
        if name != cluster_name {
            return Err(format!(
                "seed {} belongs to cluster `{name}`, this node is configured for `{cluster_name}` (cluster.name)",
                seeds[index]
            ));
        }
        match found {
            Some((first, other)) if other != *id => {
                return Err(format!(
                    "seeds {} and {} belong to different clusters ({other} and {id}): list the seeds of one",
                    seeds[first], seeds[index]
                ));
            }
            Some(_) => {}
            None => found = Some((index, *id)),
        }
    }
    Ok(found.map(|(index, _)| index))
}

fn create_unless(obstacles: Vec<String>) -> Step {
    if obstacles.is_empty() { Step::Create } else { Step::Wait { why: obstacles } }
}

/// What keeps a node that may bootstrap from doing so.
fn obstacles(seeds: &[String], answers: &[SeedAnswer]) -> Vec<String> {
    seeds
        .iter()
        .zip(answers)
        .filter_map(|(seed, answer)| match answer {
            SeedAnswer::Silent { why } => Some(format!(
                "seed {seed} has not answered ({why}): a cluster is only made when every seed says that it has none"
            )),
            SeedAnswer::NoCluster { name, may_bootstrap: true, .. } => Some(format!(
                "seed {seed} (node {name}) may bootstrap too: set cluster.bootstrap on one node only"
            )),
            _ => None,
        })
        .collect()
}

/// What a node that may not bootstrap waits for.
fn waiting(seeds: &[String], answers: &[SeedAnswer]) -> Vec<String> {
    let others = answers.iter().any(|answer| *answer != SeedAnswer::Myself);
    if !others {
        return vec![
            "no other seed is configured: set cluster.seeds to join a cluster, or cluster.bootstrap = true to make one"
                .to_owned(),
        ];
    }
    seeds
        .iter()
        .zip(answers)
        .filter_map(|(seed, answer)| match answer {
            SeedAnswer::Silent { why } => Some(format!("seed {seed} has not answered ({why})")),
            SeedAnswer::NoCluster { name, .. } => {
                Some(format!("seed {seed} (node {name}) has no cluster yet"))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(count: usize) -> Vec<String> {
        (1..=count).map(|i| format!("node{i}:7421")).collect()
    }

    fn silent() -> SeedAnswer {
        SeedAnswer::Silent { why: "connection refused".to_owned() }
    }

    fn empty(may_bootstrap: bool) -> SeedAnswer {
        SeedAnswer::NoCluster {
            node: NodeId::from_bytes([2; 16]),
            name: "node2".to_owned(),
            may_bootstrap,
        }
    }

    fn cluster(id: u8) -> SeedAnswer {
        SeedAnswer::Cluster { id: ClusterId::from_bytes([id; 16]), name: "triad".to_owned() }
    }

    fn waits_for(step: &Step, word: &str) -> bool {
        matches!(step, Step::Wait { why } if why.iter().any(|reason| reason.contains(word)))
    }

    #[test]
    fn without_seeds_a_bootstrap_node_makes_the_cluster_at_once() {
        assert_eq!(decide("triad", true, &[], &[]), Step::Create);
        assert_eq!(decide("triad", true, &seeds(1), &[SeedAnswer::Myself]), Step::Create);
    }

    #[test]
    fn an_unreachable_seed_forbids_a_second_cluster() {
        let step = decide("triad", true, &seeds(3), &[SeedAnswer::Myself, empty(false), silent()]);
        assert!(waits_for(&step, "node3:7421"), "{step:?}");
    }

    #[test]
    fn three_empty_nodes_make_one_cluster() {
        let bootstrap =
            decide("triad", true, &seeds(3), &[SeedAnswer::Myself, empty(false), empty(false)]);
        assert_eq!(bootstrap, Step::Create);
        let other =
            decide("triad", false, &seeds(3), &[empty(true), SeedAnswer::Myself, empty(false)]);
        assert!(waits_for(&other, "no cluster yet"));
        let later = decide("triad", false, &seeds(3), &[cluster(1), SeedAnswer::Myself, silent()]);
        assert_eq!(later, Step::Join { seed: 0 });
    }

    #[test]
    fn two_that_may_bootstrap_refuse_each_other() {
        let step = decide("triad", true, &seeds(2), &[SeedAnswer::Myself, empty(true)]);
        assert!(waits_for(&step, "may bootstrap too"));
    }

    #[test]
    fn an_existing_cluster_is_joined_even_by_a_bootstrap_node() {
        let step = decide("triad", true, &seeds(2), &[SeedAnswer::Myself, cluster(1)]);
        assert_eq!(step, Step::Join { seed: 1 });
    }

    #[test]
    fn seeds_of_two_clusters_and_other_names_are_refused() {
        let step = decide("triad", false, &seeds(2), &[cluster(1), cluster(2)]);
        assert!(waits_for(&step, "different clusters"));
        let step = decide("music", false, &seeds(1), &[cluster(1)]);
        assert!(waits_for(&step, "cluster.name"));
    }
}
