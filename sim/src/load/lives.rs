//! D12: values with a time to live. They are there until shortly before their end, and not long after it, although
//! one clock may be wrong by an hour.
//!
//! Wrong clocks are outvoted, which takes nodes that know each other's clocks. A process that has just started, or was
//! cut off, may know its own alone: so once a clock has been wrong, only what was written in steady times is judged.

use std::time::Duration;

use super::Worker;
use crate::world::Steady;

const BUCKET: &str = "lives";
/// The writer's and the reader's coordinator may each be off by a second: half of the slowest round trip that is believed.
const TOLERANCE: Duration = Duration::from_secs(2);
/// How long nothing must have been wrong before the write.
const STEADY_FOR: Duration = Duration::from_secs(10);

impl Worker {
    /// Writes values that end, and looks at each until it has.
    pub(super) async fn follow_lives(mut self, steady: Steady) {
        for number in 0.. {
            let pause = self.habits.pause.max(Duration::from_millis(500));
            tokio::time::sleep(self.rng.between(pause, 4 * pause)).await;
            if self.is_stopped() {
                return;
            }
            let key = format!("life-{}-{number}", self.number);
            let lives = self.rng.between(Duration::from_secs(2), Duration::from_secs(15));
            let begun = self.clock.now();
            let put = self.client.put(&key, "alive").bucket(BUCKET).ttl(lives);
            if put.await.is_ok() {
                let end = (begun + lives, self.clock.now() + lives);
                self.look_until(&key, begun, end, &steady).await;
            }
        }
    }

    /// The end is between these two moments.
    async fn look_until(
        &mut self,
        key: &str,
        begun: Duration,
        end: (Duration, Duration),
        steady: &Steady,
    ) {
        let (earliest, latest) = (end.0.saturating_sub(TOLERANCE), end.1 + TOLERANCE);
        loop {
            let to_the_end = latest.saturating_sub(self.clock.now()) + Duration::from_millis(100);
            let pause = self.rng.between(Duration::from_millis(100), Duration::from_secs(3));
            tokio::time::sleep(pause.min(to_the_end)).await;
            let asked = self.clock.now();
            let found = self.client.get(key).bucket(BUCKET).await.map(|read| read.is_found());
            let answered = self.clock.now();
            if let Ok(found) = found
                && steady.may_judge(begun, STEADY_FOR)
            {
                self.feelings.add(|felt| felt.lives_judged += 1);
                if !found && answered < earliest {
                    self.complain(format!("{key} is gone at {answered:?}, before {earliest:?}"));
                }
                if found && asked > latest {
                    self.complain(format!("{key} is there at {asked:?}, after {latest:?}"));
                }
            }
            if asked > latest || self.is_stopped() {
                return;
            }
        }
    }
}
