//! The server over real TLS: a REST client, and an agent that only pretends to run programs.

mod agent;
mod blobs;
mod broken;
mod delete;
mod full;
mod images;
mod life;
mod lost;
mod merges;
mod names;
mod nodes;
mod pool;
mod silence;
