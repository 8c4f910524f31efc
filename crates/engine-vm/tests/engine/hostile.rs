//! A guest whose root is an enemy from its first instruction on: process 1 is a script of busybox's
//! shell, with all rights that its kernel gives. It tries what leads out, and says what it got.

use crate::guests::{kernels, until, with};
use gleaner_engine::conformance::{Bench, DEADLINE};
use gleaner_engine_vm::image::Image;
use gleaner_engine_vm::{Accelerator, VmConfig, VmEngine};
use gleaner_model::{Bytes, Reason};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

type Test = fn(&Image, Accelerator);

/// What guests are tried with whatever runs them.
pub(crate) const UNDER_QEMU_TOO: [(&str, Test); 3] = [
    (
        "root in the guest reaches nothing of the host's",
        root_in_the_guest,
    ),
    (
        "a guest that spoils its memory and devices is ended",
        spoilt_machine,
    ),
    (
        "root in the guest that starts another kernel, or the same anew, has ended its guest",
        another_kernel,
    ),
];

pub(crate) const TESTS: [(&str, Test); 5] = [
    UNDER_QEMU_TOO[0],
    UNDER_QEMU_TOO[1],
    UNDER_QEMU_TOO[2],
    (
        "whoever takes a guest's kernel over is in a cage",
        |image, _| kernel_taken_over(image),
    ),
    ("a guest that makes noise is ended", |image, _| {
        noise_from_the_guest(image);
    }),
];

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
    $B rmmod erofs; can module $B insmod /modules/erofs.ko\n\
    $B mkdir /base; $B mount -t erofs -o ro $root /base\n\
    $B mount -t devtmpfs dev /base/dev; can perl $B chroot /base /usr/bin/perl -e 1\n\
    can kexec $B chroot /base /usr/bin/perl -e \
      'exit(syscall(169, 0xfee1dead, 0x28121969, 0x45584543, 0) != 0)'\n\
    echo \"TRIED $said.\"\n$B sync\n$B poweroff -f\n$B sleep 1000\n";

/// Writes rubbish to whatever is a part of its machine: the devices' settings and memory, ports, and
/// all memory that there is. Somewhere on the way the guest is no more.
const SPOIL: &str = "$B mknod /dev/mem c 1 1\n$B mknod /dev/port c 1 4\n$B mknod /dev/kmem c 1 2\n\
    echo 1 > /proc/sys/kernel/sysrq\n\
    { $B sleep 4; echo c > /proc/sysrq-trigger; } &\n\
    rubbish() { $B dd if=/dev/urandom of=$1 bs=64k count=16 conv=notrunc $2; }\n\
    { for device in /sys/bus/pci/devices/*; do\n\
        for file in $device/resource* $device/rom $device/config; do rubbish $file; done\n\
        echo 1 > $device/remove; done; echo 1 > /sys/bus/pci/rescan\n\
      rubbish /dev/port; rubbish /dev/kmem; rubbish /proc/kcore\n\
      for at in 256 512 1024 16 0; do rubbish /dev/mem seek=$at; done; } > /dev/null 2>&1\n\
    echo c > /proc/sysrq-trigger\n$B sleep 1000\n";

/// Loads another kernel from a file that is one, and begins it.
const OTHER_KERNEL: &str = "$B mkdir /base; $B mount -t erofs -o ro $root /base\n\
    $B mount -t devtmpfs dev /base/dev\n\
    exec 7< /other\n\
    $B chroot /base /usr/bin/perl -e \
      '$line = \"console=ttyS0 panic=-1 root=/dev/nothing-of-ours\\0\"; \
       syscall(320, 7, -1, length($line), $line, 4) == 0 or exit $!'\n\
    said=$?\n\
    [ $said = 0 ] && $B chroot /base /usr/bin/perl -e \
      'syscall(169, 0xfee1dead, 0x28121969, 0x45584543, 0)'\n\
    echo \"TRIED refused=$said.\"\n$B sync\n$B poweroff -f\n$B sleep 1000\n";

/// Begins the machine anew.
const RESTART: &str = "echo TRIED nothing else.\n$B sync\n$B reboot -f\n$B sleep 1000\n";

/// Longest silence of such a guest: one whose kernel is broken stands still for ever.
const SPOILT_SILENCE: Duration = Duration::from_secs(20);

/// What a program with all rights that a guest's kernel has on the host tries: it stands in for a
/// kernel that its guest has taken over.
const TAKEN: &str = "said=; can() { name=$1; shift; if \"$@\" > /dev/null 2>&1; then \
      said=\"$said $name=yes\"; else said=\"$said $name=no\"; fi; }\n\
    write() { echo spoiled > $1; }\nread_from() { head -c 1 $1 | grep -q .; }\n\
    call() { perl -e 'exit(syscall(shift, map { $_ + 0 } @ARGV) < 0)' \"$@\"; }\n\
    can secret cat $SECRET\ncan shadow test -s /etc/shadow\n\
    can image write /run/guest/base.img\ncan usr write /usr/spoiled\n\
    can mem read_from /dev/mem\ncan kcore read_from /proc/kcore\ncan kvm test -e /dev/kvm\n\
    can node mknod /tmp/mem c 1 1\ncan mount mount -t tmpfs none /tmp\n\
    can hostfs test -e /proc/1/root$SECRET\n\
    can kexec call 246 0 0 0 0\ncan ports call 172 3\n\
    can reboot call 169 4276215469 672274793 0\n\
    echo \"TRIED$said.\"\nexit 0\n";

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
    if script.contains("/other") {
        let kernel = match name {
            "initramfs" => "kernel",
            _ => "kernel-qemu",
        };
        let kernel = fs::read(image.dir.join(kernel)).unwrap();
        entry(&mut packed, "other", FILE, &kernel);
    }
    entry(&mut packed, "TRAILER!!!", 0, &[]);
    with(image, dir, name, &packed)
}

/// Why the attempt on such a guest ended.
fn ended(image: &Image, accelerator: Accelerator, script: &str) -> String {
    ended_within(image, accelerator, script, None)
}

/// The same, with a bound of silence of its own.
fn ended_within(
    image: &Image,
    accelerator: Accelerator,
    script: &str,
    silence: Option<Duration>,
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let name = match accelerator {
        Accelerator::Uml => "initramfs",
        Accelerator::Kvm | Accelerator::Tcg => "initramfs-qemu",
    };
    let enemy = taken_over(image, dir.path(), name, script);
    let blobs = dir.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let bench = Bench::new(blobs, |events| {
        let usual = crate::config(&enemy, &dir.path().join("engine"), accelerator);
        let silence = silence.unwrap_or(usual.silence);
        VmEngine::new(VmConfig { silence, ..usual }, events).unwrap()
    });
    let mut spec = bench.spec(&["true"]);
    // A kernel that is loaded beside one that runs may have no more than half of all memory.
    let mib = if script.contains("/other") { 256 } else { 64 };
    spec.limits.memory = Bytes(mib << 20);
    let (ending, _) = bench.run(&spec);
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

fn root_in_the_guest(image: &Image, accelerator: Accelerator) {
    let (owner, name) = owners_secret();
    let secret = owner.path().join("secret");
    let said = ended(image, accelerator, &[BEGIN, &name, TRIES].concat());
    // Its own disk and its own kernel it may spoil, since nobody else has them.
    let got = "TRIED uid=0 base=no net=lo, secret=no shadow=no image=no usr=no procs=no \
               scratch=yes module=yes perl=yes kexec=no.";
    assert!(said.contains(got), "{said}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
    assert!(!Path::new("/usr/spoiled").exists());
    next_is_clean(image, accelerator);
}

/// A file that everybody may read, and the line that tells a script of it.
fn owners_secret() -> (TempDir, String) {
    let owner = tempfile::tempdir().unwrap();
    let secret = owner.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(owner.path(), readable).unwrap();
    let name = format!("SECRET={}\n", secret.display());
    (owner, name)
}

/// The next guest is none the wiser.
fn next_is_clean(image: &Image, accelerator: Accelerator) {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(dir.path().to_owned(), |events| {
        crate::engine(image, &dir.path().join("engine"), accelerator, events)
    });
    let clean = bench.script("[ -z \"$(ls)\" ] && echo clean");
    assert_eq!(bench.stdout_of(&clean), "clean\n");
}

fn spoilt_machine(image: &Image, accelerator: Accelerator) {
    let script = [BEGIN, SPOIL].concat();
    let said = ended_within(image, accelerator, &script, Some(SPOILT_SILENCE));
    let known = ["panic", "ended by itself", "was silent", "make no sense"];
    assert!(known.iter().any(|words| said.contains(words)), "{said}");
    assert!(!said.contains("gave up"), "{said}");
    // Another guest that is translated is seen after the tries above.
    if accelerator == Accelerator::Uml {
        next_is_clean(image, accelerator);
    }
}

fn another_kernel(image: &Image, accelerator: Accelerator) {
    let said = ended(image, accelerator, &[BEGIN, OTHER_KERNEL].concat());
    if accelerator == Accelerator::Uml {
        // A kernel that is a program has no such call: "function not implemented".
        assert!(said.contains("TRIED refused=38."), "{said}");
        let said = ended(image, accelerator, &[BEGIN, RESTART].concat());
        assert!(
            said.contains("ended by itself") && said.contains("TRIED nothing"),
            "{said}"
        );
        return;
    }
    // It runs, in the same machine with the same two disks, finds no root and gives up. Whoever could
    // have said that it was refused was gone by then.
    assert!(said.contains("Kernel panic"), "{said}");
    assert!(!said.contains("TRIED"), "{said}");
}

/// No kernel at all: a program in its place.
fn kernel_taken_over(image: &Image) {
    let (owner, name) = owners_secret();
    let dir = tempfile::tempdir().unwrap();
    let script = ["#!/bin/bash\n", &name, TAKEN].concat();
    let enemy = with(image, dir.path(), "kernel", script.as_bytes());
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(enemy.dir.join("kernel"), executable).unwrap();
    let said = crate::guests::reason_on(&enemy, DEADLINE).to_string();
    let got = "TRIED secret=no shadow=no image=no usr=no mem=no kcore=no kvm=no node=no mount=no \
               hostfs=no kexec=no ports=no reboot=no.";
    assert!(said.contains(got), "{said}");
    let secret = fs::read_to_string(owner.path().join("secret"));
    assert_eq!(secret.unwrap(), SECRET);
}

fn noise_from_the_guest(image: &Image) {
    let said = ended(image, Accelerator::Uml, &[BEGIN, FLOOD].concat());
    assert!(said.contains("make no sense"), "{said}");
    let said = ended(image, Accelerator::Uml, &[BEGIN, KILL].concat());
    assert!(
        said.contains("panic") || said.contains("ended by itself"),
        "{said}"
    );
}
