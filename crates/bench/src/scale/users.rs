//! Users beside the nodes: listings, a job, a page of the nodes, one call after the other; and at
//! the end what the server counted.

use super::tally::Counted;
use super::times::{REPLY_MS, Times};
use crate::dispatch::pool::Pool;
use crate::{BenchError, Goal, Row};
use gleaner_client::{Client, ClientError, JobQuery, NodeQuery, Settings};
use gleaner_model::JobId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Time between two rounds of calls.
const EVERY: Duration = Duration::from_millis(500);
/// Nodes in a page: what a screen of a web page shows.
const PAGE: u32 = 100;
/// Of so many rounds one lists all nodes.
const ALL_NODES_EACH: u32 = 20;

/// Users that look at the pool until they are stopped.
#[derive(Debug)]
pub(super) struct Users {
    calls: Arc<Calls>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ClientError>>,
}

#[derive(Debug, Default)]
struct Calls {
    /// A page of jobs, a job, a page of nodes.
    pages: Times,
    /// All nodes.
    all_nodes: Times,
}

fn broken(problem: &ClientError) -> BenchError {
    BenchError::Broken(format!("a user's call failed: {problem}"))
}

fn client(pool: &Pool) -> Result<Client, BenchError> {
    Client::new(&settings(pool)?).map_err(|problem| broken(&problem))
}

fn settings(pool: &Pool) -> Result<Settings, BenchError> {
    let places = gleaner_client::Places {
        flag: Some(pool.config()),
        ..gleaner_client::Places::default()
    };
    Settings::load(&places).map_err(|problem| broken(&problem))
}

fn number(job: &str) -> Result<JobId, BenchError> {
    let id = job.parse().map(JobId);
    id.map_err(|_| BenchError::Broken(format!("{job:?} is no job's number")))
}

impl Users {
    pub(super) fn start(runtime: &Runtime, pool: &Pool, job: &str) -> Result<Self, BenchError> {
        let (client, job) = (client(pool)?, number(job)?);
        let (calls, stop) = (Arc::<Calls>::default(), CancellationToken::new());
        let work = look(client, job, Arc::clone(&calls));
        let stopped = stop.clone();
        let task = runtime.spawn(async move {
            tokio::select! {
                ended = work => ended,
                () = stopped.cancelled() => Ok(()),
            }
        });
        Ok(Self { calls, stop, task })
    }

    /// Stops looking; what it was like.
    pub(super) fn stop(self, runtime: &Runtime) -> Result<Vec<Row>, BenchError> {
        self.stop.cancel();
        let ended = runtime.block_on(self.task);
        let ended = ended.map_err(|problem| BenchError::Broken(problem.to_string()))?;
        ended.map_err(|problem| broken(&problem))?;
        let (pages, all) = (&self.calls.pages, &self.calls.all_nodes);
        Ok(vec![
            Row::new("reply to a user, p50", pages.percentile_ms(0.5), "ms"),
            Row::new("reply to a user, p99", pages.percentile_ms(0.99), "ms")
                .goal(Goal::AtMost(REPLY_MS))
                .note(format!("{} calls: jobs, a job, {PAGE} nodes", pages.len())),
            Row::new("list all nodes, longest", all.longest_ms(), "ms").note("page after page"),
        ])
    }
}

async fn look(client: Client, job: JobId, calls: Arc<Calls>) -> Result<(), ClientError> {
    let mut round: u32 = 0;
    loop {
        let begun = Instant::now();
        client.jobs(&JobQuery::default()).await?;
        calls.pages.count(begun.elapsed());
        let begun = Instant::now();
        client.job(job).await?;
        calls.pages.count(begun.elapsed());
        let begun = Instant::now();
        let query = NodeQuery {
            after: Some(round.wrapping_mul(PAGE)),
            limit: Some(PAGE),
        };
        client.nodes_page(&query).await?;
        calls.pages.count(begun.elapsed());
        if round.is_multiple_of(ALL_NODES_EACH) {
            let begun = Instant::now();
            client.nodes().await?;
            calls.all_nodes.count(begun.elapsed());
        }
        round += 1;
        tokio::time::sleep(EVERY).await;
    }
}

/// Tasks done, as the job says and as its nodes say.
pub(super) fn counted(runtime: &Runtime, pool: &Pool, job: &str) -> Result<Counted, BenchError> {
    let (client, job) = (client(pool)?, number(job)?);
    let asked = runtime.block_on(async {
        let nodes = client.nodes().await?;
        Ok::<_, ClientError>((client.job(job).await?, nodes))
    });
    let (job, nodes) = asked.map_err(|problem| broken(&problem))?;
    Ok(Counted {
        job: job.tasks.done,
        nodes: nodes.iter().map(|node| node.tasks_done).sum(),
    })
}
