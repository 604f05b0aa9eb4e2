//! Running a model: every state within its bounds, or many seeds.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// More states than any case has: one that comes to so many is not bounded as it says.
const MOST_STATES: usize = 200_000_000;

/// `TRIAD_MODELS_STATES` ends a search earlier, while bounds are looked for.
fn most_states() -> usize {
    let told = std::env::var("TRIAD_MODELS_STATES").ok().and_then(|text| text.parse().ok());
    told.unwrap_or(MOST_STATES)
}

/// How a case searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    /// Every state within the bounds was visited.
    Exhaustive,
    /// There were too many.
    Incomplete,
    /// So many random walks were taken, by the seeds from 0 up to this.
    Seeds(u64),
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it searched.
    pub search: Search,
    /// Distinct states; of random walks, steps.
    pub states: usize,
    /// The longest way from the first state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// A rule that was broken, and by which steps.
    pub broken: Option<Broken>,
    /// What the model was made to meet and did not.
    pub unmet: Vec<&'static str>,
}

/// How a rule was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The property.
    pub rule: String,
    /// The seed of a random walk.
    pub seed: Option<u64>,
    /// From the first state, one action each.
    pub steps: Vec<String>,
}

impl Outcome {
    /// Whether all rules were kept, everything was met, and the search was ended.
    pub fn holds(&self) -> bool {
        self.broken.is_none() && self.unmet.is_empty() && self.search != Search::Incomplete
    }
}

/// Visits every state of a model, breadth first, until a rule is broken.
pub fn exhaust<M>(model: M) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send,
{
    let begun = Instant::now();
    let goals: Vec<(&str, bool)> = model
        .properties()
        .iter()
        .map(|property| (property.name, property.expectation == Expectation::Sometimes))
        .collect();
    let checker = model.checker().threads(1).target_state_count(most_states());
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let took = begun.elapsed();
    let found = checker.discoveries();
    let unmet = goals.iter().filter(|(name, goal)| *goal && !found.contains_key(name));
    let unmet = unmet.map(|(name, _)| *name).collect();
    let mut rules = goals.iter().filter(|(_, goal)| !goal);
    let broken = rules.find_map(|(name, _)| Some((name, found.get(name)?.clone())));
    Outcome {
        search: if checker.state_count() < most_states() {
            Search::Exhaustive
        } else {
            Search::Incomplete
        },
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        unmet: if broken.is_some() { Vec::new() } else { unmet },
        broken: broken.map(|(rule, path)| Broken {
            rule: (*rule).to_owned(),
            seed: None,
            steps: steps(path),
        }),
    }
}

fn steps<S, A: Debug>(path: Path<S, A>) -> Vec<String> {
    path.into_vec().into_iter().filter_map(|(_, action)| Some(format!("{:?}", action?))).collect()
}

/// Takes random walks of `length` steps by the seeds from 0, until a rule is broken.
pub fn walk<M: Model>(model: &M, seeds: u64, length: usize) -> Outcome
where
    M::State: Clone,
    M::Action: Debug + Clone,
{
    let begun = Instant::now();
    let properties = model.properties();
    let (rules, goals): (Vec<_>, Vec<_>) =
        properties.iter().partition(|property| property.expectation == Expectation::Always);
    let mut unmet: Vec<_> = goals;
    let mut outcome = Outcome {
        search: Search::Seeds(seeds),
        states: 0,
        depth: 0,
        took: Duration::ZERO,
        broken: None,
        unmet: Vec::new(),
    };
    'seeds: for seed in 0..seeds {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66);
        let mut steps = Vec::new();
        let mut actions = Vec::new();
        let Some(mut state) = model.init_states().into_iter().next() else {
            break;
        };
        for _ in 0..length {
            actions.clear();
            model.actions(&state, &mut actions);
            if actions.is_empty() {
                break;
            }
            let action = actions.swap_remove(random.below(actions.len()));
            let Some(next) = model.next_state(&state, action.clone()) else {
                continue;
            };
            steps.push(action);
            state = next;
            outcome.states += 1;
            outcome.depth = outcome.depth.max(steps.len());
            unmet.retain(|goal| !(goal.condition)(model, &state));
            if let Some(rule) = rules.iter().find(|rule| !(rule.condition)(model, &state)) {
                let rule = rule.name.to_owned();
                let steps = steps.iter().map(|action| format!("{action:?}")).collect();
                outcome.broken = Some(Broken { rule, seed: Some(seed), steps });
                outcome.search = Search::Seeds(seed + 1);
                break 'seeds;
            }
        }
    }
    outcome.took = begun.elapsed();
    if outcome.broken.is_none() {
        outcome.unmet = unmet.iter().map(|goal| goal.name).collect();
    }
    outcome
}

/// A small seeded generator (splitmix64), so that a seed is a walk on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed % limit.max(1) as u64) as usize
    }
}
