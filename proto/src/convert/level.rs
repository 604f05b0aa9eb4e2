//! Levels.

use triad_replica::consistency::Level;

use super::BadField;
use crate::v1;

/// A level that was not chosen is QUORUM.
impl TryFrom<v1::Level> for Level {
    type Error = BadField;

    fn try_from(level: v1::Level) -> Result<Self, BadField> {
        Ok(match level {
            v1::Level::Unspecified | v1::Level::Quorum => Self::Quorum,
            v1::Level::One => Self::One,
            v1::Level::All => Self::All,
        })
    }
}

impl From<Level> for v1::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::One => Self::One,
            Level::Quorum => Self::Quorum,
            Level::All => Self::All,
        }
    }
}

/// The level of a request's raw field; `BAD_LEVEL` for a number without a name.
pub fn level(raw: i32) -> Result<Level, BadField> {
    v1::Level::try_from(raw).map_err(|_| BadField::level(raw))?.try_into()
}
