//! Everything that can happen to the containers.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::fleet::{Fleet, NODES, WITH_DISK};
use super::means::Need;
use super::network::Way;
use super::packets::{Handled, Handling};
use crate::dice::Dice;

/// For a cluster to heal, on a machine that does other things besides.
pub const HEALED: Duration = Duration::from_mins(3);

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL to one or two, and a new start later.
    Kill,
    /// SIGKILL to all at once.
    PowerCut,
    /// A container is frozen: it neither answers nor closes its connections.
    Pause,
    /// The cable is pulled, and the node may come back at another address.
    Disconnect,
    /// SIGTERM, and a new start with the volume.
    Restart,
    /// The container is killed and removed, and made anew with the old volume.
    Recreate,
    /// The same without its volume: another node in its place, and the old one never returns.
    Wipe,
    /// One after the other is restarted, as in an upgrade.
    RollingRestart,
    /// Nothing is left of the disk.
    DiskFull,
    /// One or two cannot reach the others, nor the others them. Clients reach all.
    Partition,
    /// Two do not reach each other; all others reach both.
    CutPair,
    /// One hears nothing from the others, who hear it; or the other way round.
    OneWay,
    /// Packets are lost.
    Loss,
    /// Little bandwidth.
    Slow,
    /// Packets come late.
    Delay,
    /// Packets come more or less late, and overtake each other.
    Jitter,
    /// Connections stand, and nothing comes.
    Hang,
    /// Connections are reset at any time, and one side is not told.
    Reset,
}

/// A fault that goes on.
#[derive(Debug)]
pub struct Struck {
    /// Which.
    pub fault: Fault,
    /// Who is hit.
    pub nodes: Vec<usize>,
    /// How exactly.
    pub detail: String,
    remedy: Remedy,
}

/// How it is taken back.
#[derive(Debug)]
enum Remedy {
    Nothing,
    Start,
    GoOn,
    Connect,
    Make,
    /// Makes another node in place of the one with this id.
    Replace(String),
    MakeRoom,
    /// Takes back the rules, and then the queue to which they lead.
    Clear(Option<Handled>),
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Kill,
        Self::PowerCut,
        Self::Pause,
        Self::Disconnect,
        Self::Restart,
        Self::Recreate,
        Self::Wipe,
        Self::RollingRestart,
        Self::DiskFull,
        Self::Partition,
        Self::CutPair,
        Self::OneWay,
        Self::Loss,
        Self::Slow,
        Self::Delay,
        Self::Jitter,
        Self::Hang,
        Self::Reset,
    ];

    /// What a run of a minute has time for.
    pub const SHORT: [Self; 5] =
        [Self::Kill, Self::Pause, Self::Disconnect, Self::OneWay, Self::Recreate];

    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerCut => "power cut",
            Self::Pause => "pause",
            Self::Disconnect => "disconnect",
            Self::Restart => "restart",
            Self::Recreate => "restart with volume",
            Self::Wipe => "restart without volume",
            Self::RollingRestart => "rolling restart",
            Self::DiskFull => "disk full",
            Self::Partition => "partition",
            Self::CutPair => "partial partition",
            Self::OneWay => "one-way partition",
            Self::Loss => "loss",
            Self::Slow => "bandwidth",
            Self::Delay => "delay",
            Self::Jitter => "jitter",
            Self::Hang => "half-open hang",
            Self::Reset => "reset",
        }
    }

    /// What it needs of the machine.
    pub fn need(self) -> Need {
        match self {
            Self::Partition | Self::CutPair | Self::OneWay | Self::Loss | Self::Reset => {
                Need::Rules
            }
            Self::Slow => Need::Bandwidth,
            Self::Delay | Self::Jitter | Self::Hang => Need::Queue,
            Self::DiskFull => Need::Disk,
            _ => Need::Docker,
        }
    }

    /// Whether nothing else may happen meanwhile: because it loses data, or hits many.
    pub fn is_alone(self) -> bool {
        let many = [Self::PowerCut, Self::RollingRestart, Self::Partition];
        many.contains(&self) || self == Self::Wipe || self == Self::DiskFull
    }

    /// Whom it hits, of those that nothing else has hit. None: it hits nobody of these.
    pub fn choose(self, dice: &mut Dice, free: &[usize]) -> Option<Vec<usize>> {
        let count = match self {
            Self::PowerCut | Self::RollingRestart => NODES,
            Self::DiskFull => return free.contains(&WITH_DISK).then(|| vec![WITH_DISK]),
            Self::Kill | Self::Partition => 1 + usize::from(dice.roll(0..3) == 0),
            Self::CutPair => 2,
            _ => 1,
        };
        let mut free = free.to_vec();
        let mut chosen = Vec::new();
        while chosen.len() < count && !free.is_empty() {
            chosen.push(free.swap_remove(dice.roll(0..free.len() as u64) as usize));
        }
        (chosen.len() == count).then_some(chosen)
    }

    /// Does it to these nodes.
    pub async fn inject(self, fleet: &Fleet, nodes: Vec<usize>, dice: &mut Dice) -> Result<Struck> {
        let hit = self.hit(fleet, &nodes, dice).await;
        let (detail, remedy) = hit.with_context(|| format!("{} of {nodes:?}", self.name()))?;
        Ok(Struck { fault: self, nodes, detail, remedy })
    }

    async fn hit(
        self,
        fleet: &Fleet,
        nodes: &[usize],
        dice: &mut Dice,
    ) -> Result<(String, Remedy)> {
        let node = *nodes.first().context("somebody to hit")?;
        let remedy = match self {
            Self::Kill | Self::PowerCut => {
                fleet.kill(nodes)?;
                Remedy::Start
            }
            Self::Pause => {
                fleet.freeze(node, true)?;
                Remedy::GoOn
            }
            Self::Disconnect => {
                fleet.disconnect(node)?;
                Remedy::Connect
            }
            Self::Restart => {
                fleet.restart(node)?;
                Remedy::Nothing
            }
            Self::Recreate => {
                fleet.remove(node)?;
                Remedy::Make
            }
            Self::Wipe => {
                // A store may go only when all the others are whole.
                fleet.settled(HEALED).await?;
                let id = fleet.id(node).await?;
                fleet.remove(node)?;
                fleet.wipe(node)?;
                Remedy::Replace(id)
            }
            Self::RollingRestart => {
                for node in nodes {
                    fleet.restart(*node)?;
                    fleet.ready(HEALED).await?;
                }
                Remedy::Nothing
            }
            Self::DiskFull => {
                fleet.disk().map_err(|why| anyhow!(why))?.fill()?;
                Remedy::MakeRoom
            }
            _ => return self.spoil(fleet, nodes, dice),
        };
        Ok((String::new(), remedy))
    }

    /// The faults of networks.
    fn spoil(self, fleet: &Fleet, nodes: &[usize], dice: &mut Dice) -> Result<(String, Remedy)> {
        let node = nodes[0];
        let namespace = fleet.namespace(node)?;
        let detail = match self {
            Self::CutPair => {
                let other = fleet.ip(nodes[1])?.context("an address to cut off")?;
                namespace.cut(Way::In, &other)?;
                namespace.cut(Way::Out, &other)?;
                String::new()
            }
            Self::OneWay => {
                let way = dice.one_of(&[Way::In, Way::Out]);
                cut_off(fleet, nodes, &[way])?;
                format!("{way:?}")
            }
            Self::Loss => {
                let percent = dice.roll(5..35);
                namespace.lose(percent)?;
                format!("{percent} %")
            }
            Self::Reset => {
                let percent = dice.roll(1..10);
                namespace.reset(percent)?;
                format!("{percent} % of packets")
            }
            Self::Slow => {
                let kilobits = dice.roll(32..512);
                namespace.slow(kilobits)?;
                format!("{kilobits} kbit/s")
            }
            Self::Delay | Self::Jitter | Self::Hang => {
                let handling = self.handling(dice);
                let queue = Handled::start(fleet.process(node)?, handling, dice.roll(0..u64::MAX))?;
                namespace.queue()?;
                return Ok((format!("{handling:?}"), Remedy::Clear(Some(queue))));
            }
            _ => {
                cut_off(fleet, nodes, &[Way::In, Way::Out])?;
                String::new()
            }
        };
        Ok((detail, Remedy::Clear(None)))
    }

    fn handling(self, dice: &mut Dice) -> Handling {
        match self {
            Self::Delay => Handling::Late { delay: dice.time(20..300), jitter: Duration::ZERO },
            Self::Jitter => {
                Handling::Late { delay: Duration::from_millis(5), jitter: dice.time(50..400) }
            }
            _ => Handling::Hang,
        }
    }
}

/// Cuts some off from all others.
fn cut_off(fleet: &Fleet, nodes: &[usize], ways: &[Way]) -> Result<()> {
    for other in (1..=NODES).filter(|other| !nodes.contains(other)) {
        // Another fault may have cut that one off already.
        let Some(address) = fleet.ip(other)? else { continue };
        for node in nodes {
            for way in ways {
                fleet.namespace(*node)?.cut(*way, &address)?;
            }
        }
    }
    Ok(())
}

impl Struck {
    /// Takes it back, and answers how many packets its rules met, if it had any. The nodes may need some time afterwards.
    pub async fn heal(self, fleet: &Fleet) -> Result<Option<u64>> {
        if let Remedy::Clear(queue) = self.remedy {
            let mut met = 0;
            for node in &self.nodes {
                // Where the container has ended, the rules went with it.
                if let Ok(namespace) = fleet.namespace(*node) {
                    met += namespace.clear()?;
                }
            }
            drop(queue);
            return Ok(Some(met));
        }
        let what = format!("the end of {} of {:?}", self.fault.name(), self.nodes);
        self.take_back(fleet).await.context(what)?;
        Ok(None)
    }

    async fn take_back(self, fleet: &Fleet) -> Result<()> {
        let node = self.nodes[0];
        match self.remedy {
            Remedy::Nothing | Remedy::Clear(_) => Ok(()),
            Remedy::Start => self.nodes.iter().try_for_each(|node| fleet.start(*node)),
            Remedy::GoOn => fleet.freeze(node, false),
            Remedy::Connect => fleet.connect(node),
            Remedy::Make => fleet.make(node),
            Remedy::Replace(id) => {
                fleet.make(node)?;
                fleet.ready(HEALED).await?;
                fleet.replace(&id, HEALED).await
            }
            Remedy::MakeRoom => {
                fleet.disk().map_err(|why| anyhow!(why))?.empty()?;
                // A node whose disk fails ends with the reason, and has to be started again.
                fleet.start_if_ended(node)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_listed_once_and_hits_whom_nothing_else_has_hit() {
        let mut kinds = Fault::ALL.to_vec();
        kinds.dedup_by_key(|kind| kind.name());
        assert_eq!(kinds.len(), Fault::ALL.len());
        let mut dice = Dice::seeded(7);
        for fault in Fault::ALL {
            for _ in 0..20 {
                let mut all = fault.choose(&mut dice, &[1, 2, 3, 4, 5]).unwrap();
                let count = all.len();
                all.sort_unstable();
                all.dedup();
                assert_eq!(all.len(), count, "{fault:?} hits somebody twice");
                // What loses data or freezes hits a minority at most.
                assert!(count <= 2 || [Fault::PowerCut, Fault::RollingRestart].contains(&fault));
                let some = fault.choose(&mut dice, &[2, 4]);
                assert!(some.is_none_or(|some| some.iter().all(|one| [2, 4].contains(one))));
            }
        }
        assert_eq!(Fault::Wipe.choose(&mut dice, &[3]), Some(vec![3]));
        assert!(Fault::Wipe.is_alone());
    }
}
