//! The engines that are put to the test. A new engine gets a line here.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use triad_replica::store::Store;
use triad_server::data_dir::{DataDir, StoreOrigin};
use triad_server::sled_store::SledOptions;

/// One engine.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Where its rows lie.
    pub medium: Medium,
}

/// Where an engine keeps its rows, and so what a power cut does to them.
#[derive(Clone, Copy, Debug)]
pub enum Medium {
    /// In files of a node's data directory: the simulated disk forgets.
    Disk(fn(&Path) -> Result<Opened>),
    /// In memory: the engine has a model of a crash itself.
    Memory,
}

/// A data directory's store, opened as a starting node does.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Why the store that was there could not be used and was replaced by an empty one.
    pub replaced: Option<String>,
    // The lock of the directory, held as long as the store.
    _directory: DataDir,
}

/// All engines.
pub const ENGINES: [Engine; 2] = [
    Engine { name: "sled", medium: Medium::Disk(open_sled) },
    Engine { name: "memory", medium: Medium::Memory },
];

impl Engine {
    /// The engine of this name.
    pub fn named(name: &str) -> Result<Self> {
        let names = ENGINES.map(|engine| engine.name).join(", ");
        match ENGINES.into_iter().find(|engine| engine.name == name) {
            Some(engine) => Ok(engine),
            None => bail!("no engine `{name}`: they are {names}"),
        }
    }

    /// Opens the engine's store in a data directory.
    pub fn open(&self, dir: &Path) -> Result<Opened> {
        match self.medium {
            Medium::Disk(open) => open(dir),
            Medium::Memory => bail!("the engine `{}` keeps nothing on disk", self.name),
        }
    }
}

fn open_sled(dir: &Path) -> Result<Opened> {
    let directory = DataDir::open(dir)?;
    let opened = directory.open_store(&SledOptions::default())?;
    let replaced = match opened.origin {
        StoreOrigin::Existing | StoreOrigin::New => None,
        StoreOrigin::Replaced { why, .. } => Some(why),
    };
    Ok(Opened { store: opened.store, replaced, _directory: directory })
}
