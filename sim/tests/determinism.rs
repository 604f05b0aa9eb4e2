//! One seed, one story.

use triad_sim::story::{Plan, run};
use triad_sim::trace::Trace;

#[test]
fn one_seed_tells_one_story_and_another_seed_another() {
    let tell = |seed| {
        let trace = Trace::complete();
        let report = run(&Plan::short(seed), trace.clone()).expect("a place for small files");
        (trace.all(), report)
    };
    for seed in [1, 2] {
        let ((first, one), (second, two)) = (tell(seed), tell(seed));
        let parted = first.iter().zip(&second).position(|(one, two)| one != two);
        if let Some(at) = parted {
            let from = at.saturating_sub(20);
            panic!(
                "seed {seed} parts at event {at}:\n{:#?}\n{:#?}",
                &first[from..=at],
                &second[from..=at]
            );
        }
        assert_eq!(one.trace, two.trace, "seed {seed}");
    }
    assert_ne!(tell(1).1.trace, tell(2).1.trace);
}
