//! The first file system, as the archive that kernels unpack: "newc" of cpio(5), described in
//! the kernel's document "initramfs buffer format". Written here, so that device nodes need no
//! rights and the same content gives the same bytes.

/// Kinds, as in `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_000;

/// An archive is padded to whole blocks of this size, in bytes.
const BLOCK: usize = 512;

struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

/// Process 1 and its drivers, each with its name, and the list of them in the order of loading.
pub(super) fn initramfs(program: &[u8], drivers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive {
        bytes: Vec::new(),
        files: 0,
    };
    for dir in ["dev", "proc", "disk", "root", "cgroup", "modules"] {
        archive.add(dir, DIRECTORY | 0o755, (0, 0), &[]);
    }
    // Process 1 begins with these open, before it has mounted anything.
    archive.add("dev/console", DEVICE | 0o600, (5, 1), &[]);
    archive.add("dev/null", DEVICE | 0o666, (1, 3), &[]);
    archive.add("init", FILE | 0o755, (0, 0), program);
    let order: String = drivers
        .iter()
        .map(|(name, _)| format!("{name}\n"))
        .collect();
    archive.add("modules/order", FILE | 0o644, (0, 0), order.as_bytes());
    for (name, content) in drivers {
        let name = format!("modules/{name}.ko");
        archive.add(&name, FILE | 0o644, (0, 0), content);
    }
    archive.finish()
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.files += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // Inode, mode, owner, group, links, time, size, device of the file, device that it is,
        // length of the name, checksum.
        let fields = [
            self.files, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").into_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend(content);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        let length = self.bytes.len().next_multiple_of(to);
        self.bytes.resize(length, 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), &[]);
        self.pad(BLOCK);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_format_says_and_always_the_same() {
        let make = || initramfs(b"12345", &[("d".to_owned(), b"x".to_vec())]);
        let archive = make();
        assert_eq!(archive, make());
        assert_eq!(archive.len() % BLOCK, 0);
        let text = String::from_utf8_lossy(&archive);
        let at = text.find("init\0").unwrap();
        let head = &text[at - 110..at];
        assert!(head.starts_with("070701"), "{head}");
        assert_eq!(&head[14..22], "000081ed", "mode");
        assert_eq!(&head[54..62], "00000005", "size");
        assert_eq!(&head[94..102], "00000005", "name");
        assert!(text[at..].contains("12345"));
        assert!(text.contains("modules/d.ko\0"));
        assert!(text.contains("TRAILER!!!\0"));
    }
}
