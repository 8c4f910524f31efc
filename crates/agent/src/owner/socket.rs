//! The socket for the owner: a question a connection, one line each way.
//!
//! The kernel says who asks; who is no owner is told so before a word of theirs is read. Nothing
//! that a peer does holds this up: questions are short, waits are bounded, and each uid has a few
//! connections at once.

use super::desk::Desk;
use super::peer::Peer;
use super::protocol::{ASK_BYTES_MAX, Answer, Refusal};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// The socket's name in the agent's directory, and beginning of its name elsewhere.
pub(super) const NAME: &str = "owner";

/// Most agents of one PC that have a socket in the shared directory.
pub(super) const AGENTS_MAX: u32 = 64;

/// Connections of one uid at once: a terminal view, a page and a few scripts.
const CONNECTIONS_MAX: u32 = 16;

/// Uids with connections at once.
const UIDS_MAX: usize = 64;

/// How long a peer may take to ask and to read.
const PEER_WAIT: Duration = Duration::from_secs(5);

/// Wait after a failed accept: the system is out of descriptors or memory.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// Longest path of a socket that the kernel takes, in bytes, its end included.
const PATH_BYTES_MAX: usize = 108;

/// A socket file that goes when this does.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Whoever removed it before us did what we want.
        let _gone = fs::remove_file(&self.path);
    }
}

/// The directory in which agents of this user are found: `$GLEANER_RUN`, else `/run/gleaner` for
/// root, else `$XDG_RUNTIME_DIR/gleaner`, else the same where logind would have it.
pub(super) fn shared_directory() -> Option<PathBuf> {
    if let Some(chosen) = std::env::var_os("GLEANER_RUN").filter(|path| !path.is_empty()) {
        return Some(chosen.into());
    }
    if rustix::process::geteuid().is_root() {
        return Some("/run/gleaner".into());
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    let runtime = runtime.map(PathBuf::from).or_else(runtime_of_user)?;
    Some(runtime.join("gleaner"))
}

/// What `$XDG_RUNTIME_DIR` would be: `su` and `cron` do not say, and an agent of the same user may
/// have been started by that user's systemd.
fn runtime_of_user() -> Option<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let dir = Path::new("/run/user").join(user.to_string());
    let owner = fs::metadata(&dir).ok()?.uid();
    (owner == user).then_some(dir)
}

/// A path that the kernel takes, however deep the directory lies; good while the directory is
/// open.
pub(super) fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok((path.to_owned(), None));
    };
    if path.as_os_str().len() < PATH_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let dir = File::open(dir)?;
    let path = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name);
    Ok((path, Some(dir)))
}

/// The sockets of an agent: one in its own directory, one where its owner looks first. The own
/// one must be had; the other is a comfort.
pub(crate) fn bind(home: &Path) -> io::Result<Vec<Bound>> {
    let own = home.join(format!("{NAME}.sock"));
    // The agent's directory is locked, so whatever lies there is of a dead one.
    let _gone = fs::remove_file(&own);
    let mut bound = vec![bind_at(own)?];
    if let Some(dir) = shared_directory() {
        match bind_shared(&dir) {
            Ok(shared) => bound.push(shared),
            Err(error) => tracing::warn!(
                target: "gleaner::owner", %error, dir = %dir.display(),
                "owners find this agent with --data only"
            ),
        }
    }
    Ok(bound)
}

pub(super) fn bind_at(path: PathBuf) -> io::Result<Bound> {
    let (short, _dir) = short(&path)?;
    let listener = UnixListener::bind(&short)?;
    // Anybody may ask; who is an owner is decided by who asks.
    fs::set_permissions(&short, Permissions::from_mode(0o666))?;
    Ok(Bound { listener, path })
}

/// Takes the first name that no living agent has.
fn bind_shared(dir: &Path) -> io::Result<Bound> {
    if !dir.exists() {
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    // Two agents that find the same dead socket must not both remove it.
    let lock = options.open(dir.join("lock"))?;
    lock.lock()?;
    for number in 1..=AGENTS_MAX {
        let path = shared_path(dir, number);
        if path.exists() {
            if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                continue;
            }
            fs::remove_file(&path)?;
        }
        return bind_at(path);
    }
    Err(io::Error::other("too many agents have a socket there"))
}

pub(super) fn shared_path(dir: &Path, number: u32) -> PathBuf {
    match number {
        1 => dir.join(format!("{NAME}.sock")),
        more => dir.join(format!("{NAME}-{more}.sock")),
    }
}

/// How many connections each uid has.
type Counts = Arc<Mutex<BTreeMap<u32, u32>>>;

/// A place among the connections of a uid.
#[derive(Debug)]
struct Place {
    counts: Counts,
    uid: u32,
}

impl Place {
    fn take(counts: &Counts, uid: u32) -> Option<Self> {
        let mut all = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= UIDS_MAX && !all.contains_key(&uid) {
            return None;
        }
        let count = all.entry(uid).or_default();
        if *count >= CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Self {
            counts: Arc::clone(counts),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.uid);
            }
        }
    }
}

/// Answers owners until `stop`.
pub(crate) async fn serve(bound: Bound, desk: Arc<Desk>, stop: CancellationToken) {
    let counts = Counts::default();
    loop {
        let accepted = tokio::select! {
            accepted = bound.listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(target: "gleaner::owner", %error, "an owner could not be heard");
                tokio::time::sleep(ACCEPT_WAIT).await;
                continue;
            }
        };
        let Ok(peer) = stream.peer_cred() else {
            continue;
        };
        let peer = Peer {
            uid: peer.uid(),
            gid: peer.gid(),
            pid: peer.pid(),
        };
        let Some(place) = Place::take(&counts, peer.uid) else {
            refuse_now(
                &stream,
                &Refusal::no("too many connections of yours at once; try again"),
            );
            continue;
        };
        let (desk, registry) = (Arc::clone(&desk), Arc::clone(desk.registry()));
        tokio::spawn(async move {
            let _place = place;
            let look = tokio::task::spawn_blocking(move || registry.admit(peer));
            match look.await {
                Ok(Ok(())) => converse(stream, &desk, peer).await,
                Ok(Err(sentence)) => refuse_now(&stream, &Refusal::no(sentence)),
                Err(error) => tracing::error!(target: "gleaner::owner", %error, "cannot look"),
            }
        });
    }
}

/// A fresh socket has room for a sentence; a peer that will not read it goes without.
fn refuse_now(stream: &UnixStream, refusal: &Refusal) {
    let line = line(&Answer::Refused(refusal.clone()));
    if let Err(error) = stream.try_write(&line) {
        tracing::debug!(target: "gleaner::owner", %error, "a refusal was not heard");
    }
}

async fn converse(mut stream: UnixStream, desk: &Arc<Desk>, peer: Peer) {
    let asked = tokio::time::timeout(PEER_WAIT, question(&mut stream)).await;
    let answer = match asked {
        Ok(Ok(ask)) => desk.answer_peer(ask, peer).await,
        Ok(Err(sentence)) => Answer::Refused(Refusal::usage(sentence)),
        Err(_) => Answer::Refused(Refusal::usage("no question came")),
    };
    let line = line(&answer);
    let told = tokio::time::timeout(PEER_WAIT, stream.write_all(&line)).await;
    if !matches!(told, Ok(Ok(()))) {
        tracing::debug!(target: "gleaner::owner", "an answer was not heard");
    }
}

async fn question(stream: &mut UnixStream) -> Result<super::protocol::Ask, String> {
    let mut text = Vec::new();
    let most = u64::try_from(ASK_BYTES_MAX).unwrap_or(u64::MAX);
    let mut reader = BufReader::new(stream.take(most));
    let read = reader.read_until(b'\n', &mut text).await;
    read.map_err(|error| error.to_string())?;
    if text.last() != Some(&b'\n') && text.len() >= ASK_BYTES_MAX {
        return Err(format!("a question has at most {ASK_BYTES_MAX} bytes"));
    }
    serde_json::from_slice(&text).map_err(|error| {
        format!("the question makes no sense ({error}); is the agent of another version?")
    })
}

fn line(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    line
}
