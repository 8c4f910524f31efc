//! `gleaner dev`: a whole pool on this PC, as child processes of this one.
//!
//! The server starts first, then one node, which measures idle priority for all, then the others.
//! Children hold the read end of a pipe of ours: when we die, however we die, they stop.

mod child;
mod leftovers;

use crate::daemon::{self, DaemonOptions};
use crate::out::{self, Failure, Outcome, REFUSED};
use crate::session;
use child::{Child, Launch};
use gleaner_client::{Client, Places, Settings};
use gleaner_model::NodeState;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most nodes of one dev pool; each is a process with a sandbox pool of its own.
const NODES_MAX: u32 = 64;
/// The port that is tried first, so that the page has the same address every day.
const USUAL: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8421);
/// Longest wait for the server, and for each node, to be ready; a first start makes keys and
/// measures idle priority on a PC that may be busy.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often to look whether something is ready.
const POLL: Duration = Duration::from_millis(50);
/// How long processes that were killed may take to leave their group: they end at idle priority,
/// and the PC may be busy.
const GROUP_GONE_WITHIN: Duration = Duration::from_secs(10);
/// How often the children are looked after once the pool stands.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Run a whole pool on this PC: a server and N nodes, until Ctrl-C
///
/// Writes DIR/client.toml when the pool is ready for work, and prints the line that makes other
/// commands use it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the pool keeps everything [default: ~/.local/share/gleaner/dev]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How many nodes divide this PC between them
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: u32,
    /// Heed schedule, battery, heat and memory, as a node on an owner's PC does
    #[arg(long)]
    strict: bool,
    /// Address of the server [default: 127.0.0.1:8421, or a free port where that is taken]
    #[arg(long, value_name = "ADDR", value_parser = daemon::address)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    daemon: DaemonOptions,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let data = match &self.data {
            Some(data) => data.clone(),
            None => default_data()?,
        };
        session::block_on(async move {
            let pool = Pool::lock(&data, &self)?;
            pool.run(self).await
        })
    }
}

fn default_data() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let share = set("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/share")));
    share
        .map(|share| share.join("gleaner/dev"))
        .ok_or_else(|| Failure::usage("no home directory is known; give --data DIR"))
}

/// A pool and its folder.
struct Pool {
    data: PathBuf,
    launch: Launch,
    /// Name of the group that holds the tasks of all nodes: one a folder, so that what a killed
    /// pool left behind is found by the next.
    group: String,
    nodes: u32,
    strict: bool,
    listen: SocketAddr,
    children: Vec<Child>,
    // Held while the pool lives: two pools over one folder would fight.
    _lock: File,
}

impl Pool {
    fn lock(data: &Path, args: &Args) -> Result<Self, Failure> {
        let failed = |problem: std::io::Error| {
            Failure::usage(format!(
                "cannot use {}: {problem}; choose another --data DIR",
                data.display()
            ))
        };
        std::fs::create_dir_all(data).map_err(failed)?;
        let data = std::fs::canonicalize(data).map_err(failed)?;
        let lock = File::create(data.join("dev.lock")).map_err(failed)?;
        if lock.try_lock().is_err() {
            return Err(Failure::new(
                REFUSED,
                format!(
                    "another gleaner dev runs over {}; use it, end it, or choose another --data DIR",
                    data.display()
                ),
            ));
        }
        Ok(Self {
            launch: Launch::new(&data, args.daemon.log.as_deref()).map_err(failed)?,
            group: group_name(&data),
            nodes: args.nodes,
            strict: args.strict,
            listen: args.listen.unwrap_or_else(usual_or_free),
            children: Vec::new(),
            data,
            _lock: lock,
        })
    }

    async fn run(mut self, args: Args) -> Outcome {
        let client_file = self.data.join("client.toml");
        // Who waits for this file must not meet the one of an earlier pool.
        match std::fs::remove_file(&client_file) {
            Err(problem) if problem.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::usage(format!(
                    "cannot remove {}: {problem}",
                    client_file.display()
                )));
            }
            _ => {}
        }
        let stop = args.daemon.told_to_stop();
        tokio::pin!(stop);
        let outcome = tokio::select! {
            outcome = self.live(&client_file) => outcome,
            () = &mut stop => Ok(0),
        };
        self.end().await;
        // What is left would only mislead who finds it.
        let _absent = std::fs::remove_file(&client_file);
        outcome
    }

    /// Starts everything and looks after it; only an error ends it.
    async fn live(&mut self, client_file: &Path) -> Outcome {
        let client = self.start_server().await?;
        for number in 1..=self.nodes {
            self.start_node(number, &client)?;
            if number == 1 || number == self.nodes {
                self.wait_for_nodes(&client, number).await?;
            }
        }
        let settings = std::fs::read(self.data.join("server/client.toml"))
            .and_then(|text| write_secret(client_file, &text));
        settings
            .map_err(|e| Failure::usage(format!("cannot write {}: {e}", client_file.display())))?;
        out::print(&welcome(&client, client_file, self.nodes))?;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for child in &mut self.children {
                child.look_after()?;
            }
        }
    }

    async fn start_server(&mut self) -> Result<Client, Failure> {
        let data = self.data.join("server");
        let settings_file = data.join("client.toml");
        // The server writes it anew once it takes connections.
        let _absent = std::fs::remove_file(&settings_file);
        let (data, listen) = (data.display().to_string(), self.listen.to_string());
        let words = ["server", "--data", &data, "--listen", &listen];
        self.children.push(self.launch.start("server", &words)?);
        let started = Instant::now();
        loop {
            if settings_file.exists() {
                let settings = Settings::load(&Places {
                    flag: Some(settings_file),
                    ..Places::default()
                })?;
                // If it dies, it has to come back where the nodes look for it.
                if let Some(port) = settings
                    .server
                    .rsplit(':')
                    .next()
                    .and_then(|p| p.parse().ok())
                {
                    self.listen.set_port(port);
                    self.children[0].replace_word(&listen, &self.listen.to_string());
                }
                return Ok(Client::new(&settings)?);
            }
            self.children[0].must_run()?;
            if started.elapsed() > READY_WITHIN {
                return Err(self.children[0].late());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn start_node(&mut self, number: u32, client: &Client) -> Result<(), Failure> {
        let name = format!("node-{number}");
        let data = self.data.join(&name).display().to_string();
        let token = self.data.join("server/node.token").display().to_string();
        let nodes = self.nodes.to_string();
        let mut words = vec![
            "agent",
            "--server",
            client.server(),
            "--token-file",
            &token,
            "--data",
            &data,
            "--name",
            &name,
            "--group",
            &self.group,
            "--dev-nodes",
            &nodes,
        ];
        if number > 1 {
            // The first has measured for all: they share one group.
            words.push("--no-self-test");
        }
        if self.strict {
            words.push("--strict");
        }
        self.children.push(self.launch.start(&name, &words)?);
        Ok(())
    }

    /// Waits until the first `count` nodes are online.
    async fn wait_for_nodes(&mut self, client: &Client, count: u32) -> Result<(), Failure> {
        let names: Vec<String> = (1..=count).map(|number| format!("node-{number}")).collect();
        let started = Instant::now();
        let mut said = false;
        loop {
            for child in &mut self.children {
                child.must_run()?;
            }
            // The server may take a moment to answer; the deadline is what counts.
            let nodes = client.nodes().await.unwrap_or_default();
            let ours: Vec<_> = nodes
                .iter()
                .filter(|node| names.contains(&node.name))
                .collect();
            if ours
                .iter()
                .filter(|node| node.state == NodeState::Online)
                .count()
                == names.len()
            {
                return Ok(());
            }
            let refused = ours.iter().find(|node| node.state == NodeState::Refused);
            if let Some(node) = refused {
                if !said {
                    out::say(format!("{} refuses work: {}", node.name, node.reason));
                    said = true;
                }
                if started.elapsed() > READY_WITHIN {
                    return Err(Failure::new(
                        REFUSED,
                        format!("this PC is not fit for work: {}", node.reason),
                    ));
                }
            }
            if started.elapsed() > READY_WITHIN {
                let late = self.children.last().map(Child::late);
                return Err(
                    late.unwrap_or_else(|| Failure::new(REFUSED, "the nodes are not ready"))
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends every child, nodes first: they give back what they hold while the server listens.
    async fn end(&mut self) {
        let mut nodes = self.children.split_off(self.children.len().min(1));
        child::end_all(&mut nodes).await;
        child::end_all(&mut self.children).await;
        leftovers::end_shims(&self.data).await;
        remove_group(&self.group).await;
    }
}

/// The group of tasks goes with the pool, once the last process in it is gone.
async fn remove_group(name: &str) {
    let options = gleaner_engine_process::cgroup::DetectOptions {
        parent_name: name.to_owned(),
        ask_systemd: false,
        ..gleaner_engine_process::cgroup::DetectOptions::default()
    };
    let backend = gleaner_engine_process::cgroup::Backend::detect(&options);
    let started = Instant::now();
    loop {
        backend.sweep_stale(&|_| false);
        // An empty group costs nothing; the next pool over this folder uses it again.
        if backend.remove_parent().is_ok() || started.elapsed() > GROUP_GONE_WITHIN {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

fn group_name(data: &Path) -> String {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    data.hash(&mut hasher);
    format!("gleaner-dev-{:08x}.slice", hasher.finish() & 0xffff_ffff)
}

/// The usual address where nobody listens there, else a free port.
fn usual_or_free() -> SocketAddr {
    match TcpListener::bind(USUAL) {
        Ok(_) => USUAL,
        Err(_) => SocketAddr::new(USUAL.ip(), 0),
    }
}

/// Beside and renamed: who waits for the file sees all of it or nothing. It holds a token.
fn write_secret(file: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let beside = file.with_extension("toml.new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&beside)?.write_all(text)?;
    std::fs::rename(&beside, file)
}

fn welcome(client: &Client, client_file: &Path, nodes: u32) -> String {
    let nodes = match nodes {
        1 => "1 node".to_owned(),
        many => format!("{many} nodes"),
    };
    format!(
        "A pool of {nodes} is ready. Its page: {}/\nIn another terminal:\n\nexport \
         GLEANER_CONFIG={}\n\nCtrl-C ends the pool.\n",
        client.server(),
        quoted(&client_file.display().to_string())
    )
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_copy_survives_a_shell() {
        for (path, word) in [
            ("/home/u/pool/client.toml", "/home/u/pool/client.toml"),
            ("/home/my pool/c", "'/home/my pool/c'"),
            ("/it's", r"'/it'\''s'"),
        ] {
            assert_eq!(quoted(path), word);
        }
    }

    #[test]
    fn each_folder_has_its_own_group() {
        let name = group_name(Path::new("/a"));
        assert_eq!(name, group_name(Path::new("/a")));
        assert_ne!(name, group_name(Path::new("/b")));
        assert!(name.starts_with("gleaner-dev-") && name.ends_with(".slice"));
    }

    #[test]
    fn the_settings_appear_whole_and_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.toml");
        write_secret(&file, b"token").unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
