//! Tests of preparing submissions from files on disk.

use super::*;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;

/// A folder with files, as a job's folder would be.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for name in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("content of {name}")).unwrap();
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn prepare(&self, text: &str) -> Result<Prepared, String> {
        let spec: JobSpec = toml::from_str(text).unwrap();
        prepare(spec, self.path(), &Progress::default())
            .await
            .map_err(|e| e.to_string())
    }
}

fn names(prepared: &Prepared) -> Vec<&str> {
    prepared
        .submission
        .files
        .iter()
        .map(|f| f.name.as_str())
        .collect()
}

fn axis_entries(prepared: &Prepared, axis: &str) -> Vec<FileEntry> {
    let blob = prepared.submission.axes[axis];
    let Source::Memory(bytes) = &prepared.sources.blobs[&blob] else {
        panic!("a list of files is made in memory")
    };
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[tokio::test]
async fn inputs_axes_and_the_program_are_found_and_hashed() {
    let folder = Folder::new(&["data/r.txt", "in/b.txt", "in/a.txt", "bin/prog", "names"]);
    let exec = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path().join("bin/prog"), exec).unwrap();
    let prepared = folder
        .prepare(
            "[task]\ncommand = ['bin/prog', '{f}']\ninputs = { 'r.txt' = 'data/r.txt' }\n\
             [sweep]\nf = { files = 'in/*.txt' }\nn = { lines = 'names' }\n",
        )
        .await
        .unwrap();
    assert_eq!(names(&prepared), ["bin/prog", "data/r.txt"]);
    assert_eq!(prepared.submission.files[0].mode & 0o111, 0o111);
    let hash = blake3::hash(b"content of data/r.txt");
    assert_eq!(prepared.submission.files[1].blob.digest.0, *hash.as_bytes());
    assert_eq!(prepared.submission.files[1].blob.size, 21);
    let entries = axis_entries(&prepared, "f");
    assert_eq!(
        entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(),
        ["a.txt", "b.txt"]
    );
    assert!(prepared.submission.axes.contains_key("n"));
    // Two inputs, two files of the axis, the list of them, and the lines.
    assert_eq!(prepared.sources().file_count(), 6);
}

#[tokio::test]
async fn a_list_of_one_line_is_no_file_of_its_task() {
    let folder = Folder::new(&["names", "other"]);
    let text = "[task]\ncommand = ['look', '{n}', '{m}']\ninputs = { 'names' = 'names' }\n\
                [sweep]\nn = { lines = 'names' }\nm = { lines = 'names' }\n";
    let prepared = folder.prepare(text).await.unwrap();
    assert_eq!(names(&prepared), ["names"]);
    let file = text.replace("m = { lines", "m = { files");
    let refused = folder.prepare(&file).await.unwrap_err();
    assert!(refused.contains("brings a file named `names`"), "{refused}");
}

#[tokio::test]
async fn files_of_one_name_keep_their_folders() {
    let folder = Folder::new(&["runs/1/in.txt", "runs/2/in.txt"]);
    let text = "[task]\ncommand = ['cat', '{f}']\n[sweep]\nf = { files = 'runs/*/in.txt' }\n";
    let prepared = folder.prepare(text).await.unwrap();
    let entries = axis_entries(&prepared, "f");
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["1/in.txt", "2/in.txt"]);
}

#[tokio::test]
async fn paths_expand_over_the_axes_they_use() {
    let folder = Folder::new(&[
        "c/1-x", "c/2-x", "c/1-y", "c/2-y", "t/0", "t/1", "t/2", "t/3",
    ]);
    let sweep = "[sweep]\na = { range = [1, 2] }\nb = { list = ['x', 'y'] }\n";
    let text = "[task]\ncommand = ['true']\ninputs = { 'conf' = 'c/{a}-{b}', 't' = 't/{index}' }\n";
    let prepared = folder.prepare(&format!("{text}{sweep}")).await.unwrap();
    assert_eq!(
        names(&prepared),
        [
            "c/1-x", "c/1-y", "c/2-x", "c/2-y", "t/0", "t/1", "t/2", "t/3"
        ]
    );
    let zipped = sweep.replace("[sweep]", "[sweep]\nmode = 'zip'");
    let prepared = folder.prepare(&format!("{text}{zipped}")).await.unwrap();
    assert_eq!(names(&prepared), ["c/1-x", "c/2-y", "t/0", "t/1"]);
}

#[tokio::test]
async fn programs_of_the_system_stay_there_and_others_come_along() {
    let folder = Folder::new(&["job/x", "prog"]);
    let base = folder.path().join("job");
    let spec = |program: &str| -> JobSpec {
        toml::from_str(&format!("[task]\ncommand = ['{program}']\n")).unwrap()
    };
    let prepared = prepare(spec("/bin/sh"), &base, &Progress::default())
        .await
        .unwrap();
    assert!(names(&prepared).is_empty());
    for outside in [
        "../prog".to_owned(),
        folder.path().join("prog").display().to_string(),
    ] {
        let prepared = prepare(spec(&outside), &base, &Progress::default())
            .await
            .unwrap();
        assert_eq!(names(&prepared), ["./prog"]);
        assert_eq!(prepared.submission.spec.task.command, ["./prog"]);
    }
    let prepared = prepare(spec("./nowhere/prog"), &base, &Progress::default())
        .await
        .unwrap();
    assert!(names(&prepared).is_empty(), "it may be in the image");
}

#[tokio::test]
async fn what_cannot_be_sent_is_said_with_its_key() {
    let folder = Folder::new(&["in/a.txt", "in2/a.txt", "lines", "empty/x"]);
    std::fs::write(folder.path().join("none"), "").unwrap();
    std::fs::write(folder.path().join("latin"), b"\xe9\n").unwrap();
    for (inputs, sweep, said) in [
        ("x = 'missing'", "", "task.inputs.x: there is no file"),
        ("x = 'in'", "", "task.inputs.x: "),
        ("x = 'http://a/b'", "", "write https://"),
        ("x = 'blake3:12'", "", "is not a digest"),
        ("\"x\\ny\" = 'lines'", "", "line break"),
        (
            "",
            "f = { files = 'in/*.dat' }",
            "sweep.f: no file matches `in/*.dat` in /",
        ),
        ("", "f = { lines = 'missing' }", "sweep.f: there is no file"),
        ("", "f = { lines = 'none' }", "sweep.f: none is empty"),
        ("", "f = { lines = 'latin' }", "sweep.f: "),
        ("", "f = { list = [] }", "sweep.f: the list is empty"),
        (
            "",
            "f = { range = [1, 1000000000] }",
            "sweep: makes 1,000,000,000 tasks, and a job may have 1,000,000;",
        ),
        (
            "",
            "f = { range = [1, 1001] }\ng = { range = [1, 1000] }",
            "sweep: makes 1,001,000 tasks",
        ),
        (
            "",
            "mode = 'zip'\nf = { range = [1, 3] }\ng = { list = [1] }",
            "`f` has 3 values",
        ),
        (
            "",
            "f = { files = 'in/*' }\ng = { files = 'in2/*' }",
            "a file named `a.txt`",
        ),
        (
            "'a.txt' = 'lines'",
            "f = { files = 'in/*' }",
            "so does task.inputs",
        ),
        (
            "x = '{f}'",
            "f = { split = 'lines', per_task = 1 }",
            "cut by the server",
        ),
    ] {
        let text =
            format!("[task]\ncommand = ['true']\ninputs = {{ {inputs} }}\n[sweep]\n{sweep}\n");
        let found = folder.prepare(&text).await.unwrap_err();
        assert!(
            found.contains(said),
            "{text}\n  gave   {found}\n  wanted {said}"
        );
    }
}

#[tokio::test]
async fn globs_that_are_none_are_refused_at_once() {
    let folder = Folder::new(&[]);
    let job = |task: &str| format!("[task]\ncommand = ['true']\n{task}\n");
    for (task, said) in [
        (
            "outputs = ['a', '[x']",
            "task.outputs: \"[x\" is not a glob",
        ),
        ("outputs = ['{a,b']", "task.outputs: "),
        ("checkpoint_files = ['[z-a]']", "task.checkpoint_files: "),
        (
            "[collect.merge]\ncommand = ['cat']\noutputs = ['[x']",
            "collect.merge.outputs: ",
        ),
    ] {
        let found = folder.prepare(&job(task)).await.unwrap_err();
        assert!(found.contains(said), "{task}: {found}");
    }
    let good =
        "outputs = ['{f}.[ab]', '{a,b}*', '**/{index}', '{{a,b}']\n[sweep]\nf = { list = ['[x'] }";
    folder.prepare(&job(good)).await.unwrap();
}

#[tokio::test]
async fn file_names_that_no_command_can_hold_are_refused() {
    for (name, said) in [
        (&b"bad\xff.txt"[..], "is not UTF-8"),
        (b"two\nlines.txt", "line break"),
    ] {
        let folder = Folder::new(&[]);
        let path = folder.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(path, "x").unwrap();
        let text = "[task]\ncommand = ['true']\n[sweep]\nf = { files = '*.txt' }\n";
        let found = folder.prepare(text).await.unwrap_err();
        assert!(found.contains(said) && found.contains("rename"), "{found}");
    }
}

#[tokio::test]
async fn a_brace_close_to_an_axis_draws_a_warning() {
    let folder = Folder::new(&[]);
    let text = "[task]\ncommand = ['x', '{ligant}', '{{ligant}', '{print}', '{a}', '{indx}']\n\
                [sweep]\nligand = { list = [1] }\n";
    let prepared = folder.prepare(text).await.unwrap();
    assert_eq!(
        prepared.warnings,
        [
            "task.command: {indx} is not a placeholder and stays as it is; did you mean {index}?",
            "task.command: {ligant} is not a placeholder and stays as it is; did you mean {ligand}?",
        ]
    );
}

#[tokio::test]
async fn a_download_is_pinned_by_its_digest() {
    let app = axum::Router::new().route("/data", axum::routing::get(|| async { "from the web" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let progress = Progress::default();
    let (blob, path) = download::download(&format!("http://{address}/data"), &progress)
        .await
        .unwrap();
    assert_eq!(blob.digest.0, *blake3::hash(b"from the web").as_bytes());
    assert_eq!(std::fs::read(&path).unwrap(), b"from the web");
    let problem = download::download(&format!("http://{address}/none"), &progress)
        .await
        .unwrap_err();
    assert!(problem.contains("404"), "{problem}");
    server.abort();
}
