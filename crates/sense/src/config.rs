//! Where the sources look. Every root can point at a tree of a test.

use crate::own::OwnTime;
use std::path::PathBuf;

/// What is sensed, and where. A root that is `None` switches its sources off: they are absent.
#[derive(Debug, Clone)]
pub struct SenseConfig {
    /// The kernel's process file system: load, memory, pressure.
    pub proc: Option<PathBuf>,
    /// The kernel's device file system: power, heat, kinds of input devices.
    pub sys: Option<PathBuf>,
    /// Device nodes: `input/event*`, `pts/*`, `tty*`.
    pub dev: Option<PathBuf>,
    /// Where control groups of version 2 are mounted: the owner's pressure without ours.
    pub groups: Option<PathBuf>,
    /// Address of the system's message bus, as in `DBUS_SYSTEM_BUS_ADDRESS`.
    pub system_bus: Option<String>,
    /// Where processes of the owners' desktops report to: a socket that is made here, with its
    /// directory. Of agents that share a PC only one may have it.
    pub session_socket: Option<PathBuf>,
    /// A directory on the disk whose free space is told.
    pub disk: Option<PathBuf>,
    /// Processor time of our tasks.
    pub own: OwnTime,
    /// Whether the session manager is asked to wait a moment before it suspends the PC, so that
    /// tasks can be frozen in order.
    pub delay_sleep: bool,
}

/// The system's bus where nothing else is said (D-Bus Specification, "Well-known Message Bus
/// Instances").
const SYSTEM_BUS: &str = "unix:path=/var/run/dbus/system_bus_socket";

impl SenseConfig {
    /// Everything this PC has.
    #[must_use]
    pub fn this_pc() -> Self {
        let unified = PathBuf::from("/sys/fs/cgroup/unified");
        let groups = match unified.is_dir() {
            true => unified,
            false => PathBuf::from("/sys/fs/cgroup"),
        };
        let bus = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok();
        Self {
            proc: Some(PathBuf::from("/proc")),
            sys: Some(PathBuf::from("/sys")),
            dev: Some(PathBuf::from("/dev")),
            groups: Some(groups),
            system_bus: Some(bus.unwrap_or_else(|| SYSTEM_BUS.to_owned())),
            session_socket: None,
            disk: None,
            own: OwnTime::Nothing,
            delay_sleep: true,
        }
    }

    /// Nothing at all: every source is absent.
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            proc: None,
            sys: None,
            dev: None,
            groups: None,
            system_bus: None,
            session_socket: None,
            disk: None,
            own: OwnTime::Nothing,
            delay_sleep: false,
        }
    }

    /// Where an agent listens for the owners' desktops by convention, which is where
    /// [`crate::user_session`] looks: `/run/gleaner` for a system service, else the user's own
    /// run-time directory.
    #[must_use]
    pub fn usual_session_socket() -> Option<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Some(PathBuf::from("/run/gleaner/session.sock"));
        }
        let run = std::env::var_os("XDG_RUNTIME_DIR")?;
        Some(PathBuf::from(run).join("gleaner/session.sock"))
    }
}
