//! Which disk a directory lies on: bandwidth limits name it by its numbers.

use super::files;
use std::fs;
use std::path::Path;

/// What lies under a path, for limits on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// A file system in memory: there is no disk to limit.
    Memory,
    /// A whole disk.
    Disk { major: u32, minor: u32 },
    /// No single disk can be named (btrfs, network, stacked file systems).
    Unknown,
}

impl Device {
    /// The whole disk under a path.
    pub(super) fn under(path: &Path) -> Self {
        const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6]; // tmpfs, ramfs
        let in_memory = |stat: &rustix::fs::StatFs| MEMORY_FILE_SYSTEMS.contains(&stat.f_type);
        if rustix::fs::statfs(path).is_ok_and(|stat| in_memory(&stat)) {
            return Self::Memory;
        }
        let Ok(stat) = rustix::fs::stat(path) else {
            return Self::Unknown;
        };
        let (major, minor) = (
            rustix::fs::major(stat.st_dev),
            rustix::fs::minor(stat.st_dev),
        );
        Self::whole_disk(Path::new("/sys/dev/block"), major, minor)
    }

    /// Limits hold on disks, not on their partitions.
    fn whole_disk(sys: &Path, major: u32, minor: u32) -> Self {
        let entry = sys.join(format!("{major}:{minor}"));
        if major == 0 || !entry.exists() {
            return Self::Unknown;
        }
        if !entry.join("partition").exists() {
            return Self::Disk { major, minor };
        }
        let parent = fs::canonicalize(&entry)
            .ok()
            .and_then(|dir| files::read(&dir.parent()?.join("dev")).ok());
        let numbers = parent.as_deref().and_then(|text| {
            let (major, minor) = text.trim().split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        numbers.map_or(Self::Unknown, |(major, minor)| Self::Disk { major, minor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_leads_to_its_disk() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let disk = dir.join("devices/vda");
        fs::create_dir_all(disk.join("vda1")).unwrap();
        fs::write(disk.join("dev"), "254:0\n").unwrap();
        fs::write(disk.join("vda1/partition"), "1\n").unwrap();
        fs::create_dir_all(dir.join("block")).unwrap();
        std::os::unix::fs::symlink(&disk, dir.join("block/254:0")).unwrap();
        std::os::unix::fs::symlink(disk.join("vda1"), dir.join("block/254:1")).unwrap();
        let whole = Device::Disk {
            major: 254,
            minor: 0,
        };
        let block = dir.join("block");
        assert_eq!(Device::whole_disk(&block, 254, 1), whole);
        assert_eq!(Device::whole_disk(&block, 254, 0), whole);
        assert_eq!(Device::whole_disk(&block, 254, 7), Device::Unknown);
        assert_eq!(
            Device::whole_disk(&block, 0, 33),
            Device::Unknown,
            "btrfs and the like"
        );
    }

    #[test]
    fn proc_is_no_disk() {
        assert_eq!(Device::under(Path::new("/proc/self")), Device::Unknown);
        assert_eq!(Device::under(Path::new("/nowhere")), Device::Unknown);
    }
}
