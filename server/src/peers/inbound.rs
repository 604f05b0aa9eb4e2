//! The serving end of a lane: requests of one stream run side by side, their replies
//! go back in batches, in the order in which they are ready.

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Requests of one stream that may run at once; beyond, the stream is not read.
const IN_FLIGHT: usize = 4_096;
/// Replies in one message.
const BATCH_ITEMS: usize = 256;
/// Bytes in one reply message, unless a single reply is larger.
const BATCH_BYTES: usize = 1 << 20;

/// What a stream's requests are and who answers them.
pub(crate) trait Inbound: Send + 'static {
    type Batch: Send + 'static;
    type Reply: Send + 'static;
    type ReplyBatch: Send + 'static;

    /// Starts the requests of one message. An error ends the stream.
    fn accept(
        &mut self,
        batch: Self::Batch,
    ) -> Result<Vec<BoxFuture<'static, Option<Self::Reply>>>, Status>;
    /// Bytes a reply takes, roughly.
    fn size(reply: &Self::Reply) -> usize;
    /// Packs replies into one message.
    fn pack(&self, replies: Vec<Self::Reply>) -> Self::ReplyBatch;
}

/// Serves one stream until it ends, fails or `stop` is cancelled.
pub(crate) async fn serve<I: Inbound>(
    mut inbound: I,
    mut requests: impl Stream<Item = Result<I::Batch, Status>> + Unpin,
    replies: mpsc::Sender<Result<I::ReplyBatch, Status>>,
    stop: CancellationToken,
) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(reply) = running.next(), if !running.is_empty() => {
                let batch = gather(reply, &mut running, I::size);
                if !batch.is_empty() && replies.send(Ok(inbound.pack(batch))).await.is_err() {
                    return;
                }
            }
            message = requests.next(), if running.len() < IN_FLIGHT => {
                let Some(Ok(batch)) = message else { return };
                match inbound.accept(batch) {
                    Ok(started) => running.extend(started),
                    Err(status) => {
                        let _ = replies.send(Err(status)).await;
                        return;
                    }
                }
            }
        }
    }
}

/// The reply at hand and all others that are ready too.
fn gather<R>(
    first: Option<R>,
    running: &mut FuturesUnordered<BoxFuture<'static, Option<R>>>,
    size: fn(&R) -> usize,
) -> Vec<R> {
    let mut bytes = first.as_ref().map_or(0, size);
    let mut batch: Vec<R> = first.into_iter().collect();
    while batch.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
        let Some(Some(done)) = running.next().now_or_never() else {
            break;
        };
        bytes += done.as_ref().map_or(0, size);
        batch.extend(done);
    }
    batch
}
