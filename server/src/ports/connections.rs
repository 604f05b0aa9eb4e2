//! Connections of clients, counted: those beyond the limit are told so.
//!
//! Who is over the limit could simply not be accepted, and would then wait without an answer. So a few more
//! are let in as guests: requests about keys are refused on their connections, with the limit's
//! name, while health and status are told as usual, for an operator may be among them. Only when the guests' places
//! are taken, too, are connections closed without a word.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use super::stream::Stream;

/// Connections over the limit whose requests are answered.
const GUESTS: usize = 64;

/// How many connections there may be.
#[derive(Clone)]
pub(super) struct Places {
    ordinary: Arc<Semaphore>,
    guests: Arc<Semaphore>,
}

impl Places {
    /// So many, and some guests (`limits.connections`).
    pub(super) fn new(connections: u32) -> Self {
        let ordinary = Arc::new(Semaphore::new(connections as usize));
        Self { ordinary, guests: Arc::new(Semaphore::new(GUESTS)) }
    }

    /// A place for the connection, or none: then it is to be closed.
    pub(super) fn seat(&self, stream: Stream) -> Option<Connection> {
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let ordinary = take(&self.ordinary).map(|place| (place, Standing::Ordinary));
        let (place, standing) =
            ordinary.or_else(|| take(&self.guests).map(|place| (place, Standing::Guest)))?;
        Some(Connection { stream, standing, _place: place })
    }
}

/// Whether a connection is within the limit. Requests carry it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is.
    Ordinary,
    /// It is one too many.
    Guest,
}

/// An accepted connection with its place.
pub(super) struct Connection {
    stream: Stream,
    standing: Standing,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Standing;

    fn connect_info(&self) -> Standing {
        self.standing
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn who_is_over_the_limit_is_a_guest_and_places_come_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let places = Places::new(1);
        let seat = async || {
            let stream = TcpStream::connect(address).await.expect("it listens");
            places.seat(Stream::Tcp(stream))
        };
        let first = seat().await.expect("a place");
        assert_eq!(first.connect_info(), Standing::Ordinary);
        let mut guests = Vec::new();
        for _ in 0..GUESTS {
            guests.push(seat().await.expect("a place"));
        }
        assert!(guests.iter().all(|guest| guest.connect_info() == Standing::Guest));
        assert!(seat().await.is_none());
        drop(first);
        assert_eq!(seat().await.expect("a place").connect_info(), Standing::Ordinary);
    }
}
