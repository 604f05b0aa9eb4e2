//! Waiting for a condition, with a deadline and the last thing seen in the failure.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// How often to look.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks again and again until `look` gives `Ok`. Panics with what it was waiting for and the last `Err` when the
/// time is up.
pub async fn until<T, E: Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if began.elapsed() > limit => {
                panic!("not within {limit:?}: {what}; last seen: {seen:?}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
