//! Rules of tombstone collection left out, one at a time: the checkers must notice each.

/// What is done wrong in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Sabotage {
    /// Nothing.
    #[default]
    None,
    /// A majority's vouch is enough.
    MajorityVouch,
    /// Tombstones go as soon as all have vouched, inside the epoch.
    InsideEpoch,
    /// A store whose data epoch is below the gc epoch keeps its records.
    KeepStaleData,
    /// The actor goes on after what it had counted was forgotten.
    SameActor,
    /// A write is sent again in a later epoch as if it were of that epoch.
    StampAnew,
    /// A record stamped with the gc epoch itself is merged.
    StampAtGcEpoch,
}

impl Sabotage {
    /// All that must be found.
    pub(crate) const ALL: [Self; 6] = [
        Self::MajorityVouch,
        Self::InsideEpoch,
        Self::KeepStaleData,
        Self::SameActor,
        Self::StampAnew,
        Self::StampAtGcEpoch,
    ];
}
