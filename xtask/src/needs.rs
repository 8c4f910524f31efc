//! Everything that suites and the demo have to find installed: one table, by package.

use crate::debian::Need;

pub(crate) const POVRAY: Need = Need {
    program: "povray",
    package: "povray",
    purpose: "the program that renders the picture",
};

pub(crate) const PERL: Need = Need {
    program: "perl",
    package: "perl",
    purpose: "the recipes' programs",
};

pub(crate) const PYTHON: Need = Need {
    program: "python3",
    package: "python3",
    purpose: "the recipe that drives a word processor",
};

pub(crate) const MKFS: Need = Need {
    program: "mkfs.ext4",
    package: "e2fsprogs",
    purpose: "the guest's disk",
};

pub(crate) const BUSYBOX: Need = Need {
    program: "/usr/bin/busybox",
    package: "busybox-static",
    purpose: "the programs of the tests' images",
};

pub(crate) const GUEST: Need = Need {
    program: "linux.uml",
    package: "user-mode-linux",
    purpose: "a guest with control groups of version 2",
};

pub(crate) const EROFS: Need = Need {
    program: "mkfs.erofs",
    package: "erofs-utils",
    purpose: "the guests' base image",
};

/// Programs for the engines' tests: what some of them call, and what compiles those of
/// WebAssembly.
pub(crate) const PROGRAMS: &[Need] = &[
    PERL,
    BUSYBOX,
    Need {
        program: "clang",
        package: "clang",
        purpose: "the compiler of WebAssembly programs",
    },
    Need {
        program: "wasm-ld",
        package: "lld",
        purpose: "the linker of WebAssembly programs",
    },
    Need {
        program: "/usr/lib/wasm32-wasi/libc.a",
        package: "wasi-libc",
        purpose: "the C library of WebAssembly programs",
    },
    Need {
        program: "/usr/share/doc/libclang-rt-dev-wasm32",
        package: "libclang-rt-dev-wasm32",
        purpose: "the compiler's own functions for WebAssembly",
    },
];

/// What the sensors' tests sense: a message bus with mocked services, displays without screens.
pub(crate) const PEERS: &[Need] = &[
    Need {
        program: "dbus-daemon",
        package: "dbus-daemon",
        purpose: "a private message bus",
    },
    Need {
        program: "/usr/lib/python3/dist-packages/dbusmock/__init__.py",
        package: "python3-dbusmock",
        purpose: "mocks of the session manager and the network manager",
    },
    Need {
        program: "Xvfb",
        package: "xvfb",
        purpose: "an X display without a screen",
    },
    Need {
        program: "xdotool",
        package: "xdotool",
        purpose: "keys pressed in the X display",
    },
    Need {
        program: "sway",
        package: "sway",
        purpose: "a Wayland compositor without a screen",
    },
    Need {
        program: "foot",
        package: "foot",
        purpose: "a window in the Wayland compositor",
    },
    Need {
        program: "wtype",
        package: "wtype",
        purpose: "keys pressed in the Wayland compositor",
    },
];

/// The machine that a kernel of the distribution runs on, and such a kernel.
pub(crate) const QEMU: Need = Need {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
    purpose: "guests on a machine that can be saved",
};

pub(crate) const KERNEL: Need = Need {
    program: "/var/lib/dpkg/info/linux-image-cloud-amd64.list",
    package: "linux-image-cloud-amd64",
    purpose: "the kernel of guests under QEMU",
};
