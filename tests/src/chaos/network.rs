//! Rules in a container's network namespace, made from outside: the image has neither programs nor rights for that.
//! They go with the container.

use std::process::Command;

use anyhow::{Result, ensure};

use super::packets;
use crate::containers::run;

/// Which packets a container loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Those that come.
    In,
    /// Those that go.
    Out,
}

impl Way {
    fn chain(self) -> &'static str {
        if self == Self::In { "INPUT" } else { "OUTPUT" }
    }
}

/// Less than 100 of a hundred.
fn probability(percent: u64) -> String {
    format!("0.{percent:02}")
}

/// The network namespace of a process.
#[derive(Debug, Clone, Copy)]
pub struct Namespace(u32);

impl Namespace {
    /// That of this process, which must live.
    pub fn of(process: u32) -> Result<Self> {
        ensure!(process > 0, "a container that does not run has no network");
        Ok(Self(process))
    }

    /// Loses all packets from or to this address.
    pub fn cut(self, way: Way, address: &str) -> Result<()> {
        let side = if way == Way::In { "--source" } else { "--destination" };
        self.rule(&["-A", way.chain(), side, address, "-j", "DROP"])
    }

    /// Loses so many packets of a hundred, each way.
    pub fn lose(self, percent: u64) -> Result<()> {
        let probability = probability(percent);
        let chance = ["-m", "statistic", "--mode", "random", "--probability", &probability];
        for way in [Way::In, Way::Out] {
            self.rule(&[&["-A", way.chain()], &chance[..], &["-j", "DROP"]].concat())?;
        }
        Ok(())
    }

    /// Resets the connection of so many packets of a hundred that come: their sender is told, and this side is not.
    pub fn reset(self, percent: u64) -> Result<()> {
        let probability = probability(percent);
        let chance = ["-m", "statistic", "--mode", "random", "--probability", &probability];
        let answer = ["-j", "REJECT", "--reject-with", "tcp-reset"];
        self.rule(&[&["-A", "INPUT", "-p", "tcp"], &chance[..], &answer].concat())
    }

    /// Sends what comes to the queue of [`packets`]; with nobody there, it passes.
    pub fn queue(self) -> Result<()> {
        let number = packets::NUMBER.to_string();
        let target = ["-j", "NFQUEUE", "--queue-num", &number, "--queue-bypass"];
        self.rule(&[&["-A", "INPUT", "-p", "tcp"], &target[..]].concat())
    }

    /// Lets no more than so many kilobits a second out.
    pub fn slow(self, kilobits: u64) -> Result<()> {
        let rate = format!("{kilobits}kbit");
        for interface in self.interfaces()? {
            let discipline = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "400ms"];
            self.run("tc", &[&["qdisc", "replace", "dev", &interface], &discipline[..]].concat())?;
        }
        Ok(())
    }

    /// Takes all rules and limits back.
    pub fn clear(self) -> Result<()> {
        for way in [Way::In, Way::Out] {
            self.rule(&["-F", way.chain()])?;
        }
        for interface in self.interfaces()? {
            // Without a limit there is nothing to delete, which is an error of `tc`.
            let _ = self.run("tc", &["qdisc", "del", "dev", &interface, "root"]);
        }
        Ok(())
    }

    /// Whether rules can be made here at all.
    pub fn try_rules(self) -> Result<()> {
        self.rule(&["-S"])
    }

    /// Whether bandwidth can be limited here.
    pub fn try_limits(self) -> Result<()> {
        let discipline = ["root", "tbf", "rate", "100mbit", "burst", "16kb", "latency", "400ms"];
        self.run("tc", &[&["qdisc", "replace", "dev", "lo"], &discipline[..]].concat())?;
        self.run("tc", &["qdisc", "del", "dev", "lo", "root"])
    }

    /// All but the loopback.
    fn interfaces(self) -> Result<Vec<String>> {
        let table = std::fs::read_to_string(format!("/proc/{}/net/dev", self.0))?;
        let names = table.lines().filter_map(|line| line.split_once(':'));
        Ok(names.map(|(name, _)| name.trim().to_owned()).filter(|name| name != "lo").collect())
    }

    fn rule(self, arguments: &[&str]) -> Result<()> {
        self.run("iptables", &[&["--wait"], arguments].concat())
    }

    fn run(self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.to_string(), "--net", program]).args(arguments);
        run(command).map(drop)
    }
}
