//! How groups are made here, as one process of ours tells another.
//!
//! It owns the way back from text to the names of controllers, which are constants. It must not know who tells whom. An unknown name is an error: the reader then finds out by
//! itself.

use super::controllers::{CPUSET, UNIFIED, V1, V2};
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer};
use std::collections::BTreeMap;
use std::path::PathBuf;

const UNKNOWN: &str = "a controller that this version does not use";

/// Directories by controller of version 1.
pub(super) fn by_controller<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<&'static str, PathBuf>, D::Error> {
    let read = BTreeMap::<String, PathBuf>::deserialize(from)?;
    let named = |(name, dir): (String, PathBuf)| {
        let mut known = V1.into_iter().chain([UNIFIED]);
        known.find(|known| *known == name).map(|name| (name, dir))
    };
    let all: Option<BTreeMap<_, _>> = read.into_iter().map(named).collect();
    all.filter(|all| !all.is_empty())
        .ok_or_else(|| D::Error::custom(UNKNOWN))
}

/// Controllers of version 2.
pub(super) fn controllers<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<&'static str>, D::Error> {
    let read = Vec::<String>::deserialize(from)?;
    let named = |name: String| {
        let mut known = V2.into_iter().chain([CPUSET]);
        known.find(|known| *known == name)
    };
    let all: Option<Vec<_>> = read.into_iter().map(named).collect();
    all.ok_or_else(|| D::Error::custom(UNKNOWN))
}
