//! Submit files of HTCondor. Source: the manual page condor_submit(1) and "Submitting a Job" of its
//! users' manual.
//!
//! Read are files for one program, run many times without a file system that nodes share: what may
//! stand in one is in [`COMMANDS`]. Other names are macros.

mod commands;
mod lines;
mod macros;
mod queue;
mod requirements;
#[cfg(test)]
mod tests;
mod words;

use super::{Read, Wrong};
use commands::{Meaning, meaning};
use gleaner_model::verbatim;
use lines::Script;
use macros::{Macros, has_marks};
use requirements::Wants;
use serde_json::{Map, Value, json};
use std::path::{Component, Path};

/// Exit code by which a program says that it has saved itself.
const SAVED: i32 = gleaner_model::CHECKPOINT_EXIT_CODE;

/// Most files of folders that are named as inputs.
const FOLDER_FILES_MAX: usize = 10_000;

/// Reads a submit file whose relative paths start from `base`.
///
/// # Errors
/// What cannot be read, or would mean something else here.
pub(crate) fn read(text: &str, name: &str, base: &Path) -> Result<Read, Wrong> {
    if has_marks(text) {
        return Err(Wrong::at(1, "has a letter of Unicode's private area"));
    }
    let script = Script::read(text)?;
    let Some(queue) = &script.queue else {
        return Err(Wrong::at(
            text.lines().count().max(1),
            "has no queue statement; end it with queue, or queue 10",
        ));
    };
    let mut macros = Macros::new(&script.settings);
    queue::split(queue, &mut macros, base)?;
    let mut job = Job {
        macros,
        base,
        task: Map::new(),
        inputs: Map::new(),
        limits: Map::new(),
        warnings: Vec::new(),
    };
    let mut file = Map::new();
    job.refuse(&script)?;
    job.program()?;
    job.inputs()?;
    job.outputs()?;
    file.insert("job".to_owned(), job.head(name)?);
    file.insert("require".to_owned(), job.wants()?);
    if let Some(retries) = job.number("maxretries")? {
        let attempts = retries.saturating_add(1);
        file.insert("retry".to_owned(), json!({ "attempts": attempts }));
    }
    job.saves()?;
    job.limits()?;
    job.passed_over(&script)?;
    if !job.inputs.is_empty() {
        job.task.insert("inputs".to_owned(), job.inputs.into());
    }
    file.insert("task".to_owned(), job.task.into());
    file.insert("limits".to_owned(), job.limits.into());
    if let Some(sweep) = job.macros.sweep() {
        file.insert("sweep".to_owned(), sweep);
    }
    Ok(Read {
        job: file.into(),
        warnings: job.warnings,
    })
}

/// What follows the program in a command.
enum Arguments {
    /// As many in each task.
    Words(Vec<String>),
    /// Tasks have more or fewer: all in one, as a shell reads them.
    Quoted(String),
}

/// A job file of ours in the making.
struct Job<'s> {
    macros: Macros<'s>,
    base: &'s Path,
    task: Map<String, Value>,
    inputs: Map<String, Value>,
    limits: Map<String, Value>,
    warnings: Vec<String>,
}

impl Job<'_> {
    /// The value of a command with its line; empty ones are as good as none.
    fn get(&mut self, name: &str) -> Result<Option<(usize, String)>, Wrong> {
        let found = self.macros.value(name).transpose()?;
        Ok(found.filter(|(_, text)| !text.trim().is_empty()))
    }

    /// The same where every task must have the same.
    fn one(&mut self, name: &str) -> Result<Option<(usize, String)>, Wrong> {
        let found = self.get(name)?;
        if let Some((line, text)) = &found
            && self.macros.count() > 1
            && has_marks(text)
        {
            let problem = format!("{name} must be the same for all tasks of a job");
            return Err(Wrong::at(*line, problem));
        }
        Ok(found.map(|(line, text)| (line, self.macros.of_task(&text, 0))))
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, Wrong> {
        let Some((line, text)) = self.one(name)? else {
            return Ok(None);
        };
        let number = text.trim().parse();
        let number = number.map_err(|_| Wrong::at(line, format!("`{text}` is no whole number")))?;
        Ok(Some(number))
    }

    fn truth(&mut self, name: &str, default: bool) -> Result<bool, Wrong> {
        let Some((line, text)) = self.one(name)? else {
            return Ok(default);
        };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "t" | "1" => Ok(true),
            "false" | "no" | "f" | "0" => Ok(false),
            _ => Err(Wrong::at(
                line,
                format!("`{text}` is neither true nor false"),
            )),
        }
    }

    /// What would make another job of it.
    fn refuse(&mut self, script: &Script) -> Result<(), Wrong> {
        for setting in script.settings.values() {
            if let Some(Meaning::Refused(why)) = meaning(&setting.name) {
                let problem = format!("{} is not read: {why}", setting.name);
                return Err(Wrong::at(setting.line, problem));
            }
        }
        if let Some((line, universe)) = self.one("universe")?
            && !matches!(universe.to_ascii_lowercase().as_str(), "vanilla" | "5")
        {
            let problem = format!(
                "universe {universe} is not read; programs that run by themselves are vanilla, \
                 and root file systems come by `gleaner image import`"
            );
            return Err(Wrong::at(line, problem));
        }
        if let Some((line, transfer)) = self.one("shouldtransferfiles")?
            && transfer.eq_ignore_ascii_case("no")
        {
            let problem = "nodes share no file system; write YES and name the files in \
                           transfer_input_files";
            return Err(Wrong::at(line, problem));
        }
        Ok(())
    }

    fn program(&mut self) -> Result<(), Wrong> {
        let Some((line, program)) = self.get("executable")? else {
            return Err(Wrong::at(1, "names no program; write executable = PROGRAM"));
        };
        let sent = self.truth("transferexecutable", true)?;
        let mut program = program.trim().to_owned();
        if sent && !has_marks(&program) && !self.base.join(&program).is_file() {
            let problem = format!("{program} is not there; its path starts from the submit file");
            return Err(Wrong::at(line, problem));
        }
        if sent && !program.contains('/') {
            program = format!("./{program}");
        }
        let program = self.macros.finish(&program);
        let command = match self.arguments()? {
            Arguments::Words(words) => std::iter::once(program).chain(words).collect(),
            Arguments::Quoted(rest) => {
                let program = self.sent(&program);
                let call = format!("exec \"$0\" {rest}");
                vec!["/bin/sh".to_owned(), "-c".to_owned(), call, program]
            }
        };
        self.environment()?;
        self.task.insert("command".to_owned(), json!(command));
        Ok(())
    }

    /// A program that a shell calls is an input like others, unless it is a node's own.
    fn sent(&mut self, program: &str) -> String {
        if !program.starts_with('/') {
            let name = program.strip_prefix("./").unwrap_or(program);
            self.inputs.insert(name.to_owned(), json!(program));
            return format!("./{name}");
        }
        program.to_owned()
    }

    fn arguments(&mut self) -> Result<Arguments, Wrong> {
        let Some((line, text)) = self.get("arguments")? else {
            return Ok(Arguments::Words(Vec::new()));
        };
        let wrong = |problem: String| Wrong::at(line, problem);
        if !self.macros.has_phrases(&text) {
            let all = words::arguments(&text).map_err(wrong)?;
            let all = all.iter().map(|one| self.macros.finish(one));
            return Ok(Arguments::Words(all.collect()));
        }
        let tasks = 0..self.macros.count();
        let all = tasks.map(|task| words::arguments(&self.macros.of_task(&text, task)));
        let all: Vec<Vec<String>> = all.collect::<Result<_, _>>().map_err(wrong)?;
        let length = all.first().map_or(0, Vec::len);
        if all.iter().any(|one| one.len() != length) {
            let quoted = |one: &Vec<String>| -> String {
                let quoted: Vec<String> = one.iter().map(|one| words::for_shell(one)).collect();
                quoted.join(" ")
            };
            let rest = all.iter().map(quoted).collect();
            let rest = self.macros.column("arguments", rest);
            return Ok(Arguments::Quoted(self.macros.finish(&rest)));
        }
        let column = |at: usize| -> String {
            let values = all.iter().filter_map(|one| one.get(at).cloned()).collect();
            let column = self.macros.column(&format!("argument_{at}"), values);
            self.macros.finish(&column)
        };
        Ok(Arguments::Words((0..length).map(column).collect()))
    }

    fn environment(&mut self) -> Result<(), Wrong> {
        let mut env = Map::new();
        for name in ["environment", "env"] {
            let Some((line, text)) = self.get(name)? else {
                continue;
            };
            let pairs = words::environment(&text).map_err(|problem| Wrong::at(line, problem))?;
            for (name, value) in pairs {
                env.insert(name, json!(self.macros.finish(&value)));
            }
        }
        if let Some((line, names)) = self.one("getenv")? {
            match names.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" => self.warnings.push(
                    "getenv: the environment of this shell is not sent; name what tasks need, as \
                     in getenv = PYTHONPATH, LANG"
                        .to_owned(),
                ),
                "false" | "no" => {}
                _ => {
                    for name in names.split([',', ' ']).filter(|name| !name.is_empty()) {
                        if name.contains('*') {
                            let problem = format!("`{name}`: write the names in full");
                            return Err(Wrong::at(line, problem));
                        }
                        if let Ok(value) = std::env::var(name) {
                            env.insert(name.to_owned(), json!(verbatim(&value)));
                        }
                    }
                }
            }
        }
        if !env.is_empty() {
            self.task.insert("env".to_owned(), env.into());
        }
        Ok(())
    }

    /// A path of an input, from the folder that the file names.
    fn in_folder(&mut self, path: &str) -> Result<String, Wrong> {
        let folder = match self.get("initialdir")? {
            Some(folder) => Some(folder),
            None => self.get("iwd")?,
        };
        let whole = path.starts_with('/') || path.contains("://");
        Ok(match folder.filter(|_| !whole) {
            Some((_, folder)) => format!("{}/{path}", folder.trim().trim_end_matches('/')),
            None => path.to_owned(),
        })
    }

    /// The last part of a path, whatever axes are in it.
    fn base_name(&mut self, path: &str) -> String {
        if !has_marks(path) {
            return macros::path_parts(path, "nx");
        }
        self.macros
            .derived(path, "name", |path| macros::path_parts(path, "nx"))
    }

    fn inputs(&mut self) -> Result<(), Wrong> {
        if let Some((_, path)) = self.get("input")? {
            let path = self.in_folder(path.trim())?;
            if path != "/dev/null" {
                let name = self.base_name(&path);
                let name = self.macros.finish(&name);
                self.inputs
                    .insert(name.clone(), json!(self.macros.finish(&path)));
                self.task.insert("stdin".to_owned(), json!(name));
            }
        }
        let Some((line, list)) = self.get("transferinputfiles")? else {
            return Ok(());
        };
        let paths: Vec<String> = list.split(',').map(|path| path.trim().to_owned()).collect();
        for path in paths.into_iter().filter(|path| !path.is_empty()) {
            let path = self.in_folder(&path)?;
            if !has_marks(&path) && self.base.join(&path).is_dir() {
                self.folder(line, &path)?;
                continue;
            }
            let name = self.base_name(&path);
            let name = self.macros.finish(&name);
            let source = json!(self.macros.finish(&path));
            if let Some(other) = self.inputs.insert(name.clone(), source.clone())
                && other != source
            {
                let problem = format!("two files would be {name} in the sandbox; rename one");
                return Err(Wrong::at(line, problem));
            }
        }
        Ok(())
    }

    /// All files of a folder; with a slash at its end they lie at the top.
    fn folder(&mut self, line: usize, path: &str) -> Result<(), Wrong> {
        let top = match path.ends_with('/') {
            true => String::new(),
            false => format!("{}/", macros::path_parts(path, "nx")),
        };
        let wrong = |problem: String| Wrong::at(line, problem);
        let pattern = format!("{}/**", path.trim_end_matches('/'));
        let found = crate::glob::files(self.base, &pattern).map_err(wrong)?;
        if found.len() > FOLDER_FILES_MAX {
            let problem = format!("{path} has over {FOLDER_FILES_MAX} files; send an archive");
            return Err(wrong(problem));
        }
        for file in found {
            let below = file.strip_prefix(self.base.join(path)).unwrap_or(&file);
            let Some(below) = below.to_str() else {
                return Err(wrong(format!("{} is no UTF-8", file.display())));
            };
            let source = format!("{}/{below}", path.trim_end_matches('/'));
            let name = verbatim(&format!("{top}{below}"));
            self.inputs.insert(name, json!(verbatim(&source)));
        }
        Ok(())
    }

    fn outputs(&mut self) -> Result<(), Wrong> {
        // An empty list is meant: nothing comes home.
        let named = self.macros.value("transferoutputfiles").transpose()?;
        let Some((line, list)) = named else {
            let own = self.task.get("command").and_then(|command| command.get(0));
            let own = own
                .and_then(Value::as_str)
                .is_some_and(|own| !own.starts_with('/'));
            if own || !self.inputs.is_empty() {
                self.task.insert("outputs".to_owned(), json!(["*"]));
                self.warnings.push(
                    "every file at the top of the sandbox comes home, inputs too; name those you \
                     want in transfer_output_files"
                        .to_owned(),
                );
            } else {
                self.warnings.push(
                    "no file comes home besides stdout and stderr; name others in \
                     transfer_output_files"
                        .to_owned(),
                );
            }
            return Ok(());
        };
        let list = list.trim().trim_matches('"');
        let mut outputs = Vec::new();
        for name in list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            let parts = Path::new(name).components();
            if parts
                .into_iter()
                .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
            {
                let problem = format!("`{name}` leads out of the sandbox; name files below it");
                return Err(Wrong::at(line, problem));
            }
            let name = name.strip_prefix("./").unwrap_or(name);
            let whole = name.strip_suffix('/').map(|folder| format!("{folder}/**"));
            outputs.push(self.macros.finish(whole.as_deref().unwrap_or(name)));
        }
        self.task.insert("outputs".to_owned(), json!(outputs));
        Ok(())
    }

    fn head(&mut self, name: &str) -> Result<Value, Wrong> {
        let batch = match self.one("jobbatchname")? {
            Some(batch) => Some(batch),
            None => self.one("batchname")?,
        };
        let name = batch.map_or_else(
            || name.to_owned(),
            |(_, name)| name.trim_matches('"').into(),
        );
        let mut head = json!({ "name": name });
        for name in ["priority", "prio"] {
            if let Some((line, text)) = self.one(name)? {
                let priority: i32 = text.trim().parse().map_err(|_| {
                    Wrong::at(
                        line,
                        format!("`{text}` is no whole number, such as 10 or -5"),
                    )
                })?;
                head["priority"] = json!(priority);
            }
        }
        Ok(head)
    }

    fn wants(&mut self) -> Result<Value, Wrong> {
        let Some((line, text)) = self.one("requirements")? else {
            return Ok(json!({}));
        };
        let wants = Wants::read(&text).map_err(|problem| Wrong::at(line, problem))?;
        self.limits.extend(wants.limits);
        let mut require = json!({ "labels": wants.labels });
        if let Some(arch) = wants.arch {
            require["arch"] = json!(arch);
        }
        Ok(require)
    }

    fn saves(&mut self) -> Result<(), Wrong> {
        if let Some((line, code)) = self.one("checkpointexitcode")?
            && code.trim() != SAVED.to_string()
        {
            let problem = format!("a program says that it has saved itself by exit code {SAVED}");
            return Err(Wrong::at(line, problem));
        }
        if let Some((_, files)) = self.get("transfercheckpointfiles")? {
            let files = files
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            let files: Vec<String> = files.map(|name| self.macros.finish(name)).collect();
            self.task
                .insert("checkpoint_files".to_owned(), json!(files));
        }
        Ok(())
    }

    fn limits(&mut self) -> Result<(), Wrong> {
        if let Some(cpus) = self.number("requestcpus")? {
            self.limits.insert("cpus".to_owned(), json!(cpus));
        }
        for (name, limit, bare) in [
            ("requestmemory", "memory", "MiB"),
            ("requestdisk", "disk", "KiB"),
        ] {
            if let Some((line, text)) = self.one(name)? {
                let size = words::size(&text, bare).ok_or_else(|| {
                    Wrong::at(line, format!("`{text}` is no size; write one such as 2GB"))
                })?;
                self.limits.insert(limit.to_owned(), json!(size));
            }
        }
        for name in ["allowedexecuteduration", "allowedjobduration"] {
            if let Some(seconds) = self.number(name)? {
                self.limits
                    .insert("time".to_owned(), json!(format!("{seconds}s")));
            }
        }
        Ok(())
    }

    /// Tells what had no effect, and refuses what is no name of anything.
    fn passed_over(&mut self, script: &Script) -> Result<(), Wrong> {
        let mut names = Vec::new();
        for (key, setting) in &script.settings {
            match meaning(&setting.name) {
                Some(Meaning::Read | Meaning::Refused(_)) => {}
                Some(Meaning::PassedOver) => names.push(setting.name.as_str()),
                None if self.macros.read.contains(key) => {}
                None => {
                    let near = commands::near(&setting.name);
                    let near = near.map(|near| format!("; did you mean `{near}`?"));
                    let Some(near) = near else {
                        names.push(setting.name.as_str());
                        continue;
                    };
                    let problem = format!(
                        "`{}` is no command, and nothing uses it{near}",
                        setting.name
                    );
                    return Err(Wrong::at(setting.line, problem));
                }
            }
        }
        let attributes = script.attributes.iter().map(|name| format!("+{name}"));
        let names: Vec<String> = names
            .into_iter()
            .map(str::to_owned)
            .chain(attributes)
            .collect();
        if !names.is_empty() {
            self.warnings
                .push(format!("without effect here: {}", names.join(", ")));
        }
        Ok(())
    }
}
