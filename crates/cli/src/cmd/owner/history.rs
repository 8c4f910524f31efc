//! The lines of `gleaner owner history` as objects: what every listing has (`id`, `name`, `state`),
//! and what the agent says of them.

use super::when;
use crate::out::{Failure, REFUSED};
use gleaner_agent::owner::{Entry, Mode};
use serde_json::Value;

/// What tells a line from all others of this PC: what it is about, and when that began.
pub(super) fn id(entry: &Entry) -> String {
    let from = when::text(entry.from());
    match entry {
        Entry::Work(work) => format!("{}@{from}", work.job),
        Entry::Pause(pause) => format!("{}@{from}", pause.mode.as_str()),
    }
}

/// All lines.
///
/// # Errors
/// None that an agent of this version can cause.
pub(super) fn rows(entries: &[Entry]) -> Result<Vec<Value>, Failure> {
    entries.iter().map(row).collect()
}

fn row(entry: &Entry) -> Result<Value, Failure> {
    let mut value =
        serde_json::to_value(entry).map_err(|error| Failure::new(REFUSED, error.to_string()))?;
    let (name, state) = match entry {
        Entry::Work(work) => (work.name.as_str(), Mode::Working),
        Entry::Pause(pause) => (pause.rule.as_str(), pause.mode),
    };
    if let Some(object) = value.as_object_mut() {
        for (key, text) in [
            ("id", id(entry).as_str()),
            ("name", name),
            ("state", state.as_str()),
        ] {
            object.insert(key.to_owned(), text.into());
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    #[test]
    fn every_line_has_what_every_listing_has() {
        let entries = samples::history();
        let rows = rows(&entries).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for (row, entry) in rows.iter().zip(&entries) {
            assert_eq!(row["id"], id(entry));
            assert!(ids.insert(row["id"].to_string()), "{row}");
            let known = match entry {
                Entry::Work(work) => [work.name.as_str(), "working"],
                Entry::Pause(pause) => [pause.rule.as_str(), pause.mode.as_str()],
            };
            assert_eq!([&row["name"], &row["state"]], known);
            assert!(row["kind"].is_string() && row["from"].is_string(), "{row}");
        }
        assert_eq!(rows.len(), entries.len());
    }
}
