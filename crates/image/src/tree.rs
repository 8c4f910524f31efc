//! The tree of an image while it is put together: names, links and contents, in memory only.
//!
//! Layers are applied here and not on a disk, so a hostile archive has nothing to trick: a path
//! that leads through a link is followed within the tree or is an error.

use crate::{Content, ENTRIES_MAX};
use std::collections::{BTreeMap, VecDeque};

/// Longest name and path in bytes, as Linux has them.
const NAME_BYTES_MAX: usize = 255;
pub(crate) const PATH_BYTES_MAX: usize = 4095;

/// Deepest directory: what a path of the longest kind could hardly use.
const DEPTH_MAX: usize = 256;

/// Links followed for one path, as Linux bounds it.
const FOLLOWED_MAX: usize = 40;

/// The root's number.
pub(crate) const ROOT: usize = 0;

/// One file, directory or link.
#[derive(Debug, Clone)]
pub struct Node {
    /// Seconds since 1970. Directories have none: theirs depends on how an image was put together.
    pub mtime: u64,
    /// What it is.
    pub what: What,
}

/// What a name stands for. There is nothing else in an image: no device, no pipe, no owner but
/// root, no right that one user has and another has not.
#[derive(Debug, Clone)]
pub enum What {
    /// Numbers of its nodes by name.
    Dir(BTreeMap<Vec<u8>, usize>),
    /// A file, and whether it may be executed.
    File {
        /// Its bytes.
        content: Content,
        /// Whether it may be executed.
        program: bool,
    },
    /// A symbolic link.
    Link(Vec<u8>),
}

/// A tree of nodes; the first is the root.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// Nodes below this number came from layers before the current one.
    layer: usize,
    bytes: u64,
    bytes_max: u64,
}

/// What is wrong with an entry, in words; whoever calls knows its name.
type Problem = String;

fn dir() -> Node {
    Node {
        mtime: 0,
        what: What::Dir(BTreeMap::new()),
    }
}

/// A path of an archive as names; those that lead elsewhere are refused.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    if path.starts_with(b"/") {
        return Err("is an absolute path; make the archive from inside the directory".into());
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("is longer than {PATH_BYTES_MAX} bytes"));
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("leads out of its directory by `..`".into()),
            name => {
                name_problem(name).map_or(Ok(()), Err)?;
                parts.push(name);
            }
        }
    }
    match parts.len() > DEPTH_MAX {
        true => Err(format!("lies deeper than {DEPTH_MAX} directories")),
        false => Ok(parts),
    }
}

/// Why this cannot be the name of an entry.
pub(crate) fn name_problem(name: &[u8]) -> Option<Problem> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        Some("is no name".into())
    } else if name.contains(&0) {
        Some("has a NUL byte in its name".into())
    } else if name.len() > NAME_BYTES_MAX {
        Some(format!("has a name of more than {NAME_BYTES_MAX} bytes"))
    } else {
        None
    }
}

impl Tree {
    /// An empty root, for at most this many bytes of files.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self {
            nodes: vec![dir()],
            layer: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// A node by its number.
    #[must_use]
    pub fn node(&self, id: usize) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Most bytes of all files.
    pub(crate) const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Nodes, those that lost their names among them.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// What comes from here on is of another layer.
    pub(crate) fn begin_layer(&mut self) {
        self.layer = self.nodes.len();
    }

    fn children(&mut self, id: usize) -> Option<&mut BTreeMap<Vec<u8>, usize>> {
        match self.nodes.get_mut(id).map(|node| &mut node.what) {
            Some(What::Dir(children)) => Some(children),
            _ => None,
        }
    }

    fn child(&self, dir: usize, name: &[u8]) -> Option<usize> {
        match &self.nodes.get(dir)?.what {
            What::Dir(children) => children.get(name).copied(),
            What::File { .. } | What::Link(_) => None,
        }
    }

    pub(crate) fn add(&mut self, node: Node) -> Result<usize, Problem> {
        if self.nodes.len() >= ENTRIES_MAX {
            return Err(format!(
                "is one too many: an image has at most {ENTRIES_MAX} entries"
            ));
        }
        if let What::File { content, .. } = &node.what {
            self.bytes = self.bytes.saturating_add(content.len());
            if self.bytes > self.bytes_max {
                return Err(format!(
                    "does not fit: all files together are larger than {} GiB",
                    self.bytes_max >> 30
                ));
            }
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// Gives a node a name, in place of whatever had it.
    pub(crate) fn name(&mut self, dir: usize, name: &[u8], id: usize) {
        if let Some(children) = self.children(dir) {
            children.insert(name.to_vec(), id);
        }
    }

    /// The directory that a path leads to, links followed; made where it is missing and `make`.
    fn directory(&mut self, path: &[&[u8]], make: bool) -> Result<usize, Problem> {
        let mut way = vec![ROOT];
        let mut left: VecDeque<Vec<u8>> = path.iter().map(|part| part.to_vec()).collect();
        let mut followed = 0;
        while let Some(part) = left.pop_front() {
            let at = way.last().copied().unwrap_or(ROOT);
            if part.is_empty() || part == b"." {
                continue;
            }
            if part == b".." {
                way.pop();
                if way.is_empty() {
                    return Err("lies behind a link that leads out of the image".into());
                }
                continue;
            }
            let found = self.child(at, &part);
            match found.and_then(|id| Some((id, &self.nodes.get(id)?.what))) {
                Some((id, What::Dir(_))) => way.push(id),
                Some((_, What::File { .. })) => return Err("lies below a file".into()),
                Some((_, What::Link(target))) => {
                    followed += 1;
                    if followed > FOLLOWED_MAX {
                        return Err("lies behind links that go round in circles".into());
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    let target = target.split(|byte| *byte == b'/').rev();
                    let target: Vec<Vec<u8>> = target.map(<[u8]>::to_vec).collect();
                    target.into_iter().for_each(|part| left.push_front(part));
                }
                None if make => {
                    name_problem(&part).map_or(Ok(()), Err)?;
                    let id = self.add(dir())?;
                    self.name(at, &part, id);
                    way.push(id);
                }
                None => return Err("names what is not in the archive before it".into()),
            }
            if way.len() > DEPTH_MAX {
                return Err(format!("lies deeper than {DEPTH_MAX} directories"));
            }
        }
        Ok(way.last().copied().unwrap_or(ROOT))
    }

    /// The directory above an entry, and its name; none for the root itself.
    fn place<'p>(
        &mut self,
        path: &'p [u8],
        make: bool,
    ) -> Result<Option<(usize, &'p [u8])>, Problem> {
        let parts = parts(path)?;
        let Some((name, above)) = parts.split_last() else {
            return Ok(None);
        };
        Ok(Some((self.directory(above, make)?, name)))
    }

    /// A directory; one that is there keeps what is in it.
    pub(crate) fn put_dir(&mut self, path: &[u8]) -> Result<(), Problem> {
        let Some((above, name)) = self.place(path, true)? else {
            return Ok(());
        };
        // A new node, so that it is known for one of this layer.
        let mut node = dir();
        let known = self.child(above, name);
        if let Some(children) = known.and_then(|id| self.children(id)) {
            node.what = What::Dir(std::mem::take(children));
        }
        let id = self.add(node)?;
        self.name(above, name, id);
        Ok(())
    }

    /// A file or link.
    pub(crate) fn put(&mut self, path: &[u8], node: Node) -> Result<usize, Problem> {
        if let What::Link(target) = &node.what
            && (target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains(&0))
        {
            return Err("is a link to nothing that could be a path".into());
        }
        let Some((above, name)) = self.place(path, true)? else {
            return Err("takes the place of the root".into());
        };
        let id = self.add(node)?;
        self.name(above, name, id);
        Ok(id)
    }

    /// Another name of a file that is there.
    pub(crate) fn put_hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Problem> {
        let shown = String::from_utf8_lossy(target).into_owned();
        let wrong = |problem: Problem| format!("is a hard link to {shown}, which {problem}");
        let known = match self.place(target, false).map_err(&wrong)? {
            Some((above, name)) => self.child(above, name),
            None => None,
        };
        let missing = || wrong("is not in the archive before it".into());
        let known = known.ok_or_else(missing)?;
        let node = self.nodes.get(known).ok_or_else(missing)?;
        if matches!(node.what, What::Dir(_)) {
            return Err(wrong("is a directory".into()));
        }
        let shares = known >= self.layer && matches!(node.what, What::File { .. });
        if !shares {
            let copy = node.clone();
            return self.put(path, copy).map(drop);
        }
        match self.place(path, true)? {
            Some((above, name)) => self.name(above, name, known),
            None => return Err("takes the place of the root".into()),
        }
        Ok(())
    }

    /// Takes away what a layer before had under this name.
    pub(crate) fn white_out(&mut self, path: &[u8]) -> Result<(), Problem> {
        // A whiteout of what never was is no error: builders leave such ones behind.
        let Ok(Some((above, name))) = self.place(path, false) else {
            return parts(path).map(drop);
        };
        let (layer, old) = (self.layer, self.child(above, name));
        if old.is_some_and(|id| id < layer)
            && let Some(children) = self.children(above)
        {
            children.remove(name);
        }
        Ok(())
    }

    /// Takes away everything that layers before had in this directory.
    pub(crate) fn clear(&mut self, path: &[u8]) -> Result<(), Problem> {
        let parts = parts(path)?;
        let top = self.directory(&parts, true)?;
        // Depth first without recursion: a directory is looked at again behind its children.
        let mut todo = vec![(top, false)];
        while let Some((id, children_done)) = todo.pop() {
            let Some(children) = self.children(id) else {
                continue;
            };
            let children: Vec<(Vec<u8>, usize)> = children
                .iter()
                .map(|(name, id)| (name.clone(), *id))
                .collect();
            if !children_done {
                todo.push((id, true));
                todo.extend(children.iter().map(|(_, id)| (*id, false)));
                continue;
            }
            for (name, child) in children {
                let empty = match self.nodes.get(child).map(|node| &node.what) {
                    Some(What::Dir(inside)) => inside.is_empty(),
                    _ => true,
                };
                if child < self.layer
                    && empty
                    && let Some(children) = self.children(id)
                {
                    children.remove(&name);
                }
            }
        }
        Ok(())
    }

    /// The node that a path without links names.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<usize> {
        let mut at = ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = self.child(at, part.as_bytes())?;
        }
        Some(at)
    }

    /// All names with their nodes, each directory before what is in it, in the order of bytes.
    #[must_use]
    pub fn walk(&self) -> Vec<(Vec<u8>, usize)> {
        let (mut all, mut todo) = (Vec::new(), vec![(Vec::new(), ROOT)]);
        while let Some((path, id)) = todo.pop() {
            if let Some(What::Dir(children)) = self.nodes.get(id).map(|node| &node.what) {
                for (name, child) in children.iter().rev() {
                    let mut below: Vec<u8> = path.clone();
                    if !below.is_empty() {
                        below.push(b'/');
                    }
                    below.extend(name);
                    todo.push((below, *child));
                }
            }
            if id != ROOT {
                all.push((path, id));
            }
        }
        all
    }
}
