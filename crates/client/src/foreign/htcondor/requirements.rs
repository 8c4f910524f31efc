//! Requirements: as much of the language as a job file of ours can say, which is a list of things
//! that must be so. Everything else is refused.

use super::words::size;
use serde_json::{Map, Value, json};

/// What a node must be or have.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wants {
    pub(super) arch: Option<String>,
    pub(super) labels: Map<String, Value>,
    /// `limits` that are at least so large.
    pub(super) limits: Map<String, Value>,
}

/// Operators, the longer ones first.
const OPERATORS: [&str; 8] = ["=?=", "=!=", "==", "!=", ">=", "<=", ">", "<"];

impl Wants {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut wants = Self::default();
        if text.contains("||") {
            return Err(format!("`{text}` has an or; hand in one job for each"));
        }
        for clause in text.split("&&") {
            let clause = bare(clause);
            if !clause.is_empty() {
                wants.add(clause)?;
            }
        }
        Ok(wants)
    }

    fn add(&mut self, clause: &str) -> Result<(), String> {
        let cannot = || {
            format!(
                "`{clause}` cannot be said here; give nodes a label, and write NAME == \"value\""
            )
        };
        let found = OPERATORS
            .iter()
            .find_map(|op| Some((*op, clause.split_once(op)?)));
        let (operator, name, value) = match found {
            Some((operator, (name, value))) => (operator, bare(name), bare(value)),
            // An attribute by itself has to be true.
            None => ("==", clause, "true"),
        };
        let name = ["TARGET.", "target.", "Target."]
            .iter()
            .find_map(|owner| name.strip_prefix(owner))
            .unwrap_or(name);
        let plain = |c: char| c.is_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(cannot());
        }
        let text = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        let is = matches!(operator, "==" | "=?=");
        match (name.to_ascii_lowercase().as_str(), text) {
            ("opsys", Some(system)) if is => match system.eq_ignore_ascii_case("linux") {
                true => Ok(()),
                false => Err(format!("`{clause}`: tasks run on Linux only")),
            },
            ("arch", Some(arch)) if is => {
                self.arch = Some(arch.to_ascii_lowercase());
                Ok(())
            }
            ("memory", None) if matches!(operator, ">=" | ">") => {
                self.at_least("memory", size(value, "MiB").ok_or_else(cannot)?)
            }
            ("disk", None) if matches!(operator, ">=" | ">") => {
                self.at_least("disk", size(value, "KiB").ok_or_else(cannot)?)
            }
            ("opsys" | "arch" | "memory" | "disk" | "cpus", _) => Err(cannot()),
            (_, text) if is => {
                let value = text.unwrap_or(value);
                let word = value.chars().all(|c| plain(c) || matches!(c, '.' | '-'));
                if text.is_none() && !word {
                    return Err(cannot());
                }
                let known = match value.to_ascii_lowercase() {
                    truth if text.is_none() && matches!(truth.as_str(), "true" | "false") => truth,
                    _ => value.to_owned(),
                };
                self.labels.insert(name.to_owned(), json!(known));
                Ok(())
            }
            _ => Err(cannot()),
        }
    }

    fn at_least(&mut self, limit: &str, size: String) -> Result<(), String> {
        self.limits.insert(limit.to_owned(), json!(size));
        Ok(())
    }
}

/// Without the parentheses around the whole.
fn bare(text: &str) -> &str {
    let mut text = text.trim();
    while let Some(inner) = text.strip_prefix('(') {
        match inner.strip_suffix(')') {
            Some(inner) => text = inner.trim(),
            // Its partner stands in another clause, where nothing but `and` joins them.
            None => text = inner.trim(),
        }
    }
    if text.matches(')').count() > text.matches('(').count() {
        return text.trim_end_matches(')').trim();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_said_is_said() {
        let text = "(OpSys == \"LINUX\") && (TARGET.Arch == \"X86_64\") && HasAvx && \
                    Room =?= \"b12\" && (Memory >= 2000)";
        let wants = Wants::read(text).unwrap();
        assert_eq!(wants.arch.as_deref(), Some("x86_64"));
        assert_eq!(
            Value::from(wants.labels),
            json!({"HasAvx": "true", "Room": "b12"})
        );
        assert_eq!(Value::from(wants.limits), json!({"memory": "2000MiB"}));
        assert_eq!(Wants::read("").unwrap(), Wants::default());
    }

    #[test]
    fn what_cannot_is_refused_and_named() {
        for text in [
            "Arch == \"X86_64\" || Arch == \"AARCH64\"",
            "OpSys == \"WINDOWS\"",
            "Machine != \"slow\"",
            "regexp(\"^a\", Machine)",
            "Memory >= RequestMemory * 2",
            "Cpus > 2",
        ] {
            let problem = Wants::read(text).unwrap_err();
            assert!(problem.contains('`'), "{problem}");
        }
    }
}
