//! Reads the PC: what its owner does, what programs use, what power, heat and disk say.
//!
//! Owns the sources, each on its own: none of them can hang or crash the agent, and each word has
//! its age. It must not know what follows from a word (the judgement is `harvest`'s) nor what an
//! owner types, runs or sees: readers drop codes, names and titles where they meet them, and keep
//! times, counts and yes or no. Data comes from the kernel, the system's message bus and small
//! processes in the owners' desktops ([`user_session`]); it leaves as a [`Sample`] when asked, and
//! as [`SenseEvent`]s when something cannot wait for the next question.
//!
//! A source that this PC does not have is *absent*; one that it has but that cannot be read has
//! *failed*, and says what to do about it.
#![warn(missing_docs)]

mod board;
mod bus;
mod config;
mod desktops;
mod disk;
mod event;
mod hardware;
mod input;
mod kernel;
mod logind;
mod moment;
mod network;
mod own;
mod sensors;
mod slot;
mod terminal;
mod thread;
pub mod user_session;

pub use config::SenseConfig;
pub use event::{EventSink, SenseEvent};
pub use gleaner_model::{Sample, Signal};
pub use own::{AskTime, OwnTime};
pub use sensors::Sensors;
pub use slot::{SourceReport, SourceState};
