//! Where everything goes: follows from the tree alone.

use super::{BLOCK, ENTRY, INODE, SLOT, SUPER_AT, SUPER_BYTES};
use crate::tree::{ROOT, Tree, What};
use crate::{ImageError, io_at};
use std::collections::BTreeMap;
use std::io;

/// One inode and its content.
#[derive(Debug)]
pub(super) struct Placed {
    /// The node.
    pub(super) node: usize,
    /// The directory it was first found in; of the root, itself.
    pub(super) above: usize,
    /// Names it has; of a directory, with `.` and each `..`.
    pub(super) links: u32,
    /// Bytes of its content.
    pub(super) size: u64,
    /// Where its inode lies.
    pub(super) at: u64,
    /// Whether what fills no block lies behind the inode.
    pub(super) inline: bool,
    /// Its first whole block.
    pub(super) block: u64,
}

impl Placed {
    pub(super) const fn nid(&self) -> u64 {
        self.at / SLOT
    }

    /// Bytes that fill no block.
    pub(super) const fn rest(&self) -> u64 {
        self.size % BLOCK
    }

    /// Blocks of content, a last one that is not full among them if it does not lie inline.
    pub(super) const fn blocks(&self) -> u64 {
        match self.inline {
            true => self.size / BLOCK,
            false => self.size.div_ceil(BLOCK),
        }
    }
}

/// The whole image.
#[derive(Debug)]
pub(super) struct Layout<'t> {
    pub(super) tree: &'t Tree,
    pub(super) placed: Vec<Placed>,
    /// Place in `placed` by node.
    index: BTreeMap<usize, usize>,
    /// First block of content.
    pub(super) content: u64,
    /// All blocks.
    pub(super) blocks: u64,
}

/// One line of a directory.
pub(super) type Line<'t> = (&'t [u8], usize);

impl<'t> Layout<'t> {
    pub(super) fn new(tree: &'t Tree) -> Result<Self, ImageError> {
        let mut layout = Self {
            tree,
            placed: Vec::new(),
            index: BTreeMap::new(),
            content: 0,
            blocks: 0,
        };
        layout.number();
        layout.place()?;
        Ok(layout)
    }

    pub(super) fn of(&self, node: usize) -> Option<&Placed> {
        self.placed.get(*self.index.get(&node)?)
    }

    /// Inodes in the order in which a walk finds them.
    fn number(&mut self) {
        let mut todo = vec![(ROOT, ROOT)];
        while let Some((node, above)) = todo.pop() {
            if let Some(known) = self
                .index
                .get(&node)
                .and_then(|at| self.placed.get_mut(*at))
            {
                known.links += 1;
                continue;
            }
            let Some(found) = self.tree.node(node) else {
                continue;
            };
            let (links, size) = match &found.what {
                What::Dir(children) => {
                    todo.extend(children.values().rev().map(|child| (*child, node)));
                    let is_dir = |child: &&usize| {
                        let child = self.tree.node(**child);
                        child.is_some_and(|child| matches!(child.what, What::Dir(_)))
                    };
                    let below = children.values().filter(is_dir).count();
                    let names = children.keys().map(Vec::as_slice);
                    (
                        u32::try_from(below).unwrap_or(u32::MAX).saturating_add(2),
                        dir_size(names),
                    )
                }
                What::File { content, .. } => (1, content.len()),
                What::Link(target) => (1, target.len() as u64),
            };
            self.index.insert(node, self.placed.len());
            self.placed.push(Placed {
                node,
                above,
                links,
                size,
                at: 0,
                inline: false,
                block: 0,
            });
        }
    }

    fn place(&mut self) -> Result<(), ImageError> {
        let mut at = SUPER_AT + SUPER_BYTES;
        for placed in &mut self.placed {
            at = at.next_multiple_of(INODE);
            let rest = placed.rest();
            placed.inline = rest > 0 && INODE + rest <= BLOCK;
            // What lies behind an inode must lie in its block.
            if placed.inline && at % BLOCK + INODE + rest > BLOCK {
                at = at.next_multiple_of(BLOCK);
            }
            placed.at = at;
            at += INODE + if placed.inline { rest } else { 0 };
        }
        self.content = at.div_ceil(BLOCK);
        let mut block = self.content;
        for placed in &mut self.placed {
            placed.block = block;
            block += placed.blocks();
        }
        self.blocks = block;
        match u32::try_from(block) {
            Ok(_) => Ok(()),
            // 16 TiB.
            Err(_) => Err(io_at("lay out the image")(
                io::ErrorKind::FileTooLarge.into(),
            )),
        }
    }

    /// The entries of a directory with the numbers of their nodes, in the order of their names.
    pub(super) fn lines(&self, placed: &Placed) -> Vec<Line<'t>> {
        let Some(What::Dir(children)) = self.tree.node(placed.node).map(|node| &node.what) else {
            return Vec::new();
        };
        let children = children.iter().map(|(name, id)| (name.as_slice(), *id));
        let own: [Line<'t>; 2] = [(b".", placed.node), (b"..", placed.above)];
        let mut lines: Vec<Line<'t>> = children.chain(own).collect();
        lines.sort_unstable();
        lines
    }
}

/// Cuts entries into blocks: each block as many as fit.
pub(super) fn dir_blocks<'l, 't>(lines: &'l [Line<'t>]) -> Vec<&'l [Line<'t>]> {
    let (mut blocks, mut from, mut used) = (Vec::new(), 0, 0);
    for (at, (name, _)) in lines.iter().enumerate() {
        let more = ENTRY + name.len() as u64;
        if used + more > BLOCK {
            blocks.extend(lines.get(from..at));
            (from, used) = (at, 0);
        }
        used += more;
    }
    blocks.extend(lines.get(from..));
    blocks
}

/// Bytes of a directory with these names, in order.
fn dir_size<'n>(names: impl Iterator<Item = &'n [u8]>) -> u64 {
    let mut lines: Vec<Line<'_>> = names
        .chain([&b"."[..], b".."])
        .map(|name| (name, 0))
        .collect();
    lines.sort_unstable();
    let blocks = dir_blocks(&lines);
    let last = blocks.last().copied().unwrap_or_default();
    let last: u64 = last.iter().map(|(name, _)| ENTRY + name.len() as u64).sum();
    (blocks.len() as u64 - 1) * BLOCK + last
}
