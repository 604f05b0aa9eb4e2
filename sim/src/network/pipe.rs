//! One direction of a connection.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::MachineId;

/// Bytes that may be on their way and unread before the writer has to wait.
const WINDOW: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PipeId(pub(super) u64);

/// What a segment carries.
pub(super) enum Content {
    Data(Bytes),
    /// Nothing more comes.
    End,
    /// The connection is no more.
    Reset,
}

impl Content {
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::End | Self::Reset => 0,
        }
    }
}

#[allow(clippy::struct_excessive_bools)] // each end may go, and each in its own way
pub(super) struct Pipe {
    pub(super) from: MachineId,
    pub(super) to: MachineId,
    /// The other direction.
    pub(super) other: PipeId,
    /// On their way, with the time of arrival.
    segments: VecDeque<(Duration, Content)>,
    /// When the last one arrives: nothing overtakes.
    pub(super) last_due: Duration,
    /// A cut holds everything up.
    pub(super) stalled: bool,
    /// Arrived and not read yet.
    pub(super) unread: VecDeque<Bytes>,
    /// Bytes on their way or unread.
    held: usize,
    pub(super) ended: bool,
    pub(super) is_reset: bool,
    pub(super) reader_gone: bool,
    pub(super) writer_gone: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn new(from: MachineId, to: MachineId, other: PipeId) -> Self {
        Self {
            from,
            to,
            other,
            segments: VecDeque::new(),
            last_due: Duration::ZERO,
            stalled: false,
            unread: VecDeque::new(),
            held: 0,
            ended: false,
            is_reset: false,
            reader_gone: false,
            writer_gone: false,
            reader: None,
            writer: None,
        }
    }

    /// Bytes that may be written now.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.held)
    }

    pub(super) fn push(&mut self, due: Duration, content: Content) {
        self.held += content.length();
        self.segments.push_back((due, content));
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.segments.front().map(|(due, _)| *due)
    }

    pub(super) fn pop(&mut self) -> Option<Content> {
        self.segments.pop_front().map(|(_, content)| content)
    }

    pub(super) fn receive(&mut self, bytes: Bytes) {
        self.unread.push_back(bytes);
        wake(&mut self.reader);
    }

    /// So many bytes were read.
    pub(super) fn taken(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
        wake(&mut self.writer);
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
        wake(&mut self.reader);
    }

    pub(super) fn reset(&mut self) {
        self.is_reset = true;
        self.segments.clear();
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    pub(super) fn drop_unread(&mut self) {
        self.unread.clear();
        self.reader = None;
    }

    /// What a cut has stopped arrives from `again` on. Answers when the first of it does.
    pub(super) fn resume(&mut self, again: Duration) -> Option<Duration> {
        self.stalled = false;
        for (due, _) in &mut self.segments {
            *due = (*due).max(again);
        }
        self.last_due = self.last_due.max(again);
        self.next_due()
    }

    /// Nobody reads, nobody writes, and nothing is on its way.
    pub(super) fn is_over(&self) -> bool {
        let gone = self.reader_gone && self.writer_gone;
        gone && (self.segments.is_empty() || self.is_reset)
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
