//! One end of a connection, as tonic reads and writes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Network;
use super::pipe::{Content, PipeId};
use crate::clock::MachineClock;

/// Largest segment.
const SEGMENT: usize = 64 << 10;

/// One end of a connection.
pub struct SimWire {
    network: Network,
    reads: PipeId,
    writes: PipeId,
    /// The clock of the machine at this end; told to an accepted wire when it is first used.
    clock: Option<MachineClock>,
}

impl SimWire {
    pub(super) fn new(
        network: Network,
        reads: PipeId,
        writes: PipeId,
        clock: Option<MachineClock>,
    ) -> Self {
        Self { network, reads, writes, clock }
    }

    /// This end is a machine's with this clock.
    pub(crate) fn at(mut self, clock: MachineClock) -> Self {
        self.clock = Some(clock);
        self
    }

    fn send(&self, content: Content) {
        let mut state = self.network.lock();
        let now = self.clock.as_ref().map_or(state.now, MachineClock::now);
        state.send(self.writes, now, content);
    }
}

impl AsyncRead for SimWire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.network.lock();
        let Some(pipe) = state.pipes.get_mut(&self.reads) else { return Poll::Ready(Ok(())) };
        let mut read = 0;
        while buffer.remaining() > 0 {
            let Some(first) = pipe.unread.front_mut() else { break };
            let taken = first.len().min(buffer.remaining());
            buffer.put_slice(&first[..taken]);
            first.advance(taken);
            read += taken;
            if first.is_empty() {
                pipe.unread.pop_front();
            }
        }
        if read > 0 {
            pipe.taken(read);
            return Poll::Ready(Ok(()));
        }
        if pipe.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.ended {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for SimWire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.network.lock();
        let Some(pipe) = state.pipes.get_mut(&self.writes) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if pipe.is_reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = bytes.len().min(pipe.room()).min(SEGMENT);
        if length == 0 && !bytes.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.send(Content::Data(Bytes::copy_from_slice(&bytes[..length])));
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send(Content::End);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimWire {
    fn drop(&mut self) {
        self.network.lock().leave(self.reads, self.writes);
    }
}
