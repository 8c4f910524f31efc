//! What job description files become, and what is said of those that cannot.

use super::super::Wrong;
use super::{glob, read};
use gleaner_model::{Axis, JobSpec, Template};
use globset::GlobBuilder;
use serde_json::{Value, json};
use std::borrow::Cow;

const PROLOGUE: &str = "export PLAYPEN=\"$PWD\" STORAGE=\"$PWD\" TASK={task} PATH=\"$PATH:$PWD\"; ";

/// The job, which must also be one for the ordinary reader.
fn job(text: &str) -> Value {
    job_and_warnings(text).0
}

fn job_and_warnings(text: &str) -> (Value, Vec<String>) {
    let read = read(text, "stem").unwrap_or_else(|wrong| panic!("{wrong:?} in {text}"));
    if let Err(problem) = serde_json::from_value::<JobSpec>(read.job.clone()) {
        panic!("{problem}: {}", read.job);
    }
    (read.job, read.warnings)
}

fn wrong(text: &str) -> Wrong {
    match read(text, "stem") {
        Ok(read) => panic!("read {}", read.job),
        Err(wrong) => wrong,
    }
}

/// Command, inputs and outputs.
type Filled = (String, Vec<(String, String)>, Vec<String>);

/// What each task gets: command, inputs and outputs, filled as server and agent do.
fn tasks(job: &Value) -> Vec<Filled> {
    let spec: JobSpec = serde_json::from_value(job.clone()).unwrap();
    let length = |axis: &Axis| match axis {
        Axis::List(values) => values.len(),
        Axis::Range(first, last) => usize::try_from(last - first + 1).unwrap(),
        Axis::Files(_) | Axis::Lines(_) | Axis::Split(_) => panic!("no such axis is made"),
    };
    let count = spec.sweep.axes.values().map(length).max().unwrap_or(1);
    assert!(spec.sweep.axes.values().all(|axis| length(axis) == count));
    let fill = |text: &str, at: usize| {
        let known = |name: &str| spec.sweep.axes.contains_key(name) || name == "index";
        let value = |name: &str| match spec.sweep.axes.get(name)? {
            Axis::List(values) => Some(Cow::Owned(values[at].to_string())),
            Axis::Range(first, _) => Some(Cow::Owned(
                first.saturating_add_unsigned(at as u64).to_string(),
            )),
            Axis::Files(_) | Axis::Lines(_) | Axis::Split(_) => None,
        };
        Template::parse(text, &known).fill(&value).unwrap()
    };
    let one = |at: usize| {
        let inputs = spec.task.inputs.iter();
        (
            fill(&spec.task.command[2], at),
            inputs
                .map(|(name, from)| (fill(name, at), fill(from, at)))
                .collect(),
            spec.task
                .outputs
                .iter()
                .map(|name| fill(name, at))
                .collect(),
        )
    };
    (0..count).map(one).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(name, from)| ((*name).into(), (*from).into()))
        .collect()
}

#[test]
fn one_task_is_a_job_without_a_sweep() {
    let text = "job :\nlabel : first try\n\ntask :\n  init : put data/in.txt in.txt\n  \
                remote : ./count in.txt > out.txt\n  final : get out.txt out.txt\n";
    assert_eq!(
        job_and_warnings(text),
        (
            json!({
                "job": { "name": "first try" },
                "task": {
                    "command": ["/bin/sh", "-c",
                        format!("{}./count in.txt > out.txt", PROLOGUE.replace("{task}", "1"))],
                    "inputs": { "in.txt": "data/in.txt" },
                    "outputs": ["out.txt"],
                },
            }),
            vec![]
        )
    );
    assert_eq!(job("job:\ntask:\nremote:x")["job"]["name"], "stem");
}

#[test]
fn tasks_that_are_alike_are_counted_and_numbered_from_one() {
    let job = job("JOB :\n REMOTE : echo $TASK\nTASK :\nTask :\ntask :\n");
    assert_eq!(
        job["sweep"],
        json!({ "mode": "zip", "task": { "range": [1, 3] } })
    );
    let third = format!("{}echo $TASK", PROLOGUE.replace("{task}", "3"));
    assert_eq!(tasks(&job)[2].0, third);
}

#[test]
fn what_differs_becomes_axes_and_what_does_not_stays() {
    let job = job("job :\n\
        init : store bin/render $STORAGE/render\n       put scene.txt .\n\
        final : get frame.$TASK.png frames/$TASK.png\n\
        task :\n remote : render --from 1 {x}\n\
        task :\n remote : render --from 2\n\
        task :\n init : store bin/render2 $PLAYPEN/render\n        put other.txt scene.txt\n remote : render --from 3\n");
    assert_eq!(job["task"]["inputs"]["scene.txt"], "{from3}");
    let found = tasks(&job);
    assert!(
        found[0]
            .0
            .ends_with("TASK=1 PATH=\"$PATH:$PWD\"; render --from 1 {x}"),
        "{}",
        found[0].0
    );
    assert!(found[2].0.ends_with("; render --from 3"));
    assert_eq!(
        found[1].1,
        pairs(&[("render", "bin/render"), ("scene.txt", "scene.txt")])
    );
    assert_eq!(
        found[2].1,
        pairs(&[("render", "bin/render2"), ("scene.txt", "other.txt")])
    );
    assert_eq!(found[1].2, ["frame.2.png"]);
}

#[test]
fn a_file_of_another_name_in_each_task_has_an_axis_for_its_name() {
    let job = job("job :\nremote : sort *.txt\n\
        task :\ninit : put in/a.txt $PLAYPEN\n put all/rules.txt rules/\n\
        task :\ninit : put in/b.txt ${PLAYPEN}\n put all/rules.txt rules/\n");
    let found = tasks(&job);
    assert_eq!(
        found[0].1,
        pairs(&[("rules/rules.txt", "all/rules.txt"), ("a.txt", "in/a.txt")])
    );
    assert_eq!(
        found[1].1,
        pairs(&[("rules/rules.txt", "all/rules.txt"), ("b.txt", "in/b.txt")])
    );
}

#[test]
fn the_number_of_a_task_is_put_into_names() {
    let job = job(
        "job :\ninit : put part-${TASK}.dat $STORAGE/part.dat\nremote : wc part.dat\n\
                   task :\ntask :\n",
    );
    assert_eq!(tasks(&job)[1].1, pairs(&[("part.dat", "part-2.dat")]));
}

#[test]
fn tasks_with_fewer_files() {
    let head = "job :\nremote : run\ntask :\ninit : put a a\nput b b\nfinal : get x x\nget y y\n";
    let (found, warnings) =
        job_and_warnings(&format!("{head}task :\ninit : put a a\nfinal : get x x\n"));
    let found = tasks(&found);
    assert_eq!(
        found[1].1,
        pairs(&[("a", "a"), ("b", "b")]),
        "all get what one has"
    );
    assert_eq!(found[0].2, ["x", "y"]);
    assert_eq!(found[1].2, ["x", "stdout"], "which comes home anyway");
    assert_eq!(
        warnings,
        ["tasks put different numbers of files: every task gets those of all"]
    );
    let clash = wrong(&format!(
        "{head}task :\ninit : put other b\nput a a\nput c c\ntask :\ninit : put a a\n"
    ));
    assert_eq!(clash.line, 8);
    assert!(
        clash.problem.contains("`b` is not the same in all"),
        "{clash:?}"
    );
    // Empty is not absent: what the job gives to all is not inherited then.
    let empty = job("job :\ninit : put a a\nremote : run\ntask :\ninit :\n");
    assert_eq!(empty["task"]["inputs"], json!({}));
    let none = job(
        "job :\ninit : put a a\nremote : run\ntask :\ninit : none\nfinal : none\ncheck : none\n",
    );
    assert_eq!(none["task"]["inputs"], json!({}));
}

#[test]
fn comments_quotes_and_windows_line_ends() {
    let job = job(
        "\u{feff}# what it is\r\njob :\r\n  # more\r\n  label : \"a label\"\r\ntask :\r\n\
        init : put \"my data/in \\\"1\\\".txt\" \"in 1.txt\" # the first\r\n\
        remote : echo \"a # b\" 'c' \\\"d\\\"  \r\nfinal : get \"out 1.txt\" \"out 1.txt\"\r\n",
    );
    assert_eq!(job["job"]["name"], "a label");
    let (command, inputs, outputs) = &tasks(&job)[0];
    assert!(command.ends_with("; echo \"a # b\" 'c' \"d\""), "{command}");
    assert_eq!(*inputs, pairs(&[("in 1.txt", "my data/in \"1\".txt")]));
    assert_eq!(*outputs, ["out 1.txt"]);
    let whole = self::job("job:\ntask:\nremote: \"run it\"\n");
    assert!(tasks(&whole)[0].0.ends_with("; run it"));
}

#[test]
fn names_mean_themselves_in_globs_and_placeholders() {
    for name in [
        "a[1].txt",
        "*",
        "a?b",
        "{task}",
        "{{x}",
        "a}b",
        "!a",
        "[!a]",
        "a]b,{c,d}",
    ] {
        let template = Template::parse(&glob(name), &|name| name == "task");
        let text = template.fill(&|_| Some(Cow::Borrowed("7"))).unwrap();
        let built = GlobBuilder::new(&text).literal_separator(true).build();
        let built = built
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .compile_matcher();
        assert!(built.is_match(name), "{name} became {text}");
        assert!(
            !built.is_match("a1.txt") && !built.is_match("axb"),
            "{name} became {text}"
        );
    }
    let job = job(
        "job:\ntask:\ninit: put {task} {a}\nremote: awk '{print $1}' {task}\ntask:\ninit: put {task} {b}\nremote: x\n",
    );
    let found = tasks(&job);
    assert_eq!(found[1].1, pairs(&[("{b}", "{task}")]));
    assert!(found[0].0.ends_with("; awk '{print $1}' {task}"));
}

#[test]
fn requirements() {
    let (job, warnings) = job_and_warnings(
        "job :\nrequirements : ( OS == Linux and mem >= 100 && processor = AMD64 )\n \
         && (site == \"lab 2\") and os != windows and ram > 4096\ntask :\nremote : x\n",
    );
    assert_eq!(
        job["require"],
        json!({ "arch": "x86_64", "labels": { "site": "lab 2" } })
    );
    assert_eq!(job["limits"], json!({ "memory": "4096MiB" }));
    assert_eq!(warnings.len(), 2);
    let (job, warnings) = job_and_warnings("job:\nrequirements: mem >= 512MB\ntask:\nremote:x\n");
    assert_eq!(
        (job.get("limits"), job.get("require"), warnings.len()),
        (None, None, 0)
    );
    assert_eq!(
        self::job("job:\nrequirements:\ntask:\nremote:x\n").get("require"),
        None
    );
    for (text, part) in [
        ("os == windows", "all nodes run Linux"),
        ("os == linux or site == a", "is no comparison"),
        ("not ( site == a )", "in place of `not` write `!=`"),
        ("! site == a", "is no comparison"),
        ("site != a", "write `site == value`"),
        ("speed >= 3", "nodes have labels"),
        ("mem <= 100", "as in `mem >= 512`"),
        ("mem >= much", "as in `mem >= 512`"),
        ("arch == amd64 and arch == arm64", "two architectures"),
        ("arch == i686", "uname -m"),
        ("site == a and site == b", "a label has one value"),
        ("( site == a", "no partner"),
        ("site == a )(", "no partner"),
        ("site", "is no comparison"),
        ("site == a and", "is no comparison"),
    ] {
        let wrong = wrong(&format!(
            "job :\nrequirements : {text}\ntask :\nremote : x\n"
        ));
        assert_eq!(wrong.line, 2, "{text}");
        assert!(wrong.problem.contains(part), "{text}: {}", wrong.problem);
    }
}

#[test]
fn conditions_on_files() {
    let job = job("job :\nremote : x\ntask :\n\
        init : if (os == linux) then\n put lin run\n else\n put win run.exe\n endif\n put a a\n\
        final : if(os==windows)then get w w else get l l endif\n");
    let (_, inputs, outputs) = &tasks(&job)[0];
    assert_eq!(*inputs, pairs(&[("a", "a"), ("run", "lin")]));
    assert_eq!(*outputs, ["l"]);
    for (text, part) in [
        ("if (mem > 10) then put a a endif", "only `os` can be asked"),
        ("if () then put a a endif", "only `os` can be asked"),
        ("if (os == linux) then put a a", "write `endif`"),
        ("if (os == linux put a a endif", "no partner"),
        ("else put a a endif", "`else` is not known"),
    ] {
        let wrong = wrong(&format!("job :\ntask :\nremote : x\ninit : {text}\n"));
        assert_eq!(wrong.line, 4, "{text}");
        assert!(wrong.problem.contains(part), "{text}: {}", wrong.problem);
    }
}

#[test]
fn what_is_passed_over_is_told_once() {
    let (_, warnings) = job_and_warnings(
        "job :\nannotations : colour = red\nremote : echo >> $STORAGE/log\n\
         final : get $STORAGE/log logs/log.$TASK\n get b c\ntask :\ntask :\n",
    );
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].starts_with("$STORAGE is the task's own folder"));
    assert!(warnings[1].contains("`annotations :` is passed over"));
    assert!(warnings[2].contains("line 4, `log` is not renamed to `logs/log.$TASK`"));
}

#[tokio::test]
async fn its_files_are_found_from_the_job_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    for name in ["in/1.txt", "in/2.txt", "in/{b}", "tool"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    let text = "job :\ninit : store tool $STORAGE\nput in/$TASK.txt $PLAYPEN\nremote : sh tool\n\
                task :\ntask :\ntask :\ninit : put in/{b} $PLAYPEN\nstore tool .\n";
    let prepare = |text: String| async {
        let spec: JobSpec = serde_json::from_value(job(&text)).unwrap();
        let text = text;
        crate::prepare(spec, dir.path(), &crate::Progress::default())
            .await
            .map(|found| (found, text))
    };
    let (found, _) = prepare(text.into()).await.unwrap();
    let names: Vec<&str> = found
        .submission
        .files
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(names, ["in/1.txt", "in/2.txt", "in/{b}", "tool"]);
    assert_eq!(found.warnings, [""; 0]);
    let missing = prepare(format!("{text}task :\n")).await.unwrap_err();
    assert!(missing.to_string().contains("in/4.txt"), "{missing}");
}

/// The command does what it says in a real shell.
#[test]
fn programs_of_the_task_are_found_and_told_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tell.sh");
    std::fs::write(&file, "echo $TASK $PLAYPEN $STORAGE").unwrap();
    let job =
        job("job :\nremote : cd / && echo $TASK \"$1\" && sh $STORAGE/tell.sh\ntask :\ntask :\n");
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", &tasks(&job)[1].0])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let folder = dir.path().canonicalize().unwrap();
    let folder = folder.display();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told, format!("2 \n2 {folder} {folder}\n"));
}

#[test]
fn the_example_of_the_manual_is_what_it_says() {
    let manual = include_str!("../../../../../docs/user/ourgrid.md");
    let lines = manual.lines().skip_while(|line| *line != "    job :");
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
    let job = job(&lines.collect::<Vec<_>>().join("\n"));
    assert_eq!(job["require"], json!({ "labels": { "site": "lab" } }));
    let found = tasks(&job);
    assert_eq!(found.len(), 2);
    assert!(found[1].0.ends_with("; render scene.pov --quality 3"));
    let inputs = pairs(&[("render", "bin/render"), ("scene.pov", "scenes/2.pov")]);
    assert_eq!(
        (&found[1].1, &found[1].2),
        (&inputs, &vec!["picture.png".to_owned()])
    );
}

/// A task without files, in three lines.
const HEAD: &str = "job :\ntask :\nremote : x\n";

fn refused(text: &str, line: usize, part: &str) {
    let wrong = wrong(text);
    assert_eq!(wrong.line, line, "{text:.200}: {wrong:?}");
    assert!(wrong.problem.contains(part), "{text:.200}: {wrong:?}");
}

#[test]
fn errors_name_line_and_remedy() {
    let head = HEAD;
    for (text, line, part) in [
        ("", 1, "write a section `task :`"),
        ("\n\nfoo\n", 3, "begins with `job :`"),
        ("task :\n", 1, "begins with `job :`"),
        ("[\n Executable = \"x\"\n]", 1, "JDL"),
        ("job :\nlabel : x\n", 2, "has no task"),
        ("job :\nlable : x\n", 2, "did you mean `label :`"),
        (
            "job :\ntask :\nfinl : get a a\n",
            3,
            "did you mean `final :`",
        ),
        ("job :\nINIT = x\n", 2, "write `init : …`"),
        ("job : x\ntask :\n", 1, "belongs to no section"),
        ("job :\ntask :\n", 2, "this task has no command"),
        (
            "job :\nremote : x\ntask :\ntask :\nremote :\n",
            4,
            "this task has no command",
        ),
        ("job :\ntask :\nremote : x\nremote : y\n", 4, "stands twice"),
        ("job :\ntask :\nremote : x\n && y\n", 4, "is one line"),
        (
            "job :\ntask :\nremote : x > $JOB.txt\n",
            3,
            "in place of $JOB",
        ),
        ("job :\nremote : ${PROC}\ntask :\n", 2, "$PROC"),
        (&format!("{head}job :\n"), 4, "a file of its own"),
        (
            &format!("{head}label : x\n"),
            4,
            "before the first `task :`",
        ),
        (
            &format!("{head}check : diff a b\n"),
            4,
            "remote : … && diff a b",
        ),
    ] {
        refused(text, line, part);
    }
}

#[test]
fn errors_of_files_name_line_and_remedy() {
    let head = HEAD;
    for (text, line, part) in [
        (&format!("{head}init : put a\n"), 4, "needs two names"),
        (&format!("{head}init : put a\n put b b\n"), 4, "on its line"),
        (
            &format!("{head}init : put a b c\n"),
            4,
            "quote names with blanks",
        ),
        (
            &format!("{head}init : setup.sh\n"),
            4,
            "give commands to `remote :`",
        ),
        (&format!("{head}init : get a b\n"), 4, "write `put FROM TO`"),
        (
            &format!("{head}init : put \"a b\n"),
            4,
            "a quote has no end",
        ),
        (
            &format!("{head}init : put a /tmp/a\n"),
            4,
            "outside of the task's folder",
        ),
        (
            &format!("{head}init : put a ../a\n"),
            4,
            "outside of the task's folder",
        ),
        (
            &format!("{head}init : put x/.. .\n"),
            4,
            "outside of the task's folder",
        ),
        (&format!("{head}init : put a C:\\a\n"), 4, "backslash"),
        (
            &format!("{head}init : put a x\n store b $STORAGE/x\n"),
            5,
            "stands for two files",
        ),
        (
            &format!("{head}init : put a-$JOB x\n"),
            4,
            "in place of $JOB",
        ),
        (
            &format!("{head}final : get $PLAYPEN all\n"),
            4,
            "a whole folder",
        ),
        (
            &format!("{head}final : get /tmp/x x\n"),
            4,
            "outside of the task's folder",
        ),
        (
            &format!("job :\ntask :\nremote : {}\n", "x".repeat(130_000)),
            3,
            "120 KiB",
        ),
    ] {
        refused(text, line, part);
    }
    // Home's names may hold anything.
    job(&format!("{head}final : get a out/$JOB/$PROC\n"));
}

#[test]
fn short_files_that_stand_for_much_are_refused_soon() {
    let puts: String = (0..1_000).map(|at| format!("put a$TASK b{at}\n")).collect();
    let tasks = "task :\n".repeat(2_100);
    let wrong = wrong(&format!("job :\nremote : x\ninit :\n{puts}{tasks}"));
    assert!(
        wrong.problem.contains("more than 2000000 files"),
        "{wrong:?}"
    );
    let puts: String = (0..1_001).map(|at| format!("put a b{at}\n")).collect();
    let wrong = self::wrong(&format!("job :\nremote : x\ninit :\n{puts}{tasks}"));
    assert!(wrong.problem.contains("more than 1000 files"), "{wrong:?}");
    let command = "x".repeat(100_000);
    let wrong = self::wrong(&format!(
        "job :\nremote : {command}\n{tasks}task :\nremote : y\n"
    ));
    assert!(wrong.problem.contains("64 MiB"), "{wrong:?}");
    let many = "task :\n".repeat(1_000_001);
    let wrong = self::wrong(&format!("job :\nremote : x\n{many}"));
    assert!(wrong.problem.contains("1000000 tasks"), "{wrong:?}");
    let deep = format!(
        "job :\nrequirements : {}\ntask :\nremote : x\n",
        "(".repeat(1 << 20)
    );
    assert_eq!(self::wrong(&deep).line, 2);
}

/// What random texts are made of.
const PIECES: &[&str] = &[
    "job :",
    "task :",
    "init :",
    "remote :",
    "final :",
    "check :",
    "label :",
    "requirements :",
    "grid :",
    "none",
    "put",
    "store",
    "get",
    "if",
    "then",
    "else",
    "endif",
    "(",
    ")",
    "and",
    "or",
    "!",
    "==",
    "os",
    "linux",
    "mem",
    ">=",
    "100",
    "\"",
    "\\",
    "$TASK",
    "$JOB",
    "${",
    "}",
    "{",
    "{{",
    "$STORAGE/",
    ".",
    "..",
    "/",
    "é",
    "\u{feff}",
    "#",
    "a",
    "b c",
    " ",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\t",
];

/// Numbers that look random, the same in every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

#[test]
fn nothing_makes_it_panic_and_what_it_takes_is_a_job() {
    let mut taken = 0;
    for seed in 0..20_000 {
        let mut noise = Noise(seed);
        // Half of them begin as a job does, so that they come further.
        let mut text = if seed % 2 == 0 {
            "job :\nremote : x\ntask :\n".to_owned()
        } else {
            String::new()
        };
        for _ in 0..noise.below(40) {
            match noise.below(20) {
                0 => text.extend(char::from_u32(u32::try_from(noise.below(0x3000)).unwrap())),
                _ => text.push_str(PIECES[noise.below(PIECES.len())]),
            }
            text.push_str(if noise.below(3) == 0 { "" } else { " " });
        }
        match read(&text, "stem") {
            Ok(read) => {
                taken += 1;
                assert!(
                    serde_json::from_value::<JobSpec>(read.job).is_ok(),
                    "seed {seed}: {text}"
                );
            }
            Err(wrong) => {
                let lines = 1..=text.lines().count().max(1);
                assert!(
                    lines.contains(&wrong.line),
                    "seed {seed}: {wrong:?} in {text}"
                );
                assert!(!wrong.problem.is_empty());
            }
        }
    }
    assert!(taken > 100, "{taken}");
}
