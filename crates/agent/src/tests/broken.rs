//! A dispatch loop that hangs or breaks must not look like one that works.

use super::{DEADLINE, Scene, bundle, until};
use crate::AgentError;
use gleaner_wire::v1::agent_message::Kind;
use std::time::Duration;

/// Ten times what lies between two beats to the fake server.
const TEN_BEATS: Duration = Duration::from_secs(2);

const fn is_beat(kind: &Kind) -> Option<()> {
    match kind {
        Kind::Beat(_) => Some(()),
        Kind::Hello(_)
        | Kind::Offer(_)
        | Kind::Progress(_)
        | Kind::Ended(_)
        | Kind::Saved(_)
        | Kind::LogChunk(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_loop_hangs_falls_silent_until_it_goes_on() {
    for poll in [false, true] {
        let (mut scene, _) = Scene::with(false, |server, _| {
            if poll {
                server.want_poll();
            }
        })
        .await;
        scene.server.hear(is_beat).await;
        scene.grant(bundle(&["hang"], &[], 1)).await;
        until("it hangs", || scene.engine.starts().len() == 1).await;
        let silent = async {
            loop {
                let next = tokio::time::timeout(TEN_BEATS, scene.server.hear(is_beat));
                if next.await.is_err() {
                    return;
                }
            }
        };
        let silent = tokio::time::timeout(DEADLINE, silent).await;
        assert!(silent.is_ok(), "beats go on; poll: {poll}");
        scene.engine.go_on();
        scene.server.hear(is_beat).await;
        scene.server.ended(super::id(0)).await;
        scene.agent.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_loop_breaks_ends() {
    let (scene, _) = Scene::new().await;
    scene.grant(bundle(&["break"], &[], 1)).await;
    let ended = tokio::time::timeout(DEADLINE, scene.agent.work).await;
    let error = ended.expect("it ends").unwrap().unwrap_err();
    assert!(
        matches!(&error, AgentError::Engine(why) if why.contains("loop broke")),
        "{error}"
    );
}
