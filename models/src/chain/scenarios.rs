//! The bounds that are searched.

use triad_ring::mutant::Mutant;

use super::{Goal, QUIET, Scenario, Write};
use crate::{Case, exhaust, walk};

/// The cases of this model.
pub const CASES: &[Case] = &[
    Case {
        name: "chain: one replaces the other",
        bounds: "A -> B, 3 epochs, 3 ballots, 1 driver that may be stale, 1 write with 1 retry",
        wide: false,
        run: |mutant| exhaust(REPLACED.without(mutant)),
    },
    Case {
        name: "chain: given up, then again",
        bounds: "A -> B, 5 epochs, 4 ballots, 1 driver, 1 write",
        wide: false,
        run: |mutant| exhaust(REPLACED_TWICE.without(mutant)),
    },
    Case {
        name: "chain: there and back",
        bounds: "A -> B -> A with hand-overs, 5 epochs, 4 ballots, 1 driver, 2 writes",
        wide: true,
        run: |mutant| exhaust(THERE_AND_BACK.without(mutant)),
    },
    Case {
        name: "chain: growth from one",
        bounds: "A -> AB -> ABC, 5 epochs, 4 ballots, 1 driver, 1 write",
        wide: true,
        run: |mutant| exhaust(GROWTH.without(mutant)),
    },
    Case {
        name: "chain: one of three",
        bounds: "ABC -> ABX, 3 epochs, 2 ballots, 1 driver, 1 write",
        wide: true,
        run: |mutant| exhaust(ONE_OF_THREE.without(mutant)),
    },
    Case {
        name: "chain: one of three, forward",
        bounds: "ABC -> ABX, 3 epochs, 2 ballots with the promises of A and C, 1 driver, 1 write coordinated by B",
        wide: false,
        run: |mutant| exhaust(FORWARD.without(mutant)),
    },
    Case {
        name: "chain: one of three leaves",
        bounds: "ABC -> AB, 3 epochs, 2 ballots with the promises of A and B, 1 driver, 1 write coordinated by C, hand-overs",
        wide: false,
        run: |mutant| exhaust(ONE_LEAVES.without(mutant)),
    },
    Case {
        name: "chain: three, at random",
        bounds: "ABC -> ABX -> ABC, AB, 7 epochs, 9 ballots, 2 drivers, 3 writes with 2 retries, 1 restart, hand-overs; walks of 120 steps",
        wide: false,
        run: |mutant| walk(&THREE.without(mutant), 2_000, 120),
    },
    Case {
        name: "chain: five, at random",
        bounds: "ABCDE -> ABXYE -> XYZ -> ABCDE, 7 epochs, 9 ballots, 2 drivers, 3 writes with 2 retries, 1 store lost; walks of 160 steps",
        wide: false,
        run: |mutant| walk(&FIVE.without(mutant), 1_000, 160),
    },
    Case {
        name: "records: collected alone",
        bounds: "A, 2 epochs, a put, a delete and a put, 1 round",
        wide: false,
        run: |mutant| exhaust(COLLECTED_ALONE.without(mutant)),
    },
    Case {
        name: "records: a restart",
        bounds: "AB, 1 epoch, 2 puts, 1 restart before what was minted is synced",
        wide: false,
        run: |mutant| exhaust(RESTART.without(mutant)),
    },
    Case {
        name: "records: late copies of what is collected",
        bounds: "ABC, 2 epochs, a put that may be a hint for ever, a delete, 1 round, 1 record on its way",
        wide: false,
        run: |mutant| exhaust(LATE_COPIES.without(mutant)),
    },
    Case {
        name: "records: who comes back",
        bounds: "AC -> A -> AC, 7 epochs, a put on both, a delete, 1 round, hand-overs, C written off or not",
        wide: false,
        run: |mutant| exhaust(COMES_BACK.without(mutant)),
    },
    Case {
        name: "records: who leaves",
        bounds: "ABC -> AB, 4 epochs with the promises of A and B, a tombstone on all, a put by C, 1 round",
        wide: false,
        run: |mutant| exhaust(LEAVES.without(mutant)),
    },
    Case {
        name: "records: three, at random",
        bounds: "ABC -> ABX -> ABC, 9 epochs, 4 puts and deletes, 3 rounds, 4 records on their way, hints, 1 restart, hand-overs; walks of 200 steps",
        wide: false,
        run: |mutant| walk(&RECORDS_OF_THREE.without(mutant), 1_000, 200),
    },
];

impl Scenario {
    const fn without(self, mutant: Option<Mutant>) -> Self {
        Self { mutant, ..self }
    }
}

const REPLACED: Scenario = Scenario {
    first: &[0],
    wishes: &[&[1]],
    last_epoch: 3,
    ballots: 3,
    stale_drivers: true,
    writes: &[Write::Add],
    retries: 1,
    drains: true,
    goals: &[Goal::Forward, Goal::AcknowledgedInJoint, Goal::AcknowledgedByRetry, Goal::Purged],
    ..QUIET
};

const REPLACED_TWICE: Scenario = Scenario {
    first: &[0],
    wishes: &[&[1]],
    last_epoch: 5,
    ballots: 4,
    writes: &[Write::Add],
    goals: &[Goal::Forward, Goal::ForwardAfterGivingUp, Goal::AcknowledgedInJoint],
    ..QUIET
};

const THERE_AND_BACK: Scenario = Scenario {
    first: &[0],
    wishes: &[&[1], &[0]],
    last_epoch: 5,
    ballots: 4,
    writes: &[Write::Add, Write::Add],
    drains: true,
    goals: &[Goal::Forward, Goal::Purged],
    ..QUIET
};

const GROWTH: Scenario = Scenario {
    first: &[0],
    wishes: &[&[0, 1], &[0, 1, 2]],
    last_epoch: 5,
    ballots: 4,
    writes: &[Write::Add],
    goals: &[Goal::Forward, Goal::AcknowledgedInJoint],
    ..QUIET
};

const ONE_OF_THREE: Scenario = Scenario {
    first: &[0, 1, 2],
    wishes: &[&[0, 1, 3]],
    last_epoch: 3,
    ballots: 2,
    writes: &[Write::Add],
    goals: &[Goal::Forward, Goal::AcknowledgedInJoint],
    ..QUIET
};

const FORWARD: Scenario = Scenario { promising: &[0, 2], coordinators: &[1], ..ONE_OF_THREE };

const ONE_LEAVES: Scenario = Scenario {
    wishes: &[&[0, 1]],
    promising: &[0, 1],
    coordinators: &[2],
    drains: true,
    goals: &[Goal::Forward, Goal::Purged],
    ..ONE_OF_THREE
};

const THREE: Scenario = Scenario {
    first: &[0, 1, 2],
    wishes: &[&[0, 1, 3], &[0, 1, 2], &[0, 1]],
    last_epoch: 7,
    ballots: 9,
    stale_drivers: true,
    goes_on: true,
    drivers: 2,
    writes: &[Write::Add, Write::Replace, Write::Add],
    retries: 2,
    restarts: 1,
    drains: true,
    goals: &[Goal::Forward, Goal::AcknowledgedInJoint, Goal::AcknowledgedByRetry, Goal::Purged],
    ..QUIET
};

const FIVE: Scenario = Scenario {
    first: &[0, 1, 2, 3, 4],
    wishes: &[&[0, 1, 5, 6, 4], &[5, 6, 7], &[0, 1, 2, 3, 4]],
    last_epoch: 7,
    ballots: 9,
    drivers: 2,
    writes: &[Write::Add, Write::Add, Write::Replace],
    retries: 2,
    losses: 1,
    goals: &[Goal::Forward, Goal::AcknowledgedInJoint, Goal::AcknowledgedByRetry],
    ..QUIET
};

const COLLECTED_ALONE: Scenario = Scenario {
    first: &[0],
    last_epoch: 2,
    drivers: 0,
    writes: &[Write::Add, Write::Delete, Write::Add],
    rounds: 1,
    goals: &[Goal::Collected],
    ..QUIET
};

const RESTART: Scenario = Scenario {
    first: &[0, 1],
    last_epoch: 1,
    ballots: 0,
    writes: &[Write::Add, Write::Add],
    restarts: 1,
    goals: &[],
    ..QUIET
};

const LATE_COPIES: Scenario = Scenario {
    first: &[0, 1, 2],
    last_epoch: 2,
    drivers: 0,
    writes: &[Write::Add, Write::Delete],
    rounds: 1,
    late: 1,
    hints: true,
    goals: &[Goal::Collected],
    ..QUIET
};

const COMES_BACK: Scenario = Scenario {
    first: &[0, 1],
    wishes: &[&[0], &[0, 1]],
    last_epoch: 7,
    ballots: 6,
    drivers: 0,
    writes: &[Write::Add, Write::Delete],
    settled: 1,
    rounds: 1,
    drains: true,
    writes_off: true,
    goals: &[Goal::Collected, Goal::Discarded, Goal::Purged],
    ..QUIET
};

const LEAVES: Scenario = Scenario {
    first: &[0, 1, 2],
    wishes: &[&[0, 1]],
    last_epoch: 4,
    ballots: 3,
    promising: &[0, 1],
    coordinators: &[2],
    writes: &[Write::Add, Write::Delete, Write::Add],
    settled: 2,
    drains: false,
    writes_off: false,
    goals: &[Goal::Forward],
    ..COMES_BACK
};

const RECORDS_OF_THREE: Scenario = Scenario {
    first: &[0, 1, 2],
    wishes: &[&[0, 1, 3], &[0, 1, 2]],
    last_epoch: 9,
    ballots: 12,
    drivers: 0,
    writes: &[Write::Add, Write::Delete, Write::Replace, Write::Delete],
    retries: 1,
    restarts: 1,
    rounds: 3,
    late: 4,
    hints: true,
    drains: true,
    learns: true,
    writes_off: true,
    goals: &[Goal::Forward],
    ..QUIET
};
