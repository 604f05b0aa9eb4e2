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

    /// Takes all rules and limits back; answers how many packets they met.
    pub fn clear(self) -> Result<u64> {
        let mut met = ruled(&self.run("iptables", &["--wait", "-L", "-v", "-n", "-x"])?);
        for way in [Way::In, Way::Out] {
            self.rule(&["-F", way.chain()])?;
        }
        for interface in self.interfaces()? {
            met += limited(&self.run("tc", &["-s", "qdisc", "show", "dev", &interface])?);
            // Without a limit there is nothing to delete, which is an error of `tc`.
            let _ = self.run("tc", &["qdisc", "del", "dev", &interface, "root"]);
        }
        Ok(met)
    }

    /// Whether rules can be made here at all.
    pub fn try_rules(self) -> Result<()> {
        self.rule(&["-S"])
    }

    /// Whether bandwidth can be limited here.
    pub fn try_limits(self) -> Result<()> {
        let discipline = ["root", "tbf", "rate", "100mbit", "burst", "16kb", "latency", "400ms"];
        self.run("tc", &[&["qdisc", "replace", "dev", "lo"], &discipline[..]].concat())?;
        self.run("tc", &["qdisc", "del", "dev", "lo", "root"]).map(drop)
    }

    /// All but the loopback.
    fn interfaces(self) -> Result<Vec<String>> {
        let table = std::fs::read_to_string(format!("/proc/{}/net/dev", self.0))?;
        let names = table.lines().filter_map(|line| line.split_once(':'));
        Ok(names.map(|(name, _)| name.trim().to_owned()).filter(|name| name != "lo").collect())
    }

    fn rule(self, arguments: &[&str]) -> Result<()> {
        self.run("iptables", &[&["--wait"], arguments].concat()).map(drop)
    }

    fn run(self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.to_string(), "--net", program]).args(arguments);
        run(command)
    }
}

/// How many packets met the rules that `iptables -L -v` lists: the first word of each rule, whose third is its target.
fn ruled(listed: &str) -> u64 {
    let targets = ["DROP", "REJECT", "NFQUEUE"];
    let rules = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rules = rules.filter(|words| words.get(2).is_some_and(|word| targets.contains(word)));
    rules.filter_map(|words| words[0].parse::<u64>().ok()).sum()
}

/// How many packets went through the token bucket that `tc -s qdisc` lists.
fn limited(listed: &str) -> u64 {
    let Some((_, bucket)) = listed.split_once("qdisc tbf ") else {
        return 0;
    };
    let packets = bucket.split_once(" pkt").and_then(|(before, _)| before.rsplit(' ').next());
    packets.and_then(|packets| packets.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_met_a_rule_or_a_limit_are_counted() {
        let listed = "\
Chain INPUT (policy ACCEPT 7 packets, 412 bytes)
    pkts      bytes target     prot opt in     out     source               destination
      12      720 DROP       6    --  *      *       0.0.0.0/0            0.0.0.0/0  statistic mode random
       3      180 NFQUEUE    6    --  *      *       0.0.0.0/0            0.0.0.0/0  NFQUEUE num 7 bypass";
        assert_eq!(ruled(listed), 15);
        assert_eq!(ruled("Chain INPUT (policy ACCEPT 7 packets, 412 bytes)"), 0);
        let listed = "\
qdisc tbf 8008: root refcnt 2 rate 256Kbit burst 16Kb lat 400ms
 Sent 4096 bytes 41 pkt (dropped 2, overlimits 10 requeues 0)";
        assert_eq!(limited(listed), 41);
        assert_eq!(limited("qdisc noqueue 0: root refcnt 2\n Sent 0 bytes 9 pkt (dropped 0)"), 0);
    }

    #[test]
    fn a_chance_is_written_with_two_digits() {
        assert_eq!((probability(5), probability(30)), ("0.05".to_owned(), "0.30".to_owned()));
    }
}
