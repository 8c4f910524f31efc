//! A server of which a part broke.

use super::pool::{PATIENCE, TestPool};
use crate::ServerError;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_driver_broke_ends() {
    let pool = TestPool::start().await;
    let driver = pool.server.shared.driver.clone();
    let unanswered: Result<(), _> = driver.read(|_| panic!("told to")).await;
    assert!(unanswered.is_err());
    let ending = pool.server.until(std::future::pending());
    let ended = tokio::time::timeout(PATIENCE, ending).await;
    let ended = ended.expect("it does not go on as if it could answer");
    assert!(matches!(ended, Err(ServerError::Panicked)), "{ended:?}");
}
