//! End-to-end tests, by question. They know the product by its command line alone, as users do:
//! the real binary, real sandboxes, TLS, durable state.
//!
//! The binary is `$GLEANER_BIN`, else cargo builds it once. `GLEANER_LONG=1` asks for more rounds,
//! `GLEANER_ROUNDS=1000` for so many deaths of the server.
#![forbid(unsafe_code)]

#[cfg(test)]
mod bad_days;
#[cfg(test)]
mod bad_job_files;
#[cfg(test)]
mod checkpoints;
#[cfg(test)]
mod first_light;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod foreign;
#[cfg(feature = "guests")]
#[cfg(test)]
mod guests;
#[cfg(test)]
mod images;
#[cfg(test)]
mod impact;
#[cfg(test)]
mod job_files;
#[cfg(test)]
mod names;
#[cfg(test)]
mod overhead;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod recipes;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod steering;
#[cfg(test)]
mod watch;
