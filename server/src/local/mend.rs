//! Replacing damaged rows by what other replicas hold.
//!
//! Nobody can say any more what a damaged row held: dots that this store minted, perhaps, and that no
//! other has. So with its replacement a new actor begins for the shard, in the same batch, and no dot
//! is ever minted twice (design rule D5).

use triad_replica::configuration::Epoch;
use triad_replica::record::Record;
use triad_replica::refusal::Refusal;
use triad_replica::shard::Access;

use super::group::Group;
use super::operation::{Address, Operation, WriteError};
use super::{LocalReplica, damage::Damage};

/// What takes the place of a damaged row.
#[derive(Clone, Debug)]
pub(crate) enum Replacement {
    /// What so many members hold, read in this epoch, that none of them can lack what was acknowledged.
    Record(Epoch, Record),
    /// Nothing: this store is no member, so nobody counts on what it held.
    Nothing,
}

impl LocalReplica {
    /// Puts this in the place of the key's row if that is damaged, and merges it otherwise;
    /// durable when this returns.
    pub(crate) async fn mend(
        &self,
        at: Address,
        replacement: Replacement,
    ) -> Result<(), WriteError> {
        self.ask(|done| Operation::Mend { at, replacement, done }).await
    }

    /// What is damaged here.
    pub(crate) fn damage(&self) -> &Damage {
        &self.damage
    }
}

impl Group<'_> {
    pub(super) fn mend(
        &mut self,
        at: &Address,
        replacement: &Replacement,
    ) -> Result<(), WriteError> {
        self.ask(at.shard, |shard| match replacement {
            Replacement::Record(epoch, _) => {
                shard.check(Access::Merge, *epoch)?;
                shard.check_stamp(*epoch)
            }
            Replacement::Nothing if shard.is_member() => Err(Refusal::Damaged),
            Replacement::Nothing if shard.is_sweeping() => Err(Refusal::Learner),
            Replacement::Nothing => Ok(()),
        })?;
        if let Replacement::Record(epoch, record) = replacement {
            match self.merge(at, *epoch, *epoch, record) {
                Err(WriteError::Refused(Refusal::Damaged)) => {}
                Ok(_) => {
                    self.was_whole(at);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        } else if self.row(at).is_ok() {
            self.was_whole(at);
            return Ok(());
        }
        self.end_actor(at.shard)?;
        let record = match replacement {
            Replacement::Record(_, record) => record.clone(),
            Replacement::Nothing => Record::default(),
        };
        self.replace(at, record)
    }
}
