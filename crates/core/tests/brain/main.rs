//! The brain through its public face: every event, every refusal, random histories, restarts.

mod ends;
mod events;
mod explain;
mod matching;
mod pool;
mod random;
mod restart;
mod shares;
mod users;
