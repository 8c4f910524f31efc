//! The brain through its public face: every event, every refusal, random histories, restarts.
#![expect(clippy::wildcard_enum_match_arm, reason = "tests pick out one variant")]

#[cfg(test)]
mod ends;
#[cfg(test)]
mod engines;
#[cfg(test)]
mod events;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod large;
#[cfg(test)]
mod matching;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod random;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod saves;
#[cfg(test)]
mod shares;
#[cfg(test)]
mod users;
#[cfg(test)]
mod views;
