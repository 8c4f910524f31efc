//! QEMU: a machine of a type with a version, two disks, one port for the channel, a balloon that
//! gives free pages back by itself, and nothing else. Source: "QEMU User Documentation",
//! Invocation.
//!
//! It confines itself once more by its own filter, which also refuses to run programs.

use super::{Call, GUEST_DIR, Handed, devices};
use crate::task::{Accelerator, GuestTask, Machine};

/// In the host's userland, which the cage shows.
const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";

/// Devices that this type of machine would have and no task needs.
const LEFT_OUT: &str = "hpet=off,vmport=off,smbus=off,sata=off,usb=off,graphics=off,\
                        dump-guest-core=off";

/// Room for translated code, in MiB: it comes on top of the guest's memory.
const TRANSLATED_MIB: u32 = 64;

/// What the guest's kernel is told besides its devices. Nobody else is in the guest whom the
/// costly guards of a processor would keep apart; and one that was frozen must not take the gap
/// for a fault of its own.
const KERNEL: [&str; 9] = [
    "console=ttyS0",
    "quiet",
    "panic=-1",
    "reboot=t",
    "rdinit=/init",
    "random.trust_cpu=on",
    "mitigations=off",
    "nowatchdog",
    "rcupdate.rcu_cpu_stall_suppress=1",
];

/// Devices, each in its place: one that was saved looks for them there. The kernel numbers the
/// port by the place of its bus, hence the first.
const DEVICES: [&str; 5] = [
    "virtio-serial-pci,id=ports,max_ports=2,addr=0x2",
    "virtio-blk-pci,drive=base,addr=0x3",
    "virtio-blk-pci,drive=scratch,addr=0x4",
    "virtserialport,bus=ports.0,nr=1,chardev=channel,name=gleaner",
    "virtio-balloon-pci,free-page-reporting=on,addr=0x5",
];

/// The machine, with our ends' other ends by number.
pub(super) fn call(task: &GuestTask, handed: &Handed) -> Call {
    let machine = &task.machine;
    let append: Vec<String> = KERNEL
        .iter()
        .map(|word| (*word).to_owned())
        .chain(clock(machine))
        .chain(devices("vd", "/dev/vport0p1"))
        .collect();
    let mut words = vec![
        ("-M", format!("{},{LEFT_OUT}", machine.kind)),
        ("-accel", accelerator(machine)),
        ("-cpu", machine.cpu.clone()),
        ("-smp", "1".to_owned()),
        ("-m", format!("{}M", task.guest_mib)),
        ("-sandbox", sandbox()),
        ("-display", "none".to_owned()),
        ("-kernel", format!("{GUEST_DIR}/kernel-qemu")),
        ("-initrd", format!("{GUEST_DIR}/initramfs-qemu")),
        ("-append", append.join(" ")),
        // What the kernel says goes where our own last words go.
        ("-chardev", "file,id=console,path=/dev/stdout".to_owned()),
        ("-serial", "chardev:console".to_owned()),
        (
            "-chardev",
            format!("socket,id=channel,fd={}", handed.channel),
        ),
        (
            "-drive",
            format!(
                "if=none,id=base,format=raw,readonly=on,file.locking=off,file={GUEST_DIR}/base.img"
            ),
        ),
        // Goes with the attempt: nothing of it need reach the disk before its end. A write that the
        // PC has no room for is the kernel's error, which we hear; by itself QEMU would stand still.
        (
            "-drive",
            "if=none,id=scratch,format=raw,cache=unsafe,discard=unmap,file.locking=off,\
             werror=report,rerror=report,file=/dev/fdset/1"
                .to_owned(),
        ),
    ];
    words.extend(DEVICES.map(|device| ("-device", device.to_owned())));
    for disk in handed.disk {
        words.push(("-add-fd", format!("set=1,fd={disk}")));
    }
    words.push(("-chardev", format!("socket,id=line,fd={}", handed.line)));
    words.push(("-mon", "chardev=line,mode=control".to_owned()));
    if let Some(file) = handed.incoming {
        words.push(("-incoming", format!("fd:{file}")));
    }
    let mut arguments = vec!["-nodefaults", "-no-user-config", "-no-reboot"];
    arguments.extend(
        words
            .iter()
            .flat_map(|(name, value)| [*name, value.as_str()]),
    );
    Call {
        program: PROGRAM.to_owned(),
        arguments: arguments.into_iter().map(str::to_owned).collect(),
    }
}

fn accelerator(machine: &Machine) -> String {
    match machine.accelerator {
        Accelerator::Kvm => "kvm".to_owned(),
        Accelerator::Uml | Accelerator::Tcg => format!("tcg,tb-size={TRANSLATED_MIB}"),
    }
}

/// The processor's counter of ticks is the host's under translation, and runs at another rate
/// after a move; the machine's own timer does not. The kernel must not try that one out either: on a
/// PC that has no time for it right then it would take it for broken, and give up.
fn clock(machine: &Machine) -> Vec<String> {
    let words: &[&str] = match machine.accelerator {
        Accelerator::Tcg => &["tsc=unstable", "clocksource=acpi_pm", "no_timer_check"],
        Accelerator::Kvm | Accelerator::Uml => &[],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn sandbox() -> String {
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned()
}
