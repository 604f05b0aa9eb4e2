//! A dot names one write event.
//!
//! The pair (who minted it, its number) is unique for ever: an actor id belongs to one tenure
//! of one shard by one process start, and numbers its writes of a key from 1 (design rule D5;
//! Preguiça et al., *Dotted Version Vectors*, arXiv 1011.5808, section 4).

use std::fmt;
use std::str::FromStr;

use crate::member::ActorId;

/// One write event of one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who minted it.
    pub actor: ActorId,
    /// The number of this write among the actor's writes of the key, from 1.
    pub counter: u64,
}

impl Dot {
    /// The write numbered `counter` (from 1) by `actor`.
    pub const fn new(actor: ActorId, counter: u64) -> Self {
        Self { actor, counter }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.actor.get(), self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dot({self})")
    }
}

/// A text that is not a dot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a dot is 16 hex digits, a full stop and a number from 1, not `{0}`")]
pub struct BadDot(String);

impl FromStr for Dot {
    type Err = BadDot;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| BadDot(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Dot> {
    let (actor, counter) = text.split_once('.')?;
    // `from_str_radix` and `parse` alone would also take signs.
    let hex = actor.len() == 16 && actor.bytes().all(|byte| byte.is_ascii_hexdigit());
    let decimal = counter.bytes().all(|byte| byte.is_ascii_digit());
    if !hex || !decimal {
        return None;
    }
    let actor = ActorId::new(u64::from_str_radix(actor, 16).ok()?);
    let counter = counter.parse().ok().filter(|counter| *counter > 0)?;
    Some(Dot { actor, counter })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_dot_is_written_as_actor_full_stop_counter() {
        let dot = Dot::new(ActorId::new(0xbeef), 12);
        assert_eq!(dot.to_string(), "000000000000beef.12");
    }

    #[test]
    fn texts_that_are_no_dots_are_refused() {
        let bad = [
            "",
            ".",
            "beef.1",
            "000000000000beef",
            "000000000000beef.",
            "000000000000beef.0",
            "000000000000beef.+1",
            "+00000000000beef.1",
            "000000000000beef.1.1",
            "000000000000beef.18446744073709551616",
        ];
        for text in bad {
            assert_eq!(text.parse::<Dot>(), Err(BadDot(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn a_dot_survives_its_text(actor in any::<u64>(), counter in 1..=u64::MAX) {
            let dot = Dot::new(ActorId::new(actor), counter);
            prop_assert_eq!(dot.to_string().parse(), Ok(dot));
        }
    }
}
