//! Which of our crates may depend on which: one table, checked against the manifests.
//!
//! The table is the architecture. A new arrow is a decision: it is made here, with its reason in
//! the commit, never by adding a line to a manifest alone.

use crate::workspace::{Dependency, Workspace};
use std::collections::BTreeMap;

/// Most crates on a path from the binary to a crate without dependencies of ours; a longer chain
/// builds one crate after the other.
const MAX_CHAIN: usize = 6;

/// From each crate to those it may name, tests included. Whatever is missing here is forbidden.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    // The brains see the words and nothing else: no clock, no file, no socket.
    ("core", &["model"]),
    ("harvest", &["model"]),
    ("attempt", &["model"]),
    ("wire", &["model"]),
    ("api", &["model"]),
    ("blob", &["model"]),
    ("sense", &["model"]),
    ("store", &["core", "model"]),
    ("engine", &["model"]),
    // Bytes in, bytes out: an image is the same to who makes, believes and mounts it.
    ("image", &[]),
    ("engine-process", &["engine", "image", "model"]),
    // A guest's kernel runs in the process engine's cage: one set of namespaces, limits, freezers
    // and shims for both. Its host end and its process 1 are one program of their own.
    // Its tests bring a root of their own, as jobs do.
    (
        "engine-vm",
        &["engine", "engine-process", "guest", "image", "model"],
    ),
    // Likewise, where there are cages: the runner of its programs is the program in one.
    ("engine-wasm", &["engine", "engine-process", "model"]),
    ("guest", &[]),
    // The server never knows how an engine works.
    (
        "server",
        &["core", "store", "blob", "image", "wire", "api", "model"],
    ),
    // The agent never chooses what to run next: no core, no store.
    (
        "agent",
        &[
            "harvest",
            "attempt",
            "sense",
            "engine",
            "engine-process",
            "engine-vm",
            "engine-wasm",
            "blob",
            "wire",
            "model",
        ],
    ),
    ("client", &["api", "model"]),
    ("sim", &["core", "harvest", "attempt", "store", "model"]),
    (
        "bench",
        // The thresholds that agents go by, for conditions like theirs; the agents' protocol,
        // which pretended nodes speak; and what guests need of a PC whose BLAS they run.
        &[
            "client",
            "engine",
            "engine-process",
            "harvest",
            "image",
            "wire",
            "api",
            "model",
        ],
    ),
    (
        "cli",
        &[
            "server",
            "agent",
            "client",
            "engine",
            "engine-process",
            "engine-vm",
            "engine-wasm",
            "image",
            "sense",
            "sim",
            "bench",
            "api",
            "model",
        ],
    ),
    // End-to-end tests know the product by its command line alone, as its users do.
    ("tests", &[]),
    ("xtask", &[]),
];

/// Every arrow that the table does not have, and a chain that is too long.
pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    violations(&workspace.own_edges(), ARROWS)
}

fn violations(
    edges: &BTreeMap<String, Vec<Dependency>>,
    arrows: &[(&str, &[&str])],
) -> Vec<String> {
    let mut found = Vec::new();
    for (from, targets) in edges {
        let Some((_, allowed)) = arrows.iter().find(|(name, _)| name == from) else {
            found.push(format!(
                "crate {from} is not in the table of arrows (xtask/src/arrows.rs)"
            ));
            continue;
        };
        for to in targets {
            // The test kit may be used by every crate's tests, and by nothing that ships.
            let kit = to.dev && to.name == "testkit";
            if !kit && !allowed.contains(&to.name.as_str()) {
                found.push(format!("{from} must not depend on {}", to.name));
            }
        }
    }
    if let Some(length) = edges.keys().map(|name| chain(name, edges, 0)).max()
        && length > MAX_CHAIN
    {
        found.push(format!(
            "the longest chain has {length} crates, {MAX_CHAIN} are allowed"
        ));
    }
    found
}

/// Length of the longest path from `name`; stops one past the bound, so a cycle ends as well.
fn chain(name: &str, edges: &BTreeMap<String, Vec<Dependency>>, depth: usize) -> usize {
    if depth > MAX_CHAIN {
        return 0;
    }
    let below = edges.get(name).map_or(0, |targets| {
        targets
            .iter()
            .filter(|to| !to.dev)
            .map(|to| chain(&to.name, edges, depth + 1))
            .max()
            .unwrap_or(0)
    });
    below + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(name: &str, dev: bool) -> Dependency {
        Dependency {
            name: name.to_owned(),
            dev,
        }
    }

    fn graph(edges: &[(&str, Vec<Dependency>)]) -> BTreeMap<String, Vec<Dependency>> {
        edges
            .iter()
            .map(|(from, to)| ((*from).to_owned(), to.clone()))
            .collect()
    }

    #[test]
    fn allowed_arrows_pass() {
        let graph = graph(&[
            ("core", vec![edge("model", false), edge("testkit", true)]),
            ("model", vec![]),
        ]);
        assert_eq!(violations(&graph, ARROWS), Vec::<String>::new());
    }

    #[test]
    fn a_planted_arrow_is_found() {
        let graph = graph(&[("core", vec![edge("store", false)]), ("store", vec![])]);
        assert_eq!(
            violations(&graph, ARROWS),
            ["core must not depend on store"]
        );
    }

    #[test]
    fn test_only_arrows_count_too() {
        let graph = graph(&[("server", vec![edge("agent", true)])]);
        assert_eq!(
            violations(&graph, ARROWS),
            ["server must not depend on agent"]
        );
    }

    #[test]
    fn the_test_kit_does_not_ship() {
        let graph = graph(&[("core", vec![edge("testkit", false)])]);
        assert_eq!(
            violations(&graph, ARROWS),
            ["core must not depend on testkit"]
        );
    }

    #[test]
    fn an_unknown_crate_is_found() {
        let graph = graph(&[("leftpad", vec![])]);
        assert_eq!(violations(&graph, ARROWS).len(), 1);
    }

    #[test]
    fn a_long_chain_is_found() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let arrows: Vec<(&str, &[&str])> = names
            .iter()
            .enumerate()
            .map(|(i, n)| (*n, &names[i + 1..]))
            .collect();
        let edges: Vec<(&str, Vec<Dependency>)> = names
            .iter()
            .enumerate()
            .map(|(i, n)| {
                (
                    *n,
                    names
                        .get(i + 1)
                        .map(|to| edge(to, false))
                        .into_iter()
                        .collect(),
                )
            })
            .collect();
        assert_eq!(
            violations(&graph(&edges), &arrows),
            ["the longest chain has 7 crates, 6 are allowed"]
        );
    }
}
