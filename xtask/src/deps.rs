//! Licences and bans: what may be in the build, and who may name what.
//!
//! Works on what cargo resolves for this platform, so it needs no further tool and no network.

use crate::workspace::{Package, Workspace, short};

/// Licences under which a library may be used; SPDX identifiers.
const LICENSES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not be in the build, and why.
const BANNED: &[(&str, &str)] = &[
    (
        "aws-lc-rs",
        "ring is the one crypto provider; this one builds five times as long",
    ),
    (
        "aws-lc-sys",
        "ring is the one crypto provider; this one builds five times as long",
    ),
    ("chrono", "jiff is the one date library"),
    (
        "libseccomp-sys",
        "needs a C library at run time; the filter is our own data",
    ),
    ("native-tls", "rustls is the one TLS library"),
    ("nix", "rustix is the one wrapper of system calls"),
    ("openssl", "rustls is the one TLS library"),
    ("openssl-sys", "rustls is the one TLS library"),
    ("openssl-src", "rustls is the one TLS library"),
];

/// What can stand behind TLS; exactly one may be in the build.
const CRYPTO: &[&str] = &[
    "ring",
    "aws-lc-sys",
    "openssl-sys",
    "boring-sys",
    "mbedtls-sys-auto",
];

/// Who may name a crate directly. The brains and the words stay free of all of them.
const WRAPPERS: &[(&str, &[&str])] = &[
    (
        "tokio",
        &[
            "agent",
            "bench",
            "blob",
            "cli",
            "client",
            "engine-wasm",
            "server",
            "wire",
            "testkit",
        ],
    ),
    ("libc", &["engine-process", "engine-vm", "guest", "sense"]),
    ("rusqlite", &["store"]),
    ("axum", &["server"]),
    // The benchmark's pretended nodes speak as agents do.
    ("tonic", &["agent", "bench", "server", "wire"]),
    ("clap", &["cli"]),
    ("wasmtime", &["engine-wasm"]),
    ("wasmtime-wasi", &["engine-wasm"]),
    ("x11rb", &["sense"]),
];

/// Everything about the dependencies that is not as the tables say.
pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let mut found = licenses(&workspace.packages);
    found.extend(bans(&workspace.packages));
    found.extend(wrappers(&workspace.packages));
    found
}

fn licenses(packages: &[Package]) -> Vec<String> {
    let refused = |p: &&Package| !p.license.as_deref().is_some_and(allowed);
    packages
        .iter()
        .filter(refused)
        .map(|p| {
            let license = p.license.as_deref().unwrap_or("none named");
            format!(
                "{}: licence {license} is not in the list (xtask/src/deps.rs)",
                p.name
            )
        })
        .collect()
}

fn bans(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, reason) in BANNED {
        if packages.iter().any(|p| p.name == *name) {
            found.push(format!("{name} is banned: {reason}"));
        }
    }
    let crypto: Vec<&str> = CRYPTO
        .iter()
        .copied()
        .filter(|name| packages.iter().any(|p| p.name == *name))
        .collect();
    if crypto.len() != 1 {
        found.push(format!(
            "exactly one crypto provider is allowed, found {crypto:?}"
        ));
    }
    found
}

fn wrappers(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages.iter().filter(|p| p.member) {
        for dependency in package.dependencies.iter().filter(|d| !d.dev) {
            let rule = WRAPPERS.iter().find(|(name, _)| *name == dependency.name);
            if let Some((name, users)) = rule
                && !users.contains(&short(&package.name))
            {
                found.push(format!(
                    "{} must not name {name}; only {users:?} may",
                    package.name
                ));
            }
        }
    }
    found
}

/// Whether an SPDX expression can be met with the licences of the list.
fn allowed(expression: &str) -> bool {
    // Manifests of before 2016 write a slash for OR.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = any(&mut rest);
    met && rest.is_empty()
}

fn any(rest: &mut &[&str]) -> bool {
    let mut met = all(rest);
    while let ["OR", tail @ ..] = *rest {
        *rest = tail;
        met |= all(rest);
    }
    met
}

fn all(rest: &mut &[&str]) -> bool {
    let mut met = one(rest);
    while let ["AND", tail @ ..] = *rest {
        *rest = tail;
        met &= one(rest);
    }
    met
}

fn one(rest: &mut &[&str]) -> bool {
    match *rest {
        ["(", tail @ ..] => {
            *rest = tail;
            let met = any(rest);
            if let [")", tail @ ..] = *rest {
                *rest = tail;
                return met;
            }
            false
        }
        [name, "WITH", exception, tail @ ..] => {
            *rest = tail;
            LICENSES.contains(&format!("{name} WITH {exception}").as_str())
        }
        [name, tail @ ..] => {
            *rest = tail;
            LICENSES.contains(name)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, license: &str) -> Package {
        Package {
            name: name.to_owned(),
            license: Some(license.to_owned()),
            dir: "/nowhere".into(),
            member: false,
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn expressions() {
        let table = [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT", true),
            ("GPL-3.0-only AND MIT", false),
            ("(MIT OR GPL-3.0-only) AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
            ("GPL-2.0-only WITH Classpath-exception-2.0", false),
            ("MIT AND (GPL-3.0-only OR AGPL-3.0-only)", false),
            ("MIT AND (", false),
            ("", false),
        ];
        for (expression, expected) in table {
            assert_eq!(allowed(expression), expected, "{expression:?}");
        }
    }

    #[test]
    fn a_planted_licence_is_found() {
        let found = licenses(&[package("good", "MIT"), package("bad", "AGPL-3.0-only")]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("bad: licence AGPL-3.0-only"),
            "{found:?}"
        );
    }

    #[test]
    fn no_licence_is_found() {
        let mut bare = package("bare", "");
        bare.license = None;
        assert_eq!(licenses(&[bare]).len(), 1);
    }

    #[test]
    fn a_planted_ban_is_found() {
        let found = bans(&[package("ring", "MIT"), package("native-tls", "MIT")]);
        assert_eq!(
            found,
            ["native-tls is banned: rustls is the one TLS library"]
        );
    }

    #[test]
    fn two_crypto_providers_are_found() {
        let found = bans(&[package("ring", "MIT"), package("boring-sys", "MIT")]);
        assert_eq!(found.len(), 1);
        assert_eq!(bans(&[]).len(), 1, "none is as wrong as two");
    }

    #[test]
    fn a_crate_that_names_tokio_is_found() {
        let mut core = package("gleaner-core", "MIT");
        core.member = true;
        core.dependencies = vec![Dependency {
            name: "tokio".to_owned(),
            dev: false,
        }];
        assert_eq!(wrappers(&[core.clone()]).len(), 1);
        core.dependencies[0].dev = true;
        assert_eq!(wrappers(&[core]).len(), 0, "tests may");
    }
}
