//! The store in a data directory: whose it is, which start this is, and what if it is lost.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use triad_replica::store::{Batch, Key, KeyRange, MetaRow, Store, StoreError};

use super::floor::Floor;
use super::loss::{LossReason, StoreLoss, condemned};
use super::{
    DataDir, DataDirError, Incarnation, NodeId, OpenStoreError, QUARANTINES_MAX, SledOptions,
    StoreId, exists, io_error, sync_dir,
};
use crate::random;

/// Format of the store's first row.
const VERSION: u8 = 1;
const ROW_BYTES: usize = 1 + 16 + 16 + 8;

/// An open store and what this start of the node is called.
pub struct OpenedStore {
    /// The store itself.
    pub store: Arc<dyn Store>,
    /// Which data files these are: a member is (node, store).
    pub store_id: StoreId,
    /// Greater with every start of the node, also when it lost its store in between.
    pub incarnation: Incarnation,
    /// Where the store comes from.
    pub origin: StoreOrigin,
    /// The last loss of a store here, in this start or an earlier one, if it is not made good yet: raise the
    /// alarm `STORE_LOST`.
    pub loss: Option<StoreLoss>,
}

/// Where a store comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOrigin {
    /// It was there.
    Existing,
    /// It was made now, because there was none.
    New,
    /// It was made now, because the one before is lost.
    Replaced {
        /// Where the lost one lies.
        quarantine: PathBuf,
        /// Why it is lost.
        why: String,
    },
}

/// The store's first row: whose it is.
pub(super) struct Owner {
    pub(super) store: StoreId,
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
}

pub(super) fn open(dir: &DataDir, options: &SledOptions) -> Result<OpenedStore, DataDirError> {
    let path = dir.path.join("store");
    let floor = Floor::load(&dir.path)?;
    let (reason, why) = match look(dir, &path, floor, options)? {
        Look::Good(store, owner) => return resume(dir, store, &owner),
        Look::Empty(store) => {
            if floor.is_some_and(|floor| floor.store.is_some()) {
                let why = "its files are gone".to_owned();
                StoreLoss::now(LossReason::Missing, why, None).save(&dir.path)?;
                tracing::error!(store = %path.display(), "STORE LOST: its files are gone");
            }
            return begin(dir, store, floor, StoreOrigin::New);
        }
        Look::Lost(reason, why) => (reason, why),
    };
    let quarantine = quarantine(&dir.path, &path, reason, &why)?;
    tracing::error!(
        store = %path.display(), quarantine = %quarantine.display(), reason = reason.as_str(), why,
        "STORE LOST: its files cannot be trusted and were set aside; this node starts with an empty store under a new \
         store id, and fetches its data from the other replicas"
    );
    let store = dir.platform.open_store(&path, options)?;
    begin(dir, store, floor, StoreOrigin::Replaced { quarantine, why })
}

/// What lies in the store's directory.
enum Look {
    Good(Arc<dyn Store>, Owner),
    Empty(Arc<dyn Store>),
    Lost(LossReason, String),
}

fn look(
    dir: &DataDir,
    path: &Path,
    floor: Option<Floor>,
    options: &SledOptions,
) -> Result<Look, DataDirError> {
    if let Some((reason, why)) = condemned(path)? {
        return Ok(Look::Lost(reason, why));
    }
    let was_there = exists(&path.join("db"))?;
    let store = match dir.platform.open_store(path, options) {
        Ok(store) => store,
        Err(OpenStoreError::Lost { why, .. }) => {
            return Ok(Look::Lost(LossReason::Unreadable, why));
        }
        Err(unavailable) => return Err(unavailable.into()),
    };
    let owner = match read_owner(&*store, path)? {
        Found::Owner(owner) => owner,
        Found::Nothing if was_there && floor.is_some() => {
            let why = "it shows no rows, though it had some".to_owned();
            return Ok(Look::Lost(LossReason::RolledBack, why));
        }
        Found::Nothing => return Ok(Look::Empty(store)),
        Found::Damage(why) => return Ok(Look::Lost(LossReason::Damaged, why)),
    };
    if owner.node != dir.node {
        let path = path.to_owned();
        return Err(DataDirError::ForeignStore { path, owner: owner.node, node: dir.node });
    }
    if let Some((reason, why)) = below_floor(&owner, floor) {
        return Ok(Look::Lost(reason, why));
    }
    match damaged_control_row(&*store) {
        Ok(None) => Ok(Look::Good(store, owner)),
        Ok(Some(why)) => Ok(Look::Lost(LossReason::Damaged, why)),
        Err(error) => Ok(Look::Lost(LossReason::Unreadable, error.to_string())),
    }
}

/// The first damaged row among those on which votes rest. A store without it has forgotten what it
/// promised: unlike a record, it cannot be had again from others.
fn damaged_control_row(store: &dyn Store) -> Result<Option<String>, StoreError> {
    for range in KeyRange::control() {
        match store.scan(&range, None, &mut |_, _| ControlFlow::Continue(())) {
            Ok(()) => {}
            Err(error @ StoreError::Damaged { .. }) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Says how a store is less than what it was known to be.
fn below_floor(owner: &Owner, floor: Option<Floor>) -> Option<(LossReason, String)> {
    let floor = floor?;
    match floor.store {
        Some(last) if last != owner.store => {
            let why = format!("it is store {}, but store {last} was used here last", owner.store);
            Some((LossReason::Exchanged, why))
        }
        _ if owner.incarnation < floor.incarnation => {
            let why = format!(
                "it was rolled back or left out: it knows of start {}, but start {} has been since",
                owner.incarnation.get(),
                floor.incarnation.get()
            );
            Some((LossReason::RolledBack, why))
        }
        _ => None,
    }
}

/// The next incarnation of a node whose store does not know the last one.
fn incarnation_above(dir: &DataDir, floor: Option<Floor>) -> Incarnation {
    Incarnation::new(match floor {
        Some(floor) => floor.incarnation.get() + 1,
        None if dir.first_start => 1,
        // The count of starts is gone. Seconds since 1970 are more than any node can have
        // started, so they are surely greater than what others remember.
        None => unix_seconds(),
    })
}

/// A start without a store on disk; see [`DataDir::next_incarnation`].
pub(super) fn start_without(dir: &DataDir) -> Result<Incarnation, DataDirError> {
    let incarnation = incarnation_above(dir, Floor::load(&dir.path)?);
    Floor { store: None, incarnation }.save(&dir.path)?;
    Ok(incarnation)
}

/// What the first row says.
enum Found {
    Owner(Owner),
    /// No row at all: the store is new, or the start that made it went no further.
    Nothing,
    /// Rows, but no good first one: nobody can say which store this is.
    Damage(String),
}

fn read_owner(store: &dyn Store, path: &Path) -> Result<Found, DataDirError> {
    match store.get(&Key::Meta(MetaRow::Store).encode()) {
        Ok(Some(row)) => match Owner::decode(row) {
            Some(owner) => Ok(Found::Owner(owner)),
            None => Err(unavailable(path, "its format is of another version of Triad".to_owned())),
        },
        Ok(None) if store.stats().live_bytes == 0 => Ok(Found::Nothing),
        Ok(None) => {
            Ok(Found::Damage("it has rows, but not the one that says which store it is".to_owned()))
        }
        Err(error @ StoreError::Damaged { .. }) => Ok(Found::Damage(error.to_string())),
        Err(error) => Err(unavailable(path, error.to_string())),
    }
}

fn resume(
    dir: &DataDir,
    store: Arc<dyn Store>,
    owner: &Owner,
) -> Result<OpenedStore, DataDirError> {
    let incarnation = Incarnation::new(owner.incarnation.get() + 1);
    start(dir, store, owner.store, incarnation, StoreOrigin::Existing)
}

fn begin(
    dir: &DataDir,
    store: Arc<dyn Store>,
    floor: Option<Floor>,
    origin: StoreOrigin,
) -> Result<OpenedStore, DataDirError> {
    let incarnation = incarnation_above(dir, floor);
    let store_id = StoreId::from_bytes(random::bytes(&*dir.platform)?);
    start(dir, store, store_id, incarnation, origin)
}

/// Makes the start durable before anybody hears of it.
fn start(
    dir: &DataDir,
    store: Arc<dyn Store>,
    store_id: StoreId,
    incarnation: Incarnation,
    origin: StoreOrigin,
) -> Result<OpenedStore, DataDirError> {
    let owner = Owner { store: store_id, node: dir.node, incarnation };
    let mut batch = Batch::new();
    batch.put(Key::Meta(MetaRow::Store).encode(), owner.encode());
    batch.set_essential();
    let written = store.apply(batch).and_then(|()| store.sync());
    written.map_err(|error| unavailable(&dir.path.join("store"), error.to_string()))?;
    // After the store: a floor above the store would condemn it.
    Floor { store: Some(store_id), incarnation }.save(&dir.path)?;
    let loss = StoreLoss::load(&dir.path)?;
    Ok(OpenedStore { store, store_id, incarnation, origin, loss })
}

/// Renames a lost store out of the way, durably, after noting that it is lost.
fn quarantine(
    dir: &Path,
    store: &Path,
    reason: LossReason,
    why: &str,
) -> Result<PathBuf, DataDirError> {
    for number in 1..=QUARANTINES_MAX {
        let target = dir.join(format!("quarantine-{number}"));
        if !exists(&target)? {
            StoreLoss::now(reason, why.to_owned(), Some(target.clone())).save(dir)?;
            fs::rename(store, &target)
                .map_err(|source| io_error(store, "set the lost store aside", source))?;
            sync_dir(dir)?;
            return Ok(target);
        }
    }
    Err(DataDirError::TooManyQuarantines { path: dir.to_owned() })
}

fn unavailable(path: &Path, why: String) -> DataDirError {
    OpenStoreError::Unavailable { dir: path.to_owned(), why }.into()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs())
}

impl Owner {
    pub(super) fn encode(&self) -> Bytes {
        let mut row = BytesMut::with_capacity(ROW_BYTES);
        row.put_u8(VERSION);
        row.put_slice(self.store.as_bytes());
        row.put_slice(self.node.as_bytes());
        row.put_u64(self.incarnation.get());
        row.freeze()
    }

    pub(super) fn decode(mut row: Bytes) -> Option<Self> {
        if row.len() != ROW_BYTES || row.get_u8() != VERSION {
            return None;
        }
        let (mut store, mut node) = ([0; 16], [0; 16]);
        row.copy_to_slice(&mut store);
        row.copy_to_slice(&mut node);
        let incarnation = Incarnation::new(row.get_u64());
        Some(Self {
            store: StoreId::from_bytes(store),
            node: NodeId::from_bytes(node),
            incarnation,
        })
    }
}
