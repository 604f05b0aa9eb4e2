//! The cases: which scenarios are explored, and in which bounds.

use super::scenario::{Budget, NOTHING, Returns, Scenario, USUAL};
use super::step::RingModel;
use crate::{Case, exhaust, walk};

/// The cases of this model.
pub const CASES: &[Case] = &[
    Case {
        name: "ring: a join",
        bounds: "3 nodes and 1 that joins, every delay of every message, 3 letters under way",
        wide: false,
        run: |mutant| exhaust(RingModel::new(Scenario { swift: false, ..JOIN }, mutant)),
    },
    Case {
        name: "ring: growth",
        bounds: "1 node and 2 that join, questions arrive at once, 3 letters under way",
        wide: false,
        run: |mutant| exhaust(RingModel::new(GROWTH, mutant)),
    },
    Case {
        name: "ring: two joins",
        bounds: "3 nodes and 2 that join in one place, questions arrive at once, 1 letter under way",
        wide: false,
        run: |mutant| exhaust(RingModel::new(JOINS, mutant)),
    },
    Case {
        name: "ring: lost and late answers",
        bounds: "3 nodes, 1 joins, 1 answer is late, questions arrive at once, 3 letters under way",
        wide: false,
        run: |mutant| exhaust(RingModel::new(LATE, mutant)),
    },
    Case {
        name: "ring: a death",
        bounds: "3 nodes, 1 dies, questions arrive at once, 2 letters under way",
        wide: false,
        run: |mutant| exhaust(RingModel::new(DEATH, mutant)),
    },
    Case {
        name: "ring: a return",
        bounds: "3 nodes, 1 dies and joins again, questions arrive at once, 1 letter under way",
        wide: false,
        run: |mutant| exhaust(RingModel::new(RETURN, mutant)),
    },
    Case {
        name: "ring: a leave",
        bounds: "3 nodes, 1 leaves and joins again, questions arrive at once, 1 letter under way",
        wide: false,
        run: |mutant| exhaust(RingModel::new(LEAVE, mutant)),
    },
    Case {
        name: "ring: a restart",
        bounds: "3 nodes, 1 dies and resumes alone, 1 meeting, questions arrive at once, 1 letter under way",
        wide: false,
        run: |mutant| exhaust(RingModel::new(RESTART, mutant)),
    },
    Case {
        name: "ring: two rings meet",
        bounds: "2 rings of 2 nodes, 1 meeting, questions arrive at once, 2 letters under way",
        wide: false,
        run: |mutant| exhaust(RingModel::new(REUNION, mutant)),
    },
    Case {
        name: "ring: turmoil",
        bounds: "6 nodes with 2 positions, 3 join, 3 deaths, 1 leave, 3 returns, 6 early timeouts, fingers, walks of 250 steps",
        wide: false,
        run: |mutant| walk(&RingModel::new(TURMOIL, mutant), 40, 250),
    },
    Case {
        name: "ring: growth, every delay",
        bounds: "1 node and 2 that join, every delay of every message",
        wide: true,
        run: |mutant| {
            exhaust(RingModel::new(Scenario { swift: false, letters: 9, ..GROWTH }, mutant))
        },
    },
    Case {
        name: "ring: a return among four",
        bounds: "4 nodes, 1 dies and joins again, questions arrive at once, 2 letters under way",
        wide: true,
        run: |mutant| exhaust(RingModel::new(FOUR, mutant)),
    },
    Case {
        name: "ring: a restart, more under way",
        bounds: "3 nodes, 1 dies and resumes alone, 1 meeting, questions arrive at once, 2 letters under way",
        wide: true,
        run: |mutant| exhaust(RingModel::new(Scenario { letters: 2, ..RESTART }, mutant)),
    },
    Case {
        name: "ring: long turmoil",
        bounds: "as turmoil, walks of 1,000 steps",
        wide: true,
        run: |mutant| walk(&RingModel::new(TURMOIL, mutant), 500, 1_000),
    },
];

const JOIN: Scenario = Scenario { budget: Budget { joins: 1, ..NOTHING }, letters: 3, ..USUAL };

const GROWTH: Scenario = Scenario {
    nodes: 3,
    rings: &[&[0]],
    principals: 1,
    budget: Budget { joins: 2, ..NOTHING },
    ..USUAL
};

const JOINS: Scenario =
    Scenario { nodes: 5, letters: 1, budget: Budget { joins: 2, ..NOTHING }, ..USUAL };

const LATE: Scenario =
    Scenario { budget: Budget { joins: 1, timeouts: 1, ..NOTHING }, late_answers: true, ..USUAL };

const DEATH: Scenario = Scenario {
    nodes: 3,
    principals: 2,
    letters: 2,
    budget: Budget { crashes: 1, ..NOTHING },
    ..USUAL
};

const RETURN: Scenario =
    Scenario { letters: 1, budget: Budget { crashes: 1, returns: 1, ..NOTHING }, ..DEATH };

const FOUR: Scenario =
    Scenario { nodes: 4, rings: &[&[0, 1, 2, 3]], principals: 3, letters: 2, ..RETURN };

const LEAVE: Scenario =
    Scenario { letters: 1, budget: Budget { leaves: 1, returns: 1, ..NOTHING }, ..DEATH };

const RESTART: Scenario = Scenario {
    principals: 0,
    letters: 1,
    budget: Budget { crashes: 1, returns: 1, meetings: 1, ..NOTHING },
    returns: Returns::Resume,
    ..DEATH
};

const REUNION: Scenario = Scenario {
    rings: &[&[0, 2], &[1, 3]],
    principals: 0,
    letters: 2,
    budget: Budget { meetings: 1, ..NOTHING },
    ..USUAL
};

const TURMOIL: Scenario = Scenario {
    virtual_nodes: 2,
    nodes: 6,
    entries: 0,
    replication_factor: 1,
    budget: Budget { joins: 3, crashes: 3, leaves: 1, returns: 3, timeouts: 6, ..NOTHING },
    late_answers: true,
    swift: false,
    letters: 24,
    haste: true,
    ..USUAL
};
