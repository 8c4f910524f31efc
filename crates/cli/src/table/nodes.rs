//! Nodes, many and one.

use super::{Look, ago, listing, name, share, state, table, text};
use gleaner_api::NodeView;

/// What a narrow terminal does without, first to last: tasks done, memory, processors.
const SPARE: [usize; 3] = [6, 5, 4];

/// The listing.
pub(crate) fn list(nodes: &[NodeView], look: Look) -> String {
    if nodes.is_empty() {
        return "no nodes yet; `gleaner token new --kind node --name NAME` makes a token for one, \
                and `gleaner agent` there joins it\n"
            .into();
    }
    let header = [
        "NODE", "NAME", "STATE", "RUNNING", "CPUS", "MEMORY", "DONE", "SEEN",
    ];
    let rows = nodes.iter().map(|node| {
        let cells = vec![
            node.id.into(),
            name(look, &node.name),
            state(node.state),
            node.running.into(),
            format!("{} of {}", node.cpus_used, node.cpus).into(),
            share(node.memory_used, node.memory).into(),
            node.tasks_done.into(),
            node.seen
                .as_deref()
                .map_or_else(String::new, |seen| ago(look, seen))
                .into(),
        ];
        (cells, node.reason.as_str())
    });
    listing(look, &header, rows.collect(), &SPARE)
}

/// One node, a fact a line.
pub(crate) fn one(node: &NodeView, look: Look) -> String {
    let mut rows = table(look, &["NODE", &node.name]);
    let mut fact = |name: &str, value: comfy_table::Cell| {
        rows.add_row(vec![comfy_table::Cell::new(name), value]);
    };
    fact("number", node.id.into());
    fact("state", state(node.state));
    if !node.reason.is_empty() {
        fact("reason", (&node.reason).into());
    }
    fact("architecture", (&node.arch).into());
    fact("engines", node.engines.join(", ").into());
    for (label, value) in &node.labels {
        fact("label", format!("{label} = {value}").into());
    }
    fact(
        "CPUs",
        format!("{} of {}", node.cpus_used, node.cpus).into(),
    );
    fact("memory", share(node.memory_used, node.memory).into());
    fact("disk", gleaner_model::Bytes(node.disk).to_string().into());
    fact("running", node.running.into());
    fact("tasks done", node.tasks_done.into());
    let heard = node.seen.as_deref().map_or_else(
        || "not since the server started".to_owned(),
        |seen| format!("{} ago", ago(look, seen)),
    );
    fact("last heard", heard.into());
    fact("version", (&node.version).into());
    text(rows)
}
