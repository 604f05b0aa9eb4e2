//! D11: writes that are repeated under their id. What was acknowledged, and deleted since, does not come back.
//!
//! The history tells: a repetition is no operation of its own. A write in doubt stays so, whatever its repetition is
//! told, for its first attempt may show up later.

use std::time::Duration;

use triad_client::Level;
use triad_history::{Action, Outcome};

use super::{Target, Worker, outcome};

/// Keys of such writes: few, so that others meet them, and few writers, for a record remembers few ids.
pub(super) const KEYS: u32 = 2;

impl Worker {
    pub(super) async fn repeat_writes(mut self) {
        loop {
            let pause = self.habits.pause.max(Duration::from_millis(500));
            tokio::time::sleep(self.rng.between(pause, 3 * pause)).await;
            if self.is_stopped() {
                return;
            }
            let key = format!("r{}", self.rng.below(KEYS.into()));
            let target = Target { bucket: "", key, level: Level::Quorum };
            self.written += 1;
            let value = format!("{}-{}", self.number, self.written);
            let mut id = [0; 16];
            self.rng.fill(&mut id);
            let operation = self.begin(self.ask(&target, Action::Put(value.clone())));
            let put = self.client.put(&target.key, value.clone()).request_id(id);
            let told = outcome(&put.await.map(drop));
            self.end(operation, told.clone());
            if told == Outcome::Refused {
                continue;
            }
            if self.rng.chance(500) {
                self.delete(&target).await;
            }
            tokio::time::sleep(self.rng.between(Duration::ZERO, Duration::from_secs(1))).await;
            let again = self.client.put(&target.key, value).request_id(id).await;
            self.feelings.add(|felt| felt.repeated += u64::from(again.is_ok()));
            self.get(&target).await;
        }
    }

    async fn delete(&mut self, target: &Target) {
        let operation = self.begin(self.ask(target, Action::Delete));
        let told = self.client.delete(&target.key).await.map(drop);
        self.end(operation, outcome(&told));
    }
}
