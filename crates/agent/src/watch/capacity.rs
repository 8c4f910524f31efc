//! What the PC has, and how much of it tasks may use. Reads /proc and the file system once.

use crate::AgentError;
use crate::config::{AgentConfig, DevShare};
use gleaner_model::{Bytes, Cpus};
use std::path::Path;

/// Memory kept from tasks, as a divisor of all: the owner's programs need it more than a task.
const MEMORY_RESERVE: u64 = 8;

/// And at least this much, in bytes: a desktop with a browser.
const MEMORY_RESERVE_MIN: u64 = 512 << 20;

/// Free disk kept from tasks, as a divisor.
const DISK_RESERVE: u64 = 10;

/// Share of the free disk that cached blobs may take, as a divisor, and the most, in bytes.
const CACHE_SHARE: u64 = 10;
const CACHE_MAX: u64 = 20 << 30;

/// Memory that each node of `gleaner dev` offers at least, in bytes, if the PC has it: a task
/// with the default limit must fit. Limits are no reservations, so the sum may exceed the PC.
const DEV_MEMORY_MIN: u64 = (2 << 30) + (64 << 20);

/// What a node offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) cpus: Cpus,
    pub(crate) memory: Bytes,
    pub(crate) disk: Bytes,
    /// Most bytes of cached blobs.
    pub(crate) cache: Bytes,
}

/// What a PC has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    processors: u32,
    memory: u64,
    disk_free: u64,
}

/// Processors of the whole PC.
pub(crate) fn processors() -> Cpus {
    let count = std::thread::available_parallelism()
        .ok()
        .and_then(|count| u32::try_from(count.get()).ok())
        .unwrap_or(1);
    Cpus {
        milli: count.saturating_mul(1000),
    }
}

/// What this node offers: what its settings say, else what was found minus a reserve.
pub(crate) fn offer(config: &AgentConfig, home: &Path) -> Result<Offer, AgentError> {
    let found = Found {
        processors: processors().milli / 1000,
        memory: memory_total()?,
        disk_free: disk_free(home)?,
    };
    Ok(share(config, found))
}

fn share(config: &AgentConfig, found: Found) -> Offer {
    let nodes = config.dev.as_ref().map_or(1, |dev: &DevShare| dev.nodes);
    // At least one whole processor each, or a task that asks for one would run nowhere.
    let cpus = Cpus {
        milli: (found.processors / nodes).max(1).saturating_mul(1000),
    };
    let reserve = (found.memory / MEMORY_RESERVE).max(MEMORY_RESERVE_MIN);
    let all = found.memory.saturating_sub(reserve).max(found.memory / 2);
    let memory = match nodes {
        1 => all,
        _ => (all / u64::from(nodes)).max(DEV_MEMORY_MIN.min(all)),
    };
    let disk = (found.disk_free - found.disk_free / DISK_RESERVE) / u64::from(nodes);
    let cache = (disk / CACHE_SHARE).min(CACHE_MAX);
    Offer {
        cpus: config.cpus.unwrap_or(cpus),
        memory: config.memory.unwrap_or(Bytes(memory)),
        disk: config.disk.unwrap_or(Bytes(disk - cache)),
        cache: config.cache.unwrap_or(Bytes(cache)),
    }
}

fn memory_total() -> Result<u64, AgentError> {
    let path = Path::new("/proc/meminfo");
    let text = std::fs::read_to_string(path).map_err(AgentError::io("read", path))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| AgentError::Setting {
            setting: "memory",
            problem: "cannot be found out on this PC; set it".to_owned(),
        })
}

fn disk_free(home: &Path) -> Result<u64, AgentError> {
    let stat = rustix::fs::statvfs(home)
        .map_err(|errno| AgentError::io("ask the size of", home)(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The PC's name and architecture, as `uname` says them.
pub(crate) fn uname() -> (String, String) {
    let uname = rustix::system::uname();
    let text = |word: &std::ffi::CStr| word.to_string_lossy().into_owned();
    (text(uname.nodename()), text(uname.machine()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Token;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_owner_keeps_a_reserve_and_dev_nodes_divide_the_pc() {
        let big = Found {
            processors: 16,
            memory: 64 * GIB,
            disk_free: 1000 * GIB,
        };
        let small = Found {
            processors: 2,
            memory: 4 * GIB,
            disk_free: 20 * GIB,
        };
        for (found, nodes, cpus, memory) in [
            (big, 1, 16_000, 56 * GIB),
            (big, 4, 4000, 14 * GIB),
            (small, 1, 2000, 3584 << 20),
            // More nodes than processors: each still has one, and room for a default task.
            (small, 3, 1000, DEV_MEMORY_MIN),
        ] {
            let mut config = AgentConfig::new("https://pool", Token::new(""), "/nowhere".into());
            config.dev = (nodes > 1).then(|| DevShare::new(nodes));
            let offer = share(&config, found);
            assert_eq!((offer.cpus.milli, offer.memory.0), (cpus, memory));
            assert!((offer.disk.0 + offer.cache.0) * u64::from(nodes) < found.disk_free);
        }
    }

    #[test]
    fn settings_win_and_the_pc_can_be_read() {
        let mut config = AgentConfig::new("https://pool", Token::new(""), "/nowhere".into());
        config.cpus = Some(Cpus { milli: 1500 });
        let offer = offer(&config, Path::new("/")).unwrap();
        assert_eq!(offer.cpus.milli, 1500);
        assert!(offer.memory.0 > 64 << 20);
        let (_, machine) = uname();
        assert!(!machine.is_empty());
    }
}
