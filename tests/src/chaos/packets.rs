//! What a kernel without netem cannot do: packets that come late, or never although the connection stands.
//!
//! The packets that reach a container pass through a queue of the kernel (NFQUEUE), which a thread in the container's
//! network namespace reads: it holds each packet back for a while, or drops those that carry data. When the thread ends,
//! or its whole process, packets pass as before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nfq::{Message, Queue, Verdict};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::dice::Dice;

/// The queue's number, in a namespace in which nobody else has one.
pub(crate) const NUMBER: u16 = 7;
/// Bytes of each packet that are looked at: the headers.
const LOOKED_AT: u16 = 128;
/// How many packets may wait; the kernel drops what comes then, as a full router would.
const WAITING: u32 = 16_384;
/// The number of TCP among the protocols of IP.
const TCP: usize = 6;
/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// What is done to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Each comes so much later, and up to so much more: with jitter, one can overtake another.
    Late {
        /// All of them.
        delay: Duration,
        /// Each by another part of this.
        jitter: Duration,
    },
    /// Those with data never come. Connections are made and stand, and nobody is ever answered on them.
    Hang,
}

/// Packets that are being handled, until dropped.
#[derive(Debug)]
pub struct Handled {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Handled {
    /// Handles what a rule sends to the queue in the network namespace of this process.
    pub fn start(process: u32, handling: Handling, seed: u64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, ready) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || match open(process) {
            Ok(queue) => {
                let _ = told.send(Ok(()));
                Worker { queue, handling, dice: Dice::seeded(seed), held: BTreeMap::new() }
                    .work(&stopped);
            }
            Err(error) => drop(told.send(Err(error))),
        });
        let handled = Self { stop, thread: Some(thread) };
        ready.recv().map_err(|_| anyhow!("the queue's thread ended"))??;
        Ok(handled)
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The queue, from a thread that lives in the namespace from now on.
fn open(process: u32) -> Result<Queue> {
    let namespace = File::open(format!("/proc/{process}/ns/net")).context("a namespace")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .context("enter the network namespace")?;
    let mut queue = Queue::open().context("open the queue")?;
    queue.bind(NUMBER).context("bind the queue")?;
    queue.set_copy_range(NUMBER, LOOKED_AT)?;
    queue.set_queue_max_len(NUMBER, WAITING)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

struct Worker {
    queue: Queue,
    handling: Handling,
    dice: Dice,
    /// By the moment at which each goes on; of one moment in the order in which they came.
    held: BTreeMap<Instant, Vec<Message>>,
}

impl Worker {
    fn work(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match self.queue.recv() {
                Ok(message) => self.take(message),
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                // The namespace has gone with its container, say.
                Err(_) => return,
            }
            self.let_go(Instant::now());
        }
        // What waits comes now, all at once.
        let far = Instant::now() + Duration::from_hours(1);
        self.let_go(far);
    }

    fn take(&mut self, message: Message) {
        match self.handling {
            Handling::Late { delay, jitter } => {
                let more = self.dice.roll(0..jitter.as_micros() as u64 + 1);
                let due = Instant::now() + delay + Duration::from_micros(more);
                self.held.entry(due).or_default().push(message);
            }
            Handling::Hang if carries_data(message.get_payload()) => {
                self.decide(message, Verdict::Drop);
            }
            Handling::Hang => self.decide(message, Verdict::Accept),
        }
    }

    fn let_go(&mut self, now: Instant) {
        while let Some(due) = self.held.first_entry().filter(|first| *first.key() <= now) {
            for message in due.remove() {
                self.decide(message, Verdict::Accept);
            }
        }
    }

    fn decide(&mut self, mut message: Message, verdict: Verdict) {
        message.set_verdict(verdict);
        // A packet without a verdict is lost, which is no worse than what this is for.
        let _ = self.queue.verdict(message);
    }
}

/// Whether an IPv4 packet is one of TCP with data in it.
fn carries_data(packet: &[u8]) -> bool {
    let byte = |at: usize| packet.get(at).copied().map_or(0, usize::from);
    let (version, header) = (byte(0) >> 4, (byte(0) & 0xF) * 4);
    let total = byte(2) << 8 | byte(3);
    let tcp_header = (byte(header + 12) >> 4) * 4;
    version == 4 && byte(9) == TCP && total > header + tcp_header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of TCP with so many bytes of data.
    fn packet(data: u8, protocol: u8) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[3] = 20 + 32 + data;
        packet[9] = protocol;
        packet[20 + 12] = 0x80;
        packet
    }

    #[test]
    fn handshakes_and_acknowledgements_carry_nothing() {
        assert!(!carries_data(&packet(0, 6)));
        assert!(carries_data(&packet(1, 6)));
        assert!(!carries_data(&packet(1, 17)), "UDP");
        assert!(!carries_data(&[]) && !carries_data(&[0x60; 60]));
    }
}
