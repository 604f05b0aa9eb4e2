//! What a node answers, and what answers do.

use triad_replica::member::Member;
use triad_replica::message::{PullPurpose, ShardReply, ShardRequest};
use triad_replica::shard::Access;
use triad_replica::transfer::{DrainInput, MoveInput, Pull, PullInput};

use super::{For, World};
use crate::ledger::Ledger;
use crate::node::{Answer, Ask};

impl World {
    pub(super) fn answer(&mut self, node: usize, ask: Ask) -> Answer {
        let at = &mut self.nodes[node];
        match ask {
            Ask::Shard(request) => Answer::Shard(self.answer_shard(node, request)),
            Ask::Tree => Answer::Tree { standing: at.replica.standing(), content: at.held.clone() },
            Ask::Page { leaves, after } if at.replica.standing().source => {
                let (content, next) = at.held.page(&leaves, after.as_ref());
                Answer::Page { content, data_epoch: at.replica.data_epoch(), next }
            }
            Ask::Push { from, epoch, content, next }
                if at.replica.takes_push_from(&from, epoch) =>
            {
                self.coverage.pushed += u64::from(content.writes & !at.held.writes != 0);
                at.held.merge(&content);
                Answer::Pushed { next }
            }
            Ask::Vouch(request) => Answer::Vouch(at.vouch(&request)),
            Ask::Record { epoch, stamp, key, record, of } => {
                self.answer_record(node, epoch, stamp, key, &record, of)
            }
            Ask::ReadRecord { epoch, read } => match at.replica.check(Access::Read, epoch) {
                Ok(()) => {
                    Answer::ReadRecord { read, record: at.held.record(self.record_reads[read].key) }
                }
                Err(_) => Answer::No,
            },
            Ask::Page { .. } | Ask::Push { .. } => Answer::No,
            Ask::Merge { configuration, write, attempt } => {
                match at.replica.check(Access::Merge, configuration.epoch) {
                    Ok(()) => {
                        self.ledger.served(at.me, configuration.epoch);
                        at.held.writes |= 1 << write;
                        Answer::Merged { write, attempt }
                    }
                    Err(refusal) => {
                        self.coverage.refused(&refusal);
                        Answer::No
                    }
                }
            }
            Ask::Read { configuration, read } => {
                match at.replica.check(Access::Read, configuration.epoch) {
                    Ok(()) => {
                        self.ledger.served(at.me, configuration.epoch);
                        self.ledger.answers_read(at.me, configuration.epoch);
                        Answer::Read { read, held: at.held.writes }
                    }
                    Err(refusal) => {
                        self.coverage.refused(&refusal);
                        Answer::No
                    }
                }
            }
        }
    }

    fn answer_shard(&mut self, node: usize, request: ShardRequest) -> ShardReply {
        let at = &mut self.nodes[node];
        let before = at.replica.newest().map(|known| known.epoch);
        let accepts = match &request {
            ShardRequest::Accept { base, ballot, value } => {
                Some((base.epoch, *ballot, value.clone()))
            }
            _ => None,
        };
        let (durable, reply) = match request {
            ShardRequest::Prepare { base, ballot, removals } => {
                at.replica.on_prepare(base, ballot, &removals, |_| false)
            }
            ShardRequest::Accept { base, ballot, value } => {
                at.replica.on_accept(base, ballot, value)
            }
            ShardRequest::Learn { configuration } => at.replica.on_learn(configuration),
            ShardRequest::StartLearning { base } => at.replica.start_learning(base),
            ShardRequest::Progress { .. } => {
                let pull = at.pull.as_ref();
                let learns = pull.filter(|pull| pull.plan().purpose == PullPurpose::Learn);
                let difference = learns.and_then(Pull::difference);
                (Vec::new(), at.replica.report(difference))
            }
        };
        self.commit(node, before, &durable);
        let me = self.nodes[node].me;
        if let (ShardReply::Accepted { .. }, Some((base, ballot, value))) = (&reply, accepts)
            && self.ledger.accepted(me, base, ballot, &value)
        {
            let base = self.ledger.decided[&base].clone();
            self.coverage.decided(&base, &value);
        }
        reply
    }

    pub(super) fn driver_gets(&mut self, node: usize, from: Member, whom: For, answer: Answer) {
        let at = &mut self.nodes[node];
        let [pull, drain, round] = at.tickets;
        match whom {
            For::Move => {
                if let Answer::Shard(reply) = answer {
                    self.drive_move(node, MoveInput::Reply { from, reply });
                }
            }
            For::Pull(ticket) if ticket == pull => {
                let input = match answer {
                    Answer::Tree { standing, content } => {
                        let differing = at.held.differing(&content);
                        PullInput::Compared { from, standing, differing }
                    }
                    Answer::Page { content, data_epoch, next } if at.takes_page(data_epoch) => {
                        at.held.merge(&content);
                        PullInput::Merged { from, next }
                    }
                    _ => PullInput::Failed { from },
                };
                self.drive_pull(node, input);
            }
            For::Drain(ticket) if ticket == drain => {
                let input = match answer {
                    Answer::Tree { standing, content } => {
                        let differing = at.held.differing(&content);
                        DrainInput::Compared { from, standing, differing }
                    }
                    Answer::Pushed { next } => DrainInput::Pushed { to: from, next },
                    _ => DrainInput::Failed { from },
                };
                self.drive_drain(node, input);
            }
            For::Round(ticket) if ticket == round => {
                if let Answer::Vouch(reply) = answer {
                    self.drive_round(node, from, reply);
                }
            }
            For::Pull(_) | For::Drain(_) | For::Round(_) | For::Client => {}
        }
    }

    pub(super) fn client_gets(&mut self, from: Member, answer: &Answer) {
        match answer {
            Answer::Merged { write: number, attempt } => {
                let (number, attempt) = (*number, *attempt);
                let write = &mut self.writes[number];
                let attempt = &mut write.attempts[attempt];
                attempt.by.insert(from);
                if write.acknowledged.is_none() && attempt.is_acknowledged() {
                    let epoch = attempt.configuration.epoch;
                    write.acknowledged = Some(epoch);
                    self.acknowledged.push((epoch, 1 << number));
                    Ledger::acknowledged(&self.nodes, epoch, 1 << number);
                    self.coverage.acknowledged += 1;
                }
            }
            Answer::Record { of: (op, attempt) } => self.op_answered(*op, *attempt, from),
            Answer::ReadRecord { read, record } => self.record_read(*read, from, record),
            Answer::Read { read, held } => {
                let read = &mut self.reads[*read];
                if read.answer(from, *held) {
                    let missed = read.must_see & !read.seen;
                    assert_eq!(missed, 0, "D8: a read in {} missed writes", read.configuration);
                    self.coverage.reads += 1;
                }
            }
            _ => {}
        }
    }
}
