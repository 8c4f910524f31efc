//! The data directory: what lies there, made at the first start and read at every other.
//!
//! `ca.pem`, `ca.key`, `admin.token`, `node.token`, `client.toml`, `store.sqlite`, `blobs/`,
//! `lock`. Whatever holds a secret is readable by its owner only.

use crate::driver::DriverParts;
use crate::images::Images;
use crate::shared::SharedParts;
use crate::tls::{self, Authority};
use crate::tokens::{self, Tokens};
use crate::wall;
use crate::{ServerConfig, ServerError};
use gleaner_blob::Blobs;
use gleaner_model::UserId;
use gleaner_store::{Loaded, MemoryStore, ServerRow, SqliteStore, Store, TokenKind, TokenRow};
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The first user of a pool: the token in `client.toml` is theirs.
const FIRST_USER: UserId = UserId(1);

/// The store, and the file that is written when everything else is there: a directory that has it
/// belongs to a pool that has run.
const STORE: &str = "store.sqlite";
const WELCOME: &str = "client.toml";

/// Everything that a start needs from the disk.
pub(crate) struct Opened {
    pub(crate) driver: DriverParts,
    pub(crate) parts: SharedParts,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) welcome: Welcome,
}

/// What is written once the server takes connections: who finds it may connect at once.
pub(crate) struct Welcome {
    data: PathBuf,
    client: String,
    node_token: String,
}

impl Welcome {
    pub(crate) fn write(&self) -> Result<(), ServerError> {
        write_secret(
            &self.data.join("node.token"),
            &format!("{}\n", self.node_token),
        )?;
        write_secret(&self.data.join(WELCOME), &self.client)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ServerError {
    let path = path.to_owned();
    move |source| ServerError::Data { what, path, source }
}

fn write_secret(path: &Path, text: &str) -> Result<(), ServerError> {
    write_whole(path, text, 0o600)
}

/// Writes beside and renames: a reader sees all of it or nothing, and so does the next start where
/// this one is killed.
fn write_whole(path: &Path, text: &str, mode: u32) -> Result<(), ServerError> {
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(&beside).map_err(failed("write", &beside))?;
    file.write_all(text.as_bytes())
        .map_err(failed("write", &beside))?;
    file.sync_all().map_err(failed("write", &beside))?;
    fs::rename(&beside, path).map_err(failed("write", path))
}

fn read_text(path: &Path) -> Result<Option<String>, ServerError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

pub(crate) fn open(config: ServerConfig, addr: SocketAddr) -> Result<Opened, ServerError> {
    fs::create_dir_all(&config.data).map_err(failed("make", &config.data))?;
    let data = config
        .data
        .canonicalize()
        .map_err(failed("find", &config.data))?;
    let lock = lock(&data)?;
    let authority = authority(&data)?;
    let fingerprint = authority.fingerprint()?;
    let store = open_store(config.store_url.as_deref(), &data)?;
    let blobs = open_blobs(config.blobs_url.as_deref(), &data)?;
    let mut loaded = store.load()?;
    if config.store_url.is_none() && loaded.tokens.is_empty() {
        never_used(&data)?;
    }
    let first = first_tokens(&data, &fingerprint, store.as_ref(), &mut loaded)?;
    let tls = match config.plain_http {
        true => None,
        false => Some(certified(&authority, tls::names(addr, &config.names))?),
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let ca = data.join("ca.pem");
    let client = format!(
        "server = \"{scheme}://{}\"\ntoken = \"{}\"\nca = {:?}\n",
        reachable(addr),
        first.admin,
        ca.display().to_string(),
    );
    Ok(Opened {
        parts: SharedParts {
            tokens: Tokens::new(&loaded.tokens, &fingerprint),
            images: Images::new(&loaded.images),
            store: Arc::clone(&store),
            blobs,
            lock,
            node_settings: config.node_settings.unwrap_or_default().into_bytes(),
            default_engine: config.default_engine,
            keep_jobs: config.keep_jobs,
            body_silence: config.body_silence,
        },
        driver: DriverParts { store, loaded },
        tls,
        welcome: Welcome {
            data,
            client,
            node_token: first.node,
        },
    })
}

fn certified(
    authority: &Authority,
    names: Vec<String>,
) -> Result<Arc<rustls::ServerConfig>, ServerError> {
    // Who cannot connect by another name finds out here why.
    tracing::info!(
        names = names.join(" "),
        "the certificate is for these names"
    );
    authority.server(names)
}

/// The address as a client on this machine reaches it.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match (addr.ip().is_unspecified(), addr.is_ipv4()) {
        (false, _) => addr.ip(),
        (true, true) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (true, false) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, addr.port())
}

/// Two servers on one directory would both write it. The lock goes with the process.
fn lock(data: &Path) -> Result<File, ServerError> {
    let path = data.join("lock");
    let file = File::create(&path).map_err(failed("make", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServerError::Busy(data.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
    }
}

fn authority(data: &Path) -> Result<Authority, ServerError> {
    let (pem, key) = (data.join("ca.pem"), data.join("ca.key"));
    let lost = match (read_text(&pem)?, read_text(&key)?) {
        (Some(certificate), Some(key)) => return Ok(Authority { certificate, key }),
        // Written first, so no start that was killed leaves the other alone.
        (Some(_), None) => Some(key.clone()),
        (None, Some(_)) => data.join(WELCOME).exists().then(|| pem.clone()),
        (None, None) => None,
    };
    // Nodes and users may have been told whom to trust.
    if let Some(lost) = lost {
        return Err(ServerError::KeyLost(lost));
    }
    let made = Authority::make()?;
    write_secret(&key, &made.key)?;
    write_whole(&pem, &made.certificate, 0o644)?;
    Ok(made)
}

/// An empty store beside a pool that has run is a store that was lost. To begin anew in silence
/// would be worse than not to begin.
fn never_used(data: &Path) -> Result<(), ServerError> {
    match data.join(WELCOME).exists() {
        true => Err(ServerError::StoreLost {
            store: data.join(STORE),
            welcome: data.join(WELCOME),
        }),
        false => Ok(()),
    }
}

fn open_store(url: Option<&str>, data: &Path) -> Result<Arc<dyn Store>, ServerError> {
    let expected = "write sqlite:PATH, or leave it out";
    match url {
        None => Ok(Arc::new(SqliteStore::open(&data.join(STORE))?)),
        Some("memory:") => Ok(Arc::new(MemoryStore::new())),
        Some(url) => match url.strip_prefix("sqlite:") {
            Some(path) => Ok(Arc::new(SqliteStore::open(Path::new(path))?)),
            None => Err(ServerError::Url {
                url: url.to_owned(),
                expected,
            }),
        },
    }
}

fn open_blobs(url: Option<&str>, data: &Path) -> Result<Blobs, ServerError> {
    let path = match url {
        None => data.join("blobs"),
        Some(url) => match url.strip_prefix("file:") {
            Some(path) => PathBuf::from(path),
            None => {
                return Err(ServerError::Url {
                    url: url.to_owned(),
                    expected: "write file:PATH, or leave it out",
                });
            }
        },
    };
    Ok(Blobs::open(&path)?)
}

struct FirstTokens {
    admin: String,
    node: String,
}

/// The admin's and the nodes' first tokens: made where their files or their rows are missing.
fn first_tokens(
    data: &Path,
    fingerprint: &str,
    store: &dyn Store,
    loaded: &mut Loaded,
) -> Result<FirstTokens, ServerError> {
    let mut rows = Vec::new();
    if loaded.users.is_empty() {
        loaded.users.push((FIRST_USER, "admin".to_owned()));
        rows.push(ServerRow::User(FIRST_USER, "admin".to_owned()));
    }
    let mut first = |file: &str, kind: TokenKind| -> Result<String, ServerError> {
        let path = data.join(file);
        let known = read_text(&path)?.map(|text| text.trim().to_owned());
        let valid = |text: &String| {
            let hash = tokens::hash(text);
            loaded
                .tokens
                .iter()
                .any(|row| row.hash == hash && !row.revoked)
        };
        if let Some(known) = known.filter(valid) {
            return Ok(known);
        }
        let text = tokens::new_token(kind, fingerprint)?;
        let row = TokenRow {
            id: loaded.tokens.iter().map(|row| row.id).max().unwrap_or(0) + 1,
            hash: tokens::hash(&text),
            kind,
            name: match kind {
                TokenKind::Node => "first".to_owned(),
                TokenKind::Admin | TokenKind::User => "admin".to_owned(),
            },
            user: (kind != TokenKind::Node).then_some(FIRST_USER),
            created: wall::now(),
            revoked: false,
        };
        rows.push(ServerRow::Token(row.clone()));
        loaded.tokens.push(row);
        write_secret(&path, &format!("{text}\n"))?;
        Ok(text)
    };
    let admin = first("admin.token", TokenKind::Admin)?;
    let node = first("node.token", TokenKind::Node)?;
    store.commit(&[], &rows)?;
    Ok(FirstTokens { admin, node })
}
