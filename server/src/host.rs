//! A process from its start on: first in the lobby, then a node of a cluster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::alarms::Alarms;
use crate::book::Book;
use crate::config::Config;
use crate::coordinator::error::RequestError;
use crate::door::Door;
use crate::identity::NodeIdentity;
use crate::losses::Losses;
use crate::node::Node;
use crate::operations::Operations;
use crate::platform::Platform;
use crate::web::Health;

/// What the ports of a process serve.
pub(crate) struct Host {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) identity: NodeIdentity,
    pub(crate) config: Arc<Config>,
    pub(crate) book: Arc<Book>,
    pub(crate) door: Door,
    /// Raised from the start on, also before there is a cluster.
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) losses: Arc<Losses>,
    node: OnceLock<Arc<Node>>,
    /// Why this process is not in a cluster yet.
    waiting: Mutex<Vec<String>>,
    /// Why this process is not ready although it is in a cluster.
    draining: Mutex<Option<String>>,
    bootstrap_forced: AtomicBool,
    /// Seeds named by an operator who wants this process to join.
    join_seeds: Mutex<Vec<String>>,
    /// The node is out of its cluster; the process goes on in the lobby.
    gone: AtomicBool,
    pub(crate) operations: Arc<Operations>,
    /// Once true, it stays: what is asked later is found on the way.
    directory_answered: AtomicBool,
}

impl Host {
    pub(crate) fn new(
        platform: Arc<dyn Platform>,
        identity: NodeIdentity,
        config: Arc<Config>,
        book: Arc<Book>,
        alarms: Arc<Alarms>,
        losses: Arc<Losses>,
    ) -> Self {
        let door = Door::new(&config.limits);
        Self {
            platform,
            identity,
            config,
            book,
            door,
            alarms,
            losses,
            node: OnceLock::new(),
            waiting: Mutex::new(vec!["starting".to_owned()]),
            draining: Mutex::new(None),
            bootstrap_forced: AtomicBool::new(false),
            join_seeds: Mutex::default(),
            gone: AtomicBool::new(false),
            operations: Arc::default(),
            directory_answered: AtomicBool::new(false),
        }
    }

    /// The node, while this process is in a cluster.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.get().filter(|_| !self.gone.load(Ordering::Relaxed))
    }

    /// The node, be it out of its cluster by now.
    pub(crate) fn built_node(&self) -> Option<&Arc<Node>> {
        self.node.get()
    }

    /// The node is out of its cluster for good.
    pub(crate) fn leave_cluster(&self, why: String) {
        self.wait_for(vec![why]);
        self.gone.store(true, Ordering::Relaxed);
    }

    /// An operator wants this process to join through these seeds.
    pub(crate) fn ask_to_join(&self, seeds: Vec<String>) {
        *self.join_seeds.lock().unwrap_or_else(PoisonError::into_inner) = seeds;
    }

    /// The seeds that an operator has named.
    pub(crate) fn join_seeds(&self) -> Vec<String> {
        self.join_seeds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This process is in a cluster from now on.
    pub(crate) fn become_node(&self, node: Arc<Node>) {
        let _ = self.node.set(node);
    }

    /// Why requests cannot be served yet.
    pub(crate) fn not_joined(&self) -> RequestError {
        let why = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).join("; ");
        RequestError::NotJoined { node: self.identity.name.to_string(), why }
    }

    /// Notes what the process waits for. True when that is news.
    pub(crate) fn wait_for(&self, why: Vec<String>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *waiting != why;
        *waiting = why;
        news
    }

    /// Not ready from now on: the process is ending.
    pub(crate) fn drain(&self, why: &str) {
        *self.draining.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// An operator says that the seeds need not be waited for.
    pub(crate) fn force_bootstrap(&self) {
        self.bootstrap_forced.store(true, Ordering::Relaxed);
    }

    /// Whether an operator said so.
    pub(crate) fn is_bootstrap_forced(&self) -> bool {
        self.bootstrap_forced.load(Ordering::Relaxed)
    }

    /// Whether this process is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether this process may make a cluster: it is in none, and was told so.
    pub(crate) fn may_bootstrap(&self) -> bool {
        self.node.get().is_none() && self.config.cluster.may_bootstrap()
    }
}

impl Health for Host {
    fn live(&self) -> bool {
        true
    }

    /// Ready: in a cluster, a ring member, and the directory has answered: it is known who holds
    /// the shards whose configurations this node keeps for others.
    fn ready(&self) -> Result<(), Vec<String>> {
        if let Some(why) = &*self.draining.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(vec![why.clone()]);
        }
        let Some(node) = self.node() else {
            return Err(self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone());
        };
        let mut reasons = Vec::new();
        if !self.book.own().state.is_ring_member() {
            reasons.push("the ring has not been joined yet".to_owned());
        }
        if reasons.is_empty() && !self.directory_answered.load(Ordering::Relaxed) {
            match crate::moves::unknown_of_own(node) {
                0 => self.directory_answered.store(true, Ordering::Relaxed),
                unknown => reasons.push(format!(
                    "the directory has not told yet who holds {unknown} of this node's shards"
                )),
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }
}
