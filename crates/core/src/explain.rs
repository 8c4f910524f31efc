//! Why a task waits, in the order in which matching asks, and what to do about it.

use crate::event::NodeHello;
use crate::job::Job;
use crate::matching::{labels_fit, saves_for};
use crate::needs::Room;
use crate::node::Node;
use crate::state::State;
use crate::suit::{self, cpus_for, has_engine};
use crate::view::{Explanation, Rule};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use gleaner_model::{Bytes, Cpus, JobId, NodeState};

impl State {
    /// Why tasks of this job wait; none where there is no such job. Of the rules about nodes the
    /// first is named after which no node is left.
    #[must_use]
    pub fn explain(&self, id: JobId) -> Option<Explanation> {
        let job = self.jobs.get(&id)?;
        let about_job = self.explain_job(job);
        let nodes: Vec<&Node> = self.nodes.values().collect();
        let mut left = nodes.clone();
        let (mut rule, mut counts) = (None, Vec::new());
        for asked in Rule::ALL.iter().filter(|rule| **rule > Rule::NoNodes) {
            let failing = nodes.iter().filter(|n| self.fails(job, n, *asked)).count();
            counts.push((*asked, u32::try_from(failing).unwrap_or(u32::MAX)));
            left.retain(|node| !self.fails(job, node, *asked));
            if left.is_empty() && rule.is_none() {
                rule = Some(*asked);
            }
        }
        let rule = match about_job {
            Some((rule, _)) => rule,
            None if nodes.is_empty() => Some(Rule::NoNodes),
            None => Some(rule.unwrap_or(Rule::FairShare)),
        };
        let failing = counts
            .iter()
            .find(|(counted, _)| Some(*counted) == rule)
            .map_or(0, |(_, failing)| *failing);
        let text = match about_job {
            Some((_, text)) => text,
            None => self.advice(job, rule.unwrap_or(Rule::FairShare), failing),
        };
        let counted = job.counts();
        Some(Explanation {
            job: id,
            rule,
            waiting: counted.waiting + counted.ready,
            nodes: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
            failing,
            counts,
            text,
            engine: suit::explain(job),
        })
    }

    /// Rules that need no node: the job is over, is paused, waits for itself, or does not wait.
    fn explain_job(&self, job: &Job) -> Option<(Option<Rule>, String)> {
        let id = job.id;
        if job.state.is_over() {
            let mut text = format!("job {id} is {}", job.state);
            if !job.reason.is_empty() {
                text = format!("{text}: {}", job.reason);
            }
            if !job.failed.is_empty() || !job.cancelled.is_empty() {
                text = format!("{text}; `gleaner retry {id}` tries again");
            }
            return Some((Some(Rule::JobOver), text));
        }
        if job.paused {
            let text = format!("job {id} is paused; `gleaner resume {id}` lets it go on");
            return Some((Some(Rule::Paused), text));
        }
        if job.merging {
            let text = format!("all tasks of job {id} are done; the server merges their results");
            return Some((Some(Rule::Dependency), text));
        }
        if job.available() > 0 {
            return None;
        }
        let (running, rest) = (job.running.len(), job.total() as usize);
        if job.held {
            let done = job.done.len();
            let text = format!(
                "the merge command of job {id} waits for the other tasks: {done} of {} done",
                job.spec.count
            );
            return Some((Some(Rule::Dependency), text));
        }
        let text = format!("no task of job {id} waits: {running} of {rest} are on nodes");
        Some((None, text))
    }

    /// Whether a node fails one rule, all others apart.
    fn fails(&self, job: &Job, node: &Node, rule: Rule) -> bool {
        let need = &job.spec.need;
        let hello = node.hello.as_ref();
        // A node that has not said what it is fails by its state alone.
        let said = |wrong: &dyn Fn(&NodeHello) -> bool| hello.is_some_and(wrong);
        match rule {
            Rule::JobOver | Rule::Paused | Rule::Dependency | Rule::NoNodes | Rule::FairShare => {
                false
            }
            Rule::NodeState => !node.takes,
            Rule::Engine => said(&|hello| !has_engine(need, hello)),
            Rule::Image => said(&|hello| need.image && !hello.images),
            Rule::Checkpoint => said(&|hello| !saves_for(need, hello)),
            Rule::Arch => said(&|h| need.arch.as_ref().is_some_and(|arch| *arch != h.arch)),
            Rule::Labels => said(&|hello| !labels_fit(need, hello)),
            Rule::Cpus => said(&|hello| cpus_for(need, hello) < need.cpus),
            Rule::Memory => said(&|hello| hello.memory < need.memory),
            Rule::Disk => said(&|hello| hello.disk < need.disk),
            Rule::NoProgram => job.excluded.contains(&node.id),
            Rule::TriedElsewhere => !job.has_for(node.place(), &|shy| self.alone(job, shy)),
            Rule::Busy => !node.room().holds(Room::of(need)),
        }
    }

    fn advice(&self, job: &Job, rule: Rule, failing: u32) -> String {
        let all = self.nodes.len();
        let need = &job.spec.need;
        let most = |of: &dyn Fn(&NodeHello) -> u64| {
            let said = self.nodes.values().filter_map(|node| node.hello.as_ref());
            said.map(of).max().unwrap_or_default()
        };
        let of_all = format!("{failing} of {all} nodes");
        match rule {
            Rule::NoNodes => "no node has connected yet; start an agent with \
                 `gleaner agent --server URL`"
                .into(),
            Rule::NodeState => self.about_states(&of_all),
            Rule::Engine => format!(
                "{of_all} lack the engine `{}`; `gleaner doctor` on a node says how to get it, or \
                 set task.engine to another one",
                need.engine
            ),
            Rule::Image => no_images(&of_all),
            Rule::Checkpoint => format!(
                "{of_all} cannot save a running guest, as task.checkpoint asks; `gleaner doctor` \
                 on a node says why, or name task.checkpoint_files for a program that saves \
                 itself, or leave task.checkpoint out"
            ),
            Rule::Arch => format!(
                "{of_all} are not of architecture {}; add such a node, or change require.arch",
                need.arch.as_deref().unwrap_or("any")
            ),
            Rule::Labels => format!(
                "{of_all} do not carry the labels {}; label a node so, or change require.labels",
                labels_text(job)
            ),
            Rule::Cpus => {
                let milli = u32::try_from(most(&|hello| u64::from(cpus_for(need, hello).milli)))
                    .unwrap_or(u32::MAX);
                let (want, have) = (need.cpus, Cpus { milli });
                format!(
                    "{of_all} have fewer than {want} CPUs (most: {have}); lower limits.cpus, or \
                     add a bigger node"
                )
            }
            Rule::Memory => format!(
                "{of_all} have less than {} of memory (most: {}); lower limits.memory, or add a \
                 bigger node",
                need.memory,
                Bytes(most(&|hello| hello.memory.0))
            ),
            Rule::Disk => format!(
                "{of_all} have less than {} of disk (most: {}); lower limits.disk, or free space \
                 on a node",
                need.disk,
                Bytes(most(&|hello| hello.disk.0))
            ),
            Rule::NoProgram => format!(
                "{of_all} say that they lack the program; install it there, send it as an input, \
                 or name an image"
            ),
            Rule::TriedElsewhere => format!(
                "the tasks failed on {of_all}, or were saved as guests of another machine than \
                 theirs, and wait for another one; `gleaner tasks {}` says which",
                job.id
            ),
            Rule::Busy => format!(
                "{of_all} have no room now; the tasks start when others end, or on further nodes"
            ),
            Rule::FairShare => "nodes have room and another user's or job's turn comes first; \
                 the tasks start as turns go round"
                .into(),
            Rule::JobOver | Rule::Paused | Rule::Dependency => job.reason.clone(),
        }
    }

    fn about_states(&self, of_all: &str) -> String {
        let mut states = Vec::new();
        for state in NodeState::ALL {
            let idle = |node: &&Node| !node.takes && node.state() == *state;
            let count = self.nodes.values().filter(idle).count();
            if count > 0 {
                let word = if *state == NodeState::Online {
                    "disconnected"
                } else {
                    state.as_str()
                };
                states.push(format!("{count} {word}"));
            }
        }
        format!(
            "{of_all} take no work now ({}); `gleaner nodes` says why for each",
            states.join(", ")
        )
    }
}

fn no_images(of_all: &str) -> String {
    format!(
        "{of_all} take no images; `gleaner doctor` there says why, or bring its agent up to date"
    )
}

fn labels_text(job: &Job) -> String {
    let labels = job.spec.need.labels.iter();
    let pairs: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if pairs.is_empty() {
        "(none)".to_string()
    } else {
        pairs.join(", ")
    }
}
