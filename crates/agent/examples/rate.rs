#![allow(warnings, clippy::all)]
#[path = "../src/tests/server.rs"]
mod server;
use gleaner_agent::*;
use gleaner_model::*;
use gleaner_wire::v1::agent_message::Kind;
use gleaner_wire::v1::{self, server_message};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

fn cpu(pid: &str) -> f64 {
    let s = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let f: Vec<&str> = s
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    if f.len() < 15 {
        return 0.0;
    }
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn threads() -> std::collections::BTreeMap<String, f64> {
    let mut m = std::collections::BTreeMap::new();
    for e in std::fs::read_dir("/proc/self/task").unwrap() {
        let p = e.unwrap().path();
        let Ok(name) = std::fs::read_to_string(p.join("comm")) else {
            continue;
        };
        let Ok(s) = std::fs::read_to_string(p.join("schedstat")) else {
            continue;
        };
        *m.entry(name.trim().to_string()).or_insert(0.0) +=
            s.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9;
    }
    m
}
fn main() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if gleaner_engine_process::is_shim_call(&args) {
        gleaner_engine_process::shim_main(&args);
        return;
    }
    if gleaner_engine_process::priority::is_spin_call(&args) {
        gleaner_engine_process::priority::spin_main();
        return;
    }
    let n: u32 = args[1].to_str().unwrap().parse().unwrap();
    let per: u32 = 256;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async move {
            let mut server = server::FakeServer::start(true).await;
            let data = tempfile::tempdir().unwrap();
            let stop = CancellationToken::new();
            let mut config = AgentConfig::new(
                &server.url(),
                Token::new(&server.token()),
                data.path().to_owned(),
            );
            config.self_test = false;
            config.group = Some("gleaner-rate.slice".into());
            config.at_stop = AtStop::End;
            config.cpus = Some(Cpus { milli: 2000 });
            let s2 = stop.clone();
            let work = tokio::spawn(async move { run(config, s2).await });
            let hello = server.hello().await;
            eprintln!("hello {:?}", hello.refused);
            let t = Instant::now();
            let before = threads();
            let bundle = |lease: u32| v1::Bundle {
                lease: lease as u64 + 1,
                job: 1,
                width: 2,
                template: (lease == 0).then(|| v1::Template {
                    command: vec!["/bin/true".into()],
                    limits: serde_json::to_vec(&Limits::default()).unwrap(),
                    engine: "process".into(),
                    ..Default::default()
                }),
                tasks: (0..per)
                    .map(|i| v1::Task {
                        index: lease * per + i,
                        number: 1,
                        ..Default::default()
                    })
                    .collect(),
            };
            let bundles = n / per;
            let mut sent = 0;
            let mut done = 0u32;
            while sent < 2.min(bundles) {
                server
                    .send(server_message::Kind::Bundle(bundle(sent)))
                    .await;
                sent += 1;
            }
            while done < bundles * per {
                let r = server
                    .hear(|k| match k {
                        Kind::Ended(e) => Some(e.reason.clone()),
                        _ => Some(vec![]),
                    })
                    .await;
                if r.is_empty() {
                    continue;
                }
                if !r.starts_with(b"{\"kind\":\"exit\",\"code\":0") {
                    eprintln!("{}", String::from_utf8_lossy(&r));
                }
                done += 1;
                if done % per == 0 && sent < bundles {
                    server
                        .send(server_message::Kind::Bundle(bundle(sent)))
                        .await;
                    sent += 1;
                }
            }
            let s = t.elapsed().as_secs_f64();
            println!("{done} tasks in {s:.2} s: {:.0}/s", done as f64 / s);
            let after = threads();
            for (k, v) in after {
                println!(
                    "{k:20} {:.1} us/task",
                    (v - before.get(&k).copied().unwrap_or(0.0)) * 1e6 / done as f64
                );
            }
            stop.cancel();
            println!("{:?}", work.await);
        });
}
