//! Links to other nodes that lose, delay or swallow messages.
//!
//! What a test asks for happens to messages, not to packets: a lost one is not sent again. A cut
//! is felt as over a real network: what was sent stays without an answer, connections end when
//! their pings would have gone unanswered, and dialling takes its whole patience.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use triad_ring::NodeId;

/// How long a dial or a call over a cut link takes until it fails.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an open connection survives a cut: one interval between pings and the patience for
/// the answer.
const SURVIVES: Duration = Duration::from_secs(4);
/// Delayed messages of one stream that may be under way.
const UNDER_WAY: usize = 1_024;

/// Which way a message goes, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    Incoming,
    Outgoing,
}

/// What happens to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Cut,
    Delay(Duration),
    DropPercent(u32),
}

/// By node (none: all others) and direction. A cut remembers when it fell.
type Table = BTreeMap<(Option<NodeId>, Direction), (Fault, Instant)>;

/// The faults of all links of a node.
#[derive(Clone)]
pub(crate) struct Faults {
    table: Arc<watch::Sender<Table>>,
    dice: Arc<AtomicU64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { table: Arc::new(watch::Sender::default()), dice: Arc::default() }
    }
}

impl Faults {
    /// Sets or heals (none) the fault of a node's link, or of all that have none of their own.
    pub(super) fn set(&self, peer: Option<NodeId>, directions: &[Direction], fault: Option<Fault>) {
        let now = Instant::now();
        self.table.send_modify(|table| {
            for direction in directions {
                match fault {
                    Some(fault) => drop(table.insert((peer, *direction), (fault, now))),
                    None => drop(table.remove(&(peer, *direction))),
                }
            }
        });
    }

    fn fault(&self, peer: NodeId, direction: Direction) -> Option<(Fault, Instant)> {
        let table = self.table.borrow();
        table.get(&(Some(peer), direction)).or_else(|| table.get(&(None, direction))).copied()
    }

    fn cut_since(&self, peer: NodeId) -> Option<Instant> {
        [Direction::Incoming, Direction::Outgoing]
            .into_iter()
            .filter_map(|direction| self.fault(peer, direction))
            .filter(|(fault, _)| *fault == Fault::Cut)
            .map(|(_, since)| since)
            .min()
    }

    /// A connection is being made, by this node or the other: both directions must work.
    pub(crate) async fn connects(&self, peer: NodeId) -> Result<(), String> {
        if self.cut_since(peer).is_some() {
            tokio::time::sleep(PATIENCE).await;
            return Err(format!("the link to node {peer} is cut, for a test"));
        }
        Ok(())
    }

    /// A question goes out and its answer comes back, outside the streams.
    pub(crate) async fn call(&self, peer: NodeId) -> Result<(), String> {
        self.connects(peer).await?;
        for direction in [Direction::Outgoing, Direction::Incoming] {
            if !self.passes(peer, direction).await {
                tokio::time::sleep(PATIENCE).await;
                return Err(format!("lost on the link to node {peer}, for a test"));
            }
        }
        Ok(())
    }

    /// Resolves when a connection that is open would be given up, because the link is cut.
    pub(crate) async fn severed(&self, peer: NodeId) {
        let mut changes = self.table.subscribe();
        loop {
            changes.mark_unchanged();
            let until = self.cut_since(peer).map(|since| since + SURVIVES);
            let passed = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = passed => return,
                _ = changes.changed() => {}
            }
        }
    }

    /// The messages of a stream that get through, when they do.
    pub(crate) fn through<S>(
        &self,
        peer: NodeId,
        direction: Direction,
        messages: S,
    ) -> impl Stream<Item = S::Item> + Send + Unpin + use<S>
    where
        S: Stream + Send + 'static,
        S::Item: Send,
    {
        let faults = self.clone();
        messages
            .map(move |message| {
                let faults = faults.clone();
                async move { faults.passes(peer, direction).await.then_some(message) }
            })
            .buffered(UNDER_WAY)
            .filter_map(std::future::ready)
            .boxed()
    }

    /// Waits as long as a message takes. False: it is lost.
    async fn passes(&self, peer: NodeId, direction: Direction) -> bool {
        match self.fault(peer, direction) {
            None => true,
            Some((Fault::Cut, _)) => false,
            Some((Fault::DropPercent(percent), _)) => self.roll() >= u64::from(percent),
            Some((Fault::Delay(delay), _)) => {
                tokio::time::sleep(delay).await;
                true
            }
        }
    }

    /// A number below 100 (`SplitMix64` of a counter: the same in every run).
    fn roll(&self) -> u64 {
        let turn = self.dice.fetch_add(1, Ordering::Relaxed) + 1;
        let mut z = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Direction; 2] = [Direction::Incoming, Direction::Outgoing];

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 16])
    }

    async fn through(faults: &Faults, count: u32) -> Vec<u32> {
        let messages = futures::stream::iter(0..count);
        faults.through(node(1), Direction::Outgoing, messages).collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn messages_pass_are_lost_or_come_late_in_order() {
        let faults = Faults::default();
        assert_eq!(through(&faults, 5).await, [0, 1, 2, 3, 4]);

        faults.set(Some(node(1)), &BOTH, Some(Fault::DropPercent(30)));
        let left = through(&faults, 1_000).await.len();
        assert!((600..800).contains(&left), "{left}");

        faults.set(Some(node(1)), &BOTH, Some(Fault::Delay(Duration::from_secs(3))));
        let began = Instant::now();
        assert_eq!(through(&faults, 5).await, [0, 1, 2, 3, 4]);
        assert_eq!(began.elapsed().as_secs(), 3, "side by side, not one after the other");

        faults.set(Some(node(1)), &[Direction::Outgoing], Some(Fault::Cut));
        assert!(through(&faults, 5).await.is_empty());
        faults.set(Some(node(1)), &BOTH, None);
        assert_eq!(through(&faults, 2).await, [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_one_way_ends_connections_and_dials_for_that_node_alone() {
        let faults = Faults::default();
        faults.set(Some(node(1)), &[Direction::Incoming], Some(Fault::Cut));
        let began = Instant::now();
        assert!(faults.connects(node(1)).await.is_err());
        assert_eq!(began.elapsed(), PATIENCE);
        faults.severed(node(1)).await;
        assert_eq!(began.elapsed(), SURVIVES);
        faults.connects(node(2)).await.unwrap();
        faults.call(node(2)).await.unwrap();
        assert!(tokio::time::timeout(SURVIVES * 2, faults.severed(node(2))).await.is_err());
        assert_eq!(through(&faults, 1).await, [0], "the other way still works");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_for_all_holds_where_no_other_does() {
        let faults = Faults::default();
        faults.set(None, &BOTH, Some(Fault::Cut));
        faults.set(Some(node(2)), &BOTH, Some(Fault::DropPercent(0)));
        assert!(faults.connects(node(1)).await.is_err());
        faults.connects(node(2)).await.unwrap();
        faults.set(None, &BOTH, None);
        faults.connects(node(1)).await.unwrap();
    }
}
