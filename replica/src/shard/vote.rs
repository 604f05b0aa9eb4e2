//! How a store takes part in deciding the next configuration, and enters what was decided.

use triad_ring::mutant::{Mutant, left_out};

use super::{Durable, EnteredRow, ShardReplica};
use crate::configuration::Configuration;
use crate::member::Member;
use crate::message::{Base, Removal, RemovalReason, ShardReply};
use crate::paxos::{Acceptor, Ballot, Outbid};

impl ShardReplica {
    /// Phase 1. A promise fences nothing. `alive` says whether a member is alive, with its
    /// store, as this node sees it: then its removal as down or lost is refused, here and not
    /// in phase 2, since a value that another acceptor let through must stay acceptable.
    pub fn on_prepare(
        &mut self,
        base: Configuration,
        ballot: Ballot,
        removals: &[Removal],
        alive: impl Fn(&Member) -> bool,
    ) -> (Vec<Durable>, ShardReply) {
        if !base.read_set().contains(&self.me) {
            return (Vec::new(), ShardReply::Refused);
        }
        let digest = base.digest();
        let shard = base.shard;
        let epoch = base.epoch;
        let mut durable = self.enter_if_newer(base);
        let named = Base { shard, epoch, digest };
        if let Err(reply) = self.builds_on_newest(named) {
            return (durable, *reply);
        }
        if !self.is_introduced() {
            return (durable, ShardReply::Refused);
        }
        let claims_gone = |removal: &&Removal| {
            matches!(removal.reason, RemovalReason::Down | RemovalReason::LostStore)
        };
        let mut gone = removals.iter().filter(claims_gone);
        if let Some(Removal { member, .. }) = gone.find(|removal| alive(&removal.member)) {
            let member = *member;
            return (durable, ShardReply::RemovalRefused { member });
        }
        let reply = match self.acceptor.prepare(ballot) {
            Ok(()) => {
                if !left_out(Mutant::PromiseNotDurable) {
                    durable.push(Durable::Acceptor(self.acceptor.clone()));
                }
                let accepted = self.acceptor.accepted().cloned();
                ShardReply::Promised { ballot, accepted }
            }
            Err(Outbid(promised)) => ShardReply::Rejected { promised },
        };
        (durable, reply)
    }

    /// Phase 2. Accepting any value fences for ever: this store never serves the base's
    /// epoch again, whatever is decided later (design rule D2).
    pub fn on_accept(
        &mut self,
        base: Base,
        ballot: Ballot,
        value: Configuration,
    ) -> (Vec<Durable>, ShardReply) {
        let known = match self.builds_on_newest(base) {
            Ok(known) => known,
            Err(reply) => return (Vec::new(), *reply),
        };
        let votes = known.read_set().contains(&self.me) && self.is_introduced();
        if !votes || !known.may_be_followed_by(&value) {
            return (Vec::new(), ShardReply::Refused);
        }
        match self.acceptor.accept(ballot, value.clone()) {
            Ok(()) => {
                let mut durable = vec![Durable::Acceptor(self.acceptor.clone())];
                durable.retain(|_| !left_out(Mutant::AcceptanceNotDurable));
                if left_out(Mutant::EntersAtAcceptance) {
                    durable.extend(self.enter_if_newer(value));
                }
                (durable, ShardReply::Accepted { ballot })
            }
            Err(Outbid(promised)) => (Vec::new(), ShardReply::Rejected { promised }),
        }
    }

    /// A configuration is decided: enter it, unless a greater one is known. Only such a
    /// message makes a store enter, never its own acceptance.
    pub fn on_learn(&mut self, decided: Configuration) -> (Vec<Durable>, ShardReply) {
        let newer = |known: &&Configuration| {
            // The second can only be the work of a store that lies: it is shown, not obeyed.
            (known.epoch > decided.epoch && !left_out(Mutant::OlderReplacesNewer))
                || (known.epoch == decided.epoch && **known != decided)
        };
        if let Some(known) = self.newest().filter(newer) {
            let newest = known.clone();
            return (Vec::new(), ShardReply::Superseded { newest });
        }
        let epoch = decided.epoch;
        (self.enter_if_newer(decided), ShardReply::Learned { epoch })
    }

    /// Configurations are only replaced by greater epochs; epochs may be skipped.
    pub(super) fn enter_if_newer(&mut self, decided: Configuration) -> Vec<Durable> {
        let known = self.newest().map(|known| known.epoch);
        let newer = known < Some(decided.epoch) || left_out(Mutant::OlderReplacesNewer);
        if decided.shard != self.shard || !newer || known == Some(decided.epoch) {
            return Vec::new();
        }
        self.acceptor = Acceptor::new(decided.epoch);
        let mut durable = self.end_round(&decided);
        let (row, discards) = EnteredRow::following(self.entered.take(), decided, self.me);
        self.entered = Some(row.clone());
        if discards {
            durable = vec![Durable::Forget(self.shard)];
        }
        durable.push(Durable::Entered(row));
        if self.is_member() || discards {
            // A copy that was thrown away is begun anew by whoever wants it.
            self.learning = false;
        }
        durable
    }

    /// Whatever is entered, the vouches of the epoch before are done with. They count only for
    /// who comes from that epoch: who skipped one keeps what it holds.
    fn end_round(&self, decided: &Configuration) -> Vec<Durable> {
        match self.entered() {
            Some(was) if was.configuration.is_member(&self.me) => {
                let collected = decided.collected.as_deref().copied();
                let collected = collected.filter(|_| was.continues_into(decided, self.me));
                vec![Durable::EndRound { shard: self.shard, collected }]
            }
            _ => Vec::new(),
        }
    }

    /// A ballot counts only on top of the newest decided configuration, named by its digest.
    fn builds_on_newest(&self, base: Base) -> Result<&Configuration, Box<ShardReply>> {
        let newest = self.newest().map(|known| known.epoch);
        match self.newest() {
            Some(known) if base == Base::of(known) => Ok(known),
            Some(known) if base.epoch <= known.epoch => {
                let newest = known.clone();
                Err(Box::new(ShardReply::Superseded { newest }))
            }
            _ => Err(Box::new(ShardReply::Behind { newest })),
        }
    }
}
