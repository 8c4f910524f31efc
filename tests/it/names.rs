//! Do odd names and hostile outputs stay where they belong?

use crate::pool::{Desk, Pool, write_raw};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

/// Runs a script that makes outputs; whether they come home or not, nothing outside may.
fn hostile(script: &str, outputs: &str) -> (Desk, i32, String) {
    let desk = Desk::new();
    desk.write("evil.sh", script);
    let job = format!(
        "[task]\ncommand = [\"sh\", \"evil.sh\"]\ninputs = {{ \"evil.sh\" = \"evil.sh\" }}\n\
         outputs = [{outputs}]\n[retry]\nattempts = 1\n"
    );
    let (id, out) = Pool::shared().submit_and_wait(&desk, &job);
    let reason = Pool::shared().tasks(&id)[0]["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (desk, out.code, reason)
}

#[test]
fn links_and_devices_do_not_come_home() {
    let table = [
        ("a symbolic link to a file outside", "ln -s /etc/passwd out"),
        (
            "a symbolic link upwards",
            "ln -s ../../../../etc/passwd out",
        ),
        (
            "a folder that is a link",
            "ln -s /etc d; ln -s d/passwd out",
        ),
        ("a named pipe", "mkfifo out"),
        ("a folder", "mkdir out"),
    ];
    for (what, script) in table {
        let (desk, code, reason) = hostile(script, "\"out\"");
        assert_eq!(code, 1, "{what} came home: {:?}", desk.list());
        assert!(reason.contains("out"), "{what}: {reason}");
        assert!(!desk.exists("out/0/out"), "{what}");
    }
}

#[test]
fn a_glob_leaves_links_behind_but_takes_files() {
    let (desk, _, _) = hostile("ln -s /etc d; ln -s /etc/passwd p; echo fine > f", "\"**\"");
    let text: String = desk.list().iter().map(|name| desk.read(name)).collect();
    assert!(
        !text.contains("root:"),
        "a file of the node came home: {:?}",
        desk.list()
    );
}

#[test]
fn names_with_spaces_and_quotes() {
    let desk = Desk::new();
    for name in ["a b.txt", "quo\"te'.txt", "-dash.txt", "ünï.txt"] {
        fs::create_dir_all(desk.path().join("in")).unwrap();
        write_raw(&desk.path().join("in").join(name), name.as_bytes());
    }
    let job = "[task]\ncommand = [\"sh\", \"-c\", \"cat -- \\\"$0\\\"\", \"{f}\"]\n[sweep]\nf = { files = \"in/*.txt\" }\n";
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    let mut contents: Vec<String> = (0..4)
        .map(|index| desk.read(&format!("out/{index}/stdout")))
        .collect();
    contents.sort();
    let mut expected = vec!["a b.txt", "quo\"te'.txt", "-dash.txt", "ünï.txt"];
    expected.sort_unstable();
    assert_eq!(contents, expected);
}

#[test]
fn names_that_are_no_line_of_text_are_refused_with_a_sentence() {
    let table = [(&b"bad\xff.txt"[..], "UTF-8"), (b"new\nline.txt", "rename")];
    for (name, word) in table {
        let desk = Desk::new();
        fs::create_dir_all(desk.path().join("in")).unwrap();
        write_raw(&desk.path().join("in").join(OsStr::from_bytes(name)), b"x");
        desk.write(
            "job.toml",
            "[task]\ncommand = [\"cat\", \"{f}\"]\n[sweep]\nf = { files = \"in/*.txt\" }\n",
        );
        Pool::shared()
            .gleaner(&desk, &["submit", "job.toml"])
            .exits(2)
            .complains_of(&[word]);
    }
}

#[test]
fn ten_thousand_inputs() {
    let desk = Desk::new();
    fs::create_dir_all(desk.path().join("in")).unwrap();
    for i in 0..10_000 {
        write_raw(
            &desk.path().join(format!("in/{i:05}")),
            format!("{i}\n").as_bytes(),
        );
    }
    let inputs: Vec<String> = (0..10_000)
        .map(|i| format!("\"in/{i:05}\" = \"in/{i:05}\""))
        .collect();
    let job = format!(
        "[task]\ncommand = [\"sh\", \"-c\", \"cat in/* | md5sum; ls in | wc -l\"]\n[task.inputs]\n{}\n",
        inputs.join("\n")
    );
    Pool::shared().submit_and_wait(&desk, &job).1.exits(0);
    assert!(
        desk.read("out/0/stdout").ends_with("\n10000\n"),
        "{}",
        desk.read("out/0/stdout")
    );
}
