//! Conditions on nodes: `requirements :` and what stands behind `if`.
//!
//! Only what all comparisons ask for together can be kept: a job names an architecture and labels.
//! What a node is like is not known here, except that it runs Linux.

use super::super::Wrong;
use gleaner_model::Limits;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most words of something that is not understood, to be shown.
const SHOWN_WORDS_MAX: usize = 8;

/// `attribute operator value`
type Comparison<'t> = (String, &'t str, &'t str);

/// Words, signs and texts in quotes.
fn tokens(text: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let is_sign = |c: char| "=!<>&|".contains(c);
        let end = match first {
            '(' | ')' => Some(1),
            '"' => rest[1..].find('"').map(|end| end + 2),
            _ if is_sign(first) => rest.find(|c| !is_sign(c)),
            _ => rest.find(|c: char| is_sign(c) || c.is_whitespace() || "()\"".contains(c)),
        };
        let (token, after) = rest.split_at(end.unwrap_or(rest.len()));
        found.push(token);
        rest = after.trim_start();
    }
    found
}

/// The comparisons that all have to hold; parentheses change nothing between them.
fn conjunction(line: usize, text: &str) -> Result<Vec<Comparison<'_>>, Wrong> {
    let mut tokens = tokens(text);
    let depth = tokens
        .iter()
        .try_fold(0_usize, |depth, token| match *token {
            "(" => Some(depth + 1),
            ")" => depth.checked_sub(1),
            _ => Some(depth),
        });
    if depth != Some(0) {
        let problem = "a parenthesis has no partner; write as many `(` as `)`";
        return Err(Wrong::at(line, problem));
    }
    tokens.retain(|token| !matches!(*token, "(" | ")"));
    if tokens.is_empty() {
        return Ok(Vec::new());
    }
    let operators = ["=", "==", "!=", "<", ">", "<=", ">="];
    let mut found = Vec::new();
    for part in tokens.split(|token| *token == "&&" || token.eq_ignore_ascii_case("and")) {
        match part {
            [attribute, operator, value] if operators.contains(operator) => {
                let operator = if *operator == "=" { "==" } else { operator };
                let attribute = attribute.trim_matches('"').to_lowercase();
                found.push((attribute, operator, value.trim_matches('"')));
            }
            _ => {
                let shown = part
                    .iter()
                    .take(SHOWN_WORDS_MAX)
                    .copied()
                    .collect::<Vec<_>>();
                let problem = format!(
                    "`{}` is no comparison; write `attribute == value`, joined by `and`; in place \
                     of `or` give the nodes that will do a label, in place of `not` write `!=`",
                    shown.join(" ")
                );
                return Err(Wrong::at(line, problem));
            }
        }
    }
    Ok(found)
}

/// Whether a comparison holds on every node, where that is known: all run Linux.
fn on_linux((attribute, operator, value): &Comparison<'_>) -> Option<bool> {
    let linux = value.eq_ignore_ascii_case("linux");
    match (attribute.as_str(), *operator) {
        ("os" | "opsys", "==") => Some(linux),
        ("os" | "opsys", "!=") => Some(!linux),
        _ => None,
    }
}

/// Whether what stands between `if` and `then` holds.
pub(super) fn condition(line: usize, text: &str) -> Result<bool, Wrong> {
    let parts = conjunction(line, text)?;
    let known: Option<Vec<bool>> = parts.iter().map(on_linux).collect();
    match known.filter(|known| !known.is_empty()) {
        Some(known) => Ok(!known.contains(&false)),
        None => Err(Wrong::at(
            line,
            "files are sent before a node is chosen, so only `os` can be asked here; write it \
             without `if`, or make a job for each case with `requirements :`",
        )),
    }
}

/// What requirements become.
#[derive(Default)]
struct Asked {
    arch: Option<&'static str>,
    labels: BTreeMap<String, String>,
    memory_mib: u32,
}

impl Asked {
    fn take(&mut self, part: Comparison<'_>) -> Result<(), String> {
        match on_linux(&part) {
            Some(true) => return Ok(()),
            Some(false) => {
                return Err("all nodes run Linux; leave it out if the program does".into());
            }
            None => {}
        }
        let (attribute, operator, value) = part;
        if matches!(attribute.as_str(), "mem" | "memory" | "ram" | "mainmemory") {
            let number = value.trim_end_matches(['m', 'M', 'b', 'B']).parse();
            return match number {
                Ok(number) if operator.starts_with('>') => {
                    self.memory_mib = self.memory_mib.max(number);
                    Ok(())
                }
                _ => Err(format!(
                    "write the megabytes that are needed, as in `{attribute} >= 512`"
                )),
            };
        }
        if operator != "==" {
            return Err(format!(
                "nodes have labels, which are equal or not; give those that will do a label and \
                 write `{attribute} == value`"
            ));
        }
        let arch = match value.to_lowercase().as_str() {
            "x86_64" | "x86-64" | "amd64" => Some("x86_64"),
            "aarch64" | "arm64" => Some("aarch64"),
            _ => None,
        };
        match (attribute.as_str(), arch) {
            ("arch" | "architecture" | "processor", Some(arch)) => {
                if self.arch.replace(arch).is_some_and(|other| other != arch) {
                    return Err("no node has two architectures; write one".into());
                }
            }
            ("arch" | "architecture", None) => {
                return Err("write x86_64 or aarch64, as `uname -m` says it".into());
            }
            _ => {
                let other = self.labels.insert(attribute, value.into());
                if other.is_some_and(|other| other != value) {
                    return Err("a label has one value; write one".into());
                }
            }
        }
        Ok(())
    }
}

/// Puts requirements into the job.
pub(super) fn require(
    line: usize,
    text: &str,
    job: &mut Map<String, Value>,
    warnings: &mut BTreeSet<String>,
) -> Result<(), Wrong> {
    let mut asked = Asked::default();
    for part in conjunction(line, text)? {
        let shown = format!("`{} {} {}`", part.0, part.1, part.2);
        let taken = asked.take(part);
        taken.map_err(|problem| Wrong::at(line, format!("{shown}: {problem}")))?;
    }
    let mut require = Map::new();
    if let Some(arch) = asked.arch {
        require.insert("arch".into(), arch.into());
    }
    if !asked.labels.is_empty() {
        let shown: Vec<String> = asked
            .labels
            .iter()
            .map(|(k, v)| format!("{k} = {v}"))
            .collect();
        let shown = shown.join(", ");
        warnings.insert(format!("only nodes with these labels will do: {shown}"));
        require.insert("labels".into(), json!(asked.labels));
    }
    if !require.is_empty() {
        job.insert("require".into(), Value::Object(require));
    }
    // A limit below the usual one would end tasks that OurGrid lets run.
    let mib = asked.memory_mib;
    if u64::from(mib) << 20 > Limits::default().memory.0 {
        job.insert("limits".into(), json!({ "memory": format!("{mib}MiB") }));
        let problem =
            format!("memory is a limit here: an attempt that uses more than {mib} MiB is ended");
        warnings.insert(problem);
    }
    Ok(())
}
