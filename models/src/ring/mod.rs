//! Ring maintenance on messages, checked on the production `RingNode`: joins, crashes, restarts,
//! leaves, lost and late messages, busy answers, two rings that meet.
//!
//! A world is a few nodes and the letters between them. Letters arrive in any order, at any time
//! or never; a question may be given up before its answer comes; a node that died is declared failed
//! to each other one at some time of its own. What a scenario bounds is how often each kind of
//! event happens, which makes its states finite, and all of them are visited.
//!
//! Two rules of Zave's paper are its operating assumptions and are ours: a node fails only when every
//! member keeps a live successor, and when enough principals remain (§V). Failure is declared of the
//! dead alone.
//!
//! Normal forms, none of which hides a behaviour:
//! - questions are named 1, 2, … by age; a letter whose question was given up is nobody's and goes
//!   (unless the scenario keeps late answers);
//! - a letter that is twice on its way is one letter, for each may be lost;
//! - nudges are lost and [`Timer::Soon`](triad_ring::Timer) runs out with the period, for they only
//!   hasten it, and a period may begin at any time here;
//! - a node's period begins only when that changes something.
//!
//! Random walks go where exhaustion does not: more nodes, more virtual nodes, fingers, nudges.

mod cases;
mod quiet;
mod rules;
mod scenario;
mod step;
mod world;

pub use cases::CASES;
