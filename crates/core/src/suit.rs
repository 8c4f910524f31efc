//! Which engine suits a job that leaves it open (`engine = "auto"`).
//!
//! A guest contains more than a process does, and for most programs costs next to nothing. Where
//! its kernel is a program itself, whatever asks the kernel is dear. So the first tasks of a job
//! run as processes and are measured; from then on its tasks go into guests where what was seen
//! says that little is lost by it. There the program asks the guest's kernel, and what is seen is
//! what the guest asks of the node: nearly nothing where the program computes, and a host's switch
//! between two programs for each call and fault where it does not. That brings a job whose later
//! tasks are different back. What was seen is kept as seven sums a job, in its own row.
//!
//! In: the ends of attempts. Out: an engine for each bundle, and a sentence for whoever asks why.
//! How an engine works, and by what its guests run, is not known here: a node says what its
//! guests make dear.

use crate::cost::{Figure, JobCost, MEASURED_SECONDS};
use crate::event::{AttemptEnd, Need, NodeHello};
use crate::job::Job;
use crate::state::State;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use gleaner_model::{Cpus, Engine, EngineChoice, GuestPrice, JobId, NodeId};

/// Processors that one task can have there. A guest has one, however many the node has.
pub(crate) fn cpus_for(need: &Need, hello: &NodeHello) -> Cpus {
    let whole = |engine: &Engine| *engine != Engine::Vm && need.engine.allows(*engine);
    if hello.engines.iter().any(whole) {
        hello.cpus
    } else {
        hello.cpus.min(Cpus::ONE)
    }
}

/// Whether a node has an engine that will do.
pub(crate) fn has_engine(need: &Need, hello: &NodeHello) -> bool {
    hello
        .engines
        .iter()
        .any(|engine| need.engine.allows(*engine))
}

/// The engine for tasks of a job that leaves it open, on a node that would do; none where the job
/// names its engine.
pub(crate) fn engine_for(need: &Need, cost: &JobCost, hello: &NodeHello) -> Option<Engine> {
    if need.engine != EngineChoice::Auto {
        return None;
    }
    let process = hello.engines.contains(&Engine::Process);
    let guest = hello.engines.contains(&Engine::Vm) && need.cpus <= Cpus::ONE;
    if guest && (!process || cost.suits_guests(hello.guests)) {
        Some(Engine::Vm)
    } else {
        Some(Engine::Process)
    }
}

impl State {
    /// Learns from an attempt's end, where its job leaves the engine open.
    pub(crate) fn learn(&mut self, end: &AttemptEnd) {
        let id = end.attempt.task.job;
        let node = self.nodes.get(&end.node);
        let price = node.and_then(|node| Some(node.hello.as_ref()?.guests));
        let price = price.unwrap_or(GuestPrice::Everything);
        let job = self.jobs.get_mut(&id);
        let learnt = job
            .filter(|job| job.spec.need.engine == EngineChoice::Auto)
            .is_some_and(|job| job.cost.note(end, price));
        if learnt {
            self.store_job(id);
        }
    }

    /// The engine of a bundle; none where its job names it.
    pub(crate) fn engine_of(&self, job: JobId, node: NodeId) -> Option<Engine> {
        let job = self.jobs.get(&job)?;
        let hello = self.nodes.get(&node)?.hello.as_ref()?;
        engine_for(&job.spec.need, &job.cost, hello)
    }
}

/// Why tasks of a job that leaves its engine open run in what they run in; none for other jobs.
pub(crate) fn explain(job: &Job) -> Option<String> {
    if job.spec.need.engine != EngineChoice::Auto {
        return None;
    }
    if job.spec.need.cpus > Cpus::ONE {
        return Some("engine auto: processes, since a guest has one processor".to_string());
    }
    if !job.cost.is_measured() {
        return Some(format!(
            "engine auto: processes until its tasks have used {MEASURED_SECONDS} s of CPU time, \
             which are measured"
        ));
    }
    let seen = job.cost.seen();
    let words = |price| -> Vec<&str> { job.cost.against(price).map(Figure::as_str).collect() };
    let (always, dear) = (words(GuestPrice::Little), words(GuestPrice::Calls));
    Some(if dear.is_empty() {
        format!("engine auto: guests where a node has them, since {seen}")
    } else if always.is_empty() {
        format!(
            "engine auto: processes where guests make calls dear, because of {}: {seen}; guests \
             where they do not, or where a node has nothing else",
            dear.join(" and ")
        )
    } else {
        format!(
            "engine auto: processes, because of {}: {seen}; guests only where a node has nothing \
             else",
            dear.join(" and ")
        )
    })
}
