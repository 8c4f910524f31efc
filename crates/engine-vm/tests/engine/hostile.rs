//! A guest whose root is an enemy from its first instruction on: process 1 is a script of busybox's
//! shell, with all rights that its kernel gives. It tries what leads out, and says what it got.

use crate::guests::{kernels, until, with};
use gleaner_engine::conformance::Bench;
use gleaner_engine_vm::Accelerator;
use gleaner_engine_vm::image::Image;
use gleaner_model::Reason;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const BUSYBOX: &str = "/usr/bin/busybox";

/// A secret of the owner's, in a directory that everybody may read.
const SECRET: &str = "the owner's secret";

/// What every kernel has to have before anything can be tried.
const BEGIN: &str = "#!/bin/busybox sh\nB=/bin/busybox\n\
    $B mkdir -p /proc /sys /dev /mnt\n$B mount -t proc proc /proc\n\
    $B mount -t devtmpfs dev /dev\n$B mount -t sysfs sys /sys\n\
    while read m; do $B insmod /modules/$m.ko; done < /modules/order 2> /dev/null\n\
    for word in $($B cat /proc/cmdline); do case $word in\n\
      gl.root=*) root=${word#*=};; gl.scratch=*) scratch=${word#*=};;\n\
      gl.channel=*) channel=${word#*=};; esac; done\n\
    until [ -e $scratch ]; do $B sleep 0.1; done\n";

/// Tries the ways out one by one. The words end up in the reason of the attempt.
const TRIES: &str = "said=uid=$($B id -u)\n\
    can() { name=$1; shift; if \"$@\" > /dev/null 2>&1; then said=\"$said $name=yes\"; \
      else said=\"$said $name=no\"; fi; }\n\
    write() { echo spoiled > $1; }\n\
    can base $B dd if=/dev/zero of=$root bs=4096 count=8 conv=notrunc,fsync\n\
    said=\"$said net=$($B ls /sys/class/net | $B tr '\\n' ,)\"\n\
    for at in / ../ ../../ //; do $B mount -t hostfs none /mnt -o $at && break; done\n\
    can secret $B grep -q secret /mnt$SECRET\n\
    can shadow $B test -s /mnt/etc/shadow\n\
    can image write /mnt/run/guest/base.img\n\
    can usr write /mnt/usr/spoiled\n\
    can procs $B test -e /mnt/proc/1/root$SECRET\n\
    can scratch $B dd if=/dev/zero of=$scratch bs=4096 count=64 conv=notrunc\n\
    echo \"TRIED $said.\"\n$B sync\n$B poweroff -f\n$B sleep 1000\n";

/// Fills the channel with whatever comes.
const FLOOD: &str = "$B cat /dev/urandom > $channel\n$B sleep 1000\n";

/// Kills everything that it can see, and then goes on a fork spree.
const KILL: &str = "echo 1 > /proc/sys/kernel/sysrq\n$B kill -9 -1\n\
    f() { f | f & }; f\necho c > /proc/sysrq-trigger\n$B sleep 1000\n";

/// One file of an archive of the kind "newc", as in cpio(5).
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let size = content.len().try_into().unwrap();
    let name_size: u32 = (name.len() + 1).try_into().unwrap();
    archive.extend(b"070701");
    for field in [7, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        archive.extend(format!("{field:08x}").into_bytes());
    }
    archive.extend(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// The image with the enemy in the place of process 1: what comes later in an archive of archives
/// replaces what came before.
fn taken_over(image: &Image, dir: &Path, name: &str, script: &str) -> Image {
    const FILE: u32 = 0o100_755;
    let mut packed = fs::read(image.dir.join(name)).unwrap();
    packed.resize(packed.len().next_multiple_of(512), 0);
    entry(&mut packed, "bin", 0o40_755, &[]);
    entry(
        &mut packed,
        "bin/busybox",
        FILE,
        &fs::read(BUSYBOX).unwrap(),
    );
    entry(&mut packed, "init", FILE, script.as_bytes());
    entry(&mut packed, "TRAILER!!!", 0, &[]);
    with(image, dir, name, &packed)
}

/// Why the attempt on such a guest ended.
fn ended(image: &Image, accelerator: Accelerator, script: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let name = match accelerator {
        Accelerator::Uml => "initramfs",
        Accelerator::Kvm | Accelerator::Tcg => "initramfs-qemu",
    };
    let enemy = taken_over(image, dir.path(), name, script);
    let blobs = dir.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let bench = Bench::new(blobs, |events| {
        crate::engine(&enemy, &dir.path().join("engine"), accelerator, events)
    });
    let (ending, _) = bench.run(&bench.spec(&["true"]));
    assert!(
        matches!(ending.reason, Reason::Engine { .. }),
        "{:?}",
        ending.reason
    );
    // Nothing of it runs on, and the file that is everybody's root is what it was.
    until("no guest", || kernels().is_empty());
    let digest = |dir: &Path| blake3::hash(&fs::read(dir.join("base.img")).unwrap());
    assert_eq!(digest(&enemy.dir), digest(&image.dir), "{script}");
    ending.reason.to_string()
}

pub(crate) fn root_in_the_guest(image: &Image, accelerator: Accelerator) {
    let owner = tempfile::tempdir().unwrap();
    let secret = owner.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(owner.path(), readable).unwrap();
    let name = format!("SECRET={}\n", secret.display());
    let said = ended(image, accelerator, &[BEGIN, &name, TRIES].concat());
    // Its own disk it may spoil, since nobody else has it.
    let got = "TRIED uid=0 base=no net=lo, secret=no shadow=no image=no usr=no procs=no \
               scratch=yes.";
    assert!(said.contains(got), "{said}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
    assert!(!Path::new("/usr/spoiled").exists());
    // The next guest is none the wiser.
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(dir.path().to_owned(), |events| {
        crate::engine(image, &dir.path().join("engine"), accelerator, events)
    });
    let clean = bench.script("[ -z \"$(ls)\" ] && echo clean");
    assert_eq!(bench.stdout_of(&clean), "clean\n");
}

pub(crate) fn noise_from_the_guest(image: &Image) {
    let said = ended(image, Accelerator::Uml, &[BEGIN, FLOOD].concat());
    assert!(said.contains("make no sense"), "{said}");
    let said = ended(image, Accelerator::Uml, &[BEGIN, KILL].concat());
    assert!(
        said.contains("panic") || said.contains("ended by itself"),
        "{said}"
    );
}
