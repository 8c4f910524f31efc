//! A job, compiled: what its tasks have in common, and a function from an index to the rest.

use super::axes::{self, PlanAxis};
use super::{SplitError, StoredJob, names, wrong};
use gleaner_api::JobImage;
use gleaner_blob::Blobs;
use gleaner_model::{
    BlobRef, Concat, Digest, Engine, EngineChoice, FileEntry, JobSpec, Merge, Submission,
    SweepMode, Template,
};
use gleaner_store::Store;
use gleaner_wire::v1;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Permission bits of an input that is named by digest: nothing says what they were.
const DIGEST_MODE: u32 = 0o644;

/// Most tasks whose inputs are looked up one by one at a submission. It bounds the time of one
/// request; every job is below it.
const CHECKED_TASKS_MAX: u32 = 1_000_000;

/// A task cannot be computed: the server lost what it is made of.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// A file of an axis cannot be read.
    #[error("the server cannot read an axis of the job: {0}")]
    Axis(#[from] std::io::Error),
    /// An input is not what it was.
    #[error("{0}")]
    Input(String),
}

/// Where a placeholder's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Axis(usize),
    Index,
}

/// An input that differs from task to task.
#[derive(Debug)]
struct VaryingInput {
    key: String,
    name: Template,
    source: Template,
    /// The program of the command: its name follows from its source.
    program: bool,
}

/// A compiled job.
#[derive(Debug)]
pub(crate) struct JobPlan {
    stored: StoredJob,
    axes: Vec<(String, PlanAxis)>,
    files: BTreeMap<String, (BlobRef, u32)>,
    template: v1::Template,
    /// What `template.names` stand for, in that order.
    names: Vec<Source>,
    varying: Vec<VaryingInput>,
    merge: Option<v1::Template>,
    from: Option<Template>,
}

/// The values of one task.
struct Values<'a> {
    plan: &'a JobPlan,
    index: u32,
    axes: Vec<axes::Value<'a>>,
}

impl Values<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        if name == "index" {
            return Some(Cow::Owned(self.index.to_string()));
        }
        let at = self.plan.axes.iter().position(|(axis, _)| axis == name)?;
        Some(Cow::Borrowed(self.axes.get(at)?.text.as_ref()))
    }

    fn fill(&self, template: &Template) -> Result<String, PlanError> {
        let filled = template.fill(&|name| self.get(name));
        filled.map_err(|error| PlanError::Input(error.to_string()))
    }
}

impl JobPlan {
    /// Compiles a stored job whose axes are open.
    pub(super) fn compile(
        store: &dyn Store,
        blobs: &Blobs,
        stored: StoredJob,
        axes: Vec<(String, PlanAxis)>,
    ) -> Result<Self, SplitError> {
        let files = files(store, blobs, &stored.submission)?;
        let mut plan = Self {
            template: v1::Template::default(),
            names: Vec::new(),
            varying: Vec::new(),
            merge: None,
            from: None,
            files,
            axes,
            stored,
        };
        plan.compile_task()?;
        plan.compile_merge()?;
        Ok(plan)
    }

    pub(crate) fn spec(&self) -> &JobSpec {
        &self.stored.submission.spec
    }

    /// The image, and what its name stood for.
    pub(crate) fn image(&self) -> Option<JobImage> {
        let name = self.spec().task.image.clone()?;
        let digest = self.stored.image?.digest;
        Some(JobImage { name, digest })
    }

    /// Tasks, the merge command not counted.
    pub(crate) fn count(&self) -> u32 {
        self.stored.count
    }

    /// The concat merge, if the job has one.
    pub(crate) fn concat(&self) -> Option<&Concat> {
        match &self.spec().collect.merge {
            Some(Merge::Concat(concat)) => Some(concat),
            Some(Merge::Command(_)) | None => None,
        }
    }

    /// What all tasks have in common.
    pub(crate) fn template(&self) -> &v1::Template {
        &self.template
    }

    /// What the merge command's task has.
    pub(crate) fn merge_template(&self) -> Option<&v1::Template> {
        self.merge.as_ref()
    }

    /// About how many bytes of memory this takes.
    pub(crate) fn memory(&self) -> usize {
        let axes: usize = self.axes.iter().map(|(_, axis)| axis.memory()).sum();
        let files: usize = self.files.keys().map(|name| name.len() + 120).sum();
        // The files stand twice: in the submission and by name.
        4096 + axes + 2 * files
    }

    fn known(&self, name: &str) -> bool {
        name == "index" || self.axes.iter().any(|(axis, _)| axis == name)
    }

    fn cut(&self, text: &str) -> Template {
        Template::parse(text, &|name| self.known(name))
    }

    fn compile_task(&mut self) -> Result<(), SplitError> {
        let spec = self.stored.submission.spec.clone();
        let task = &spec.task;
        let mut template = common(&self.stored);
        template.command = task.command.clone();
        template.env = task.env.clone().into_iter().collect();
        template.stdin = task
            .stdin
            .as_deref()
            .map(|name| names::plain(name).to_owned());
        template.outputs = task
            .outputs
            .iter()
            .map(|o| names::plain(o).to_owned())
            .collect();
        template.checkpoint_files = task
            .checkpoint_files
            .iter()
            .map(|file| names::plain(file).to_owned())
            .collect();
        template.checkpoint_ms = task.checkpoint.map_or(0, |every| every.ms);
        for (name, source) in &task.inputs {
            let key = format!("task.inputs.{name}");
            self.input(&mut template, key, names::plain(name), source)?;
        }
        if let Some(program) = task.command.first() {
            self.program(&mut template, program);
        }
        self.names = self.used(&template);
        template.names = self
            .names
            .iter()
            .map(|source| self.name_of(*source))
            .collect();
        self.template = template;
        Ok(())
    }

    fn name_of(&self, source: Source) -> String {
        match source {
            Source::Index => "index".to_owned(),
            Source::Axis(at) => self.axes[at].0.clone(),
        }
    }

    /// Which placeholders the agent fills: values that nobody asks for are not sent.
    fn used(&self, template: &v1::Template) -> Vec<Source> {
        let texts = template.command.iter().chain(template.env.values());
        let texts = texts.chain(&template.stdin).chain(&template.outputs);
        let texts = texts.chain(&template.checkpoint_files);
        let cut: Vec<Template> = texts.map(|text| self.cut(text)).collect();
        let asked = |name: &str| cut.iter().any(|t| t.names().any(|asked| asked == name));
        let mut used: Vec<Source> = (0..self.axes.len())
            .filter(|at| asked(&self.axes[*at].0))
            .map(Source::Axis)
            .collect();
        if asked("index") {
            used.push(Source::Index);
        }
        used
    }

    /// Adds one input: to the template if it is the same for every task.
    fn input(
        &mut self,
        template: &mut v1::Template,
        key: String,
        name: &str,
        source: &str,
    ) -> Result<(), SplitError> {
        let (name_cut, source_cut) = (self.cut(name), self.cut(source));
        if name_cut.names().next().is_some() || source_cut.names().next().is_some() {
            self.varying.push(VaryingInput {
                key,
                name: name_cut,
                source: source_cut,
                program: false,
            });
            return Ok(());
        }
        let nothing = |_: &str| None;
        let filled = |cut: &Template| cut.fill(&nothing).unwrap_or_default();
        let (blob, mode) = self
            .resolve(&filled(&source_cut))
            .map_err(|p| wrong(key, p))?;
        template
            .inputs
            .push(wire_input(filled(&name_cut), &blob, mode));
        Ok(())
    }

    /// The program, where the user sent it along.
    fn program(&mut self, template: &mut v1::Template, command: &str) {
        let cut = self.cut(command);
        if cut.names().next().is_some() {
            // It comes along only for the tasks for which a file of that name was sent.
            if command.contains('/') {
                self.varying.push(VaryingInput {
                    key: "task.command".to_owned(),
                    name: Template::default(),
                    source: cut,
                    program: true,
                });
            }
            return;
        }
        if let Some((blob, mode)) = self.files.get(command).filter(|_| command.contains('/')) {
            let (name, called) = names::program(command);
            if template.inputs.iter().all(|input| input.name != name) {
                template.inputs.push(wire_input(name, blob, *mode));
            }
            template.command[0] = called;
        }
    }

    /// What a source stands for, or what is wrong with it.
    fn resolve(&self, source: &str) -> Result<(BlobRef, u32), String> {
        if let Some(found) = self.files.get(source) {
            return Ok(*found);
        }
        Err(if source.starts_with("blake3:") {
            format!("{source} is not on the server; upload it first")
        } else if source.starts_with("https://") || source.starts_with("http://") {
            // Who submits fetches it, so that every task sees the same bytes.
            format!("{source} was not sent with the job; download it and name it as a file")
        } else {
            format!("{source} was not sent with the job; is the path right?")
        })
    }

    fn compile_merge(&mut self) -> Result<(), SplitError> {
        let spec = self.stored.submission.spec.clone();
        match &spec.collect.merge {
            None => {}
            Some(Merge::Concat(concat)) => {
                self.from = Some(self.cut(names::plain(&concat.from)));
            }
            Some(Merge::Command(merge)) => {
                let mut template = common(&self.stored);
                template.command = merge.command.clone();
                template.outputs = merge
                    .outputs
                    .iter()
                    .map(|o| names::plain(o).to_owned())
                    .collect();
                for (name, source) in &merge.inputs {
                    let key = format!("collect.merge.inputs.{name}");
                    let (blob, mode) = self.resolve(source).map_err(|p| wrong(key, p))?;
                    let name = names::plain(name).to_owned();
                    template.inputs.push(wire_input(name, &blob, mode));
                }
                if let Some(program) = merge.command.first() {
                    self.program(&mut template, program);
                }
                self.merge = Some(template);
            }
        }
        Ok(())
    }

    /// Looks up the inputs of every task once, and adds what the job needs to `needs`.
    pub(super) fn check_inputs(&self, needs: &mut Vec<Digest>) -> Result<(), SplitError> {
        needs.extend(self.files.values().map(|(blob, _)| blob.digest));
        let checked = match self.varying.is_empty() {
            true => 0,
            false => self.count().min(CHECKED_TASKS_MAX),
        };
        for index in 0..checked {
            let read = |error: PlanError| wrong("sweep", error.to_string());
            let values = self.values(index).map_err(|error| read(error.into()))?;
            for input in &self.varying {
                self.varying_input(input, &values)
                    .map_err(|error| wrong(&input.key, error.to_string()))?;
            }
        }
        self.check_clashes()?;
        self.check_stdin()
    }

    /// Standard input is one of the inputs. The first task tells: the others have the same ones, by
    /// other names.
    fn check_stdin(&self) -> Result<(), SplitError> {
        let Some(stdin) = &self.template.stdin else {
            return Ok(());
        };
        let read = |error: PlanError| wrong("task.stdin", error.to_string());
        let values = self.values(0).map_err(|error| read(error.into()))?;
        let name = values.fill(&self.cut(stdin)).map_err(read)?;
        let task = self.task(0, 1).map_err(read)?;
        let mut inputs = self.template.inputs.iter().chain(&task.inputs);
        match inputs.any(|input| input.name == names::plain(&name)) {
            true => Ok(()),
            false => {
                let problem = format!("{name:?} is none of the task's inputs; name it there too");
                Err(wrong("task.stdin", problem))
            }
        }
    }

    /// A file of an axis must not take the place of an input of all tasks. The names of an axis
    /// are many, so they are asked for the few fixed ones.
    fn check_clashes(&self) -> Result<(), SplitError> {
        for (axis, values) in &self.axes {
            if !matches!(values, PlanAxis::Files(_)) {
                continue;
            }
            for at in 0..values.count() {
                let value = values.value(at);
                let value = value.map_err(|e| wrong(format!("sweep.{axis}"), e.to_string()))?;
                let clash = |input: &v1::Input| input.name == value.text;
                if self.template.inputs.iter().any(clash) {
                    let problem = format!(
                        "{:?} is also an input of every task; rename one of them",
                        value.text
                    );
                    return Err(wrong(format!("sweep.{axis}"), problem));
                }
            }
        }
        Ok(())
    }

    fn positions(&self, index: u32) -> Vec<u32> {
        let mut positions = vec![index; self.axes.len()];
        if self.spec().sweep.mode == SweepMode::Product {
            // The last axis by name runs fastest, as the digits of a number do.
            let mut rest = index;
            for (position, (_, axis)) in positions.iter_mut().zip(&self.axes).rev() {
                *position = rest % axis.count();
                rest /= axis.count();
            }
        }
        positions
    }

    fn values(&self, index: u32) -> std::io::Result<Values<'_>> {
        let positions = self.positions(index);
        let axes = self.axes.iter().zip(positions);
        let axes = axes
            .map(|((_, axis), at)| axis.value(at))
            .collect::<Result<_, _>>()?;
        Ok(Values {
            plan: self,
            index,
            axes,
        })
    }

    fn varying_input(
        &self,
        input: &VaryingInput,
        values: &Values<'_>,
    ) -> Result<Option<v1::Input>, PlanError> {
        let source = values.fill(&input.source)?;
        if input.program {
            let sent = self.files.get(&source);
            return Ok(sent.map(|(blob, mode)| wire_input(names::program(&source).0, blob, *mode)));
        }
        let name = values.fill(&input.name)?;
        if let Some(problem) = names::problem(names::plain(&name)) {
            return Err(PlanError::Input(format!("{name:?} {problem}")));
        }
        let (blob, mode) = self.resolve(&source).map_err(PlanError::Input)?;
        Ok(Some(wire_input(
            names::plain(&name).to_owned(),
            &blob,
            mode,
        )))
    }

    /// One task, as it goes over the wire. Not for the merge command.
    pub(crate) fn task(&self, index: u32, number: u32) -> Result<v1::Task, PlanError> {
        let mut task = v1::Task {
            index,
            number,
            ..v1::Task::default()
        };
        // A plain range whose value nobody asks for costs nothing here.
        if self.names.is_empty() && self.varying.is_empty() && !self.has_files() {
            return Ok(task);
        }
        let mut values = self.values(index)?;
        for input in &self.varying {
            task.inputs.extend(self.varying_input(input, &values)?);
        }
        for value in &mut values.axes {
            if let Some(file) = value.file.take() {
                task.inputs
                    .push(wire_input(file.name, &file.blob, file.mode));
            }
        }
        task.values = self
            .names
            .iter()
            .map(|source| match source {
                Source::Index => index.to_string(),
                Source::Axis(at) => std::mem::take(&mut values.axes[*at].text).into_owned(),
            })
            .collect();
        Ok(task)
    }

    fn has_files(&self) -> bool {
        self.axes
            .iter()
            .any(|(_, axis)| matches!(axis, PlanAxis::Files(_)))
    }

    /// A task's values for people: `name=value`, joined by spaces.
    pub(crate) fn task_name(&self, index: u32) -> String {
        if index >= self.count() {
            return "merge".to_owned();
        }
        let Ok(values) = self.values(index) else {
            return String::new();
        };
        let pairs = self.axes.iter().zip(&values.axes);
        let texts: Vec<String> = pairs
            .map(|((name, _), value)| format!("{name}={}", value.text))
            .collect();
        texts.join(" ")
    }

    /// The name of the output that a concat merge takes of this task.
    pub(crate) fn concat_from(&self, index: u32) -> Result<String, PlanError> {
        match &self.from {
            None => Err(PlanError::Input("the job has no merge".to_owned())),
            Some(from) => self.values(index)?.fill(from),
        }
    }
}

/// What tasks and merge command share.
fn common(stored: &StoredJob) -> v1::Template {
    let spec = &stored.submission.spec;
    let root = |blob: &BlobRef| wire_input(String::new(), blob, DIGEST_MODE);
    v1::Template {
        root: stored.image.as_ref().map(root),
        limits: serde_json::to_vec(&spec.limits.resolve()).unwrap_or_default(),
        // Where several will do, each bundle says which.
        engine: spec
            .task
            .engine
            .and_then(EngineChoice::one)
            .unwrap_or(Engine::Process)
            .to_string(),
        deterministic: spec.task.deterministic,
        ..v1::Template::default()
    }
}

pub(crate) fn wire_input(name: String, blob: &BlobRef, mode: u32) -> v1::Input {
    v1::Input {
        name,
        digest: blob.digest.0.to_vec(),
        size: blob.size,
        mode,
    }
}

/// Every file that inputs can name: those sent along, and those named by digest.
fn files(
    store: &dyn Store,
    blobs: &Blobs,
    submission: &Submission,
) -> Result<BTreeMap<String, (BlobRef, u32)>, SplitError> {
    let mut files = BTreeMap::new();
    for FileEntry { name, blob, mode } in &submission.files {
        let here = blobs.renew(&blob.digest)?;
        if here != Some(blob.size) {
            // Another length is a wrong word or a damaged blob, which has to go before it is sent anew.
            let _good = here.is_some() && blobs.check(&blob.digest)?;
            let problem = format!("{name} was not uploaded; submit the job again");
            return Err(wrong("task.inputs", problem));
        }
        files.insert(name.clone(), (*blob, *mode));
    }
    let spec = &submission.spec;
    let merged = match &spec.collect.merge {
        Some(Merge::Command(merge)) => Some(merge.inputs.values()),
        Some(Merge::Concat(_)) | None => None,
    };
    for source in spec
        .task
        .inputs
        .values()
        .chain(merged.into_iter().flatten())
    {
        let Some(digest) = source
            .strip_prefix("blake3:")
            .and_then(|hex| hex.parse().ok())
        else {
            continue;
        };
        let digest: Digest = digest;
        let size = match blobs.renew(&digest)? {
            Some(size) => Some(size),
            // It lies in another job's row and must not go with that job.
            None => match store.inline(&digest)? {
                Some(content) => blobs.put_many(&[content])?.first().map(|blob| blob.size),
                None => None,
            },
        };
        if let Some(size) = size {
            files.insert(source.clone(), (BlobRef { digest, size }, DIGEST_MODE));
        }
    }
    Ok(files)
}
