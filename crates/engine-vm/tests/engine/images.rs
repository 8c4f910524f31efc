//! A root that the job brings, under QEMU: the guest's first disk is the user's file.

use crate::qemu::{blob, said, saved_and_gone};
use gleaner_engine::conformance::Bench;
use gleaner_engine::{AttemptSpec, ImageFile, Restore, Saves};
use gleaner_engine_vm::Accelerator;
use gleaner_engine_vm::image::Image;
use gleaner_model::{Bytes, Digest, Reason, Span};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

/// A program that needs nothing else, and is many.
const BUSYBOX: &str = "/usr/bin/busybox";

/// What the script needs of it.
const APPLETS: [&str; 4] = ["sh", "cat", "ls", "touch"];

/// A sum that takes a while under translation, with words on the way. The root is looked at before
/// and afterwards, the second time at what nobody has read before.
const SCRIPT: &str = "cat /opt/early; ls / /opt; i=0; x=1; while [ $i -lt 50000 ]; do \
    x=$(( (x * 1103515245 + 12345) % 2147483648 )); i=$((i+1)); \
    [ $((i % 1000)) = 0 ] && echo step $i; done; cat /opt/late; echo $x > sum; touch /opt/x; true";

/// What [`SCRIPT`] counts to.
fn sum() -> u64 {
    (0..50_000).fold(1, |x, _| (x * 1_103_515_245 + 12_345) % 2_147_483_648)
}

/// A root of a few programs and two files, one of which says whose it is.
fn root(dir: &Path, mark: &str) -> ImageFile {
    let root = dir.join(format!("root-{mark}"));
    for below in ["bin", "opt"] {
        fs::create_dir_all(root.join(below)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in APPLETS {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    for name in ["early", "late"] {
        fs::write(root.join("opt").join(name), format!("{name} {mark}\n")).unwrap();
    }
    let source = dir.join(format!("image-{mark}"));
    let tree = gleaner_image::import(&root, 1 << 30).unwrap().tree;
    let (_, digest) = tree.write(&mut File::create(&source).unwrap()).unwrap();
    ImageFile {
        source,
        digest: Digest(digest),
    }
}

fn spec(bench: &Bench, root: &ImageFile) -> AttemptSpec {
    let mut spec = bench.script(SCRIPT);
    spec.image = Some(root.clone());
    spec.outputs = vec!["sum".to_owned()];
    spec.limits.memory = Bytes(64 << 20);
    spec.limits.disk = Bytes(16 << 20);
    spec.saving.every = Some(Span::seconds(600));
    spec
}

pub(crate) fn moved_with_its_root(bench: &Bench, image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (root(dir.path(), "ours"), root(dir.path(), "theirs"));
    let first = spec(bench, &ours);
    bench.start(&first);
    said(bench, &first, 150);
    let (ended, saved) = saved_and_gone(bench, &first);
    // Its kernel is gone, and with it whoever could be asked what the program used.
    let used = &ended.usage;
    assert!(used.memory_peak > 64 << 10, "{used:?}");
    assert!(
        used.processes_peak >= 1 && used.cpu_seconds > 0.0,
        "{used:?}"
    );

    let Saves::Guest { machine } = bench.engine().saves() else {
        panic!("{:?}", bench.engine().saves())
    };
    let blobs = dir.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let place = dir.path().join("engine");
    let other = Bench::new(blobs.clone(), |events| {
        crate::engine(image, &place, Accelerator::Tcg, events)
    });
    let file = blob(&blobs, "saved", &saved);
    let on = |root: &ImageFile| {
        let mut spec = spec(&other, root);
        spec.saving.restore = Some(Restore {
            machine: machine.clone(),
            files: vec![file.clone()],
        });
        other.run(&spec)
    };
    // Another user's root under a task that has begun would be neither the one nor the other.
    let (refused, _) = on(&theirs);
    let Reason::Unrestored { detail } = &refused.reason else {
        panic!("{:?}", refused.reason)
    };
    for words in [
        "the base image differs",
        &ours.digest.to_string(),
        &theirs.digest.to_string(),
    ] {
        assert!(detail.contains(words), "{detail}");
    }
    let (ending, files) = on(&ours);
    assert_eq!(ending.reason, Reason::Exit { code: 0 }, "{ending:?}");
    let files = files.unwrap();
    let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
    let said = text("stdout");
    let begins = "early ours\n/:\nbin\ndev\netc\nhome\nopt\nproc\nrun\nscratch\nsys\ntmp\nvar\n\n\
                  /opt:\nearly\nlate\nstep 1000\n";
    assert!(said.starts_with(begins), "{said}");
    assert!(said.ends_with("step 50000\nlate ours\n"), "{said}");
    assert_eq!(said.matches("step ").count(), 50, "each word once");
    assert_eq!(text("sum"), format!("{}\n", sum()));
    // The file is read-only, for whoever wants to write.
    assert!(text("stderr").contains("Read-only"), "{}", text("stderr"));
}
