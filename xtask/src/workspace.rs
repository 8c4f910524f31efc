//! What `cargo metadata` says about the workspace, reduced to what the checks need.
//!
//! Comes from cargo as JSON, goes to [`crate::arrows`], [`crate::deps`] and [`crate::tidy`].

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

/// One edge as a manifest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// Package name.
    pub(crate) name: String,
    /// Only tests, benches and examples use it.
    pub(crate) dev: bool,
}

/// One package: ours or a library.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// Package name.
    pub(crate) name: String,
    /// Licence expression, as the manifest has it.
    pub(crate) license: Option<String>,
    /// Folder of its manifest.
    pub(crate) dir: PathBuf,
    /// A package of this workspace.
    pub(crate) member: bool,
    /// Edges of the manifest.
    pub(crate) dependencies: Vec<Dependency>,
}

/// The workspace and the libraries that it uses on this platform.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Folder of the workspace's manifest.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// Every package that is in the build, ours and others'.
    pub(crate) packages: Vec<Package>,
}

impl Workspace {
    /// Asks cargo. Only this platform's packages are listed, so nothing is downloaded that the
    /// build does not need as well.
    pub(crate) fn load() -> Result<Self, String> {
        let host = host_triple()?;
        let text = capture(cargo_command().args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            &host,
        ]))?;
        let json: Value =
            serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
        Self::parse(&json).ok_or_else(|| "cargo metadata has an unknown shape".to_owned())
    }

    /// Reads the JSON of `cargo metadata`; nothing where a field is missing.
    pub(crate) fn parse(json: &Value) -> Option<Self> {
        let members = strings(&json["workspace_members"])?;
        // Optional dependencies nobody switched on are listed as packages, but are no node.
        let built: Option<BTreeSet<&str>> = json["resolve"]["nodes"]
            .as_array()
            .map(|nodes| nodes.iter().filter_map(|n| n["id"].as_str()).collect());
        let packages = json["packages"]
            .as_array()?
            .iter()
            .filter(|p| match (&built, p["id"].as_str()) {
                (Some(built), Some(id)) => built.contains(id),
                _ => true,
            })
            .map(|p| package(p, &members))
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            root: json["workspace_root"].as_str()?.into(),
            target: json["target_directory"].as_str()?.into(),
            packages,
        })
    }

    /// Our own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|p| p.member)
    }

    /// Direct dependencies of each of our packages on each other, by name without the prefix.
    pub(crate) fn own_edges(&self) -> BTreeMap<String, Vec<Dependency>> {
        let own: BTreeSet<&str> = self.members().map(|p| p.name.as_str()).collect();
        self.members()
            .map(|p| {
                let edges = p
                    .dependencies
                    .iter()
                    .filter(|d| own.contains(d.name.as_str()))
                    .map(|d| Dependency {
                        name: short(&d.name).to_owned(),
                        dev: d.dev,
                    })
                    .collect();
                (short(&p.name).to_owned(), edges)
            })
            .collect()
    }
}

/// `gleaner-core` is `core` in our tables: the folder under `crates/`.
pub(crate) fn short(name: &str) -> &str {
    name.strip_prefix("gleaner-").unwrap_or(name)
}

fn package(json: &Value, members: &[&str]) -> Option<Package> {
    let manifest = PathBuf::from(json["manifest_path"].as_str()?);
    let dependencies = json["dependencies"]
        .as_array()?
        .iter()
        .map(|d| {
            Some(Dependency {
                name: d["name"].as_str()?.to_owned(),
                dev: d["kind"].as_str() == Some("dev"),
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Package {
        name: json["name"].as_str()?.to_owned(),
        license: json["license"].as_str().map(str::to_owned),
        dir: manifest.parent()?.to_owned(),
        member: members.contains(&json["id"].as_str()?),
        dependencies,
    })
}

fn strings(json: &Value) -> Option<Vec<&str>> {
    json.as_array()?.iter().map(Value::as_str).collect()
}

/// The cargo that started us, so that a `+toolchain` stays in force.
fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// A call of cargo as from a shell. We were started by `cargo run`, which describes our own package
/// in the environment; build scripts that look there would see a change and build anew.
pub(crate) fn cargo_command() -> Command {
    let mut command = Command::new(cargo());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether `cargo run` has set a variable for us alone.
fn ours(name: &str) -> bool {
    [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
        || ["OUT_DIR", "CARGO_PRIMARY_PACKAGE"].contains(&name)
}

fn host_triple() -> Result<String, String> {
    let text = capture(Command::new("rustc").arg("-vV"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| "rustc -vV names no host".to_owned())
}

/// Runs a command for its standard output; an error carries what it said.
pub(crate) fn capture(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_describes_us_is_not_passed_on() {
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "OUT_DIR"] {
            assert!(ours(name), "{name}");
        }
        for name in [
            "CARGO_TARGET_DIR",
            "CARGO_HOME",
            "CARGO_INCREMENTAL",
            "CARGO",
            "PATH",
        ] {
            assert!(!ours(name), "{name}");
        }
    }
}
