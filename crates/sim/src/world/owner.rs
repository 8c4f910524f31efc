//! The person at the PC, and the brain that judges when the PC works beside them.
//!
//! What the owner does changes a few dozen times a day; only then, at inputs, and when the brain
//! asks for it, is there a sample. In between the same sample would change nothing.

use super::World;
use crate::agenda::{Due, Pc};
use crate::chance::{Chance, mix};
use crate::generator::Generator;
use crate::habits;
use crate::peers::{Peer, Rules};
use crate::replay::Replay;
use crate::report::{Options, Regime};
use crate::source::Source;
use crate::usage::Usage;
use gleaner_attempt as attempt;
use gleaner_harvest::{Brain, Event, Settings};
use gleaner_model::{
    Bytes, Cpus, Load, Memory, Power, Pressure, Sample, Sessions, Signal, Span, Time, Verdict,
};

/// A simulated driver never misses a change: it promises a sample a week.
const BEAT: Span = Span::seconds(7 * 86_400);

/// Inputs come this often where only their being there matters: often enough that the PC counts
/// as used all the while.
const TOUCH_MS: u64 = 50_000;
/// Inputs while somebody types, where a brain reacts to each: below its two seconds.
const TYPE_MS: u64 = 1_900;

/// Who decides when a PC works.
#[derive(Debug)]
enum Judge {
    Brain(Box<Brain>),
    Peer(Peer),
}

/// An owner.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) usage: Usage,
    source: Source,
    /// Streams of chance are each PC's own: every policy sees the same owners.
    chance: Chance,
    /// Keys are drawn for themselves: only some policies need them.
    keys: Chance,
    judge: Option<Judge>,
    /// When somebody last touched the PC.
    touched: u64,
    typing_until: u64,
    /// A look is noted for this time, and a touch for that.
    looks: Option<u64>,
    touches: Option<u64>,
    /// Part of memory that is available.
    available: f64,
}

impl Owner {
    pub(crate) fn new(pc: Pc, options: &Options, now: u64) -> Self {
        let seed = options.seed;
        let source = match &options.trace {
            Some(trace) => Source::Recorded(Replay::new(trace.clone(), pc, now)),
            None => Source::Habits(Box::new(Generator::new(pc, seed, now))),
        };
        let mut chance = Chance::new(mix(seed ^ mix(u64::from(pc) + (1 << 41))));
        let available = 0.14 + 0.52 * chance.unit();
        Self {
            usage: Usage::ALONE,
            source,
            chance,
            keys: Chance::new(mix(seed ^ mix(u64::from(pc) + (1 << 42)))),
            judge: None,
            touched: now.saturating_sub(3_600_000),
            typing_until: 0,
            looks: None,
            touches: None,
            available,
        }
    }

    /// The agent starts, and with it its judgement.
    pub(crate) fn begin(&mut self, regime: Regime, cpus: Cpus, now: u64) {
        let peer = |rules| Judge::Peer(Peer::new(rules, cpus.milli, now));
        self.judge = Some(match regime {
            Regime::PeerCondor => peer(Rules::Condor),
            Regime::PeerBoinc => peer(Rules::Boinc),
            Regime::Own(policy) => {
                let settings = Settings {
                    policy,
                    ..Settings::default()
                };
                let brain = Brain::new(cpus, settings, Time { ms: now });
                Judge::Brain(Box::new(brain.sampled_every(BEAT)))
            }
        });
    }

    /// The agent is gone.
    pub(crate) fn end(&mut self) {
        self.judge = None;
    }

    fn sample(&self, now: u64, tasks: u16) -> Sample {
        fn seen<T>(value: T, now: u64) -> Signal<T> {
            Signal::Seen {
                value,
                at: Time { ms: now },
            }
        }
        let people = u32::from(self.usage.logged_in);
        let total = 8_u64 << 30;
        let available = crate::chance::whole(self.available * 8.0 * 1024.0) << 20;
        Sample {
            at: Time { ms: now },
            input: seen(Time { ms: self.touched }, now),
            sessions: seen(
                Sessions {
                    people,
                    active: people,
                    locked: people == 0,
                    ..Sessions::default()
                },
                now,
            ),
            load: seen(
                Load {
                    owner: self.usage.load,
                    tasks,
                    stolen: 0,
                    busiest: self.usage.load,
                },
                now,
            ),
            delay: seen(0, now),
            pressure: seen(Pressure::default(), now),
            memory: seen(
                Memory {
                    total: Bytes(total),
                    available: Bytes(available),
                    tasks: Bytes(0),
                    major_faults: 0,
                },
                now,
            ),
            power: seen(
                Power {
                    mains: true,
                    charge: None,
                },
                now,
            ),
            disk_free: seen(Bytes(100 << 30), now),
            minute_of_week: self.source.minute_of_week(now),
            ..Sample::default()
        }
    }

    /// Looks at everything; says whether there is something new to carry out.
    fn look(&mut self, now: u64) -> bool {
        let sample = matches!(self.judge, Some(Judge::Brain(_))).then(|| self.sample(now, 100));
        match (&mut self.judge, sample) {
            (Some(Judge::Brain(brain)), Some(sample)) => {
                brain.step(Time { ms: now }, Event::Sampled(Box::new(sample)))
            }
            (Some(Judge::Peer(peer)), _) => peer.look(now, self.touched, self.usage.load),
            _ => false,
        }
    }

    /// A key is pressed.
    fn press(&mut self, now: u64) -> bool {
        self.touched = now;
        match &mut self.judge {
            Some(Judge::Brain(brain)) => brain.step(Time { ms: now }, Event::Input),
            Some(Judge::Peer(_)) | None => false,
        }
    }

    fn decided(&self) -> Option<(Verdict, u32)> {
        Some(match self.judge.as_ref()? {
            Judge::Brain(brain) => {
                let decision = brain.decision();
                (decision.verdict, decision.allowance.milli)
            }
            Judge::Peer(peer) => (peer.verdict, u32::MAX),
        })
    }

    /// When the judge wants to look again.
    fn due(&self, now: u64) -> Option<u64> {
        match self.judge.as_ref()? {
            Judge::Brain(brain) => brain.sample_at().map(|at| at.ms),
            Judge::Peer(peer) => peer.due(now),
        }
    }

    /// Whether the judge would see nothing new yet.
    fn is_early(&self, now: u64) -> bool {
        match &self.judge {
            Some(Judge::Brain(brain)) => brain.sample_at().is_some_and(|at| at.ms > now),
            Some(Judge::Peer(_)) | None => false,
        }
    }

    /// When it sees what has just changed.
    const fn notices(&self, now: u64) -> u64 {
        match &self.judge {
            Some(Judge::Peer(peer)) => now + peer.late(),
            Some(Judge::Brain(_)) | None => now,
        }
    }

    /// The next input, while somebody is at it.
    fn next_touch(&mut self, now: u64, keen: bool) -> u64 {
        if !keen {
            return now + TOUCH_MS;
        }
        if now < self.typing_until {
            return now + TYPE_MS;
        }
        let pause = self.keys.lognormal_ms(habits::PAUSE.0, habits::PAUSE.1);
        let typing = self.keys.lognormal_ms(habits::TYPING.0, habits::TYPING.1);
        self.typing_until = now + pause + typing;
        now + pause.max(TYPE_MS)
    }
}

impl World {
    /// The owner does something else.
    pub(crate) fn owner_acts(&mut self, pc: Pc) {
        let (now, draining) = (self.now, self.draining);
        self.account(pc);
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        let owner = &mut node.owner;
        if draining {
            owner.usage = Usage::ALONE;
        } else {
            let (usage, until) = owner.source.next(now, &mut owner.chance);
            if usage.touching || owner.usage.touching {
                owner.touched = now;
            }
            owner.usage = usage;
            self.agenda.note(until, Due::Owner(pc));
        }
        let (wants, is_on, outage) = (node.owner.usage.on, node.on, node.outage_until);
        let at = node.owner.notices(now);
        if wants && !is_on && outage <= now {
            self.power_on(pc);
        } else if !wants && is_on {
            self.tally.power_offs += 1;
            self.power_goes(pc);
        }
        if at > now && !draining {
            self.look_by(pc, at);
        } else {
            self.judge(pc);
        }
        self.rate(pc);
        self.touch(pc);
    }

    /// Somebody touches the PC, if somebody is there and it is time for it.
    pub(crate) fn touch(&mut self, pc: Pc) {
        let (now, keen) = (self.now, self.options.regime.is_keen());
        let draining = self.draining;
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        let keen = keen && node.cpus.milli >= gleaner_harvest::thresholds::FREE_CORE_FROM_MILLI;
        let owner = &mut node.owner;
        if owner.touches.is_some_and(|noted| noted > now) || draining {
            return;
        }
        owner.touches = None;
        if !owner.usage.touching || !owner.usage.on {
            return;
        }
        let next = owner.next_touch(now, keen);
        owner.touches = Some(next);
        self.agenda.note(next, Due::Touch(pc));
        self.owner_steps += 1;
        if node.owner.press(now) {
            self.carry_out(pc);
        }
        self.note_look(pc);
    }

    /// The judge may want to look.
    pub(crate) fn look(&mut self, pc: Pc) {
        let now = self.now;
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        if node.owner.looks.is_none_or(|noted| noted > now) {
            return;
        }
        node.owner.looks = None;
        // What it waited for may have moved on with each input since.
        if node.owner.is_early(now) {
            self.note_look(pc);
        } else {
            self.judge(pc);
        }
    }

    /// The judge looks, and what it decides is done.
    pub(crate) fn judge(&mut self, pc: Pc) {
        let (now, draining) = (self.now, self.draining);
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        if draining {
            return self.carry_out(pc);
        }
        self.owner_steps += u64::from(node.owner.judge.is_some());
        if node.owner.look(now) {
            self.carry_out(pc);
        }
        self.note_look(pc);
    }

    fn note_look(&mut self, pc: Pc) {
        let now = self.now;
        let due = self.pcs.get(pc as usize).and_then(|n| n.owner.due(now));
        if let Some(due) = due {
            self.look_by(pc, due.max(now + 1));
        }
    }

    fn look_by(&mut self, pc: Pc, at: u64) {
        if let Some(node) = self.pcs.get_mut(pc as usize)
            && node.owner.looks.is_none_or(|noted| at < noted)
        {
            node.owner.looks = Some(at);
            self.agenda.note(at, Due::Look(pc));
        }
    }

    /// Tells the book what was decided, and the server at the next beat.
    fn carry_out(&mut self, pc: Pc) {
        self.account(pc);
        let draining = self.draining;
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        let decided = node.owner.decided();
        let (verdict, allowance) = match decided {
            _ if draining => (Verdict::Run, u32::MAX),
            Some(decided) => decided,
            None => return,
        };
        node.allowance = allowance.min(node.cpus.milli);
        if node.verdict != verdict {
            self.tally.verdict_changes += 1;
            node.verdict = verdict;
            self.feed(pc, attempt::Event::Judged(verdict));
            self.beat_now(pc);
        }
        self.rate(pc);
    }
}
