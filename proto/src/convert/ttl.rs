//! A time to live.

use std::time::Duration;

use super::BadField;

/// The shortest time to live: it is kept in milliseconds.
pub const TTL_MIN: Duration = Duration::from_millis(1);
/// The longest time to live: about a hundred years.
pub const TTL_MAX: Duration = Duration::from_hours(36_500 * 24);

/// How long a value is to live; none when it does not end.
pub fn ttl(raw: Option<&prost_types::Duration>) -> Result<Option<Duration>, BadField> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    match Duration::try_from(*raw) {
        Ok(ttl) if (TTL_MIN..=TTL_MAX).contains(&ttl) => Ok(Some(ttl)),
        _ => Err(BadField::ttl(raw)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seconds: i64, nanos: i32) -> Result<Option<Duration>, BadField> {
        ttl(Some(&prost_types::Duration { seconds, nanos }))
    }

    #[test]
    fn a_time_to_live_is_positive_and_at_most_a_century() {
        assert_eq!(ttl(None), Ok(None));
        assert_eq!(of(0, 1_000_000), Ok(Some(TTL_MIN)));
        assert_eq!(of(36_500 * 86_400, 0), Ok(Some(TTL_MAX)));
        for bad in [(0, 0), (0, 999_999), (-1, 0), (0, -1), (36_500 * 86_400, 1), (i64::MAX, 0)] {
            let error = of(bad.0, bad.1).expect_err("no time to live");
            assert_eq!((error.field, error.reason), ("ttl", "BAD_TTL"), "{bad:?}");
        }
        let shown = of(-3, 0).expect_err("negative").to_string();
        assert!(shown.contains("-3") && shown.contains("1 ms"), "{shown}");
    }
}
