//! Sources against real counterparts: a message bus with mocked services, an X display, a Wayland
//! compositor. The programs come from the distribution; `cargo xtask test sense` installs them.

#[cfg(test)]
mod bus;
#[cfg(test)]
mod display;
#[cfg(test)]
mod pc;
