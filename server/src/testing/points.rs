//! The named steps of this process, and what each shall do when it is reached.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

use crate::failpoint::{Failed, Point, Role};

/// How often a step that waits looks whether it may go on.
const PAUSE: Duration = Duration::from_millis(5);
/// The exit code of a process that a step has ended.
const EXIT_CODE: i32 = 99;

/// All steps with their names, in the order of the names.
const NAMES: [(Point, &str); COUNT] = [
    (Point::MoveFence, "move.fence"),
    (Point::MoveFinal, "move.final"),
    (Point::MoveJoint, "move.joint"),
    (Point::MoveMerge, "move.merge"),
    (Point::MoveRetire, "move.retire"),
    (Point::PutQuorum, "put.quorum"),
    (Point::PutSent, "put.sent"),
    (Point::StoreCommit, "store.commit"),
    (Point::StoreSync, "store.sync"),
];
const COUNT: usize = 9;

const ACTIONS: [(Action, &str); 4] = [
    (Action::Off, "off"),
    (Action::Pause, "pause"),
    (Action::Exit, "exit"),
    (Action::Error, "error"),
];

const ROLES: [(Role, &str); 4] = [
    (Role::Proposer, "proposer"),
    (Role::Learner, "learner"),
    (Role::Leaver, "leaver"),
    (Role::Stayer, "stayer"),
];

/// What a step does when it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Off,
    Pause,
    Exit,
    Error,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    action: Action,
    role: Option<Role>,
    skip: u32,
    reached: u64,
    acted: u64,
}

const IDLE: State = State { action: Action::Off, role: None, skip: 0, reached: 0, acted: 0 };

/// One table for the process: the steps are named by the code, not by a node of it.
static TABLE: Mutex<[State; COUNT]> = Mutex::new([IDLE; COUNT]);

/// A step as it is told to tests.
pub(super) struct Told {
    pub(super) name: &'static str,
    pub(super) action: &'static str,
    pub(super) role: &'static str,
    pub(super) reached: u64,
    pub(super) acted: u64,
}

fn table() -> MutexGuard<'static, [State; COUNT]> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn named<T: Copy>(names: &[(T, &'static str)], wanted: &str) -> Result<T, String> {
    names.iter().find(|(_, name)| *name == wanted).map(|(value, _)| *value).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
        format!("`{wanted}` is none of {}", known.join(", "))
    })
}

fn name_of<T: PartialEq>(names: &[(T, &'static str)], wanted: &T) -> &'static str {
    names.iter().find(|(value, _)| value == wanted).map_or("", |(_, name)| name)
}

fn index(point: Point) -> usize {
    NAMES.iter().position(|(known, _)| *known == point).unwrap_or(0)
}

/// Arms a step. The error says what is wrong with the names.
pub(super) fn set(name: &str, action: &str, role: &str, skip: u32) -> Result<(), String> {
    let point = named(&NAMES, name)?;
    let action = named(&ACTIONS, action)?;
    let role = if role.is_empty() { None } else { Some(named(&ROLES, role)?) };
    let mut table = table();
    let state = &mut table[index(point)];
    *state = State { action, role, skip, ..*state };
    Ok(())
}

/// All steps.
pub(super) fn list() -> Vec<Told> {
    let table = *table();
    NAMES
        .iter()
        .zip(table)
        .map(|((_, name), state)| Told {
            name,
            action: name_of(&ACTIONS, &state.action),
            role: state.role.as_ref().map_or("", |role| name_of(&ROLES, role)),
            reached: state.reached,
            acted: state.acted,
        })
        .collect()
}

/// Counts the visit, and says what is to be done.
fn reach(point: Point, role: Option<Role>) -> Action {
    let mut table = table();
    let state = &mut table[index(point)];
    state.reached += 1;
    if state.action == Action::Off || (state.role.is_some() && state.role != role) {
        return Action::Off;
    }
    if state.skip > 0 {
        state.skip -= 1;
        return Action::Off;
    }
    state.acted += 1;
    warn!(?point, ?role, action = ?state.action, "failpoint");
    state.action
}

fn is_paused(point: Point) -> bool {
    table()[index(point)].action == Action::Pause
}

/// Nothing is flushed, closed or told: to others it looks like SIGKILL.
fn end() -> ! {
    std::process::exit(EXIT_CODE)
}

/// A step is reached.
pub(crate) async fn hit(point: Point) -> Result<(), Failed> {
    hit_as(point, || None).await
}

/// A step is reached in a role.
pub(crate) async fn hit_as(
    point: Point,
    role: impl FnOnce() -> Option<Role>,
) -> Result<(), Failed> {
    match reach(point, role()) {
        Action::Off => Ok(()),
        Action::Pause => {
            while is_paused(point) {
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        }
        Action::Exit => end(),
        Action::Error => Err(Failed),
    }
}

/// A step is reached, on a thread that may block.
pub(crate) fn hit_blocking(point: Point) -> Result<(), Failed> {
    match reach(point, None) {
        Action::Off => Ok(()),
        Action::Pause => {
            while is_paused(point) {
                std::thread::sleep(PAUSE);
            }
            Ok(())
        }
        Action::Exit => end(),
        Action::Error => Err(Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acted(name: &str) -> u64 {
        list().iter().find(|told| told.name == name).map_or(0, |told| told.acted)
    }

    // One test: the table is the process's.
    #[tokio::test]
    async fn a_step_does_what_it_was_told_in_its_role_after_so_many_visits() {
        assert_eq!(hit_as(Point::MoveRetire, || Some(Role::Leaver)).await, Ok(()));
        set("move.retire", "error", "leaver", 1).unwrap();
        assert_eq!(hit_as(Point::MoveRetire, || Some(Role::Stayer)).await, Ok(()), "not its role");
        assert_eq!(hit_as(Point::MoveRetire, || Some(Role::Leaver)).await, Ok(()), "let pass");
        assert_eq!(hit_as(Point::MoveRetire, || Some(Role::Leaver)).await, Err(Failed));
        assert_eq!(acted("move.retire"), 1);

        set("move.retire", "pause", "", 0).unwrap();
        let waiting = tokio::spawn(hit(Point::MoveRetire));
        while acted("move.retire") < 2 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        set("move.retire", "off", "", 0).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(()));

        for (name, action, role) in [
            ("move.nothing", "off", ""),
            ("move.retire", "explode", ""),
            ("move.retire", "off", "king"),
        ] {
            let refused = set(name, action, role, 0).unwrap_err();
            assert!(refused.contains("is none of"), "{refused}");
        }
    }

    #[test]
    fn the_names_are_sorted_and_each_step_has_one() {
        assert!(NAMES.is_sorted_by_key(|(_, name)| *name));
        for (place, (point, _)) in NAMES.iter().enumerate() {
            assert_eq!(index(*point), place);
        }
    }
}
