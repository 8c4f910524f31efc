//! Do tasks run in the images that a user brings, whatever engine and rights, with the same bytes?

use crate::pool::{Desk, Pool, id_of};
use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that needs nothing else, and is many.
const BUSYBOX: &str = "/usr/bin/busybox";

/// A small userland below `root` on the desk, with one file that says which it is.
pub(crate) fn userland(desk: &Desk, mark: &str) {
    let root = desk.path().join("root");
    let _first_time = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("opt")).unwrap();
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "cut", "ls", "seq", "sha256sum", "id"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    desk.write("root/opt/mark", &format!("{mark}\n"));
}

fn tar(desk: &Desk, name: &str) {
    let made = Command::new("tar")
        .args(["-C", "root", "-czf", name, "."])
        .current_dir(desk.path())
        .status()
        .unwrap();
    assert!(made.success());
}

/// What every engine must print the same of an image.
pub(crate) const SCRIPT: &str = "cat /opt/mark; ls /opt /bin; seq 1 50000 | sha256sum; \
                                 test ! -e /usr; echo $?; id -un | cut -c 1-4; cat /etc/hostname";

#[test]
fn a_directory_and_its_archive_are_one_image_and_run() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    userland(&desk, "one");
    tar(&desk, "root.tar.gz");
    let import = |name: &str, source: &str| {
        let done = pool.gleaner(&desk, &["image", "import", name, source, "--json"]);
        done.exits(0).json()
    };
    let (first, second) = (import("e2e:dir", "root"), import("e2e:tar", "root.tar.gz"));
    assert_eq!(first["digest"], second["digest"]);
    assert_eq!(
        (&first["id"], &first["state"]),
        (&"e2e:dir".into(), &"ready".into())
    );
    let run = |image: &str| {
        let command = ["run", "--image", image, "--", "cat", "/opt/mark"];
        pool.gleaner(&desk, &command).exits(0).stdout
    };
    assert_eq!(run("e2e:dir"), "one\n");
    assert_eq!(run(first["digest"].as_str().unwrap()), "one\n");
    // A name that comes to stand for another file changes nothing for a job that is here.
    let old = ["submit", "job.toml", "--json"];
    desk.write(
        "job.toml",
        "[task]\nimage = \"e2e:dir\"\ncommand = [\"cat\", \"/opt/mark\"]\n[require]\nlabels = { no = \"node\" }\n",
    );
    let id = id_of(&pool.gleaner(&desk, &old).exits(0).json());
    userland(&desk, "two");
    let third = import("e2e:dir", "root");
    assert_ne!(third["digest"], first["digest"]);
    let job = pool.gleaner(&desk, &["job", &id, "--json"]).exits(0).json();
    assert_eq!(job["image"]["name"], "e2e:dir");
    assert_eq!(job["image"]["digest"], first["digest"]);
    pool.gleaner(&desk, &["cancel", &id]).exits(0);
    assert_eq!(run("e2e:dir"), "two\n");
    assert_eq!(run("e2e:tar"), "one\n");

    let listed = pool.gleaner(&desk, &["image", "list", "--quiet"]).exits(0);
    assert!(
        listed.stdout.contains("e2e:dir\ne2e:tar\n"),
        "{}",
        listed.stdout
    );
    pool.gleaner(&desk, &["image", "remove", "e2e:tar"])
        .exits(0);
    let gone = pool.gleaner(&desk, &["run", "--image", "e2e:tar", "--", "cat"]);
    gone.exits(2)
        .complains_of(&["did you mean \"e2e:", "gleaner image list", "image import"]);
    pool.gleaner(&desk, &["image", "remove", "e2e:tar"])
        .exits(4)
        .complains_of(&["gleaner image list"]);
}

#[test]
fn what_cannot_be_an_image_is_refused_with_a_sentence() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    desk.write("text", "no archive\n");
    fs::create_dir(desk.path().join("empty")).unwrap();
    for (source, word) in [
        ("text", "tar archive"),
        ("empty", "no files"),
        ("absent", "absent"),
    ] {
        let tried = pool.gleaner(&desk, &["image", "import", "bad", source]);
        tried.exits(2).complains_of(&[word]);
    }
    userland(&desk, "x");
    pool.gleaner(&desk, &["image", "import", "a/b", "root"])
        .exits(2)
        .complains_of(&["cannot name an image"]);
}

#[test]
fn an_image_is_the_same_root_for_root_and_for_a_plain_user() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    userland(&desk, "any");
    let script = ["run", "--image", "e2e:any", "--", "sh", "-c", SCRIPT];
    let shared = {
        pool.gleaner(&desk, &["image", "import", "e2e:any", "root"])
            .exits(0);
        pool.gleaner(&desk, &script).exits(0).stdout
    };
    assert!(shared.starts_with("any\n/bin:\nbusybox\n"), "{shared}");
    let Some(plain) = Pool::of_plain_user() else {
        return;
    };
    plain
        .gleaner(&desk, &["image", "import", "e2e:any", "root"])
        .exits(0);
    assert_eq!(plain.gleaner(&desk, &script).exits(0).stdout, shared);
}

/// Files below `dir` that have this name.
fn found(dir: &Path, name: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && path.file_name().is_some_and(|own| own == name) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn an_image_that_rots_on_a_node_is_fetched_anew_and_never_used() {
    let (pool, desk) = (Pool::start(1), Desk::new());
    userland(&desk, "whole");
    let made = pool.gleaner(&desk, &["image", "import", "rots", "root", "--json"]);
    let made = made.exits(0).json();
    let hex = made["digest"]
        .as_str()
        .unwrap()
        .trim_start_matches("blake3:")
        .to_owned();
    let run = ["run", "--image", "rots", "--", "cat", "/opt/mark"];
    pool.gleaner(&desk, &run).exits(0);
    let data = pool.config().parent().unwrap();
    let nodes: Vec<PathBuf> = found(data, &hex)
        .into_iter()
        .filter(|path| !path.starts_with(data.join("blobs")))
        .filter(|path| path.parent().unwrap().ends_with("blobs"))
        .collect();
    assert_eq!(nodes.len(), 1, "{:?}", found(data, &hex));
    // In a block of a program, where nobody but its digest tells.
    let file = fs::File::options().write(true).open(&nodes[0]).unwrap();
    file.write_all_at(b"rot", made["size"].as_u64().unwrap() - 6000)
        .unwrap();
    // One try: it ends with the reason. The next finds the file whole again.
    pool.gleaner(&desk, &run)
        .exits(125)
        .complains_of(&["integrity", "altered or cut short"]);
    pool.gleaner(&desk, &run).exits(0);
}
