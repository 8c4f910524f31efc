//! Tasks that bring a root of their own: what they see, what they cannot, and files that are not
//! what they should be.

use crate::{engine, group_parent};
use gleaner_engine::ImageFile;
use gleaner_engine::conformance::{BEAT, Bench};
use gleaner_model::{Digest, Reason};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "an image is the root of its tasks, and all of it",
        is_the_root,
    ),
    ("an image that was altered or cut short is refused", altered),
    (
        "a file system that somebody else made is not mounted",
        foreign,
    ),
];

/// A program that needs nothing else, and is many.
const BUSYBOX: &str = "/usr/bin/busybox";

const APPLETS: [&str; 12] = [
    "sh",
    "cat",
    "ls",
    "id",
    "uname",
    "mkdir",
    "touch",
    "mount",
    "sha256sum",
    "head",
    "stat",
    "true",
];

/// An image with a small userland and one file of its own.
pub(crate) fn image(dir: &Path) -> ImageFile {
    let root = dir.join("root");
    for below in ["bin", "opt", "dev/inside"] {
        fs::create_dir_all(root.join(below)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in APPLETS {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("opt/own"), "of the image\n").unwrap();
    let source = dir.join("image");
    let tree = gleaner_image::import(&root, 1 << 30).unwrap().tree;
    let (_, digest) = tree.write(&mut File::create(&source).unwrap()).unwrap();
    ImageFile {
        source,
        digest: Digest(digest),
    }
}

struct Desk {
    bench: Bench,
    image: ImageFile,
    dir: tempfile::TempDir,
}

fn desk() -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let place = dir.path().join("engine");
    let bench = Bench::new(blobs, |events| {
        engine(&place, &group_parent(), BEAT, events)
    });
    let image = image(dir.path());
    Desk { bench, image, dir }
}

impl Desk {
    fn stdout_of(&self, script: &str) -> String {
        let mut spec = self.bench.script(script);
        spec.image = Some(self.image.clone());
        self.bench.stdout_of(&spec)
    }

    fn reason(&self) -> Reason {
        let mut spec = self.bench.spec(&["true"]);
        spec.image = Some(self.image.clone());
        let (ending, _) = self.bench.run(&spec);
        assert_eq!(ending.started, None);
        ending.reason
    }

    fn unpacked(&self) -> PathBuf {
        self.dir.path().join("engine/images")
    }
}

fn is_the_root() {
    let desk = desk();
    let listed = desk.stdout_of("ls /; ls /home /run /opt; ls /dev; cat /opt/own");
    let top = "bin dev etc home opt proc run scratch sys tmp var /home: /opt: own /run:";
    let devices = "fd full null random shm stderr stdin stdout urandom zero of the image";
    let words: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(words.join(" "), format!("{top} {devices}"));
    // Nothing of the host, nothing to write to but scratch, a name and a place for temporary files.
    let said = desk.stdout_of(
        "test ! -e /usr && test ! -e /.outside/cages && id -un && \
         for at in / /opt /bin /etc /dev /sys /run; do touch $at/x 2>/dev/null && echo $at; done; \
         echo made > /tmp/file && cat /scratch/.tmp/file; touch here; \
         echo x > /dev/null && head -c 3 /dev/zero | sha256sum; cat /proc/self/mounts | head -1",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("task"), "{said}");
    assert_eq!(lines[1], "made", "{said}");
    assert!(
        lines[2].starts_with("709e80c88487a2411e1ee4dfb9f22a861492d20c4765150c0c794abd70f8147c")
    );
    assert!(
        lines[3].contains(" / ") && lines[3].contains("ro,nosuid,nodev"),
        "{said}"
    );
    let mounted = lines[3].contains(" erofs ");
    if rustix::process::geteuid().is_root() && kernel_has_erofs() {
        assert!(mounted, "{said}");
    }
    assert_eq!(desk.unpacked().exists(), !mounted);
    // The same again, and beside tasks without one.
    assert_eq!(desk.stdout_of("cat /opt/own"), "of the image\n");
    let plain = desk.bench.script("test ! -e /opt/own && echo host");
    assert_eq!(desk.bench.stdout_of(&plain), "host\n");
}

fn kernel_has_erofs() -> bool {
    fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\terofs\n"))
}

fn altered() {
    let desk = desk();
    let path = desk.image.source.clone();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut byte = [0];
    file.read_exact_at(&mut byte, size - 5000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], size - 5000).unwrap();
    let refused = |found: Reason| {
        let Reason::Integrity { detail } = &found else {
            panic!("{found:?}");
        };
        assert!(detail.contains("the image should be blake3:"), "{detail}");
    };
    refused(desk.reason());
    file.write_all_at(&byte, size - 5000).unwrap();
    // A shim that had no root is not asked again.
    assert_eq!(desk.stdout_of("cat /opt/own"), "of the image\n");
    file.set_len(size - 4096).unwrap();
    refused(desk.reason());
    fs::remove_file(&path).unwrap();
    refused(desk.reason());
}

/// Its digest is right, but it is not what `image import` builds.
fn foreign() {
    let mut desk = desk();
    let file = File::options()
        .read(true)
        .write(true)
        .open(&desk.image.source)
        .unwrap();
    // Its root directory's link count.
    file.write_all_at(&[77], 1152 + 44).unwrap();
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader(File::open(&desk.image.source).unwrap())
        .unwrap();
    desk.image.digest = Digest(*hasher.finalize().as_bytes());
    let found = desk.reason();
    let Reason::Engine { detail } = &found else {
        panic!("{found:?}");
    };
    assert!(
        detail.contains("not an image that `gleaner image import` built"),
        "{detail}"
    );
    assert!(!desk.unpacked().exists());
}
