//! Results come home: `DIR/<INDEX>/<name>`, merged files in `DIR/`.
//!
//! Names come from programs that may be hostile: nothing is ever written outside the folder, nor
//! through a link inside it. A file appears under its name only when it is whole and has its
//! digest; what is there already with the right content is left alone.

use crate::blobs::{self, SMALL_BYTES_MAX};
use crate::{Client, ClientError, Progress};
use futures_util::{StreamExt as _, TryStreamExt as _};
use gleaner_api::ResultFile;
use gleaner_model::{BlobRef, JobId};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

/// Large files on their way at the same time.
const PARALLEL: usize = 4;

/// What a fetch brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Files that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already.
    pub kept: u64,
}

/// Brings the results of a job into `folder`, which is made where it is missing and there is
/// something to put into it.
///
/// # Errors
/// As every call; [`ClientError::Transfer`] where a name would leave the folder or a blob is damaged;
/// [`ClientError::Local`] where the folder cannot be written.
pub async fn fetch(
    client: &Client,
    job: JobId,
    folder: &Path,
    progress: &Progress,
) -> Result<Fetched, ClientError> {
    let mut fetched = Fetched::default();
    let mut cursor: Option<String> = None;
    loop {
        let page = client.results(job, cursor.as_deref()).await?;
        fetch_files(client, &page.files, folder, (progress, &mut fetched)).await?;
        // A cursor that does not move would never end.
        match page.next {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(fetched),
        }
    }
}

async fn fetch_files(
    client: &Client,
    files: &[ResultFile],
    folder: &Path,
    (progress, fetched): (&Progress, &mut Fetched),
) -> Result<(), ClientError> {
    if !files.is_empty() {
        std::fs::create_dir_all(folder).map_err(ClientError::local("make the folder", folder))?;
    }
    // One blob may stand at many places; it travels once.
    let mut small: BTreeMap<BlobRef, Vec<(PathBuf, u32)>> = BTreeMap::new();
    let mut large = Vec::new();
    for file in files {
        let path = place(folder, file)?;
        if is_there(&path, file).await {
            fetched.kept += 1;
            continue;
        }
        progress.expect_bytes(file.blob.size);
        fetched.files += 1;
        fetched.bytes += file.blob.size;
        if file.blob.size <= SMALL_BYTES_MAX {
            small.entry(file.blob).or_default().push((path, file.mode));
        } else {
            large.push((file.blob, path, file.mode));
        }
    }
    let batches = blobs::batches(small.into_iter().collect(), |(blob, _)| blob.size);
    for batch in batches {
        let wanted: Vec<BlobRef> = batch.iter().map(|(blob, _)| *blob).collect();
        let parts = blobs::get_small(client, &wanted).await?;
        for (part, (blob, places)) in parts.iter().zip(&batch) {
            for (path, mode) in places {
                let mut temp = temp_beside(path)?;
                temp.write_all(part)
                    .map_err(ClientError::local("write", path))?;
                settle(temp, path, *mode)?;
                progress.moved(blob.size, 1);
            }
        }
    }
    futures_util::stream::iter(large)
        .map(Ok)
        .try_for_each_concurrent(PARALLEL, async |(blob, path, mode)| {
            let temp = temp_beside(&path)?;
            blobs::get_large(client, blob, temp.path(), progress).await?;
            settle(temp, &path, mode)
        })
        .await
}

/// Where a result goes; makes the folders on the way.
fn place(folder: &Path, file: &ResultFile) -> Result<PathBuf, ClientError> {
    let name = Path::new(&file.name);
    let refuse = |why: &str| {
        ClientError::Transfer(format!(
            "the result {:?} {why}; it was not fetched. Choose another folder, or another name \
             for the output",
            file.name
        ))
    };
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if file.name.is_empty() || !name.components().all(plain) || file.name.contains('\0') {
        return Err(refuse("has a name that leads out of the folder"));
    }
    let relative = match file.index {
        Some(index) => Path::new(&index.to_string()).join(name),
        None => name.to_path_buf(),
    };
    let parents: Vec<Component<'_>> = relative
        .parent()
        .into_iter()
        .flat_map(Path::components)
        .collect();
    let mut path = folder.to_path_buf();
    for part in parents {
        path.push(part);
        match std::fs::symlink_metadata(&path) {
            Ok(about) if about.is_dir() => {}
            Ok(_) => {
                return Err(refuse(
                    "would be written through a link or a file in its way",
                ));
            }
            Err(_) => {
                std::fs::create_dir(&path).map_err(ClientError::local("make the folder", &path))?;
            }
        }
    }
    let path = folder.join(relative);
    if std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir()) {
        return Err(refuse("has a folder in its way"));
    }
    Ok(path)
}

/// Whether the file is there with the right content, as after a fetch that was broken off.
async fn is_there(path: &Path, file: &ResultFile) -> bool {
    let same_size = std::fs::symlink_metadata(path)
        .is_ok_and(|about| about.is_file() && about.len() == file.blob.size);
    if !same_size {
        return false;
    }
    let path = path.to_path_buf();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(path)?)?;
        Ok::<_, std::io::Error>(hasher.finalize())
    });
    matches!(hashed.await, Ok(Ok(hash)) if hash.as_bytes() == &file.blob.digest.0)
}

fn temp_beside(path: &Path) -> Result<tempfile::NamedTempFile, ClientError> {
    let folder = path.parent().unwrap_or(path);
    tempfile::Builder::new()
        .prefix(".gleaner-")
        .suffix(".part")
        .tempfile_in(folder)
        .map_err(ClientError::local("write into", folder))
}

fn settle(temp: tempfile::NamedTempFile, path: &Path, mode: u32) -> Result<(), ClientError> {
    // No set-uid bit comes home, and the user may always read and remove what is theirs.
    let mode = mode & 0o777 | 0o400;
    temp.as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .map_err(ClientError::local("write", path))?;
    temp.persist(path)
        .map(drop)
        .map_err(|problem| ClientError::local("write", path)(problem.error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_model::Digest;

    fn result(index: Option<u32>, name: &str) -> ResultFile {
        ResultFile {
            index,
            name: name.into(),
            blob: BlobRef {
                digest: Digest(*blake3::hash(b"x").as_bytes()),
                size: 1,
            },
            mode: 0o4755,
        }
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("results");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(outer.path(), folder.join("3")).unwrap();
        std::fs::create_dir_all(folder.join("4/out")).unwrap();
        for (index, name) in [
            (Some(0), "../x"),
            (Some(0), "/etc/x"),
            (Some(0), ""),
            (Some(0), "a/../../x"),
            (Some(0), "."),
            (None, ".."),
            (None, "a\0b"),
            (Some(3), "x"),
            (Some(4), "out"),
        ] {
            let found = place(&folder, &result(index, name));
            assert!(
                matches!(found, Err(ClientError::Transfer(_))),
                "{index:?} {name:?}"
            );
        }
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
        for (index, name, expected) in [
            (Some(0), "stdout", "0/stdout"),
            (Some(12), "a/b/c.png", "12/a/b/c.png"),
            (None, "all.txt", "all.txt"),
            (Some(1), "..hidden", "1/..hidden"),
        ] {
            let path = place(&folder, &result(index, name)).unwrap();
            assert_eq!(path.strip_prefix(&folder).unwrap(), Path::new(expected));
        }
    }

    #[tokio::test]
    async fn a_file_settles_whole_over_links_and_without_setuid() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("results");
        std::fs::create_dir_all(folder.join("0")).unwrap();
        let victim = outer.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, folder.join("0/x")).unwrap();
        let file = result(Some(0), "x");
        let path = place(&folder, &file).unwrap();
        assert!(!is_there(&path, &file).await, "a link is not the file");
        let mut temp = temp_beside(&path).unwrap();
        temp.write_all(b"x").unwrap();
        settle(temp, &path, file.mode).unwrap();
        assert!(is_there(&path, &file).await);
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        std::fs::write(&path, "y").unwrap();
        assert!(!is_there(&path, &file).await, "same size, other content");
    }
}
