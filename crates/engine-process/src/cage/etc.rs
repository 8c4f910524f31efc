//! What a cage sees of the PC, as data: each place with the reason why it is shown.
//!
//! Everything else is absent: no home, no /var, no /run, no /opt (where an owner keeps licensed
//! and private programs; an administrator may add places by configuration).

/// How a place comes into the cage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// The host's directory, read-only, with all below it.
    Bind,
    /// A copy made when the bundle starts: small files.
    Copy,
}

/// One place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) path: &'static str,
    pub(crate) show: Show,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader and the test"))]
    pub(crate) reason: &'static str,
}

const fn bind(path: &'static str, reason: &'static str) -> Place {
    Place {
        path,
        show: Show::Bind,
        reason,
    }
}

const fn copy(path: &'static str, reason: &'static str) -> Place {
    Place {
        path,
        show: Show::Copy,
        reason,
    }
}

/// Top-level directories of the userland. Where the host has a link (`/bin` to `usr/bin`), the
/// cage gets the same link.
pub(crate) const USERLAND: &[Place] = &[
    bind("usr", "programs, libraries and their data"),
    bind("bin", "programs, on hosts that keep them apart from /usr"),
    bind("sbin", "as /bin"),
    bind("lib", "libraries and the loader, as /bin"),
    bind("lib32", "as /lib"),
    bind("lib64", "the loader's path is part of every program"),
    bind("libx32", "as /lib"),
];

/// What common programs read in /etc. Nothing with secrets, addresses or people's names.
pub(crate) const ETC: &[Place] = &[
    bind("alternatives", "links of /usr/bin lead through it"),
    bind(
        "ssl/certs",
        "certificates, for programs that check signatures",
    ),
    bind("pki/tls/certs", "as ssl/certs, elsewhere"),
    bind("ca-certificates", "as ssl/certs, elsewhere"),
    bind("fonts", "plots and rendered text"),
    bind("java-11-openjdk", "the runtime's own settings"),
    bind("java-17-openjdk", "the runtime's own settings"),
    bind("java-21-openjdk", "the runtime's own settings"),
    bind("java-25-openjdk", "the runtime's own settings"),
    bind("java", "the runtime's own settings, elsewhere"),
    bind("povray", "the renderer's own settings"),
    bind("ImageMagick-6", "the tools' own limits"),
    bind("ImageMagick-7", "the tools' own limits"),
    bind("R", "the interpreter's own settings"),
    bind("perl", "the interpreter's own settings"),
    bind("python3", "the interpreter's own settings"),
    bind("OpenCL", "where drivers are"),
    bind("openmpi", "the library's own settings"),
    bind("magic", "file types"),
    bind("xml", "catalogues of document types"),
    bind("sgml", "catalogues of document types"),
    copy("ld.so.cache", "where the loader finds libraries"),
    copy("ld.so.conf", "where the loader looks"),
    bind("ld.so.conf.d", "where the loader looks"),
    copy("localtime", "the time zone of written dates"),
    copy("timezone", "the time zone's name"),
    copy("os-release", "which distribution this is"),
    copy("debian_version", "which distribution this is"),
    copy("locale.alias", "names of locales"),
    copy("mime.types", "file types"),
    copy("magic.mime", "file types"),
    copy("services", "names of ports"),
    copy("protocols", "names of protocols"),
    copy("ethertypes", "names of protocols"),
    copy("ssl/openssl.cnf", "the library's own settings"),
    copy("inputrc", "line editing of interpreters"),
    copy("mailcap", "which program shows what"),
    copy("papersize", "page size of printed output"),
    copy("gai.conf", "order of addresses"),
    copy("host.conf", "order of look-ups"),
    copy("login.defs", "read by user tools"),
    copy("shells", "read by user tools"),
    copy("bash.bashrc", "shells read it"),
    copy("profile", "shells read it"),
    copy("environment", "shells read it"),
];

/// Devices of every program; none of them reaches hardware.
pub(crate) const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Links in /dev: name, target.
pub(crate) const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Parts of /sys that run-time libraries size their thread pools by.
pub(crate) const SYS: &[Place] = &[
    bind(
        "sys/devices/system/cpu",
        "how many processors, caches, clock rates",
    ),
    bind(
        "sys/devices/system/node",
        "which memory is near which processor",
    ),
];

/// Files of /proc that say or do something about the PC as a whole. /proc is mounted read-only,
/// so nothing can be set; these cannot be read either.
pub(crate) const PROC_HIDDEN: [&str; 9] = [
    // Memory of the kernel.
    "/proc/kcore",
    // Keys of the owner's sessions.
    "/proc/keys",
    "/proc/key-users",
    // Commands to the kernel.
    "/proc/sysrq-trigger",
    // What every other process waits for.
    "/proc/timer_list",
    "/proc/sched_debug",
    // Addresses in the kernel.
    "/proc/kallsyms",
    "/proc/modules",
    // Counts of key strokes and mouse moves.
    "/proc/interrupts",
];

/// The name lookup order: files only, since there is no network and no daemon.
pub(crate) const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n\
    networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n";

/// Name of the PC in the cage.
pub(crate) const HOST_NAME: &str = "task";

/// The only names that resolve.
pub(crate) const HOSTS: &str = "127.0.0.1 localhost task\n::1 localhost ip6-localhost\n";

/// Accounts of the cage: the task's own, and those that host files seem to belong to.
pub(crate) fn passwd(first: u32, count: u32) -> String {
    let mut text = String::from("root:x:0:0:root:/:/usr/sbin/nologin\n");
    for at in 0..count {
        let (name, id) = (account(at), first + at);
        let line = format!("{name}:x:{id}:{id}:task:/scratch:/bin/sh\n");
        text.push_str(&line);
    }
    text + "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
}

/// Groups of the cage, one for each account.
pub(crate) fn group(first: u32, count: u32) -> String {
    let mut text = String::from("root:x:0:\n");
    for at in 0..count {
        let line = format!("{}:x:{}:\n", account(at), first + at);
        text.push_str(&line);
    }
    text + "nogroup:x:65534:\n"
}

fn account(at: u32) -> String {
    if at == 0 {
        "task".to_owned()
    } else {
        format!("task{at}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_reason_and_stays_below_its_root() {
        for place in USERLAND.iter().chain(ETC).chain(SYS) {
            assert!(place.reason.len() > 5, "{}", place.path);
            assert!(!place.path.starts_with('/') && !place.path.contains(".."));
        }
    }

    #[test]
    fn no_account_of_a_cage_but_root_by_name_has_id_0() {
        for line in passwd(1000, 3).lines().skip(1) {
            let id = line.split(':').nth(2).unwrap();
            assert_ne!(id, "0", "{line}");
        }
        assert!(group(1000, 2).contains("task1:x:1001:\n"));
    }
}
