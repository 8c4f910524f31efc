//! What sensing costs this PC, and how soon a touch is told: prints the share of one processor,
//! the memory, and the delay from an event written by a device to [`SenseEvent::Input`].
//!
//! `cargo run --release -p gleaner-sense --example cost -- [SECONDS]`
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

use gleaner_sense::{SenseConfig, SenseEvent, Sensors};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Touches whose delay is measured.
const TOUCHES: usize = 100;

/// Between two touches, longer than the pause that sensors make after one.
const GAP: Duration = Duration::from_millis(150);

fn main() -> io::Result<()> {
    let seconds = std::env::args().nth(1).and_then(|word| word.parse().ok());
    let span = Duration::from_secs(seconds.unwrap_or(30));
    cost(span);
    delays()
}

/// All sources of this PC while nothing happens.
fn cost(span: Duration) {
    let config = SenseConfig {
        disk: Some("/".into()),
        ..SenseConfig::this_pc()
    };
    let sensors = Sensors::start(config, Arc::new(|_| {}));
    let start = used();
    std::thread::sleep(span);
    let share = (used() - start) * 100.0 / span.as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().find(|line| line.starts_with("VmRSS"));
    println!("{share:.3} % of one processor over {} s", span.as_secs());
    println!("{}", memory.unwrap_or("memory unknown"));
    for source in sensors.sources() {
        println!("{:10} {:?}: {}", source.name, source.state, source.detail);
    }
}

/// Processor time of this process, in seconds.
fn used() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
    .as_secs_f64()
}

/// From a touch to its event. A pipe stands for the device.
fn delays() -> io::Result<()> {
    let dev = std::env::temp_dir().join(format!("gleaner-cost-{}", std::process::id()));
    fs::create_dir_all(dev.join("input"))?;
    let measured = measure(&dev);
    fs::remove_dir_all(&dev)?;
    let mut delays = measured?;
    delays.sort();
    let at = |share: usize| delays[(delays.len() - 1) * share / 100];
    println!(
        "touch to event: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(100)
    );
    Ok(())
}

fn measure(dev: &Path) -> io::Result<Vec<Duration>> {
    let path = dev.join("input/event0");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let mut device = File::options().read(true).write(true).open(&path)?;
    let (sender, events) = channel();
    let config = SenseConfig {
        dev: Some(dev.to_owned()),
        ..SenseConfig::nothing()
    };
    let sink = Arc::new(move |event| {
        let _over = sender.send((event, Instant::now()));
    });
    let _sensors = Sensors::start(config, sink);
    let mut event = [0_u8; 24];
    event[16] = 1;
    let mut delays = Vec::new();
    for _ in 0..TOUCHES {
        std::thread::sleep(GAP);
        let touched = Instant::now();
        device.write_all(&event)?;
        let told = events.iter().find(|(event, _)| *event == SenseEvent::Input);
        let (_, at) = told.ok_or(io::ErrorKind::BrokenPipe)?;
        delays.push(at - touched);
    }
    Ok(delays)
}
