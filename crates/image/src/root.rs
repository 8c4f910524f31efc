//! What makes a tree the root of a task: the places where engines put what is theirs, and the
//! few files of `/etc` that say who and where the task is.

use crate::tree::{Node, Tree, What};
use crate::{Content, ImageError};

/// Directories that engines fill; whatever a source has there is left out.
const FILLED: [&str; 6] = ["proc", "dev", "sys", "run", "scratch", ".outside"];

/// Temporary files lie in scratch and count with it.
const TEMPORARY: [&str; 2] = ["tmp", "var/tmp"];
const TEMPORARY_TARGET: &[u8] = b"/scratch/.tmp";

/// User ids that tasks may have.
const USERS: std::ops::Range<u32> = 1000..1064;

/// Whether a source's top-level directory is left out as a whole.
pub(crate) fn is_filled(name: &[u8]) -> bool {
    name == b"tmp" || FILLED.iter().any(|filled| filled.as_bytes() == name)
}

fn etc() -> [(&'static str, String); 5] {
    let users = USERS.map(|id| format!("task{id}:x:{id}:{id}:task:/scratch:/bin/sh\n"));
    let groups = USERS.map(|id| format!("task{id}:x:{id}:\n"));
    let nobody = "nobody:x:65534:65534:nobody:/:/bin/false\n";
    [
        (
            "etc/passwd",
            format!(
                "root:x:0:0:root:/:/bin/false\n{}{nobody}",
                users.collect::<String>()
            ),
        ),
        (
            "etc/group",
            format!(
                "root:x:0:\n{}nogroup:x:65534:\n",
                groups.collect::<String>()
            ),
        ),
        ("etc/hostname", "task\n".to_owned()),
        (
            "etc/hosts",
            "127.0.0.1 localhost task gleaner\n::1 localhost ip6-localhost\n".to_owned(),
        ),
        (
            "etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n".to_owned(),
        ),
    ]
}

fn link(target: &[u8]) -> Node {
    Node {
        mtime: 0,
        what: What::Link(target.to_vec()),
    }
}

impl Tree {
    /// A root that no source brought anything to, for trying out what mounts images.
    ///
    /// # Errors
    /// None in practice: it is small.
    pub fn without_source() -> Result<Self, ImageError> {
        let mut tree = Self::new(1 << 20);
        complete(&mut tree)?;
        Ok(tree)
    }
}

/// Completes a tree that has what a source brought.
pub(crate) fn complete(tree: &mut Tree) -> Result<(), ImageError> {
    let wrong = |path: &str| crate::entry(path.as_bytes());
    // As a layer of its own: what it clears is what the source brought.
    tree.begin_layer();
    for place in FILLED {
        // Twice: whatever is no directory is replaced by one.
        tree.put(place.as_bytes(), link(b"."))
            .and_then(|_| tree.put_dir(place.as_bytes()))
            .map_err(wrong(place))?;
    }
    for place in ["etc", "var", "home"] {
        let known = tree.find(place).and_then(|id| tree.node(id));
        if !known.is_some_and(|node| matches!(node.what, What::Dir(_))) {
            tree.put_dir(place.as_bytes()).map_err(wrong(place))?;
        }
    }
    for place in TEMPORARY {
        tree.put(place.as_bytes(), link(TEMPORARY_TARGET))
            .map_err(wrong(place))?;
    }
    for (path, text) in etc() {
        let what = What::File {
            content: Content::memory(text),
            program: false,
        };
        tree.put(path.as_bytes(), Node { mtime: 0, what })
            .map_err(wrong(path))?;
    }
    tree.put(b"etc/mtab", link(b"/proc/self/mounts"))
        .map_err(wrong("etc/mtab"))?;
    Ok(())
}

/// Whether engines find their places in a tree that was read.
pub(crate) fn check(tree: &Tree) -> Result<(), ImageError> {
    let what = |path: &str| Some(&tree.node(tree.find(path)?)?.what);
    let empty = |path: &&str| matches!(what(path), Some(What::Dir(inside)) if inside.is_empty());
    let linked =
        |path: &&str| matches!(what(path), Some(What::Link(target)) if target == TEMPORARY_TARGET);
    let lacking = FILLED.iter().find(|place| !empty(place));
    let lacking = lacking.or_else(|| TEMPORARY.iter().find(|place| !linked(place)));
    match lacking {
        Some(place) => Err(ImageError::Foreign(format!(
            "/{place} is not as it should be"
        ))),
        None => Ok(()),
    }
}
