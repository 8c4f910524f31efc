//! Job description files of OurGrid and MyGrid (`.jdf`): a `job :` with defaults, then one `task :`
//! for each task.
//!
//! The text becomes sections, the sections become tasks, and what differs between tasks becomes axes
//! that belong together (`zip`). It knows no files and no nodes: paths stay as written, relative to
//! the job file, and what depends on a node that is not chosen yet is refused.

use super::{Read, Wrong};
use gleaner_model::{MAX_TASKS, verbatim};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use text::{Section, Transfer, check, sections, transfers};

mod require;
mod text;

/// Most files that one task may put or get: more belong into an archive.
const FILES_MAX: usize = 1_000;
/// Most files of all tasks that differ from each other, so that a short file with many tasks and
/// long defaults does not fill this PC's memory.
const ENTRIES_MAX: usize = 2_000_000;
/// Longest command, in bytes: Linux takes one argument of up to 128 KiB, with what stands before it.
const COMMAND_BYTES_MAX: usize = 120 << 10;
/// What a value costs besides its text, in bytes, about.
const VALUE_BYTES: usize = 16;
/// Most bytes that axes may hold, for the reason of [`ENTRIES_MAX`].
const AXES_BYTES_MAX: usize = 64 << 20;

/// What is put or fetched, by its name in the sandbox; for `get` the path says nothing.
type Files = Rc<BTreeMap<String, String>>;
/// Makes files of transfers, for the task of this number.
type Find = fn(&[Transfer], &str) -> Result<Files, Wrong>;
/// Name in the sandbox and path of what only some tasks have.
type Besides<'f> = Vec<(&'f str, &'f str)>;

/// What a task says of itself, or the job for all of them; absent is inherited.
#[derive(Default)]
struct Own {
    line: usize,
    init: Option<Vec<Transfer>>,
    remote: Option<(usize, String)>,
    last: Option<Vec<Transfer>>,
}

/// A file as it was written.
#[derive(Default)]
struct Written {
    label: Option<String>,
    requirements: Option<(usize, String)>,
    defaults: Own,
    tasks: Vec<Own>,
    warnings: BTreeSet<String>,
}

/// Reads a job description file; `name` is the job's where it has no label.
///
/// # Errors
/// [`Wrong`] with the line, for what the format does not know and for what cannot be kept.
pub(crate) fn read(text: &str, name: &str) -> Result<Read, Wrong> {
    let written = Written::collect(text.trim_start_matches('\u{feff}'))?;
    let mut job = Map::new();
    let label = written.label.as_deref().filter(|label| !label.is_empty());
    job.insert("job".into(), json!({ "name": label.unwrap_or(name) }));
    let mut axes = Axes::default();
    let (mut warnings, count) = (written.warnings.clone(), written.tasks.len());
    let commands = written.commands()?;
    if written
        .each(|own| own.remote.as_ref())
        .any(|(_, text)| text.contains("$STORAGE"))
    {
        warnings.insert(
            "$STORAGE is the task's own folder: what a task leaves there is gone when it ends"
                .into(),
        );
    }
    // OurGrid looks for programs among the task's files too, and scripts read these variables.
    let number = if count > 1 { "{task}" } else { "1" };
    let command = format!(
        "export PLAYPEN=\"$PWD\" STORAGE=\"$PWD\" TASK={number} PATH=\"$PATH:$PWD\"; {}",
        axes.text("remote", &commands, &|text| verbatim(text))?
    );
    let inputs = written.inputs(&mut axes, &mut warnings)?;
    let outputs = written.outputs(&mut axes, &mut warnings)?;
    let command = ["/bin/sh", "-c", &command];
    job.insert(
        "task".into(),
        json!({ "command": command, "inputs": inputs, "outputs": outputs }),
    );
    if let Some((line, text)) = &written.requirements {
        require::require(*line, text, &mut job, &mut warnings)?;
    }
    if count > 1 {
        axes.found.insert("mode".into(), json!("zip"));
        axes.found
            .insert("task".into(), json!({ "range": [1, count] }));
        job.insert("sweep".into(), Value::Object(axes.found));
    }
    Ok(Read {
        job: Value::Object(job),
        warnings: warnings.into_iter().collect(),
    })
}

impl Written {
    /// What is said anywhere: by the job or a task.
    fn each<'w, T: 'w>(
        &'w self,
        of: impl Fn(&'w Own) -> Option<&'w T>,
    ) -> impl Iterator<Item = &'w T> {
        [&self.defaults]
            .into_iter()
            .chain(&self.tasks)
            .filter_map(of)
    }

    fn collect(text: &str) -> Result<Self, Wrong> {
        let (mut written, mut begun) = (Self::default(), false);
        for section in sections(text)? {
            if begun == (section.name == "job") {
                let problem = match begun {
                    true => "a file describes one job; write the second into a file of its own",
                    false => "a job description begins with `job :`; write that line first",
                };
                return Err(Wrong::at(section.line, problem));
            }
            begun = true;
            written.take(&section)?;
        }
        if written.tasks.is_empty() {
            let line = text.lines().count().max(1);
            return Err(Wrong::at(
                line,
                "has no task; write a section `task :` for each",
            ));
        }
        Ok(written)
    }

    fn take(&mut self, section: &Section<'_>) -> Result<(), Wrong> {
        let line = section.line;
        let in_task = !self.tasks.is_empty();
        if in_task
            && matches!(
                section.name,
                "label" | "requirements" | "annotations" | "taskdefaults"
            )
        {
            let problem = format!(
                "`{} :` holds for the whole job; write it before the first `task :`",
                section.name
            );
            return Err(Wrong::at(line, problem));
        }
        let own = self.tasks.last_mut().unwrap_or(&mut self.defaults);
        match section.name {
            "job" | "taskdefaults" => section.bare()?,
            "task" => {
                section.bare()?;
                if self.tasks.len() as u64 >= MAX_TASKS {
                    let problem = format!("a job may have {MAX_TASKS} tasks; make several jobs");
                    return Err(Wrong::at(line, problem));
                }
                self.tasks.push(Own {
                    line,
                    ..Own::default()
                });
            }
            "label" => section.once(&mut self.label, section.text()?)?,
            "requirements" => {
                let lines: Vec<&str> = section.body.iter().map(|(_, text)| *text).collect();
                section.once(&mut self.requirements, (line, lines.join(" ")))?;
            }
            "init" => section.once(&mut own.init, transfers(section, &["put", "store"])?)?,
            "remote" | "grid" => section.once(&mut own.remote, (line, section.text()?))?,
            "final" => section.once(&mut own.last, transfers(section, &["get"])?)?,
            "check" => check(section)?,
            _ => {
                self.warnings
                    .insert(format!("line {line}: `{} :` is passed over", section.name));
            }
        }
        Ok(())
    }

    /// The command of each task, or one that is all of theirs.
    fn commands(&self) -> Result<Vec<&str>, Wrong> {
        let mut commands = Vec::new();
        for task in &self.tasks {
            let remote = task.remote.as_ref().or(self.defaults.remote.as_ref());
            let Some((line, text)) = remote.filter(|(_, text)| !text.is_empty()) else {
                let problem = "this task has no command; write `remote : COMMAND`";
                return Err(Wrong::at(task.line, problem));
            };
            commands.push(text.as_str());
            if text.len() > COMMAND_BYTES_MAX {
                let problem = "the command is longer than 120 KiB, which no shell takes; `put` a script and run that";
                return Err(Wrong::at(*line, problem));
            }
        }
        for (line, text) in self.each(|own| own.remote.as_ref()) {
            filled(text, *line, "1")?;
        }
        Ok(commands)
    }

    /// The files of each task, or one list that is all of theirs.
    fn files(
        &self,
        of: fn(&Own) -> Option<&Vec<Transfer>>,
        find: Find,
    ) -> Result<Vec<Files>, Wrong> {
        let default = of(&self.defaults).map_or(&[][..], Vec::as_slice);
        let shared = find(default, "1")?;
        let varies = find(default, "2")? != shared;
        // What all inherit alike is one list, however many tasks there are.
        if !varies && self.tasks.iter().all(|task| of(task).is_none()) {
            return Ok(vec![shared]);
        }
        let mut entries = 0;
        for task in &self.tasks {
            entries += of(task).map_or(default.len(), Vec::len);
            if entries > ENTRIES_MAX {
                let problem = format!(
                    "the tasks up to here name more than {ENTRIES_MAX} files; put them into archives or make several jobs"
                );
                return Err(Wrong::at(task.line, problem));
            }
        }
        let list = |(at, task): (usize, &Own)| match of(task) {
            None if !varies => Ok(Rc::clone(&shared)),
            own => find(own.map_or(default, Vec::as_slice), &(at + 1).to_string()),
        };
        self.tasks.iter().enumerate().map(list).collect()
    }

    fn inputs(
        &self,
        axes: &mut Axes,
        warnings: &mut BTreeSet<String>,
    ) -> Result<Map<String, Value>, Wrong> {
        let lists = self.files(|own| own.init.as_ref(), put)?;
        let (common, rest) = split(&lists);
        let mut inputs = Map::new();
        for name in &common {
            let from: Vec<&str> = lists
                .iter()
                .filter_map(|files| files.get(*name))
                .map(String::as_str)
                .collect();
            inputs.insert(verbatim(name), axes.text("from", &from, &verbatim)?.into());
        }
        let most = rest.iter().map(Vec::len).max().unwrap_or(0);
        if rest.iter().all(|files| files.len() == most) {
            for at in 0..most {
                let column: Vec<_> = rest.iter().map(|files| files[at]).collect();
                let (to, from): (Vec<&str>, Vec<&str>) = column.into_iter().unzip();
                inputs.insert(
                    axes.text("put", &to, &verbatim)?,
                    axes.text("from", &from, &verbatim)?.into(),
                );
            }
            return Ok(inputs);
        }
        // An axis has a value for every task, so tasks with fewer files get those of the others too.
        let mut all = BTreeMap::new();
        for (files, task) in rest.iter().zip(&self.tasks) {
            for (name, from) in files {
                let other = all.insert(*name, *from).filter(|other| other != from);
                if other.is_some() || all.len() > FILES_MAX {
                    let problem = format!(
                        "tasks differ in how many files they put, and `{name}` is not the same in all; give each task as many files, or make two jobs"
                    );
                    return Err(Wrong::at(task.line, problem));
                }
            }
        }
        warnings
            .insert("tasks put different numbers of files: every task gets those of all".into());
        inputs.extend(
            all.iter()
                .map(|(name, from)| (verbatim(name), verbatim(from).into())),
        );
        Ok(inputs)
    }

    fn outputs(
        &self,
        axes: &mut Axes,
        warnings: &mut BTreeSet<String>,
    ) -> Result<Vec<String>, Wrong> {
        let lists = self.files(|own| own.last.as_ref(), get)?;
        let (common, rest) = split(&lists);
        let mut outputs: Vec<String> = common.iter().map(|name| glob(name)).collect();
        for at in 0..rest.iter().map(Vec::len).max().unwrap_or(0) {
            // Standard output comes home anyway, so it can stand where a task has fewer files.
            let names = rest
                .iter()
                .map(|files| files.get(at).map_or("stdout", |(name, _)| name));
            let names: Vec<&str> = names.collect();
            outputs.push(axes.text("get", &names, &glob)?);
        }
        let mut all = self.each(|own| own.last.as_ref()).flatten();
        if let Some(one) = all.find(|one| one.to != bare_place(&one.from)) {
            let (line, from, to) = (one.line, bare_place(&one.from), &one.to);
            warnings.insert(format!(
                "results come home as results-JOB/INDEX/NAME, INDEX from 0 and NAME as in the task: \
                 line {line}, `{from}` is not renamed to `{to}`"
            ));
        }
        Ok(outputs)
    }
}

/// The names that every task has, and what each has besides.
fn split(lists: &[Files]) -> (BTreeSet<&str>, Vec<Besides<'_>>) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for name in lists.iter().flat_map(|files| files.keys()) {
        *seen.entry(name).or_default() += 1;
    }
    let common: BTreeSet<&str> = seen
        .into_iter()
        .filter(|(_, tasks)| *tasks == lists.len())
        .map(|(name, _)| name)
        .collect();
    let mut rest = Vec::with_capacity(lists.len());
    for files in lists {
        let own = files
            .iter()
            .filter(|(name, _)| !common.contains(name.as_str()));
        rest.push(
            own.map(|(name, from)| (name.as_str(), from.as_str()))
                .collect(),
        );
    }
    (common, rest)
}

/// Axes as a job file has them, each with one value for each task.
#[derive(Default)]
struct Axes {
    found: Map<String, Value>,
    bytes: usize,
}

impl Axes {
    /// What to write where `values` stand: the value itself where all are alike, else an axis.
    fn text(
        &mut self,
        name: &str,
        values: &[&str],
        plain: &dyn Fn(&str) -> String,
    ) -> Result<String, Wrong> {
        let first = values.first().copied().unwrap_or("");
        // What is inherited is one text in one place, and need not be compared.
        if values
            .iter()
            .all(|value| std::ptr::eq(*value, first) || *value == first)
        {
            return Ok(plain(first));
        }
        self.bytes += values
            .iter()
            .map(|value| value.len() + VALUE_BYTES)
            .sum::<usize>();
        if self.bytes > AXES_BYTES_MAX || self.found.len() > FILES_MAX {
            let problem = "what differs between the tasks is more than 64 MiB of text, or more than 1000 files; put it into files, or make several jobs";
            return Err(Wrong::at(1, problem));
        }
        let name = format!("{name}{}", self.found.len() + 1);
        self.found.insert(name.clone(), json!({ "list": values }));
        Ok(format!("{{{name}}}"))
    }
}

/// A name that stands for itself where a glob is read.
fn glob(name: &str) -> String {
    let mut plain = String::new();
    for c in verbatim(name).chars() {
        match c {
            '*' | '?' | '[' | '}' => plain.extend(['[', c, ']']),
            _ => plain.push(c),
        }
    }
    // The brace was doubled for placeholders, so one is left in the class.
    plain.replace("{{", "[{{]")
}

/// Text with `$TASK` replaced; what tasks are not told is refused.
fn filled(text: &str, line: usize, task: &str) -> Result<String, Wrong> {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let inner = tail.strip_prefix('{').unwrap_or(tail);
        let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, after) = inner.split_at(end.unwrap_or(inner.len()));
        let after = if inner.len() < tail.len() {
            after.strip_prefix('}').unwrap_or(after)
        } else {
            after
        };
        match name {
            "TASK" => plain.push_str(task),
            "PLAYPEN" | "STORAGE" => plain.push('.'),
            "JOB" => {
                return Err(Wrong::at(
                    line,
                    "tasks are not told the number of their job; write a name of your own in place of $JOB, each task has a folder to itself",
                ));
            }
            "PROC" => {
                return Err(Wrong::at(
                    line,
                    "tasks are not told where they run; write $TASK in place of $PROC, or ask `hostname`",
                ));
            }
            _ => plain.push_str(&rest[at..rest.len() - after.len()]),
        }
        rest = after;
    }
    plain.push_str(rest);
    Ok(plain)
}

/// A name in the task's folder, without what stands for the folder itself.
fn place(text: &str, line: usize, task: &str) -> Result<String, Wrong> {
    let name = filled(text, line, task)?;
    if name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..") {
        let problem = format!(
            "`{text}` is outside of the task's folder, or has a backslash; write a name in the folder, as in `data/in.txt`"
        );
        return Err(Wrong::at(line, problem));
    }
    Ok(bare_place(&name))
}

fn bare_place(name: &str) -> String {
    let folder = |part: &&str| !matches!(*part, "" | "." | "$PLAYPEN" | "$STORAGE");
    name.split('/').filter(folder).collect::<Vec<_>>().join("/")
}

/// The files that these bring into a task, `put` and `store` alike: both are kept on the PC.
fn put(list: &[Transfer], task: &str) -> Result<Files, Wrong> {
    let mut files = BTreeMap::new();
    for one in list {
        let from = filled(&one.from, one.line, task)?;
        let mut to = place(&one.to, one.line, task)?;
        if to.is_empty() || one.to.ends_with('/') {
            let base = place(from.rsplit('/').next().unwrap_or(""), one.line, task)?;
            to = bare_place(&format!("{to}/{base}"));
        }
        let twice = files
            .insert(to.clone(), from.clone())
            .is_some_and(|other| other != from);
        if twice || to.is_empty() || from.is_empty() {
            let problem = format!(
                "`{to}` stands for two files, or for none; give each file a name of its own ($PLAYPEN and $STORAGE are one folder here)"
            );
            return Err(Wrong::at(one.line, problem));
        }
    }
    Ok(Rc::new(files))
}

/// The files that these bring home.
fn get(list: &[Transfer], task: &str) -> Result<Files, Wrong> {
    let mut files = BTreeMap::new();
    for one in list {
        let name = place(&one.from, one.line, task)?;
        if name.is_empty() {
            return Err(Wrong::at(
                one.line,
                "a whole folder cannot be fetched; name its files, or let the command pack it",
            ));
        }
        files.insert(name, String::new());
    }
    Ok(Rc::new(files))
}

#[cfg(test)]
mod tests;
