//! When a request must be answered.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// Connections keep this much in hand to answer `DEADLINE_EXCEEDED` themselves: at the deadline
/// itself the transport would cut the call with CANCELLED and no explanation.
const ANSWER_MARGIN: Duration = Duration::from_millis(30);

/// When a request must be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    started: Instant,
    at: Instant,
}

impl Deadline {
    /// A deadline `allowed` from now.
    pub(crate) fn after(allowed: Duration) -> Self {
        let started = Instant::now();
        Self { started, at: started + allowed }
    }

    /// The deadline of a client's request: what its `grpc-timeout` says, or `default`; at most `max`.
    pub(crate) fn of_request(metadata: &MetadataMap, default: Duration, max: Duration) -> Self {
        let asked =
            metadata.get("grpc-timeout").and_then(|text| parse_timeout(text.to_str().ok()?));
        let allowed = asked.unwrap_or(default).min(max);
        let margin = ANSWER_MARGIN.min(allowed / 10);
        Self::after(allowed.saturating_sub(margin))
    }

    /// The moment itself.
    pub(crate) fn at(self) -> Instant {
        self.at
    }

    /// Time left.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// True once it has passed.
    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// Time since the request arrived.
    pub(crate) fn waited(self) -> Duration {
        self.started.elapsed()
    }

    /// Time left in milliseconds, as it travels to other nodes.
    pub(crate) fn left_ms(self) -> u32 {
        u32::try_from(self.left().as_millis()).unwrap_or(u32::MAX)
    }
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3_600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_by_the_book() {
        assert_eq!(parse_timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        for bad in ["", "S", "1", "123456789S", "-1S", "1s", "１S"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn hostile_timeouts_are_none() {
        triad_fuzz::Target::new("parse_timeout", ["100m", "99999999H"]).attack(|bytes| {
            let _ = parse_timeout(std::str::from_utf8(bytes).ok()?)?;
            Some(bytes.to_vec())
        });
    }

    #[tokio::test]
    async fn a_client_may_shorten_and_lengthen_the_deadline_within_the_maximum() {
        let (default, max) = (Duration::from_secs(5), Duration::from_mins(1));
        let mut metadata = MetadataMap::new();
        assert!(Deadline::of_request(&metadata, default, max).left() <= default);
        metadata.insert("grpc-timeout", "100S".parse().expect("ascii"));
        let capped = Deadline::of_request(&metadata, default, max).left();
        assert!(capped > default && capped <= max);
        metadata.insert("grpc-timeout", "1n".parse().expect("ascii"));
        assert!(Deadline::of_request(&metadata, default, max).left() < Duration::from_millis(1));
    }
}
