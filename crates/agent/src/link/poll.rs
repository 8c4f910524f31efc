//! The thrifty way: one batch each, and the server says when to call again. It costs the server
//! no connection, so one server can carry many more nodes; work starts later in turn.

use super::stream::welcome_of;
use super::{ANSWER_S, Link, Over, Packer};
use gleaner_wire::v1;
use gleaner_wire::v1::pool_client::PoolClient;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

/// Shortest and longest wait between calls, in milliseconds: a server that says 0 is not asked
/// in a circle, and leases of 30 s are renewed in time whatever it says.
const CALL_MS: (u32, u32) = (100, 20_000);

/// Where the node's condition changed it calls sooner, but not sooner than this: the server
/// chose to be called seldom.
const NEWS_APART: Duration = Duration::from_millis(500);

impl Link {
    pub(super) async fn call(
        &self,
        mut client: PoolClient<Channel>,
        met: &mut bool,
    ) -> Result<Over, Status> {
        let hello = v1::AgentBatch {
            messages: vec![self.hello().await?],
            node: 0,
        };
        let first = self.exchange(&mut client, hello).await?;
        let welcome = welcome_of(&first)?;
        *met = true;
        let mut queue = self.welcomed(&welcome);
        let mut again_ms = first.call_again_ms;
        self.deliver(first).await?;
        let mut packer = Packer::default();
        let mut condition = self.condition.clone();
        loop {
            let wait = again_ms.clamp(CALL_MS.0, CALL_MS.1);
            let wait = Duration::from_millis(wait.into());
            let news = async {
                tokio::time::sleep(NEWS_APART).await;
                // Its other end lives as long as the agent; without it only the time counts.
                if condition.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            // What changed is looked at again with each call, whatever led to it.
            let _news_or_time = tokio::time::timeout(wait, news).await;
            condition.mark_unchanged();
            packer.waiting.extend(self.beat());
            while let Ok(message) = queue.try_recv() {
                packer.waiting.push_back(message);
            }
            if queue.is_closed() {
                return Ok(Over::Broken(Status::aborted("the agent wants a new link")));
            }
            while let Some(mut batch) = packer.next() {
                batch.node = welcome.node;
                let answer = self.exchange(&mut client, batch).await?;
                again_ms = answer.call_again_ms;
                self.deliver(answer).await?;
            }
        }
    }

    async fn exchange(
        &self,
        client: &mut PoolClient<Channel>,
        batch: v1::AgentBatch,
    ) -> Result<v1::ServerBatch, Status> {
        let answer = client.poll(self.request(batch));
        tokio::time::timeout(Duration::from_secs(ANSWER_S), answer)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the server does not answer")))
            .map(tonic::Response::into_inner)
    }
}
