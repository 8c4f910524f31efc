//! Container images: the OCI image layout (`image-layout`, `image-index`, `manifest` and `config`
//! of the OCI image specification) and the archive that `docker save` writes.

use super::archive::{self, Index, Kind, small};
use super::{LeftOut, plain};
use crate::content::Part;
use crate::{ImageError, Tree, io_at};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// Largest description, as the specification bounds manifests.
const JSON_BYTES_MAX: u64 = 4 << 20;

/// Indexes that may lie within one another.
const INDEXES_MAX: u32 = 4;

/// Links followed to a layer: old archives share equal layers so.
const LINKS_MAX: u32 = 8;

/// The path that tasks have unless they are given another.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Files by name, in a directory or an archive.
#[derive(Debug)]
pub(super) enum Files {
    Directory(PathBuf),
    Archive(Index),
}

fn wrong(text: impl Into<String>) -> ImageError {
    ImageError::Source(text.into())
}

impl Files {
    pub(super) fn has(&self, name: &[u8]) -> bool {
        matches!(self, Self::Archive(index) if index.files.contains_key(name))
    }

    /// `name` is one of ours: it has been checked, or is looked up in an archive's list only.
    fn part(&self, name: &str) -> Result<Part, ImageError> {
        match self {
            Self::Directory(dir) => {
                let path = dir.join(name);
                let file = File::open(&path).map_err(io_at(format!("open {}", path.display())))?;
                Part::whole(file).map_err(io_at(format!("open {}", path.display())))
            }
            Self::Archive(Index { files, links }) => {
                let mut name = name.as_bytes().to_vec();
                for _ in 0..LINKS_MAX {
                    if let Some(part) = files.get(&name) {
                        return Ok(part.clone());
                    }
                    let Some(target) = links.get(&name) else {
                        break;
                    };
                    name = beside(&name, target);
                }
                let name = String::from_utf8_lossy(&name).into_owned();
                Err(wrong(format!(
                    "the archive lacks {name}; save the image again"
                )))
            }
        }
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, ImageError> {
        let text = small(&self.part(name)?, JSON_BYTES_MAX)?;
        serde_json::from_slice(&text).map_err(|error| wrong(format!("{name} is damaged: {error}")))
    }

    /// A blob of an OCI layout, its digest checked.
    fn blob(&self, digest: &str) -> Result<Part, ImageError> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| {
            hex.len() == 64
                && hex
                    .bytes()
                    .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
        });
        let hex = hex.ok_or_else(|| wrong(format!("{digest:?} is no digest of kind sha256")))?;
        let part = self.part(&format!("blobs/sha256/{hex}"))?;
        match sha256(&part)? == digest {
            true => Ok(part),
            false => Err(wrong(format!(
                "blob sha256:{hex} has other content than its name says; fetch the image again"
            ))),
        }
    }

    fn blob_json<T: DeserializeOwned>(&self, digest: &str) -> Result<T, ImageError> {
        let text = small(&self.blob(digest)?, JSON_BYTES_MAX)?;
        serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("{digest} is damaged: {error}")))
    }
}

/// The digest of a file, as descriptions write it.
fn sha256(part: &Part) -> Result<String, ImageError> {
    let mut hasher = Sha256::new();
    let (mut reader, mut buffer) = (part.reader(), vec![0; 256 << 10]);
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(io_at("read a blob of the image"))?;
        if count == 0 {
            break;
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
    let digits = hasher.finalize();
    let digits = digits.iter().map(|byte| format!("{byte:02x}"));
    Ok(format!("sha256:{}", digits.collect::<String>()))
}

/// Where a link in an archive leads: from its own directory, or from the top.
fn beside(name: &[u8], target: &[u8]) -> Vec<u8> {
    let mut way: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    way.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(way.pop()),
            name => way.push(name),
        }
    }
    way.join(&b'/')
}

#[derive(Deserialize)]
struct Described {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// A manifest, or an index of some.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Vec<Described>,
    #[serde(default)]
    layers: Vec<Described>,
    #[serde(default)]
    config: Option<Described>,
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(default)]
    config: Option<Settings>,
    #[serde(default)]
    rootfs: Layers,
}

/// Digests of the layers as they are without compression.
#[derive(Deserialize, Default)]
struct Layers {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    #[serde(default)]
    env: Option<Vec<String>>,
}

/// What the image's author set that tasks do not get by themselves.
fn hints(config: Config) -> Vec<String> {
    let env = config.config.unwrap_or_default().env.unwrap_or_default();
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH="));
    let other = path.filter(|path| {
        let usual: Vec<&str> = USUAL_PATH.split(':').collect();
        path.split(':').any(|dir| !usual.contains(&dir))
    });
    let hint = |path| format!("the image's own PATH is not set for tasks: add --env PATH={path}");
    other.map(hint).into_iter().collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Puts the image of an OCI layout into the tree; hints for its user.
pub(super) fn oci(
    files: &Files,
    tree: &mut Tree,
    left_out: &mut LeftOut,
) -> Result<Vec<String>, ImageError> {
    let mut manifest: Manifest = files.json("index.json")?;
    for _ in 0..INDEXES_MAX {
        if manifest.manifests.is_empty() {
            break;
        }
        manifest = files.blob_json(&choose(&manifest.manifests)?.digest)?;
    }
    if manifest.layers.is_empty() {
        return Err(wrong("the layout has no image in it"));
    }
    for layer in &manifest.layers {
        let layer = plain::plain(files.blob(&layer.digest)?, tree.bytes_max())?;
        archive::apply(&layer, Kind::Layer, tree, left_out)?;
    }
    let config = manifest
        .config
        .map(|config| files.blob_json(&config.digest));
    Ok(hints(config.transpose()?.unwrap_or_default()))
}

/// The one image for this kind of PC.
fn choose(all: &[Described]) -> Result<&Described, ImageError> {
    let fits = |one: &&Described| {
        one.platform.as_ref().is_none_or(|platform| {
            platform.os == "linux" && platform.architecture == architecture()
        })
    };
    let mut fitting = all.iter().filter(fits);
    let Some(first) = fitting.next() else {
        let of = |one: &Described| {
            let platform = one.platform.as_ref();
            platform.map_or_else(String::new, |p| format!("{}/{}", p.os, p.architecture))
        };
        let there: Vec<String> = all.iter().map(of).collect();
        return Err(wrong(format!(
            "there is no image for linux/{} in the layout, only for {}",
            architecture(),
            there.join(", ")
        )));
    };
    if fitting.all(|other| other.digest == first.digest) {
        return Ok(first);
    }
    let name = |one: &Described| {
        one.annotations
            .get("org.opencontainers.image.ref.name")
            .cloned()
    };
    let names: Vec<String> = all.iter().filter(fits).filter_map(name).collect();
    Err(wrong(format!(
        "there are several images in the layout ({}); copy one of them to a layout of its own, \
         as with `skopeo copy`",
        names.join(", ")
    )))
}

/// One image of an archive of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Saved {
    #[serde(default)]
    config: Option<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The list of layers, where this is such an archive.
pub(super) fn docker_layers(files: &Files) -> Result<Option<Saved>, ImageError> {
    if !files.has(b"manifest.json") {
        return Ok(None);
    }
    let Ok(mut all) = files.json::<Vec<Saved>>("manifest.json") else {
        // A file that happens to have this name.
        return Ok(None);
    };
    match (all.pop(), all.len()) {
        (one, 0) => Ok(one),
        (one, _) => {
            let tags = all
                .into_iter()
                .chain(one)
                .filter_map(|saved| saved.repo_tags)
                .flatten();
            Err(wrong(format!(
                "there are several images in the archive ({}); save one of them",
                tags.collect::<Vec<_>>().join(", ")
            )))
        }
    }
}

/// Puts a saved image into the tree; hints for its user.
pub(super) fn docker(
    files: &Files,
    saved: &Saved,
    tree: &mut Tree,
    left_out: &mut LeftOut,
) -> Result<Vec<String>, ImageError> {
    let config = saved.config.as_ref().map(|config| files.json(config));
    let config: Config = config.transpose()?.unwrap_or_default();
    let known = &config.rootfs.diff_ids;
    // Names of layers say nothing; some programs that save images give no digests either.
    let known = (known.len() == saved.layers.len()).then_some(known);
    for (at, name) in saved.layers.iter().enumerate() {
        let layer = plain::plain(files.part(name)?, tree.bytes_max())?;
        let said = known.and_then(|known| known.get(at));
        if let Some(said) = said
            && sha256(&layer)? != *said
        {
            return Err(wrong(format!(
                "layer {name} has other content than the image's description says; save the \
                 image again"
            )));
        }
        archive::apply(&layer, Kind::Layer, tree, left_out)?;
    }
    Ok(hints(config))
}
