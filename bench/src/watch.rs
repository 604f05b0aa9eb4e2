//! What processes use, looked at once a second.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinHandle;

/// How often.
const PERIOD: Duration = Duration::from_secs(1);
/// The most looks that are kept: an hour's.
const LOOKS_MAX: usize = 3_600;

/// A look at several processes.
#[derive(Debug, Clone, Serialize)]
pub struct Look {
    /// Seconds since the watch began.
    pub at: f64,
    /// Resident memory of each, in MiB.
    pub rss_mib: Vec<u64>,
    /// Processor time of all since their start, in seconds.
    pub cpu_seconds: f64,
}

/// Watches processes until it is ended.
pub struct Watch {
    began: Instant,
    ids: Vec<u32>,
    looks: Arc<Mutex<Vec<Look>>>,
    over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Watches the processes with these ids.
    pub fn begin(ids: Vec<u32>) -> Self {
        let began = Instant::now();
        let looks: Arc<Mutex<Vec<Look>>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let (kept, ended, watched) = (Arc::clone(&looks), Arc::clone(&over), ids.clone());
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(PERIOD);
            while !ended.load(Ordering::Relaxed) {
                tick.tick().await;
                let mut looks = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if looks.len() >= LOOKS_MAX {
                    return;
                }
                looks.push(look(began, &watched));
            }
        });
        Self { began, ids, looks, over, task }
    }

    /// A look just now, which is not kept.
    pub fn now(&self) -> Look {
        look(self.began, &self.ids)
    }

    /// Ends it; all that was seen.
    pub fn end(self) -> Vec<Look> {
        self.over.store(true, Ordering::Relaxed);
        self.task.abort();
        std::mem::take(&mut self.looks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn look(began: Instant, ids: &[u32]) -> Look {
    Look {
        at: began.elapsed().as_secs_f64(),
        rss_mib: ids.iter().map(|id| rss_mib(*id)).collect(),
        cpu_seconds: ids.iter().map(|id| cpu_seconds(*id)).sum(),
    }
}

/// 0 of a process that is gone, or on a system without `/proc`.
fn rss_mib(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1_024
}

/// The same.
fn cpu_seconds(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    ticks(&stat).unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// User and system time of a line of `/proc/…/stat`, fields 14 and 15; the name before them may hold blanks.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 9 0 100";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn this_process_uses_memory_and_one_that_is_gone_none() {
        assert!(rss_mib(std::process::id()) > 0);
        assert_eq!((rss_mib(u32::MAX), cpu_seconds(u32::MAX).to_bits()), (0, 0.0_f64.to_bits()));
    }
}
