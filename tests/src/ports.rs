//! Ports for nodes, without two tests ever taking the same.
//!
//! A port that was free a moment ago may be taken now, by another test or by any outgoing connection. So tests take
//! whole blocks below the range from which the system draws ports for outgoing connections, and hold a block by
//! listening on its first port as long as they use the others.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Blocks begin here; Linux draws outgoing ports from 32,768 on.
const FIRST: u16 = 20_000;
/// How many ports a block has: the guard, and three for a node.
const BLOCK: u16 = 4;
/// How many blocks there are.
const BLOCKS: u32 = 3_000;

/// The three ports of a node, reserved until dropped.
#[derive(Debug)]
pub struct Ports {
    /// Clients' gRPC.
    pub client: u16,
    /// Other nodes' gRPC.
    pub peer: u16,
    /// HTTP for operators.
    pub admin: u16,
    _guard: TcpListener,
}

impl Ports {
    /// Takes a block that nobody uses.
    pub fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes start at different places, so that they seldom meet.
        let start = process::id().wrapping_mul(37) % BLOCKS;
        for _ in 0..BLOCKS {
            let turn = NEXT.fetch_add(1, Ordering::Relaxed);
            let block = u16::try_from((start + turn % BLOCKS) % BLOCKS)
                .expect("less than the number of blocks");
            if let Some(ports) = Self::take(FIRST + block * BLOCK) {
                return ports;
            }
        }
        panic!("no free block of {BLOCK} ports from {FIRST} on");
    }

    fn take(first: u16) -> Option<Self> {
        let guard = TcpListener::bind(("127.0.0.1", first)).ok()?;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let all_free = (1..BLOCK).all(|offset| free(first + offset));
        all_free.then_some(Self {
            client: first + 1,
            peer: first + 2,
            admin: first + 3,
            _guard: guard,
        })
    }
}
