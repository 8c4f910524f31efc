//! From what the server sends to what an engine runs: templates are cut once a job and filled
//! in once a task. No I/O here; what is wrong with a message becomes a text for the report.

use crate::fetch::Wanted;
use gleaner_attempt::Saving;
use gleaner_engine::{self as engine, AttemptSpec, ImageFile, InputFile, Restore, Saves};
use gleaner_model::{
    AttemptId, BlobRef, Checkpoint, CheckpointKind, Digest, Engine, FileEntry, LeaseId, Limits,
    Reason, Span, Template,
};
use gleaner_wire::v1;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the tasks of a job have in common, cut at its placeholders.
#[derive(Debug)]
pub(crate) struct JobTemplate {
    names: Vec<String>,
    command: Vec<Template>,
    deterministic: bool,
    env: BTreeMap<String, Template>,
    stdin: Option<Template>,
    outputs: Vec<Template>,
    inputs: Vec<(Template, FileEntry)>,
    /// Every default filled in.
    pub(crate) limits: Arc<Limits>,
    pub(crate) engine: Engine,
    root: Option<BlobRef>,
    checkpoint_files: Vec<Template>,
    /// How often its attempts are saved while they run.
    every: Option<Span>,
    /// What the job is called, and for whom it runs: for the owner of the node.
    pub(crate) name: String,
    pub(crate) user: String,
}

/// What is particular to one task.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskPart {
    index: u32,
    values: Vec<String>,
    command: Vec<String>,
    inputs: Vec<FileEntry>,
    listing: Option<Digest>,
    /// What it goes on from.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// How often the task was saved so far.
    pub(crate) checkpoints: u32,
}

impl JobTemplate {
    /// # Errors
    /// In words, what the server sent wrong.
    pub(crate) fn parse(from: v1::Template) -> Result<Self, String> {
        let names = from.names;
        let known = |name: &str| name == "index" || names.iter().any(|known| known == name);
        let cut = |text: &String| Template::parse(text, &known);
        let limits = serde_json::from_slice(&from.limits)
            .map_err(|error| format!("the server sent limits that cannot be read: {error}"))?;
        let engine = Engine::from_word(&from.engine)
            .ok_or_else(|| format!("this agent has no engine {:?}", from.engine))?;
        let inputs = from
            .inputs
            .into_iter()
            .map(|input| Ok((cut(&input.name), entry(input)?)))
            .collect::<Result<_, String>>()?;
        Ok(Self {
            command: from.command.iter().map(cut).collect(),
            deterministic: from.deterministic,
            env: from
                .env
                .iter()
                .map(|(key, text)| (key.clone(), cut(text)))
                .collect(),
            stdin: from.stdin.as_ref().map(cut),
            outputs: from.outputs.iter().map(cut).collect(),
            inputs,
            limits: Arc::new(limits),
            engine,
            checkpoint_files: from.checkpoint_files.iter().map(cut).collect(),
            every: (from.checkpoint_ms > 0).then_some(Span {
                ms: from.checkpoint_ms,
            }),
            root: from
                .root
                .map(|root| entry(root).map(|file| file.blob))
                .transpose()?,
            name: from.job_name,
            user: from.user,
            names,
        })
    }

    /// The files that the task needs.
    ///
    /// # Errors
    /// Where a placeholder has no value.
    pub(crate) fn wanted(&self, task: &TaskPart) -> Result<Wanted, Reason> {
        let mut files = Vec::with_capacity(self.inputs.len() + task.inputs.len());
        for (name, file) in &self.inputs {
            files.push(FileEntry {
                name: self.fill(name, task)?,
                ..file.clone()
            });
        }
        files.extend(task.inputs.iter().cloned());
        if let Some(checkpoint) = &task.checkpoint {
            if checkpoint.kind == CheckpointKind::Files {
                // What the program saved stands in the place of what it began with.
                files.retain(|input| !checkpoint.files.iter().any(|saved| clash(input, saved)));
            }
            // The last of the files; `spec` takes those of a guest off there.
            files.extend(checkpoint.files.iter().cloned());
        }
        Ok(Wanted {
            files,
            listing: task.listing,
            root: self.root,
        })
    }

    /// What the engine shall run.
    ///
    /// # Errors
    /// Where a placeholder has no value.
    pub(crate) fn spec(
        &self,
        attempt: AttemptId,
        bundle: LeaseId,
        task: &TaskPart,
        (mut inputs, image): (Vec<InputFile>, Option<ImageFile>),
    ) -> Result<AttemptSpec, Reason> {
        let all = |texts: &[Template]| -> Result<Vec<String>, Reason> {
            texts.iter().map(|text| self.fill(text, task)).collect()
        };
        let patterns = |texts: &[Template]| -> Result<Vec<String>, Reason> {
            let filled = texts.iter().map(|text| self.fill_pattern(text, task));
            filled.collect()
        };
        let command = match task.command.is_empty() {
            true => all(&self.command)?,
            false => task.command.clone(),
        };
        let env = self
            .env
            .iter()
            .map(|(key, text)| Ok((key.clone(), self.fill(text, task)?)))
            .collect::<Result<_, Reason>>()?;
        let restore = match task.checkpoint.as_ref().map(|saved| (&saved.kind, saved)) {
            Some((CheckpointKind::Guest { machine }, saved)) => Some(Restore {
                machine: machine.clone(),
                files: inputs.split_off(inputs.len().saturating_sub(saved.files.len())),
            }),
            Some((CheckpointKind::Files, _)) | None => None,
        };
        Ok(AttemptSpec {
            attempt,
            bundle,
            command,
            deterministic: self.deterministic,
            env,
            stdin: self
                .stdin
                .as_ref()
                .map(|text| self.fill(text, task))
                .transpose()?,
            image,
            inputs,
            outputs: patterns(&self.outputs)?,
            limits: Limits::clone(&self.limits),
            saving: engine::Saving {
                files: patterns(&self.checkpoint_files)?,
                every: self.every,
                restore,
                from: task.checkpoint.as_ref().map(|saved| saved.attempt),
                before: task.checkpoints,
            },
        })
    }

    /// How attempts of the job are saved by this engine.
    pub(crate) fn saving(&self, engine: &dyn engine::Engine) -> Saving {
        saving(!self.checkpoint_files.is_empty(), self.every, engine)
    }

    fn fill(&self, text: &Template, task: &TaskPart) -> Result<String, Reason> {
        text.fill(&|name| self.value(name, task))
            .map_err(|error| fault(&format!("the server sent a task with {error}")))
    }

    /// In a pattern values stand for themselves: a file may be called `a[1].txt`.
    fn fill_pattern(&self, text: &Template, task: &TaskPart) -> Result<String, Reason> {
        let literal = |value: Cow<'_, str>| Cow::Owned(engine::literal(&value));
        text.fill(&|name| self.value(name, task).map(literal))
            .map_err(|error| fault(&format!("the server sent a task with {error}")))
    }

    fn value<'t>(&self, name: &str, task: &'t TaskPart) -> Option<Cow<'t, str>> {
        match self.names.iter().position(|known| known == name) {
            Some(at) => task
                .values
                .get(at)
                .map(|value| Cow::Borrowed(value.as_str())),
            None => (name == "index").then(|| Cow::Owned(task.index.to_string())),
        }
    }
}

impl TaskPart {
    /// # Errors
    /// In words, what the server sent wrong.
    pub(crate) fn parse(from: v1::Task) -> Result<Self, String> {
        let listing = match from.listing.is_empty() {
            true => None,
            false => Some(digest(&from.listing)?),
        };
        Ok(Self {
            index: from.index,
            values: from.values,
            command: from.command,
            inputs: from
                .inputs
                .into_iter()
                .map(entry)
                .collect::<Result<_, String>>()?,
            listing,
            checkpoint: match from.checkpoint.is_empty() {
                true => None,
                false => Some(serde_json::from_slice(&from.checkpoint).map_err(|error| {
                    format!("the server sent a checkpoint that cannot be read: {error}")
                })?),
            },
            checkpoints: from.checkpoints,
        })
    }

    /// Why the task cannot go on here from what was saved of it; none where it can.
    pub(crate) fn unfit(&self, engine: &dyn engine::Engine) -> Option<Reason> {
        let needs = self.checkpoint.as_ref()?.machine()?;
        let detail = match engine.saves() {
            Saves::Guest { machine } if machine == needs => return None,
            Saves::Guest { machine } => {
                format!("it was saved on machine {needs}, this node has {machine}")
            }
            Saves::Nothing | Saves::Files => {
                format!("it was saved on machine {needs}, and this node restores no guests")
            }
        };
        Some(Reason::Unrestored { detail })
    }
}

/// How attempts are saved: what the job asks for and the engine can.
pub(crate) fn saving(itself: bool, every: Option<Span>, engine: &dyn engine::Engine) -> Saving {
    let saves = engine.saves();
    let whole = matches!(saves, Saves::Guest { .. });
    let can = whole || itself && saves == Saves::Files;
    let every = every.filter(|_| can);
    Saving {
        itself,
        every,
        whole: whole && every.is_some(),
    }
}

/// Whether two files cannot both be in scratch: one name is the other's, or a directory of it.
fn clash(one: &FileEntry, other: &FileEntry) -> bool {
    let below = |file: &str, dir: &str| {
        file.strip_prefix(dir)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    one.name == other.name || below(&one.name, &other.name) || below(&other.name, &one.name)
}

/// A reason for what is gleaner's own fault.
pub(crate) fn fault(detail: &str) -> Reason {
    Reason::Engine {
        detail: detail.to_owned(),
    }
}

fn entry(input: v1::Input) -> Result<FileEntry, String> {
    Ok(FileEntry {
        name: input.name,
        blob: BlobRef {
            digest: digest(&input.digest)?,
            size: input.size,
        },
        mode: input.mode,
    })
}

fn digest(bytes: &[u8]) -> Result<Digest, String> {
    <[u8; 32]>::try_from(bytes)
        .map(Digest)
        .map_err(|_| format!("the server sent a digest of {} bytes", bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_model::{JobId, TaskId};

    fn template() -> v1::Template {
        v1::Template {
            names: vec!["ligand".into(), "seed".into()],
            command: ["dock", "--in={ligand}", "{seed}/{index}", "{{seed} {other}"]
                .map(str::to_owned)
                .to_vec(),
            env: [("SEED".into(), "{seed}".into())].into(),
            stdin: Some("{ligand}".into()),
            outputs: vec!["out-{index}.txt".into(), "{ligand}/*.[ab]".into()],
            inputs: vec![v1::Input {
                name: "conf-{seed}".into(),
                digest: vec![7; 32],
                size: 3,
                mode: 0o644,
            }],
            limits: serde_json::to_vec(&Limits::default()).unwrap(),
            engine: "process".into(),
            job_name: "docking".into(),
            user: "ada".into(),
            ..v1::Template::default()
        }
    }

    fn task() -> v1::Task {
        v1::Task {
            index: 4,
            number: 1,
            values: vec!["a{seed}.pdbqt".into(), "9".into()],
            ..v1::Task::default()
        }
    }

    fn attempt() -> AttemptId {
        TaskId::new(JobId(1), 4).attempt(1)
    }

    #[test]
    fn placeholders_are_filled_everywhere_and_values_are_not_templates() {
        let template = JobTemplate::parse(template()).unwrap();
        let task = TaskPart::parse(task()).unwrap();
        let wanted = template.wanted(&task).unwrap();
        assert_eq!(wanted.files[0].name, "conf-9");
        let spec = template
            .spec(attempt(), LeaseId(3), &task, (Vec::new(), None))
            .unwrap();
        let command = ["dock", "--in=a{seed}.pdbqt", "9/4", "{seed} {other}"];
        assert_eq!(spec.command, command);
        assert_eq!(spec.env["SEED"], "9");
        assert_eq!(spec.stdin.as_deref(), Some("a{seed}.pdbqt"));
        // A value is no pattern either.
        assert_eq!(spec.outputs, ["out-4.txt", "a[{]seed[}].pdbqt/*.[ab]"]);
    }

    #[test]
    fn a_tasks_own_command_is_taken_as_it_is() {
        let template = JobTemplate::parse(template()).unwrap();
        let merge = v1::Task {
            command: vec!["cat".into(), "{seed}".into()],
            ..task()
        };
        let task = TaskPart::parse(merge).unwrap();
        let spec = template
            .spec(attempt(), LeaseId(3), &task, (Vec::new(), None))
            .unwrap();
        assert_eq!(spec.command, ["cat", "{seed}"]);
    }

    #[test]
    fn what_the_server_sends_wrong_is_told() {
        let bad_limits = v1::Template {
            limits: b"{}".to_vec(),
            ..template()
        };
        let bad_engine = v1::Template {
            engine: "quantum".into(),
            ..template()
        };
        for (template, word) in [(bad_limits, "limits"), (bad_engine, "quantum")] {
            assert!(JobTemplate::parse(template).unwrap_err().contains(word));
        }
        let short = v1::Task {
            listing: vec![1; 31],
            ..task()
        };
        assert!(TaskPart::parse(short).unwrap_err().contains("31 bytes"));
        let no_value = v1::Task {
            values: vec!["only one".into()],
            ..task()
        };
        let template = JobTemplate::parse(template()).unwrap();
        let task = TaskPart::parse(no_value).unwrap();
        let reason = template
            .spec(attempt(), LeaseId(3), &task, (Vec::new(), None))
            .unwrap_err();
        assert!(reason.to_string().contains("{seed}"), "{reason}");
    }
}
