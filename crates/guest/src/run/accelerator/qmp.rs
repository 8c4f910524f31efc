//! The few words that we say to QEMU: its machine protocol, one line of JSON each way.
//! Source: "QEMU Machine Protocol Specification" and "QEMU QMP Reference Manual".

use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt::set_socket_timeout,
};
use serde_json::{Value, json};
use std::io::{self, BufRead as _, BufReader, IoSlice, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest line that is taken, in bytes; answers to what we ask are a few hundred.
const LINE_MAX_BYTES: u64 = 256 << 10;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// Events between a question and its answer that are passed over.
const EVENTS_MAX: usize = 1000;

/// Between two looks at something that takes a while.
const LOOK: Duration = Duration::from_millis(20);

/// The line to one QEMU.
pub(super) struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    /// Takes the greeting off the line. QEMU must have been started before.
    pub(super) fn greet(socket: OwnedFd) -> io::Result<Self> {
        use rustix::net::sockopt::Timeout;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))?;
        let lines = BufReader::new(UnixStream::from(socket));
        let mut monitor = Self { lines };
        monitor.line()?;
        monitor.ask("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.lines).take(LINE_MAX_BYTES);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Err(io::Error::other("QEMU has hung up"));
        }
        Ok(serde_json::from_slice(&line)?)
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        self.ask_with(command, arguments, None)
    }

    /// Asks, and hands over a descriptor with the question.
    pub(super) fn ask_with(
        &mut self,
        command: &str,
        arguments: Value,
        with: Option<BorrowedFd<'_>>,
    ) -> io::Result<Value> {
        let question = json!({ "execute": command, "arguments": arguments });
        let mut text = serde_json::to_vec(&question)?;
        text.push(b'\n');
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let handed: Vec<BorrowedFd<'_>> = with.into_iter().collect();
        if !handed.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&handed));
        }
        let socket = self.lines.get_ref().as_fd();
        let sent = sendmsg(
            socket,
            &[IoSlice::new(&text)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        if sent != text.len() {
            return Err(io::Error::other("QEMU does not listen"));
        }
        for _ in 0..EVENTS_MAX {
            let mut line = self.line()?;
            if let Some(error) = line.get("error") {
                let said = error.get("desc").and_then(Value::as_str);
                let said = said.unwrap_or("no reason");
                return Err(io::Error::other(format!("QEMU refused {command}: {said}")));
            }
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
        }
        Err(io::Error::other("QEMU talks and does not answer"))
    }

    /// Writes memory and devices to a file, from where its offset is.
    pub(super) fn migrate(&mut self, to: BorrowedFd<'_>, most: Duration) -> io::Result<()> {
        // As fast as the disk takes it: nothing of the guest runs meanwhile.
        self.ask(
            "migrate-set-parameters",
            json!({ "max-bandwidth": 1_u64 << 40 }),
        )?;
        self.ask_with("getfd", json!({ "fdname": "save" }), Some(to))?;
        self.ask("migrate", json!({ "uri": "fd:save" }))?;
        let begun = Instant::now();
        loop {
            let state = self.ask("query-migrate", json!({}))?;
            match state.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some(status @ ("failed" | "cancelled")) => {
                    let why = state.get("error-desc").and_then(Value::as_str);
                    let why = why.unwrap_or("it does not say why");
                    return Err(io::Error::other(format!("QEMU's save {status}: {why}")));
                }
                _ if begun.elapsed() > most => {
                    self.ask("migrate_cancel", json!({}))?;
                    return Err(io::Error::other("QEMU took too long to save"));
                }
                _ => std::thread::sleep(LOOK),
            }
        }
    }

    /// Waits until a machine that was saved has been read in.
    pub(super) fn arrived(&mut self, most: Duration) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let state = self.ask("query-status", json!({}))?;
            match state.get("status").and_then(Value::as_str) {
                Some("inmigrate") if begun.elapsed() < most => std::thread::sleep(LOOK),
                Some("inmigrate") => return Err(io::Error::other("QEMU took too long to restore")),
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn events_are_passed_over_and_refusals_are_errors() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs
            .write_all(
                b"{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"STOP\"}\n\
                  {\"return\": {\"status\": \"paused\"}}\n\
                  {\"error\": {\"desc\": \"no such thing\"}}\n",
            )
            .unwrap();
        let mut monitor = Monitor::greet(ours.into()).unwrap();
        monitor.arrived(Duration::ZERO).unwrap();
        let error = monitor.ask("x", json!({})).unwrap_err().to_string();
        assert_eq!(error, "QEMU refused x: no such thing");
        drop(theirs);
        monitor.ask("x", json!({})).unwrap_err();
    }
}
