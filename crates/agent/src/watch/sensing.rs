//! Where samples and events come from, as the loops see it. What reads the PC is another crate's
//! matter; a test puts its own words in here.

use super::heard::{Heard, Sensed};
use super::status::Source;
use gleaner_engine_process::own_processors;
use gleaner_harvest::{Resource, Sample};
use gleaner_model::Time;
use gleaner_sense::{OwnTime, SenseConfig, SenseEvent, Sensors, SourceState};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs};

/// The sensors of a PC.
pub(crate) trait Sensing: Send + Sync + fmt::Debug {
    /// What they know now. Never blocks for longer than a file of the kernel takes.
    fn sample(&self, now: Time) -> Sample;

    /// Each of them and how it does.
    fn sources(&self) -> Vec<Source>;

    /// The PC's processors that tasks can run on, by number.
    fn processors(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Tasks stand still: the PC may sleep now.
    fn ready_to_sleep(&self) {}
}

/// Where events go. Called from threads of the sensors; never blocks.
#[derive(Debug, Clone)]
pub(crate) struct SensedSink(pub(super) mpsc::Sender<Heard>);

impl SensedSink {
    pub(crate) fn send(&self, event: Sensed) {
        if self.0.send(Heard::Sensed(event)).is_err() {
            tracing::trace!(target: "gleaner::watch", "stopped; an event came too late");
        }
    }
}

/// The sensors of this PC.
#[derive(Debug)]
struct ThisPc(Sensors);

impl Sensing for ThisPc {
    fn sample(&self, now: Time) -> Sample {
        self.0.sample(now)
    }

    fn sources(&self) -> Vec<Source> {
        let now = wall();
        let reports = self.0.sources().into_iter();
        reports
            .map(|report| Source {
                name: report.name.to_owned(),
                state: match report.state {
                    SourceState::Absent => "absent",
                    SourceState::Failed => "failed",
                    SourceState::Seen => "seen",
                }
                .to_owned(),
                found: match report.fix {
                    Some(fix) => format!("{}; {fix}", report.detail),
                    None => report.detail,
                },
                at: report.age.map(|age| Time {
                    ms: now.ms.saturating_sub(age.ms),
                }),
            })
            .collect()
    }

    fn processors(&self) -> Vec<u32> {
        own_processors()
    }

    fn ready_to_sleep(&self) {
        self.0.ready_to_sleep();
    }
}

fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis();
    Time {
        ms: u64::try_from(ms).unwrap_or(u64::MAX),
    }
}

/// Senses this PC; processor time of `own` is that of tasks, and the disk under `home` counts.
pub(crate) fn this_pc(own: OwnTime, home: &Path, desktops: bool) -> Begin {
    let config = SenseConfig {
        own,
        disk: Some(home.to_owned()),
        session_socket: SenseConfig::usual_session_socket().filter(|socket| {
            let made = socket.parent().map(fs::create_dir_all);
            desktops && made.is_some_and(|made| made.is_ok())
        }),
        ..SenseConfig::this_pc()
    };
    Box::new(move |sink| {
        let events = move |event| {
            sink.send(match event {
                SenseEvent::Input => Sensed::Input,
                SenseEvent::MemoryPressed => Sensed::Pressed(Resource::Memory),
                SenseEvent::DiskPressed => Sensed::Pressed(Resource::Disk),
                SenseEvent::Sleeping(asleep) => Sensed::Sleeping(asleep),
                SenseEvent::Changed => Sensed::Changed,
            });
        };
        Arc::new(ThisPc(Sensors::start(config, Arc::new(events))))
    })
}

/// Begins sensing, once it is known where events go.
pub(crate) type Begin = Box<dyn FnOnce(SensedSink) -> Arc<dyn Sensing> + Send>;

/// A PC without any sensor: nobody is there to be disturbed, as far as it can tell.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Sensing for Nothing {
    fn sample(&self, now: Time) -> Sample {
        Sample {
            at: now,
            ..Sample::default()
        }
    }

    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }
}
