//! Which names are outputs: one answer for both ends, the guest that tells names and the host that
//! takes files. Pure.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Which names below scratch these patterns mean.
#[must_use]
pub fn wanted(globs: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let path = glob.strip_prefix("./").unwrap_or(glob);
        // One that is no pattern is refused where the outputs are collected.
        if let Ok(glob) = GlobBuilder::new(path).literal_separator(true).build() {
            set.add(glob);
        }
    }
    set.build().unwrap_or_default()
}
