//! What a submission must be to become a job. Every refusal names its key and says what to write.

use super::{BODY_VERSION, JobPlan, SplitError, SplitJob, StoredJob, axes, names, wrong};
use crate::images::Images;
use gleaner_api::{JobImage, check_patterns};
use gleaner_blob::Blobs;
use gleaner_core::{MergeKind, Need, NewJob};
use gleaner_model::{
    BlobRef, CHECKPOINT_EVERY_MIN, EngineChoice, JobSpec, Merge, Submission, TaskSpec, UserId,
};
use gleaner_store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest name of a job in bytes: a listing must stay readable.
const NAME_BYTES_MAX: usize = 256;

/// Splits a submission: checks all of it, counts its tasks, and makes its plan.
pub(crate) fn split(
    store: &dyn Store,
    blobs: &Blobs,
    images: &Images,
    (user, submission): (UserId, Submission),
) -> Result<SplitJob, SplitError> {
    let spec = &submission.spec;
    supported(spec)?;
    task(spec)?;
    collect(spec)?;
    check_patterns(spec).map_err(SplitError::Spec)?;
    let opened = axes::open(blobs, &submission, None)?;
    let image = image(blobs, images, spec)?;
    let count = axes::count(&opened.axes, spec.sweep.mode)?;
    let stored = StoredJob {
        version: BODY_VERSION,
        count,
        pieces: opened.pieces,
        submission,
        image,
    };
    let body = serde_json::to_vec(&stored)
        .map_err(|error| wrong("job", format!("cannot be stored: {error}")))?;
    let mut needs = opened.needs;
    needs.extend(image.map(|image| image.digest));
    let plan = JobPlan::compile(store, blobs, stored, opened.axes)?;
    plan.check_inputs(&mut needs)?;
    let spec = plan.spec();
    let job = NewJob {
        user,
        name: name(spec),
        priority: spec.job.priority,
        count,
        need: need(spec),
        retry: spec.retry,
        merge: match spec.collect.merge {
            None => MergeKind::None,
            Some(Merge::Concat(_)) => MergeKind::Concat,
            Some(Merge::Command(_)) => MergeKind::Command,
        },
        body,
    };
    Ok(SplitJob {
        job,
        plan: Arc::new(plan),
        needs,
    })
}

fn name(spec: &JobSpec) -> String {
    match spec.job.name.as_str() {
        "" => {
            let program = spec.task.command.first().map_or("job", String::as_str);
            program.rsplit('/').next().unwrap_or(program).to_owned()
        }
        name => name.to_owned(),
    }
}

fn need(spec: &JobSpec) -> Need {
    let limits = spec.limits.resolve();
    Need {
        cpus: limits.cpus,
        memory: limits.memory,
        disk: limits.disk,
        engine: spec.task.engine.unwrap_or(EngineChoice::Process),
        arch: spec.require.arch.clone(),
        labels: spec.require.labels.clone(),
        saves: spec.task.checkpoint.is_some() && spec.task.checkpoint_files.is_empty(),
        image: spec.task.image.is_some(),
    }
}

/// The file that the image's name stands for now; it stays as long as the job is known.
fn image(blobs: &Blobs, images: &Images, spec: &JobSpec) -> Result<Option<BlobRef>, SplitError> {
    let Some(name) = &spec.task.image else {
        return Ok(None);
    };
    if spec.task.engine == Some(EngineChoice::Wasm) {
        let problem = "a wasm task has no root to put an image in; leave one of them out";
        return Err(wrong("task.image", problem));
    }
    let Some(blob) = images.find(name) else {
        return Err(wrong("task.image", no_image(name, images.nearest(name))));
    };
    match blobs.renew(&blob.digest)? {
        Some(_) => Ok(Some(blob)),
        None => {
            let problem = format!("the file of image {name:?} is lost; import it again");
            Err(wrong("task.image", problem))
        }
    }
}

fn no_image(name: &str, nearest: Option<String>) -> String {
    let near = nearest.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    let near = if near.is_empty() { ";" } else { &near };
    format!(
        "there is no image {name:?}{near} `gleaner image list` lists them, `gleaner image import \
         NAME SOURCE` makes one"
    )
}

/// What the job file may say but this server cannot do yet is refused, never ignored.
fn supported(spec: &JobSpec) -> Result<(), SplitError> {
    let asked = [
        ("limits.network", spec.limits.network),
        ("verify.replicas", spec.verify.replicas > 1),
        ("verify.command", spec.verify.command.is_some()),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((key, _)) => Err(wrong(
            *key,
            "is not supported by this server yet; leave it out",
        )),
        None => Ok(()),
    }
}

fn no_nul(key: &str, text: &str) -> Result<(), SplitError> {
    match text.contains('\0') {
        true => Err(wrong(
            key,
            "holds a NUL byte, which no argument may; remove it",
        )),
        false => Ok(()),
    }
}

fn task(spec: &JobSpec) -> Result<(), SplitError> {
    let task = &spec.task;
    command("task.command", &task.command)?;
    if spec.job.name.len() > NAME_BYTES_MAX {
        let problem = format!("is longer than {NAME_BYTES_MAX} bytes; choose a shorter one");
        return Err(wrong("job.name", problem));
    }
    for (name, value) in &task.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            let problem = format!("{name:?} cannot name a variable; leave `=` out");
            return Err(wrong("task.env", problem));
        }
        no_nul(&format!("task.env.{name}"), value)?;
    }
    for name in task.inputs.keys() {
        inside(&format!("task.inputs.{name}"), name)?;
    }
    outputs("task.outputs", &task.outputs)?;
    outputs("task.checkpoint_files", &task.checkpoint_files)?;
    checkpoint(spec)?;
    web_assembly(task)?;
    if let Some(stdin) = &task.stdin {
        inside("task.stdin", stdin)?;
    }
    if spec.retry.attempts == 0 {
        return Err(wrong(
            "retry.attempts",
            "is 0, so no task would ever run; write 1 or more",
        ));
    }
    if spec.verify.replicas == 0 {
        return Err(wrong("verify.replicas", "is 0; write 1, or leave it out"));
    }
    limits(spec)
}

fn checkpoint(spec: &JobSpec) -> Result<(), SplitError> {
    let task = &spec.task;
    if task
        .checkpoint
        .is_some_and(|every| every < CHECKPOINT_EVERY_MIN)
    {
        let problem = format!("is shorter than {CHECKPOINT_EVERY_MIN}; write more");
        return Err(wrong("task.checkpoint", problem));
    }
    let engine = task.engine.unwrap_or(EngineChoice::Process);
    if task.checkpoint.is_some() && task.checkpoint_files.is_empty() && engine != EngineChoice::Vm {
        let problem = format!(
            "is for guests: the engine {engine} cannot save a running program by itself; name the \
             files by which yours saves itself in task.checkpoint_files, or set task.engine to vm"
        );
        return Err(wrong("task.checkpoint", problem));
    }
    Ok(())
}

/// What only WebAssembly has, and what it has not.
fn web_assembly(task: &TaskSpec) -> Result<(), SplitError> {
    if task.engine == Some(EngineChoice::Wasm) {
        return match task.image {
            Some(_) => Err(wrong(
                "task.image",
                "means nothing to WebAssembly, which sees scratch and no other file; leave it \
                 out, or put the files among the inputs",
            )),
            None => Ok(()),
        };
    }
    match task.deterministic {
        true => Err(wrong(
            "task.deterministic",
            "is for engine = \"wasm\" only: clocks and chance of native programs are the PC's; \
             leave it out",
        )),
        false => Ok(()),
    }
}

fn limits(spec: &JobSpec) -> Result<(), SplitError> {
    let limits = spec.limits.resolve();
    let zeros = [
        ("limits.memory", limits.memory.0 == 0),
        ("limits.time", limits.time.ms == 0),
        ("limits.processes", limits.processes == 0),
        (
            "limits.cpu_time",
            limits.cpu_time.is_some_and(|time| time.ms == 0),
        ),
    ];
    match zeros.iter().find(|(_, zero)| *zero) {
        Some((key, _)) => Err(wrong(*key, "is 0, so no task could run; write more")),
        None => Ok(()),
    }
}

fn command(key: &str, command: &[String]) -> Result<(), SplitError> {
    match command.first().map(String::as_str) {
        None | Some("") => Err(wrong(key, "is empty; write the program and its arguments")),
        Some(_) => command
            .iter()
            .try_for_each(|argument| no_nul(key, argument)),
    }
}

/// A path in the sandbox, whatever its placeholders become.
fn inside(key: &str, name: &str) -> Result<(), SplitError> {
    match names::problem(names::plain(name)) {
        Some(problem) => Err(wrong(key, format!("{name:?} {problem}"))),
        None => Ok(()),
    }
}

fn outputs(key: &str, outputs: &[String]) -> Result<(), SplitError> {
    outputs.iter().try_for_each(|output| inside(key, output))
}

fn collect(spec: &JobSpec) -> Result<(), SplitError> {
    match &spec.collect.merge {
        None => Ok(()),
        Some(Merge::Concat(concat)) => {
            inside("collect.merge.concat", &concat.concat)?;
            inside("collect.merge.from", &concat.from)
        }
        Some(Merge::Command(merge)) => {
            command("collect.merge.command", &merge.command)?;
            outputs("collect.merge.outputs", &merge.outputs)?;
            for name in merge.inputs.keys() {
                inside(&format!("collect.merge.inputs.{name}"), name)?;
            }
            Ok(())
        }
    }
}

/// What listings show of a stored job's body.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) image: Option<JobImage>,
}

pub(crate) fn shown(body: &[u8]) -> Shown {
    #[derive(serde::Deserialize)]
    struct Body {
        submission: Part,
        #[serde(default)]
        image: Option<BlobRef>,
    }
    #[derive(serde::Deserialize)]
    struct Part {
        spec: Spec,
    }
    #[derive(serde::Deserialize)]
    struct Spec {
        job: gleaner_model::JobHead,
        task: Task,
    }
    #[derive(serde::Deserialize)]
    struct Task {
        #[serde(default)]
        image: Option<String>,
    }
    let Ok(read) = serde_json::from_slice::<Body>(body) else {
        return Shown::default();
    };
    let spec = read.submission.spec;
    let image = spec.task.image.zip(read.image);
    Shown {
        tags: spec.job.tags,
        image: image.map(|(name, blob)| JobImage {
            name,
            digest: blob.digest,
        }),
    }
}
